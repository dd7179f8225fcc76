"""A batch as a state machine: no clock, no I/O; moments come in, events that are due go out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Self

import msgspec

from .completion import usage_of
from .replies import Failure

__all__ = ["Batch", "BatchError", "Checked", "Event", "Job", "Line", "Outcome", "Pace", "check", "results"]

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
    """How a line that was worked on ended."""

    index: int
    status: int
    body: dict[str, Any]


class Batch(msgspec.Struct, kw_only=True):
    """What is known of a batch; the wire shows most of it."""

    id: str
    number: int
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None
    created_at: float
    expires_at: float
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

    def view(self) -> dict[str, Any]:
        """As the wire has it."""
        moments = {
            name: _whole(getattr(self, name)) for name in self.__struct_fields__ if name.endswith("_at")
        }
        errors = [msgspec.to_builtins(error) for error in self.errors]
        return moments | {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.tokens_in,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.tokens_out,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.tokens_in + self.tokens_out,
            },
            "metadata": self.metadata,
        }


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
                return self._or_expire(Event(batch.created_at + self._pace.validating, "validate"))
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
        while self._handed < len(self._order) and self._due(self._handed) <= at:
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
            asked, said = usage_of(outcome.body)
            batch.tokens_in += asked
            batch.tokens_out += said
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

    def shuffled(self) -> list[int]:
        """The order of the lines in the result files: given by seed and batch, not by the input."""
        order = list(range(len(self.lines)))
        self._random("result").shuffle(order)
        return order

    def _next_work(self) -> Event | None:
        started = self.batch.in_progress_at or 0.0
        if self._handed < len(self._order):
            return Event(self._due(self._handed), "wave")
        if len(self.outcomes) == len(self.lines):
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


def check(
    content: bytes,
    endpoint: str,
    *,
    model_fault: Callable[[str], Failure | None],
    most_lines: int,
    most_errors: int = 100,
) -> Checked:
    """Read a batch's input file. Anything wrong with one line is an error of the whole."""
    seen = _Seen(endpoint, model_fault)
    for number, raw in _rows(content):
        if (wrong := seen.add(number, raw)) is not None and len(seen.errors) < most_errors:
            seen.errors.append(wrong)
    if not seen.lines and not seen.errors:
        seen.errors.append(BatchError("empty_file", "The batch input file is empty."))
    if len(seen.lines) > most_lines:
        message = f"The batch input file has more than {most_lines} requests."
        seen.errors.append(BatchError("too_many_tasks", message))
    tokens = sum(len(line.body) // 4 for line in seen.lines)
    return Checked(seen.lines, seen.model, tokens, seen.errors)


class _Seen:
    """The lines of a file so far."""

    def __init__(self, endpoint: str, model_fault: Callable[[str], Failure | None]) -> None:
        self.lines: list[Line] = []
        self.errors: list[BatchError] = []
        self.model: str | None = None
        self._endpoint = endpoint
        self._model_fault = model_fault
        self._ids: set[str] = set()

    def add(self, number: int, raw: bytes) -> BatchError | None:
        try:
            row = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            row = None
        if not isinstance(row, dict):
            return BatchError("invalid_json_line", "This line is not parseable as valid JSON.", number)
        wrong = self._shape(number, row) or self._unique(number, row["custom_id"])
        wrong = wrong or self._one_model(number, row["body"].get("model"))
        if wrong is None:
            self.lines.append(Line(row["custom_id"], msgspec.json.encode(row["body"])))
        return wrong

    def _shape(self, number: int, row: dict[str, Any]) -> BatchError | None:
        for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            if not row.get(name) or not isinstance(row[name], kind):
                message = f"Missing or invalid required parameter: {name!r}."
                return BatchError("missing_required_parameter", message, number, name)
        if row["method"] != "POST":
            return BatchError("invalid_method", "The method must be 'POST'.", number, "method")
        if row["url"] != self._endpoint:
            message = f"The URL {row['url']!r} does not match the batch's endpoint {self._endpoint!r}."
            return BatchError("url_mismatch", message, number, "url")
        return None

    def _unique(self, number: int, custom_id: str) -> BatchError | None:
        if custom_id in self._ids:
            message = f"The custom_id {custom_id!r} is used by another line of this file."
            return BatchError("duplicate_custom_id", message, number, "custom_id")
        self._ids.add(custom_id)
        return None

    def _one_model(self, number: int, model: Any) -> BatchError | None:
        if not model or not isinstance(model, str):
            message = "Missing required parameter: 'body.model'."
            return BatchError("missing_required_parameter", message, number, "body.model")
        self.model = self.model or model
        if model != self.model:
            message = f"The model {model!r} does not match {self.model!r}, the model of the lines before."
            return BatchError("model_mismatch", message, number, "body.model")
        if (fault := self._model_fault(model)) is not None:
            return BatchError(fault.code or "model_not_found", fault.message, number, "body.model")
        return None


def results(job: Job) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the output file and of the error file, shuffled. Lines not worked on are in the latter."""
    output: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for index in job.shuffled():
        outcome = job.outcomes.get(index)
        row = {"id": f"batch_req_{job.batch.id[6:18]}{index:06}", "custom_id": job.lines[index].custom_id}
        if outcome is None:
            errors.append(row | {"response": None, "error": _unworked(job.batch)})
            continue
        response = {
            "status_code": outcome.status,
            "request_id": f"req_{row['id'][10:]}",
            "body": outcome.body,
        }
        (output if outcome.status == 200 else errors).append(row | {"response": response, "error": None})
    return output, errors


def _unworked(batch: Batch) -> dict[str, str]:
    if batch.status == "cancelled":
        return {"code": "batch_cancelled", "message": "The batch was cancelled before this request executed."}
    message = "This request could not be executed before the completion window expired."
    return {"code": "batch_expired", "message": message}


def _rows(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, raw in enumerate(content.split(b"\n"), 1):
        if raw.strip():
            yield number, raw


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
