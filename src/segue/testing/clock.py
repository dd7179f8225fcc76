"""A clock that doesn't wait: when all that is at work waits for it, it jumps to when the next wait is over."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

#: When virtual time begins.
START = datetime(2030, 1, 1, tzinfo=UTC)

#: Turns of the event loop without anything to do, after which nothing more comes by itself.
_CALM = 4
#: The same on a loop that doesn't show whether it has something to do, such as uvloop's.
_CALM_UNSEEN = 100
#: Turns after which code that keeps the loop turning counts as waiting (`while not done: await sleep(0)`).
_RESTLESS = 500


class VirtualTimer:
    """A callback that is due at a time of the clock."""

    __slots__ = ("callback", "cancelled", "order", "when")

    def __init__(self, when: float, order: int, callback: Callable[[], object]) -> None:
        self.when, self.order, self.callback, self.cancelled = when, order, callback, False

    def __lt__(self, other: VirtualTimer) -> bool:
        return (self.when, self.order) < (other.when, other.order)

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True


class VirtualClock:
    """Time that passes only when nothing else happens: days of durable waits take no time in a test.

    `busy`: whether something is under way that has to come first, such as a step on a thread; it is given
    the tasks that wait for this clock.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start.timestamp()
        self._timers: list[VirtualTimer] = []
        self._order = 0
        self._looking = False
        self._calm = self._turns = 0
        self.busy: Callable[[set[Task[Any]]], bool] = _never
        self.sleeping: set[Task[Any]] = set()

    def now(self) -> float:
        """Seconds since the epoch, in virtual time."""
        return self._now

    def steady(self) -> float:
        """The same: virtual time isn't set."""
        return self._now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> VirtualTimer:
        """Have `callback` called on the event loop that much later."""
        self._order += 1
        timer = VirtualTimer(self._now + max(seconds, 0.0), self._order, callback)
        heapq.heappush(self._timers, timer)
        if not self._looking:
            self._looking = True
            self._calm = self._turns = 0
            self._again(asyncio.get_running_loop())
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait that long in virtual time."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not over.done():
                over.set_result(None)

        timer = self.call_later(seconds, end)
        task = asyncio.current_task()
        try:
            if task is not None:
                self.sleeping.add(task)
            await over
        finally:
            timer.cancel()
            if task is not None:
                self.sleeping.discard(task)

    def advance(self, seconds: float) -> None:
        """Let time pass, whatever is under way."""
        self._jump(self._now + seconds)

    def _again(self, loop: AbstractEventLoop) -> None:
        loop.call_soon(self._look, loop)

    def _look(self, loop: AbstractEventLoop) -> None:
        """Jump if nothing is left to do but to wait."""
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            self._looking = False
            return
        if self.busy(self.sleeping):
            self._calm = self._turns = 0
            loop.call_later(0.001, self._look, loop)
            return
        self._turns += 1
        ready = getattr(loop, "_ready", None)
        self._calm = 0 if ready else self._calm + 1
        if self._calm >= (_CALM if ready is not None else _CALM_UNSEEN) or self._turns >= _RESTLESS:
            self._calm = self._turns = 0
            self._jump(self._timers[0].when)
        self._again(loop)

    def _jump(self, to: float) -> None:
        while self._timers and self._timers[0].when <= to:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._now = max(self._now, timer.when)
                timer.callback()
        self._now = max(self._now, to)


def _never(sleeping: set[Task[Any]]) -> bool:
    return False
