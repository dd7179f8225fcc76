"""What drives a lane of the store in memory: lines taken into provider jobs, late ones promoted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection
from heapq import heappop, heappush
from itertools import islice

import msgspec

from ...model.lane import LIVE, BatchJob, LaneHead, Line
from .budgets import Budgets
from .lane import Batch, LineRecord
from .lines import Lines


class Driving:
    """Lanes and provider jobs, as their driver sees them."""

    def __init__(self, lines: Lines, budgets: Budgets) -> None:
        self._lines = lines
        self._budgets = budgets

    def heads(self) -> list[LaneHead]:
        """The lanes in which something is to be done."""
        jobs: dict[str, list[BatchJob]] = {}
        for batch in self._lines.batches.values():
            if batch.job.state != "closed":
                jobs.setdefault(batch.job.lane, []).append(batch.job)
        out: list[LaneHead] = []
        for name, lane in sorted(self._lines.lanes.items()):
            oldest = lane.oldest()
            if lane.waiting or name in jobs:
                created = oldest.line.created if oldest else 0.0
                first = lane.first_due()
                due = first.line.due if first else 0.0
                out.append(LaneHead(name, lane.waiting, lane.size, created, jobs.get(name, []), due))
        return out

    def claim(self, lane: str, worker: str, ttl: float, now: float) -> int | None:
        """Drive a lane, unless somebody else does."""
        known = self._lines.lane(lane)
        if known.worker != worker:
            if known.worker and known.lease > now:
                return None
            known.worker = worker
            known.fence += 1
        known.lease = now + ttl
        return known.fence

    def take(
        self,
        lane: str,
        fence: int,
        *,
        max_lines: int,
        max_bytes: int,
        job: str,
        nonce: str,
        now: float,
        late_by: float = 0.0,
    ) -> BatchJob | None:
        """Take what waits into a provider job, but what would be late."""
        if not self._lines.drives(lane, fence):
            return None
        if job in self._lines.batches:
            return self._lines.batches[job].job
        known, size, taken, left = self._lines.lanes[lane], 0, dict[str, LineRecord](), list[LineRecord]()
        while len(taken) < max_lines:
            line = known.oldest()
            if line is not None and line.is_late(now, late_by):
                left.append(line)
                heappop(known.heap)
                continue
            if line is None or (taken and size + line.line.size > max_bytes):
                break
            size += line.line.size
            known.leave(line)
            line.status, line.batch = "taken", job
            heappop(known.heap)
            taken[line.line.id] = line
        for line in left:
            heappush(known.heap, (line.number, line))
        if not taken:
            return None
        made = BatchJob(job, lane, nonce, "intent", len(taken), now, size=size)
        shared = any(line.line.same for line in taken.values())
        made = msgspec.structs.replace(made, shared=shared)
        batch = self._lines.batches[job] = Batch(made, taken)
        return batch.job

    def promote(
        self, lane: str, fence: int, *, by: float, max_lines: int, job: str, now: float
    ) -> BatchJob | None:
        """Take late lines into a job of live calls."""
        if not self._lines.drives(lane, fence):
            return None
        if job in self._lines.batches:
            return self._lines.batches[job].job
        known, late, early = self._lines.lanes[lane], list[LineRecord](), list[LineRecord]()
        while len(late) < max_lines and (line := known.first_due()) is not None and line.line.due <= by:
            heappop(known.dues)
            if not line.is_late(now, by):
                early.append(line)
            elif line not in late:
                late.append(line)
        for line in early:
            known.dues_again(line)
        if not late:
            return None
        made = BatchJob(job, lane, job, "live", len(late), now, remote=LIVE, sent=now)
        batch = self._lines.batches[job] = Batch(made, {line.line.id: line for line in late})
        for line in late:
            if line.status == "waiting":
                known.leave(line)
            else:
                line.hedged = line.batch
                del self._lines.batches[line.batch].lines[line.line.id]
                self._lines.batches[line.batch].hedged[line.line.id] = line
            line.status, line.batch = "taken", job
            line.line = msgspec.structs.replace(line.line, promoted=True)
        return batch.job

    # ------------------------------------------------------------ provider jobs
    def put_job(self, job: BatchJob, fence: int) -> bool:
        """How it goes with a provider job."""
        if job.id not in self._lines.batches or not self._lines.drives(job.lane, fence):
            return False
        batch = self._lines.batches[job.id]
        if job.state == "closed":
            for line in list(batch.hedged.values()):
                self._lines.unhedge(line)
            self._budgets.wake(job.over)
        is_open = batch.lines or batch.hedged
        batch.job = job if is_open else msgspec.structs.replace(job, state="closed")
        return True

    def jobs(self, lane: str, open_only: bool) -> list[BatchJob]:
        """Provider jobs, of a lane or all."""
        jobs = (batch.job for batch in self._lines.batches.values())
        return [job for job in jobs if lane in ("", job.lane) and not (open_only and job.state == "closed")]

    def lines_of(
        self,
        job: str,
        after: str,
        limit: int,
        bodies: bool,
        only: Callable[[LineRecord], bool] | None = None,
    ) -> list[Line]:
        """Those without an outcome, in order."""
        if job not in self._lines.batches:
            return []
        batch, known = self._lines.batches[job], self._lines.by_id
        start = 0
        if after in known:
            start = bisect_right(batch.ids, known[after].number, key=lambda id: known[id].number)
        ids = islice(batch.ids, start, None)
        hedged = {
            id for id, line in batch.hedged.items() if not bodies or line.status == "taken"
        }  # few, if any
        open_ids = (
            id for id in ids if (id in batch.lines or id in hedged) and (only is None or only(known[id]))
        )
        return [known[id].line for id in islice(open_ids, limit)]

    # ------------------------------------------------------------ drivers
    def workers(self) -> set[str]:
        """Who drives lanes."""
        return {lane.worker for lane in self._lines.lanes.values() if lane.worker and lane.lease}

    def bury(self, workers: Collection[str]) -> None:
        """What these drive, anybody may."""
        for lane in self._lines.lanes.values():
            if lane.worker in workers:
                lane.lease = 0.0
