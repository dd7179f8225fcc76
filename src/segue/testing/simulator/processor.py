"""Carries batches out: drives their state machines, asks the model, writes the result files."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from segue.ports.clock import Clock

from .archive import Archive
from .batches import Batch, BatchError, Event, Job, Outcome, Pace, check, results
from .clock import VirtualClock
from .completion import usage_of
from .faults import Faults
from .files import Files
from .ledger import Entry, Ledger, digest
from .model import ENDPOINTS, Answer, Model
from .replies import Failure

__all__ = ["Limits", "Processor"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch may hold, and how many tokens of one model may be enqueued in all (None: any number)."""

    lines: int = 50_000
    bytes: int = 200 * 2**20
    enqueued_tokens: int | None = None


class Processor:
    """All batches, the ones that are over and the ones at work."""

    def __init__(
        self,
        *,
        model: Model,
        files: Files,
        ledger: Ledger,
        faults: Faults,
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
        self._clock = clock
        self._pace = pace
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
        self._restore()

    def create(self, asked: dict[str, Any]) -> Batch:
        """A new batch; raises `Failure` for what a provider refuses at once. The lines are read later."""
        window = _refuse_bad(asked)
        now = self._clock.now()
        number = len(self._batches) + 1
        lasting = self._window if self._window is not None else window
        batch = Batch(
            id=f"batch_{hashlib.sha256(f'{self._seed}:batch:{number}'.encode()).hexdigest()[:32]}",
            number=number,
            endpoint=asked["endpoint"],
            input_file_id=asked["input_file_id"],
            completion_window=asked["completion_window"],
            metadata=asked.get("metadata"),
            created_at=now,
            expires_at=now + lasting.total_seconds(),
        )
        self._batches[batch.id] = batch
        self._jobs[batch.id] = self._job(batch)
        self._changed(batch)
        return batch

    def get(self, id: str) -> Batch | None:
        """A batch, if there is one."""
        return self._batches.get(id)

    def all(self) -> list[Batch]:
        """Every batch, newest first."""
        return list(reversed(self._batches.values()))

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

    def uses(self, file_id: str) -> bool:
        """Whether a batch that isn't over needs this file."""
        return any(job.batch.input_file_id == file_id for job in self._jobs.values())

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
        batch = job.batch
        if self._faults.failed_batches:
            return job.fail([BatchError(*self._faults.failed_batches.pop(0))], at)
        if self._files.get(batch.input_file_id) is None:
            message = f"The file {batch.input_file_id!r} does not exist or can't be read."
            return job.fail([BatchError("file_not_found", message, None, "input_file_id")], at)
        content = self._files.content(batch.input_file_id)
        checked = check(
            content, batch.endpoint, model_fault=self._model.check_model, most_lines=self._limits.lines
        )
        errors = checked.errors or self._over_limits(len(content), checked.model, checked.tokens)
        if errors:
            return job.fail(errors, at)
        job.start(checked, at)

    def _over_limits(self, size: int, model: str | None, tokens: int) -> list[BatchError]:
        if size > self._limits.bytes:
            return [BatchError("file_too_large", f"The file has more than {self._limits.bytes} bytes.")]
        enqueued = sum(job.batch.enqueued_tokens for job in self._jobs.values() if job.batch.model == model)
        if (most := self._limits.enqueued_tokens) is not None and enqueued + tokens > most:
            message = f"Enqueued token limit reached for {model}. Limit: {most:,} enqueued tokens."
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
        body = msgspec.json.decode(job.lines[index].body)
        if body.get("stream"):
            answer = Answer.failed(Failure(400, "Streaming is not supported in a batch.", param="stream"))
        else:
            answer = await self._model.answer(job.batch.endpoint, body)
        outcome = Outcome(index, answer.status, answer.body)
        self._archive.add(job.batch, outcome)
        job.record(outcome)
        self._ledger.add(self._entry(job, outcome, body))

    def _entry(self, job: Job, outcome: Outcome, body: dict[str, Any]) -> Entry:
        asked, said = usage_of(outcome.body) if outcome.status == 200 else (0, 0)
        return Entry(
            time=self._clock.now(),
            kind="batch",
            endpoint=job.batch.endpoint,
            status=outcome.status,
            sha256=digest(body),
            model=str(body.get("model", "")),
            tokens_in=asked,
            tokens_out=said,
            batch=job.batch.id,
            custom_id=job.lines[outcome.index].custom_id,
        )

    def _write_results(self, job: Job) -> None:
        batch = job.batch
        self._enter_unworked(job)
        faults = self._faults.lines
        output, errors = (self._with_faults(rows) for rows in results(job))
        content = b"".join(msgspec.json.encode(row) + b"\n" for row in output)
        if faults.half_line and output:
            faults.half_line = False
            content = content[: -len(msgspec.json.encode(output[-1])) // 2 - 1]
        if faults.no_output_file and output:
            faults.no_output_file = False
            content = b""
        batch.output_file_id = self._result_file(batch, content, "output")
        batch.error_file_id = self._result_file(
            batch, b"".join(msgspec.json.encode(row) + b"\n" for row in errors), "error"
        )
        if faults.empty_error_file_id and batch.error_file_id is None:
            faults.empty_error_file_id = False
            batch.error_file_id = ""

    def _with_faults(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        faults = self._faults.lines
        kept = []
        for row in rows:
            if row["custom_id"] in faults.dropped:
                faults.dropped.discard(row["custom_id"])
                continue
            if row["custom_id"] in faults.renamed:
                faults.renamed.discard(row["custom_id"])
                row = row | {"custom_id": f"unknown-{row['id']}"}
            kept.append(row)
        return kept

    def _result_file(self, batch: Batch, content: bytes, what: str) -> str | None:
        if not content:
            return None
        name = f"{batch.id}_{what}.jsonl"
        return self._files.add(content, purpose="batch_output", filename=name, now=self._clock.now()).id

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
        return Job(batch, self._pace, gradual=self._model.backend.instant, seed=self._seed)

    def _load_unchecked(self, job: Job) -> None:
        """The lines of a batch that ends before it was validated, as far as they are lines."""
        if self._files.get(job.batch.input_file_id) is not None:
            content = self._files.content(job.batch.input_file_id)
            checked = check(
                content, job.batch.endpoint, model_fault=_any_model, most_lines=self._limits.lines
            )
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


_UNITS: dict[str, Callable[[int], timedelta]] = {
    "h": lambda count: timedelta(hours=count),
    "d": lambda count: timedelta(days=count),
}


def _refuse_bad(asked: dict[str, Any]) -> timedelta:
    """The completion window of a well-formed request for a batch; `Failure` otherwise."""
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(asked.get(name), str) or not asked[name]:
            message = f"Missing required parameter: {name!r}."
            raise Failure(400, message, code="missing_required_parameter", param=name)
    if asked["endpoint"] not in ENDPOINTS:
        message = f"Invalid value: {asked['endpoint']!r}. Supported values are: {', '.join(ENDPOINTS)}."
        raise Failure(400, message, code="invalid_value", param="endpoint")
    if (window := re.fullmatch(r"(\d{1,3})([hd])", asked["completion_window"])) is None:
        message = f"Invalid value: {asked['completion_window']!r}. Supported values are: '24h'."
        raise Failure(400, message, code="invalid_value", param="completion_window")
    if not _is_metadata(asked.get("metadata")):
        message = (
            "The metadata must be at most 16 pairs of strings, keys up to 64 and values up to 512 characters."
        )
        raise Failure(400, message, code="invalid_metadata", param="metadata")
    return _UNITS[window[2]](int(window[1]))


def _is_metadata(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and len(value) <= 16
        and all(isinstance(text, str) and len(key) <= 64 and len(text) <= 512 for key, text in value.items())
    )
