"""The outcomes of one provider job on their way to the store: some are written while others are still read."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self

from ...model.lane import LineOutcome
from ...ports.provider import CallFault

#: Outcomes are stored, and runs woken, so many at a time, or so many bytes of answers.
CHUNK: Final = 1000
_BYTES: Final = 16_000_000
#: Chunks that are being written or wait for it, beside the one that is filled.
_AHEAD: Final = 2

Chunk = list[LineOutcome]


class Delivery:
    """Collects outcomes into chunks and has them stored, in order. `strange`: those that the job doesn't hold open.

    `put` stores a chunk and gives the ids of such, None if somebody else drives the lane by now.
    """

    def __init__(self, put: Callable[[Chunk], Awaitable[Sequence[str] | None]]) -> None:
        self._put = put
        self._chunk: Chunk = []
        self._size = 0
        self._under_way: deque[Task[Sequence[str] | None]] = deque()
        self.strange: list[str] = []

    def add(self, outcome: LineOutcome) -> bool:
        """One more; whether it is time to `send`."""
        self._chunk.append(outcome)
        self._size += len(outcome.value or b"")
        return len(self._chunk) >= CHUNK or self._size >= _BYTES

    async def send(self) -> None:
        """Have what is there stored, and wait until few chunks are under way."""
        if self._chunk:
            chunk, self._chunk, self._size = self._chunk, [], 0
            self._under_way.append(asyncio.ensure_future(self._store(chunk)))
            for _ in range(2):  # a download that never waits would keep it from being written meanwhile
                await asyncio.sleep(0)
        await self._until(_AHEAD)

    async def settle(self) -> None:
        """Have everything stored."""
        await self.send()
        await self._until(0)

    async def _store(self, chunk: Chunk) -> Sequence[str] | None:
        return await self._put(chunk)

    async def _until(self, left: int) -> None:
        while len(self._under_way) > left:
            self.strange += await self._under_way[0] or ()
            self._under_way.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was read whole is stored, also where a download broke off."""
        try:
            if error is None or isinstance(error, CallFault):
                await self.settle()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
