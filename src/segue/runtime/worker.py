"""Waking runs: claim what is ready, let it act, keep its lease, hand it its mail."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import shlex
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol

from ..authoring.context import Branch, Wait, WireCall, Work
from ..authoring.failures import as_step_failed
from ..authoring.flow import Target
from ..authoring.pooled import Named, OverTime, within
from ..authoring.stopping import STOP, Stop
from ..core import journal
from ..core.pool import Pooled
from ..model.entry import Entry
from ..model.errors import Damaged, StoreError
from ..model.lane import Answer
from ..model.message import PORT, Letter, Mail, Question
from ..model.mode import Config
from ..model.run import Head
from ..ports.clock import AlarmClock, Timer
from ..ports.store import Claimed, CommitResult, Created, Hint, Lease, NewRun, Store, Turn
from . import alive
from .calls.models import Models
from .calls.processes import Processes
from .calls.room import Room
from .ground.absent import Absent
from .ground.bus import Bus
from .ground.events import Asked, Waiting
from .ground.jumps import Jumps
from .ground.patience import Trouble
from .ground.phase import COMMITTING
from .ground.tasks import NO_CONTEXT
from .mail.carrier import POLL, Carrier
from .repertoire import Repertoire
from .resources import Resources
from .wake.code import code_of
from .wake.executor import Executor
from .wake.handling import Handling
from .wake.host import Host
from .wake.resting import Resting, Rests
from .watch import Watch

log = logging.getLogger("segue")

#: How long a claim holds without being renewed, and how often it is renewed, in seconds.
LEASE = 60.0
RENEW = 15.0
#: How long paid calls that are under way may take to come in when the engine is closed, in seconds: most answers are
#: there by then, and process managers kill no earlier than after 30.
PAID = 20.0
#: How long a run waits here for its flow to be defined or started, in seconds; then it is left to others.
ASIDE = 0.5
#: Of a worker whose room is full, so large a part leaves at a time of those that only wait, if others are ready.
SHARE = 16
#: So many functions that block are carried out at once.
THREADS = 64
#: For so long runs may be begun where they are asked for, in seconds; then the loop gets a turn.
STRETCH = 0.002


class Told(Protocol):
    """Who is told when a run leaves memory."""

    def run_left(self, run: Executor | Resting) -> None: ...
    def run_asked(self) -> None: ...


class Worker:
    """Keeps up to `room` runs at work in this process. Parked ones are rows, not here."""

    def __init__(
        self,
        store: Store,
        models: Models,
        clock: AlarmClock,
        bus: Bus,
        config: Config,
        *,
        linger: float,
        room: int,
        stall: float,
        ends: Told,
    ) -> None:
        self.store, self._models, self.clock, self.bus, self.config = store, models, clock, bus, config
        self.linger, self.room, self._stall, self._ends = linger, room, stall, ends
        self.loop: AbstractEventLoop = asyncio.get_running_loop()
        self.name = alive.new_name()
        self.port = PORT + self.name
        self.awake: dict[str, Executor | Resting] = {}
        self.absent = Absent(self._one_more_absent)
        self.rests: Rests | None = Rests(self)
        self.clock_now, self.append, self.commit = clock.now, store.append, store.land
        self.at_once = store.at_once
        self.repertoire = Repertoire()
        self.watchers: Mapping[str, Any] = bus.of
        self.followed: Mapping[str, Callable[[str], None]] = bus.followed
        self.budgets = models.budgets
        self.park_always = False  # chaos for tests: leave memory after every commit
        self.took: Callable[[Sequence[Claimed]], None] | None = None  # who is told what was claimed
        self.working = self.closing = False
        self._renewed = clock.steady()
        self.jumps = Jumps(clock)
        self._grouped: dict[str, int] = {}
        self._queued: dict[str, deque[Claimed]] = {}
        self._aside: dict[str, list[tuple[Claimed, list[Any]]]] = {}  # of flows that nobody named yet
        self._left: list[str] = []  # what the last claim asked to be spared
        self._ready = asyncio.Event()
        self._lacks_room = False  # the last look for work found none
        self._since: float | None = (
            None  # when the first run was begun where it was asked for, in this turn of the loop
        )
        self._to_pump: list[Executor] = []  # in the next turn of the loop
        self._held: dict[str, tuple[Lease, Callable[[], None]]] = {}  # claimed and not carried out
        self._carrier = Carrier(store, self.awake)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._threads_room = Room(THREADS, "a thread")
        self._processes: Processes | None = None
        self._watch: Watch | None = None
        self._resources = Resources()
        self._refused = ""  #: why the last run couldn't be given back, if it couldn't
        self._returns: set[Future[list[CommitResult]]] = set()  # of runs given back, on their way
        self.handles: Callable[[str, Any, tuple[str, int] | None], Any]
        self.answer: Callable[[Sequence[Mail]], None]
        self.executor: Callable[[Host, Claimed, list[Any], Pooled | None, Config], Executor] = Executor
        self._unclaimed = Trouble()  # of claims
        self._unwritten: StoreError | None = None  # why the last run that left couldn't write its last turn

    # ------------------------------------------------------------ what runs ask for
    def models(self, names: Any, config: Config) -> list[str]:
        return self._models.named(names, config)

    def model_call(
        self, branch: Branch, config: Config, model: str, request: Any, args: bytes, digest: bytes
    ) -> Work | Wait:
        return self._models.call(branch, config, model, request, args, digest)

    def wire_call(
        self, branch: Branch, config: Config, call: WireCall, *, replays: bool = False
    ) -> Work | Wait:
        return self._models.wire.call(branch, config, call, replays=replays)

    async def in_thread(
        self,
        fn: Callable[[], Any],
        stop: Stop | None = None,
        *,
        timeout: float | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="segue-step")
        context, stop = copy_context(), stop or Stop()
        context.run(STOP.set, stop)
        room = self._threads_room
        if not room.enter_at_once():
            await room.enter(told)
        work: concurrent.futures.Future[Any] | None = None
        try:
            work = self._threads.submit(context.run, _on_thread, fn)
            return await within(timeout, asyncio.wrap_future(work, loop=self.loop))
        except (asyncio.CancelledError, OverTime):
            stop.asked = True
            raise
        finally:
            if work is None or work.done():
                room.leave()
            else:  # it can't be stopped, so it keeps its thread
                work.add_done_callback(self._thread_is_free)

    def _thread_is_free(self, _: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._threads_room.leave)

    async def in_process(
        self, work: Named, timeout: float | None, told: Callable[[str], None] | None = None
    ) -> bytes:
        if self._processes is None:
            self._processes = Processes()
        return await self._processes.perform(work, timeout, told)

    def waits(self, run: str, place: tuple[str, int], name: str, what: str) -> None:
        self.publish(run, Waiting(run=run, path=place[0], n=place[1], name=name, what=what))

    async def get_resource(self, fn: Callable[[], Any]) -> Any:
        return await self._resources.get(fn)

    def handle(self, run: str, target: Any, place: tuple[str, int] | None) -> Any:
        return self.handles(run, target, place)

    def register(self, target: Any) -> None:
        self.repertoire.register(target)
        aside = self._aside.get(target.name)
        if aside is None:
            return
        for one in [one for one in aside if self.repertoire.meant(one[0].head.spec) is not None]:
            self._no_longer_aside(*one)
            with self._held_unless_read(one[0]):
                self._begin(*one)

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)

    def pump_soon(self, executor: Executor) -> None:
        if not self._to_pump:
            self.loop.call_soon(self._pump_all, context=NO_CONTEXT)
        self._to_pump.append(executor)

    def _pump_all(self) -> None:
        waiting, self._to_pump = self._to_pump, []
        for executor in waiting:
            if executor.phase is COMMITTING:  # its code made the next call, which is on its way
                executor.kicked = False
                continue
            try:
                executor.pump()
            except Exception as error:  # as of any callback; the other runs mustn't suffer
                told = {"message": f"run {executor.id} can't go on", "exception": error}
                self.loop.call_exception_handler(told)

    def target(self, name: str, module: str = "") -> Any:
        return self.repertoire.target(name, module)

    async def find(self, run: str) -> Head | None:
        return await self.store.get(run)

    @property
    def is_roomy(self) -> bool:
        return len(self.awake) * 2 <= self.room

    @property
    def _free(self) -> int:
        """For how many runs there is room. A step that waits for another run must not keep that out."""
        return self.room + self.absent.count - self._here

    @property
    def _here(self) -> int:
        """How many runs are at work, or wait for room in their group."""
        queued = self._queued
        return len(self.awake) + (sum(map(len, queued.values())) if queued else 0)

    def _one_more_absent(self) -> None:
        if self._free == 1:
            self._ready.set()

    def _make_room(self) -> None:
        """Have some of those leave that stay for a time that is near, or since to wake them costs: others are ready.

        As long as they are the smaller part they stay: of a large map the parent is one, and its children are many.
        """
        waiting = [run for run in self.awake.values() if run.nap is not None]
        if len(waiting) * 2 > self.room:
            for run in waiting[: max(self.room // SHARE, 1)]:
                run.make_room()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self.clock.call_later(seconds, callback)

    def wants_events(self, run: str) -> bool:
        return self.bus.wants(run)

    def publish(self, run: str, event: object) -> None:
        self.bus.publish(run, event)

    def asked(self, questions: Sequence[Question]) -> None:
        """Questions are open, durably."""
        for question in questions:
            self.bus.publish(question.run, Asked.of(question))
        self._ends.run_asked()

    def kept(self, answers: Sequence[Answer]) -> None:
        """Answers are durable."""
        for answer in answers:
            self._models.sameness.kept(answer.same)

    async def look(self, executor: Executor) -> None:
        """Bring a run the mail that came with its own commit, before it parks for want of it."""
        try:
            found = await self.store.letters({executor.id: executor.seen})
        except StoreError as error:  # it is looked for again, at the latest when the run parks
            log.error("the mail of run %s can't be read: %s", executor.id, error)
            return
        executor.mail(found.get(executor.id, []))

    def commit_all(self, turns: list[Turn]) -> Future[list[CommitResult]]:
        """Commit the turns of several runs."""
        return self.store.commit(turns)

    def holds(self, run: Resting) -> bool:
        return self.awake.get(run.id) is run

    def lies_down(self, run: Resting) -> None:
        self.awake[run.id] = run

    def gets_up(self, run: Resting, letters: Sequence[Letter]) -> None:
        if self.closing:
            run.stop()
            return
        claimed = Claimed(run.head, None, None, [], list(letters))
        executor = Executor(self, claimed, [], None, run.config)
        executor.sent = run.sent
        handling = executor.handling = Handling(executor, claimed)
        handling.weight = run.weight
        self.awake[run.id] = executor
        executor.begin(run.stays.code(claimed, handling))

    def ended(self, run: Executor | Resting) -> None:
        """A run left memory."""
        if self.awake.get(run.id) is run:  # not a later life, where the claim had lapsed
            del self.awake[run.id]
        group = run.head.spec.group
        if group:
            self._leave_group(group)
        error = run.error
        if isinstance(error, StoreError):
            if not self.closing:
                self._unwritten = error
            self._give_back(run.head)
        elif error is None:
            self._unwritten = None
        self._ends.run_left(run)
        if self._lacks_room or run.due or run.status == "ready":
            self._ready.set()

    @property
    def is_at_work(self) -> bool:
        """Whether it carries out runs, or isn't sure yet whether they are of something that it knows."""
        return bool(self.awake or self._aside)

    @property
    def failure(self) -> BaseException | None:
        """Why no run gets on here; None once the store does again what failed."""
        return self._unwritten or self._unclaimed.error

    @property
    def lasting(self) -> BaseException | None:
        """The same, but for a claim that may succeed in a moment; what can't be written would be done again."""
        return self._unwritten or self._unclaimed.lasting

    # ------------------------------------------------------------ a worker's life
    def start(self) -> Callable[[], None]:
        """Begin to claim."""
        self.working = True
        self._spawn(self._claim_loop())
        self._spawn(self._renew_loop())
        self._spawn(self._carrier.look())
        self._watch = Watch(
            self.loop,
            self.awake.values,
            lambda event: self.publish(event.run, event),
            patience=self._stall,
            renew=self._renew_late,
            every=RENEW,
        )
        return self.store.subscribe(self._hint, self.awake)

    def _spawn(self, coro: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.Task(coro, loop=self.loop)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wake(self) -> None:
        """Look for work now."""
        self._ready.set()

    def _hint(self, hint: Hint) -> None:
        if hint.kind == "ready":
            self._ready.set()
        elif hint.kind == "mail":
            self._carrier.hint(hint)
        elif hint.kind == "elsewhere":
            self._ready.set()
            self._carrier.glance()

    async def _claim_loop(self) -> None:
        while not self.closing:
            self._ready.clear()
            if self._unwritten is not None:
                await asyncio.sleep(1.0)
            try:
                count = await self.claim_once()
                self._unclaimed.passed()
                if not count:
                    await self._until_ready()
            except Exception as error:
                log.error(
                    "the worker can't claim runs: %s", error, exc_info=not isinstance(error, StoreError)
                )
                self._unclaimed.failed(error)
                self.jumps.give_chance()
                await asyncio.sleep(1.0)
                continue
            if count:
                await asyncio.sleep(0)  # let what was claimed act before more is claimed

    async def _until_ready(self) -> None:
        """Wait for a hint, for the next due run, or a little while for what other processes do."""
        count, due = await self.backlog()
        if self._ready.is_set():
            return
        if self._free <= 0 and count > self._here:
            self._make_room()
        timers: list[Timer] = [self.loop.call_later(POLL, self._ready.set)]
        if due is not None:
            timers.append(self.clock.call_later(max(due - self.clock.now(), 0.001), self._ready.set))
        try:
            await self._ready.wait()
        finally:
            for timer in timers:
                timer.cancel()

    async def bury(self) -> None:
        """Free what workers of this machine held whose process is gone."""
        gone = [name for name in await self.store.workers() if alive.is_gone(name)]
        if gone:
            log.info("%d workers of this machine are gone; what they held is free", len(gone))
            await self.store.bury(gone)
            self.wake()

    async def claim_once(self) -> int:
        """Claim and wake what is ready, as far as there is room; how many."""
        if self.jumps.look() or self.clock.steady() - self._renewed > RENEW:
            await self._renew()  # keep what is ours before it counts as lost
        room = self._free
        self._lacks_room = room <= 0
        if self._lacks_room:
            return 0
        self._left = self.repertoire.left()
        began = self.clock.steady()
        claimed = await self.store.claim(
            self.name,
            min(room, 500),
            LEASE,
            now=self.clock.now(),
            but=self._left,
            lapsed=not self.jumps.recent,
        )
        self._waited(began)
        if claimed:
            if self.took is not None:
                self.took(claimed)
            await self.begin(claimed)
        return len(claimed)

    async def backlog(self) -> tuple[int, float | None]:
        """How many runs are ready or claimed that could run here, and when the next one is due."""
        count, due = await self.store.backlog(now=self.clock.now(), but=self.repertoire.left())
        return max(count - len(self._held), 0), due

    async def begin(self, claimed: list[Claimed]) -> None:
        """Wake claimed runs; one that can't be is held, so that it harms no other."""
        read: list[tuple[Claimed, list[Entry]]] = []
        digests: list[bytes] = []
        for one in claimed:
            with self._held_unless_read(one):
                entries = journal.read(one.journal)
                digests += journal.blobs_of(entries)
                read.append((one, entries))
        try:
            contents = await self.store.get_blobs(digests) if digests else {}
        except BaseException:
            for one, _ in read:
                self._give_back(one.head)
            raise
        for one, some in read:
            with self._held_unless_read(one):
                self._admit(one, journal.load_large(some, contents) if digests else some)

    def _admit(self, claimed: Claimed, entries: list[Any], call: Any = None) -> Executor | None:
        """Wake a run, or keep it until there is room in its group. `call`: its arguments, if they are read already."""
        spec = claimed.head.spec
        if spec.group and self._grouped.get(spec.group, 0) >= spec.limit:
            self._queued.setdefault(spec.group, deque()).append(claimed)
            return None
        return self._begin(claimed, entries, call)

    def _begin(
        self,
        claimed: Claimed,
        entries: list[Any],
        call: Any = None,
        *,
        here: bool = False,
        target: Target | None = None,
    ) -> Executor | None:
        """Wake a run of that flow or actor, if who had it made says which. `here`: see `create_one`."""
        spec = claimed.head.spec
        if self.closing:
            self._give_back(claimed.head)
            return None
        target = target or self.repertoire.meant(spec)
        if target is None:
            self._set_aside(claimed, entries)
            return None
        pool = None
        if claimed.pool is not None:
            pool = Pooled(claimed.pool, turns=spec.kind == "actor")
        config = self.config if spec.config is self.config else spec.config.over(self.config)
        executor = self.executor(self, claimed, entries, pool, config)
        code = code_of(target, claimed, executor, call)
        if spec.group:
            self._grouped[spec.group] = self._grouped.get(spec.group, 0) + 1
        self._lose(executor.id)
        self.awake[executor.id] = executor
        if here and spec.kind == "flow" and len(self.awake) == 1 and self._may_begin_here():
            executor.begin_here(code)
        else:
            executor.begin(code)
        return executor

    def _may_begin_here(self) -> bool:
        """Whether a run that is alone may act where it is asked for, not for so long that others wait for the loop."""
        now = self.loop.time()
        if self._since is None:
            self._since = now
            self.loop.call_soon(self._turned, context=NO_CONTEXT)
        return now - self._since < STRETCH

    def _turned(self) -> None:
        """The loop had a turn."""
        self._since = None

    def _set_aside(self, claimed: Claimed, entries: list[Any]) -> None:
        """A program that has just begun may name its flows in a moment."""
        self._aside.setdefault(claimed.head.spec.target, []).append((claimed, entries))

        again = claimed.head.spec.code in self._left

        def give_up() -> None:
            if not self.closing and self._no_longer_aside(claimed, entries):
                self._unknown(claimed, again)

        self.loop.call_later(ASIDE, give_up)

    def _no_longer_aside(self, claimed: Claimed, entries: list[Any]) -> bool:
        """Whether it was until now."""
        name = claimed.head.spec.target
        aside = self._aside.get(name, [])
        if (claimed, entries) not in aside:
            return False
        aside.remove((claimed, entries))
        if not aside:
            del self._aside[name]
        return True

    def _leave_group(self, group: str) -> None:
        self._grouped[group] -= 1
        if self._queued.get(group):
            self._spawn(self._begin_next(group))

    async def _begin_next(self, group: str) -> None:
        """Wake the next run of a group, or as many as it has room for."""
        queued = self._queued.get(group)
        while queued and self._grouped[group] < queued[0].head.spec.limit and not self.closing:
            try:
                await self.begin([queued.popleft()])
            except StoreError as error:
                log.error("the next run of group %s can't be read: %s", group, error)

    def _unknown(self, claimed: Claimed, again: bool) -> None:
        """A run of something that this process doesn't know: leave it, and others of that, to others.

        `again`: the store gave it although it was told, as it may one of an older version: it is put off.
        """
        spec = claimed.head.spec
        stranger = self.repertoire.stranger(spec)
        reason = (
            stranger
            or f"no worker here knows {spec.kind} {spec.target!r}: start one with the file that defines it"
        )
        now = self.clock.now()
        turn = Turn(run=claimed.head.id, fence=claimed.head.fence, release=True, reason=reason, now=now)
        if again:
            turn.status, turn.wake = "parked", now + min(max(5.0, (now - spec.begun) / 2), 60.0)
            turn.seen = max((letter.id for letter in claimed.inbox), default=0)
        self.repertoire.leave(spec)
        if self.repertoire.tells(reason):
            more = ". Said once for all such runs" if stranger else ""
            log.warning("run %s: %s%s", claimed.head.id, reason, more)
        self._return(turn)

    @contextlib.contextmanager
    def _held_unless_read(self, claimed: Claimed) -> Generator[None]:
        """Hold a run that can't be woken."""
        try:
            yield
        except Exception as error:
            head = claimed.head
            known = isinstance(error, Damaged)
            log.error("run %s can't be woken: %s", head.id, error, exc_info=not known)
            why = error.problem if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
            what = f"{error.what} can't be read" if isinstance(error, Damaged) else "it can't be woken"
            reason = (
                f"{what} ({why}): a newer segue wrote it, or the store is damaged there\n"
                f"upgrade segue here, or restore a backup; then `segue resume {shlex.quote(head.id)}`"
            )
            seen = max((letter.id for letter in claimed.inbox), default=0)
            now = self.clock.now()
            self._return(
                Turn(
                    run=head.id,
                    fence=head.fence,
                    status="held",
                    release=True,
                    reason=reason,
                    seen=seen,
                    now=now,
                )
            )

    def _give_back(self, head: Head) -> None:
        """Also where it couldn't be written: else its claim would lapse, as if its workers had died of it."""
        self._return(Turn(run=head.id, fence=head.fence, status="ready", release=True, now=self.clock.now()))

    def _return(self, turn: Turn) -> None:
        """Write that a run is left to others; if that fails, its lease lapses in time."""
        future = self.store.commit([turn])
        self._returns.add(future)

        def returned(future: Future[list[CommitResult]]) -> None:
            self._returns.discard(future)
            if future.cancelled():
                return
            error = future.exception()
            # Of a full disk, all would say so.
            told = self._unwritten is not None or str(error) == self._refused
            if error is not None and not told:
                log.error(
                    "runs such as %s can't be given back before their leases lapse: %s", turn.run, error
                )
            self._refused = "" if error is None else str(error)

        future.add_done_callback(returned)

    async def _renew_loop(self) -> None:
        while True:  # while it closes, too: calls may take their time to come in
            await asyncio.sleep(RENEW)
            try:
                await self._renew()
            except StoreError as error:  # there is time for some more attempts before the leases lapse
                log.error("the worker can't renew its claims: %s", error)
                self.jumps.give_chance()

    async def _renew(self) -> None:
        began = self.clock.steady()
        if leases := self._leases():
            kept = await self.store.renew(self.name, leases, LEASE, now=self.clock.now())
            for lost in [lease for lease, known in zip(leases, kept, strict=True) if not known]:
                if lost.run in self._held:
                    self._held[lost.run][1]()
                self._lose(lost.run, lost.fence)
        self._renewed = began  # not where it failed: what isn't kept, the next claim would take
        self._waited(began)

    def _waited(self, began: float) -> None:
        """Where the store took so long, others may not have had the chance to renew what they hold either."""
        if self.clock.steady() - began > RENEW:
            self.jumps.give_chance()

    def _lose(self, id: str, fence: int = 0) -> None:
        """A run that is at work here by that claim, or by any, has lost it: what it still did would be done twice."""
        run = self.awake.get(id)
        if run is not None and not run.leaving and fence in (0, run.fence):
            run.taken_over()

    def _renew_late(self) -> None:
        """In the watching thread: the loop should have renewed by now, so something blocks it."""
        late = self.clock.steady() - self._renewed > RENEW * 1.5
        if late and (held := self._leases()):
            self.store.renew_from_thread(self.name, held, LEASE, now=self.clock.now())

    def _leases(self) -> list[Lease]:
        held = [lease for lease, _ in list(self._held.values())]
        held += [Lease(executor.id, executor.fence) for executor in list(self.awake.values())]
        for queue in list(self._queued.values()):
            held += [Lease(one.head.id, one.head.fence) for one in list(queue)]
        return held

    async def stop(self, grace: float | None) -> None:
        """Give all runs back, what they did committed. Calls under way get `grace` seconds to come in.

        None: `PAID` seconds, and only those that would be paid again, or hold their run.
        """
        self.closing = True
        self._ready.set()
        for queue in self._queued.values():
            for one in queue:
                self._give_back(one.head)
        self._queued.clear()
        for aside in self._aside.values():
            for one, _ in aside:
                self._give_back(one.head)
        self._aside.clear()
        await asyncio.gather(*self._returns, return_exceptions=True)
        every, grace = grace is not None, PAID if grace is None else grace
        if grace > 0 and (count := self._under_way(every=every)):
            log.warning(
                "the engine closes: calls under way get %.3g s to come in (%d)%s; Ctrl-C again leaves at once",
                grace,
                count,
                "" if every else ", for cut off they would be paid again",
            )
        for executor in list(self.awake.values()):
            executor.stop(grace, every=every)
        for executor in list(self.awake.values()):
            await executor.has_left()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            self._watch.close()
        await self._resources.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            await self._processes.close()

    def _under_way(self, *, every: bool) -> int:
        """How many calls runs here wait for: all, or those that are dear."""
        works = [executor.carrying for executor in self.awake.values()]
        return sum(len(work.at_work) if every else work.dear() for work in works)

    async def hold(self, run: NewRun, lost: Callable[[], None]) -> Lease:
        """Create a run that isn't carried out while its claim is kept here; `lost` is called where that was lost."""
        (created,) = await self.store.create([run], now=self.clock_now(), worker=self.name, ttl=LEASE)
        lease = Lease(run.id, created.head.fence)
        self._held[run.id] = lease, lost
        return lease

    def let_go(self, run: str) -> None:
        """It isn't to be kept any more."""
        self._held.pop(run, None)

    async def create(self, runs: list[NewRun]) -> list[Created]:
        """Create runs; those that are new, known and for which there is room are claimed at once."""
        fits = self.working and not self.closing and len(runs) <= self._free
        if not fits or any(self.repertoire.meant(run.spec) is None for run in runs):
            created = await self.store.create(runs, now=self.clock_now())
            self.wake()
            return created
        created = await self.store.create(runs, now=self.clock_now(), worker=self.name, ttl=LEASE)
        for one, run in zip(created, runs, strict=True):
            if one.new:
                self._admit(Claimed(one.head, None, run.pool, [], []), [])
        return created

    async def create_one(
        self, run: NewRun, target: Target, call: Any, *, here: bool
    ) -> tuple[Created, Executor | None]:
        """Create a run of that; if it is claimed at once, its wake. `call`: its arguments, as `check_args` made them.

        `here`: it may act before this returns, as far as it gets without waiting, and may be over then.
        """
        if not self.working or self.closing or self._free <= 0:
            return (await self.create([run]))[0], None
        (created,) = await self.store.create([run], now=self.clock_now(), worker=self.name, ttl=LEASE)
        if not created.new:
            return created, None
        claimed = Claimed(created.head, None, None, [], [])
        return created, self._begin(claimed, [], call, here=here, target=target)


def _on_thread(fn: Callable[[], Any]) -> Any:
    """Call it there. No future carries a `StopIteration`, or a `GeneratorExit` unharmed; Ctrl-C never comes there."""
    try:
        return fn()
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise
        raise as_step_failed(error) from error
