"""Carrying lanes through providers' batch jobs: submit, poll, deliver.

A job is submitted in two phases, each written before and after: intent (lines and a nonce) → file id → job
id. After a crash in between, the orphan is looked for by nonce and file; only when the provider doesn't know
it after a grace period is it sent again. Every line ends as exactly one of ok, error, expired, missing,
cancelled; those fit to retry go round again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from ..authoring.failures import to_failure
from ..core import admission
from ..core.batching import ATTEMPTS, Decision, decide, fit_to_retry, poll_after
from ..model.entry import Failure
from ..model.errors import CallerError, OperatorError, StoreError
from ..model.lane import BatchJob, LaneHead, Line, LineOutcome, LineStatus
from ..model.mode import Batch
from ..ports.clock import Clock
from ..ports.provider import BatchProvider, CallFault, LineResult, RemoteJob
from ..ports.store import Store
from ..providers.faults import told
from .delivery import CHUNK, Delivery
from .models import Models, check_result, lane_endpoint, lane_name, usage_name, used
from .promotion import Promotions
from .quotas import Quotas
from .trying import model_failed

log = logging.getLogger("segue")

T = TypeVar("T")

#: How long a job that the provider doesn't list may still turn up, in seconds.
GRACE = 20.0
#: How long a lane stays with one worker without word of it, in seconds.
LEASE = 60.0
#: What makes no sense as an answer to an upload is taken for a passing trouble so many times.
PATIENCE = 5
#: Results that lack lines are read so often: always, and where the job tells of more outcomes than they hold.
LOOKS = (2, 5)
#: A job whose submission is refused so often as too many is taken for too large.
REFUSALS = 3
#: Back-off after a failure, in seconds: the first, and the longest.
BACK_OFF = (2.0, 60.0)
#: How a line ends that a job has no result for: outcome, code and message.
_MISSING: tuple[LineStatus, str, str] = (
    "missing",
    "batch_line_missing",
    "the job ended without a result for this line",
)
#: The same for jobs that ended before they were done, of providers that don't tell of each line then.
_LEFT: dict[str, tuple[LineStatus, str, str]] = {
    "expired": ("expired", "batch_expired", "batch_expired"),
    "cancelled": ("cancelled", "batch_cancelled", "batch_cancelled"),
}


class Lanes:
    """Drives every lane of a store that this process can speak for."""

    def __init__(
        self,
        store: Store,
        models: Models,
        clock: Clock,
        worker: str,
        busy: Callable[[], bool],
        kick: Callable[[], None],
        backlog: Callable[[], Awaitable[tuple[int, float | None]]],
    ) -> None:
        self.store, self.models, self.clock, self.worker = store, models, clock, worker
        self._backlog = backlog  # of the runs that could be at work here
        self._busy = busy  # whether this process may still add lines
        self._due: dict[str, float] = {}  # by job: when it is looked at again
        self._rests: dict[str, float] = {}  # by lane: until when it is left alone
        self._failures: dict[str, int] = {}  # by lane, in a row
        self._nonsense: dict[str, int] = {}  # by job: answers to its submission that made no sense
        self._refusals: dict[str, int] = {}  # by job: submissions that were too many
        self.ended: set[str] = set()  # jobs that were asked to end
        self._fences: dict[str, tuple[int, float]] = {}  # by lane: ours, and when it was last claimed
        self._warned: set[str] = set()
        self.quotas = Quotas(clock)
        self.promotions = Promotions(store, models, clock, kick)
        self._sweeping = asyncio.Lock()

    async def sweep(self, *, poll_now: bool = False) -> float | None:
        """Do what is due in every lane. Seconds until something is due again; None if no lane has anything."""
        async with self._sweeping:
            heads = await self.store.lanes()
            if not heads:
                return None
            waits = await asyncio.gather(
                *(self._drive(head, poll_now) for head in heads), return_exceptions=True
            )
        failures = [wait for wait in waits if isinstance(wait, BaseException)]
        if failures:
            raise failures[0]
        if poll_now:  # who looks once waits for what live calls give
            await self.promotions.settled()
        return min(wait for wait in waits if not isinstance(wait, BaseException))

    async def _drive(self, head: LaneHead, poll_now: bool) -> float:
        now = self.clock.now()
        rest = self._rests.get(head.lane, 0.0) - now
        if rest > 0 and not poll_now:
            return rest
        try:
            endpoint, to = lane_endpoint(head.lane)
            provider = self.models.batches(endpoint, to)
        except (CallerError, OperatorError) as error:
            self._warn(head.lane, f"lane {head.lane} waits: {error}")
            return 5.0
        held = await self._claim(head)
        if held is None:
            return 2.0
        fence, head = held
        fault: Exception | None
        async with self._kept(head.lane):
            try:
                again, fault = await self._advance(_Lane(self, head, provider, to, fence), poll_now)
            except StoreError:
                raise
            except (CallFault, CallerError, OperatorError) as error:
                again, fault = 60.0, error
        if fault is None:
            self._failures.pop(head.lane, None)
            self._warned.discard(head.lane)
            return again
        failures = self._failures[head.lane] = self._failures.get(head.lane, 0) + 1
        self._warn(head.lane, f"lane {head.lane}: {provider.name} doesn't answer as it should: {fault}")
        wait = min(BACK_OFF[0] * 2.0 ** min(failures - 1, 10), BACK_OFF[1])
        wait = max(wait, getattr(fault, "after", None) or 0.0)
        self.rest(head.lane, wait)
        return min(again, wait)

    async def _advance(self, lane: _Lane, poll_now: bool) -> tuple[float, CallFault | None]:
        """Look after the open jobs of a lane, each for itself, and send what is to be sent."""
        head, again = lane.head, 60.0
        fault: CallFault | None = None
        at_once = lane.provider.at_once
        jobs = [job for job in head.jobs if job.state != "live"]
        for start in range(0, len(jobs), at_once):
            some = jobs[start : start + at_once]
            for wait in await _all(lane.advance(job, poll_now) for job in some):
                if isinstance(wait, CallFault):
                    fault = wait
                else:
                    again = min(again, wait)
        again = min(again, await self.promotions.advance(head, lane.fence))
        if fault is not None and fault.again:
            return again, fault
        decision = await self._decide(head, lane.provider)
        while decision.send:
            again = min(again, 0.25)
            policy = self.policy(head.lane)
            made = await _all(lane.submit(policy) for _ in range(at_once))
            for each in made:
                if isinstance(each, CallFault):
                    raise each
            if None in made:
                break
            left = await self._head(head.lane)
            decision = await self._decide(left, lane.provider) if left is not None else Decision(False)
        if decision.again is not None:
            again = min(again, decision.again, 1.0)
        return again, fault

    # ------------------------------------------------------------ whose a lane is
    async def _claim(self, head: LaneHead) -> tuple[int, LaneHead] | None:
        """Our fence for a lane, and how it stands under it."""
        now = self.clock.now()
        known = self._fences.get(head.lane)
        if known is not None and 0.0 <= now - known[1] < LEASE / 4:
            return known[0], head
        fence = await self.store.claim_lane(head.lane, self.worker, LEASE, now=now)
        if fence is None:
            self._fences.pop(head.lane, None)
            return None
        self._fences[head.lane] = fence, now
        if known is None or known[0] != fence:  # others may have driven it since it was looked at
            head = await self._head(head.lane) or LaneHead(head.lane, 0, 0, 0.0)
        return fence, head

    async def _head(self, lane: str) -> LaneHead | None:
        return next((head for head in await self.store.lanes() if head.lane == lane), None)

    @contextlib.asynccontextmanager
    async def _kept(self, lane: str) -> AsyncGenerator[None]:
        """Keep a lane for as long as an upload or a download takes."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(LEASE / 4)
                with contextlib.suppress(StoreError):
                    await self.store.claim_lane(lane, self.worker, LEASE, now=self.clock.now())

        keeping = asyncio.ensure_future(keep())
        try:
            yield
        finally:
            keeping.cancel()

    async def release(self) -> None:
        """Let other workers drive the lanes at once, not only when the lease has lapsed."""
        await self.promotions.close()
        driven = list(self._fences)
        self._fences.clear()
        for lane in driven:
            with contextlib.suppress(StoreError):  # it lapses by itself, then
                await self.store.claim_lane(lane, self.worker, 0.0, now=self.clock.now())

    def policy(self, lane: str) -> Batch:
        """How the runs of this process want the lane's jobs; the defaults for lines that others left."""
        return self.models.max_age.get(lane, Batch())

    async def room(self, lane: str) -> int | None:
        """Bytes that a new job of a lane may have, as far as its quota goes; None for any."""
        return self.quotas.room(lane, await self.store.lanes()) if self.quotas.known(lane) else None

    async def _decide(self, head: LaneHead, provider: BatchProvider) -> Decision:
        now = self.clock.now()
        room, held = await self.room(head.lane), self.quotas.held(head.lane)
        if head.waiting and (held or room == 0):  # for the quota, or for a job that takes it up
            return Decision(False, again=held or 1.0)
        ready, _ = await self._backlog()
        return decide(
            head,
            self.policy(head.lane),
            max_lines=provider.max_lines,
            max_bytes=min(provider.max_bytes, room or provider.max_bytes),
            quiet=ready == 0 and not self._busy(),
            now=now,
        )

    def due(self, job: BatchJob, poll_now: bool) -> float:
        """Seconds until a job is to be looked at; 0 for now."""
        return 0.0 if poll_now else max(0.0, self._due.get(job.id, 0.0) - self.clock.now())

    def look_in(self, job: BatchJob, seconds: float) -> float:
        """Look at a job again that much later."""
        self._due[job.id] = self.clock.now() + seconds
        return seconds

    def rest(self, lane: str, seconds: float) -> None:
        """Leave a lane alone for that long."""
        self._rests[lane] = self.clock.now() + seconds

    def makes_no_sense(self, job: BatchJob) -> bool:
        """An answer to a submission was none; whether that is to be taken as final."""
        count = self._nonsense[job.id] = self._nonsense.get(job.id, 0) + 1
        return count >= PATIENCE

    def gave_up(self, job: BatchJob) -> bool:
        """Whether what was answered to a submission made no sense too often."""
        return self._nonsense.get(job.id, 0) >= PATIENCE

    def refused_again(self, job: BatchJob) -> bool:
        """A submission was answered with "too many"; whether so often that the job must be too large."""
        count = self._refusals[job.id] = self._refusals.get(job.id, 0) + 1
        return count >= REFUSALS

    def forget(self, job: BatchJob) -> None:
        """A job is closed."""
        self._refusals.pop(job.id, None)
        self.ended.discard(job.id)
        self._due.pop(job.id, None)
        self._nonsense.pop(job.id, None)

    def _warn(self, lane: str, text: str) -> None:
        if lane not in self._warned:
            self._warned.add(lane)
            log.warning(text)


class _Lane:
    """One lane while this process holds its fence."""

    def __init__(self, lanes: Lanes, head: LaneHead, provider: BatchProvider, to: str, fence: int) -> None:
        self.lanes, self.store, self.clock = lanes, lanes.store, lanes.clock
        self.head, self.provider, self.to, self.fence = head, provider, to, fence
        self.name = lane_name(to)

    # ------------------------------------------------------------ submit
    async def submit(self, policy: Batch) -> BatchJob | None:
        """Take what waits into a job and send it."""
        ident = uuid4().hex
        room = await self.lanes.room(self.head.lane)
        if room == 0:
            return None
        job = await self.store.take(
            self.head.lane,
            self.fence,
            max_lines=min(policy.max_lines, self.provider.max_lines),
            max_bytes=min(policy.max_bytes, self.provider.max_bytes, room or self.provider.max_bytes),
            job=ident,
            nonce=ident,
            now=self.clock.now(),
            late_by=self.lanes.promotions.late_by(self.head),
        )
        return None if job is None else await self._send(job)

    async def _send(self, job: BatchJob) -> BatchJob | None:
        """From intent or file to a provider's job.

        That a submission is about to be tried, and when, is durable before it is: from then on the job may
        be there without our knowing.
        """
        try:
            if not job.file:
                file = await self.provider.upload(self._lines(job), self.to, job.nonce)
                job = msgspec.structs.replace(job, state="uploaded", file=file)
            job = msgspec.structs.replace(job, uploaded=self.clock.now())
            if not await self.store.put_batch_job(job, self.fence):
                return None
            remote = await self.provider.submit(job.file, self.to, job.nonce, self._lines(job))
        except CallFault as fault:
            nonsense = fault.code == "bad_body" and self.lanes.makes_no_sense(job)
            told = f"{fault} ({fault.code})"
            if (
                fault.status == 429
                and job.file
                and (admission.is_quota(told) or self.lanes.refused_again(job))
            ):
                await self._over_quota(job, told)
                return None
            if fault.again and (job.file or not nonsense):
                raise
            await self._refused(job, fault)
            return None
        return await self._sent(job, remote)

    async def _sent(self, job: BatchJob, remote: RemoteJob) -> BatchJob | None:
        now = self.clock.now()
        job = msgspec.structs.replace(job, state="sent", remote=remote.id, seen=remote.status, sent=now)
        self.lanes.look_in(job, poll_after(0.0))
        return job if await self.store.put_batch_job(job, self.fence) else None

    async def _lines(self, job: BatchJob) -> AsyncIterator[tuple[str, bytes]]:
        after = ""
        while chunk := await self.store.job_bodies(job.id, after, CHUNK):
            for line in chunk:
                yield line
            after = chunk[-1][0]

    async def _open_lines(self, job: BatchJob) -> AsyncIterator[Line]:
        after = ""
        while chunk := await self.store.job_lines(job.id, after, CHUNK, bodies=False):
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
                return self.lanes.look_in(job, max(1.0, poll_after(self.clock.now() - job.created)))
            job = found
        try:
            remote = await self.provider.poll(job.remote)
        except CallFault as fault:
            if fault.status != 404 or self.clock.now() - job.sent < GRACE:
                raise
            remote = RemoteJob(id=job.remote, status="unknown", over=True)
            log.warning("batch job %s is unknown to %s by now: %s", job.id, self.provider.name, fault)
        if remote.over:
            await self._collect(job, remote)
            return 0.0
        await self._spare(job)
        done = remote.done + remote.failed
        if (remote.status, done) != (job.seen, job.progress):
            await self.store.put_batch_job(
                msgspec.structs.replace(job, seen=remote.status, progress=done), self.fence
            )
        return self.lanes.look_in(job, poll_after(self.clock.now() - job.sent))

    async def _spare(self, job: BatchJob) -> None:
        """End a job whose lines were all answered live: what it hasn't done yet needn't be paid."""
        if job.id in self.lanes.ended or await self.store.job_lines(job.id, "", 1):
            return
        self.lanes.ended.add(job.id)
        try:
            await self.provider.cancel(job.remote)
        except CallFault as fault:
            log.warning("batch job %s isn't needed any more, and can't be cancelled: %s", job.id, fault)

    async def _adopt(self, job: BatchJob) -> BatchJob | None:
        """A job whose submission was cut off: the provider's, if it has it; else sent again after the grace period."""
        orphan = await self.provider.find(
            job.nonce, job.file, job.created, lines=job.lines, others=await self._others(job)
        )
        if orphan is not None and not orphan.sure:  # the provider will tell when that job is over
            log.info("batch job %s may be %s; it isn't sent again before that is known", job.id, orphan.id)
            return None
        if orphan is not None:
            log.info("batch job %s was found again as %s", job.id, orphan.id)
            return await self._sent(job, orphan)
        if job.file and self.clock.now() - job.uploaded < GRACE:
            return None
        if self.lanes.gave_up(job):
            text = (
                f"the answers of {self.provider.name} to a submission make no sense, and it has no such job"
            )
            await self._refused(job, CallFault(200, text, again=False, code="bad_body"))
            return None
        return await self._send(job)

    async def _others(self, job: BatchJob) -> set[str]:
        """Ids of every other open job of this store."""
        heads = await self.store.lanes()
        return {each.remote for head in heads for each in head.jobs if each.remote and each.id != job.id}

    # ------------------------------------------------------------ deliver
    async def _collect(self, job: BatchJob, remote: RemoteJob) -> None:
        """Store how every line of a finished job ended, and close it."""
        if remote.rejected:
            await self._rejected(job, remote)
            return
        if self.lanes.quotas.known(job.lane):
            self.lanes.quotas.accepted(job, await self.store.lanes())
        promoted = (
            {line.id async for line in self._open_lines(job) if line.promoted} if job.dated else set[str]()
        )
        read = 0
        async with self._delivery(job) as delivery:
            try:
                async for result in self.provider.results(remote):
                    if isinstance(result, str):
                        log.warning("batch job %s: a line of its results can't be read: %s", job.id, result)
                        continue
                    read += 1
                    if delivery.add(self._outcome(result, result.id in promoted)):
                        await delivery.send()
            except CallFault as fault:
                if fault.status not in (404, 410):
                    raise
                log.warning("batch job %s: a file of its results is gone: %s", job.id, fault)
        strange = delivery.strange
        if strange and not job.short:
            log.warning(
                "batch job %s: %d results are for lines that aren't open, such as %r",
                job.id,
                len(strange),
                strange[0],
            )
        if await self.store.job_lines(job.id, "", 1, bodies=False):
            if await self._looks_again(job, remote, read - len(strange) + len(set(strange))):
                return
            await self._lack(job, remote)
        await self._close(job, remote.status, remote.done + remote.failed)

    async def _lack(self, job: BatchJob, remote: RemoteJob) -> None:
        """The lines that a job has no result for end without one."""
        status, code, text = _LEFT.get(remote.status, _MISSING)
        error = _failure(self.head.lane, 0, code, text)
        again = fit_to_retry(0, code)
        await self._end(job, lambda line: LineOutcome(line.id, status, None, error, again, most=ATTEMPTS))

    async def _looks_again(self, job: BatchJob, remote: RemoteJob, read: int) -> bool:
        """Whether a job's results, which lack lines, are read once more: those may be late, or this was a bad copy."""
        lacking = read < remote.done + remote.failed
        if job.short + 1 >= LOOKS[lacking] or (remote.status in _LEFT and not lacking):
            return False
        await self.store.put_batch_job(msgspec.structs.replace(job, short=job.short + 1), self.fence)
        self.lanes.look_in(job, BACK_OFF[0] * 2.0**job.short)
        return True

    def _outcome(self, result: LineResult, promoted: bool) -> LineOutcome:
        if result.status == 200:
            problem = check_result(self.provider, self.to, result.body)
            if problem is None:
                paid = used(self.head.lane, self.provider, result.body, self.name) if promoted else None
                return LineOutcome(result.id, "ok", result.body, used=paid, lane=self.name)
            error = _failure(self.head.lane, 200, "bad_body", str(problem))
            return LineOutcome(result.id, "error", None, error, fit_to_retry(0, "bad_body"), most=ATTEMPTS)
        expired = result.code in ("batch_expired", "batch_cancelled")
        status = {"batch_expired": "expired", "batch_cancelled": "cancelled"}.get(result.code, "error")
        message = result.code
        if result.body and not expired:
            message = told(result.body)[0] or result.body[:500].decode("utf-8", "replace")
        return LineOutcome(
            result.id,
            status,  # type: ignore[arg-type]  # one of LineStatus, from the table
            None,
            _failure(self.head.lane, result.status, result.code, message),
            fit_to_retry(result.status, result.code),
            most=ATTEMPTS,
        )

    async def _rejected(self, job: BatchJob, remote: RemoteJob) -> None:
        """The provider took none of the job: lines at fault fail, the others go round again."""
        if admission.is_quota(remote.rejected):
            await self._over_quota(job, remote.rejected)
            return
        log.warning("batch job %s was rejected: %s", job.id, remote.rejected)
        bad = admission.at_fault(job.lines, remote.bad_lines)
        error = _failure(self.head.lane, 400, "batch_rejected", remote.rejected)
        again = not bad and fit_to_retry(500, "")
        outcomes: list[LineOutcome] = []
        async for line in self._open_lines(job):
            innocent = bool(bad) and len(outcomes) + 1 not in bad
            most = 0 if innocent else ATTEMPTS
            outcomes.append(
                LineOutcome(line.id, "error", None, error, innocent or again, innocent, most=most)
            )
        async with self._delivery(job) as delivery:
            for outcome in reversed(outcomes):  # if this breaks off, what is left is numbered as it was
                if delivery.add(outcome):
                    await delivery.send()
        await self._close(job, remote.status, 0, remote.rejected)

    async def _over_quota(self, job: BatchJob, told: str) -> None:
        """Too many tokens are enqueued: the lines wait again, for smaller jobs, and it wasn't an attempt of theirs."""
        quota = self.lanes.quotas.refused(job, await self.store.lanes(), told)
        log.warning(
            "batch job %s is over the quota of enqueued tokens; from now on about %s at once: %s",
            job.id,
            f"{quota.limit:,}",
            told,
        )
        error = _failure(self.head.lane, 429, "token_limit_exceeded", told)

        def outcome(line: Line) -> LineOutcome:
            beyond = admission.is_beyond(quota, line.size)
            return LineOutcome(line.id, "error", None, error, not beyond, free=not beyond)

        await self._end(job, outcome)
        await self._close(job, "over quota", 0, told)

    async def _refused(self, job: BatchJob, fault: CallFault) -> None:
        """The provider didn't even take the job's file, or the job, and won't: its lines fail."""
        log.warning("batch job %s was refused: %s", job.id, fault)
        text = f"{self.provider.name} refused the batch job: {fault.message}"
        error = _failure(self.head.lane, fault.status, fault.code or "batch_refused", text)
        await self._end(job, lambda line: LineOutcome(line.id, "error", None, error))
        await self._close(job, "refused", 0, fault.message)

    async def _end(self, job: BatchJob, outcome: Callable[[Line], LineOutcome]) -> None:
        """Store how all lines of a job end that have no outcome yet."""
        async with self._delivery(job) as delivery:
            async for line in self._open_lines(job):
                if delivery.add(outcome(line)):
                    await delivery.send()

    def _delivery(self, job: BatchJob) -> Delivery:
        async def put(chunk: list[LineOutcome]) -> list[str] | None:
            self.lanes.promotions.answered(self.head.lane, chunk)
            return await self.store.outcomes(job.id, self.fence, chunk, now=self.clock.now())

        return Delivery(put)

    async def _close(self, job: BatchJob, seen: str, progress: int, error: str = "") -> None:
        self.lanes.forget(job)
        over = self.clock.now() if job.sent else 0.0
        closed = msgspec.structs.replace(
            job, state="closed", seen=seen, progress=progress, error=error, over=over
        )
        self.lanes.promotions.closed(closed)
        await self.store.put_batch_job(closed, self.fence)


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T | CallFault]:
    """What each gives, side by side; a fault of the provider's is what one gives."""
    given = await asyncio.gather(*works, return_exceptions=True)
    for each in given:
        if isinstance(each, BaseException) and not isinstance(each, CallFault):
            raise each
    return [each for each in given if isinstance(each, CallFault) or not isinstance(each, BaseException)]


def _failure(lane: str, status: int, code: str, message: str) -> Failure:
    """A line's error, as its run will raise it."""
    endpoint, _ = lane_endpoint(lane)
    return to_failure(model_failed(usage_name(endpoint), status, message, code))
