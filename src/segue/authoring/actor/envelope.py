"""How a message is carried out. A note or a request has its handler called; an envelope says itself what is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, dataclass_transform

from ..mail import message_name
from ..message import Note, Request

if TYPE_CHECKING:
    from .supervisor import Supervisor

#: Every envelope that was defined, by the name under which it travels.
ENVELOPES: dict[str, type[Envelope]] = {}


class Turn(Protocol):
    """What an envelope may do with the actor that it came to."""

    @property
    def supervisor(self) -> Supervisor:
        """The actor's children."""
        ...

    @property
    def at_work(self) -> str:
        """The method that is carried out meanwhile, and waits; empty if none is."""
        ...

    def handler(self, kind: str, takes: type[Any], /) -> Callable[[Any], Awaitable[Any]]:
        """The actor's method that was marked with that kind and takes that type. Raises `TypeError` if it has none."""
        ...

    def hurry(self) -> None:
        """Ask the handler at work to stop, if it is a plain one: `segue.should_stop()` is true in it."""
        ...

    async def settled(self) -> None:
        """Wait until no handler is at work."""
        ...

    async def abort(self) -> None:
        """Cut off the handler at work, if any: the fields are as before it, and `rollback` has been called."""
        ...


@dataclass_transform()
class Envelope:
    """A message that says itself how it is carried out. Its annotated fields are what it carries.

    An `urgent` one comes before all mail that isn't, and while a handler waits. What `carry_out` returns is next; None
    changes nothing. Of an envelope that is a `Request` too, it is the answer.
    """

    urgent: ClassVar[bool] = False

    def __init_subclass__(cls, *, frozen: bool = False, kw_only: bool = False, **how: Any) -> None:
        if issubclass(cls, Note | Request):  # which do that themselves
            how |= {"frozen": frozen, "kw_only": kw_only}
            super().__init_subclass__(**how)
        else:
            super().__init_subclass__(**how)
            dataclasses.dataclass(cls, frozen=frozen, kw_only=kw_only)
        ENVELOPES[message_name(cls)] = cls

    async def carry_out(self, actor: Any, turn: Turn, /) -> object:
        """Do what is to be done; what it calls is recorded, as in a handler."""
        raise NotImplementedError
