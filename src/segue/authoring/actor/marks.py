"""How an actor's class is written: its fields, and what its methods are for; read when the class is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ...model.mode import ModeLike

F = TypeVar("F", bound=Callable[..., Any])


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


class Mark(msgspec.Struct):
    """What a method was marked as."""

    kind: str
    mode: Any = None


def state(fn: Any = None, /, *, mode: ModeLike | None = None) -> Any:
    """The handler of a state: its argument's type names the state; what it returns is what comes next."""
    return _mark(fn, Mark("state", mode))


def on(fn: Any = None, /, *, mode: ModeLike | None = None) -> Any:
    """The handler of a message: its argument's type names the message."""
    return _mark(fn, Mark("on", mode))


def _mark(fn: Any, mark: Mark) -> Any:
    def put(fn: F) -> F:
        fn.__segue_mark__ = mark  # type: ignore[attr-defined]  # read when the class is made
        return fn

    return put if fn is None else put(fn)
