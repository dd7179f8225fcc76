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
        """Seconds since the epoch: the wall clock, which may be set back or forward while a process runs."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...


class AlarmClock(Clock, Protocol):
    """A clock that rings: what an engine runs on."""

    def steady(self) -> float:
        """Seconds since some moment, at the pace of `sleep`: nobody sets it. For waits that end with the process."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Have `callback` called on the event loop that much later."""
        ...
