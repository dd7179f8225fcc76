"""Where time comes from."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The time and waiting for it; tests bring one that doesn't wait."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...
