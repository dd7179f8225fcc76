"""Live things that runs share: clients, pools, connections. One a process, never an argument."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from ..model.errors import NotInRun
from .context import Services, find_branch

T = TypeVar("T")

#: The engine around a step, which has no branch.
SERVICES: ContextVar[Services | None] = ContextVar("segue_services", default=None)


def resource(fn: Callable[[], AsyncIterator[T]], /) -> Callable[[], Coroutine[Any, Any, T]]:
    """Make an async generator function a resource: made at the first `await it()`, closed with the engine.

    Use it inside steps and flows; what it gives isn't recorded.
    """

    @functools.wraps(fn)
    async def get() -> T:
        branch = find_branch()
        services = SERVICES.get() if branch is None else branch.run.services
        if services is None:
            raise NotInRun(getattr(fn, "__name__", "resource"))
        value: T = await services.get_resource(fn)
        return value

    return get
