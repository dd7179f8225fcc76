"""One wake of a run: replay what the journal holds, act, and leave when everything waits.

The code of the run is a set of tasks, its branches. Whenever they are all at rest, `_turn` decides what is
next, in this order: hand over the next recorded batch; start what is new; commit what was done and hand it
over; end; park. What comes from outside is `mailbox`, what is written `commits`, how it ends `departure`.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any

import msgspec

from ...authoring.config import afresh
from ...authoring.context import Act, Branch, Parked, Reader, Services, Wait, Work
from ...core.homes import ELSEWHERE
from ...core.pool import Pooled
from ...core.replay import Differs, Place, Replay
from ...model.entry import INSTANT, Entry
from ...model.errors import InputMismatch, ReplayMismatch
from ...model.message import SENT_BITS, Letter
from ...model.mode import Config
from ...model.run import Status
from ...ports.clock import Timer
from ...ports.store import Claimed, Turn
from ..calls.budgets import Purse, need_of
from ..calls.call import (
    CANCEL,
    Behind,
    Call,
    Outcome,
    decode,
    deliver,
    drop_entry,
    instant_entry,
    made_entry,
    new_call,
    own_call,
    recorded_event,
)
from ..calls.carrying import Carrying
from ..calls.streaming import Streaming
from ..ground import tasks
from ..ground.events import Emitted, Event
from ..ground.phase import COMMITTING, LANDED, LEAVING, LIVE, OVER, REPLAYING
from . import departure
from .commits import Commits
from .handling import Handling
from .host import Host
from .inherited import Inherited
from .keeping import Keeping
from .mailbox import Mailbox
from .replaying import cut_off, mismatch, replay
from .stillness import Rest, Stillness
from .strikes import Strikes

log = logging.getLogger("segue")

#: So many calls in a row are carried out in the caller's task; then the loop gets a turn.
CREDIT = 64
#: So often code may call on although its run leaves memory; then its calls wait, so that others get the loop.
REFUSALS = 1000
#: Where the engine closes, it is looked so often, in seconds, whether calls that are waited for still cost something.
COMING = 0.2


class Executor:
    """One wake of one run."""

    shares = True  # turns of an actor may share a commit
    callers: tuple[str, ...] = ()  # who waits, in a chain, for the request in hand
    # What is asked for most isn't of the class: Python finds that faster.
    kicked: bool  # it will be looked at whether the run is at rest
    early: bool  # that look comes before what was handed over has its effects, such as a timeout that cancels
    stop_by: float | None  # the engine closes: give the claim up at the next rest, or then
    grace: tuple[float, bool] = (
        0.0,
        False,
    )  # until when calls may come in then; all, or only those that cost
    root: Task[Any] | None
    inherited: Inherited | None = None
    box: Mailbox | None
    seen: int
    handling: Handling | None  # of an actor
    streaming: Streaming | None = None  # of live answers that the code reads as they come
    purse: Purse | None = None  # of calls that are on a budget
    nap: Timer | None = None  # for a short wait that is over soon by the clock
    stay: tuple[int, float] | None = None  # batches handed over, and until when it waits for the next
    unwinding: Task[None] | None = None  # its tasks are being cancelled; then comes what is to be done
    afterwards: Callable[[], None]
    due = False  # it parked until some time
    crowded = False  # others need its place: it doesn't stay for what it waits for
    hurried = False  # a handler on a thread was asked to stop: how far it came then isn't recorded
    status: Status = "ready"
    error: BaseException | None = None
    _refused = 0
    sent = 0  # messages, of this claim
    timeouts: Strikes | None = None  # that the code entered, if any
    _gone: Future[None] | None = None
    cut_off: tuple[Call, ...] = ()  # at-most-once steps that an earlier life began
    claimed: Claimed | None = None  # of an actor whose turn is replayed: with what that began

    def __init__(
        self, host: Host, claimed: Claimed, entries: list[Entry], pool: Pooled | None, config: Config
    ) -> None:
        head = claimed.head
        self.kicked = self.early = False
        self.seen = 0
        self.stop_by = self.root = self.box = self.handling = None
        self.host, self.loop = host, host.loop
        self.id, self.fence, self.head = head.id, head.fence, head
        self.config = config
        self.replay = Replay(entries, head.spec.created)
        self.pool, self.rebased = pool, pool is not None
        if pool is not None:
            pool.spend(self.replay.calls.values())
            self.inherited = Inherited(self, pool)
        self.phase = REPLAYING if entries else LIVE
        self._mark = ""
        self.tasks: set[Task[Any]] = set()
        self.still = Stillness(self.loop, host.linger, self.kick)
        self.open: dict[Place, Call] = {}
        self.made: set[Place] = set()  # again, of what the journal holds
        self.held: list[Call] = []  # new ones, while there is history left
        self.carrying = Carrying(self)
        self.done: list[Outcome] = []  # not yet on their way
        self.landing: list[Outcome] = []  # on their way, or there and not yet handed over
        self.commits = Commits(self, head.usage)
        self._credit = self._most = CREDIT if pool is None and not host.park_always else 0
        if entries and head.spec.kind == "actor":
            self.claimed = claimed
        if claimed.inbox:
            self._file(claimed.inbox)
        if CANCEL in self.replay.calls:
            self.mailbox.expect_cancel()

    # ------------------------------------------------------------ what verbs see
    @property
    def seed(self) -> str:
        return self.head.spec.seed or self.mark

    @property
    def mark(self) -> str:
        self._mark = self._mark or self.head.mark
        return self._mark

    @property
    def services(self) -> Services:
        return self.host

    @property
    def supervisor(self) -> Any:
        return None if self.handling is None else self.handling.supervisor

    @property
    def letters(self) -> Keeping:
        return self.mailbox.keeping

    @property
    def handed(self) -> int:
        return self.replay.handed

    @property
    def after(self) -> int:
        """How many batches the code will have had, in a replay, when it does what it does now."""
        return self.replay.handed + (self.streaming is not None and self.streaming.call is not None)

    def offer(self, call: Future[Any], begins: Callable[[], None]) -> None:
        """Have the code read a live answer as it comes; see `RunContext`."""
        if isinstance(call, Call) and not self.leaving:
            self.streams.offer(call, begins)

    @property
    def streams(self) -> Streaming:
        """Answers that the code reads piece by piece; most code reads none so."""
        if self.streaming is None:
            self.streaming = Streaming(self)
        return self.streaming

    def reads(self, reader: Reader) -> None:
        """Give it the next piece at a rest; see `RunContext`."""
        if not self.leaving:
            self.streams.reads(reader)

    def own_wait(self) -> Future[Any]:
        """A wait that isn't recorded; see `RunContext`."""
        return own_call(self, ("!piece", 0))

    def unread(self, call: Future[Any]) -> None:
        """Its reader was cancelled; see `RunContext`."""
        if self.streaming is None or self.leaving or not self.streaming.moving:
            call.cancel()

    def now(self) -> float:
        return self.replay.time

    def emit(self, event: object, path: str = "") -> None:
        if self.phase is not REPLAYING and self.host.wants_events(self.id):
            if not isinstance(event, Event):
                event = Emitted(run=self.id, path=path, value=msgspec.to_builtins(event))
            if self.commits.ahead:
                self.commits.untold.append(event)
            else:
                self.host.publish(self.id, event)

    @property
    def revived(self) -> int:
        return 0 if self.pool is None else self.pool.revived

    def opening(
        self, path: str, n: int, kind: str, name: str, digest: bytes, args: bytes
    ) -> tuple[Place, bool]:
        known = self.replay.calls.get((path, n))
        if known is not None:
            return known.opening, known.digest == digest
        if self.pool is None:
            return (path, n), False
        known = self.pool.find(path, n, kind, name, digest, args)
        return ((path, n + self.revived * ELSEWHERE), False) if known is None else (known.opening, True)

    def next_number(self) -> int:
        self.sent += 1
        return self.fence << SENT_BITS | self.sent  # greater than any of an earlier life

    def record(self, branch: Branch, request: Work | Wait | Act, place: Place | None = None) -> Future[Any]:
        """Record a call of the code; see `RunContext`. `place`: where it stands, if that is settled."""
        if self.leaving or branch.over:
            return self._refuse()
        if place is None:
            place = (branch.path, branch.n)
            branch.n += 1
        call = new_call(self, place, request, branch.slot, self.after)
        self.open[place] = call
        if request.kind == "spawn":
            self.mailbox.will_end((isinstance(request, Act) and request.opened) or place)
        if call.slot is not None and isinstance(request, Wait):
            call.slot.leave()
        if self.replay.calls:
            self.made.add(place)
            try:
                call.entry = self.replay.made(*place, request.kind, request.name, request.digest)
            except Differs as differs:
                call.entry = differs.entry
                self.differs(mismatch(self.id, differs.entry, request))
                return call
        if isinstance(request, Work):
            call.context = copy_context()
        if call.entry is not None:
            if call.entry.made:
                self.pending(call, call.entry)
            elif call.entry.batch == INSTANT:
                self.answer_at_once(call, call.entry.value)
        elif self.phase is not REPLAYING or (
            # What is done by being committed doesn't wait for the next rest, or branches went on in another order;
            # nor does what is asked, or what is told after it came first.
            self.inherited is None and (type(request) is Act or request.kind == "request")
        ):
            self.start(call)
        else:
            self.held.append(call)
        self.kick()
        return call

    def _refuse(self) -> Future[Any]:
        """What a call gets that is too late; code that calls on and on is made to wait."""
        self._refused += 1
        if self._refused <= REFUSALS:
            raise Parked(
                f"run {self.id} is leaving memory, or the handler that this task was started in is done"
            )
        return self.loop.create_future()

    def perform(self, branch: Branch, work: Work) -> Awaitable[Any]:
        """Record work and wait for it; see `RunContext`."""
        if (
            self._credit > 0
            and self.phase is LIVE
            and not self.open
            and not self.done
            and len(self.tasks) == 1
            and work.effect != "at-most-once"
            and work.need is None
        ):
            self._credit -= 1
            return self.carrying.inline(branch, work)
        self._credit = self._most
        return self.record(branch, work.sealed())

    # ------------------------------------------------------------ a life
    @property
    def leaving(self) -> bool:
        """Whether the code is being unwound, or was."""
        return self.phase is LEAVING or self.phase is OVER

    @property
    def over(self) -> bool:
        """Whether it has left memory."""
        return self.phase is OVER

    @property
    def stirring(self) -> bool:
        """Whether something is about to happen here by itself."""
        return self.kicked or self.phase in (COMMITTING, LANDED, LEAVING)

    @property
    def strikes(self) -> Strikes:
        """asyncio's own timeouts; most code has none."""
        if self.timeouts is None:
            self.timeouts = Strikes(self)
        return self.timeouts

    @property
    def mailbox(self) -> Mailbox:
        """What reaches the run from outside; most runs of steps alone never have one."""
        if self.box is None:
            self.box = Mailbox(self)
        return self.box

    def begin(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Set the code going."""
        branch = Branch(self, "")
        self.root = tasks.start(self.loop, coro, branch, afresh(), name=f"segue {self.id}")
        self.root.outside = self._interrupted
        if self.handling is not None:  # a flow says itself that it has begun
            self.kick()

    def begin_here(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Set the code going, its first part here and now; if there is no other, that was the run."""
        begun = tasks.Begun(coro)
        self.root = tasks.start(self.loop, begun, Branch(self, ""), afresh(), name=f"segue {self.id}")
        self.root.outside = self._interrupted
        self.kicked = True  # it is looked at below
        begun.begin(self.loop, self.root)
        self.kicked = False
        self.kick()

    def returned(self, value: bytes) -> None:
        """The code returns that. Where it is all there is, the run ends with it, else once it is at rest."""
        root = self.root
        if (
            self.phase is LIVE
            and len(self.tasks) == 1
            and (self.streaming is None or self.streaming.is_over)
            and self.timeouts is None
            and root is not None
            and not root.cancelling()
        ):
            self.tasks.clear()  # there is nothing more to come of it
            self.phase = LEAVING
            departure.ended(self, "done", value)

    def adopt(self, task: Task[Any]) -> None:
        """Keep a task that the code started."""
        self.tasks.add(task)
        if self.phase is not OVER:
            self.still.came(task)
        if self.root is not None or self.handling is not None:  # a flow says itself when it has ended
            task.add_done_callback(self._task_done, context=tasks.NO_CONTEXT)
        if self.leaving:
            self.loop.call_soon(task.cancel)

    def mail(self, letters: Sequence[Letter]) -> None:
        """Take letters that came while the run is in memory; while it leaves, its last commit must not count them."""
        if self.phase is LEAVING or self.phase is OVER:
            return
        if letters and letters[0].id <= self.seen:
            letters = [letter for letter in letters if letter.id > self.seen]
        if letters:
            self._file(letters)
        if self.handling is None or not self.handling.serve_at_once():
            self.kick()

    def _file(self, letters: Sequence[Letter]) -> None:
        self.seen = letters[-1].id
        if (self.box or self.mailbox).file(letters):
            self._credit = 0  # look at it at the next call

    def kick(self) -> None:
        """Look soon whether the run is at rest."""
        if not self.kicked and self.phase is not OVER and self.phase is not LEAVING:
            self.kicked = True
            self.still.stirred()
            self.loop.call_soon(self.pump, context=tasks.NO_CONTEXT)

    def pump_soon(self) -> None:
        """As `kick`, by code that goes on from a call that was alone: many runs do in one turn of the loop."""
        if not self.kicked and self.phase is not OVER:
            self.kicked = True
            self.still.stirred()
            self.host.pump_soon(self)

    def stop(self, grace: float = 0.0, *, every: bool = False) -> None:
        """Give the claim up at the next chance: what was done is committed, and nothing begins any more.

        What is under way has so many seconds to come in: `every` call, or those that are `dear`.
        """
        now = self.loop.time()
        self.stop_by, self.grace = now + self.host.linger, (now + grace, every)
        self._credit = self._most = 0
        self.kick()

    def comes_in(self) -> bool:
        """Whether a call is under way that is waited for, though the engine closes; it is looked again in time."""
        until, every = self.grace
        left = until - self.loop.time()
        if left <= 0 or not (self.carrying.at_work if every else self.carrying.dear()):
            return False
        # They may cost nothing any more before that, as between two attempts.
        self.still.kick_in(min(left, COMING))
        return True

    def _only_waits(self) -> bool:
        """Whether nothing would go on here by itself: then it leaves as one that parks does, and isn't woken for it."""
        box = self.box
        if self.done or self.commits.entries or self.carrying.at_work or self.carrying.precommit:
            return False
        if self.streaming is not None or self.inherited is not None or self.purse is not None:
            return False
        if self.still.foreign_since is not None:
            return False
        if not self.open or any(isinstance(call.request, Work) for call in self.open.values()):
            return False  # what should have begun doesn't where the engine closes
        return box is None or not (box.posts or box.urgent)

    def _interrupted(self) -> None:
        """Its task is cancelled by whoever ends the loop, and waits for it: the run goes on with the next process."""
        if not self.leaving:
            self.leave("ready", awaited=True)

    async def has_left(self) -> None:
        """Wait until it has left memory."""
        if self.phase is not OVER:
            if self._gone is None:
                self._gone = self.loop.create_future()
            await asyncio.shield(self._gone)

    def _task_done(self, task: Task[Any]) -> None:
        self.tasks.discard(task)
        if self.phase is not OVER:
            self.still.went(task)
            self.kick()

    def pump(self) -> None:
        """Look whether the run is at rest, and if it is, do what is next."""
        self.kicked = False
        if self.phase is COMMITTING or self.leaving:
            return
        if self.early:
            self.early = False
            self.kick()
            return
        rest = self.still.look()
        if self.commits.ahead and self._holds_up(rest):
            self.commits.catch_up(self._caught_up)
        elif rest == "busy":
            if self.stop_by is not None and self.loop.time() > self.stop_by and not self.comes_in():
                self.leave("ready")  # it never rests
            else:
                self.kick()
        elif rest == "calming":
            self.kicked = True
            self.loop.call_soon(self.pump, context=tasks.NO_CONTEXT)
        elif self._moves_on():
            pass
        elif rest == "rest" or self.still.lingered():
            self._turn()

    def _moves_on(self) -> bool:
        """Whether the code has the next piece of an answer, or a timeout strikes, now that no task moves."""
        if self.streaming is not None:
            if self.phase is REPLAYING and self.timeouts is not None and self.timeouts.strike_between():
                return True
            if self.streaming.give():
                return True
        return self.timeouts is not None and self.timeouts.strike_next()

    def _holds_up(self, rest: Rest) -> bool:
        """Whether what the code went ahead of is to be written without a rest, for a foreign wait may be long."""
        return rest == "foreign" or (rest != "rest" and bool(self.carrying.precommit or self.commits.untold))

    # ------------------------------------------------------------ at rest
    def _turn(self) -> None:
        """What a run at rest does next."""
        carrying = self.carrying
        if self.phase is LANDED:
            self._hand_over()
        elif self.phase is REPLAYING:
            replay(self)
        elif self.streaming is not None and self.streaming.call is not None:
            self.streaming.go_on(self.streaming.call)
        elif self.root is not None and self.root.done():
            self.end()
        elif self.handling is not None and self.handling.serve_at_once():
            pass
        else:
            if self.box is not None:
                self.box.answer_waits()
            if self.handling is not None and self.handling.sealing is not None:
                self.handling.write()
            elif self.stop_by is not None:
                if not self.comes_in():
                    self.leave("parked" if self._only_waits() else "ready")
            elif self.handling is not None and self.handling.was_served():
                self.kick()
            elif self.inherited is not None and not self.done and (taken := self.inherited.next_batch()):
                self.done = taken
                self._commit()
            elif self.done or carrying.precommit or self.commits.entries:
                if self.host.park_always and not carrying.local and not carrying.precommit:
                    self.leave("ready")
                else:
                    self._commit()
            elif self.streaming is not None and self.streaming.begin_next():
                pass
            elif carrying.local or self.still.busy_by_itself is not None:
                self._beside()
            else:
                self.idle()

    def _beside(self) -> None:
        """A call is under way: what was answered or told before doesn't wait for it, nor does the next time."""
        if self.handling is not None and self.handling.unwritten:
            self.handling.flush()
            return
        if self.commits.owes:
            self._commit()
            return
        due = None if self.box is None else self.box.next_due
        if due is not None:
            if self.nap is not None:
                self.nap.cancel()
            self.nap = self.host.call_later(max(due - self.host.clock_now(), 0.0), self.end_nap)

    # ------------------------------------------------------------ calls begin
    def start(self, call: Call) -> None:
        """Begin a call that no journal knows."""
        if self.inherited is not None and self.inherited.serve(call):
            return
        need = need_of(call)
        if need is None:
            self.begin_call(call)
            return
        if self.purse is None:
            self.purse = Purse(self)
        self.purse.want(call, need)

    def begin_call(self, call: Call) -> None:
        """Begin it; what its budgets must have room for is reserved."""
        request = call.request
        if isinstance(request, Act):
            request.writes(self.commits.turn, *call.place)
            self.commits.entries.append(instant_entry(call, request))
            self.answer_at_once(call, request.value)
        elif isinstance(request, Wait):
            self.commits.entries.append(made_entry(call, request, request.due))
            if request.opens is not None:
                request.opens(self.commits.turn)
            self.mailbox.wait_for(call, request, request.due)
        elif request.effect == "at-most-once":
            self.commits.entries.append(made_entry(call, request, 0.0))
            self.carrying.precommit.append(call)
        elif self.commits.ahead:
            self.carrying.precommit.append(call)
        else:
            self.carrying.begin(call, request)

    def answer_at_once(self, call: Call, value: bytes | None) -> None:
        """Of a call that is done by being committed, which comes with the next turn."""
        self.open.pop(call.place, None)
        deliver(decode(Outcome(call, value)))

    def pending(self, call: Call, entry: Entry) -> None:
        """A call that was journaled when made, in an earlier life, and has no outcome yet.

        A model call that went out in a batch, and would be live now, still gets its outcome as mail.
        """
        request = call.request
        if isinstance(request, Wait):
            self.mailbox.wait_for(call, request, entry.due)
        elif isinstance(request, Work) and request.effect == "at-most-once":
            self.cut_off = (*self.cut_off, call)
        else:
            self.mailbox.knows_as(call, entry.opening)

    def hold_if_cut_off(self) -> bool:
        """Hold the run if its code, with all replayed, waits for an at-most-once step of an earlier life; whether so.

        One that the code gave up again, as of a race that it lost, is nobody's concern. Nor may it be any longer once
        the code has heard that its run is cancelled: that comes first.
        """
        if self.box is not None and self.box.cancelled and CANCEL not in self.made:
            return False
        name = next((call.request.name for call in self.cut_off if not call.done()), None)
        if name is not None:
            self.hold(cut_off(self.id, name))
        return name is not None

    def dropped(self, call: Call) -> None:
        """The code gave a call up (a race was lost): its work is stopped. If its outcome is there, it is kept."""
        self.open.pop(call.place, None)
        if call.task is not None:
            call.task.cancel()
        if self.streaming is not None:
            self.streaming.dropped(call)
        if self.purse is not None:
            self.purse.dropped(call)
        if self.leaving:
            return
        call.given_up = self.after
        if self.phase is REPLAYING:
            self.replay.gave_up(call.place)
        elif (
            lost := next((one for one in (*self.landing, *self.done) if one.call is call), None)
        ) is not None:
            if any(one is lost for one in self.landing):
                self.commits.entries.append(drop_entry(call))
            if lost.letter is not None:
                self.mailbox.give_back(lost)
        request = call.request
        if isinstance(request, Wait):
            if call.slot is not None:
                call.slot.enter()
            opened = call.entry.made if call.entry is not None else self.phase is not REPLAYING
            if (
                request.drops is not None and opened
            ):  # in a replay too: the life before may not have got to it
                request.drops(self.commits.turn)
            if self.box is not None:
                self.box.drop(call)

    # ------------------------------------------------------------ commits
    def commit_soon(self) -> None:
        """Commit what a call that is alone gave, now if nothing is on its way."""
        if self.phase is LIVE:
            self._commit()

    def forget_entries(self) -> None:
        """An actor's turn is over: what it made since its last commit needn't be written."""
        self.commits.entries.clear()

    def _commit(self) -> None:
        """Journal what was done since the last rest, then hand it over."""
        done, self.done = self.done, []
        if self.streaming is not None:
            done = self.streaming.first(done)
        self.landing = done
        turn = self.commits.take(done)
        self.phase = COMMITTING
        self.write(turn, self.committed)

    def write(self, turn: Turn, then: Callable[[], None]) -> None:
        """Send a turn to the store."""
        self.commits.write(turn, then)

    def committed(self) -> None:
        """What was sent is durable."""
        if self.leaving:
            return
        self.carrying.begin_precommitted()
        self.phase = LANDED
        if self.commits.waited and self.still.is_busy():
            self.kick()  # something outside moved the code meanwhile, a timer perhaps: it comes to rest first
        else:
            self._hand_over()

    def catch_up(self) -> Behind:
        """Have the outcome written of which the code has gone ahead, and wait for that."""
        behind = self.carrying.behind = Behind.on(self.loop)
        self.commits.catch_up(self._caught_up)
        return behind

    def _caught_up(self) -> None:
        """It is durable: the code that waits for it goes on, unless something outside has moved it."""
        if self.phase is LEAVING or self.phase is OVER:
            return
        self.phase = LIVE
        carrying = self.carrying
        behind, carrying.behind = carrying.behind, None
        if carrying.precommit:
            carrying.begin_precommitted()
        if self.purse is not None:
            self.purse.landed()
        waits = behind is not None and not behind.done()
        more = self.done or self.box is not None or self.timeouts is not None or self.stop_by is not None
        if more or not waits:
            self.kick()  # what came meanwhile wasn't looked at
        if behind is not None and waits:
            behind.caught_up()

    def _hand_over(self) -> None:
        """The journal holds them: the code gets them."""
        self.phase = LIVE
        landed, self.landing = self.landing, []
        watched = bool(landed) and bool(self.host.watchers) and self.host.wants_events(self.id)
        if self.commits.batch_at is not None:
            self.replay.hand_over(self.commits.batch_at)
        if len(landed) > 1:
            self._credit = 0  # what struck with the code's outcome begins before the code's next call
        if self.streaming is not None:
            self.streaming.handed_over(landed)
        for outcome in landed:
            self.open.pop(outcome.call.place, None)
            if watched:
                self.host.publish(self.id, recorded_event(self.id, outcome))
            deliver(outcome)
        if self.purse is not None:
            self.purse.landed()
        self.early = self.kicked
        self.kick()

    # ------------------------------------------------------------ ends of a life
    def idle(self) -> None:
        """Nothing is under way here."""
        departure.idle(self)

    def end_nap(self) -> None:
        """A short wait is over."""
        if self.nap is not None:
            self.nap.cancel()
            self.nap = None
            self.kick()

    def make_room(self) -> None:
        """Leave memory rather than wait here."""
        self.crowded = True
        self.end_nap()

    def leave(self, status: Status, *, awaited: bool = False) -> None:
        """Unwind the code, then give the claim up. `awaited`: somebody waits for its task to end as tasks do."""
        if self.streaming is not None:
            self.streaming.forget()
        if self.phase is REPLAYING and (self.handling is None or not self.handling.unwritten):
            self.commits.forget()  # it will be made again, if the code is still the one recorded
            self.done.clear()
        self.phase = LEAVING
        departure.leave(self, status, awaited=awaited)

    def end(self) -> None:
        """The code came to its end; its outcome is the run's. From here on, nothing more is recorded."""
        assert self.root is not None  # `_turn` saw it
        self.phase = LEAVING
        departure.end(self, self.root)

    def differs(self, error: ReplayMismatch | InputMismatch) -> None:
        """The code isn't what the journal tells of."""
        self.hold(f"{error.cause}\n{error}")

    def hold(self, reason: str) -> None:
        """Stop here; a person decides how the run goes on. Nothing was paid or lost."""
        if not self.leaving:
            replaying = self.phase is REPLAYING
            self.phase = LEAVING
            departure.hold(self, reason, replaying=replaying)

    def taken_over(self) -> None:
        """Another claim of it counts, so what is done here no longer does."""
        log.warning("run %s was taken over by another worker; nothing is lost", self.id)
        self.abandon(None)

    def abandon(self, error: BaseException | None) -> None:
        """Let the run go without a word to the store: another worker has it, or the store failed."""
        self.error, self.status = error, "ready"  # whatever it came to isn't written
        self.phase = LEAVING
        departure.abandon(self)

    def is_gone(self) -> None:
        """The departure's word that nothing is left."""
        self.phase = OVER
        self.still.close()
        if self.nap is not None:
            self.nap.cancel()
        if self.root is not None and self.root.done() and not self.root.cancelled():
            self.root.exception()  # taken: it is in the journal
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        self.host.ended(self)
        if not self.tasks or all(task.done() for task in self.tasks):
            self.fall_apart()

    @property
    def is_bare(self) -> bool:
        """Of one that is alone: whether nothing is kept here that another wake wouldn't have."""
        return (
            self.commits.is_bare
            and (self.box is None or self.box.is_bare)
            and self.purse is None
            and self.status == "ready"
            and not self.leaving
        )

    def vanish(self) -> None:
        """Nothing of it is left, and its claim is somebody else's. Its code was closed."""
        self.phase = OVER
        self.still.close()
        if self.nap is not None:
            self.nap.cancel()
        self.fall_apart()

    def fall_apart(self) -> None:
        """Nothing of it is to wait for the garbage collector: most of what that had to do was runs that are over."""
        self.root = self.unwinding = None
        if self.box is not None:
            self.box.part()
            self.box = None
        self.tasks.clear()
        self.open.clear()
        if self.handling is not None:
            self.handling.part()
            self.handling = None
        del self.still, self.carrying, self.commits
