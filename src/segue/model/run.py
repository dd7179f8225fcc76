"""A run as the store knows it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal

import msgspec

from .chat import Tokens
from .entry import Failure
from .mode import KEEP, Config

#: `ready` wants a worker; `parked` waits for mail or for its time; `held` waits for a person; the rest ended.
Status = Literal["ready", "parked", "held", "done", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled"})


def is_over(status: str) -> bool:
    """Whether a run in that status goes on no more by itself: it ended, or waits for a person's decision."""
    return status in ENDED or status == "held"


#: The lane of calls that were answered by what was paid before: their tokens cost nothing.
REUSED: Final = "reused"

#: The `digest` of the call that started a supervised run.
CHILD: Final = b"child"


class CallRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A call of a run, from outside it. `digest` is its check, if it goes along: another call may stand there now."""

    run: str
    path: str
    n: int
    digest: bytes = b""


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What never changes of a run, but for its `config` when it is resumed with another one.

    `target` is the registered name of a flow or actor; `args` the JSON of `[args, kwargs]` (of an actor:
    its first fields); `version` the author's or a fingerprint of the source; `python` the minor version.
    `parent` is the call that awaits this run's end. Of the runs of one `group`, a worker keeps at most `limit`
    at work at once; parked ones don't count. `mailbox`: so many messages wait for it at most; when it is `full`, the
    next one waits with its sender, is dropped, or fails.
    `history`: how long its past turns are kept, where its class says so.
    """

    kind: Literal["flow", "actor"]
    target: str
    args: bytes
    config: Config = Config()
    version: str = ""
    format: int = 1
    python: str = ""
    parent: CallRef | None = None
    job: str = ""
    index: int = 0
    key: str = ""
    group: str = ""
    limit: int = 0
    origin: str = ""  #: the run that this one was forked from
    created: float = 0.0
    mailbox: int = 0
    full: Literal["wait", "drop", "fail"] = "wait"
    supervised: str = ""  #: by its parent, and whether it begins anew: permanent, transient, temporary
    module: str = ""  #: where `target` was defined, to tell it from others of its name
    seed: str = ""  #: what ids and chance are drawn from where that isn't the id: a fork's is its origin's
    history: timedelta | None = None
    forked: float = 0.0  #: of a fork: when. `created` is its origin's, from which its replayed time goes on

    @property
    def code(self) -> str:
        """What it is of, told from others of its target's name."""
        return f"{self.target}\n{self.module}\n{self.version}"

    @property
    def begun(self) -> float:
        """When it was made itself."""
        return self.forked or self.created

    @property
    def kept(self) -> timedelta:
        """How long what it did before its checkpoint is kept: `KEEP` for ever, `DROP` not at all."""
        said = self.config.history if self.history is None else self.history
        return KEEP if said is None else said


class Usage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Model use of a run, summed by model and lane: `live`, `batch`, a window between them such as `2h`, or `reused`.

    Input tokens include those that were read from the provider's cache, and those that were written into it.
    """

    model: str
    lane: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0

    def plus(self, tokens: Tokens) -> Usage:
        """With one more call."""
        return Usage(
            self.model,
            self.lane,
            self.calls + 1,
            self.input_tokens + tokens.input,
            self.output_tokens + tokens.output,
            self.cached_tokens + tokens.cached,
            self.written_tokens + tokens.written,
        )

    def joined(self, other: Usage) -> Usage:
        """With another use of that model and lane."""
        return Usage(
            self.model,
            self.lane,
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.written_tokens + other.written_tokens,
        )


class Head(msgspec.Struct, frozen=True, gc=False):
    """A run's own record.

    `status` and `reason` (of a held run: why; its first line is the `cause`, the same for all runs held for it);
    `wake` is when a parked run becomes ready by itself, in seconds since the epoch; `finished` is the
    place in the order in which the store's runs ended, from 1, 0 while it goes on. `damage`: what of it can't be read
    and stands empty here, in words; where that is its spec, little of that is known.
    """

    id: str
    spec: Spec
    status: Status
    fence: int = 0
    wake: float | None = None
    reason: str = ""
    value: bytes | None = None
    error: Failure | None = None
    usage: list[Usage] = []
    finished: int = 0
    updated: float = 0.0
    damage: str = ""

    @property
    def mark(self) -> str:
        """What tells it from all runs, those of the same id in other stores too."""
        return f"{self.id}@{round(self.spec.begun * 1e6):x}"

    @property
    def cause(self) -> str:
        """Why a run is held, without what is only this run's."""
        return self.reason.partition("\n")[0]
