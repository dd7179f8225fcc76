"""What the lanes of a process share: the store, and what is known of their jobs beside what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...model.lane import BatchJob, LaneHead
from ...ports.clock import AlarmClock
from ...ports.provider import BatchProvider
from ...ports.store import Store
from ..calls.models import Models
from .promotion import Promotions
from .quotas import Quotas

#: What makes no sense as an answer to an upload is taken for a passing trouble so many times.
PATIENCE = 5
#: A job whose submission is refused so often as too many is taken for too large.
REFUSALS = 3
#: A lane of whose jobs came nothing but what may pass, so many in a row, sends no other for so long, in seconds.
PAUSES = (0.0, 10.0, 60.0, 300.0)


class Held(NamedTuple):
    """A lane that this process drives: how it stood, who carries its jobs out, for which endpoint, under what fence."""

    head: LaneHead
    provider: BatchProvider
    to: str
    fence: int


class Desk:
    """When lanes and jobs are looked at again, and what failed how often."""

    def __init__(self, store: Store, models: Models, clock: AlarmClock, kick: Callable[[], None]) -> None:
        self.store, self.models, self.clock = store, models, clock
        self.quotas = Quotas(clock)
        self.promotions = Promotions(store, models, clock, kick)
        self.ended: dict[str, bool] = {}  # by job that isn't needed: whether it was heard that it is to end
        self._due: dict[str, float] = {}  # by job: when it is looked at again
        self._rests: dict[str, float] = {}  # by lane: until when it is left alone
        self._vain: dict[str, int] = {}  # by lane: jobs in a row of which nothing came
        self._pauses: dict[str, float] = {}  # by lane: until when it sends nothing
        self._nonsense: dict[str, int] = {}  # by job: answers to its submission that made no sense
        self._refusals: dict[str, int] = {}  # by job: submissions that were too many

    async def room(self, lane: str) -> int | None:
        """Bytes that a new job of a lane may have, as far as its quota goes; None for any."""
        return self.quotas.room(lane, await self.store.lanes()) if self.quotas.known(lane) else None

    def due(self, job: BatchJob, poll_now: bool) -> float:
        """Seconds until a job is to be looked at; 0 for now."""
        return 0.0 if poll_now else max(0.0, self._due.get(job.id, 0.0) - self.clock.steady())

    def look_in(self, job: BatchJob, seconds: float) -> float:
        """Look at a job again that much later."""
        self._due[job.id] = self.clock.steady() + seconds
        return seconds

    def rests(self, lane: str) -> float:
        """Seconds for which a lane is to be left alone."""
        return self._rests.get(lane, 0.0) - self.clock.steady()

    def rest(self, lane: str, seconds: float) -> None:
        """Leave a lane alone for that long."""
        self._rests[lane] = self.clock.steady() + seconds

    def came(self, lane: str, *, good: bool, passing: bool) -> float:
        """A job is over, and there were answers in it, or failures that may pass; seconds until the lane sends another.

        Each line goes out a few times only: they would all be over in a moment, where a provider is out of order.
        """
        if good:
            self._vain.pop(lane, None)
            self._pauses.pop(lane, None)
        if good or not passing:
            return 0.0
        vain = self._vain[lane] = self._vain.get(lane, 0) + 1
        pause = PAUSES[min(vain, len(PAUSES)) - 1]
        self._pauses[lane] = self.clock.steady() + pause
        return pause

    def pause(self, lane: str) -> float:
        """Seconds for which a lane is to send nothing."""
        return self._pauses.get(lane, 0.0) - self.clock.steady()

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
        self.ended.pop(job.id, None)
        self._due.pop(job.id, None)
        self._nonsense.pop(job.id, None)
