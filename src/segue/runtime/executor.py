"""One wake of a run: replay what the journal holds, act, and leave when everything waits.

The code of the run is a set of tasks, its branches. Whenever they are all at rest, `_turn` decides what is
next, in this order: hand over the next recorded batch; start what is new; commit what was done and hand it
over; end; park. One commit is under way at a time.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any, Protocol

import msgspec

from ..authoring.context import Act, Branch, BranchTask, Parked, Services, Wait, Work
from ..authoring.failures import to_failure
from ..core import journal
from ..core.pool import Pooled
from ..core.replay import Differs, Place, Replay
from ..model.entry import INSTANT, Entry, Failure, encode_entries
from ..model.errors import ReplayMismatch, WrongPlace
from ..model.message import Letter, Mail, Question
from ..model.mode import Config
from ..model.run import ENDED, CallRef, Head, Status, Usage
from ..ports.clock import Timer
from ..ports.store import Claimed, CommitResult, Turn
from . import tasks
from .call import (
    CANCEL,
    NOTHING,
    Call,
    Outcome,
    cancel_wait,
    decode,
    deliver,
    end_error,
    enter_step,
    instant_entry,
    made_entry,
    outcome_entry,
    raw,
    recorded_event,
    started_event,
    within,
)
from .events import Emitted, Event, Finished
from .stillness import Stillness

log = logging.getLogger("segue")

#: So many calls in a row are carried out in the caller's task; then the loop gets a turn.
CREDIT = 64
#: So often code may call on although its run leaves memory; then its calls wait, so that others get the loop.
REFUSALS = 1000
#: Tasks of a run that leaves memory are cancelled in so many rounds, each twice as long as the one before, from 5 ms;
#: those that carry out a call get that many of them to clean up.
ROUNDS, PATIENT = 8, 6


class Host(Services, Protocol):
    """What an executor needs of the engine around it."""

    loop: AbstractEventLoop
    park_always: bool

    def commit(self, turn: Turn) -> Future[list[CommitResult]]: ...
    async def find(self, run: str) -> Head | None: ...
    def clock_now(self) -> float: ...
    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer: ...
    def ended(self, executor: Executor) -> None: ...
    def wants_events(self, run: str) -> bool: ...
    def asked(self, questions: Sequence[Question]) -> None: ...
    def publish(self, run: str, event: object) -> None: ...


class Executor:
    """One wake of one run. `block` gives the coroutine of the code to run."""

    def __init__(
        self, host: Host, claimed: Claimed, entries: list[Entry], pool: Pooled | None, config: Config
    ) -> None:
        head = claimed.head
        self.host = host
        self.loop = host.loop
        self.id = head.id
        self.seed = head.spec.seed or head.id
        self.fence = head.fence
        self.head = head
        self.config = config
        self.replay = Replay(entries, head.spec.created)
        self.pool, self.rebased = pool, pool is not None
        if pool is not None:
            pool.spend(self.replay.calls.values())
        self.settled = not entries
        self.still = Stillness(self.loop, host.linger, self.kick)
        self.tasks = self.still.tasks
        self.root: Task[Any] | None = None
        self.open: dict[Place, Call] = {}
        self.made: set[Place] = set()
        self.held: list[Call] = []
        self.local: set[Task[Any]] = set()
        self._unwinding: Task[None] | None = None
        self.done: list[Outcome] = []
        self.precommit: list[Call] = []
        self.letters: dict[int, Letter] = {}  # outcomes and orders, by id
        self.posts: dict[int, Letter] = {}  # messages to the code, by id, in order
        self.unmatched = True  # posts or receivers have come since they were matched
        self.seen = 0
        self._credit = CREDIT
        self._file(claimed.inbox)
        self.receivers: list[Call] = []
        self.joins: dict[Place, list[Call]] = {}  # waits for the ends of spawned runs
        self.ends: dict[Place, tuple[bytes | None, Failure | None]] = {}  # of spawned runs, once waited for
        self.callers: tuple[str, ...] = ()  # who waits, in a chain, for the request in hand
        self.sealing: tuple[bytes, Call] | None = None
        self.wanting: Call | None = None  # a message
        self.spawned: set[Place] = set()  # whose ends may come before anybody waits for them
        self.dues: list[tuple[float, int, Call]] = []
        self.reused: list[
            tuple[int, int, Outcome]
        ] = []  # taken over from before a rebase, by when it came then
        self.usage = {(use.model, use.lane): use for use in head.usage}
        self._used = False  # since the last turn
        self.sent = 0
        self.turn = Turn(run=self.id, fence=self.fence)
        self.entries: list[Entry] = []  # made since the last commit, not yet in a turn
        self.kicked = self.committing = self.leaving = self.over = False
        self.stop_by = 0.0
        self.stopping = False  # the engine closes: give the claim up at the next rest
        self.nap: Timer | None = None  # for a short wait that is over soon by the clock
        self._order = 0
        self.due = False  # it parked until some time
        self.refused = 0
        self.status: Status = "ready"
        self.finished: Future[None] = self.loop.create_future()
        if (cancel := self.replay.calls.get(CANCEL)) is not None:
            self._expect_cancel(cancel)

    # ------------------------------------------------------------ what verbs see
    @property
    def services(self) -> Services:
        return self.host

    @property
    def at_work(self) -> set[Task[Any]]:
        """The tasks that carry out calls in this process."""
        return self.local if self.still.busy_by_itself is None else {*self.local, self.still.busy_by_itself}

    def now(self) -> float:
        return self.replay.time

    def emit(self, event: object) -> None:
        if self.settled and self.host.wants_events(self.id):
            known = isinstance(event, Event)
            self.host.publish(
                self.id, event if known else Emitted(run=self.id, value=msgspec.to_builtins(event))
            )

    def next_number(self) -> int:
        self.sent += 1
        return self.fence << 24 | self.sent  # greater than any of an earlier life

    def record(self, branch: Branch, request: Work | Wait | Act) -> Future[Any]:
        """Record a call of the code; see `RunContext`."""
        if self.leaving:
            return self._refuse()
        place = (branch.path, branch.n)
        branch.n += 1
        call = self._call(branch, place, request)
        self.open[place] = call
        if request.kind == "spawn":
            self.spawned.add(place)
        if call.slot is not None and isinstance(request, Wait):
            call.slot.leave()
        try:
            call.entry = self.replay.made(*place, request.kind, request.name, request.digest)
        except Differs as differs:
            call.entry = differs.entry
            self._mismatch(differs.entry, request)
            return call
        if isinstance(request, Work):
            call.context = copy_context()
        if call.entry is not None:
            if call.entry.made:
                self._pending(call, call.entry)
            elif call.entry.batch == INSTANT:
                self._at_once(call, call.entry.value)
        elif self.settled:
            self._start(call)
        else:
            self.held.append(call)
        self.kick()
        return call

    def _refuse(self) -> Future[Any]:
        """What a call of a run that leaves memory gets; code that calls on and on is made to wait."""
        self.refused += 1
        if self.refused <= REFUSALS:
            raise Parked(f"run {self.id} is leaving memory")
        return self.loop.create_future()

    def _call(self, branch: Branch, place: Place, request: Work | Wait | Act) -> Call:
        call = Call(loop=self.loop)
        call.executor, call.place, call.request = self, place, request
        call.task = call.context = call.entry = None
        call.slot = branch.slot
        call.after = self.replay.handed
        self.made.add(place)
        return call

    def perform(self, branch: Branch, work: Work) -> Awaitable[Any]:
        """Record work and wait for it; see `RunContext`."""
        if (
            self._credit > 0
            and self.settled
            and not self.open
            and not self.done
            and not self.committing
            and not self.leaving
            and not self.stopping
            and not self.host.park_always
            and self.pool is None
            and len(self.tasks) == 1
            and work.effect != "at-most-once"
        ):
            self._credit -= 1
            return self._inline(branch, work)
        self._credit = CREDIT
        return self.record(branch, work)

    async def _inline(self, branch: Branch, work: Work) -> Any:
        """Nothing else is under way, so the run is at rest but for this call: do it in the caller's task."""
        place = (branch.path, branch.n)
        branch.n += 1
        call = self._call(branch, place, work)
        outcome = Outcome(call)
        task = asyncio.current_task()
        assert isinstance(task, BranchTask)  # only a branch calls
        context = copy_context()
        context.run(enter_step, work.name)
        task.branch, self.still.busy_by_itself = None, task
        if self.host.wants_events(self.id):
            self.host.publish(self.id, started_event(self.id, call))
        try:
            outcome.value = await within(context, work.run())
        except asyncio.CancelledError as cancelled:
            if task.cancelling() or self.leaving:
                self.dropped(call)
                raise
            outcome.error, outcome.cause = to_failure(cancelled), cancelled  # raised by the step itself
        except Exception as error:
            again = work.again is not None and work.again(error)
            outcome.error, outcome.cause = to_failure(error, again=again), error
        finally:
            task.branch, self.still.busy_by_itself = branch, None
        if self.leaving:
            raise Parked(f"run {self.id} is leaving memory")
        self.open[place] = call
        self.done.append(outcome)
        if not self.committing:
            self._commit()
        if call.done():
            return call.result()
        return await call

    # ------------------------------------------------------------ what an actor's code needs besides
    def next_mail(self) -> Future[Letter]:
        """The first message in the inbox, when there is one; it stays there."""
        wanting = self._own_call(("!mail", 0))
        if self.posts:
            wanting.set_result(next(iter(self.posts.values())))
            return wanting
        self.wanting = wanting
        self.open[wanting.place] = wanting
        self.kick()
        return wanting

    def close_letter(self, letter: Letter, reply: Mail | None) -> None:
        """Have the next commit consume a message and send its answer."""
        self._consume(letter.id)
        if reply is not None:
            self.turn.outbox = [*self.turn.outbox, reply]

    def seal(self, checkpoint: bytes) -> Future[None]:
        """Commit a transition. Tasks that the handler left behind don't outlive it."""
        call = self._own_call(("!seal", 0))
        self.sealing = (checkpoint, call)
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel("the handler that started it is done")
        self.kick()
        return call

    def off_loop(self, fn: Callable[[], Any]) -> Future[Any]:
        """Run a function on a thread, as work of this wake."""
        call = self._own_call(("!thread", 0))

        async def work() -> None:
            try:
                result = await self.host.in_thread(fn)
            except Exception as error:
                if not call.done():
                    call.set_exception(error)
            else:
                if not call.done():
                    call.set_result(result)
            self.kick()

        context = copy_context()
        context.run(enter_step, "a handler that runs on a thread")
        task = Task(work(), loop=self.loop, context=context)
        self.local.add(task)
        task.add_done_callback(self.local.discard, context=tasks.NO_CONTEXT)
        return call

    def _own_call(self, place: Place) -> Call:
        """A wait of the engine's own: not recorded."""
        call = Call(loop=self.loop)
        call.executor, call.place, call.after = self, place, self.replay.handed
        call.request = Wait(kind="", name="", args=b"", digest=b"", decode=raw)
        call.task = call.context = call.slot = call.entry = None
        return call

    # ------------------------------------------------------------ a life
    def begin(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Set the code going."""
        branch = Branch(self, "")
        self.root = tasks.start(self.loop, coro, branch, copy_context(), f"segue {self.id}")
        self.kick()

    def adopt(self, task: Task[Any]) -> None:
        """Keep a task that the code started."""
        self.tasks.add(task)
        task.add_done_callback(self._task_done, context=tasks.NO_CONTEXT)
        if self.leaving:
            self.loop.call_soon(task.cancel)

    def mail(self, letters: Sequence[Letter]) -> None:
        """Take letters that came while the run is in memory; while it leaves, its last commit must not count them."""
        if self.leaving:
            return
        self._file([letter for letter in letters if letter.id > self.seen])
        self.kick()

    def kick(self) -> None:
        """Look soon whether the run is at rest."""
        if not self.kicked and not self.over:
            self.kicked = True
            self.still.stirred()
            self.loop.call_soon(self._pump, context=tasks.NO_CONTEXT)

    def stop(self) -> None:
        """Give the claim up at the next chance; what was done is committed, what is under way is dropped."""
        self.stopping = True
        self.stop_by = self.loop.time() + self.host.linger
        self.kick()

    def _task_done(self, task: Task[Any]) -> None:
        self.tasks.discard(task)
        self.kick()

    def _pump(self) -> None:
        self.kicked = False
        if self.over or self.leaving or self.committing:
            return
        rest = self.still.look()
        if rest == "busy":
            if self.stopping and self.loop.time() > self.stop_by:
                self._leave("ready")  # it never rests
            else:
                self.kick()
        elif rest == "calming":
            self.kicked = True
            self.loop.call_soon(self._pump, context=tasks.NO_CONTEXT)
        elif rest == "rest" or self.still.lingered():
            self._turn()

    def _end_nap(self) -> None:
        if self.nap is not None:
            self.nap.cancel()
            self.nap = None
            self.kick()

    # ------------------------------------------------------------ at rest
    def _turn(self) -> None:
        """What a run at rest does next."""
        batch = self.replay.next_batch()
        if batch is not None:
            self._hand_over_recorded(batch)
        elif not self.settled:
            if self.stopping:
                self._leave("ready")
            elif self.still.foreign_since is None or self.replay.used_up or self.still.lingered(60):
                self._settle()
        elif self.root is not None and self.root.done():
            self._end()
        else:
            self._answer_waits()
            if self.sealing is not None:
                self._seal()
            elif self.stopping:
                self._leave("ready")
            elif self.wanting is not None and self.wanting.done():
                self.wanting = None
                self.kick()
            elif self.reused and not self.done:
                self._take_reused()
                self._commit()
            elif self.done or self.entries or self.precommit:
                if self.host.park_always and not self.local and not self.precommit:
                    self._leave("ready")
                else:
                    self._commit()
            elif not self.local and self.still.busy_by_itself is None:
                self._idle()

    def _hand_over_recorded(self, batch: list[Entry]) -> None:
        for entry in batch:
            call = self.open.pop((entry.path, entry.n), None)
            if call is None or call.done():
                continue
            if isinstance(call.request, Wait) and call.request.joins is not None:
                self.ends[call.request.joins] = entry.value, entry.error
            outcome = Outcome(call, entry.value, entry.error)
            decode(outcome)
            deliver(outcome)
        self.kick()

    def _settle(self) -> None:
        """The history is used up. What it demands must have been made; then what is new may start."""
        if not self.replay.used_up:
            lacking = self.replay.lacking(self.made)
            if lacking and (timer := tasks.next_timeout(self.loop, self.tasks)) is not None:
                tasks.strike(timer)  # it went off in that life too, or the code had not come further
                self.kick()
                return
            if lacking:
                self._mismatch(lacking[0], None)
                return
        self.settled = True
        held, self.held = self.held, []
        for call in held:
            if not call.done():
                self._start(call)
        self.kick()

    def _start(self, call: Call) -> None:
        """Begin a call that no journal knows."""
        request = call.request
        if self.pool is not None and self._from_pool(call, self.pool):
            return
        if isinstance(request, Act):
            request.writes(self.turn, *call.place)
            self.entries.append(instant_entry(call, request))
            self._at_once(call, request.value)
        elif isinstance(request, Wait):
            self.entries.append(made_entry(call, request, request.due))
            if request.opens is not None:
                request.opens(self.turn, *call.place)
            self._wait_for(call, request, request.due)
        elif request.effect == "at-most-once":
            self.entries.append(made_entry(call, request, 0.0))
            self.precommit.append(call)
        else:
            self._work(call, request)

    def _at_once(self, call: Call, value: bytes | None) -> None:
        self.open.pop(call.place, None)
        outcome = Outcome(call, value)
        decode(outcome)
        deliver(outcome)

    def _from_pool(self, call: Call, pool: Pooled) -> bool:
        """Take a call over from the journal that this run was rebased from, if it is there."""
        request = call.request
        entry = pool.take(*call.place, request.kind, request.name, request.digest)
        if entry is not None and not entry.made:
            self._reuse(call, entry, pool)
            return True
        if isinstance(request, Wait):
            if entry is not None and call.place == (entry.path, entry.n):  # it is open already
                self.entries.append(made_entry(call, request, entry.due))
                self._wait_for(call, request, entry.due)
                return True
            if entry is not None and request.drops is not None:  # it is open at another place
                request.drops(self.turn, entry.path, entry.n)
            for letter in list(self.letters.values()):  # for what was open here before
                if letter.mail.call is not None and (letter.mail.call.path, letter.mail.call.n) == call.place:
                    self._consume(letter.id)
        elif isinstance(request, Work) and entry is None and request.effect != "idempotent":
            if pool.blocks(call.place[0], request.name):
                self._hold(
                    f"the {request.effect} step {request.name!r} was done before, with other arguments or on "
                    f"another way, and would be done again: restore the code, or `segue resume --rerun --repeat`"
                )
                return True
        return False

    def _reuse(self, call: Call, entry: Entry, pool: Pooled) -> None:
        """Take an outcome from the journal that this run was rebased from."""
        if isinstance(call.request, Act):
            act = msgspec.structs.replace(call.request, value=entry.value or NOTHING)
            self.entries.append(instant_entry(call, act))
            self._at_once(call, entry.value)
            return
        if isinstance(call.request, Wait):
            self.entries.append(made_entry(call, call.request, entry.due))
        elif isinstance(call.request, Work) and call.request.effect == "at-most-once":
            self.entries.append(made_entry(call, call.request, 0.0))
        outcome = Outcome(call, entry.value, entry.error, paid=True, at=entry.at)
        heapq.heappush(self.reused, (*pool.order(entry), outcome))

    def _take_reused(self) -> None:
        """Outcomes that were handed over together are so again, in their order then, with their time."""
        batch = self.reused[0][0]
        while self.reused and self.reused[0][0] == batch:
            self.done.append(heapq.heappop(self.reused)[2])

    def _pending(self, call: Call, entry: Entry) -> None:
        """A call that was journaled when made, in an earlier life, and has no outcome yet.

        A model call that went out in a batch, and would be live now, still gets its outcome as mail.
        """
        request = call.request
        if isinstance(request, Wait):
            self._wait_for(call, request, entry.due)
        elif isinstance(request, Work) and request.effect == "at-most-once":
            self._hold(
                f"the at-most-once step {request.name!r} was cut off by a crash: it may have happened. "
                f"Look, then `segue resume --rerun` to do it (again), or `--value JSON` to say what came of it"
            )

    def _wait_for(self, call: Call, request: Wait, due: float) -> None:
        if due:
            self._order += 1
            heapq.heappush(self.dues, (due, self._order, call))
        if request.accepts:
            self.receivers.append(call)
            self.unmatched = True
        if request.joins is not None:
            self._join(call, request, request.joins)

    def _join(self, call: Call, request: Wait, place: Place) -> None:
        """Wait for the end of a spawned run, which comes as mail once, whoever waits for it."""
        if place in self.ends:
            self._close(call, Outcome(call, *self.ends[place]))
            return
        self.joins.setdefault(place, []).append(call)
        if request.looks:
            task = Task(
                self._look(call, request.looks, place), loop=self.loop, context=tasks.NO_CONTEXT.copy()
            )
            self.local.add(task)
            task.add_done_callback(self.local.discard, context=tasks.NO_CONTEXT)

    async def _look(self, call: Call, run: str, place: Place) -> None:
        """A run that somebody else started by that id sends its end to them."""
        head = await self.host.find(run)
        if head is not None and head.spec.parent != CallRef(self.id, *place) and place in self.joins:
            if head.status in ENDED:
                self._ended(place, head.value, end_error(head.id, head.status, head.error), None)
            else:
                text = (
                    f"run {run!r} was there already, started by somebody else, so its end can't be awaited here; "
                    f"spawn it under an id of its own, or use messages"
                )
                self._ended(place, None, to_failure(WrongPlace(text)), None)
        self.kick()

    def _ended(self, place: Place, value: bytes | None, error: Failure | None, letter: int | None) -> None:
        """A spawned run has ended: all who wait for it are told."""
        self.ends[place] = value, error
        for call in self.joins.pop(place):
            if not call.done():
                self._close(call, Outcome(call, value, error, letter))
                letter = None
        if letter is not None:
            self._consume(letter)

    def _work(self, call: Call, request: Work) -> None:
        context = call.context or copy_context()
        context.run(enter_step, request.name)
        task = Task(self._carry_out(call, request), loop=self.loop, context=context)
        call.task = task
        self.local.add(task)
        task.add_done_callback(self.local.discard, context=tasks.NO_CONTEXT)
        if self.host.wants_events(self.id):
            self.host.publish(self.id, started_event(self.id, call))

    async def _carry_out(self, call: Call, request: Work) -> None:
        outcome = Outcome(call)
        try:
            outcome.value = await request.run()
        except asyncio.CancelledError as cancelled:
            if call.done() or self.leaving or self.over:
                raise
            outcome.error, outcome.cause = to_failure(cancelled), cancelled
        except Exception as error:
            again = request.again is not None and request.again(error)
            outcome.error, outcome.cause = to_failure(error, again=again), error
        except BaseException as error:  # none that code may handle, and so none to record
            if not self.leaving:
                self._abandon(error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return
        if call.task is not None:
            self.local.discard(call.task)
        if not call.done():
            self.done.append(outcome)
        self.kick()

    def dropped(self, call: Call) -> None:
        """The code gave a call up (a race was lost): its work is stopped and nothing is recorded of it."""
        self.open.pop(call.place, None)
        if call.task is not None:
            call.task.cancel()
        if self.leaving:
            return
        request = call.request
        if isinstance(request, Wait):
            if call.slot is not None:
                call.slot.enter()
            opened = call.entry.made if call.entry is not None else self.settled
            if (
                request.drops is not None and opened
            ):  # in a replay too: the life before may not have got to it
                request.drops(self.turn, *call.place)
            if call in self.receivers:
                self.receivers.remove(call)

    # ------------------------------------------------------------ outcomes from outside
    def _answer_waits(self) -> None:
        """Match letters and times with the calls that wait for them."""
        for letter in list(self.letters.values()):
            self._read(letter)
        if self.posts and self.wanting is not None and not self.wanting.done():
            self.open.pop(self.wanting.place)
            self.wanting.set_result(next(iter(self.posts.values())))
        elif self.unmatched and self.receivers:
            for letter in [letter for letter in self.posts.values() if letter.mail.kind == "tell"]:
                self._receive(letter)
        self.unmatched = False
        now = self.host.clock_now() if self.dues else 0.0
        while self.dues and (self.dues[0][0] <= now or self.dues[0][2].done()):
            call = heapq.heappop(self.dues)[2]
            request = call.request
            if not call.done() and isinstance(request, Wait) and call.place in self.open:
                late = request.late
                if isinstance(late, Failure):
                    self._close(call, Outcome(call, error=late))
                else:
                    self._close(call, Outcome(call, late))
                if request.drops is not None:
                    request.drops(self.turn, *call.place)

    def _read(self, letter: Letter) -> None:
        mail = letter.mail
        if mail.kind == "result" and mail.call is not None:
            place = (mail.call.path, mail.call.n)
            call = self.open.get(place)
            if place in self.joins and any(not call.done() for call in self.joins[place]):
                self._ended(place, mail.value, mail.error, letter.id)
            elif call is not None and not call.done() and self._is_for(mail, call):
                self._close(call, Outcome(call, mail.value, mail.error, letter.id))
            elif place in self.ends or (place not in self.spawned and not self._expects(place)):
                self._consume(letter.id)  # answered already, or given up
        elif mail.kind == "cancel":
            self._consume(letter.id)
            self._cancel()

    def _receive(self, letter: Letter) -> None:
        """Give a message to the first call that waits for one of its kind."""
        mail = letter.mail
        for call in self.receivers:
            request = call.request
            if isinstance(request, Wait) and mail.name in request.accepts and not call.done():
                self.receivers.remove(call)
                value = b'{"name":%s,"value":%s}' % (msgspec.json.encode(mail.name), mail.value or NOTHING)
                self._close(call, Outcome(call, value, None, letter.id))
                break

    def _file(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            mine = self.posts if letter.mail.kind in ("tell", "request") else self.letters
            mine[letter.id] = letter
            self.seen = letter.id
            if letter.mail.kind == "cancel":
                self._credit = 0  # look at it at the next call
        self.unmatched = True

    def _is_for(self, mail: Mail, call: Call) -> bool:
        """Whether an outcome is of this call, not of another one that stood there before a rebase."""
        request = call.request
        if not isinstance(request, Wait):  # a model call that went out in a batch, and would be live now
            return call.entry is not None and call.entry.made
        if self.pool is None or mail.call is None:
            return True
        same = mail.call.digest in (b"", request.digest) and request.sender in ("", mail.sender)
        return same or self.pool.was_open(*call.place, request.digest)

    def _expects(self, place: Place) -> bool:
        """Whether the code may come to a call there that was open before a rebase."""
        return self.pool is not None and self.pool.waits(*place)

    def _close(self, call: Call, outcome: Outcome) -> None:
        """A wait is over: its outcome goes into the next batch."""
        self.open.pop(call.place, None)
        if outcome.letter is not None:
            self._consume(outcome.letter)
        self.done.append(outcome)

    def _consume(self, letter: int) -> None:
        if self.posts.pop(letter, None) is None:
            del self.letters[letter]
        self.turn.consumed = [*self.turn.consumed, letter]

    def _cancel(self) -> None:
        """Cancellation is an entry like another, so that it strikes at the same place in a replay."""
        if CANCEL in self.made:
            return
        call = self._own_call(CANCEL)
        call.request = cancel_wait()
        self.made.add(CANCEL)
        call.add_done_callback(self._struck, context=tasks.NO_CONTEXT)
        self.done.append(Outcome(call, NOTHING))

    def _expect_cancel(self, entry: Entry) -> None:
        call = self._own_call(CANCEL)
        call.request = cancel_wait()
        call.entry = self.replay.made(*CANCEL, "cancel", "cancel", b"")
        self.made.add(CANCEL)
        self.open[CANCEL] = call
        call.add_done_callback(self._struck, context=tasks.NO_CONTEXT)

    def _struck(self, call: Future[Any]) -> None:
        if self.root is not None and not call.cancelled():
            self.root.cancel("the run was cancelled")

    # ------------------------------------------------------------ commits
    def _seal(self) -> None:
        """An actor's transition: its state is written and the journal before it is history."""
        assert self.sealing is not None  # `_turn` saw it
        checkpoint, call = self.sealing
        self.sealing = None
        self.entries.clear()
        self.done.clear()
        turn = self._take_turn([])
        turn.checkpoint = checkpoint
        self._write(turn, lambda: self._sealed(call))

    def _sealed(self, call: Call) -> None:
        self.replay = Replay([], self.host.clock_now())
        self.made.clear()
        self.open.clear()
        self.receivers.clear()
        self.dues.clear()
        if self.root is not None and isinstance(self.root, BranchTask) and self.root.branch is not None:
            self.root.branch.n, self.root.branch.kids = 0, None
        if not call.done():
            call.set_result(None)
        self.kick()

    def _commit(self) -> None:
        """Journal what was done since the last rest, then hand it over."""
        done, self.done = [outcome for outcome in self.done if not outcome.call.done()], []
        turn = self._take_turn(done)
        self._write(turn, lambda: self._committed(done))

    def _take_turn(self, done: list[Outcome]) -> Turn:
        """The turn so far, with a batch of outcomes."""
        turn, self.turn = self.turn, Turn(run=self.id, fence=self.fence)
        now = turn.now = self.host.clock_now()
        entries, self.entries = self.entries, []
        if done:
            at = max(outcome.at or now for outcome in done)
            number = self.replay.append(at)
            for outcome in done:
                decode(outcome)
                self._meter(outcome)
                entries.append(outcome_entry(outcome, number, at))
        if entries:
            blobs: list[tuple[bytes, bytes]] = []
            turn.entries = encode_entries([journal.store_large(entry, blobs) for entry in entries])
            turn.blobs = blobs
        if self._used:
            self._used = False
            turn.usage = list(self.usage.values())
        turn.seen = self.seen
        return turn

    def _write(self, turn: Turn, then: Callable[[], None]) -> None:
        self.committing = True
        try:
            future = self.host.commit(turn)
        except Exception as error:  # the store is gone
            self.committing = False
            self._abandon(error)
            return
        if future.done():
            self._written(turn, future, then)
        else:
            future.add_done_callback(lambda f: self._written(turn, f, then), context=tasks.NO_CONTEXT)

    def _written(self, turn: Turn, future: Future[list[CommitResult]], then: Callable[[], None]) -> None:
        self.committing = False
        error = None if future.cancelled() else future.exception()
        if error is not None or future.cancelled():
            self._abandon(error or asyncio.CancelledError())
        elif future.result()[0] == "fenced":
            log.warning("run %s was taken over by another worker; nothing is lost", self.id)
            self._abandon(None)
        else:
            if turn.release and future.result()[0] == "ready":
                self.status = "ready"  # mail came meanwhile
            if turn.asks:
                self.host.asked(turn.asks)
            then()

    def _committed(self, done: list[Outcome]) -> None:
        start, self.precommit = self.precommit, []
        for call in start:
            if not call.done() and not self.leaving and isinstance(call.request, Work):
                self._work(call, call.request)
        watched = bool(done) and self.host.wants_events(self.id)
        for outcome in done:
            self.open.pop(outcome.call.place, None)
            if watched:
                self.host.publish(self.id, recorded_event(self.id, outcome))
            deliver(outcome)
        self.kick()

    def _meter(self, outcome: Outcome) -> None:
        """Count the tokens of a model call."""
        request = outcome.call.request
        if isinstance(request, Act) or not request.model or outcome.raises is not None or outcome.paid:
            return
        tokens = outcome.result.tokens
        key = (request.model, "batch" if isinstance(request, Wait) else "live")
        self._used = True
        use = self.usage.get(key) or Usage(*key)
        self.usage[key] = Usage(
            *key,
            use.calls + 1,
            use.input_tokens + tokens.input,
            use.output_tokens + tokens.output,
            use.cached_tokens + tokens.cached,
        )

    # ------------------------------------------------------------ ends of a life
    def _idle(self) -> None:
        """Nothing is under way here: wait for a short timer, or park."""
        if not self.open and self.still.foreign_since is not None:
            return  # only a foreign wait is left, and nothing to park on
        if not self.open and tasks.next_timeout(self.loop, self.tasks) is not None:
            return  # a lock or queue that is waited for a while only
        if not self.open:
            self._hold(
                "every task of the run waits for another one and nothing outside can wake it: "
                "a lock, queue or future that nobody releases"
            )
            return
        if self.dues:
            left = self.dues[0][0] - self.host.clock_now()
            if left <= self.host.linger:
                if self.nap is not None:
                    self.nap.cancel()
                self.nap = self.host.call_later(max(left, 0.0), self._end_nap)
                return
        if self.still.foreign_since is not None:
            log.warning(
                "run %s parks although its code waits at %s, outside segue: that wait starts anew at the next "
                "wake. Make it a step, or use segue.sleep()",
                self.id,
                self.still.foreign_at,
            )
        self._leave("parked")

    def _leave(self, status: Status) -> None:
        """Unwind the code, then give the claim up."""
        wake = next((due for due, _, call in sorted(self.dues, key=_due) if not call.done()), None)
        done, self.done = [outcome for outcome in self.done if not outcome.call.done()], []
        self._unwind(lambda: self._release(done, status, wake))

    def _release(self, done: list[Outcome], status: Status, wake: float | None) -> None:
        for call in self.precommit:  # not started: forget that they were made
            self.entries = [entry for entry in self.entries if (entry.path, entry.n) != call.place]
        turn = self._take_turn(done)
        turn.status, turn.release, turn.wake = status, True, wake if status == "parked" else None
        self.status, self.due = status, turn.wake is not None
        self._write(turn, self._gone)

    def _unwind(self, then: Callable[[], None]) -> None:
        """Cancel all tasks, and go on when they are gone; some may need several rounds."""
        self.leaving = True
        for task in list(self.local):
            task.cancel()
        for task in list(self.tasks):
            if not task.done():
                task.cancel("the run leaves memory")
        if self._alive():
            self._unwinding = Task(self._unwound(then), loop=self.loop, context=tasks.NO_CONTEXT.copy())
        else:
            then()

    def _alive(self) -> list[Task[Any]]:
        """The tasks of the code, and those that carry out its calls, which haven't ended."""
        return [task for task in (*self.tasks, *self.local) if not task.done()]

    async def _unwound(self, then: Callable[[], None]) -> None:
        for attempt in range(ROUNDS):
            left = self._alive()
            if not left:
                break
            await asyncio.wait(left, timeout=0.005 * 2**attempt)
            for task in left:
                if attempt >= PATIENT or task not in self.at_work:  # a step may need a moment to clean up
                    task.cancel("the run leaves memory")
        left = self._alive()
        for task in left:
            tasks.let_go(task)
        if left:
            log.error(
                "run %s: a task refuses to be cancelled, at %s; let asyncio.CancelledError pass",
                self.id,
                tasks.where(left[0]),
            )
        then()

    def _end(self) -> None:
        """The code came to its end; its outcome is the run's."""
        root = self.root
        assert root is not None  # `_turn` saw it
        status: Status = "done"
        value: bytes | None = None
        failure: Failure | None = None
        if root.cancelled():
            status = "cancelled"
            failure = end_error(self.id, status, None)
        elif (error := root.exception()) is not None:
            if not isinstance(error, Exception):
                self._abandon(error)
                return
            status, failure = "failed", to_failure(error)
        else:
            value = root.result()
        self.status = status
        done, self.done = self.done, []
        self._unwind(lambda: self._finish(done, status, value, failure))

    def _finish(
        self, done: list[Outcome], status: Status, value: bytes | None, failure: Failure | None
    ) -> None:
        turn = self._take_turn([outcome for outcome in done if not outcome.call.done()])
        turn.status, turn.release, turn.value, turn.error = status, True, value, failure
        self._finish_with(turn)

    def _finish_with(self, turn: Turn) -> None:
        """Write the turn that ends or holds the run, and tell those who watch once it is durable."""
        self.status = turn.status
        self.head = msgspec.structs.replace(
            self.head,
            status=turn.status,
            reason=turn.reason,
            value=turn.value,
            error=turn.error,
            usage=list(self.usage.values()),
            updated=turn.now,
        )
        self._write(turn, self._finished)

    def _finished(self) -> None:
        if self.status == self.head.status and self.host.wants_events(self.id):
            head = self.head
            self.host.publish(
                self.id,
                Finished(
                    run=self.id, status=head.status, value=head.value, error=head.error, reason=head.reason
                ),
            )
        self._gone()

    def _mismatch(self, entry: Entry, request: Work | Wait | Act | None) -> None:
        recorded = f"{entry.kind} {entry.name!r}"
        if request is None:
            why = "The code came to rest without making this recorded call again."
            error = ReplayMismatch(self.id, entry.path, entry.n, recorded, "not made", why)
        else:
            asked = f"{request.kind} {request.name!r}"
            why = journal.difference(entry.args, request.args) if recorded == asked else "It is another call."
            error = ReplayMismatch(self.id, entry.path, entry.n, recorded, asked, why)
        self.differs(error)

    def differs(self, error: ReplayMismatch) -> None:
        """The code isn't what the journal tells of."""
        self._hold(f"{error.cause}\n{error}")

    def _hold(self, reason: str) -> None:
        """Stop here; a person decides how the run goes on. Nothing was paid or lost."""
        if self.leaving:
            return
        self.leaving = True  # nothing more is recorded from here on
        self.loop.call_soon(lambda: self._unwind(lambda: self._held(reason)), context=tasks.NO_CONTEXT)

    def _held(self, reason: str) -> None:
        turn = Turn(run=self.id, fence=self.fence, status="held", release=True, reason=reason, seen=self.seen)
        turn.now = self.host.clock_now()
        if any(letter.mail.kind == "cancel" for letter in self.letters.values()):
            turn.status, turn.reason = "cancelled", ""  # nobody wants to decide any more
            turn.error = Failure("segue.model.errors:RunCancelled", f"run {self.id!r} was cancelled")
        self._finish_with(turn)

    def _abandon(self, error: BaseException | None) -> None:
        """Let the run go without a word to the store: another worker has it, or the store failed."""
        self.error = error
        self._unwind(self._gone)

    error: BaseException | None = None

    def _gone(self) -> None:
        self.over = True
        self.still.close()
        if self.nap is not None:
            self.nap.cancel()
        if self.root is not None and self.root.done() and not self.root.cancelled():
            self.root.exception()  # taken: it is in the journal
        if not self.finished.done():
            self.finished.set_result(None)
        self.host.ended(self)


def _due(item: tuple[float, int, Call]) -> tuple[float, int]:
    return item[0], item[1]
