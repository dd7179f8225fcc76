"""Carries batches out: drives their state machines, asks the model, writes the result files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from segue.model import checks
from segue.ports.clock import Clock

from .archive import Archive
from .batches import Batch, BatchError, Checked, Event, Job, Outcome, Pace, Row
from .chaos import Chaos
from .clock import VirtualClock
from .dialect import Dialect
from .faults import Faults
from .files import Files
from .ledger import Entry, Ledger, digest
from .model import Answer, Model
from .replies import Failure

__all__ = ["Limits", "Processor"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch may hold, and how many tokens of one model may be enqueued in all.

    Of live calls, how many are taken at once (0: none ever is), and how many a minute. None is any number.
    """

    lines: int = 50_000
    bytes: int = 200 * 2**20
    enqueued_tokens: int | None = None
    at_once: int | None = None
    a_minute: int | None = None

    def __post_init__(self) -> None:
        for name, most in msgspec.structs.asdict(self).items():
            if most is not None:
                checks.count(f"{name} of Limits", most, 0 if name == "at_once" else 1)


class Processor:
    """All batches, the ones that are over and the ones at work."""

    def __init__(
        self,
        *,
        model: Model,
        files: Files,
        ledger: Ledger,
        faults: Faults,
        chaos: Chaos,
        clock: Clock,
        pace: Pace,
        limits: Limits,
        window: timedelta | None = None,
        concurrency: int = 8,
        seed: int = 0,
        directory: Path | None = None,
    ) -> None:
        self._model = model
        self._files = files
        self._ledger = ledger
        self._faults = faults
        self._chaos = chaos
        self._clock = clock
        self.pace = pace
        self._limits = limits
        self._window = window
        self._concurrency = concurrency
        self._seed = seed
        self._archive = Archive(directory)
        self._batches: dict[str, Batch] = {}
        self._jobs: dict[str, Job] = {}
        self._free = asyncio.Semaphore(concurrency)
        self._moving = asyncio.Lock()
        self._stirred = asyncio.Event()
        self._waves: set[asyncio.Task[None]] = set()
        self._driver: asyncio.Task[None] | None = None
        self._dialects: dict[str, Dialect] = {}

    def create(
        self,
        dialect: str,
        *,
        endpoint: str,
        input_file_id: str,
        window: timedelta,
        asked: dict[str, Any],
        model: str | None = None,
        total: int = 0,
        ordered: bool = False,
    ) -> Batch:
        """A new batch; its lines are read later."""
        now = self._clock.now()
        number = max((batch.number for batch in self._batches.values()), default=0) + 1
        lasting = self._window if self._window is not None else window
        name = hashlib.sha256(f"{self._seed}:batch:{number}".encode()).hexdigest()[:32]
        batch = Batch(
            id=f"{self._dialects[dialect].batch_prefix}{name}",
            number=number,
            dialect=dialect,
            endpoint=endpoint,
            input_file_id=input_file_id,
            asked=asked,
            model=model,
            total=total,
            ordered=ordered,
            created_at=now,
            expires_at=now + lasting.total_seconds(),
        )
        self._chaos.strike("batch", self._faults)
        if self._faults.late_batches:
            batch.late = self._faults.late_batches.pop(0)
        self._batches[batch.id] = batch
        self._jobs[batch.id] = self._job(batch)
        self._changed(batch)
        return batch

    def get(self, id: str) -> Batch | None:
        """A batch, if there is one."""
        return self._batches.get(id)

    def all(self, dialect: str = "") -> list[Batch]:
        """Every batch, or those of a dialect, newest first."""
        return [each for each in reversed(self._batches.values()) if dialect in ("", each.dialect)]

    def over_quota(self, model: str | None, tokens: int) -> str:
        """Why no more tokens of a model can be enqueued; empty if they can."""
        enqueued = sum(job.batch.enqueued_tokens for job in self._jobs.values() if job.batch.model == model)
        if (most := self._limits.enqueued_tokens) is None or enqueued + tokens <= most:
            return ""
        return f"Enqueued token limit reached for {model}. Limit: {most:,} enqueued tokens."

    def cancel(self, id: str) -> Batch:
        """Ask a batch to stop; `Failure` when it is past that."""
        batch = self._batches[id]
        if batch.status in ("cancelling", "cancelled"):
            return batch
        if batch.status not in ("validating", "in_progress"):
            message = f"Cannot cancel a batch with status {batch.status!r}."
            raise Failure(409, message, type="invalid_request_error")
        job = self._jobs[id]
        if batch.status == "validating":
            self._load_unchecked(job)
        job.request_cancel(self._clock.now())
        self._changed(batch)
        return batch

    def forget(self, id: str) -> None:
        """Tell no more of a batch that is over."""
        self._archive.remove(self._batches.pop(id))

    def uses(self, file_id: str) -> bool:
        """Whether a batch that isn't over needs this file."""
        return any(job.batch.input_file_id == file_id for job in self._jobs.values())

    def speak(self, dialects: Iterable[Dialect]) -> None:
        """Learn who reads and writes the files of batches, and take up those that were kept."""
        self._dialects = {dialect.name: dialect for dialect in dialects}
        self._restore()

    def start(self) -> None:
        """Let things happen by themselves as time passes; on a virtual clock they happen in `run_until`."""
        if not isinstance(self._clock, VirtualClock):
            self._driver = asyncio.create_task(self._drive())

    async def close(self) -> None:
        """Stop; what was begun and isn't done is lost."""
        tasks = [*self._waves, *([self._driver] if self._driver else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._archive.close()

    async def run_until(self, moment: float) -> None:
        """Do all that happens until then, each thing at its time; the virtual clock is there afterwards."""
        assert isinstance(self._clock, VirtualClock), "Only a virtual clock can be moved"
        async with self._moving:
            while (due := self._soonest()) is not None and due[1].at <= moment:
                self._clock.move_to(due[1].at)
                self._perform(*due)
                while self._waves:
                    await asyncio.gather(*self._waves)
            self._clock.move_to(moment)
        await asyncio.sleep(0)

    async def catch_up(self) -> None:
        """Do what is due on a virtual clock that somebody else has moved."""
        if isinstance(self._clock, VirtualClock) and not self._moving.locked():
            await self.run_until(self._clock.now())

    async def run_dry(self) -> None:
        """Move the virtual clock until every batch is over."""
        while (due := self._soonest()) is not None:
            await self.run_until(due[1].at)

    async def _drive(self) -> None:
        while True:
            self._stirred.clear()
            while (due := self._soonest()) is not None and due[1].at <= self._clock.now():
                self._perform(*due)
                await asyncio.sleep(0)
            await self._pause(None if due is None else due[1].at - self._clock.now())

    async def _pause(self, seconds: float | None) -> None:
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._stirred.wait())]
        if seconds is not None:
            waits.append(asyncio.create_task(_slept(self._clock, seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _soonest(self) -> tuple[Job, Event] | None:
        coming = [(job, event) for job in self._jobs.values() if (event := job.next()) is not None]
        return min(coming, key=lambda pair: pair[1].at, default=None)

    def _perform(self, job: Job, event: Event) -> None:
        match event.what:
            case "validate":
                self._validate(job, event.at)
            case "wave":
                return self._send_wave(job, event.at)
            case "finalize":
                job.finalize(event.at)
            case "complete" | "expire" | "cancel" as what:
                if what == "expire" and not job.lines:
                    self._load_unchecked(job)
                job.close(what, event.at)
                self._write_results(job)
        self._changed(job.batch)

    def _validate(self, job: Job, at: float) -> None:
        batch, dialect = job.batch, self._dialects[job.batch.dialect]
        if dialect.validates and self._faults.failed_batches:
            return job.fail([BatchError(*self._faults.failed_batches.pop(0))], at)
        if self._files.get(batch.input_file_id) is None:
            message = f"The file {batch.input_file_id!r} does not exist or can't be read."
            return job.fail([BatchError("file_not_found", message, None, "input_file_id")], at)
        content = self._files.content(batch.input_file_id)
        checked = dialect.read(batch, content, self._model.check_model)
        errors = checked.errors or (self._over_limits(len(content), checked) if dialect.validates else [])
        if errors:
            return job.fail(errors, at)
        job.start(checked, at)
        self._hinder(batch)

    def _hinder(self, batch: Batch) -> None:
        """A batch that will not be done: it stands still until it expires, or does so when it should be over."""
        if self._faults.stalled_batches:
            self._faults.stalled_batches -= 1
            batch.works = 0.0
        elif self._faults.expired_batches:
            batch.works = min(self._faults.expired_batches.pop(0), 1 - 1 / (batch.total + 1))
            batch.expires_at = min(batch.expires_at, (batch.in_progress_at or 0.0) + self.pace.working)

    def _over_limits(self, size: int, checked: Checked) -> list[BatchError]:
        if size > self._limits.bytes:
            return [BatchError("file_too_large", f"The file has more than {self._limits.bytes} bytes.")]
        if message := self.over_quota(checked.model, checked.tokens):
            return [BatchError("token_limit_exceeded", message)]
        return []

    def _send_wave(self, job: Job, at: float) -> None:
        wave = asyncio.create_task(self._wave(job, job.wave(at)))
        self._waves.add(wave)
        wave.add_done_callback(self._wave_over)

    def _wave_over(self, wave: asyncio.Task[None]) -> None:
        self._waves.discard(wave)
        self._stirred.set()

    async def _wave(self, job: Job, indexes: list[int]) -> None:
        left = iter(indexes)
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._concurrency, len(indexes))):
                workers.create_task(self._work(job, left))

    async def _work(self, job: Job, left: Iterator[int]) -> None:
        for index in left:
            async with self._free:
                if job.begin(self._clock.now()):
                    await self._line(job, index)

    async def _line(self, job: Job, index: int) -> None:
        dialect = self._dialects[job.batch.dialect]
        body = msgspec.json.decode(job.lines[index].body)
        status = self._faults.lines.status(job.lines[index].custom_id)
        if status is not None:
            answer = Answer(status, dialect.error(Failure(status or 500)))
        else:
            answer = await dialect.work(job.batch.endpoint, body)
        tokens = dialect.usage(answer.body) if answer.status == 200 else (0, 0)
        outcome = Outcome(index, answer.status, answer.body, *tokens)
        self._archive.add(job.batch, outcome)
        job.record(outcome)
        self._ledger.add(self._entry(job, outcome, body))

    def _entry(self, job: Job, outcome: Outcome, body: dict[str, Any]) -> Entry:
        return Entry(
            time=self._clock.now(),
            kind="batch",
            endpoint=job.batch.endpoint,
            status=outcome.status,
            sha256=digest(body),
            model=str(body.get("model") or job.batch.model or ""),
            tokens_in=outcome.tokens_in,
            tokens_out=outcome.tokens_out,
            batch=job.batch.id,
            custom_id=job.lines[outcome.index].custom_id,
        )

    def _write_results(self, job: Job) -> None:
        batch = job.batch
        self._enter_unworked(job)
        faults, dialect = self._faults.lines, self._dialects[batch.dialect]
        found: dict[str, list[bytes]] = {"output": [], "error": []}
        for row in self._with_faults(batch, job.rows()):
            which, line = dialect.row(batch, row)
            found[which].append(msgspec.json.encode(line) + b"\n")
        content = b"".join(found["output"])
        if faults.half_line and content:
            faults.half_line -= 1
            content = content[: -(len(found["output"][-1]) - 1) // 2 - 1]
        if faults.no_output_file and content:
            faults.no_output_file -= 1
            content = b""
        batch.output_file_id = self._result_file(batch, content, "output")
        batch.error_file_id = self._result_file(batch, b"".join(found["error"]), "error")
        if faults.empty_error_file_id and batch.error_file_id is None:
            faults.empty_error_file_id -= 1
            batch.error_file_id = ""

    def _with_faults(self, batch: Batch, rows: list[Row]) -> Iterator[Row]:
        faults = self._faults.lines
        for row in rows:
            if faults.take("drop", row.id):
                continue
            if faults.take("rename", row.id):
                yield Row(f"unknown-{batch.number}-{row.index}", row.index, row.outcome)
            elif faults.take("double", row.id):
                yield from (row, row)
            else:
                yield row

    def _result_file(self, batch: Batch, content: bytes, what: str) -> str | None:
        if not content:
            return None
        name = f"{batch.id}_{what}.jsonl"
        now = self._clock.now()
        return self._files.add(
            content, purpose="batch_output", filename=name, now=now, owner=batch.dialect
        ).id

    def _enter_unworked(self, job: Job) -> None:
        for index, line in enumerate(job.lines):
            if index not in job.outcomes:
                self._ledger.add(self._entry(job, Outcome(index, 0, {}), msgspec.json.decode(line.body)))

    def _changed(self, batch: Batch) -> None:
        self._archive.save(batch)
        if batch.final:
            self._jobs.pop(batch.id, None)
        self._stirred.set()

    def _job(self, batch: Batch) -> Job:
        return Job(batch, self.pace, gradual=self._model.backend.instant, seed=self._seed)

    def _load_unchecked(self, job: Job) -> None:
        """The lines of a batch that ends before it was validated, as far as they are lines."""
        if self._files.get(job.batch.input_file_id) is not None:
            content = self._files.content(job.batch.input_file_id)
            checked = self._dialects[job.batch.dialect].read(job.batch, content, _any_model)
            job.load(checked.lines)
            job.batch.total = len(checked.lines)

    def _restore(self) -> None:
        for batch in self._archive.batches():
            self._batches[batch.id] = batch
            if not batch.final:
                self._jobs[batch.id] = self._job(batch)
                self._resume(self._jobs[batch.id])

    def _resume(self, job: Job) -> None:
        batch = job.batch
        if batch.status == "validating":
            return
        self._load_unchecked(job)
        batch.completed = batch.failed = batch.tokens_in = batch.tokens_out = 0
        entered = {entry.custom_id for entry in self._ledger.lines(batch=batch.id)}
        for outcome in self._archive.outcomes(batch):
            job.restore(outcome)
            line = job.lines[outcome.index]
            if line.custom_id not in entered:
                self._ledger.add(self._entry(job, outcome, msgspec.json.decode(line.body)))


async def _slept(clock: Clock, seconds: float) -> None:
    await clock.sleep(seconds)


def _any_model(name: str) -> None:
    return None
