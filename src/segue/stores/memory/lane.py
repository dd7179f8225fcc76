"""Lines, lanes and provider jobs as the store in memory keeps them."""

from __future__ import annotations

from heapq import heappop, heappush

import msgspec

from ...model.lane import BatchJob, Line, LineStatus


class LineRecord:
    """A line, and where it is."""

    __slots__ = ("batch", "deserted", "hedged", "line", "number", "status", "unwanted")

    def __init__(self, line: Line, number: int) -> None:
        self.line = line
        self.number = number
        self.status: LineStatus = "waiting"
        self.batch = ""
        self.unwanted = False  # nobody waits for it any more, though it is in a provider job
        self.hedged = ""  # the job that may answer it too: the provider's, or after that one of live calls
        self.deserted = False  # its run doesn't wait for it any more; others that follow it do

    @property
    def is_due(self) -> bool:
        """Whether it may be late, some time."""
        waited_for = self.status in ("waiting", "taken") and not self.unwanted
        return self.line.due > 0 and not self.line.promoted and waited_for

    def is_late(self, now: float, by: float) -> bool:
        """Whether it is late by then; if it fails when it is late, by now."""
        return self.is_due and self.line.due <= (min(now, by) if self.line.late == "fail" else by)


class Lane:
    """Who drives it, and what waits in it."""

    __slots__ = ("dues", "fence", "heap", "lease", "size", "waiting", "worker")

    def __init__(self) -> None:
        self.worker = ""
        self.fence = 0
        self.lease = 0.0
        self.heap: list[tuple[int, LineRecord]] = []
        self.dues: list[tuple[float, int, LineRecord]] = []
        self.waiting = 0
        self.size = 0

    def put(self, line: LineRecord) -> None:
        """It waits."""
        heappush(self.heap, (line.number, line))
        self.dues_again(line)
        self.waiting += 1
        self.size += line.line.size

    def leave(self, line: LineRecord) -> None:
        """It doesn't wait any longer."""
        self.waiting -= 1
        self.size -= line.line.size

    def oldest(self) -> LineRecord | None:
        """The one that waits longest."""
        while self.heap and self.heap[0][1].status != "waiting":
            heappop(self.heap)
        return self.heap[0][1] if self.heap else None

    def dues_again(self, line: LineRecord) -> None:
        """It may be late, as it is now."""
        if line.is_due:
            heappush(self.dues, (line.line.due, line.number, line))

    def first_due(self) -> LineRecord | None:
        """The one that is late first."""
        while self.dues and not (self.dues[0][2].is_due and self.dues[0][2].line.due == self.dues[0][0]):
            heappop(self.dues)
        return self.dues[0][2] if self.dues else None


class Batch:
    """A provider job, and what is in it."""

    __slots__ = ("hedged", "ids", "job", "lines")

    def __init__(self, job: BatchJob, lines: dict[str, LineRecord]) -> None:
        self.job = job
        self.ids = sorted(lines, key=lambda id: lines[id].number)
        self.lines = lines  #: those without an outcome
        self.hedged: dict[str, LineRecord] = {}  #: those that may get a second outcome here

    def close_if_done(self, now: float) -> None:
        """It is closed once nothing more comes of it."""
        if not self.lines and not self.hedged and self.job.state != "closed":
            over = now if self.job.sent else 0.0
            self.job = msgspec.structs.replace(self.job, state="closed", over=over)
