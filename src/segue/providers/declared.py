"""Providers of a program's own, by the name before the colon in a model's name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TypeVar, overload

from ..model.errors import Conflict, InvalidValue
from ..ports.provider import Endpoint, Provider
from .compatible import COMPATIBLE
from .native import NATIVE

Make = Callable[[Endpoint], Provider]
M = TypeVar("M", bound=Make)

DECLARED: dict[str, Make] = {}
_NAME = re.compile(r"[A-Za-z][\w.-]*\Z")


@overload
def provider(make: M, /) -> M: ...
@overload
def provider(*, name: str) -> Callable[[M], M]: ...
def provider(make: M | None = None, /, *, name: str = "") -> M | Callable[[M], M]:
    """Declare a provider: a function from an `Endpoint` to who speaks for it; its name is `name`, or the function's.

    Every engine of a process that has imported it knows the provider, those of the command line too. Raises
    `InvalidValue` for a name that can't be one, and `Conflict` where another file has declared one of that name.
    """
    if make is None:
        return lambda made: _declare(made, name)
    return _declare(make, name)


def _declare(make: M, name: str) -> M:
    if not callable(make):
        raise InvalidValue("a provider", "a function that takes an Endpoint", "it isn't called", repr(make))
    name = name or getattr(make, "__name__", "")
    if not _NAME.match(name):
        raise InvalidValue(
            "a provider's name", "a word, as before the colon of a model", "it is none", repr(name)
        )
    if name in COMPATIBLE or name in NATIVE:
        raise InvalidValue(
            "a provider's name", "one of its own", f"{name!r} is there; give another, @segue.provider(name=…)"
        )
    there = DECLARED.get(name)
    if there is not None and _file(there) != _file(make):
        raise Conflict(
            f"provider {name!r} is declared in {_file(there)} and in {_file(make)}: name one otherwise"
        )
    DECLARED[name] = make
    return make


def _file(make: Make) -> str:
    try:
        return inspect.getsourcefile(inspect.unwrap(make)) or make.__module__
    except TypeError:
        return str(getattr(make, "__module__", ""))
