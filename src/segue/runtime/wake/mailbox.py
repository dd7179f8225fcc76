"""What reaches a run from outside, and the calls of its code that wait for it.

Letters of outcomes find their call by its place; messages go to the first `receive` that takes their kind, or to
an actor, one after the other; a spawned run's end comes once, whoever waits for it; times strike at rest.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import Future, Task
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...authoring.actor.checkpoint import takes_mail
from ...authoring.actor.supervised import SUPERVISED
from ...authoring.context import Wait
from ...authoring.failures import to_failure
from ...core.replay import Place
from ...model.entry import Failure
from ...model.errors import WrongPlace
from ...model.message import ASKED_TO_END, CAUGHT_UP, CHILD_ENDED, Letter, Mail, answer_to, is_answer
from ...model.run import CHILD, ENDED, Head
from ..calls.call import CANCEL, NOTHING, Call, Outcome, end_error, own_call
from ..ground import tasks
from ..ground.phase import REPLAYING
from ..mail.timers import Timers
from .circles import refuse
from .keeping import Keeping
from .matching import Matching

if TYPE_CHECKING:
    from .executor import Executor

#: What isn't for the code, and is carried out when it is read.
ORDERS: Final = frozenset({"unschedule", "unsubscribe", "settled"})
#: Where the journal says which letter was in hand, if not the first message.
HAND: Final[Place] = ("!hand", 0)
#: Where an actor waits for its next message; it isn't in any journal.
MAIL: Final[Place] = ("!mail", 0)


class _End(msgspec.Struct):
    """What a supervisor is told of a child's end."""

    run: str
    value: msgspec.Raw
    error: Failure | None


_DEAF: Final = "run {!r} is of a flow, which answers no requests: {}make it an actor"
#: What may be done instead, where nobody supervises it: what is supervised is awaited by an actor, which gets its mail.
_TELL: Final = "tell it what it is to receive, or "


class _Told(msgspec.Struct):
    """A message that a call receives."""

    name: str
    value: msgspec.Raw


_read_end = msgspec.json.Decoder(_End).decode
_read_told = msgspec.json.Decoder(_Told).decode


class Mailbox:
    """The mail of one wake. Letters stay in the store until the turn that takes them is written."""

    __slots__ = (
        "_asked",
        "_dues",
        "_early",
        "_ends",
        "_joins",
        "_late",
        "_matching",
        "_opened",
        "_order",
        "_over",
        "_receivers",
        "_refused",
        "_results",
        "_run",
        "_spawned",
        "_takes",
        "_unmatched",
        "_waits",
        "hand",
        "keeping",
        "posts",
        "timers",
        "urgent",
    )

    def __init__(self, run: Executor) -> None:
        self._run = run
        self._results: dict[int, Letter] = {}  # outcomes and orders, by id
        self.posts: OrderedDict[int, Letter] = OrderedDict()  #: messages to the code, by id, in order
        # Somebody may wait for a word: that his mail was taken, or that a flow answers nobody.
        self._asked = False
        self._unmatched = True  # posts or receivers have come since they were matched
        self._matching: Matching | None = None  # of posts, once a call waits for some
        self._receivers: dict[str, OrderedDict[Place, Call]] = {}  # in order, by the names that they take
        self._waits: dict[str, set[Place]] = {}  # the calls that wait, by kind
        self._opened: dict[Place, Call] = {}  # calls by openings that aren't those of their places
        self._joins: dict[Place, list[Call]] = {}  # waits for the ends of spawned runs
        self._ends: dict[Place, tuple[bytes | None, Failure | None]] = {}  # of spawned runs, once waited for
        self._spawned: set[Place] = set()  # whose ends may come before anybody waits for them
        self._dues: list[tuple[float, int, Call]] = []
        self._order = 0
        self.urgent: dict[int, Letter] = {}  #: messages that don't wait for others, to an actor
        self._early: dict[Place, list[Letter]] = {}  # ends of spawned runs that nobody waits for yet
        self.timers: Timers | None = None  #: of mail that has a time or a key
        self._late: list[int] = []  # a heap of posts that became due while others lay here
        self.keeping = Keeping(run, self)
        self._over: set[str] = set()  # subscriptions that were called off
        self._refused: set[int] = set()  # requests whose callers were told that they close a circle
        self.hand = 0  #: the message that an actor has in hand
        self._takes: bool | None = None  # whether the turn that is replayed is one of a message, if known

    # ------------------------------------------------------------ what comes in
    def file(self, letters: Sequence[Letter]) -> bool:
        """Take letters in; whether one asks for the run's end."""
        cancelled, plain = False, True
        posts, matching = self.posts, self._matching
        for letter in letters:
            mail = letter.mail
            kind = mail.kind
            if (kind == "tell" or kind == "request") and not (letter.kept or mail.due or mail.key):
                posts[letter.id] = letter
                if matching is not None:
                    matching.came(letter)
                if mail.reply is not None:
                    self._asked = True
                continue
            plain = False
            if letter.kept:
                self.keeping.keep(letter)
                if kind == "subscribe":
                    self.keeping.came(letter)
            elif (mail.due or mail.key) and kind in ("tell", "urgent") and self._timed().keeps(letter):
                pass  # it isn't due, or another one is there in its place
            elif kind == "event" and mail.key in self._over:
                self.take_out(letter.id)
            elif kind == "tell" or kind == "request" or kind == "event":
                self._post(letter)
            elif kind == "urgent" or kind == "subscribe":
                self.urgent[letter.id] = letter
                if kind == "subscribe":
                    self.keeping.came(letter)
            elif kind in ORDERS:
                self._obey(letter)
            elif kind == "result" and mail.call is not None and mail.call.digest == CHILD:
                self._child_ended(letter, (mail.call.path, mail.call.n))
            else:
                self._results[letter.id] = letter
                cancelled = cancelled or kind == "cancel"
        self._unmatched = True
        if not plain and self._run.handling is not None:
            self._run.handling.at_rest = False
        return cancelled

    def _post(self, letter: Letter) -> None:
        """A message to the code."""
        self.posts[letter.id] = letter
        self._asked = self._asked or letter.mail.reply is not None
        if self._matching is not None:
            self._matching.came(letter)

    @property
    def cancelled(self) -> bool:
        """Whether a letter that asks for the run's end wasn't read yet."""
        return any(letter.mail.kind == "cancel" for letter in self._results.values())

    def _obey(self, letter: Letter) -> None:
        """An order is carried out as it is read."""
        mail = letter.mail
        if mail.kind == "unschedule":
            if self._timed().call_off(mail.key, letter.id):
                return
        elif mail.kind == "settled":
            if self.keeping.settles(msgspec.json.decode(mail.value or b"0", type=int), letter.id):
                return
        elif self.keeping.unsubscribe(mail.key, letter.id):
            return
        self.take_out(letter.id)

    def _child_ended(self, letter: Letter, place: Place) -> None:
        """The end of a supervised run is a message to its supervisor, besides what it is to those who wait for it."""
        mail = letter.mail
        self._ends[place] = mail.value, mail.error
        if place in self._joins:
            self._ended(place, mail.value, mail.error, None)
        run = mail.sender.removeprefix("run:")
        value = msgspec.json.encode(_End(run, msgspec.Raw(mail.value or b"null"), mail.error))
        told = Mail(
            mail.to, mail.sender, mail.number, "urgent", CHILD_ENDED, value, call=mail.call, at=mail.at
        )
        self.urgent[letter.id] = Letter(letter.id, told)

    def _timed(self) -> Timers:
        if self.timers is None:
            self.timers = Timers(self._run, self)
        return self.timers

    def consume(self, letter: int) -> None:
        """The code is done with a letter: the next commit takes it out of the inbox, unless it is kept."""
        known = self.posts.pop(letter, None) or self.urgent.pop(letter, None)
        if known is None:
            self.take_out(letter)
            return
        if known.mail.reply is not None and not self.keeping.is_done(known):
            return
        self._leaves(letter)
        if self.timers is not None and (known.mail.every or known.mail.key):
            tick = self.timers.consumed(known)
            if tick is not None:
                self._run.commits.send(tick)

    def take_out(self, letter: int) -> None:
        """Have the next commit take a letter out of the inbox."""
        if self.posts.pop(letter, None) is None:
            urgent, results = self.urgent, self._results
            known = urgent.pop(letter, None) or results.pop(letter, None) or self.keeping.pop(letter)
            if known is not None and known.mail.kind == "subscribe":
                self.keeping.left(known)
        self._leaves(letter)

    def _leaves(self, letter: int) -> None:
        if letter == self.hand:
            self.hand = 0
        consumed = self._run.commits.turn.consumed
        consumed.append(letter)
        if self.keeping.settled:
            consumed.extend(self.keeping.settled.pop(letter, ()))

    def lose_results(self) -> None:
        """The run is over: what came for calls that it had open before a rebase is nobody's. Answers stay: should it
        go on, it may come to those calls yet."""
        for letter in list(self._results.values()):
            if not is_answer(letter.mail):
                self._lose(letter)

    def _lose(self, letter: Letter) -> None:
        """Nobody takes that outcome. What was paid for it counts all the same."""
        if letter.mail.used is not None:
            self._run.commits.count(letter.mail.used)
        self.consume(letter.id)

    # ------------------------------------------------------------ who waits
    def will_end(self, place: Place) -> None:
        """A run was spawned there."""
        self._spawned.add(place)

    def has_ended(self, place: Place, value: bytes | None, error: Failure | None) -> None:
        """A spawned run's end is in the journal."""
        self._ends[place] = value, error

    def has_struck(self, mail: Mail) -> None:
        """An urgent message is in the journal: if it tells of a child's end, who waits for that later needs it."""
        if mail.name == CHILD_ENDED and mail.call is not None:
            said = _read_end(mail.value or b"{}")
            value = bytes(said.value) if said.error is None else None
            self.has_ended((mail.call.path, mail.call.n), value, said.error)

    def wait_for(self, call: Call, request: Wait, due: float) -> None:
        """A call waits from now on."""
        self._waits.setdefault(request.kind, set()).add(call.place)
        if request.opened is not None and request.opened != call.place:
            self.knows_as(call, request.opened)
        if due:
            self._order += 1
            heapq.heappush(self._dues, (due, self._order, call))
        if request.accepts:
            for name in request.accepts:
                self._receivers.setdefault(name, OrderedDict())[call.place] = call
            if self._matching is None:
                self._matching = Matching(self.posts)
            self._matching.wanted(request.accepts)
            self._unmatched = True
        if request.to:
            self._unmatched = True
        if request.joins is not None:
            self._join(call, request, request.joins)

    def knows_as(self, call: Call, opened: Place) -> None:
        """What comes for that opening is that call's."""
        self._opened[opened] = call

    def drop(self, call: Call) -> None:
        """Nobody waits for that call's outcome any more."""
        self._waits_no_more(call)

    def _waits_no_more(self, call: Call) -> None:
        place, request = call.place, call.request
        if (places := self._waits.get(request.kind)) is not None:
            places.discard(place)
        for name in request.accepts if isinstance(request, Wait) else ():
            waiting = self._receivers.get(name)
            if waiting is not None and waiting.pop(place, None) is not None and not waiting:
                del self._receivers[name]

    def waits(self, *kinds: str) -> bool:
        """Whether a call of one of these kinds waits."""
        return any(self._waits.get(kind) for kind in kinds)

    def first(self) -> Letter | None:
        """The first message, if there is one."""
        while self.posts:
            letter = next(iter(self.posts.values()))
            if letter.mail.name == CAUGHT_UP:
                self._say_caught_up()
            elif letter.mail.kind == "event" and letter.mail.name.startswith("~"):
                self._call_off(letter)
            else:
                return letter
        return None

    def _call_off(self, event: Letter) -> None:
        """Its block is over, since an actor that looks for its next message has none open; perhaps it was cut off."""
        run, mail = self._run, event.mail
        self.take_out(event.id)
        now = run.host.clock_now()
        run.commits.send(Mail(mail.sender, run.id, run.next_number(), "unsubscribe", key=mail.key, at=now))

    def _say_caught_up(self) -> None:
        """Answer those whose mail before that was taken; and those who ask a flow, that it doesn't."""
        senders: set[str] = set()
        run = self._run
        self._asked = False
        for letter in list(self.posts.values()):
            mail, deaf = letter.mail, None
            self._asked = self._asked or (mail.name == CAUGHT_UP and mail.sender in senders)
            if mail.name != CAUGHT_UP and mail.reply is not None and self._of_a_flow:
                cure = _TELL if run.handling is None else ""
                deaf = to_failure(WrongPlace(_DEAF.format(run.id, cure)))
            if deaf is not None or (mail.name == CAUGHT_UP and mail.sender not in senders):
                self.take_out(letter.id)
                answer = answer_to(mail, run.id, run.next_number(), b"null", deaf, run.host.clock_now())
                if answer is not None:
                    run.commits.send(answer)
            elif letter.id != self.hand:
                senders.add(mail.sender)

    @property
    def _of_a_flow(self) -> bool:
        """Whether the code is a flow's, also one that is supervised."""
        return self._run.handling is None or self._run.head.spec.target == SUPERVISED.name

    def asked_to_end(self) -> Letter | None:
        """The first message that asks for the actor's end."""
        return next((letter for letter in self.posts.values() if letter.mail.name == ASKED_TO_END), None)

    def in_hand(self) -> int:
        """The message that an actor has in hand, or will have once it is where its last life left it; 0 for none."""
        run = self._run
        if self.hand or run.claimed is None or run.phase is not REPLAYING:
            return self.hand
        if (entry := run.replay.calls.get(HAND)) is not None:
            return int(entry.value or b"0")
        if self._takes is None:
            self._takes = takes_mail(run.claimed.checkpoint, run.claimed.deltas)
        return next(iter(self.posts), 0) if self._takes else 0

    def drop_events(self, key: str) -> None:
        """Events of a subscription that was called off are dropped, those that come yet too."""
        self._over.add(key)
        for letter in list(self.posts.values()):
            if letter.mail.kind == "event" and letter.mail.key == key:
                self.take_out(letter.id)

    def is_out_of_turn(self, letter: Letter) -> bool:
        """Whether a message might come later than now if all mail were read anew, in the order of its arrival."""
        timers, late = self.timers, self._late
        while late and late[0] not in self.posts:
            heapq.heappop(late)
        if timers is None:
            return False
        # One with a time of its own may not be due any more: the clock can be set back.
        return bool(letter.mail.due) or timers.has_older(letter.id) or (bool(late) and late[0] < letter.id)

    def letter(self, id: int) -> Letter | None:
        """A message by its id, if it is there."""
        return self.posts.get(id) or self.urgent.get(id)

    def strike_at(self, due: float, wanting: Call) -> None:
        """An actor waits no longer than that for its next message."""
        self._order += 1
        heapq.heappush(self._dues, (due, self._order, wanting))

    def clear(self) -> None:
        """An actor's transition: what its handler waited for is history."""
        self._receivers.clear()
        self._opened.clear()
        self._matching = None
        self._waits.clear()
        self._dues.clear()
        if self._spawned:  # who was started in an earlier turn isn't waited for any more
            self._spawned.clear()
            self._joins.clear()
            self._ends.clear()
            self._results.update((one.id, one) for letters in self._early.values() for one in letters)
            self._early.clear()

    @property
    def lying(self) -> int:
        """How many messages lie here that are left for later."""
        return len(self.posts) + len(self.keeping) + (0 if self.timers is None else len(self.timers))

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to be looked at now but messages, one after the other."""
        return not (self._dues or self._results or self.urgent) and (
            self.timers is None or self.timers.are_far
        )

    def part(self) -> None:
        """The wake is over: its parts let each other go."""
        del self._run, self.keeping, self.timers

    @property
    def is_bare(self) -> bool:
        """Whether nothing lies here, or is kept in mind."""
        there = self.posts or self.urgent or self._results or self.keeping or self._dues or self._early
        return (
            not (there or self._receivers or self._joins or self._over or self.hand) and self.timers is None
        )

    @property
    def next_due(self) -> float | None:
        """When the next time strikes, of a call that waits for it or of mail."""
        return _sooner(self._dues[0][0] if self._dues else None, self.timers)

    def wake_at(self) -> float | None:
        """When the next time strikes for which somebody waits."""
        dues = sorted((due, order) for due, order, call in self._dues if not call.done())
        return _sooner(dues[0][0] if dues else None, self.timers)

    # ------------------------------------------------------------ at rest
    def answer_waits(self) -> None:
        """Match letters and times with the calls that wait for them."""
        if self._results:
            for letter in list(self._results.values()):
                self._read(letter)
        if self.timers is not None:
            self._ripen(self.timers)
        if self._run.handling is not None:
            if self._unmatched and self.posts and (asking := self._waits.get("request")):
                self._refuse_circles(asking)
            self._run.handling.serve()
        elif self.urgent:
            for letter in self.urgent.values():  # a flow takes it when it looks
                self._post(letter)
            self.urgent.clear()
        if self._unmatched and self._receivers and self._matching is not None:
            self._receive(self._matching)
        if self._unmatched and self._asked and (self._of_a_flow or self._receivers):
            self._say_caught_up()
        self._unmatched = False
        if self._dues:
            self._strike(self._run.host.clock_now())

    def _refuse_circles(self, asking: Iterable[Place]) -> None:
        """Whoever is told of a circle may have given up before, so its message is carried out, as after a timeout: not
        where its answer comes as a message, which is told of, or where nothing is to be carried out."""
        waiting = [self._run.open[place] for place in asking if place in self._run.open]
        posts = [letter for letter in self.posts.values() if letter.id not in self._refused]
        for letter in refuse(self._run, posts, waiting):
            self._refused.add(letter.id)
            if letter.mail.forwarded or letter.mail.name == CAUGHT_UP:
                self.take_out(letter.id)

    def _ripen(self, timers: Timers) -> None:
        for letter in timers.ripe(self._run.host.clock_now()):
            if letter.mail.kind == "urgent":
                self.urgent[letter.id] = letter
            else:
                self._post(letter)
                heapq.heappush(self._late, letter.id)
            self._unmatched = True

    def _strike(self, now: float) -> None:
        while self._dues and (self._dues[0][0] <= now or self._dues[0][2].done()):
            call = heapq.heappop(self._dues)[2]
            request = call.request
            if call.place == MAIL and not call.done():
                if CANCEL not in self._run.made:
                    self._run.open.pop(MAIL, None)
                    call.set_result(None)
                continue
            if call.done() or not isinstance(request, Wait) or call.place not in self._run.open:
                continue
            late = request.late
            self._close(call, Outcome(call, error=late) if isinstance(late, Failure) else Outcome(call, late))
            if request.drops is not None:
                request.drops(self._run.commits.turn)

    def _read(self, letter: Letter) -> None:
        run, mail = self._run, letter.mail
        if mail.kind == "result" and mail.call is not None:
            place = (mail.call.path, mail.call.n)
            call = self._opened.get(place) or self._run.open.get(place)
            join = next((call for call in self._joins.get(place, ()) if not call.done()), None)
            if join is not None and mail.sender == f"run:{msgspec.json.decode(join.request.args)}":
                self._ended(place, mail.value, mail.error, letter.id)
            elif call is not None and not call.done() and self._is_for(mail, call):
                outcome = Outcome(call, mail.value, mail.error, letter.id, lane=mail.name, used=mail.used)
                self._close(call, outcome)
            elif join or place in self._ends or (place not in self._spawned and not self._expects(place)):
                # Answered already, given up, or of a run of this id that was removed.
                if is_answer(mail) and (run.handling is None or CANCEL in run.made):
                    del self._results[letter.id]  # it stays: should the run be resumed, it may want it yet
                else:
                    self._lose(letter)
            elif place in self._spawned and place not in self._joins:
                self._early.setdefault(place, []).append(self._results.pop(letter.id))
        elif mail.kind == "ping":
            self._pong(letter)
        elif mail.kind == "cancel" and (run.handling is None or run.handling.sealing is None):
            self.take_out(letter.id)  # it doesn't strike in a turn that is over
            self._cancel()

    def _receive(self, matching: Matching) -> None:
        """Give messages, the oldest first, to the first call that waits for one of their kind."""
        given: list[tuple[Call, Letter]] = []
        for letter in matching.oldest_first(self._receivers):
            if letter.id == self.hand:
                continue  # it is its handler's
            call = next(iter(self._receivers[letter.mail.name].values()))
            self._waits_no_more(call)
            given.append((call, letter))
        for call, letter in given:
            told = msgspec.json.encode(letter.mail.name), letter.mail.value or NOTHING
            self._close(call, Outcome(call, b'{"name":%s,"value":%s}' % told, None, letter.id))

    def give_back(self, outcome: Outcome) -> None:
        """Its call was given up before it was handed over: a message that was taken for it comes once more."""
        run, request = self._run, outcome.call.request
        if request.kind != "receive" or request.name != "receive":  # an event's iteration is over
            return
        told, now = _read_told(outcome.value or b"{}"), run.host.clock_now()
        value = bytes(told.value)
        run.commits.send(Mail(run.id, run.id, run.next_number(), "tell", told.name, value, at=now))

    def _pong(self, letter: Letter) -> None:
        """Say when a ping was read, whatever the code does meanwhile."""
        run, mail = self._run, letter.mail
        now = run.host.clock_now()
        pong = answer_to(mail, run.id, run.next_number(), msgspec.json.encode([mail.at, now]), None, now)
        self.take_out(letter.id)
        if pong is not None:
            run.commits.send(pong)

    def _is_for(self, mail: Mail, call: Call) -> bool:
        """Whether an outcome is of this call, not of another one that stood there: before a rebase, or in a run of this
        id that was removed."""
        request, pool, came = call.request, self._run.pool, mail.call
        if (
            came is not None
            and not came.digest
            and mail.sender.startswith("run:")
            and request.kind != "child"
        ):
            return False  # it is the end of a run
        if not isinstance(request, Wait):  # a model call that went out in a batch, and would be live now
            return call.entry is not None and call.entry.made
        if came is None:
            return True
        same = came.digest in (b"", request.digest) or (pool is not None and not pool.strict)
        return same and request.opened == (came.path, came.n)

    def _expects(self, place: Place) -> bool:
        """Whether the code may come to a call there that was open before a rebase."""
        return self._run.pool is not None and self._run.pool.waits(*place)

    def _close(self, call: Call, outcome: Outcome) -> None:
        """A wait is over: its outcome goes into the next batch."""
        self._run.open.pop(call.place, None)
        self._waits_no_more(call)
        if outcome.letter is not None:
            self.consume(outcome.letter)
        self._run.done.append(outcome)

    # ------------------------------------------------------------ cancellation
    def _cancel(self) -> None:
        """Cancellation is an entry like another, so that it strikes at the same place in a replay."""
        if CANCEL not in self._run.made:
            if self._run.handling is not None:
                self._run.handling.cancelled()
            self._run.done.append(Outcome(self._cancel_call(), NOTHING))

    def expect_cancel(self) -> None:
        """The journal has it."""
        call = self._cancel_call()
        call.entry = self._run.replay.made(*CANCEL, "cancel", "cancel", b"")
        self._run.open[CANCEL] = call

    def _cancel_call(self) -> Call:
        run = self._run

        def struck(call: Future[Any]) -> None:
            if run.handling is not None:
                run.handling.urgent.cancel(None)
            if run.root is not None and not call.cancelled():  # else it is over
                Task.cancel(run.root, "the run was cancelled")

        call = own_call(run, CANCEL, "cancel")
        run.made.add(CANCEL)
        if run.handling is not None:
            run.handling.urgent.cancel(call)
        call.add_done_callback(struck, context=tasks.NO_CONTEXT)
        return call

    # ------------------------------------------------------------ the ends of spawned runs
    def _join(self, call: Call, request: Wait, place: Place) -> None:
        """Wait for the end of a spawned run, which comes as mail once, whoever waits for it."""
        if place in self._ends:
            self._close(call, Outcome(call, *self._ends[place]))
            return
        self._joins.setdefault(place, []).append(call)
        self._results.update((letter.id, letter) for letter in self._early.pop(place, ()))
        if request.looks:
            look = self._look(request.looks, place)
            self._run.carrying.keep(Task(look, loop=self._run.loop, context=tasks.NO_CONTEXT.copy()))

    async def _look(self, id: str, place: Place) -> None:
        """A run that somebody else started by that id sends its end to them; one that ended while this one was over
        sent it in vain."""
        run, task = self._run, asyncio.current_task()
        assert task is not None  # made for this
        try:
            self._seen(await run.host.find(id), place)
        except Exception as error:  # the store is gone
            run.abandon(error)
        finally:
            run.carrying.local.discard(
                task
            )  # else the run that is looked at now has work under way, and stays
            run.kick()

    def _seen(self, head: Head | None, place: Place) -> None:
        parent = None if head is None else head.spec.parent
        ours = parent is not None and (parent.run, parent.path, parent.n) == (self._run.id, *place)
        if head is None or place not in self._joins:
            return
        if ours and not (self._run.rebased and head.status in ("done", "failed")):
            return  # its end comes, or has
        if head.status in ENDED:
            self._ended(place, head.value, end_error(head.id, head.status, head.error), None)
            return
        text = (
            f"run {head.id!r} was there already, started by somebody else, so its end can't be awaited here; "
            f"spawn it under an id of its own, or use messages"
        )
        self._ended(place, None, to_failure(WrongPlace(text)), None)

    def _ended(self, place: Place, value: bytes | None, error: Failure | None, letter: int | None) -> None:
        """A spawned run has ended: all who wait for it are told."""
        self._ends[place] = value, error
        for call in self._joins.pop(place):
            if not call.done():
                self._close(call, Outcome(call, value, error, letter))
                letter = None
        if letter is not None:
            self.consume(letter)


def _sooner(due: float | None, timers: Timers | None) -> float | None:
    other = None if timers is None else timers.next_due
    return due if other is None else other if due is None else min(due, other)
