"""Work for another process: named, with its arguments as JSON, so that nothing need be pickled."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ..model.errors import BadSignature

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
    """Work in another process took longer than it may, and was ended."""


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
