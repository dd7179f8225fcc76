"""A live answer on its way to the SDK that asked for it as a stream."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .context import RunContext


class Passing:
    """See `context.Passing`."""

    def __init__(self, run: RunContext) -> None:
        self.call: Future[Any] | None = None
        self.began = False
        self._run = run
        self._frames: deque[bytes] = deque()
        self._last: Sequence[bytes] = ()
        self._moved: Future[Any] | None = None

    async def opened(self, call: Future[Any]) -> None:
        """Wait until the answer begins to come, or is there."""
        self.call = call
        call.add_done_callback(self._over)
        try:
            while not (self.began or call.done()):
                await self._move()
        except asyncio.CancelledError:
            call.cancel()
            raise

    def begin(self) -> None:
        self.began = True
        self._stir()

    def take(self, frames: Sequence[bytes]) -> None:
        self._frames.extend(frames)
        if self.began:
            self._stir()

    def end(self, frames: Sequence[bytes]) -> None:
        self._last = frames

    def forget(self) -> None:
        self._frames.clear()

    async def frames(self) -> AsyncIterator[bytes]:
        """The answer; its end when the journal has it. Broken off by its reader, it is recorded all the same."""
        call = self.call
        assert call is not None  # it was opened
        try:
            while True:
                while self._frames:
                    yield self._frames.popleft()
                if call.done():
                    break
                await self._move()
        except asyncio.CancelledError:
            self._run.unread(call)
            raise
        call.result()
        for frame in self._last:
            yield frame

    async def _move(self) -> None:
        """Wait for something to come; to the run, this is a wait for a recorded call."""
        self._moved = self._run.own_wait()
        await self._moved

    def _stir(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _over(self, call: Future[Any]) -> None:
        if call.cancelled():
            return
        call.exception()  # it is told of to whoever reads on
        self._stir()
