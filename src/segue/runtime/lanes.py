"""Carrying lanes through providers' batch jobs: submit, poll, deliver.

A job is submitted in two phases, each written before and after: intent (lines and a nonce) → file id → job
id. After a crash in between, the orphan is looked for by nonce and file; only when the provider doesn't know
it after a grace period is it sent again. Every line ends as exactly one of ok, error, expired, missing,
cancelled; those fit to retry go round again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import msgspec

from ..authoring.failures import to_failure
from ..core.batching import Decision, decide, fit_to_retry, poll_after
from ..model.entry import Failure
from ..model.errors import CallerError, ModelFailed, OperatorError, StoreError
from ..model.lane import BatchJob, LaneHead, Line, LineOutcome
from ..model.mode import Batch
from ..ports.clock import Clock
from ..ports.provider import CallFault, LineResult, Provider, RemoteJob
from ..ports.store import Store
from .models import Models, check_result, lane_endpoint, usage_name

log = logging.getLogger("segue")

#: Outcomes are stored, and runs woken, so many at a time.
CHUNK = 1000
#: How long a job that the provider doesn't list may still turn up, in seconds.
GRACE = 20.0
#: How long a lane stays with one worker without word of it, in seconds.
LEASE = 60.0


class Lanes:
    """Drives every lane of a store that this process can speak for."""

    def __init__(
        self, store: Store, models: Models, clock: Clock, worker: str, busy: Callable[[], bool]
    ) -> None:
        self.store, self.models, self.clock, self.worker = store, models, clock, worker
        self._busy = busy  # whether this process may still add lines
        self._polled: dict[str, float] = {}
        self._warned: set[str] = set()
        self._driven: set[str] = set()

    async def sweep(self, *, poll_now: bool = False) -> float | None:
        """Do what is due in every lane. Seconds until something is due again; None if no lane has anything."""
        heads = await self.store.lanes()
        if not heads:
            return None
        waits = [await self._drive(head, poll_now) for head in heads]
        return min(waits)

    async def _drive(self, head: LaneHead, poll_now: bool) -> float:
        try:
            endpoint, to = lane_endpoint(head.lane)
            provider = self.models.provider(endpoint)
        except (CallerError, OperatorError) as error:
            self._warn(head.lane, f"lane {head.lane} waits: {error}")
            return 5.0
        now = self.clock.now()
        fence = await self.store.claim_lane(head.lane, self.worker, LEASE, now=now)
        if fence is None:
            return 5.0
        self._driven.add(head.lane)
        lane = _Lane(self, head, provider, to, fence)
        again = 60.0
        try:
            for job in head.jobs:
                again = min(again, await lane.advance(job, poll_now))
            decision = await self._decide(head, provider)
            while decision.send:
                again = min(again, 0.25)
                if await lane.submit(self.policy(head.lane)) is None:
                    break
                left = [found for found in await self.store.lanes() if found.lane == head.lane]
                decision = await self._decide(left[0], provider) if left else Decision(False)
            if decision.again is not None:
                again = min(again, decision.again, 1.0)
        except CallFault as fault:
            self._warn(head.lane, f"lane {head.lane}: {provider.name} can't be reached: {fault}")
            return max(fault.after or 0.0, 2.0)
        self._warned.discard(head.lane)
        return again

    async def release(self) -> None:
        """Let other workers drive the lanes at once, not only when the lease has lapsed."""
        driven, self._driven = self._driven, set()
        for lane in driven:
            with contextlib.suppress(StoreError):  # it lapses by itself, then
                await self.store.claim_lane(lane, self.worker, 0.0, now=self.clock.now())

    def policy(self, lane: str) -> Batch:
        """How the runs of this process want the lane's jobs; the defaults for lines that others left."""
        return self.models.max_age.get(lane, Batch())

    async def _decide(self, head: LaneHead, provider: Provider) -> Decision:
        now = self.clock.now()
        ready, _ = await self.store.backlog(now=now)
        return decide(
            head,
            self.policy(head.lane),
            max_lines=provider.max_lines,
            max_bytes=provider.max_bytes,
            quiet=ready == 0 and not self._busy(),
            now=now,
        )

    def due(self, job: BatchJob, poll_now: bool) -> float:
        """Seconds until a job is to be looked at; 0 for now."""
        if poll_now or job.id not in self._polled:
            return 0.0
        return max(0.0, self._polled[job.id] + poll_after(self.clock.now() - job.sent) - self.clock.now())

    def polled(self, job: BatchJob) -> None:
        self._polled[job.id] = self.clock.now()

    def _warn(self, lane: str, text: str) -> None:
        if lane not in self._warned:
            self._warned.add(lane)
            log.warning(text)


class _Lane:
    """One lane while this process holds its fence."""

    def __init__(self, lanes: Lanes, head: LaneHead, provider: Provider, to: str, fence: int) -> None:
        self.lanes, self.store, self.clock = lanes, lanes.store, lanes.clock
        self.head, self.provider, self.to, self.fence = head, provider, to, fence

    # ------------------------------------------------------------ submit
    async def submit(self, policy: Batch) -> BatchJob | None:
        """Take what waits into a job and send it."""
        ident = uuid4().hex
        job = await self.store.take(
            self.head.lane,
            self.fence,
            max_lines=min(policy.max_lines, self.provider.max_lines),
            max_bytes=min(policy.max_bytes, self.provider.max_bytes),
            job=ident,
            nonce=ident,
            now=self.clock.now(),
        )
        return None if job is None else await self._send(job)

    async def _send(self, job: BatchJob) -> BatchJob | None:
        """From intent or file to a provider's job."""
        try:
            if not job.file:
                file = await self.provider.upload(self._lines(job), self.to, job.nonce)
                job = msgspec.structs.replace(job, state="uploaded", file=file)
                if not await self.store.put_batch_job(job, self.fence):
                    return None
            remote = await self.provider.submit(job.file, self.to, job.nonce)
        except CallFault as fault:
            if fault.again:
                raise
            await self._refused(job, f"{self.provider.name} refused the job: {fault}")
            return None
        return await self._sent(job, remote)

    async def _sent(self, job: BatchJob, remote: RemoteJob) -> BatchJob | None:
        now = self.clock.now()
        job = msgspec.structs.replace(job, state="sent", remote=remote.id, seen=remote.status, sent=now)
        self.lanes.polled(job)
        return job if await self.store.put_batch_job(job, self.fence) else None

    async def _lines(self, job: BatchJob) -> AsyncIterator[tuple[str, bytes]]:
        async for line in self._open_lines(job):
            yield line.id, line.body

    async def _open_lines(self, job: BatchJob) -> AsyncIterator[Line]:
        after = ""
        while chunk := await self.store.job_lines(job.id, after, CHUNK):
            for line in chunk:
                yield line
            after = chunk[-1].id

    # ------------------------------------------------------------ follow
    async def advance(self, job: BatchJob, poll_now: bool) -> float:
        """Do what is due for an open job; seconds until it is due again."""
        wait = self.lanes.due(job, poll_now)
        if wait:
            return wait
        if job.state != "sent":
            found = await self._adopt(job)
            if found is None:
                return 1.0
            job = found
        remote = await self.provider.poll(job.remote)
        self.lanes.polled(job)
        if remote.over:
            await self._collect(job, remote)
            return 0.0
        done = remote.done + remote.failed
        if (remote.status, done) != (job.seen, job.progress):
            await self.store.put_batch_job(
                msgspec.structs.replace(job, seen=remote.status, progress=done), self.fence
            )
        return poll_after(self.clock.now() - job.sent)

    async def _adopt(self, job: BatchJob) -> BatchJob | None:
        """A job whose submission was cut off: the provider's, if it has it; else sent again after the grace period."""
        orphan = await self.provider.find(job.nonce, job.file, job.created)
        if orphan is not None:
            log.info("batch job %s was found again as %s", job.id, orphan.id)
            return await self._sent(job, orphan)
        if job.file and self.clock.now() - job.created < GRACE:
            return None
        return await self._send(job)

    # ------------------------------------------------------------ deliver
    async def _collect(self, job: BatchJob, remote: RemoteJob) -> None:
        """Store how every line of a finished job ended, and close it."""
        if remote.rejected:
            await self._rejected(job, remote)
            return
        attempts = {line.id: line.attempt async for line in self._open_lines(job)}
        chunk: list[LineOutcome] = []
        async for result in self.provider.results(remote):
            if isinstance(result, str):
                log.warning("batch job %s: a line of its results can't be read: %s", job.id, result)
                continue
            attempt = attempts.pop(result.id, None)
            if attempt is None:
                log.warning("batch job %s: a result for the line %r, which isn't open", job.id, result.id)
                continue
            chunk.append(self._outcome(result, attempt))
            if len(chunk) >= CHUNK:
                await self._store(job, chunk)
                chunk = []
        for ident, attempt in attempts.items():
            error = _failure(
                self.head.lane, 0, "batch_line_missing", "the job ended without a result for this line"
            )
            again = fit_to_retry(0, "batch_line_missing", attempt)
            chunk.append(LineOutcome(ident, "missing", None, error, again))
            if len(chunk) >= CHUNK:
                await self._store(job, chunk)
                chunk = []
        await self._store(job, chunk)
        await self._close(job, remote.status, remote.done + remote.failed)

    def _outcome(self, result: LineResult, attempt: int) -> LineOutcome:
        if result.status == 200:
            problem = check_result(self.provider, self.to, result.body)
            if problem is None:
                return LineOutcome(result.id, "ok", result.body)
            error = _failure(self.head.lane, 200, "bad_body", str(problem))
            return LineOutcome(result.id, "error", None, error, fit_to_retry(0, "bad_body", attempt))
        expired = result.code in ("batch_expired", "batch_cancelled")
        status = {"batch_expired": "expired", "batch_cancelled": "cancelled"}.get(result.code, "error")
        message = result.body[:500].decode("utf-8", "replace") if result.body and not expired else result.code
        return LineOutcome(
            result.id,
            status,  # type: ignore[arg-type]  # one of LineStatus, from the table
            None,
            _failure(self.head.lane, result.status, result.code, message),
            fit_to_retry(result.status, result.code, attempt),
        )

    async def _rejected(self, job: BatchJob, remote: RemoteJob) -> None:
        """The provider took none of the job: lines at fault fail, the others go round again."""
        log.warning("batch job %s was rejected: %s", job.id, remote.rejected)
        bad = set(remote.bad_lines)
        chunk: list[LineOutcome] = []
        number = 0
        async for line in self._open_lines(job):
            number += 1
            innocent = bool(bad) and number not in bad
            error = _failure(self.head.lane, 400, "batch_rejected", remote.rejected)
            again = innocent or fit_to_retry(500 if not bad else 400, "", line.attempt)
            chunk.append(LineOutcome(line.id, "error", None, error, again))
        for start in range(0, len(chunk), CHUNK):
            await self._store(job, chunk[start : start + CHUNK])
        await self._close(job, remote.status, 0, remote.rejected)

    async def _refused(self, job: BatchJob, why: str) -> None:
        await self._rejected(job, RemoteJob(id="", status="refused", over=True, rejected=why))

    async def _store(self, job: BatchJob, chunk: list[LineOutcome]) -> None:
        if chunk:
            await self.store.outcomes(job.id, self.fence, chunk, now=self.clock.now())

    async def _close(self, job: BatchJob, seen: str, progress: int, error: str = "") -> None:
        closed = msgspec.structs.replace(job, state="closed", seen=seen, progress=progress, error=error)
        await self.store.put_batch_job(closed, self.fence)


def _failure(lane: str, status: int, code: str, message: str) -> Failure:
    """A line's error, as its run will raise it."""
    endpoint, _ = lane_endpoint(lane)
    return to_failure(ModelFailed(usage_name(endpoint), status, message, code))
