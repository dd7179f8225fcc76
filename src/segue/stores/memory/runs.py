"""The runs of the store in memory: which are ready, due or claimed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice

from ...model.run import Head, Status
from ...ports.store import Claimed, Created, Lease, NewRun, Turn
from .. import poison
from .hints import Hints
from .jobs import Ids, Jobs
from .run import Run

#: Where a run stands among those to be claimed: its priority, negated, its number, and it.
_Place = tuple[int, int, Run]


class Runs:
    """All of them, by id and by what is to be done with them."""

    def __init__(self, jobs: Jobs, hints: Hints) -> None:
        self._jobs = jobs
        self._hints = hints
        self.by_id: dict[str, Run] = {}
        self._ids = Ids()
        self._all: list[Run] = []  #: as they were made
        self._roots: list[Run] = []  #: those of no job that no run which is there has started
        self.held: dict[str, Run] = {}  #: claimed runs
        self.lapse = float("inf")  #: no claim lapses before this
        self._ready: list[_Place] = []
        self._waiting: int = 0  #: how many runs are ready and not claimed
        self._due: list[tuple[float, int, Run]] = []
        self._timers = 0  #: how many entries of `_due` are still true
        self._ended = 0
        self._made = 0
        self._floor = 0  #: the highest fence of those that were removed
        self.gives_back: Callable[[str, float], None]  #: told of runs that are held as poison

    # ------------------------------------------------------------ states of a run
    def move(self, run: Run, status: Status) -> None:
        """Another status, in all that counts by it. Who makes it ready calls `enqueue` too."""
        if run.status != status:
            if run.spec.job:
                counts = self._jobs.of(run.spec.job).counts
                counts[run.status] -= 1
                counts[status] += 1
            run.status = status
        if run.wake is not None:
            run.wake = None
            self._timers -= 1

    def enqueue(self, run: Run) -> None:
        """It is ready to be claimed."""
        self._waiting += 1
        self._queue(run)
        self._hints.hint("ready", run.id)

    def _queue(self, run: Run) -> None:
        place = _place(run)
        if run.queued != place[0]:
            run.queued = place[0]
            heappush(self._ready, place)

    def _hold(self, run: Run, worker: str, until: float, now: float) -> None:
        run.fence += 1
        run.worker, run.lease, run.updated, run.reason = worker, until, now, ""
        self.held[run.id] = run
        if until < self.lapse:
            self.lapse = until

    def let_go(self, run: Run) -> None:
        """Nobody has it claimed."""
        run.worker, run.lease = "", None
        self.held.pop(run.id, None)

    def set_timer(self, run: Run, wake: float) -> None:
        """It is ready then."""
        run.wake = wake
        self._timers += 1
        heappush(self._due, (wake, run.number, run))
        if len(self._due) > 2 * self._timers + 1000:
            self._due = [item for item in self._due if item[2].wake == item[0]]
            heapify(self._due)

    def wake_by(self, run: Run, due: float) -> None:
        """It is ready then, if not before."""
        if run.wake is None or due < run.wake:
            self._timers -= run.wake is not None
            self.set_timer(run, due)
            self._hints.hint("ready", run.id)  # of it, when others are due

    def end(self, run: Run, turn: Turn) -> None:
        """Its last turn, unless it is revived."""
        self.move(run, turn.status)
        run.value, run.error = turn.value, turn.error
        self._ended += 1
        run.finished = self._ended
        if run.spec.job:
            self._jobs.of(run.spec.job).ends.append((run.finished, run.id))

    def take_back(self, run: Run) -> None:
        """It isn't claimed, nor to be claimed."""
        if run.status == "ready" and run.lease is None:
            self._waiting -= 1
        self.let_go(run)

    def has_room(self, id: str, now: float) -> None:
        """A run that waited for room is ready."""
        run = self.by_id[id]
        if run.status in ("parked", "held"):
            self.move(run, "ready")
            run.reason, run.updated = "", now
            self.enqueue(run)

    # ------------------------------------------------------------ coming and being claimed
    def create(self, new: NewRun, now: float, worker: str = "", ttl: float = 0.0) -> Created:
        """Create a run, unless it is there; claimed by a worker where one is given."""
        known = self.by_id.get(new.id)
        if known is not None:
            return Created(False, known.head())
        self._made += 1
        call = new.spec.parent
        parent = None if call is None else self.by_id.get(call.run)
        run = self.by_id[new.id] = Run(new, self._made, now, self._floor)
        self._ids.add(new.id)
        self._all.append(run)
        if new.spec.job:
            job = self._jobs.of(new.spec.job)
            job.runs.append(run)
            job.counts["ready"] += 1
        elif parent is None:
            self._roots.append(run)
        elif parent.children is None:
            parent.children = [run]
        else:
            parent.children.append(run)
        if worker:
            self._hold(run, worker, now + ttl, now)
        else:
            self.enqueue(run)
        return Created(True, run.head())

    def remove(self, runs: Collection[Run]) -> None:
        """Forget some that are over."""
        gone = {run.id for run in runs}
        for run in runs:
            del self.by_id[run.id]
            self._floor = max(self._floor, run.fence)
        self._ids.remove(gone)
        self._all = [run for run in self._all if run.id not in gone]
        for run in self._all:
            if run.children is not None:
                run.children = [child for child in run.children if child.id not in gone] or None
        orphans = [child for run in runs for child in run.children or ()]
        roots = [run for run in (*self._roots, *orphans) if run.id not in gone]
        self._roots = sorted(roots, key=_made)
        self._jobs.lose(runs)

    def claim(
        self, worker: str, limit: int, ttl: float, now: float, but: Collection[str], lapse: float
    ) -> list[Claimed]:
        """Claim what is ready, the most urgent first. `lapse`: claims that were good until then have lapsed."""
        self._ripen(now, but)
        lapsed = self._lapsed(but, lapse)
        out: list[Claimed] = []
        left: list[Run] = []
        while len(out) < limit and (lapsed or self._ready):
            if lapsed and not (self._ready and self._ready[0] < lapsed[0]):
                run = heappop(lapsed)[2]
                if not self._may_retry(run, worker, now):
                    continue
            else:
                rank, _, run = heappop(self._ready)
                if run.queued != rank:  # it has another place by now
                    continue
                run.queued = None
                if run.status != "ready" or run.lease is not None:
                    continue
                if but and _is_of(run, but):
                    left.append(run)
                    continue
                self._waiting -= 1
            self._hold(run, worker, now + ttl, now)
            out.append(run.claimed())
        for run in left:
            self._queue(run)
        if self.lapse <= lapse:
            self.lapse = min(
                (run.lease for run in self.held.values() if run.lease is not None), default=float("inf")
            )
        return out

    def _ripen(self, now: float, but: Collection[str]) -> None:
        """Make ready what is due."""
        left: list[tuple[float, int, Run]] = []
        while self._due and self._due[0][0] <= now:
            wake, number, run = heappop(self._due)
            if run.wake == wake and but and _is_of(run, but):
                left.append((wake, number, run))
            elif run.wake == wake:
                self.move(run, "ready")
                self.enqueue(run)
        for one in left:
            heappush(self._due, one)

    def _lapsed(self, but: Collection[str], lapse: float) -> list[_Place]:
        """A heap of the runs whose claims have lapsed. They are good until somebody takes the run."""
        if self.lapse > lapse:
            return []
        lapsed = [
            _place(run)
            for run in self.held.values()
            if run.lease is not None and run.lease <= lapse and not (but and _is_of(run, but))
        ]
        heapify(lapsed)
        return lapsed

    def _may_retry(self, run: Run, worker: str, now: float) -> bool:
        """Whether a worker may claim what was lost; poison is held instead, and of suspects there is one at a time."""
        lapses = run.lapses + 1
        if lapses >= poison.LAPSES:
            self.let_go(run)
            self.move(run, "held")
            run.lapses, run.reason, run.updated = 0, poison.reason(run.id), now
            self._hints.hint("ended", run.id)
            self.gives_back(run.id, now)
            return False
        if lapses >= poison.SUSPECT and any(
            other.worker == worker and other.lapses >= poison.SUSPECT and (other.lease or 0) > now
            for other in self.held.values()
        ):
            return False
        run.lapses = lapses
        return True

    def renew(self, worker: str, leases: Sequence[Lease], ttl: float, now: float) -> list[bool]:
        """Keep claims; which of them still are."""
        out: list[bool] = []
        for lease in leases:
            run = self.held.get(lease.run)
            kept = run is not None and run.fence == lease.fence and run.worker == worker
            if run is not None and kept:
                run.lease = now + ttl
                self.lapse = min(self.lapse, now + ttl)
            out.append(kept)
        return out

    # ------------------------------------------------------------ looking
    def get(self, id: str) -> Head | None:
        """The head of one."""
        run = self.by_id.get(id)
        return run.head() if run else None

    def load(self, id: str) -> Claimed | None:
        """All of one, as its worker gets it."""
        run = self.by_id.get(id)
        return run.claimed() if run else None

    def listed(self, after: str, limit: int) -> list[Head]:
        """All of them, by id."""
        return [self.by_id[id].head() for id in self.ids(after, limit)]

    def ids(self, after: str, limit: int) -> list[str]:
        """All of them, in order."""
        return list(islice(self._ids.after(after), limit))

    def newest(
        self, job: str | None, parent: str, status: Sequence[str], before: int, limit: int
    ) -> tuple[list[Head], int]:
        """Those of a job, of a parent, of neither, or all; and from where to go on. What has none of these statuses is
        gone over."""
        among = self._among(job, parent)
        upto = bisect_left(among, before, key=_made) if before else len(among)
        newest = (among[n] for n in range(upto - 1, -1, -1))
        found = list(islice((run for run in newest if not status or run.status in status), limit))
        return [run.head() for run in found], found[-1].number if found else before

    def _among(self, job: str | None, parent: str) -> list[Run]:
        if parent:
            return (self.by_id[parent].children or []) if parent in self.by_id else []
        if job is None:
            return self._all
        if job:
            return self._jobs.by_id[job].runs if job in self._jobs.by_id else []
        return self._roots

    def counts(self) -> dict[str, int]:
        """All of them, by status."""
        counted: Counter[str] = Counter(run.status for run in self.by_id.values())
        return dict(counted)

    def finished(self, job: str, after: int, limit: int) -> list[Head]:
        """Those of a job that ended, by the number of their end."""
        known = self._jobs.by_id.get(job)
        if known is None:
            return []
        out: list[Head] = []
        for number, id in islice(known.ends, bisect_right(known.ends, after, key=_number), None):
            if len(out) == limit:
                break
            run = self.by_id[id]
            if run.finished == number:
                out.append(run.head())
        return out

    def backlog(self, now: float, but: Collection[str]) -> tuple[int, float | None]:
        """How many are to be done, and when the next one is due."""
        while self._due and self._due[0][2].wake != self._due[0][0]:
            heappop(self._due)
        due = 0
        soonest: float | None = None
        if self._due and self._due[0][0] <= now:
            due = len({run.id for wake, _, run in self._due if run.wake == wake and wake <= now})
            later = (wake for wake, _, run in self._due if run.wake == wake and wake > now)
            soonest = min(later, default=None)
        elif self._due:
            soonest = self._due[0][0]
        return self._waiting + len(self.held) + due - self._strange(now, but), soonest

    def _strange(self, now: float, but: Collection[str]) -> int:
        """How many of those that are ready, due or claimed are runs of such targets."""
        if not but:
            return 0
        return sum(
            _is_of(run, but) and (run.status == "ready" or (run.wake is not None and run.wake <= now))
            for run in self.by_id.values()
        )

    def workers(self) -> set[str]:
        """Who has claimed some."""
        return {run.worker for run in self.held.values() if run.worker and run.lease}

    def bury(self, workers: Collection[str]) -> None:
        """What these have claimed counts as lost."""
        for run in self.held.values():
            if run.worker in workers:
                run.lease = self.lapse = 0.0


def _is_of(run: Run, kinds: Collection[str]) -> bool:
    """Whether it is of one of these targets, or of that code of one."""
    return run.spec.target in kinds or run.spec.code in kinds


def _place(run: Run) -> _Place:
    return -run.spec.config.priority, run.number, run


def _number(end: tuple[int, str]) -> int:
    return end[0]


def _made(run: Run) -> int:
    return run.number
