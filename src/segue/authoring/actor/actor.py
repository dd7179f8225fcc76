"""The class that users derive from."""

from __future__ import annotations

import dataclasses
import sys
import typing
from typing import TYPE_CHECKING, Any, Generic, TypeVar, dataclass_transform

from ..context import current
from ..flow import announce
from .definition import ActorDef
from .marks import field
from .nexts import Listen

R = TypeVar("R")


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
            cls.__segue__ = ActorDef(cls, _result_type(cls))
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


def _result_type(cls: type[Any]) -> Any:
    """What it is an `Actor` of."""
    for owner in cls.__mro__:
        for base in getattr(owner, "__orig_bases__", ()):
            if typing.get_origin(base) is Actor and not isinstance(typing.get_args(base)[0], TypeVar):
                return typing.get_args(base)[0]
    return object
