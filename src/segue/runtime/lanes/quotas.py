"""What this process has found out about quotas of enqueued tokens, by model and credential."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...core import admission
from ...core.admission import Quota
from ...model.lane import BatchJob, LaneHead
from ...ports.clock import AlarmClock
from ..calls.naming import lane_endpoint

NONE = Quota()


class Quotas:
    """Lanes of one model and credential share a quota, whatever their endpoint."""

    def __init__(self, clock: AlarmClock) -> None:
        self._clock = clock
        self._known: dict[object, Quota] = {}

    def known(self, lane: str) -> bool:
        """Whether anything was ever refused there."""
        return _key(lane) in self._known

    def of(self, lane: str) -> Quota:
        """What is known of a lane's."""
        return self._known.get(_key(lane), NONE)

    def held(self, lane: str) -> float:
        """Seconds for which nothing is to be sent there."""
        return max(0.0, self.of(lane).until - self._clock.steady())

    def room(self, lane: str, heads: Collection[LaneHead]) -> int | None:
        """Bytes that a new job of a lane may have; None for any, 0 for better to wait."""
        waiting = sum(head.size for head in heads if head.lane == lane)
        return admission.room(self.of(lane), _queued(lane, heads), waiting)

    def refused(self, job: BatchJob, heads: Iterable[LaneHead], told: str) -> Quota:
        """A job of that lane was refused for it."""
        queued = _queued(job.lane, heads, but=job.id)
        found = admission.refused(self.of(job.lane), queued, job.size, told, self._clock.steady())
        self._known[_key(job.lane)] = found
        return found

    def accepted(self, job: BatchJob, heads: Iterable[LaneHead]) -> None:
        """The provider has worked on a job."""
        queued = _queued(job.lane, heads, but=job.id)
        self._known[_key(job.lane)] = admission.accepted(self.of(job.lane), queued + job.size)


def _key(lane: str) -> object:
    return lane_endpoint(lane)[0]


def _queued(lane: str, heads: Iterable[LaneHead], *, but: str = "") -> int:
    """Bytes of the open jobs that share a lane's quota."""
    key = _key(lane)
    return sum(job.size for head in heads if _key(head.lane) == key for job in head.jobs if job.id != but)
