"""Actors: classes that are state machines while they work and actors while they listen.

An actor is a run like a flow is. Its fields are written whole at each transition and handled message, and
the journal before is sealed; within a handler, calls are recorded as in a flow. So a flow is one state of
an actor, and what was said of replay holds for both.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import sys
import typing
from asyncio import Future
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, dataclass_transform

import msgspec

from ..core.codec import decoder, encode
from ..core.forms import members
from ..model.entry import Failure
from ..model.errors import BadSignature
from ..model.message import Letter, Mail
from ..model.mode import Config, ModeLike, as_mode
from ..model.run import Spec
from ..ports.store import Claimed
from .context import current
from .failures import to_failure
from .flow import announce, fingerprint
from .mail import message_name
from .message import Request, response_type

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger("segue")


# ---------------------------------------------------------------- what handlers return
class Listen:
    """Wait for messages."""


class Again:
    """The same state once more, with what the handler changed in it."""


class Done(Generic[R_co]):
    """The actor's work is done; `value` is the run's result."""

    def __init__(self, value: R_co = None) -> None:  # type: ignore[assignment]  # Done() is for actors of None
        self.value = value


class Fail:
    """The actor gives up."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Answer(Generic[R_co]):
    """The answer to a request, and the state to go to then."""

    def __init__(self, value: R_co, *, then: object = None) -> None:
        self.value, self.then = value, then


# ---------------------------------------------------------------- how a class is written
def field(
    *, default: Any = dataclasses.MISSING, default_factory: Any = dataclasses.MISSING, durable: bool = True
) -> Any:
    """A field of an actor; one that isn't `durable` is set anew at each wake."""
    how: dict[str, Any] = {"metadata": {"durable": durable}}
    if default is not dataclasses.MISSING:
        how["default"] = default
    if default_factory is not dataclasses.MISSING:
        how["default_factory"] = default_factory
    return dataclasses.field(**how)


class _Mark(msgspec.Struct):
    kind: str
    mode: Any = None


def state(fn: Any = None, /, *, mode: ModeLike | None = None) -> Any:
    """The handler of a state: its argument's type names the state; what it returns is what comes next."""
    return _mark(fn, _Mark("state", mode))


def on(fn: Any = None, /, *, mode: ModeLike | None = None) -> Any:
    """The handler of a message: its argument's type names the message."""
    return _mark(fn, _Mark("on", mode))


def _mark(fn: Any, mark: _Mark) -> Any:
    def put(fn: F) -> F:
        fn.__segue_mark__ = mark  # type: ignore[attr-defined]  # read when the class is made
        return fn

    return put if fn is None else put(fn)


@dataclass_transform(field_specifiers=(field,))
class Actor(Generic[R]):
    """A hybrid workload. Its annotated fields are its durable state; `begin` gives its first state.

    Handlers are methods marked `@state` and `@on`: `async def` ones are awaited, plain ones run on a thread.
    Start one with `engine.start(MyActor(…), id=…)`; by that id it is found again, for months.
    """

    if not TYPE_CHECKING:

        def __init_subclass__(cls, **how: Any) -> None:
            super().__init_subclass__(**how)
            dataclasses.dataclass(cls)
            cls.__segue__ = ActorDef(cls)
            announce(
                cls.__segue__, getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
            )

    def begin(self) -> object:
        """The first state; without one, the actor begins by listening."""
        return Listen()

    @property
    def me(self) -> Any:
        """Its own run, and so its address."""
        run = current("me").run
        return run.services.handle(run.id, type(self).__segue__, None)  # type: ignore[attr-defined]  # set above


class Handler(msgspec.Struct):
    """One marked method. `takes` is its argument's type, `gives` a request's answer's."""

    method: str
    takes: Any
    gives: Any
    mode: Any
    is_async: bool
    is_request: bool


class _Checkpoint(msgspec.Struct):
    """An actor between two turns: its fields, the state that is next if it doesn't listen, turns so far."""

    fields: dict[str, msgspec.Raw]
    state: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    turns: int = 0


_read_checkpoint = msgspec.json.Decoder(_Checkpoint).decode


class Life(Protocol):
    """What an actor's code needs of the wake that it runs in."""

    id: str
    config: Config
    callers: tuple[str, ...]

    def next_mail(self) -> Future[Letter]:
        """The first message in the inbox, when there is one; it stays there."""
        ...

    def seal(self, checkpoint: bytes) -> Future[None]:
        """Commit a transition: fields written, message consumed, mail sent, journal sealed."""
        ...

    def close_letter(self, letter: Letter, reply: Mail | None) -> None:
        """Have the next commit consume a message and send its answer."""
        ...

    def off_loop(self, fn: Callable[[], Any]) -> Future[Any]:
        """Run a function on a thread, as work of this wake."""
        ...

    def next_number(self) -> int: ...
    def now(self) -> float: ...


class ActorDef:
    """What is known of an actor class."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        self.name = cls.__qualname__.replace("<locals>.", "")
        self._table: tuple[dict[str, Handler], dict[str, Handler]] | None = None

    @property
    def version(self) -> str:
        """A fingerprint of the source."""
        return fingerprint(self.cls)

    def read_result(self, value: bytes) -> Any:
        """Its result, typed by what it is an `Actor` of."""
        for cls in self.cls.__mro__:
            for base in getattr(cls, "__orig_bases__", ()):
                if typing.get_origin(base) is Actor and not isinstance(typing.get_args(base)[0], TypeVar):
                    return decoder(typing.get_args(base)[0])(value)
        return decoder(object)(value)

    def spec(self, actor: Any, config: Config, now: float) -> Spec:
        """The record of a run of it; also checks the class."""
        self.check()
        fields = {
            name: msgspec.Raw(encode(getattr(actor, name), where=f"{self.name}.{name}"))
            for name in self.durable
        }
        return Spec(
            kind="actor",
            target=self.name,
            args=msgspec.json.encode(fields),
            config=config,
            version=self.version,
            python=f"{sys.version_info[0]}.{sys.version_info[1]}",
            created=now,
        )

    @functools.cached_property
    def durable(self) -> dict[str, Any]:
        """Its durable fields and their types."""
        hints = typing.get_type_hints(self.cls, include_extras=True)
        return {
            part.name: hints[part.name]
            for part in dataclasses.fields(self.cls)
            if part.metadata.get("durable", True)
        }

    # ------------------------------------------------------------ handlers
    def table(self) -> tuple[dict[str, Handler], dict[str, Handler]]:
        """Handlers of states and of messages, by the name of what they take."""
        if self._table is None:
            states: dict[str, Handler] = {}
            messages: dict[str, Handler] = {}
            for name, fn in inspect.getmembers(self.cls, inspect.isfunction):
                mark: _Mark | None = getattr(fn, "__segue_mark__", None)
                if mark is not None:
                    handler = self._handler(name, fn, mark)
                    table, takes = states if mark.kind == "state" else messages, message_name(handler.takes)
                    if takes in table:
                        raise BadSignature(
                            f"{self.name}.{name}",
                            f"{table[takes].method}() takes a {takes} too",
                            "give each state and each message one handler",
                        )
                    table[takes] = handler
            self._table = states, messages
        return self._table

    def _handler(self, name: str, fn: Any, mark: _Mark) -> Handler:
        where = f"{self.name}.{name}"
        try:
            hints = typing.get_type_hints(fn)
        except NameError as error:
            raise BadSignature(
                where, f"an annotation can't be read: {error}", "import what it names"
            ) from None
        parameters = list(inspect.signature(fn).parameters)
        if len(parameters) != 2 or parameters[1] not in hints:
            cure = "write it as `(self, x: Kind)`: the type names the state or message"
            raise BadSignature(where, "a handler takes one annotated argument", cure)
        takes = hints[parameters[1]]
        is_request = isinstance(takes, type) and issubclass(takes, Request)
        gives = response_type(takes) if is_request else None
        mode = None if mark.mode is None else as_mode(mark.mode)
        return Handler(name, takes, gives, mode, inspect.iscoroutinefunction(fn), is_request)

    def check(self) -> None:
        """Raise `BadSignature` for an edge to a state that has no handler."""
        states, _ = self.table()
        for source, fn in [
            ("begin", self.cls.begin),
            *((h.method, getattr(self.cls, h.method)) for h in states.values()),
        ]:
            for target in _targets(fn):
                if message_name(target) not in states:
                    known = ", ".join(sorted(states)) or "none"
                    raise BadSignature(
                        f"{self.name}.{source}",
                        f"it leads to the state {message_name(target)}, which has no handler",
                        f"add a @state method that takes one; the states are {known}",
                    )

    # ------------------------------------------------------------ a life
    async def code(self, claimed: Claimed, life: Life) -> bytes:
        """The coroutine that a run of it consists of: one turn after the other, each sealed by a commit."""
        return await _Driver(self, claimed, life).run()


class _Driver:
    """One wake of an actor."""

    def __init__(self, definition: ActorDef, claimed: Claimed, life: Life) -> None:
        self.definition, self.life = definition, life
        self.states, self.messages = definition.table()
        spec = claimed.head.spec
        self.begun = claimed.checkpoint is not None
        if claimed.checkpoint is not None:
            stored = _read_checkpoint(claimed.checkpoint)
        else:
            stored = _Checkpoint(msgspec.json.decode(spec.args, type=dict[str, msgspec.Raw]))
        self.turns = stored.turns
        self.fields = stored.fields  # as they were after the last turn
        self.actor = self._load(stored.fields)
        self.state: Any = None
        if stored.state:
            self.state = decoder(self.states[stored.state].takes)(bytes(stored.data))

    def _load(self, fields: dict[str, msgspec.Raw]) -> Any:
        """An instance with its stored fields; those that the class has gained take their defaults."""
        values = {
            name: decoder(tp)(bytes(fields[name]))
            for name, tp in self.definition.durable.items()
            if name in fields
        }
        return self.definition.cls(**values)

    def _restore(self) -> None:
        """Give the fields the values that they had after the last turn, and listen."""
        self.state = None
        for name, tp in self.definition.durable.items():
            if name in self.fields:
                setattr(self.actor, name, decoder(tp)(bytes(self.fields[name])))

    async def run(self) -> bytes:
        if not self.begun:
            self._go(self.actor.begin())
            await self._seal()
        while True:
            if isinstance(self.state, Done):
                return encode(self.state.value, where=f"the result of actor {self.definition.name!r}")
            if isinstance(self.state, Fail):
                raise self.state.error
            if self.state is not None:
                await self._work()
            else:
                await self._listen()

    async def _work(self) -> None:
        """One turn of the state that is next."""
        handler = self.states[message_name(type(self.state))]
        self._go(await self._handle(handler, self.state))
        await self._seal()

    async def _listen(self) -> None:
        """One message."""
        letter = await self.life.next_mail()
        mail = letter.mail
        handler = self.messages.get(mail.name)
        reply: Mail | None = None
        if handler is None:
            known = ", ".join(sorted(self.messages)) or "none"
            text = f"actor {self.definition.name!r} takes no {mail.name!r}; it takes {known}"
            log.warning("run %s: %s", self.life.id, text)
            reply = self._reply(mail, None, Failure("builtins:TypeError", text, encode([text])))
        else:
            self.life.callers = mail.callers
            reply = await self._answer(handler, mail)
            self.life.callers = ()
        self.life.close_letter(letter, reply)
        await self._seal()

    async def _answer(self, handler: Handler, mail: Mail) -> Mail | None:
        try:
            result = await self._handle(handler, decoder(handler.takes)(mail.value or b"null"))
            if not handler.is_request:
                self._go(result)
                return None
            if isinstance(result, Answer):
                self._go(result.then)
                result = result.value
            value = encode(result, where=f"the answer of {self.definition.name}.{handler.method}")
            return self._reply(mail, value, None)
        except Exception as error:  # the caller gets it; the actor goes on as it was before
            self._restore()
            if not handler.is_request:
                log.exception("run %s: %s.%s failed", self.life.id, self.definition.name, handler.method)
            return self._reply(mail, None, to_failure(error))

    def _reply(self, mail: Mail, value: bytes | None, error: Failure | None) -> Mail | None:
        if mail.reply is None:
            return None
        number = self.life.next_number()
        return Mail(
            mail.reply.run,
            self.life.id,
            number,
            "result",
            "",
            value,
            error,
            call=mail.reply,
            at=self.life.now(),
        )

    async def _handle(self, handler: Handler, what: Any) -> Any:
        branch = current("handler")
        branch.path = (
            f"/{handler.method}.{self.turns}"  # so that no two calls of an actor's life have one place
        )
        self.turns += 1
        outer = branch.run.config
        if handler.mode is not None:
            branch.run.config = Config(mode=handler.mode).over(outer)
        method = getattr(self.actor, handler.method)
        try:
            if handler.is_async:
                return await method(what)
            return await self.life.off_loop(lambda: method(what))
        finally:
            branch.run.config = outer

    def _go(self, result: Any) -> None:
        """What a handler returned says what is next."""
        if result is Again or isinstance(result, Again):
            return
        if result is None or result is Listen or isinstance(result, Listen):
            self.state = None
        elif isinstance(result, Done | Fail) or message_name(type(result)) in self.states:
            self.state = result
        else:
            raise BadSignature(
                self.definition.name,
                f"a handler returned {result!r}, which is no state of it",
                "return a state, Listen(), Again(), Done(…) or Fail(…)",
            )

    async def _seal(self) -> None:
        """Commit the turn; the last one is the commit that ends the run."""
        if isinstance(self.state, Done | Fail):
            return
        where = self.definition.name
        self.fields = {
            name: msgspec.Raw(encode(getattr(self.actor, name), where=f"{where}.{name}"))
            for name in self.definition.durable
        }
        checkpoint = _Checkpoint(
            self.fields,
            "" if self.state is None else message_name(type(self.state)),
            msgspec.Raw(encode(self.state, where=f"a state of {where}")),
            self.turns,
        )
        await self.life.seal(msgspec.json.encode(checkpoint))


def _targets(fn: Any) -> list[Any]:
    """The states that a handler's return annotation names."""
    hints = typing.get_type_hints(fn)
    out = []
    for part in members(hints.get("return")) or (hints.get("return"),):
        kind = typing.get_origin(part) or part
        if isinstance(kind, type) and kind not in (Listen, Again, Done, Fail, object, type(None)):
            out.append(kind)
    return out
