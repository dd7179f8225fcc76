"""What is known of an actor class: its fields and handlers, checked, and where they lead."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import typing
from collections.abc import Callable, Set
from datetime import timedelta
from enum import Enum, EnumMeta
from typing import Any, ClassVar, Literal

import msgspec

from ...core.codec import decoder, encode, encode_stable
from ...core.restarts import Restart
from ...core.signature import InputShape
from ...model.errors import BadSignature, InvalidValue, NotEncodable, StateMismatch
from ...model.mode import Config
from ...ports.store import Claimed
from ..failures import as_step_failed
from ..flow import fingerprint
from ..message import Mailbox
from ..pooled import Named
from . import answers, elsewhere, graph
from .checkpoint import Texts, read_texts
from .driver import Driver
from .growth import trust_of
from .handlers import Handler, Handlers, read_handlers
from .life import Life
from .standing import Standing

log = logging.getLogger("segue")

#: What a class may replace of `Actor`.
HOOKS = ("setup", "begin", "teardown", "failed", "rollback", "interrupted", "finished", "perform")
_ACTOR = f"{__package__}.actor"
#: What a class may say of itself: the type, and an example.
_SETTINGS: dict[str, tuple[type[Any], str]] = {
    "mailbox": (Mailbox, "`mailbox = segue.Mailbox(100)`"),
    "groups": (EnumMeta, "`groups = Floor`, which is an Enum"),
    "restart": (Restart, '`restart = segue.Restart("one")`'),
    "grace": (timedelta, "`grace = timedelta(seconds=30)`"),
}


class ActorDef:
    """What is known of an actor class."""

    kind: ClassVar[Literal["flow", "actor"]] = "actor"

    def __init__(self, cls: type[Any], result: Any, name: str = "") -> None:
        self.cls, self.result_type = cls, result
        self.name, self.named = name or cls.__qualname__.replace("<locals>.", ""), bool(name)
        self.module = self.file = ""
        _check_names(cls, self.name)
        self.groups: type[Enum] | None = getattr(cls, "groups", None)
        self.restart: Restart = getattr(cls, "restart", None) or Restart()
        self.grace: timedelta = cls.grace
        #: Which hooks it has of its own.
        self.own = frozenset(name for name in HOOKS if getattr(cls, name).__module__ != _ACTOR)
        mailbox = getattr(cls, "mailbox", None)
        self.mailbox = mailbox if isinstance(mailbox, Mailbox) else None
        #: How long its past turns are kept, where the class, or one that it is made of, says so.
        self.history: timedelta | None = getattr(cls, "__segue_history__", None)
        self.simple = "perform" not in self.own  #: whether handlers are just called
        self._told = set[str]()  # what handlers set that is no field

    @functools.cached_property
    def quick(self) -> dict[str, Handler]:
        """The handlers of messages that need nothing but to be called, by the name of what they take."""
        messages = self.handlers.messages if self.simple else {}
        return {name: handler for name, handler in messages.items() if handler.quick}

    @functools.cached_property
    def ranks(self) -> list[str]:
        """The names of its groups, in order: that of their numbers where they are such, else as they stand there."""
        groups: list[Any] = list(self.groups or ())
        if self.groups is not None and issubclass(self.groups, int):
            groups.sort()
        return [group.name for group in groups]

    @property
    def version(self) -> str:
        """What the class declares, or a fingerprint of its source."""
        if not self._version:
            self._version = self.declared or fingerprint(self.cls)
        return self._version

    _version = ""
    options: Config | None = None  #: its handlers have theirs

    def read_result(self, value: bytes) -> Any:
        """Its result, typed by what it is an `Actor` of."""
        return decoder(self.result_type, f"the result of actor {self.name!r}")(value)

    # ------------------------------------------------------------ fields
    @functools.cached_property
    def durable(self) -> dict[str, Callable[[bytes], Any]]:
        """Its durable fields, and what reads each."""
        return {name: self._field_reader(name, hint) for name, hint in self._durable_hints.items()}

    @functools.cached_property
    def trusts(self) -> dict[str, int | None]:
        """How far what each durable field holds is to be trusted when it was just read; see `trust_of`."""
        return {name: trust_of(hint) for name, hint in self._durable_hints.items()}

    @functools.cached_property
    def _durable_hints(self) -> dict[str, Any]:
        try:
            hints = typing.get_type_hints(self.cls, include_extras=True)
        except NameError as error:
            raise BadSignature(
                self.name, f"an annotation can't be read: {error}", "import what it names"
            ) from None
        parts = [part for part in dataclasses.fields(self.cls) if part.metadata.get("durable", True)]
        return {part.name: hints[part.name] for part in parts}

    @functools.cached_property
    def _durable_names(self) -> Any:
        return self.durable.keys()

    def _field_reader(self, name: str, tp: Any) -> Callable[[bytes], Any]:
        cure = "give it a type that JSON can carry, or make it segue.field(durable=False)"
        try:
            return decoder(tp, f"{self.name}.{name}")
        except (BadSignature, TypeError) as error:
            raise BadSignature(f"{self.name}.{name}", f"it can't be stored: {error}", cure) from None

    def dump(self, actor: Any, write: Callable[..., bytes] = encode) -> bytes:
        """Its durable fields as a JSON object."""
        values = actor.__dict__
        if values.keys() != self._durable_names:
            values = self.values(actor)
        try:
            return write(values, where=self.name)
        except NotEncodable:
            for name, value in values.items():
                encode(value, where=f"{self.name}.{name}")  # names the field
            raise

    def values(self, actor: Any) -> dict[str, Any]:
        """Its durable fields."""
        values: dict[str, Any] = actor.__dict__
        if values.keys() != self.durable.keys():
            if strays := values.keys() - self._made_of:
                self._tell_strays(strays)
            values = {name: values[name] for name in self.durable}
        return values

    @functools.cached_property
    def _made_of(self) -> frozenset[str]:
        """All its fields, and what else an instance may hold for a while."""
        caches = [
            name
            for base in self.cls.__mro__
            for name, value in vars(base).items()
            if isinstance(value, functools.cached_property)
        ]
        return frozenset([*(part.name for part in dataclasses.fields(self.cls)), *caches])

    def _tell_strays(self, names: Set[str]) -> None:
        """Say, once each, what handlers set and no wake gets back; what `__post_init__` makes it makes at each."""
        strays = [name for name in names if not name.startswith("_")]
        if strays and not hasattr(self.cls, "__post_init__"):
            for name in sorted(set(strays) - self._told):
                log.warning(
                    "actor %s: self.%s was set and isn't kept, for it is no field: annotate it in the class, as in "
                    "`%s: int = 0`",
                    self.name,
                    name,
                    name,
                )
            self._told.update(strays)

    @functools.cached_property
    def declared(self) -> str:
        """The version that the class states."""
        version = getattr(self.cls, "version", "")
        return version if isinstance(version, str) and "version" not in self.durable else ""

    @functools.cached_property
    def required(self) -> list[str]:
        """Its durable fields without a default."""
        none = dataclasses.MISSING
        parts = dataclasses.fields(self.cls)
        found = [part.name for part in parts if part.default is none and part.default_factory is none]
        return [name for name in found if name in self.durable]

    def load(self, fields: msgspec.Raw) -> Any:
        """An instance with its stored fields; those that the class has gained take their defaults."""
        return self.cls(**self.read(read_texts(fields)))

    def restore(self, actor: Any, fields: msgspec.Raw) -> None:
        """Give an instance's fields the values that are stored."""
        for name, value in self.read(read_texts(fields)).items():
            setattr(actor, name, value)

    def read(self, stored: Texts) -> dict[str, Any]:
        """Stored fields, as far as the class has them. Raises `InvalidValue`."""
        values: dict[str, Any] = {}
        for name, read in self.durable.items():
            if name in stored:
                try:
                    values[name] = read(stored[name])
                except InvalidValue as error:
                    where = f"{self.name}.{name}"
                    raise InvalidValue(where, error.expected, error.problem, error.got) from None
        return values

    # ------------------------------------------------------------ in another process
    def carry_out(self, work: Named) -> bytes:
        """A state's turn that came from another process."""
        return elsewhere.carry_out(self, work)

    def again(self, error: BaseException) -> bool:
        """That is judged where the actor is."""
        return False

    # ------------------------------------------------------------ calls
    def encode_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """What an instance made of these arguments is started with."""
        return self.take(self.cls(*args, **kwargs))

    @property
    def shape(self) -> InputShape:
        """How calls of the class are written and read."""
        return InputShape.of(self.cls)

    def stored(self, call: bytes) -> bytes:
        """What an instance made by a call that `shape` wrote is started with."""
        args, kwargs = self.shape.decode_call(call)
        return self.encode_call(args, kwargs)

    def input_of(self, args: bytes) -> Any:
        """Its first fields, without those that have their defaults; one alone is itself."""
        first = self.load(msgspec.Raw(args))
        required = [p.name for p in self.shape.parameters if p.required]
        given = {name: getattr(first, name) for name in required}
        return next(iter(given.values())) if len(given) == 1 else given

    def check_args(self, args: bytes) -> dict[str, Any]:
        """Raise `InvalidValue` where a run of it couldn't read them; else them."""
        return self.read(read_texts(args))

    def take(self, actor: Any) -> bytes:
        """What is stored of an instance that is to be started; also checks the class."""
        self.check()
        self._check_family()
        return self.dump(actor, encode_stable)

    # ------------------------------------------------------------ handlers
    @functools.cached_property
    def handlers(self) -> Handlers:
        """Its marked methods. Raises `BadSignature`."""
        return read_handlers(self.cls, self.name)

    def check(self) -> None:
        """Raise `BadSignature` for what can't work: handlers, fields, edges, answers."""
        if not self._checked:
            graph.check_edges(self)
            answers.check_answers(self)
            self._check_init()
            self._check_settings()
            self._checked = True

    def _check_init(self) -> None:
        """Each wake makes an instance of all durable fields, by name."""
        try:
            inspect.signature(self.cls).bind(**self.durable)
        except TypeError as error:
            problem = (
                f"it can't be made of its fields ({', '.join(self.durable)}), as each wake does: {error}"
            )
            cure = "leave out __init__(): segue makes one of the fields; what follows from them is __post_init__()'s"
            raise BadSignature(self.name, problem, cure) from None

    def _check_settings(self) -> None:
        """What the class says beside fields and handlers is of the type that it is taken for. Raises `BadSignature`."""
        fields = {part.name for part in dataclasses.fields(self.cls)}
        said = {name: getattr(self.cls, name, None) for name in _SETTINGS if name not in fields}
        for name, value in said.items():
            kind, cure = _SETTINGS[name]
            if value is not None and not isinstance(value, kind):
                raise BadSignature(f"{self.name}.{name}", f"it can't be {value!r}", f"write {cure}")

    def _check_family(self) -> None:
        """What is said of children means nothing without groups, but where another class or version had some."""
        restart = isinstance(getattr(self.cls, "restart", None), Restart)
        if self.groups is None and (restart or "finished" in self.own):
            what = "a `restart`" if restart else "`finished`"
            raise BadSignature(
                self.name,
                f"it has {what} for children, and no groups to keep them in",
                "set `groups` to an Enum, and spawn children with `group=` one of it",
            )

    _checked = False

    def diagram(self, at: str = "") -> str:
        """Its graph as Mermaid text; the state `at` stands out."""
        return graph.draw(self, at)

    # ------------------------------------------------------------ a life
    async def code(self, claimed: Claimed, life: Life, here: Standing | None = None) -> bytes:
        """The coroutine that a run of it consists of: one turn after the other. `here`: where it stands, if known."""
        try:
            driver = Driver(here or Standing(self, claimed, life), claimed, life)
        except StateMismatch as error:
            await life.hold(f"{error.cause}\n{error}")
            raise
        except SystemExit as error:  # of its class's own code, which would end more than this run
            raise as_step_failed(error) from error
        try:
            return await driver.run()
        finally:
            driver.part()


def _check_names(cls: type[Any], owner: str) -> None:
    """Raise `BadSignature` where what every actor has is a field or a handler too: it'd be called as what it isn't."""
    fields = [part.name for part in dataclasses.fields(cls)]
    for name in (*HOOKS, "me"):
        if name in fields or hasattr(getattr(cls, name), "__segue_mark__"):
            what = "a field" if name in fields else "a handler"
            raise BadSignature(
                f"{owner}.{name}", f"every actor has its {name}, so it can't be {what}", "name it otherwise"
            )
