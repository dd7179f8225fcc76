"""How model calls are carried out, and the other options that a run is started with."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, get_args

import msgspec

from . import checks
from .budget import Account, Budget, Limit
from .upkeep import Summarise, Trim


class Live(msgspec.Struct, frozen=True, tag="live", kw_only=True, gc=False):
    """Model calls are sent at once and streamed. `concurrency`: calls in flight to one model of one endpoint, in one
    process; there are fewer where the endpoint bears fewer.
    """

    concurrency: int = 256

    def __post_init__(self) -> None:
        checks.count("concurrency of Live()", self.concurrency)


#: What becomes of a call whose answer isn't there in time: it waits on, is sent live as well, or fails.
Late = Literal["wait", "live", "fail"]


class Batch(msgspec.Struct, frozen=True, tag="batch", kw_only=True, gc=False):
    """Model calls are pooled into a provider's batch jobs, at half the price.

    `within`: when answers are wanted, from when a call is made; where a provider has ways between live and batch, as
    OpenAI's Responses have for two and eight hours, the slowest that is in time is taken, or else the soonest. `late`:
    what becomes of a call that isn't answered by then. It waits; with `"live"` it is sent live in time, once, and the
    first answer counts; with `"fail"` it raises `DeadlineMissed`. A run's or call's `deadline` takes the place of
    `within`, and then a late call is sent live unless it is to fail. `max_age`: how long the oldest line waits for
    company at most. `max_lines` and `max_bytes`: the size of a job, never above what the provider takes.
    """

    within: timedelta = timedelta(hours=24)
    late: Late = "wait"
    max_lines: int = 50_000
    max_bytes: int = 190_000_000
    max_age: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        checks.seconds("within of Batch()", self.within)
        checks.seconds("max_age of Batch()", self.max_age)
        checks.one_of("late of Batch()", self.late, get_args(Late))
        checks.count("max_lines of Batch()", self.max_lines)
        checks.count("max_bytes of Batch()", self.max_bytes)


Mode = Live | Batch
ModeLike = Literal["live", "batch"] | Live | Batch


def as_mode(mode: ModeLike) -> Mode:
    """`"live"` and `"batch"` are short for their defaults."""
    match mode:
        case Live() | Batch():
            return mode
        case "live":
            return Live()
        case "batch":
            return Batch()
    raise ValueError(f"mode must be 'live', 'batch', Live(...) or Batch(...), not {mode!r}")


#: What becomes of an actor's past turns: kept, dropped, or kept for so long.
HistoryLike = Literal["keep", "drop"] | timedelta
KEEP, DROP = timedelta.max, timedelta(0)


def as_history(history: HistoryLike) -> timedelta:
    """How long past turns are kept. Raises `ValueError`."""
    match history:
        case "keep":
            return KEEP
        case "drop":
            return DROP
        case timedelta() if history > DROP:
            return history
    raise ValueError(f"history must be 'keep', 'drop' or a timedelta above nothing, not {history!r}")


class Config(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a run was started with. `None` means: as the engine says. Recorded with the run.

    `model` is a name such as `openai:gpt-5-mini`, or several, the later ones being fall-backs.
    `models` gives names to roles. `upkeep`: what becomes of conversations that near their model's window.
    `deadline`: how long from its start a run may take; `due`: when that is over, in seconds since the epoch, 0 where
    nothing has started yet: then it counts from when a call is made. `history`: how long past turns are kept.
    `reuse`: whether a request that was answered before, or no longer ago than that, is given that answer again.
    `budget`: of what is started with it; `accounts`: all that apply, once it has started.
    """

    mode: Mode | None = None
    model: tuple[str, ...] = ()
    models: dict[str, tuple[str, ...]] = {}
    tags: dict[str, str] = {}
    priority: int = 0
    upkeep: Trim | Summarise | None = None
    deadline: timedelta | None = None
    due: float = 0.0
    history: timedelta | None = None
    reuse: bool | timedelta | None = None
    budget: Budget | None = None
    accounts: tuple[Account, ...] = ()

    def opened(self, account: str) -> Config:
        """As the record of what its budget is for: from now on it is an account."""
        if self.budget is None:
            return self
        others = tuple(one for one in self.accounts if one.id != account)
        own = Account(account, Limit.of(self.budget))
        return msgspec.structs.replace(self, budget=None, accounts=(*others, own))

    def begun(self, now: float) -> Config:
        """As the record of what starts now: its deadline is a moment from here on."""
        if self.deadline is None or self.due:
            return self
        return msgspec.structs.replace(self, due=now + self.deadline.total_seconds())

    def begun_anew(self, now: float) -> Config:
        """As `begun`, for what starts over: an earlier moment holds no more."""
        return msgspec.structs.replace(self, due=0.0).begun(now)

    @property
    def pooled(self) -> Batch | None:
        """How calls are pooled, if they are: in batch mode, or where a deadline is all that is said."""
        if self.mode is None and self.deadline is not None:
            return Batch()
        return self.mode if isinstance(self.mode, Batch) else None

    def due_at(self, now: float) -> tuple[float, Late]:
        """When a pooled call that is made now is late, 0 for never, and what becomes of it then."""
        late: Late = "wait" if self.pooled is None else self.pooled.late
        if self.deadline is not None:
            return self.due or now + self.deadline.total_seconds(), "fail" if late == "fail" else "live"
        if self.pooled is None or late == "wait":
            return 0.0, "wait"
        return now + self.pooled.within.total_seconds(), late

    def answers_since(self, now: float) -> float | None:
        """From when on an answer will do for a call that is made now; None where it has to be its own."""
        if not self.reuse:
            return None
        return now - self.reuse.total_seconds() if isinstance(self.reuse, timedelta) else 0.0

    def instead_of(self, asked: Config) -> str:
        """What is in place of that which `asked` says otherwise, in words; nothing where it agrees or is silent."""
        mode = self.mode or Live()
        found: list[str] = []
        if asked.mode is not None and asked.mode != mode:
            found.append(f"mode {type(mode).__name__.lower() if mode == type(mode)() else mode}")
        if asked.model and asked.model != self.model:
            found.append(f"model {', '.join(self.model) or 'unsaid'}")
        if not asked.models.items() <= self.models.items():
            found.append(f"models {self.models}")
        if not asked.tags.items() <= self.tags.items():
            found.append(f"tags {self.tags}")
        if asked.upkeep is not None and asked.upkeep != self.upkeep:
            found.append(f"upkeep {self.upkeep}")
        if asked.priority and asked.priority != self.priority:
            found.append(f"priority {self.priority}")
        if asked.deadline is not None and asked.deadline != self.deadline:
            found.append(f"deadline {self.deadline or 'none'}")
        if asked.reuse is not None and asked.reuse != self.reuse:
            found.append(f"reuse {self.reuse or 'off'}")
        if not {one.id for one in asked.accounts} <= {one.id for one in self.accounts}:
            found.append("no budget" if not self.accounts else "other budgets")
        return ", ".join(found)

    def over(self, other: Config) -> Config:
        """This configuration where it says something, `other` elsewhere."""
        return Config(
            mode=self.mode if self.mode is not None else other.mode,
            model=self.model or other.model,
            models={**other.models, **self.models},
            tags={**other.tags, **self.tags},
            priority=self.priority or other.priority,
            upkeep=self.upkeep or other.upkeep,
            deadline=other.deadline if self.deadline is None else self.deadline,
            due=other.due if self.deadline is None else self.due,
            history=other.history if self.history is None else self.history,
            reuse=other.reuse if self.reuse is None else self.reuse,
            budget=self.budget or other.budget,
            accounts=_together(other.accounts, self.accounts),
        )


def _together(outer: tuple[Account, ...], inner: tuple[Account, ...]) -> tuple[Account, ...]:
    """All budgets that apply, each once."""
    if not inner or inner == outer:
        return outer
    known = {account.id for account in inner}
    return (*(account for account in outer if account.id not in known), *inner)
