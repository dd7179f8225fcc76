"""Every lane of a store: whose it is now, when it is looked after, and when what waits in it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from ...core.batching import Decision, decide
from ...model.errors import CallerError, OperatorError, StoreError
from ...model.lane import LaneHead
from ...model.mode import Batch
from ...ports.clock import AlarmClock
from ...ports.provider import BatchProvider, CallFault
from ...ports.store import Store
from ..calls.models import Models
from ..calls.naming import lane_endpoint
from ..ground.jumps import Jumps
from .desk import Desk, Held
from .lane import Lane

log = logging.getLogger("segue")

T = TypeVar("T")

#: How long a lane stays with one worker without word of it, in seconds.
LEASE = 60.0
#: Back-off after a failure, in seconds: the first, and the longest.
BACK_OFF = (1.0, 60.0)
#: So long the other lanes wait for one whose provider is slow, in seconds.
PATIENCE = 0.25
#: How often a lane is looked at for late lines while its provider is slow, in seconds; each so many looks it is claimed
#: anew.
LOOK, KEEP = 1.0, 15


class Lanes:
    """Drives every lane of a store that this process can speak for."""

    def __init__(
        self,
        store: Store,
        models: Models,
        clock: AlarmClock,
        worker: str,
        busy: Callable[[], bool],
        kick: Callable[[], None],
        backlog: Callable[[], Awaitable[tuple[int, float | None]]],
    ) -> None:
        self.store, self.models, self.clock, self.worker = store, models, clock, worker
        self._backlog = backlog  # of the runs that could be at work here
        self._kick = kick
        self._driven: dict[str, asyncio.Task[float]] = {}  # by lane: looks after it just now
        self._busy = busy  # whether this process may still add lines
        self._failures: dict[str, int] = {}  # by lane, in a row
        self._fences: dict[str, tuple[int, float]] = {}  # by lane: ours, and when it was last claimed
        self._warned: set[str] = set()
        self._jumps = Jumps(clock)
        self.desk = Desk(store, models, clock, kick)
        self.promotions = self.desk.promotions
        self._sweeping = asyncio.Lock()

    async def sweep(self, *, poll_now: bool = False) -> float | None:
        """Do what is due in every lane. Seconds until something is due again; None if no lane has anything."""
        async with self._sweeping:
            if poll_now and self._driven:
                await self._looked_after(None)
            heads = await self.store.lanes()
            for head in heads:
                if head.lane not in self._driven:
                    self._driven[head.lane] = asyncio.ensure_future(self._drive(head, poll_now))
            if not self._driven:
                return None
            waits = await self._looked_after(None if poll_now else PATIENCE)
        if poll_now:  # who looks once waits for what live calls give
            await self.promotions.settled()
        return min(waits, default=LEASE)

    async def _looked_after(self, patience: float | None) -> list[float]:
        """What lanes that were looked after say of when something is due. One that takes longer holds up no other:
        it goes on by itself, and has the lanes looked at once more."""
        done, late = await asyncio.wait(self._driven.values(), timeout=patience)
        self._driven = {lane: task for lane, task in self._driven.items() if task in late}
        for task in late:
            task.remove_done_callback(self._late)
            task.add_done_callback(self._late)
        failures = [error for task in done if (error := task.exception()) is not None]
        if failures:
            raise failures[0]
        return [task.result() for task in done]

    def _late(self, _: object) -> None:
        self._kick()

    async def _drive(self, head: LaneHead, poll_now: bool) -> float:
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
        rest = self.desk.rests(head.lane)
        if rest > 0 and not poll_now:
            return min(rest, await self.promotions.advance(head, fence))
        fault: Exception | None
        async with self._kept(head.lane, fence):
            try:
                again, fault = await self._advance(Lane(self.desk, Held(head, provider, to, fence)), poll_now)
            except StoreError:
                raise
            except (CallFault, CallerError, OperatorError) as error:
                again, fault = 60.0, error
        if fault is None:
            self._failures.pop(head.lane, None)
            self._warned.discard(head.lane)
            return again
        wait = self._failed(head.lane, provider.name, fault)
        self.desk.rest(head.lane, wait)
        return min(again, wait)

    def _failed(self, lane: str, provider: str, fault: Exception) -> float:
        """A lane's provider doesn't do what it should: seconds until it is asked again."""
        failures = self._failures[lane] = self._failures.get(lane, 0) + 1
        wait = min(BACK_OFF[0] * 2.0 ** min(failures - 1, 10), BACK_OFF[1])
        wait = max(wait, getattr(fault, "after", None) or 0.0)
        if not failures & failures - 1:  # the first, the second, the fourth …: silence would look like a hang
            often = "" if failures == 1 else f", {failures} times in a row; it is asked again in {wait:.0f} s"
            log.warning("lane %s: %s doesn't answer as it should%s: %s", lane, provider, often, fault)
        return wait

    async def _advance(self, lane: Lane, poll_now: bool) -> tuple[float, CallFault | None]:
        """Look after the open jobs of a lane, have what is late go live, and send what is to be sent.

        Seconds until something is due, and what its provider didn't do of what is tried again.
        """
        head = lane.head
        again, fault = await self._look_after_jobs(lane, poll_now)
        again = min(again, await self.promotions.advance(head, lane.fence))
        unsent = any(job.state in ("intent", "uploaded") for job in head.jobs)
        if unsent and fault is not None and fault.again:  # what waits goes together, once that went
            return again, fault
        pause = self.desk.pause(head.lane)
        if head.waiting and pause > 0 and not poll_now:
            return min(again, pause, 1.0), fault
        return min(again, await self._submit(lane)), fault

    async def _look_after_jobs(self, lane: Lane, poll_now: bool) -> tuple[float, CallFault | None]:
        """Each for itself, as many at once as the provider takes."""
        again, at_once = 60.0, lane.provider.at_once
        fault: CallFault | None = None
        jobs = [job for job in lane.head.jobs if job.state != "live"]
        for start in range(0, len(jobs), at_once):
            some = jobs[start : start + at_once]
            for wait in await _all(lane.advance(job, poll_now) for job in some):
                if isinstance(wait, CallFault):
                    fault = wait
                else:
                    again = min(again, wait)
        return again, fault

    async def _submit(self, lane: Lane) -> float:
        """Send what is to be sent now; seconds until there may be more."""
        again, at_once = 60.0, lane.provider.at_once
        decision = await self._decide(lane.head, lane.provider)
        while decision.send:
            again = 0.25
            policy = self.policy(lane.head.lane)
            made = await _all(lane.submit(policy) for _ in range(at_once))
            for each in made:
                if isinstance(each, CallFault):
                    raise each
            if None in made:
                break
            left = await self._head(lane.head.lane)
            decision = await self._decide(left, lane.provider) if left is not None else Decision(False)
        return again if decision.again is None else min(again, decision.again, 1.0)

    # ------------------------------------------------------------ whose a lane is
    async def _claim(self, head: LaneHead) -> tuple[int, LaneHead] | None:
        """Our fence for a lane, and how it stands under it."""
        now = self.clock.now()
        known = self._fences.get(head.lane)
        if known is not None and 0.0 <= now - known[1] < LEASE / 4:
            return known[0], head
        if known is None and self._jumps.recent:  # whoever drives it gets the chance to say so
            return None
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
    async def _kept(self, lane: str, fence: int) -> AsyncGenerator[None]:
        """Keep a lane for as long as an upload or a download takes, and send what is late meanwhile."""
        keeping = asyncio.ensure_future(self._keep(lane, fence))
        try:
            yield
        finally:
            keeping.cancel()

    async def _keep(self, lane: str, fence: int) -> None:
        looks = 0
        while True:
            await asyncio.sleep(LOOK)
            looks += 1
            with contextlib.suppress(StoreError):  # there is another look
                if looks % KEEP == 0:
                    await self.store.claim_lane(lane, self.worker, LEASE, now=self.clock.now())
                if (head := await self._head(lane)) is not None:
                    await self.promotions.advance(head, fence)

    async def release(self) -> None:
        """Let other workers drive the lanes at once, not only when the lease has lapsed."""
        under_way, self._driven = list(self._driven.values()), {}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self.promotions.close()
        driven = list(self._fences)
        self._fences.clear()
        for lane in driven:
            with contextlib.suppress(StoreError):  # it lapses by itself, then
                await self.store.claim_lane(lane, self.worker, 0.0, now=self.clock.now())

    def policy(self, lane: str) -> Batch:
        """How the runs of this process want the lane's jobs; the defaults for lines that others left."""
        return self.models.ways.policies.get(lane, Batch())

    async def _decide(self, head: LaneHead, provider: BatchProvider) -> Decision:
        now = self.clock.now()
        room, held = await self.desk.room(head.lane), self.desk.quotas.held(head.lane)
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

    def _warn(self, lane: str, text: str) -> None:
        if lane not in self._warned:
            self._warned.add(lane)
            log.warning(text)


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T | CallFault]:
    """What each gives, side by side; a fault of the provider's is what one gives."""
    given = await asyncio.gather(*works, return_exceptions=True)
    for each in given:
        if isinstance(each, BaseException) and not isinstance(each, CallFault):
            raise each
    return [each for each in given if isinstance(each, CallFault) or not isinstance(each, BaseException)]
