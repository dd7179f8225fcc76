"""Places for work of one kind, taken in the order in which they were asked for."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

#: Who waits for longer, in seconds, tells what for.
LONG: Final = 1.0


class Room:
    """So many places. `what` each of them is: "a thread"."""

    def __init__(self, size: int, what: str) -> None:
        self._free, self._why = size, f"{what}: none of {size} is free"
        self._queue: deque[Future[None]] = deque()

    def enter_at_once(self) -> bool:
        """Take one, to be left again, if one is free: then nobody waits."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def enter(self, told: Callable[[str], None] | None = None) -> None:
        """Take one when it is one's turn; `told` is called where that takes long."""
        if self.enter_at_once():
            return
        loop = asyncio.get_running_loop()
        turn: Future[None] = loop.create_future()
        self._queue.append(turn)
        alarm = None if told is None else loop.call_later(LONG, told, self._why)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was given one the moment it was called off
            raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def leave(self) -> None:
        """Give one back, to who has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    @asynccontextmanager
    async def place(self, told: Callable[[str], None] | None = None) -> AsyncGenerator[None]:
        """One, as long as this is open."""
        await self.enter(told)
        try:
            yield
        finally:
            self.leave()
