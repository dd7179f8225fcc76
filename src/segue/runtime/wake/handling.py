"""An actor's wake: what its code needs besides the calls that it records.

Messages share commits: after each, `save` says what a checkpoint would hold, and the next commit writes it, with
what the next handler has recorded by then.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, TimerHandle
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...authoring.context import Act, BranchTask, Wait, current
from ...authoring.message import Responder
from ...core.replay import Replay
from ...model.entry import INSTANT, LEFT, LEFT_AT, Entry, Failure
from ...model.message import CAUGHT_UP, SENT_BITS, DeadLetter, Letter, Mail, answer_to
from ...ports.store import Claimed, Turn, adding
from ..calls.call import CANCEL, Call, new_call, own_call, raw
from ..ground import tasks
from ..ground.phase import COMMITTING, LIVE, REPLAYING
from .away import Away
from .departure import LARGE
from .mailbox import HAND, MAIL, Mailbox
from .urgent import Urgent

if TYPE_CHECKING:
    from ...authoring.actor.life import Serving, Stays
    from ...authoring.actor.quick import Odd
    from ...authoring.actor.supervisor import Supervisor
    from .executor import Executor

#: So long an actor stays in memory for its next message, in seconds: to wake costs ten times as much as to handle one.
REST: Final = 0.05
#: After so long without one, in seconds, it rests as what it is, without a task.
CALM: Final = 0.025
_read_id = msgspec.json.Decoder(int).decode


class Handling:
    """The life of an actor in memory; see `authoring.actor.life.Life`."""

    __slots__ = (
        "_begun",
        "_clean",
        "_ends",
        "_newest",
        "_rest",
        "_rests_until",
        "_run",
        "_serving",
        "_stays",
        "_urgent_only",
        "_wanting",
        "at_rest",
        "away",
        "followed",
        "id",
        "saved",
        "saves",
        "sealing",
        "shares",
        "supervisor",
        "urgent",
        "weight",
    )

    def __init__(self, run: Executor, claimed: Claimed) -> None:
        self._run, self.id = run, run.id
        self.followed = run.host.followed
        deltas = claimed.deltas
        #: Bytes that a wake reads, roughly, and those of the newest delta.
        self.weight = len(claimed.checkpoint or b"") + sum(map(len, deltas))
        self._newest = len(deltas[-1]) if deltas else 0
        self.saves = 0  #: checkpoints of this wake
        self.shares = run.shares  #: whether messages may share a commit
        self.urgent, self.away = Urgent(run), Away(run)
        self.supervisor: Supervisor
        self.sealing: Call | None = None  #: who waits for a commit
        self.saved: Callable[[Turn], None] | None = None  # writes a checkpoint into the next commit
        self._clean = True  # nothing of what is recorded belongs to the time before it
        self._wanting: Call | None = None  # the next message
        self.at_rest = False  #: it was alone when it was last looked at, and since then nothing has come
        self._urgent_only = self._ends = False
        self._serving: Serving
        self._stays: Stays
        # What was begun by whoever brought a message, and what it waits on.
        self._begun: tuple[Coroutine[Any, Any, Any], Any] | None = None
        self._rest: TimerHandle | None = None  # it waits for its next message in memory, for a moment
        self._rests_until = 0.0

    # ------------------------------------------------------------ what the actor's code asks for
    @property
    def callers(self) -> tuple[str, ...]:
        return self._run.callers

    @callers.setter
    def callers(self, callers: tuple[str, ...]) -> None:
        self._run.callers = callers

    @property
    def leaving(self) -> bool:
        return self._run.leaving

    def now(self) -> float:
        return self._run.replay.time

    def set_time(self, at: float) -> None:
        self._run.replay.time = at

    def clock(self) -> float:
        return self._run.host.clock_now()

    def target(self, name: str, module: str = "") -> Any:
        return self._run.host.target(name, module)

    def hold(self, reason: str) -> Future[Any]:
        self._run.hold(reason)
        return self.own_wait()

    def own_wait(self) -> Future[Any]:
        return own_call(self._run, ("!wait", 0))

    def take(self, *, urgent: bool = False, ends: bool = False, again: int = 0) -> Letter | None:
        """The next message that is there, if any, an urgent one first, or only such. It stays in the inbox."""
        run = self._run
        box = run.box
        if box is None or run.stop_by is not None:
            return None
        letter: Letter | None
        if run.phase is REPLAYING:
            letter = self._in_hand(urgent)
        elif urgent or box.urgent or box.timers is not None:
            letter = self._take_out_of_turn(box, urgent, ends, again)
        elif box.posts:
            letter = next(iter(box.posts.values()))
            if letter.mail.name == CAUGHT_UP or letter.mail.kind == "event":
                letter = box.first()
        else:
            return None
        if letter is not None:
            box.hand = letter.id
        return letter

    def _take_out_of_turn(self, box: Mailbox, urgent: bool, ends: bool, again: int) -> Letter | None:
        """The next one, and a word in the journal that says which it was, if that isn't plain."""
        letter: Letter | None
        if box.urgent:
            letter = next(iter(box.urgent.values()))
        elif urgent:
            letter = box.asked_to_end() if ends else None
        else:
            letter = box.posts.get(again) or box.first()
        if letter is not None and (urgent or box.urgent or again or box.is_out_of_turn(letter)):
            value = msgspec.json.encode(letter.id)
            self._run.commits.entries.append(Entry(*HAND, "hand", "", b"", b"", 0, INSTANT, value))
        return letter

    @property
    def has_mail(self) -> bool:
        """Whether there is a message to be taken."""
        box = self._run.mailbox
        return self._run.stop_by is None and (bool(box.urgent) or box.first() is not None)

    def _in_hand(self, urgent: bool) -> Letter | None:
        """What the recorded life took."""
        run = self._run
        entry = run.replay.calls.get(HAND)
        if entry is None:
            return None if urgent else run.mailbox.first()
        if HAND not in run.made:
            run.made.add(HAND)
            run.replay.made(*HAND, "hand", "", b"")
        return run.mailbox.letter(_read_id(entry.value or b"0"))

    def next_mail(self, *, ends: bool = False, due: float) -> Future[Letter | None]:
        """The next urgent message, when there is one; None when it is `due`. What was done is committed before."""
        run = self._run
        wanting = new_call(run, MAIL, _NEXT, None, 0)
        letter = self.take(urgent=True, ends=ends)
        if letter is not None or (due and run.phase is REPLAYING and HAND not in run.made):
            wanting.set_result(letter)  # that time was over in the recorded life
            return wanting
        self._ends = ends
        if due:
            run.mailbox.strike_at(due, wanting)
        self._want(wanting, urgent=True)
        return wanting

    async def attend(self, serving: Serving, stays: Stays) -> bool | None:
        """Wait until there are messages, or until what whoever brought one has begun is over: what that gave."""
        wanting = new_call(self._run, MAIL, _NEXT, None, 0)
        self._serving, self._stays = serving, stays
        self._want(wanting, urgent=False)
        try:
            await wanting
        except BaseException as error:
            if self._begun is None:
                raise
            thrown: BaseException | None = error
        else:
            thrown = None
        if self._begun is None:
            return None
        (coro, waits), self._begun = self._begun, None
        listens: bool = await tasks.going_on(coro, waits, thrown)
        return listens

    def _want(self, wanting: Call, *, urgent: bool) -> None:
        run = self._run
        self._wanting, self._urgent_only = wanting, urgent
        run.open[MAIL] = wanting
        if self.saved is not None and self._may_rest():
            self.at_rest = self.shares and not urgent
            self._commit_and_rest()
        else:
            run.kick()

    def _may_rest(self) -> bool:
        host = self._run.host
        return host.is_roomy and not host.park_always and self._is_alone()

    def _act(self, root: BranchTask, wanting: Call, coro: Coroutine[Any, Any, bool]) -> None:
        """Carry out what needs more, in the actor's name. Where that waits, or listens no more, its task goes on."""
        try:
            waits = tasks.act_for(self._run.loop, root, coro.send, None)
        except StopIteration as served:
            if served.value and not wanting.done():
                self._want(wanting, urgent=False)
                return
        except BaseException as error:  # the task's own
            if wanting.done():
                raise
            wanting.set_exception(error)
        else:
            self._begun = coro, waits
        if not wanting.done():
            wanting.set_result(None)

    def takes(self, letter: Letter, path: str, *, keeps: bool) -> tuple[Responder[Any], ...]:
        """A handler begins with a request, its calls at that path; its `Responder`, if it `keeps` one."""
        run, mail = self._run, letter.mail
        if self.followed and mail.reply is not None and mail.reply.path in self.followed:
            self.followed[mail.reply.path](path)
        if not keeps:
            return ()
        run.letters.may_keep(letter.id)
        return (Responder.of(run.id, letter.id, mail),)

    def bury(self, mail: Mail, reason: str, error: Failure | None) -> None:
        """Have the next commit list mail as a dead letter."""
        turn = self._run.commits.turn
        turn.dead = adding(turn.dead, DeadLetter(_by_itself(mail), reason, error))

    def answer_to(self, mail: Mail, value: bytes | None, error: Failure | None) -> Mail | None:
        """What answers a request."""
        run = self._run
        run.sent += 1  # as `next_number`
        return answer_to(mail, run.id, run.fence << SENT_BITS | run.sent, value, error, run.replay.time)

    def close_letter(self, letter: Letter, reply: Mail | None) -> None:
        """Have the next commit consume a message and send its answer."""
        box = self._run.mailbox
        if reply is None or (letter.mail.forwarded and box.keeping.has_answered(letter.id)):
            box.consume(letter.id)
            return
        self._run.commits.send(reply)
        if letter.mail.kind != "subscribe" or reply.error is not None:
            box.take_out(letter.id)
        else:
            box.consume(letter.id)

    def refuse(self, letters: Iterable[int], error: Failure) -> None:
        """Have the next commit answer those of these requests that are kept, and not answered."""
        box = self._run.mailbox
        for id in sorted(letters):
            letter = box.keeping.kept(id)
            reply = None if letter is None else self.answer_to(letter.mail, None, error)
            if reply is not None:
                self._run.commits.send(reply)
                box.take_out(id)

    def going_on(self, work: Coroutine[Any, Any, Any], waits: Any) -> Awaitable[Any]:
        """A handler that was begun and waits on that: to be awaited by the actor's own code."""
        return tasks.going_on(work, waits)

    def reply_beside(self, mail: Mail, value: bytes | None, error: Failure | None) -> Awaitable[None]:
        """Answer a message that is carried out beside a handler: a recorded call."""
        branch, run = current("reply"), self._run

        def writes(*_: Any) -> None:
            reply = answer_to(mail, run.id, run.next_number(), value, error, run.now())
            assert reply is not None  # it was asked for
            run.commits.send(reply)
            if error is not None:
                run.letters.unsubscribe(mail.key)

        act = Act(
            kind="reply",
            name=mail.name,
            args=b"null",
            digest=b"",
            decode=_nothing,
            writes=writes,
        )
        return branch.run.record(branch, act)

    def bury_beside(self, mail: Mail, reason: str, error: Failure) -> Awaitable[None]:
        """List a message that was carried out beside a handler as a dead letter: a recorded call."""

        def writes(turn: Turn, *_: Any) -> None:
            turn.dead = adding(turn.dead, DeadLetter(_by_itself(mail), reason, error))

        act = Act(kind="dead", name=mail.name, args=b"null", digest=b"", decode=_nothing, writes=writes)
        return self._run.record(current("a dead letter"), act)

    def save(self, checkpoint: Callable[[Turn], None], quiet: bool = False, /) -> bool:
        """Have the next commit write a checkpoint: what was recorded so far is history. `quiet`: nothing was.

        False where something of the handler is left, so that `seal` must follow.
        """
        run = self._run
        self.saved = checkpoint
        if (
            quiet
            and self._clean
            and run.phase is LIVE
            and not (run.open or run.done or run.made or self.urgent.count or run.commits.entries)
            and len(run.tasks) == 1
        ):
            return self.shares
        if run.phase is REPLAYING and run.replay.used_up and not run.held:
            run.phase = LIVE
        self._clean = (
            run.phase is not REPLAYING
            and not run.open
            and not run.done
            and not run.landing
            and len(run.tasks) == 1
            and not (run.phase is not LIVE and run.commits.batch_at is not None)
        )
        if self._clean:
            self._forget()
        return self._clean and self.shares

    def leaves(self, left: Callable[[], bytes | None]) -> None:
        if self.saved is None:  # else that is written with the end
            value = left()
            if value is not None:
                self._run.commits.entries.append(Entry(*LEFT_AT, LEFT, "", b"", b"", 0, INSTANT, value))

    def seal(self) -> Future[None]:
        """Commit. Tasks that the handler left behind don't outlive it: what they would call belongs to no turn."""
        run = self._run
        call = self.sealing = own_call(run, ("!seal", 0))
        task = asyncio.current_task()
        for other in run.tasks:
            if other is not task:
                if isinstance(other, BranchTask) and other.branch is not None:
                    other.branch.over = True
                other.cancel("the handler that started it is done")
        run.kick()
        return call

    # ------------------------------------------------------------ commits
    def put_saved(self, turn: Turn) -> None:
        """Have the turn that is being taken write the checkpoint, if there is one."""
        saved, self.saved = self.saved, None
        if saved is None:
            return
        if not self._clean:
            self._run.forget_entries()
        saved(turn)
        self._weigh(turn)

    def _weigh(self, turn: Turn) -> None:
        self.saves += 1
        if turn.checkpoint is not None:
            self.weight, self._newest = len(turn.checkpoint), 0
        elif turn.delta is not None:
            if turn.replaces <= 1:  # several that became one weigh what they did
                self.weight += len(turn.delta) - self._newest * turn.replaces
            self._newest = len(turn.delta)

    @property
    def unclean(self) -> bool:
        """Whether outcomes that are there are those of a handler that is done."""
        return self.saved is not None and not self._clean

    def write(self) -> None:
        """Commit for whoever waits for it."""
        run = self._run
        self._lose_done()
        turn = run.commits.take(())
        run.phase = COMMITTING
        run.write(turn, self._sealed)

    @property
    def unwritten(self) -> bool:
        """Whether a checkpoint waits for the next commit."""
        return self.saved is not None

    def flush(self) -> None:
        """Commit what was done, while the actor waits."""
        run = self._run
        turn = run.commits.take(())
        run.phase = COMMITTING
        run.write(turn, self._flushed)

    def _flushed(self) -> None:
        run = self._run
        if run.phase is not COMMITTING:  # it leaves
            return
        run.phase = LIVE
        commits, box = run.commits, run.box
        more = box is not None and bool(box.posts)
        if not (more or commits.waited or self._rest is None):  # no time was there for anything else
            return
        if commits.waited and self.serve_at_once():  # else this may be its own task's
            return
        if more or commits.owes or self._rest is None or not self._is_alone():
            run.kick()

    # ------------------------------------------------------------ between messages
    def _is_alone(self) -> bool:
        """Whether the actor waits, or is about to, for its next message and nothing else is to be looked at."""
        return self._wanting is not None and not self._wanting.done() and self._has_only_messages(1)

    def _has_only_messages(self, calls: int) -> bool:
        """Whether there is nothing to be looked at but messages; `calls`: so many are open."""
        run, box = self._run, self._run.box
        return (
            run.phase is LIVE
            and self._clean
            and len(run.tasks) == 1
            and len(run.open) == calls
            and not (run.done or run.commits.entries or run.carrying.local or run.carrying.precommit)
            and run.stop_by is None
            and (run.streaming is None or run.streaming.is_over)
            and run.inherited is None
            and (box is None or box.is_plain)
        )

    def serve_at_once(self) -> bool:
        """Carry out the messages that are there, if it waits for one and nothing else has to be looked at first."""
        run, wanting, box = self._run, self._wanting, self._run.box
        if wanting is None or self._urgent_only or box is None or not box.posts:
            return False
        at_rest, self.at_rest = self.at_rest, False
        at_rest = at_rest and run.phase is LIVE and run.stop_by is None and not wanting.done()
        if not (at_rest or self._is_alone()):
            return False
        root: Any = run.root  # there is one: it waits for its mail
        serving, self._wanting = self._serving, None
        del run.open[MAIL]
        if self.shares and box.timers is None:
            odd = tasks.act_for(run.loop, root, serving.carry_out, box.posts, run.commits.turn)
            if odd is None:
                if not wanting.done():
                    self._have_carried_out(wanting, at_rest=at_rest)
                return True
            box.hand = next(iter(box.posts), 0)
        else:
            odd = None
        self._act(root, wanting, serving.serve(odd))
        return True

    def carry_out(self, serving: Serving) -> Odd | None:
        """Messages that are there, if nothing else is to be looked at; by the actor's own code."""
        run, box = self._run, self._run.box
        if (
            box is None
            or not box.posts
            or box.timers is not None
            or not (self.shares and self._has_only_messages(0))
        ):
            return None
        odd = serving.carry_out(box.posts, run.commits.turn)
        if odd is not None:
            box.hand = next(iter(box.posts))
        return odd

    def _have_carried_out(self, wanting: Call, *, at_rest: bool) -> None:
        """Messages were plain: commit what they did, if it rests from now on."""
        run = self._run
        self._wanting = run.open[MAIL] = wanting
        if self.saved is None or not (at_rest or self._may_rest()):
            run.kick()
            return
        self.at_rest, self._rests_until = True, monotonic() + REST
        if self._rest is None:
            self._look_in(CALM)
        run.phase = COMMITTING
        turn = run.commits.messages()
        if self._serving.has_news:
            self.put_saved(turn)
        # As `run.write`, but that one whose turns are proved shares none.
        run.commits.write(turn, self._flushed)

    def rests(self) -> bool:
        """Whether it stays in memory a moment for its next message; what was done is committed first."""
        run = self._run
        if not self._is_alone() or run.host.park_always or not run.host.is_roomy:
            return False
        if self.saved is not None:
            self._commit_and_rest()
            return True
        left = self._rests_until - monotonic()
        if left > 0 and self._rest is None:
            self._look_in(left)
        return left > 0

    def _commit_and_rest(self) -> None:
        self._rests_until = monotonic() + REST
        if self._rest is None:
            self._look_in(CALM)
        self.flush()

    def _look_in(self, seconds: float) -> None:
        self._rest = self._run.loop.call_later(min(seconds, CALM), self._rested, context=tasks.NO_CONTEXT)

    def _rested(self) -> None:
        run, self._rest = self._run, None
        left = self._rests_until - monotonic()
        if left <= 0.001 or not run.host.is_roomy or not self._is_alone():
            run.kick()
        elif left - (REST - CALM) > 0.001:  # it had messages meanwhile
            self._look_in(left - (REST - CALM))
        elif self.saved is not None:  # messages that changed nothing: how many is written before it lies down
            self._commit_and_rest()
        elif not self._lies_down():
            self._rest = run.loop.call_later(left, self._rested, context=tasks.NO_CONTEXT)

    def _lies_down(self) -> bool:
        """It only listens, so its wake is over for now: what it is stays in memory. Whether that is all there is."""
        run, rests = self._run, self._run.host.rests
        if (
            rests is None
            or self._urgent_only
            or self.saved is not None
            or not run.is_bare
            or self.weight >= LARGE
        ):
            return False
        self.close()
        left = self._rests_until - monotonic()
        rests.take(run, self._stays, self.weight, run.loop.time() + left)
        return True

    def close(self) -> None:
        """Where the actor only waits for mail, its code is over at once: none of the author's is at work."""
        run, wanting, root = self._run, self._wanting, self._run.root
        if wanting is None or wanting.done() or self._begun is not None or len(run.tasks) > 1:
            return
        if root is None or tasks.waiter(root) is not wanting:
            return
        tasks.close(run.loop, root, wanting)
        self._wanting = None
        run.tasks.clear()

    def part(self) -> None:
        """The wake is over: its parts let each other go."""
        self.urgent.part()
        for name in ("supervisor", "_serving", "_stays"):
            if hasattr(self, name):
                delattr(self, name)

    def _sealed(self) -> None:
        run = self._run
        if run.leaving or self.sealing is None:
            return
        call, self.sealing = self.sealing, None
        run.phase = LIVE
        if not self._clean:
            self._clean = True
            self._lose_done()  # what came meanwhile
            self._forget()
        if not call.done():
            call.set_result(None)
        run.kick()

    def _lose_done(self) -> None:
        """Outcomes that are there are of calls that the handler has given up."""
        run = self._run
        run.commits.lose(run.done)
        run.done.clear()

    def _forget(self) -> None:
        """What was recorded is history."""
        run = self._run
        if run.commits.entries:
            run.forget_entries()
        if run.replay.calls or run.replay.handed or run.carrying.local:
            run.replay = Replay([], run.replay.time)
        if run.made:
            run.made.clear()
        run.open.clear()
        if run.box is not None:
            run.box.clear()
        self.urgent.forget()

    # ------------------------------------------------------------ messages, at rest
    def serve(self) -> None:
        """Give the next message to the actor if it waits for one, and urgent ones if a handler is at work."""
        run = self._run
        wanting, box = self._wanting, run.mailbox
        if wanting is not None:
            if not wanting.done() and CANCEL not in run.made:  # that is what it hears of next
                letter = self.take(urgent=True, ends=self._ends) if self._urgent_only else None
                if letter is not None or (not self._urgent_only and self.has_mail):
                    run.open.pop(MAIL, None)
                    wanting.set_result(letter)
        elif box.urgent and self.sealing is None:
            for letter in [letter for letter in box.urgent.values() if letter.id != box.hand]:
                box.consume(letter.id)
                self.urgent.strike(letter.mail)

    def was_served(self) -> bool:
        """Whether the actor got what it waited for; asked once."""
        if self._wanting is None or not self._wanting.done():
            return False
        self._wanting = None
        return True

    def cancelled(self) -> None:
        """The run is cancelled: if nothing is in hand, nothing must be in a replay either."""
        if self._wanting is not None and not self._wanting.done():
            self._run.commits.entries.append(Entry(*HAND, "hand", "", b"", b"", 0, INSTANT, b"0"))


_NEXT: Final = Wait(kind="", name="", args=b"", digest=b"", decode=raw)


def _nothing(value: bytes) -> None:
    return None


def _by_itself(mail: Mail) -> Mail:
    """Mail that was taken: what else has its key, and its schedule, go on whether or not it is sent again."""
    return msgspec.structs.replace(mail, every=0.0, key="") if mail.every or mail.key else mail
