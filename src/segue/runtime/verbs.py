"""Verbs whose types speak of runs; what they do is in `authoring`, which knows runs by their ids only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from enum import Enum
    from typing import Any, TypeVar, Unpack

    from ..authoring.actor.actor import Actor
    from ..authoring.config import How
    from ..core.restarts import Kind
    from .handles import Run

    R = TypeVar("R")

    async def spawn(
        call: Coroutine[Any, Any, R] | Actor[R],
        /,
        *,
        id: str = "",
        group: Enum | tuple[Enum, object] | None = None,
        restart: Kind = "transient",
        **how: Unpack[How],
    ) -> Run[R]:
        """See `authoring.mail.spawn`."""
        ...

    def me() -> Run[Any]:
        """See `authoring.mail.me`."""
        ...
else:
    from ..authoring.mail import me as me
    from ..authoring.mail import spawn as spawn
