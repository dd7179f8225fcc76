"""A batch as a state machine: no clock, no I/O; moments come in, events that are due go out."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Self

import msgspec

__all__ = ["Batch", "BatchError", "Checked", "Event", "Job", "Line", "Outcome", "Pace", "Row"]

Status = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})

_WAVES = 100


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long each state takes, in seconds; `working` is the least time `in_progress` takes."""

    validating: float
    working: float
    finalizing: float
    cancelling: float

    @property
    def whole(self) -> float:
        """From creation to the end."""
        return self.validating + self.working + self.finalizing

    @classmethod
    def of(cls, batch_time: timedelta) -> Self:
        """A tenth to validate, eight tenths to work, a tenth to finalize; a tenth to cancel."""
        tenth = batch_time.total_seconds() / 10
        return cls(validating=tenth, working=8 * tenth, finalizing=tenth, cancelling=tenth)


class BatchError(msgspec.Struct, frozen=True):
    """Why a batch failed; `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Line(msgspec.Struct, frozen=True):
    """One request of a batch; the body is JSON."""

    custom_id: str
    body: bytes


class Outcome(msgspec.Struct, frozen=True):
    """How a line that was worked on ended. The tokens are those that were paid for."""

    index: int
    status: int
    body: dict[str, Any]
    tokens_in: int = 0
    tokens_out: int = 0


class Batch(msgspec.Struct, kw_only=True):
    """What is known of a batch, whoever asked for it.

    `input_file_id` holds its requests, `output_file_id` and `error_file_id` how they ended. `asked` is what else
    its dialect wants to know of it. `ordered`: results come in the order of the requests. `works`: the share of its
    lines that it gets done, the rest expires. `late`: how much longer its validation takes.
    """

    id: str
    number: int
    dialect: str
    endpoint: str
    input_file_id: str
    asked: dict[str, Any] = {}
    created_at: float
    expires_at: float
    ordered: bool = False
    works: float = 1.0
    late: float = 0.0
    status: Status = "validating"
    model: str | None = None
    errors: list[BatchError] = []
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    enqueued_tokens: int = 0

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL


class Row(msgspec.Struct, frozen=True):
    """A line of a result file to be: under which id, and how it ended; None if it wasn't worked on."""

    id: str
    index: int
    outcome: Outcome | None


class Event(NamedTuple):
    """What happens to a batch next of itself, and when."""

    at: float
    what: Literal["validate", "wave", "finalize", "complete", "expire", "cancel"]


class Job:
    """A batch that isn't over, with its lines.

    Whoever drives it asks for `next()`, and once that moment is there calls the method of the event. Lines
    are handed out in waves, each is begun and then recorded; one that was begun is always recorded, whatever
    became of the batch, since it is paid for.
    """

    def __init__(self, batch: Batch, pace: Pace, *, gradual: bool = True, seed: int = 0) -> None:
        self.batch = batch
        self.lines: list[Line] = []
        self.outcomes: dict[int, Outcome] = {}
        self._pace = pace
        self._gradual = gradual
        self._seed = seed
        self._order: list[int] = []
        self._handed = 0
        self._pending = 0

    def next(self) -> Event | None:
        """The event that comes of itself; None while lines that were begun have to end first."""
        batch = self.batch
        match batch.status:
            case "validating":
                return self._or_expire(
                    Event(batch.created_at + self._pace.validating + batch.late, "validate")
                )
            case "in_progress":
                return self._or_expire(self._next_work())
            case "finalizing":
                return Event((batch.finalizing_at or 0.0) + self._pace.finalizing, "complete")
            case "cancelling" if not self._pending:
                return Event((batch.cancelling_at or 0.0) + self._pace.cancelling, "cancel")
        return None

    def load(self, lines: list[Line]) -> None:
        """Take the lines."""
        self.lines = lines
        self._order = list(range(len(lines)))
        self._random("work").shuffle(self._order)

    def restore(self, outcome: Outcome) -> None:
        """Take the outcome of a line that was worked on before a restart."""
        self._pending += 1
        self.record(outcome)

    def start(self, checked: Checked, at: float) -> None:
        """Begin to work on what was found valid."""
        self.load(checked.lines)
        self.batch.status = "in_progress"
        self.batch.in_progress_at = at
        self.batch.model = checked.model
        self.batch.total = len(checked.lines)
        self.batch.enqueued_tokens = checked.tokens

    def fail(self, errors: list[BatchError], at: float) -> None:
        """End before any work."""
        self.batch.status = "failed"
        self.batch.failed_at = at
        self.batch.errors = errors

    def wave(self, at: float) -> list[int]:
        """The lines that are due by now and weren't handed out yet."""
        first = self._handed
        while self._handed < self._most and self._due(self._handed) <= at:
            self._handed += 1
        due = [index for index in self._order[first : self._handed] if index not in self.outcomes]
        self._pending += len(due)
        return due

    def begin(self, now: float) -> bool:
        """Whether a line that was handed out is worked on, or given up since the batch is about to end."""
        if self.batch.status == "in_progress" and now <= self.batch.expires_at:
            return True
        self._pending -= 1
        return False

    def record(self, outcome: Outcome) -> None:
        """A line that was begun has ended."""
        self._pending -= 1
        self.outcomes[outcome.index] = outcome
        batch = self.batch
        if outcome.status == 200:
            batch.completed += 1
            batch.tokens_in += outcome.tokens_in
            batch.tokens_out += outcome.tokens_out
        else:
            batch.failed += 1

    def finalize(self, at: float) -> None:
        """All lines have ended."""
        self.batch.status = "finalizing"
        self.batch.finalizing_at = at

    def request_cancel(self, at: float) -> None:
        """Begin no more lines."""
        self.batch.status = "cancelling"
        self.batch.cancelling_at = at

    def close(self, what: Literal["complete", "expire", "cancel"], at: float) -> None:
        """End, with whatever was done."""
        batch = self.batch
        match what:
            case "complete":
                batch.status, batch.completed_at = "completed", at
            case "expire":
                batch.status, batch.expired_at = "expired", at
            case "cancel":
                batch.status, batch.cancelled_at = "cancelled", at

    def rows(self) -> list[Row]:
        """What the result files will hold, in an order given by seed and batch, not by the input."""
        order = list(range(len(self.lines)))
        if not self.batch.ordered:
            self._random("result").shuffle(order)
        return [Row(self.lines[index].custom_id, index, self.outcomes.get(index)) for index in order]

    @property
    def _most(self) -> int:
        """How many lines will be handed out."""
        return int(len(self._order) * self.batch.works)

    def _next_work(self) -> Event | None:
        started = self.batch.in_progress_at or 0.0
        if self._handed < self._most:
            return Event(self._due(self._handed), "wave")
        if len(self.outcomes) == len(self.lines) and self.batch.works == 1:
            return Event(started + self._pace.working, "finalize")
        return None

    def _or_expire(self, event: Event | None) -> Event | None:
        if self._pending or (event is not None and event.at <= self.batch.expires_at):
            return event
        return Event(self.batch.expires_at, "expire")

    def _due(self, position: int) -> float:
        started = self.batch.in_progress_at or 0.0
        if not self._gradual:
            return started
        waves = min(len(self._order), _WAVES)
        wave = position * waves // len(self._order)
        return started + self._pace.working * (wave + 1) / waves

    def _random(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}:{self.batch.id}:{purpose}")


class Checked(msgspec.Struct, frozen=True):
    """What a validation found; without errors the lines can be worked on."""

    lines: list[Line]
    model: str | None
    tokens: int
    errors: list[BatchError]
