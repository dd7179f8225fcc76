"""A store in this process's memory: for tests, for a desk, for work that may be lost with the process."""

from __future__ import annotations

import asyncio
from asyncio import Future
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, islice, takewhile
from typing import Literal, TypeVar

import msgspec

from ..model.budget import Amount, Limit, Reservation, Reserved, Settlement, Standing
from ..model.entry import Failure
from ..model.lane import LIVE, Answer, BatchJob, LaneHead, Line, LineOutcome, LineStatus
from ..model.message import PORT, DeadLetter, Letter, Mail, Question
from ..model.mode import Config
from ..model.run import ENDED, REUSED, CallRef, Head, Spec, Status, Usage
from ..ports.store import (
    AnswerResult,
    Came,
    Claimed,
    CommitResult,
    Created,
    Delivery,
    Hint,
    History,
    JobHead,
    Landed,
    Lease,
    NewRun,
    Turn,
)
from . import asking, poison, refusal
from .memory_answers import Answers
from .memory_budgets import Budgets
from .memory_mail import Box, DeadLetters
from .memory_past import Contents, Past, next_over, seal
from .outcome import OPEN_LINE, end_mail

_T = TypeVar("_T")
_COMMITTED: list[CommitResult] = ["committed"]
_DELIVERED: list[Delivery] = ["delivered"]
HintKind = Literal["ready", "mail", "ended", "lines", "room"]


class _Run:
    """A run's record. What most runs don't have is None, so that a parked one is small."""

    __slots__ = (
        "asks",
        "box",
        "checkpoint",
        "deltas",
        "digests",
        "error",
        "fence",
        "finished",
        "id",
        "inbox",
        "journal",
        "lapses",
        "lease",
        "lines",
        "marks",
        "number",
        "past",
        "pool",
        "queued",
        "reason",
        "spec",
        "status",
        "updated",
        "usage",
        "value",
        "wake",
        "worker",
    )

    def __init__(self, new: NewRun, number: int, now: float) -> None:
        self.id = new.id
        self.spec: Spec = new.spec
        self.number = number
        self.status: Status = "ready"
        self.fence = 0
        self.worker = ""
        self.lease: float | None = None
        self.lapses = 0  #: of claims, since the last commit
        self.wake: float | None = None
        self.reason = ""
        self.value: bytes | None = None
        self.error: Failure | None = None
        self.usage: list[Usage] | None = None
        self.finished = 0
        self.updated = now
        self.checkpoint: bytes | None = None
        self.deltas: list[bytes] | None = None
        self.pool = new.pool
        self.journal: list[bytes] | None = None
        self.digests: list[bytes] | None = None  #: of contents that came with the live journal
        self.past: Past | None = None  #: what was archived
        self.inbox: dict[int, Letter] | None = None  #: by id, oldest first
        self.box = Box(new.spec.mailbox) if new.spec.mailbox > 0 else None
        self.marks: dict[str, int] | None = None
        self.asks: dict[str, None] | None = None  #: the open ones, in order
        self.lines: list[_Line] | None = None
        self.queued = False

    def head(self) -> Head:
        return Head(
            self.id,
            self.spec,
            self.status,
            self.fence,
            self.wake,
            self.reason,
            self.value,
            self.error,
            list(self.usage or ()),
            self.finished,
            self.updated,
        )

    def claimed(self) -> Claimed:
        return Claimed(
            self.head(),
            self.checkpoint,
            self.pool,
            list(self.journal or ()),
            list((self.inbox or {}).values()),
            list(self.deltas or ()),
        )

    def shelve(self) -> bool:
        """Archive the live journal; whether there was any."""
        if not self.journal and not self.digests:
            return False
        if self.past is None:
            self.past = Past()
        self.past.rows.extend(self.journal or ())
        self.past.digests.extend(self.digests or ())
        self.journal = self.digests = None
        return True


class _Line:
    __slots__ = ("batch", "deserted", "hedged", "line", "number", "status", "unwanted")

    def __init__(self, line: Line, number: int) -> None:
        self.line = line
        self.number = number
        self.status: LineStatus = "waiting"
        self.batch = ""
        self.unwanted = False  # nobody waits for it any more, though it is in a provider job
        self.hedged = ""  # the provider job that it is in as well, while `batch` is one of live calls
        self.deserted = False  # its run doesn't wait for it any more; others that follow it do

    @property
    def is_due(self) -> bool:
        """Whether it may be late, some time."""
        waited_for = self.status in ("waiting", "taken") and not self.unwanted
        return self.line.due > 0 and not self.line.promoted and waited_for


class _Lane:
    __slots__ = ("dues", "fence", "heap", "lease", "size", "waiting", "worker")

    def __init__(self) -> None:
        self.worker = ""
        self.fence = 0
        self.lease = 0.0
        self.heap: list[tuple[int, _Line]] = []
        self.dues: list[tuple[float, int, _Line]] = []
        self.waiting = 0
        self.size = 0

    def put(self, line: _Line) -> None:
        heappush(self.heap, (line.number, line))
        self.dues_again(line)
        self.waiting += 1
        self.size += line.line.size

    def leave(self, line: _Line) -> None:
        self.waiting -= 1
        self.size -= line.line.size

    def oldest(self) -> _Line | None:
        while self.heap and self.heap[0][1].status != "waiting":
            heappop(self.heap)
        return self.heap[0][1] if self.heap else None

    def dues_again(self, line: _Line) -> None:
        if line.is_due:
            heappush(self.dues, (line.line.due, line.number, line))

    def first_due(self) -> _Line | None:
        while self.dues and not (self.dues[0][2].is_due and self.dues[0][2].line.due == self.dues[0][0]):
            heappop(self.dues)
        return self.dues[0][2] if self.dues else None


class _Batch:
    __slots__ = ("hedged", "ids", "job", "lines")

    def __init__(self, job: BatchJob, lines: dict[str, _Line]) -> None:
        self.job = job
        self.ids = sorted(lines, key=lambda id: lines[id].number)
        self.lines = lines  #: those without an outcome
        self.hedged: dict[str, _Line] = {}  #: those that were promoted

    def close_if_done(self, now: float) -> None:
        if not self.lines and not self.hedged and self.job.state != "closed":
            over = now if self.job.sent else 0.0
            self.job = msgspec.structs.replace(self.job, state="closed", over=over)


class _Ids:
    """Ids in order; sorting is put off until someone asks."""

    __slots__ = ("_ids", "_sorted")

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._sorted = True

    def add(self, id: str) -> None:
        self._ids.append(id)
        self._sorted = False

    def after(self, id: str) -> Iterator[str]:
        if not self._sorted:
            self._ids.sort()
            self._sorted = True
        return islice(self._ids, bisect_right(self._ids, id) if id else 0, None)


class _Job:
    __slots__ = ("counts", "ends", "head", "ids")

    def __init__(self) -> None:
        self.head: JobHead | None = None
        self.ids = _Ids()
        self.counts: Counter[str] = Counter()
        self.ends: list[tuple[int, str]] = []

    def shown(self) -> JobHead | None:
        if self.head is None:
            return None
        counts = {status: n for status, n in self.counts.items() if n}
        return msgspec.structs.replace(self.head, counts=counts)


class MemoryStore:
    """Everything in dicts. All methods act at once, so each is atomic; nothing outlives the process."""

    def __init__(self) -> None:
        self.address = "memory:"
        self._runs: dict[str, _Run] = {}
        self._ids = _Ids()
        self._held: dict[str, _Run] = {}  #: claimed runs
        self._lapse = float("inf")  #: no claim lapses before this
        self._ready: list[tuple[int, int, _Run]] = []
        self._waiting: int = 0  #: how many runs are ready and not claimed
        self._due: list[tuple[float, int, _Run]] = []
        self._timers = 0  #: how many entries of `_due` are still true
        self._ended = 0
        self._letters = 0
        self._dead = DeadLetters()
        self._ports: dict[str, list[Letter]] = {}  #: what came to processes, oldest first
        self._refused: list[refusal.Refused] = []  #: by the mail that is being delivered just now
        self._jobs: dict[str, _Job] = {}
        self._asks: dict[str, Question] = {}  #: the open ones
        self._shut_asks: dict[str, tuple[Question, str]] = {}
        self._contents = Contents()
        self._archived: dict[str, _Run] = {}  #: those with archived rows to be sealed
        self._sealed: list[tuple[float, int, _Run]] = []  #: when packed ones aren't kept any longer
        self._lanes: dict[str, _Lane] = {}
        self._lines: dict[str, _Line] = {}
        self._unclaimed: list[tuple[str, Usage]] = []
        self._answers: Answers[_Line] = Answers()
        self._batches: dict[str, _Batch] = {}
        self._budgets = Budgets(self._has_room)
        self._listeners: list[Callable[[Hint], None]] = []
        self._hints: dict[HintKind, dict[str, None]] = {}
        self._came: dict[str, Came] = {}  #: letters that aren't told of yet
        self._telling = False  #: this turn of the loop
        self._at_ports: dict[str, Came] = {}  #: those at ports, for which somebody waits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._committed: Future[list[CommitResult]] | None = None  #: the answer to most commits
        self._delivered: Future[list[Delivery]] | None = None  #: and to most mail

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._committed = self._done(["committed"])
        self._delivered = self._done(["delivered"])

    async def close(self) -> None:
        self._listeners.clear()

    # ------------------------------------------------------------ hints
    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def _hint(self, kind: HintKind, name: str) -> None:
        names = self._hints.get(kind)
        if names is None:
            self._hints[kind] = {name: None}
        else:
            names[name] = None
        if not self._telling:
            self._tell_later()

    def _tell_later(self) -> None:
        if not self._telling:
            self._telling = True
            (self._loop or asyncio.get_running_loop()).call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._telling = False
        self._tell()

    def _tell_ports(self) -> None:
        answers, self._at_ports = self._at_ports, {}
        hint = Hint("mail", list(answers), answers)
        for listener in tuple(self._listeners):
            listener(hint)

    def _tell(self) -> None:
        came, hints = self._came, self._hints
        if came:
            self._came = {}
            mail = Hint("mail", list(came), came)
            for listener in tuple(self._listeners):
                listener(mail)
        if hints:
            self._hints = {}
            for kind, names in hints.items():
                hint = Hint(kind, list(names))
                for listener in tuple(self._listeners):
                    listener(hint)

    # ------------------------------------------------------------ states of a run
    def _job(self, id: str) -> _Job:
        job = self._jobs.get(id)
        if job is None:
            job = self._jobs[id] = _Job()
        return job

    def _move(self, run: _Run, status: Status) -> None:
        """Another status, in all that counts by it. Who makes it ready calls `_enqueue` too."""
        if run.status != status:
            if run.spec.job:
                counts = self._job(run.spec.job).counts
                counts[run.status] -= 1
                counts[status] += 1
            run.status = status
        if run.wake is not None:
            run.wake = None
            self._timers -= 1

    def _enqueue(self, run: _Run) -> None:
        self._waiting += 1
        if not run.queued:
            run.queued = True
            heappush(self._ready, (-run.spec.config.priority, run.number, run))
        self._hint("ready", run.id)

    def _hold(self, run: _Run, worker: str, until: float, now: float) -> None:
        run.fence += 1
        run.worker, run.lease, run.updated = worker, until, now
        self._held[run.id] = run
        if until < self._lapse:
            self._lapse = until

    def _let_go(self, run: _Run) -> None:
        run.worker, run.lease = "", None
        self._held.pop(run.id, None)

    def _set_timer(self, run: _Run, wake: float) -> None:
        run.wake = wake
        self._timers += 1
        heappush(self._due, (wake, run.number, run))
        if len(self._due) > 2 * self._timers + 1000:
            self._due = [item for item in self._due if item[2].wake == item[0]]
            heapify(self._due)

    # ------------------------------------------------------------ runs
    async def create(
        self, runs: Sequence[NewRun], *, now: float, worker: str = "", ttl: float = 0.0
    ) -> list[Created]:
        return [self._create(new, now, worker, ttl) for new in runs]

    def _create(self, new: NewRun, now: float, worker: str, ttl: float) -> Created:
        known = self._runs.get(new.id)
        if known is not None:
            return Created(False, known.head())
        run = self._runs[new.id] = _Run(new, len(self._runs), now)
        self._ids.add(new.id)
        if new.spec.job:
            job = self._job(new.spec.job)
            job.ids.add(new.id)
            job.counts["ready"] += 1
        if worker:
            self._hold(run, worker, now + ttl, now)
        else:
            self._enqueue(run)
        return Created(True, run.head())

    async def claim(
        self, worker: str, limit: int, ttl: float, *, now: float, but: Collection[str] = ()
    ) -> list[Claimed]:
        self._ripen(worker, now, but)
        out: list[Claimed] = []
        left: list[_Run] = []
        while self._ready and len(out) < limit:
            run = heappop(self._ready)[2]
            run.queued = False
            if run.status != "ready" or run.lease is not None:
                continue
            if but and run.spec.target in but:
                left.append(run)
                continue
            self._waiting -= 1
            self._hold(run, worker, now + ttl, now)
            out.append(run.claimed())
        for run in left:
            run.queued = True
            heappush(self._ready, (-run.spec.config.priority, run.number, run))
        return out

    def _ripen(self, worker: str, now: float, but: Collection[str]) -> None:
        """Make ready what is due and what a worker has lost."""
        left: list[tuple[float, int, _Run]] = []
        while self._due and self._due[0][0] <= now:
            wake, number, run = heappop(self._due)
            if run.wake == wake and but and run.spec.target in but:
                left.append((wake, number, run))
            elif run.wake == wake:
                self._move(run, "ready")
                self._enqueue(run)
        for one in left:
            heappush(self._due, one)
        if self._lapse <= now:
            self._free_lapsed(worker, now, but)
            self._lapse = min(
                (run.lease for run in self._held.values() if run.lease is not None), default=float("inf")
            )

    def _free_lapsed(self, worker: str, now: float, but: Collection[str]) -> None:
        """What a worker has lost is ready; poison is held instead, and of suspects there is one at a time."""
        suspects: list[_Run] = []
        for run in [run for run in self._held.values() if run.lease is not None and run.lease <= now]:
            if but and run.spec.target in but:
                continue
            lapses = run.lapses + 1
            if poison.SUSPECT <= lapses < poison.LAPSES:
                suspects.append(run)
                continue
            self._let_go(run)
            run.lapses = lapses
            if lapses < poison.SUSPECT:
                self._enqueue(run)
            else:
                self._move(run, "held")
                run.lapses, run.reason, run.updated = 0, poison.reason(run.id), now
                self._hint("ended", run.id)
        if suspects and not any(
            run.worker == worker and run.lapses >= poison.SUSPECT and (run.lease or 0) > now
            for run in self._held.values()
        ):
            first = min(suspects, key=lambda run: (-run.spec.config.priority, run.number))
            self._let_go(first)
            first.lapses += 1
            self._enqueue(first)

    async def renew(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> list[bool]:
        out: list[bool] = []
        for lease in leases:
            run = self._held.get(lease.run)
            kept = run is not None and run.fence == lease.fence and run.worker == worker
            if run is not None and kept:
                run.lease = now + ttl
                self._lapse = min(self._lapse, now + ttl)
            out.append(kept)
        return out

    def renew_from_thread(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> None:
        """Nothing to do: only this loop could take a lease over, and it is blocked."""

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        held = self._held.get(run)
        if held is None or held.fence != fence:
            (self._loop or asyncio.get_running_loop()).call_soon(then, "fenced")
            return False
        if held.journal is None:
            held.journal = [entries]
        else:
            held.journal.append(entries)
        held.lapses = 0
        return True

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        out: list[CommitResult] = []
        for turn in turns:
            out.append(self._commit(turn))
        return self._committed if out == _COMMITTED and self._committed is not None else self._done(out)

    def _commit(self, turn: Turn) -> CommitResult:
        run = self._held.get(turn.run)
        if run is None or run.fence != turn.fence:
            return "fenced"
        run.lapses = 0
        if turn.checkpoint is not None:
            self._shelve(run)
            run.checkpoint, run.deltas = turn.checkpoint, None
        elif turn.delta is not None:
            self._shelve(run)
            if run.deltas is None:
                run.deltas = []
            run.deltas.append(turn.delta)
        if turn.entries is not None:
            if run.journal is None:
                run.journal = [turn.entries]
            else:
                run.journal.append(turn.entries)
        if turn.usage is not None:
            run.usage = list(turn.usage)
        if turn.kept and run.inbox:
            for letter in turn.kept:
                if letter in run.inbox:
                    run.inbox[letter] = msgspec.structs.replace(run.inbox[letter], kept=True)
        if turn.consumed and run.inbox:
            for letter in turn.consumed:
                run.inbox.pop(letter, None)
            if not run.inbox:
                run.inbox = None
        if run.box is not None:
            run.box.taken.difference_update(turn.consumed, turn.kept)
        if turn.dead:
            self._dead.put(turn.dead, turn.now)
        if turn.blobs:
            for digest, content in turn.blobs:
                self._contents.put(digest, content)
            run.digests = [*(run.digests or ()), *(digest for digest, _ in turn.blobs)]
        for new in turn.spawn:
            self._create(new, turn.now, "", 0.0)
        if turn.withdrawn:
            self._withdraw(turn.withdrawn)
        for answer in turn.answers:
            self._keep(answer)
        for line in turn.lines:
            self._put_line(run, line)
        if turn.settled:
            self._budgets.spend(turn.settled)
            self._budgets.release(one.id for one in turn.settled)
        for ask in turn.asks:
            self._open(run, ask)
        for id in turn.closed_asks:
            self._shut(id, "closed")
        result: CommitResult = "committed"
        left: list[Mail] = []
        if turn.status != "ready" or turn.release:
            if turn.status in ENDED:
                if run.inbox:
                    left = [letter.mail for letter in run.inbox.values()]
                if run.box is not None:
                    left += run.box.empty()
            result = self._leave(run, turn)
        for mail in turn.outbox:
            self._deliver(mail, turn.now, mark=True, stays=True)
        if run.finished and run.spec.parent is not None:
            self._deliver(end_mail(turn, run.spec.parent), turn.now, mark=False)
        if self._refused:
            self._return(turn.now)
        if left:
            self._refused.append(refusal.ended(left, run.id, run.status, turn.now))
            self._return(turn.now)
        if run.box is not None and (turn.consumed or turn.kept):
            self._make_room(run, run.box, turn)
        if turn.settled or turn.withdrawn or turn.release:
            self._budgets.wake(turn.now)
        if self._at_ports:
            self._tell_ports()
        return result

    def _leave(self, run: _Run, turn: Turn) -> CommitResult:
        """The turn gives up its claim."""
        self._let_go(run)
        run.updated, run.reason = turn.now, turn.reason
        if turn.status in ENDED:
            self._end(run, turn)
            self._budgets.give_back(run.id, self._is_to_come)
            return "committed"
        self._budgets.give_back(run.id, self._is_to_come, turn.wants)
        waits = turn.status in ("parked", "held")
        unseen = waits and run.inbox is not None and next(reversed(run.inbox)) > turn.seen
        unseen = unseen or (waits and bool(turn.wants) and self._budgets.missing(turn.wants))
        self._move(run, "ready" if unseen else turn.status)
        if run.status == "ready":
            self._enqueue(run)
        elif run.status == "parked" and turn.wake is not None:
            self._set_timer(run, turn.wake)
        return "ready" if unseen else "committed"

    def _end(self, run: _Run, turn: Turn) -> None:
        self._move(run, turn.status)
        run.value, run.error = turn.value, turn.error
        self._ended += 1
        run.finished = self._ended
        if run.spec.job:
            self._job(run.spec.job).ends.append((run.finished, run.id))
        for id in list(run.asks or ()):
            self._shut(id, "closed")
        for line in run.lines or ():
            if line.status == "waiting":
                self._lanes[line.line.lane].leave(line)
                self._leave_others(line)
                self._settle(line, "cancelled")
            elif line.status == "following":
                self._settle(line, "cancelled")
                self._leave_others(line)
        run.lines = run.inbox = None
        self._hint("ended", run.id)

    # ------------------------------------------------------------ mail
    async def inbox(self, run: str, after: int) -> list[Letter]:
        known = self._runs.get(run)
        if known is None or not known.inbox:
            return []
        newer = takewhile(lambda letter: letter.id > after, reversed(known.inbox.values()))
        return list(newer)[::-1]

    def letters(self, after: Mapping[str, int]) -> Future[dict[str, list[Letter]]]:
        out: dict[str, list[Letter]] = {}
        for address, newest in after.items():
            found = list(takewhile(lambda letter: letter.id > newest, self._newest_first(address)))  # noqa: B023
            if found:
                found.reverse()
                out[address] = found
        return self._done(out)

    def _newest_first(self, address: str) -> Iterator[Letter]:
        if address.startswith(PORT):
            return reversed(self._ports.get(address, ()))
        run = self._runs.get(address)
        return reversed((run.inbox or {}).values()) if run is not None else iter(())

    def clear(self, port: str, upto: int) -> Future[None]:
        left = [letter for letter in self._ports.pop(port, ()) if letter.id > upto]
        if left:
            self._ports[port] = left
        return self._done(None)

    def _done(self, value: _T) -> Future[_T]:
        future: Future[_T] = (self._loop or asyncio.get_running_loop()).create_future()
        future.set_result(value)
        return future

    def deliver(self, mail: Sequence[Mail], *, now: float) -> Future[list[Delivery]]:
        out: list[Delivery] = []
        asked = False
        for one in mail:
            out.append(self._deliver(one, now, mark=True))
            asked = asked or one.reply is not None
        if self._refused:
            self._return(now)
        if self._at_ports:
            self._tell_ports()
        if asked:  # who asks waits, so it isn't put off for others to come
            self._tell()
        return self._delivered if out == _DELIVERED and self._delivered is not None else self._done(out)

    def _deliver(self, mail: Mail, now: float, *, mark: bool, stays: bool = False) -> Delivery:
        """Put mail into an inbox. What comes from an outbox `stays` the store's care if that can't be done."""
        run = self._runs.get(mail.to)
        if run is None or run.status in ENDED:
            return self._put_elsewhere(run, mail, now, stays)
        if mark and mail.number <= (-1 if run.marks is None else run.marks.get(mail.sender, -1)):
            return "duplicate"
        delivery: Delivery = "delivered"
        if run.box is not None and refusal.takes_room(mail) and not run.box.has_room:
            delivery = self._turn_away(run, run.box, mail, now, stays)
            if delivery == "full":
                return delivery
        else:
            self._put(run, mail, now)
        if mark:
            if run.marks is None:
                run.marks = {}
            run.marks[mail.sender] = mail.number
        return delivery

    def _put(self, run: _Run, mail: Mail, now: float) -> None:
        self._letters = id = self._letters + 1
        letter, after = Letter(id, mail), 0
        if run.inbox:
            after = next(reversed(run.inbox))
            run.inbox[id] = letter
        else:
            run.inbox = {id: letter}
        if run.box is not None and refusal.takes_room(mail):
            run.box.taken.add(id)
        if run.status == "parked" or (run.status == "held" and mail.kind == "cancel"):
            self._move(run, "ready")
            run.updated = now
            self._enqueue(run)
        elif (came := self._came.get(run.id)) is not None:
            came.letters.append(letter)
        else:
            self._came[run.id] = Came(after, [letter])
            self._tell_later()

    def _put_elsewhere(self, run: _Run | None, mail: Mail, now: float, stays: bool) -> Delivery:
        """What is for a process's port, or for nobody any more."""
        if run is not None:
            if stays:
                self._refused.append(refusal.ended([mail], run.id, run.status, now))
        elif mail.to.startswith(PORT):
            self._letters += 1
            letter, port = Letter(self._letters, mail), self._ports.setdefault(mail.to, [])
            if mail.to in self._at_ports:
                self._at_ports[mail.to].letters.append(letter)
            else:
                self._at_ports[mail.to] = Came(port[-1].id if port else 0, [letter])
            port.append(letter)
            return "delivered"
        elif stays:
            self._refused.append(refusal.unknown([mail], mail.to, now))
        return "gone"

    def _turn_away(self, run: _Run, box: Box, mail: Mail, now: float, stays: bool) -> Delivery:
        """What a full mailbox does with a message."""
        if run.spec.full != "drop" and not stays:
            return "full"
        if run.spec.full == "wait":
            box.waiting.append(mail)
            return "delivered"
        self._refused.append(refusal.full(mail, box.size, now))
        return "dropped"

    def _make_room(self, run: _Run, box: Box, turn: Turn) -> None:
        while run.status not in ENDED and box.waiting and len(box.taken) < box.size:
            self._put(run, box.waiting.popleft(), turn.now)
        self._hint("room", run.id)

    def _return(self, now: float) -> None:
        """Keep the dead letters, and tell those who wait for an answer."""
        refused, self._refused = self._refused, []
        for one in refused:
            self._dead.put(one.dead, now)
            for mail in one.back:
                self._deliver(mail, now, mark=False, stays=True)
            if self._refused:
                self._return(now)

    async def dead_letters(self, *, run: str = "", after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        return self._dead.listed(run, after, limit)

    async def resend_dead(self, dead: int, *, now: float) -> Delivery | None:
        letter = self._dead.get(dead)
        if letter is None:
            return None
        delivery = self._deliver(letter.mail, now, mark=False)
        self._return(now)
        if self._at_ports:
            self._tell_ports()
        if delivery in ("delivered", "dropped"):
            self._dead.drop([dead])
        return delivery

    async def drop_dead(self, dead: Sequence[int]) -> int:
        return self._dead.drop(dead)

    # ------------------------------------------------------------ looking
    async def get(self, run: str) -> Head | None:
        known = self._runs.get(run)
        return known.head() if known else None

    async def load(self, run: str) -> Claimed | None:
        known = self._runs.get(run)
        return known.claimed() if known else None

    async def runs(
        self, *, job: str = "", status: Sequence[str] = (), after: str = "", limit: int = 1000
    ) -> list[Head]:
        if job and job not in self._jobs:
            return []
        ids = (self._jobs[job].ids if job else self._ids).after(after)
        found = (run for run in map(self._runs.__getitem__, ids) if not status or run.status in status)
        return [run.head() for run in islice(found, limit)]

    async def finished(self, job: str, after: int, limit: int) -> list[Head]:
        known = self._jobs.get(job)
        if known is None:
            return []
        out: list[Head] = []
        for number, id in islice(known.ends, bisect_right(known.ends, after, key=_place), None):
            if len(out) == limit:
                break
            run = self._runs[id]
            if run.finished == number:
                out.append(run.head())
        return out

    async def revive(
        self,
        run: str,
        *,
        pool: bytes | None,
        now: float,
        status: Sequence[Status],
        config: Config | None = None,
    ) -> bool:
        known = self._runs.get(run)
        if known is None or known.status not in status:
            return False
        if known.status == "ready" and known.lease is None:
            self._waiting -= 1
        self._let_go(known)
        self._budgets.give_back(run, self._is_to_come)
        if pool is not None:
            self._shelve(known)
            known.pool = pool
        if config is not None:
            known.spec = msgspec.structs.replace(known.spec, config=config)
        known.reason, known.value, known.error, known.lapses = "", None, None, 0
        known.finished, known.updated = 0, now
        self._move(known, "ready")
        self._enqueue(known)
        self._budgets.wake(now)
        return True

    async def history(self, run: str, *, rows: bool = True) -> History:
        known = self._runs.get(run)
        if known is None:
            return History([])
        live, past = known.journal or [], known.past or Past()
        return History([*past.archived(), *live] if rows else [], past.count(), past.dropped)

    def _shelve(self, run: _Run) -> None:
        if run.shelve():
            self._archived[run.id] = run

    async def sweep(self, *, now: float, limit: int) -> int:
        over: list[_Run] = []
        while self._sealed and self._sealed[0][0] <= now and len(over) < limit:
            over.append(heappop(self._sealed)[2])
        some = [*over, *islice(self._archived.values(), limit - len(over))]
        for run in some:
            self._archived.pop(run.id, None)
            if seal(run, self._contents, now):
                self._archived[run.id] = run
            due = None if run.past is None else next_over(run.past)
            if due is not None:
                heappush(self._sealed, (due, run.number, run))
        return len(some)

    async def workers(self) -> list[str]:
        leased: Iterator[_Run | _Lane] = chain(self._held.values(), self._lanes.values())
        ports = {port.removeprefix(PORT) for port in self._ports}
        return sorted(ports | {one.worker for one in leased if one.worker and one.lease})

    async def bury(self, workers: Sequence[str]) -> None:
        gone = set(workers)
        for worker in workers:
            self._ports.pop(PORT + worker, None)
        for run in self._held.values():
            if run.worker in gone:
                run.lease = self._lapse = 0.0
        for lane in self._lanes.values():
            if lane.worker in gone:
                lane.lease = 0.0

    async def backlog(self, *, now: float, but: Collection[str] = ()) -> tuple[int, float | None]:
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
        return self._waiting + len(self._held) + due - self._strange(now, but), soonest

    def _strange(self, now: float, but: Collection[str]) -> int:
        """How many of those that are ready, due or claimed are runs of such targets."""
        if not but:
            return 0
        return sum(
            run.spec.target in but and (run.status == "ready" or (run.wake is not None and run.wake <= now))
            for run in self._runs.values()
        )

    # ------------------------------------------------------------ jobs
    async def put_job(self, job: JobHead) -> JobHead:
        known = self._job(job.id)
        if known.head is None:
            known.head = msgspec.structs.replace(job, counts={})
        elif job.total is not None:
            known.head = msgspec.structs.replace(known.head, total=job.total)
        shown = known.shown()
        assert shown is not None
        return shown

    async def get_job(self, job: str) -> JobHead | None:
        known = self._jobs.get(job)
        return known.shown() if known else None

    async def list_jobs(self) -> list[JobHead]:
        shown = (job.shown() for job in self._jobs.values())
        return sorted((job for job in shown if job is not None), key=lambda job: (job.created, job.id))

    # ------------------------------------------------------------ questions
    def _open(self, run: _Run, ask: Question) -> None:
        self._asks.pop(ask.id, None)
        self._shut_asks.pop(ask.id, None)
        self._asks[ask.id] = ask
        if run.asks is None:
            run.asks = {}
        run.asks.pop(ask.id, None)
        run.asks[ask.id] = None

    def _shut(self, id: str, state: str) -> Question | None:
        """Close an open question; None if it isn't open."""
        ask = self._asks.pop(id, None)
        if ask is None:
            return None
        self._shut_asks[id] = (ask, state)
        run = self._runs.get(ask.run)
        if run is not None and run.asks is not None:
            run.asks.pop(id, None)
        return ask

    async def asks(self, *, to: str = "", run: str = "") -> list[Question]:
        if run:
            known = self._runs.get(run)
            found = [self._asks[id] for id in known.asks or ()] if known else []
        else:
            found = list(self._asks.values())
        return [ask for ask in found if not to or ask.to == to]

    async def get_ask(self, ask: str) -> tuple[Question, str] | None:
        question = self._asks.get(ask)
        return (question, "open") if question is not None else self._shut_asks.get(ask)

    async def answer(self, ask: str, value: bytes, *, now: float) -> AnswerResult:
        question = self._shut(ask, "answered")
        if question is None:
            return "closed" if ask in self._shut_asks else "unknown"
        call = CallRef(question.run, question.path, question.n)
        mail = Mail(question.run, f"ask:{ask}", 1, "result", value=value, call=call, at=now)
        self._deliver(mail, now, mark=False)
        return "answered"

    # ------------------------------------------------------------ blobs
    async def get_blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        there = self._contents.by_digest
        return {digest: there[digest] for digest in digests if digest in there}

    # ------------------------------------------------------------ lanes
    def _lane(self, name: str) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        return lane

    def _put_line(self, run: _Run, line: Line) -> None:
        """A line that is on its way is left alone; one that has ended goes round again."""
        line = msgspec.structs.replace(line, size=line.size or len(line.body))
        known = self._lines.get(line.id)
        if known is None:
            known = self._lines[line.id] = _Line(line, len(self._lines))
        elif known.status in OPEN_LINE:
            known.deserted = False
            if known.unwanted:
                known.unwanted = False
                self._lane(line.lane).dues_again(known)
            return
        else:
            self._unhedge(known)
            known.line = msgspec.structs.replace(line, attempt=known.line.attempt + 1)
            known.status, known.batch, known.unwanted, known.deserted = "waiting", "", False, False
        if run.lines is None:
            run.lines = []
        if known not in run.lines:
            run.lines.append(known)
        self._hint("lines", line.lane)
        spared = bool(line.same) and self._is_spared(known, line)
        known.line = msgspec.structs.replace(known.line, since=0.0)  # it was of that moment only
        if not spared:
            self._lane(line.lane).put(known)

    # ------------------------------------------------------------ lines that ask the same
    async def answers(self, same: Sequence[str]) -> dict[str, Answer]:
        found = ((key, self._answers.find(key)) for key in same)
        return {key: answer for key, answer in found if answer is not None}

    async def forget(self, *, before: float) -> int:
        return self._answers.forget(before)

    def _is_spared(self, line: _Line, put: Line) -> bool:
        """Whether a new line needn't be sent: it was answered before, or follows one that asks the same."""
        answer = self._answers.find(put.same, put.since)
        if answer is not None:
            self._give(line, "ok", answer.value, None, put.created, number=put.attempt)
            return True
        leader = self._answers.leader(line)
        if leader is None:
            self._answers.lead(line)
            return False
        self._answers.follow(line)
        line.status, line.line = "following", msgspec.structs.replace(line.line, body=b"")
        sooner = asking.is_sooner(line.line, leader.line.due)
        if sooner:
            leader.line = msgspec.structs.replace(leader.line, due=line.line.due, late="live")
        if leader.unwanted or sooner:
            leader.deserted = leader.deserted or leader.unwanted
            leader.unwanted = False
            self._lane(leader.line.lane).dues_again(leader)
        return True

    def _give(
        self,
        line: _Line,
        status: LineStatus,
        value: bytes | None,
        error: Failure | None,
        now: float,
        lane: str = REUSED,
        number: int = 0,
    ) -> None:
        """A line ends with what came of another one."""
        if line.status == "waiting" and self._answers.leads(line):
            self._lane(line.line.lane).leave(line)
        call, sender = line.line.call, f"line:{line.line.id}"
        self._settle(line, status)
        self._answers.leave(line)
        self._forget_line(line)
        if not line.deserted:
            number = number or line.line.attempt
            mail = Mail(call.run, sender, number, "result", lane, value=value, error=error, call=call, at=now)
            self._deliver(mail, now, mark=False)

    def _keep(self, answer: Answer) -> None:
        """Keep an answer, and give it to the lines that wait for one."""
        self._answers.keep(answer)
        waiting = [line for line in self._answers.leaders(answer.same) if line.status == "waiting"]
        for line in sorted([*waiting, *self._answers.followers(answer.same)], key=_number):
            self._give(line, "ok", answer.value, None, answer.at)

    def _leave_others(self, line: _Line) -> None:
        """A line ends, or is about to, without what others wait for; the first of these takes its place, unless one
        like it goes on. One that only waited for the sake of others needn't where there are none."""
        same = line.line.same
        if not same:
            return
        self._answers.leave(line)
        if line.status == "cancelled":  # it was a follower
            for leader in self._answers.leaders(same):
                if leader.deserted and not self._answers.has_followers(same):
                    self._abandon(leader)
            return
        followers = self._answers.followers(same)
        if followers and not self._answers.leaders(same):
            heir = followers[0]
            self._answers.leave(heir)
            self._answers.lead(heir)
            heir.status = "waiting"
            attempt, body = line.line.attempt, line.line.body
            heir.line = msgspec.structs.replace(heir.line, body=body, attempt=attempt)
            self._lane(heir.line.lane).put(heir)
            self._hint("lines", heir.line.lane)

    def _abandon(self, line: _Line) -> None:
        """Nobody waits for a line any more."""
        if line.status == "taken":
            line.unwanted, line.deserted = True, False
        else:
            self._lane(line.line.lane).leave(line)
            self._settle(line, "cancelled")
            self._answers.leave(line)
            self._forget_line(line)

    def _share(self, line: _Line, outcome: LineOutcome, now: float, *, quits: bool, claimed: bool) -> None:
        """What the outcome of a line is to others that ask the same. `claimed`: its own run gets it."""
        same = line.line.same
        missed = outcome.status == "expired" and not quits and self._batches[line.batch].job.remote == LIVE
        whole = outcome.whole and not quits
        self._answers.leave(line)
        others = self._answers.leaders(same)
        takers = self._answers.followers(same)
        if whole:
            self._answers.keep(Answer(same, outcome.value or b"null", now))
            takers = sorted([*takers, *(each for each in others if each.status == "waiting")], key=_number)
        elif missed:
            takers = [each for each in takers if each.line.late == "fail" and 0 < each.line.due <= now]
        elif quits or others:
            takers = []
        for taker in takers:
            lane = REUSED if claimed else outcome.lane
            claimed = claimed or not taker.deserted
            self._give(taker, outcome.status, outcome.value, outcome.error, now, lane)
        if quits or missed:
            self._leave_others(line)
        elif not claimed:
            self._claims_nothing(line.line.call.run, outcome)

    def _settle(self, line: _Line, status: LineStatus) -> None:
        """Nothing more will come: the body isn't needed any longer."""
        line.status = status
        line.line = msgspec.structs.replace(line.line, body=b"")
        if not line.hedged:
            self._budgets.release([line.line.id])

    async def lanes(self) -> list[LaneHead]:
        jobs: dict[str, list[BatchJob]] = {}
        for batch in self._batches.values():
            if batch.job.state != "closed":
                jobs.setdefault(batch.job.lane, []).append(batch.job)
        out: list[LaneHead] = []
        for name, lane in sorted(self._lanes.items()):
            oldest = lane.oldest()
            if lane.waiting or name in jobs:
                created = oldest.line.created if oldest else 0.0
                first = lane.first_due()
                due = first.line.due if first else 0.0
                out.append(LaneHead(name, lane.waiting, lane.size, created, jobs.get(name, []), due))
        return out

    async def claim_lane(self, lane: str, worker: str, ttl: float, *, now: float) -> int | None:
        known = self._lane(lane)
        if known.worker != worker:
            if known.worker and known.lease > now:
                return None
            known.worker = worker
            known.fence += 1
        known.lease = now + ttl
        return known.fence

    def _drives(self, lane: str, fence: int) -> bool:
        return lane in self._lanes and self._lanes[lane].fence == fence

    async def take(
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
        if not self._drives(lane, fence):
            return None
        if job in self._batches:
            return self._batches[job].job
        known, size, taken, left = self._lanes[lane], 0, dict[str, _Line](), list[_Line]()
        while len(taken) < max_lines:
            line = known.oldest()
            if line is not None and line.is_due and line.line.due <= late_by:
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
        dated = any(line.line.due for line in taken.values())
        shared = any(line.line.same for line in taken.values())
        made = msgspec.structs.replace(made, dated=dated, shared=shared)
        batch = self._batches[job] = _Batch(made, taken)
        return batch.job

    async def put_batch_job(self, job: BatchJob, fence: int) -> bool:
        if job.id not in self._batches or not self._drives(job.lane, fence):
            return False
        batch = self._batches[job.id]
        if job.state == "closed":
            for line in list(batch.hedged.values()):
                self._unhedge(line)
            self._budgets.wake(job.over)
        is_open = batch.lines or batch.hedged
        batch.job = job if is_open else msgspec.structs.replace(job, state="closed")
        return True

    async def promote(
        self, lane: str, fence: int, *, by: float, max_lines: int, job: str, now: float
    ) -> BatchJob | None:
        if not self._drives(lane, fence):
            return None
        if job in self._batches:
            return self._batches[job].job
        known, late, early = self._lanes[lane], list[_Line](), list[_Line]()
        while len(late) < max_lines and (line := known.first_due()) is not None and line.line.due <= by:
            heappop(known.dues)
            if line.line.due > now and line.line.late == "fail":
                early.append(line)
            elif line not in late:
                late.append(line)
        for line in early:
            known.dues_again(line)
        if not late:
            return None
        made = BatchJob(job, lane, job, "live", len(late), now, remote=LIVE, sent=now)
        batch = self._batches[job] = _Batch(made, {line.line.id: line for line in late})
        for line in late:
            if line.status == "waiting":
                known.leave(line)
            else:
                line.hedged = line.batch
                del self._batches[line.batch].lines[line.line.id]
                self._batches[line.batch].hedged[line.line.id] = line
            line.status, line.batch = "taken", job
            line.line = msgspec.structs.replace(line.line, promoted=True)
        return batch.job

    async def unclaimed(self, *, run: str = "", job: str = "") -> list[Usage]:
        return [
            usage
            for owner, usage in self._unclaimed
            if run in ("", owner) and job in ("", self._runs[owner].spec.job)
        ]

    async def batch_jobs(self, *, lane: str = "", open_only: bool = True) -> list[BatchJob]:
        jobs = (batch.job for batch in self._batches.values())
        return [job for job in jobs if lane in ("", job.lane) and not (open_only and job.state == "closed")]

    async def job_lines(self, job: str, after: str, limit: int, *, bodies: bool = True) -> list[Line]:
        if job not in self._batches:
            return []
        batch, known = self._batches[job], self._lines
        start = 0
        if after:
            start = bisect_right(batch.ids, known[after].number, key=lambda id: known[id].number)
        ids = islice(batch.ids, start, None)
        hedged = {
            id for id, line in batch.hedged.items() if not bodies or line.status == "taken"
        }  # few, if any
        open_ids = (id for id in ids if id in batch.lines or id in hedged)
        return [known[id].line for id in islice(open_ids, limit)]

    async def job_bodies(self, job: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        return [(line.id, line.body) for line in await self.job_lines(job, after, limit)]

    async def outcomes(
        self, job: str, fence: int, chunk: Sequence[LineOutcome], *, now: float
    ) -> list[str] | None:
        batch = self._batches.get(job)
        if batch is None or not self._drives(batch.job.lane, fence):
            return None
        strange: list[str] = []
        ends: dict[str, tuple[_Line, LineOutcome]] = {}
        for outcome in chunk:
            line = batch.lines.pop(outcome.id, None) or batch.hedged.get(outcome.id)
            if line is None and batch.job.state == "live":
                line = self._lines.get(outcome.id)
                line = line if line is not None and line.batch == job else None
            if line is None or outcome.id in ends:
                strange.append(outcome.id)
                continue
            if outcome.paid is not None:
                self._budgets.spend([Settlement(outcome.id, outcome.paid)])
            if self._counts(line, job, outcome) and not self._goes_again(line, outcome):
                ends[outcome.id] = line, outcome
        for mail in [self._close_line(line, outcome, now) for line, outcome in ends.values()]:
            if mail is not None:
                self._deliver(mail, now, mark=False)
        batch.close_if_done(now)
        self._budgets.wake(now)
        return strange

    def _counts(self, line: _Line, job: str, outcome: LineOutcome) -> bool:
        """Whether that is the end of a line that may be in two jobs."""
        owner = line.line.call.run
        if line.status != "taken":  # the other way was faster
            self._claims_nothing(owner, outcome)
            self._unhedge(line)
            return False
        if (
            line.hedged and line.batch == job and outcome.status == "error"
        ):  # the provider's job may do better
            line.batch = line.hedged
            self._unhedge(line)
            self._batches[line.batch].lines[outcome.id] = line
            return False
        if line.hedged == job:
            self._unhedge(line)
            if outcome.status != "ok":
                return False
            self._batches[line.batch].lines.pop(outcome.id)
        return True

    def _unhedge(self, line: _Line) -> None:
        if line.hedged:
            self._batches[line.hedged].hedged.pop(line.line.id, None)
            line.hedged = ""
            if line.status not in OPEN_LINE:
                self._budgets.release([line.line.id])

    def _claims_nothing(self, run: str, outcome: LineOutcome) -> None:
        if outcome.status == "ok" and outcome.used is not None:
            self._unclaimed.append((run, outcome.used))

    def _goes_again(self, line: _Line, outcome: LineOutcome) -> bool:
        ended = self._runs[line.line.call.run].status in ENDED
        again = outcome.again and not 0 < outcome.most <= line.line.attempt
        if not again or ended or line.unwanted or line.line.promoted:
            return False
        attempt = line.line.attempt + (not outcome.free)
        line.line = msgspec.structs.replace(line.line, attempt=attempt)
        line.status, line.batch = "waiting", ""
        self._lane(line.line.lane).put(line)
        self._hint("lines", line.line.lane)
        return True

    def _close_line(self, line: _Line, outcome: LineOutcome, now: float) -> Mail | None:
        """The end of a line; what its run gets."""
        call = line.line.call
        ended = self._runs[call.run].status in ENDED
        again = outcome.again and not 0 < outcome.most <= line.line.attempt
        quits = again and not (line.line.promoted and not line.unwanted)
        if line.line.same:
            self._share(line, outcome, now, quits=quits, claimed=not ended and not line.deserted)
        mail = Mail(
            call.run,
            f"line:{outcome.id}",
            line.line.attempt,
            "result",
            outcome.lane,
            value=outcome.value,
            error=outcome.error,
            call=call,
            at=now,
        )
        self._settle(line, "cancelled" if quits else outcome.status)
        self._forget_line(line)
        if ended and not line.line.same:
            self._claims_nothing(call.run, outcome)
        return None if ended or line.deserted or quits else mail

    async def withdraw(self, ids: Sequence[str]) -> list[bool]:
        return self._withdraw(ids)

    def _withdraw(self, ids: Sequence[str]) -> list[bool]:
        return [id in self._lines and self._take_out(self._lines[id]) for id in ids]

    def _take_out(self, line: _Line) -> bool:
        if line.status == "waiting":
            self._lanes[line.line.lane].leave(line)
            self._leave_others(line)
            self._settle(line, "cancelled")
            self._forget_line(line)
        elif line.status == "following":
            self._settle(line, "cancelled")
            self._leave_others(line)
            self._forget_line(line)
        else:
            if line.status == "taken":
                line.deserted = self._answers.has_followers(line.line.same)
                line.unwanted = not line.deserted
            return False
        return True

    def _forget_line(self, line: _Line) -> None:
        run = self._runs[line.line.call.run]
        if run.lines is not None:
            run.lines = [other for other in run.lines if other is not line] or None

    async def line_counts(self, *, job: str = "") -> dict[str, int]:
        lines = self._lines.values()
        counts: Mapping[str, int] = Counter(line.status for line in lines if not job or line.batch == job)
        return dict(counts)

    # ------------------------------------------------------------ budgets
    async def reserve(self, wanted: Sequence[Reservation], *, now: float) -> list[Reserved]:
        return [self._reserve(one) for one in wanted]

    def _reserve(self, wanted: Reservation) -> Reserved:
        run = self._runs.get(wanted.run)
        return "gone" if run is None or run.status in ENDED else self._budgets.reserve(wanted)

    async def fund(self, account: str, limit: Limit, *, raising: bool = False, now: float) -> Standing:
        return self._budgets.fund(account, limit, raising, now)

    async def budgets(self, accounts: Sequence[str] = ()) -> list[Standing]:
        return self._budgets.standings(accounts)

    async def reserved(self, job: str) -> dict[str, Amount]:
        ids = self._batches[job].ids if job in self._batches else ()
        mine = [id for id in ids if job in (self._lines[id].batch, self._lines[id].hedged)]
        return {id: amount for id in mine if (amount := self._budgets.reserved(id)) is not None}

    def _has_room(self, id: str, now: float) -> None:
        """A run that waited for room is ready."""
        run = self._runs[id]
        if run.status in ("parked", "held"):
            self._move(run, "ready")
            run.reason, run.updated = "", now
            self._enqueue(run)

    def _is_to_come(self, id: str) -> bool:
        """Whether a call is a line that is to have an outcome still."""
        line = self._lines.get(id)
        return line is not None and (line.status in OPEN_LINE or bool(line.hedged))


def _place(end: tuple[int, str]) -> int:
    return end[0]


def _number(line: _Line) -> int:
    return line.number
