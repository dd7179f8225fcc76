"""Telling whoever watches."""

from __future__ import annotations

from .context import current


async def emit(event: object, /) -> None:
    """Tell whoever watches the run something, as plain JSON values. It isn't recorded, and silent in a replay."""
    branch = current("emit")
    branch.run.emit(event, branch.path)
