"""What is asked of values that people hand in, where a type checker may not have looked."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from datetime import timedelta
from difflib import get_close_matches
from math import inf
from typing import Any

from .errors import InvalidValue


def seconds(where: str, value: Any) -> float:
    """A duration in seconds. Raises `InvalidValue` for anything but a `timedelta`: a number alone says no unit."""
    if not isinstance(value, timedelta):
        raise InvalidValue(where, "a timedelta, such as timedelta(seconds=5)", _kind(value), repr(value))
    return value.total_seconds()


def moment(value: timedelta | None, where: str, now: float) -> float:
    """When it is over that long from now, in seconds since the epoch; 0 for never."""
    return 0.0 if value is None else now + seconds(where, value)


#: What no database holds in a text.
_UNFIT = re.compile("[\0\ud800-\udfff]")


def text(where: str, value: Any) -> None:
    """Raises `InvalidValue` for anything but a text: what records hold as one couldn't be read again."""
    if not isinstance(value, str):
        raise InvalidValue(where, "a text", _kind(value), repr(value))
    if found := _UNFIT.search(value):
        raise InvalidValue(where, f"a text without {found[0]!a}", "it has one", repr(value))


def one_of(where: str, value: Any, allowed: Collection[str]) -> None:
    """Raises `InvalidValue` for anything else."""
    if value not in allowed:
        wanted = " or ".join(map(repr, allowed))
        raise InvalidValue(where, wanted, "it is something else", repr(value))


def count(where: str, value: Any, least: int = 1) -> None:
    """Raises `InvalidValue` for anything but a whole number from `least` on."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValue(where, "a whole number", _kind(value), repr(value))
    if value < least:
        raise InvalidValue(where, f"a whole number from {least} on", "it is less", repr(value))


def amount(where: str, value: Any) -> None:
    """Raises `InvalidValue` for anything but a number from 0 on."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidValue(where, "a number", _kind(value), repr(value))
    if not 0 <= value < inf:
        raise InvalidValue(where, "a number from 0 on", "it is less, or none", repr(value))


def function(what: str, fn: Any) -> None:
    """Raises `TypeError` for what can't be a step or a flow, whatever it is called with."""
    if isinstance(fn, staticmethod):
        raise TypeError(
            f"@segue.{what} stands above @staticmethod on {_name(fn.__func__)}(); put it below, next to the function"
        )
    if isinstance(fn, classmethod) or _takes_its_class(fn):
        name = _name(getattr(fn, "__func__", fn))
        raise TypeError(
            f"{name}() takes its class, which can't be recorded; put a @staticmethod above @segue.{what}, or make "
            f"it a function outside the class"
        )
    if not callable(fn):
        named = f"; a name is given as name={fn!r}" if isinstance(fn, str) else ""
        raise TypeError(f"segue.{what}() takes a function, not {fn!r}{named}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        others = "tell of them with segue.emit()" if what == "flow" else "leave it plain, with steps in it"
        raise TypeError(
            f"{_name(fn)}() yields, and a {what} gives one result: return a list of what it yields, or {others}"
        )


def _takes_its_class(fn: Any) -> bool:
    """Whether a function of a class has an argument `cls`, as one below @classmethod does."""
    if "." not in getattr(fn, "__qualname__", "").rpartition("<locals>.")[2]:
        return False
    code = getattr(fn, "__code__", None)
    return code is not None and code.co_varnames[:1] == ("cls",) and code.co_argcount > 0


def _name(fn: Any) -> str:
    return str(getattr(fn, "__qualname__", fn)).replace("<locals>.", "")


def options(verb: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises `TypeError`, as Python does for a parameter that isn't there, for an option that isn't known."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known))}"
            raise TypeError(f"{verb} got an unexpected option {name!r}; {meant}")


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"it is {'an' if name[0] in 'aeiou' else 'a'} {name}"
