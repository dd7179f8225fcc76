"""What a watcher of a run sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec

from ...core.homes import ELSEWHERE
from ...model.entry import Failure
from ...model.message import Question

if TYPE_CHECKING:
    from typing import Self

    from ..handles import Ask


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that happened in a run. `path` and `n` name the call that it belongs to, if any."""

    run: str
    path: str = ""
    n: int = -1


class Token(Event, frozen=True, kw_only=True, tag=True):
    """A piece of a model's answer. Not durable: a retried call streams anew, under a higher `attempt`."""

    text: str
    attempt: int = 1

    @property
    def call(self) -> str:
        """The call that speaks, as `path#n`."""
        return f"{self.path}#{self.n}"


class Retrying(Event, frozen=True, kw_only=True, tag=True):
    """A live model call failed for a passing reason and is tried again, in `wait` seconds. Not durable.

    `model` is the host where a request asks none; `status` is that of HTTP, 0 where there was none.
    """

    model: str
    attempt: int
    status: int
    message: str
    wait: float


class Started(Event, frozen=True, kw_only=True, tag=True):
    """A call is being carried out here. Not durable."""

    kind: str
    name: str


class Waiting(Event, frozen=True, kw_only=True, tag=True):
    """A call of that name has waited for a second for `what`: "a thread: none of 64 is free". Not durable.

    `n` of a step that is tried again is that of its first attempt.
    """

    name: str
    what: str


class Recorded(Event, frozen=True, kw_only=True, tag=True):
    """A call's outcome is in the journal. `reused`: it was paid before, for the same request."""

    kind: str
    name: str
    value: bytes | None = None
    error: Failure | None = None
    reused: bool = False


class Asked(Event, frozen=True, kw_only=True, tag=True):
    """A question is open: `await event.ask.answer(…)`."""

    question: Question

    @classmethod
    def of(cls, question: Question) -> Self:
        """The event that tells of it."""
        return cls(run=question.run, path=question.path, n=question.n % ELSEWHERE, question=question)

    @property
    def ask(self) -> Ask:
        """The question, to be answered through the engine of this process. Raises `WrongPlace` outside of one."""
        from ..handles import Ask, Run

        return Ask(Run(None, self.run).engine, self.question)


class Emitted(Event, frozen=True, kw_only=True, tag=True):
    """What the code told with `segue.emit`, as plain JSON values."""

    value: Any


class Blocked(Event, frozen=True, kw_only=True, tag=True):
    """The run's code kept the event loop from everything else, for so many seconds so far. Told once a place.

    `step` is empty where it is the flow or a handler itself; `where` is `file:line in function`.
    """

    target: str
    step: str
    where: str
    seconds: float


class Finished(Event, frozen=True, kw_only=True, tag=True):
    """The run ended, or is held (`reason` says why)."""

    status: str
    value: bytes | None = None
    error: Failure | None = None
    reason: str = ""
