"""Where time comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What `call_later` gives, to call it off."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The time and waiting for it; tests bring one that doesn't wait."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...


class AlarmClock(Clock, Protocol):
    """A clock that rings: what an engine runs on."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Have `callback` called on the event loop that much later."""
        ...
