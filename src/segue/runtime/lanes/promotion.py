"""Sending late lines of lanes as live calls: each at most once, as many at a time as the endpoint bears.

Which are sent is written before they are: a job in state `live`. After a crash, those of it that have no outcome are
sent again, so a call that was under way may be paid twice; that is the bound. A line that is in a provider's job as
well stays there, and the first answer counts: the other is kept as paid and unclaimed.
"""

from __future__ import annotations

import asyncio
import logging
import math
from asyncio import Task
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from uuid import uuid4

import msgspec

from ...authoring.failures import to_failure
from ...core import deadlines
from ...model.budget import Amount
from ...model.errors import DeadlineMissed, StoreError
from ...model.lane import LIVE, BatchJob, LaneHead, Line, LineOutcome
from ...model.mode import Live
from ...model.run import ENDED, Usage
from ...ports.clock import AlarmClock
from ...ports.provider import CallFault
from ...ports.store import Store
from ..calls.answer import check_result, shared_outcome, used
from ..calls.models import Models
from ..calls.naming import base_lane, in_window, lane_endpoint, lane_name, usage_name
from ..calls.trying import model_failed, until_answered

log = logging.getLogger("segue")

#: Lines are read so many at a time.
CHUNK = 64
#: So many of a store's newest jobs are looked at for how long they took.
LEARNED = 1000
#: A round of live calls that failed as a whole begins again after so many seconds.
AGAIN = 2.0
#: A store that can't take answers is asked again after so many seconds each time.
STORING = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)


class Promotions:
    """The live calls of this process's lanes; see `Lanes`."""

    def __init__(self, store: Store, models: Models, clock: AlarmClock, kick: Callable[[], None]) -> None:
        self._store, self._models, self._clock, self._kick = store, models, clock, kick
        self._rounds: dict[str, _Round] = {}  # by lane
        self._promoting: set[str] = set()  # lanes for which a round is about to begin
        self._rests: dict[str, float] = {}  # by lane: until when no round begins

    async def learn(self, store: Store | None = None) -> None:
        """Take note of how long the jobs of this store, or of another, took."""
        for job in await (store or self._store).batch_jobs(open_only=False, newest=LEARNED):
            self.closed(job)

    def closed(self, job: BatchJob) -> None:
        """A job is over: how long it took tells of the next."""
        live = job.remote == LIVE
        if job.sent and job.over > job.sent and not job.error and (job.progress or not live):
            kind = f"{base_lane(job.lane)}|{LIVE}" if live else job.lane
            took = self._models.ways.took.setdefault(kind, [])
            took.append(job.over - job.sent if live or job.progress >= job.lines else math.inf)
            del took[: -deadlines.NEWEST]

    async def advance(self, head: LaneHead, fence: int) -> float:
        """Go on with what was promoted, and promote what is late; seconds until something is due."""
        if head.lane in self._promoting or head.lane in self._rounds:
            return AGAIN
        self._promoting.add(head.lane)
        try:
            return await self._advance(head, fence)
        finally:
            self._promoting.discard(head.lane)

    async def _advance(self, head: LaneHead, fence: int) -> float:
        if self._clock.steady() < self._rests.get(head.lane, 0.0):
            return AGAIN
        now = self._clock.now()
        job = next((job for job in head.jobs if job.state == "live"), None)
        if job is None:
            if not head.due:
                return 60.0
            by = self.late_by(head)
            if head.due > by:
                return head.due - by
            ident = uuid4().hex
            job = await self._store.promote(
                head.lane, fence, by=by, max_lines=deadlines.AT_ONCE, job=ident, now=now
            )
            if job is None:
                return AGAIN
            log.info("%d calls of lane %s would be late in their jobs: they go live", job.lines, head.lane)
        self._rounds[head.lane] = _Round(self._store, self._models, self._clock, job, fence, self._left)
        return AGAIN

    def late_by(self, head: LaneHead) -> float:
        """Lines that are due by then have to be sent live now: as many may be late as are open."""
        lines = head.waiting + sum(max(0, job.lines - job.progress) for job in head.jobs)
        took = self._models.ways.took.get(f"{base_lane(head.lane)}|{LIVE}", ())
        return self._clock.now() + deadlines.lead(took, lines)

    def _left(self, job: BatchJob, error: BaseException | None) -> None:
        """A round is over."""
        self._rounds.pop(job.lane, None)
        self.closed(job)
        if error is not None:
            self._rests[job.lane] = self._clock.steady() + AGAIN
            log.warning("late calls of lane %s can't be sent live now: %s", job.lane, error)
        self._kick()

    def answered(self, lane: str, chunk: Iterable[LineOutcome]) -> None:
        """A provider's job answered lines: calls that haven't begun needn't."""
        current = self._rounds.get(lane)
        if current is not None:
            current.spare(outcome.id for outcome in chunk if outcome.status == "ok")

    async def settled(self) -> None:
        """Wait until no round is under way."""
        while self._rounds:
            await asyncio.wait([one.task for one in self._rounds.values()])
            await asyncio.sleep(0)  # their ends are noted by callbacks

    async def land(self, grace: float) -> None:
        """Begin no more calls; those under way, which are paid, get so many seconds to come in."""
        rounds = list(self._rounds.values())
        for one in rounds:
            one.land()
        if rounds and grace > 0:
            await asyncio.wait([one.task for one in rounds], timeout=grace)

    async def close(self) -> None:
        """Break off; what is left goes on with the next process."""
        rounds = list(self._rounds.values())
        for one in rounds:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in rounds), return_exceptions=True)


class _Round:
    """The lines of one job of live calls, side by side."""

    def __init__(
        self,
        store: Store,
        models: Models,
        clock: AlarmClock,
        job: BatchJob,
        fence: int,
        left: Callable[[BatchJob, BaseException | None], None],
    ) -> None:
        self._store, self._models, self._clock, self._job, self._fence = store, models, clock, job, fence
        self._calls: dict[str, Task[LineOutcome]] = {}
        self._begun: set[str] = set()
        self._flying: set[str] = set()
        self._landing = False
        self._reserved: dict[str, Amount] = {}
        self._spoilt: Counter[str] = Counter()  # by line: answers that were no use, which may be billed
        self.task = asyncio.ensure_future(self._carry())
        self.task.add_done_callback(
            lambda task: left(self._job, None if task.cancelled() else task.exception())
        )

    def spare(self, ids: Iterable[str]) -> None:
        """These were answered otherwise."""
        for ident in ids:
            call = self._calls.get(ident)
            if call is not None and ident not in self._flying:  # nor was what is to be tried again
                call.cancel()

    def land(self) -> None:
        """Send no more; what a provider has comes in."""
        self._landing = True
        for ident, call in self._calls.items():
            if ident not in self._flying:
                call.cancel()

    async def _carry(self) -> None:
        try:
            self._reserved = await self._store.reserved(self._job.id)
            after = ""
            while (lines := await self._store.job_lines(self._job.id, after, CHUNK)) and not self._landing:
                after = lines[-1].id
                self._calls |= {line.id: asyncio.ensure_future(self._outcome(line)) for line in lines}
            pending = set(self._calls.values())
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                came = [task for task in done if not task.cancelled()]
                outcomes = [task.result() for task in came if task.exception() is None]
                if len(outcomes) < len(came):  # those under way are paid
                    self.land()
                if outcomes and not await self._put(outcomes):
                    return
            for task in self._calls.values():
                if not task.cancelled():
                    task.result()
            await self._close()
        finally:
            for call in self._calls.values():
                call.cancel()

    async def _put(self, outcomes: list[LineOutcome]) -> bool:
        """Store some; false if another process drives the lane by now.

        They are paid, and given up they would be paid again: a store that can't is asked once more, for some minutes.
        """
        waits = iter(STORING)
        while True:
            try:
                now = self._clock.now()
                return await self._store.outcomes(self._job.id, self._fence, outcomes, now=now) is not None
            except StoreError as error:
                wait = next(waits, None)
                if wait is None:
                    raise
                lane, many = self._job.lane, len(outcomes)
                log.warning("lane %s: %d late answers can't be stored now: %s", lane, many, error)
                await self._clock.sleep(wait)

    async def _close(self) -> None:
        """All were answered, here or by the jobs that they were in as well. `progress`: how many were sent."""
        if await self._store.job_lines(self._job.id, "", 1):
            return
        closed = msgspec.structs.replace(
            self._job, state="closed", over=self._clock.now(), progress=len(self._begun)
        )
        if await self._store.put_batch_job(closed, self._fence):
            self._job = closed

    # ------------------------------------------------------------ one line
    async def _outcome(self, line: Line) -> LineOutcome:
        endpoint, lane = lane_endpoint(line.lane)
        if line.late == "fail":
            over = timedelta(seconds=max(0, round(self._clock.now() - line.created)))
            missed = DeadlineMissed(
                usage_name(endpoint), lane_name(lane), f"{over} have passed since it was made"
            )
            return LineOutcome(line.id, "expired", None, to_failure(missed))
        provider = self._models.provider(endpoint)
        to, _ = in_window(lane)
        limit = self._models.limit(endpoint.base_url, endpoint.provider, endpoint.model, endpoint.credential)

        async def send(attempt: int) -> bytes:
            if not line.same and await self._is_over(line.call.run):  # others may follow one that is the same
                raise CallFault(0, "the run that made this call has ended", again=False)
            self._begun.add(line.id)
            self._flying.add(line.id)
            try:
                body = await provider.send(to, line.body, None, limit.heard)
            except CallFault as fault:
                if fault.again and self._landing:  # the next try is the next process's
                    raise asyncio.CancelledError from fault
                raise
            finally:
                self._flying.discard(line.id)
            problem = check_result(provider, to, body)
            if problem is not None:
                raise CallFault(200, str(problem), again=True, code="bad_body")
            return body

        try:
            body = await until_answered(
                limit,
                self._models.clock,
                send,
                most=Live().concurrency,
                tokens=len(line.body) // 4,
                seed=line.id,
                model=usage_name(endpoint),
                spoil=lambda: self._spoilt.update([line.id]),
            )
        except CallFault as fault:
            error = model_failed(usage_name(endpoint), fault.status, fault.message, fault.code)
            paid = self._paid(line, None)
            return LineOutcome(line.id, "error", None, to_failure(error), lane=LIVE, paid=paid)
        use = used(line.lane, provider, body, LIVE)
        outcome = LineOutcome(line.id, "ok", body, used=use, lane=LIVE, paid=self._paid(line, use))
        return shared_outcome(outcome, line.lane, provider, LIVE) if line.same else outcome

    async def _is_over(self, run: str) -> bool:
        head = await self._store.get(run)
        return head is not None and head.status in ENDED

    def _paid(self, line: Line, use: Usage | None) -> Amount | None:
        """What a line's live call takes off its budgets, if it is on any: its answer, and those that were no use."""
        reserved = self._reserved.get(line.id)
        if reserved is None:
            return None
        paid = Amount() if use is None else self._models.budgets.line_cost(use, reserved)
        for _ in range(self._spoilt[line.id]):
            paid = paid.plus(reserved)
        return paid
