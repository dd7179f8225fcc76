"""The jobs of the store in memory, and ids in order."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice

import msgspec

from ...ports.store import JobHead
from .run import Run


class Ids:
    """Ids in order; sorting is put off until someone asks."""

    __slots__ = ("_ids", "_sorted")

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._sorted = True

    def add(self, id: str) -> None:
        """One more."""
        self._ids.append(id)
        self._sorted = False

    def remove(self, gone: Collection[str]) -> None:
        """These aren't there any more."""
        self._ids = [id for id in self._ids if id not in gone]

    def after(self, id: str) -> Iterator[str]:
        """Those after one, or all."""
        if not self._sorted:
            self._ids.sort()
            self._sorted = True
        return islice(self._ids, bisect_right(self._ids, id) if id else 0, None)


class Job:
    """A job, and the runs of it."""

    __slots__ = ("counts", "ends", "head", "runs")

    def __init__(self) -> None:
        self.head: JobHead | None = None
        self.runs: list[Run] = []  #: as they were made
        self.counts: Counter[str] = Counter()
        self.ends: list[tuple[int, str]] = []

    def shown(self) -> JobHead | None:
        """Its head, and how its runs are by now."""
        if self.head is None:
            return None
        counts = {status: n for status, n in self.counts.items() if n}
        return msgspec.structs.replace(self.head, counts=counts)


class Jobs:
    """All of them, by id."""

    def __init__(self) -> None:
        self.by_id: dict[str, Job] = {}

    def of(self, id: str) -> Job:
        """The record of one, which may have no head yet."""
        job = self.by_id.get(id)
        if job is None:
            job = self.by_id[id] = Job()
        return job

    def put(self, job: JobHead) -> JobHead:
        """Make one, or set its total."""
        known = self.of(job.id)
        if known.head is None:
            known.head = msgspec.structs.replace(job, counts={})
        elif job.total is not None:
            known.head = msgspec.structs.replace(known.head, total=job.total)
        shown = known.shown()
        assert shown is not None
        return shown

    def lose(self, runs: Collection[Run]) -> None:
        """These are removed."""
        of: dict[str, set[str]] = {}
        for run in runs:
            if run.spec.job:
                of.setdefault(run.spec.job, set()).add(run.id)
                self.of(run.spec.job).counts[run.status] -= 1
        for id, gone in of.items():
            job = self.of(id)
            job.runs = [run for run in job.runs if run.id not in gone]
            job.ends = [end for end in job.ends if end[1] not in gone]

    def remove(self, job: str) -> bool:
        """Forget one that has no runs."""
        known = self.by_id.get(job)
        if known is not None and known.counts.total():
            return False
        self.by_id.pop(job, None)
        return True

    def get(self, job: str) -> JobHead | None:
        """The head of one."""
        known = self.by_id.get(job)
        return known.shown() if known else None

    def listed(self) -> list[JobHead]:
        """The heads of all, the oldest first."""
        shown = (job.shown() for job in self.by_id.values())
        return sorted((job for job in shown if job is not None), key=lambda job: (job.created, job.id))
