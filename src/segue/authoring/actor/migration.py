"""How what is stored of an actor is read by a class that has changed since."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ...core.codec import decode, decoder, encode
from ...model.errors import InvalidValue, SegueError, StateMismatch
from ...model.message import CAUGHT_UP, Letter
from ...model.run import Spec
from ..failures import own_error
from ..flow import target_named
from .checkpoint import Checkpoint, Texts, read_texts
from .fields import as_read

if TYPE_CHECKING:
    from .definition import ActorDef

_NULL = msgspec.Raw(b"null")


@dataclasses.dataclass
class Stored:
    """What is stored of an actor, to be changed in place by its class's `migrate`.

    `fields`: JSON values by name. `state`: the name of the state that is next, "" if it listens, and `data`: that
    state as JSON. `version`: the `version` of the class that wrote it; "" if that declared none.
    """

    fields: dict[str, Any]
    state: str
    data: Any
    version: str


class Read:
    """An actor as it was read, from the `texts` of its fields. `changed`: from something else than what is stored."""

    def __init__(self, definition: ActorDef, stored: Checkpoint, texts: Texts, run: str) -> None:
        self.changed, self.texts = False, texts
        migrate = getattr(definition.cls, "migrate", None)
        try:
            if migrate is not None and not _fits(definition, stored, texts):
                self._migrate(definition, stored, run, migrate)
            try:
                self._read(definition, stored)
            except (InvalidValue, _Gone):
                if migrate is None or self.changed:
                    raise
                self._migrate(definition, stored, run, migrate)
                self._read(definition, stored)
        except SegueError as error:
            _refuse(run, definition, error)
        #: Fields that the class no longer has.
        self.dropped = sorted(self.texts.keys() - definition.durable.keys())
        self.changed = self.changed or bool(self.dropped)

    def _read(self, definition: ActorDef, stored: Checkpoint) -> None:
        values = definition.read(self.texts)
        missing = [name for name in definition.required if name not in values]
        if missing:
            raise _Gone(f"it has no {', '.join(missing)} yet, and the class has no default for that")
        self.fields = as_read(definition, self.texts, values)  # before its __post_init__() may change them
        self.actor: Any = definition.cls(**values)
        self.state: Any = None
        if stored.state:
            handler = definition.handlers.states.get(stored.state)
            if handler is None:
                raise _Gone(f"its next state is {stored.state}, and the class has no handler for that")
            self.state = handler.read(bytes(stored.data))

    def _migrate(self, definition: ActorDef, stored: Checkpoint, run: str, migrate: Any) -> None:
        state: Any = decode(bytes(stored.data)) if stored.state else None
        fields = {name: decode(bytes(text)) for name, text in self.texts.items()}
        old = Stored(fields, stored.state, state, stored.version)
        try:
            migrate(old)
        except BaseException as error:
            own_error(error)  # raises a person's Ctrl-C
            problem = f"migrate() raised {type(error).__name__}: {error}"
            raise StateMismatch(run, definition.name, problem) from error
        where = f"what {definition.name}.migrate() left"
        self.texts = read_texts(encode(old.fields, where=where))
        stored.state = old.state
        stored.data = msgspec.Raw(encode(old.data, where=where)) if old.state else _NULL
        self.changed = True


class _Gone(SegueError):
    """The class lacks something."""


def find(definition: ActorDef, stored: Checkpoint, run: str, look: Callable[[str], Any]) -> ActorDef:
    """Whose fields these are. Raises `StateMismatch`."""
    if not stored.actor:
        return definition
    found: ActorDef | None = look(stored.actor) or target_named(stored.actor)
    if found is None:
        problem = f"it goes on as {stored.actor}, which isn't here; import the file that defines it"
        raise StateMismatch(run, definition.name, problem)
    return found


def first(spec: Spec, definition: ActorDef) -> tuple[Checkpoint, Texts]:
    """An actor that hasn't begun, and its fields apart."""
    version = spec.version if definition.declared else ""
    fields = msgspec.Raw(spec.args)
    return Checkpoint(fields, fresh=True, at=spec.created, version=version), read_texts(fields)


#: What is a message to an actor's code; other mail is the engine's.
_MESSAGES = ("tell", "request", "urgent", "event", "subscribe")


def why_unread(definition: ActorDef, letter: Letter) -> str:
    """Why an actor of that class couldn't read a letter that waits for it; "" if it can, or did."""
    mail = letter.mail
    if letter.kept or mail.kind not in _MESSAGES or mail.name == CAUGHT_UP:
        return ""
    handlers = definition.handlers
    handler, envelope = handlers.messages.get(mail.name), handlers.envelope(mail.name)
    if handler is None and envelope is None:
        return "no handler takes it"
    try:
        (decoder(envelope) if handler is None else handler.read)(mail.value or b"null")
    except InvalidValue as error:
        return error.problem
    except Exception as error:  # a class's own, in what it does with what it is made of
        return f"{type(error).__name__}: {error}"
    return ""


def _fits(definition: ActorDef, stored: Checkpoint, texts: Texts) -> bool:
    """Whether it is of the class as it is now, as far as can be seen without reading it."""
    if definition.declared:
        return stored.version == definition.declared
    return texts.keys() == definition.durable.keys()


def _refuse(run: str, definition: ActorDef, error: SegueError) -> NoReturn:
    if isinstance(error, StateMismatch):
        raise error
    raise StateMismatch(run, definition.name, str(error)) from error
