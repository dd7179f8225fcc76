"""Work for another process: named, with its arguments as JSON, so that nothing need be pickled."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import msgspec

from ..model.errors import BadSignature

T = TypeVar("T")

#: Where a plain function runs: on a thread of this process, or in one of several other processes.
Pool = Literal["thread", "process"]


class Named(msgspec.Struct, array_like=True):
    """A call that another process of this program can make.

    `module` and `name` lead to a step's function or an actor's class, whose definition takes `data` and `how` in
    `carry_out` and gives the result as JSON; `key` is what `segue.idempotency_key()` gives; `label` is for people.
    """

    module: str
    name: str
    data: bytes
    label: str
    how: str = ""
    key: str = ""


class OverTime(TimeoutError):
    """Work took longer than it may, and was given up."""


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """What it gives. Raises `OverTime` if that isn't there in time."""
    if seconds is None:
        return await work
    bound = asyncio.timeout(seconds)
    try:
        async with bound:
            return await work
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise OverTime from error


def named(thing: Callable[..., Any]) -> tuple[str, str]:
    """The module and the name under which another process finds a function or class. Raises `BadSignature`."""
    thing = inspect.unwrap(thing)
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not module or not name or "<" in name:
        raise BadSignature(
            name or repr(thing),
            "pool='process' needs something that another process can import",
            "define it at the top of a module, under a name, and not as a lambda",
        )
    return module, name


def side_by_side() -> bool:
    """Whether threads of this interpreter run side by side, so that they do what processes are for."""
    enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return enabled is not None and not enabled()
