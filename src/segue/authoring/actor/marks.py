"""How an actor's class is written: its fields, and what its methods are for; read when the class is first used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, Unpack, overload

import msgspec

from ...core.retry import Retry
from ...model.mode import ModeLike
from ..pooled import Pool

F = TypeVar("F", bound=Callable[..., Any])


def field(
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    durable: bool = True,
    kw_only: bool = False,
) -> Any:
    """A field of an actor; one that isn't `durable` is set anew at each wake."""
    how: dict[str, Any] = {"metadata": {"durable": durable}, "kw_only": kw_only}
    if default is not dataclasses.MISSING:
        how["default"] = default
    if default_factory is not dataclasses.MISSING:
        how["default_factory"] = default_factory
    return dataclasses.field(**how)


class Mark(msgspec.Struct):
    """What a method was marked as, and how it is to be carried out."""

    kind: str
    mode: ModeLike | None = None
    retry: int | Retry = 1
    timeout: timedelta | None = None
    every: timedelta | None = None
    pool: Pool = "thread"


class OnOptions(TypedDict, total=False):
    """How a message is handled. `timeout` bounds one attempt, parked time included."""

    retry: int | Retry
    timeout: timedelta
    mode: ModeLike


class StateOptions(OnOptions, total=False):
    """How a state is carried out. `every`: after `Again()`, the next round begins that long after the last began."""

    every: timedelta
    pool: Pool


@overload
def state(fn: F, /) -> F: ...
@overload
def state(**options: Unpack[StateOptions]) -> Callable[[F], F]: ...
def state(fn: Any = None, /, **options: Any) -> Any:
    """The handler of a state: its argument's type names the state, or several; what it returns is what comes next.

    `retry`: so many attempts, or a `Retry`; each begins with the fields as they were before, and the pauses are
    durable. `timeout` bounds an attempt. `every` spaces the rounds of a state that returns `Again()`. `mode` is
    how its model calls are carried out. A plain function runs on a thread, or with `pool="process"` in another process:
    fields and state go there and back as JSON, and it waits for nothing there.
    """
    return _mark(fn, Mark("state", **options))


@overload
def on(fn: F, /) -> F: ...
@overload
def on(**options: Unpack[OnOptions]) -> Callable[[F], F]: ...
def on(fn: Any = None, /, **options: Any) -> Any:
    """The handler of a message: its argument's type names the message, or several: `AddUrl | DeleteUrl`.

    Options are as those of `state`.
    """
    return _mark(fn, Mark("on", **options))


def fallback(fn: F, /) -> F:
    """What is done when a state or message fails for good: `async def f(self, state: S, error: E) -> …`.

    It is called with the fields as they were before, for errors of its type; of several that fit, the first in the
    class. What it returns counts as the handler's own, and so does what it raises.
    """
    marked: F = _mark(fn, Mark("fallback"))
    return marked


class Kind:
    """A kind of method of a user's own, which an `Envelope` of theirs finds by `turn.handler(kind, type)`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, fn: F, /) -> F:
        marked: F = _mark(fn, Mark(self.name))
        return marked

    def __repr__(self) -> str:
        return f"segue.kind({self.name!r})"


def kind(name: str, /) -> Kind:
    """Make a decorator that marks methods as handlers of a kind of your own."""
    if name in ("state", "on", "fallback"):
        raise ValueError(f"{name!r} is a kind of segue's own; choose another name")
    return Kind(name)


def _mark(fn: Any, mark: Mark) -> Any:
    def put(fn: F) -> F:
        fn.__segue_mark__ = mark  # type: ignore[attr-defined]  # read when the class is used
        return fn

    return put if fn is None else put(fn)
