"""The two clocks that a simulator runs on."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time

from segue.model.errors import InvalidValue

__all__ = ["SystemClock", "VirtualClock"]


class SystemClock:
    """The machine's own time; with `speed` it runs so much faster from now on. Raises `InvalidValue`."""

    def __init__(self, speed: float = 1.0) -> None:
        if not 0 < speed < math.inf:
            raise InvalidValue("the speed of a clock", "a number above 0", "it is none", repr(speed))
        self._speed = speed
        self._began = time.time()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._began + (time.time() - self._began) * self._speed

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await asyncio.sleep(seconds / self._speed)


class VirtualClock:
    """A time that stands still until it is moved; sleepers wake when it has passed their moment."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Seconds since the epoch, as far as this clock is concerned."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved that far."""
        if seconds <= 0:
            return await asyncio.sleep(0)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken

    def move_to(self, moment: float) -> None:
        """Set the time; it never goes back."""
        self._now = max(self._now, moment)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
