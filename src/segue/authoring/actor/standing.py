"""Where an actor stands: its fields, and what is next."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.codec import encode
from ...core.restarts import Verdict
from ...model.errors import UNREADABLE, BadSignature, Damaged, NotEncodable, StateMismatch
from ...ports.store import Claimed, Turn
from ..failures import to_exception, to_failure
from ..mail import message_name
from ..message import responders
from .checkpoint import Checkpoint, Delta, End, Texts, read_parted, write_checkpoint, write_delta
from .family import Family
from .fields import SMALL, Fields, Looked
from .migration import Read, find, first
from .nexts import Again, Cancelled, Done, Fail, Interrupted, Listen
from .tail import Tail

if TYPE_CHECKING:
    from .definition import ActorDef
    from .life import Life

log = logging.getLogger("segue")

_NULL = msgspec.Raw(b"null")

#: What a stored delta costs besides its bytes, in bytes. (A file of older versions has one a turn: too many to keep.)
ROW = 256


def _stored(claimed: Claimed, definition: ActorDef) -> tuple[Checkpoint, Texts]:
    """What was written of an actor. Raises `StateMismatch`, which holds it."""
    assert claimed.checkpoint is not None
    try:
        return read_parted(claimed.checkpoint, claimed.deltas)
    except Damaged as error:
        raise StateMismatch(claimed.head.id, definition.name, str(error)) from error


class Standing:
    """An actor, what is next for it, and what of that was last written down."""

    def __init__(self, definition: ActorDef, claimed: Claimed, life: Life) -> None:
        spec, back = claimed.head.spec, None
        self._first, self._run = (definition, spec), claimed.head.id
        if claimed.checkpoint is not None:
            stored, texts = _stored(claimed, definition)
            pool = claimed.pool
            if pool is not None and pool.ended == stored.turns:
                stored.end, stored.closing = None, False  # a person had it go on after that
                back = pool.children
        else:
            stored, texts = first(spec, definition)
        try:
            definition = find(definition, stored, self._run, life.target)
            read = Read(definition, stored, texts, self._run)
        except UNREADABLE as problem:
            raise StateMismatch(self._run, definition.name, f"it can't be read ({problem})") from problem
        self.definition, self.quick = definition, definition.quick
        self.actor = read.actor
        if read.dropped:
            names = ", ".join(read.dropped)
            log.warning(
                "run %s: %s has no field %s any more; it is dropped", self._run, definition.name, names
            )
        as_stored = claimed.checkpoint is not None and not read.changed
        self.fields = Fields(definition, self.actor, read.fields if as_stored else None)
        deltas = claimed.deltas
        self._tail = Tail(deltas)
        self._written = len(claimed.checkpoint or b"") + sum(map(len, deltas)) + ROW * len(deltas)
        self.turns, self.fresh, self.attempt = stored.turns, stored.fresh, stored.attempt
        self.due, self.at = stored.due, stored.at
        self.again = stored.again  #: the letter that failed, and is next
        #: Whether the state that is next was just done, and goes round.
        self.repeats = bool(stored.due and stored.state and not stored.attempt)
        self.state: Any = read.state  #: what is next; None to listen
        self.data = stored.data  #: of the state, as it was when it became next
        self.end: Done[Any] | Fail | Interrupted | Cancelled | None = None
        self.result = b"null"
        self.ending = stored.end is not None  #: whether the end was written down before
        self.verdict: Verdict | None = None  #: of its supervisor, on that end
        if stored.end is not None:
            self._reach(stored.end)
        self._molted = stored.actor
        self.children = Family(stored.children)
        if back is not None:
            self.children.back(back)
        self.closing = stored.closing
        self.lives = stored.lives  #: before this one
        # But for fields and children; None of one that only listens.
        self._kept: tuple[Any, ...] | None = None
        #: So it was kept, without children: turns that change but fields are only counted.
        self.only_listens = False
        self.unwritten = False  #: what was kept, or fields have changed since they were written

    def code(self, claimed: Claimed, life: Life, /) -> Coroutine[Any, Any, bytes]:
        """The coroutine of a wake that goes on from here."""
        definition, _ = self._first
        return definition.code(claimed, life, self)

    def _reach(self, end: End) -> None:
        """The end that was written down."""
        self.result, self.verdict = bytes(end.value), end.verdict
        if end.cancelled:
            self.end = Cancelled()
        elif end.interrupted:
            self.end = Interrupted(anew=end.anew)
        else:
            self.end = Done() if end.error is None else Fail(to_exception(end.error))

    # ------------------------------------------------------------ what is next
    def go(self, result: Any) -> None:
        """What a handler returned says what is next; what is said while it ends changes nothing."""
        if self.closing and self.end is not None:
            return
        self.repeats = False
        if result is Listen or isinstance(result, Listen):
            if self.state is not None:
                self._becomes(None)
        elif isinstance(result, Done):
            self.result = encode(result.value, where=f"the result of actor {self.definition.name!r}")
            self.end = result
        elif isinstance(result, Fail | Interrupted):
            self.end = result
        elif result is Interrupted:
            self.end = Interrupted()
        elif message_name(type(result)) in self.definition.handlers.states:
            self._becomes(result)
            self.data = msgspec.Raw(encode(result, where=f"a state of {self.definition.name}"))
        elif hasattr(type(result), "__segue__"):
            self._molt(type(result).__segue__, result)
        elif result is not Again and not isinstance(result, Again):
            raise BadSignature(
                self.definition.name,
                f"a handler returned {result!r}, which is no state of it",
                "return a state, Listen(), Again(), Done(…) or Fail(…)",
            )

    def _becomes(self, state: Any) -> None:
        """Something else is next than was: attempts at that don't count for it."""
        self.state, self.due, self.attempt = state, 0.0, 0

    def stay(self, due: float) -> None:
        """The same state once more, as it is now, and not before it is `due`."""
        self.data = msgspec.Raw(encode(self.state, where=f"a state of {self.definition.name}"))
        self.due, self.repeats = due, True

    def _molt(self, definition: ActorDef, actor: Any) -> None:
        """The run goes on as another actor."""
        definition.check()
        self.definition, self.actor, self._molted = definition, actor, definition.name
        self.quick = definition.quick
        self.fresh = True
        self._becomes(None)
        self.fields = Fields(definition, actor)

    def begin_anew(self) -> None:
        """As it was first."""
        definition, spec = self._first
        self.definition, self.quick, self._molted = definition, definition.quick, ""
        self.actor = Read(definition, *first(spec, definition), self._run).actor
        self.fields = Fields(definition, self.actor)
        self.fresh = True
        self._becomes(None)
        self.end, self.ending, self.closing = None, False, False
        self.children.clear()
        self.verdict, self.lives = None, self.lives + 1

    def responders(self) -> set[int]:
        """The requests to this run whose responders lie in its fields and its state, as they are now."""
        try:
            fields = self.definition.dump(self.actor)
        except NotEncodable:  # `teardown` left them so, and what they were is all that is known
            fields = bytes(self.fields.whole())
        return responders(self._run, fields + bytes(self.data if self.state is not None else b""))

    @property
    def listens(self) -> bool:
        """Whether the next message is all that is next."""
        return self.state is None and self.end is None and not self.due and not self.fresh

    def restore(self, *, anew: bool = False) -> None:
        """Give the fields and the state the values that were written down; `anew`: in another instance."""
        fields = self.fields.whole()
        if anew:
            self.actor = self.definition.load(fields)
        else:
            self.definition.restore(self.actor, fields)
        if self.state is not None:
            states = self.definition.handlers.states
            self.state = states[message_name(type(self.state))].read(bytes(self.data))

    # ------------------------------------------------------------ what is written down
    def look(self) -> Looked:
        """What the fields are now, to be taken if the turn holds. Raises `NotEncodable`."""
        return self.fields.look(self.actor)

    def take(self, looked: Looked) -> None:
        """That turn holds; what was taken before it was `keep`t."""
        self.fields.take(looked, self.actor)

    def keep(self) -> None:
        """A turn is over: so it is to be written down, whatever the next handler does meanwhile."""
        self.turns += 1
        self.unwritten = True
        self.children.keep()
        self.only_listens = self.listens and not self.attempt and self.children.is_none
        if self.only_listens:
            self._kept = None
            return
        state = "" if self.state is None else message_name(type(self.state))
        self._kept = (
            self.verdict,
            state,
            self.data if state else _NULL,
            self.turns,
            self._molted,
            self.fresh,
            self.end,
            self.attempt,
            self.due,
            self.at,
            [],
            self.closing,
            self.lives,
            self.definition.declared,
            self.again if self.attempt else 0,
        )

    def write(self, turn: Turn) -> None:
        """Have a turn store what was last kept: what has changed, unless more would be stored than is worth it."""
        fields, family, head = self.fields, self.children, self._head()
        self.unwritten = False
        if (
            self._written
            and not family.scrambled
            and (fields.as_stored if fields.spread else family.size > SMALL)
        ):
            few = b"" if fields.spread else bytes(fields.whole())
            delta = Delta(write_checkpoint(head), fields.changed(), kin=family.changed(), fields=few)
            whole = fields.size + family.size
            stored, replaces, gone = self._tail.add(delta, whole, fields.between)
            written = self._written + len(stored) - gone + ROW * (1 - replaces)
            if written <= 2 * whole:
                self._written = written
                turn.delta, turn.replaces = stored, replaces
                fields.stored()
                return
        head.fields, head.children = fields.whole(), family.whole()
        turn.checkpoint = write_checkpoint(head)
        self._written, self._tail = len(turn.checkpoint), Tail()
        fields.stored()
        if fields.spread:
            fields.written()

    def left(self) -> bytes | None:
        """What the last turn left the fields as, as a delta, if it changed them: nothing else is written after it."""
        fields = self.fields
        if not fields.unwritten:
            return None
        head = Checkpoint(_NULL, turns=self.turns + 1, actor=self._molted, at=self.at, lives=self.lives)
        spliced = fields.spread and fields.as_stored
        few = b"" if spliced else bytes(fields.whole())
        return write_delta(Delta(write_checkpoint(head), fields.changed() if spliced else [], fields=few))

    def _head(self) -> Checkpoint:
        """What was last kept, without the fields."""
        if self._kept is None:
            version = self.definition.declared
            return Checkpoint(
                _NULL, "", _NULL, self.turns, self._molted, at=self.at, closing=self.closing,
                lives=self.lives, version=version,
            )  # fmt: skip
        kept = self._kept
        verdict, state, data, turns, molted, fresh, reached, *rest = kept
        if reached is None:
            return Checkpoint(_NULL, state, data, turns, molted, fresh, None, *rest)
        end: End | None = None
        match reached:
            case Fail(error=error):
                end = End(error=to_failure(error))
            case Done():
                end = End(msgspec.Raw(self.result))
            case Interrupted(anew=anew):
                end = End(interrupted=True, anew=anew)
            case Cancelled():
                end = End(cancelled=True)
            case _:
                pass
        if end is not None:
            end.verdict = verdict
        return Checkpoint(_NULL, state, data, turns, molted, fresh, end, *rest)
