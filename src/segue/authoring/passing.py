"""A live answer on its way to the SDK that asked for it as a stream."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from .context import RunContext


class Passing:
    """See `context.Passing`, and `context.Reader`.

    Its pieces come one at a time, each when the code is at rest: so what other tasks do between two of them is the same
    live, as they come, and where the answer is there whole.
    """

    def __init__(self, run: RunContext) -> None:
        self.call: Future[Any] | None = None
        self.began = False
        self.came: list[bytes] = []
        self._run = run
        self._frames: deque[bytes] = deque()
        self._last: Sequence[bytes] = ()
        self._over = False  # all that will come is there
        self._opens: Future[Any] | None = None
        self._wants: Future[Any] | None = None

    async def opened(self, call: Future[Any]) -> None:
        """Wait until the answer begins to come, or is there."""
        self.call = call
        call.add_done_callback(self._done)
        try:
            while not (self.began or call.done()):
                self._opens = self._run.own_wait()
                await self._opens
        except asyncio.CancelledError:
            call.cancel()
            raise

    def begin(self) -> None:
        self.began = True
        self._open()

    def take(self, frames: Sequence[bytes]) -> None:
        self._frames.extend(frames)
        self.came.extend(frames)
        self._come()

    def end(self, frames: Sequence[bytes]) -> None:
        self._last = frames

    def forget(self) -> None:
        self._frames.clear()
        self.came.clear()

    def whole(self, frames: Iterable[bytes]) -> None:
        """It is there already; these are the pieces that it would have come in."""
        self._frames, self._over = deque(frames), True

    async def frames(self) -> AsyncIterator[bytes]:
        """The answer; its end when the journal has it. Broken off by its reader, it is recorded all the same."""
        call = self.call
        assert call is not None  # it was opened
        try:
            while (frame := await self._next()) is not None:
                yield frame
        except asyncio.CancelledError:
            self._run.unread(call)
            raise
        call.result()

    async def _next(self) -> bytes | None:
        """The next piece; None at the end. To the run, this is a wait for a recorded call."""
        self._wants = self._run.own_wait()
        self._run.reads(self)
        frame: bytes | None = await self._wants
        return frame

    @property
    def waits(self) -> bool:
        return self._wants is not None and not self._wants.done()

    @property
    def ready(self) -> bool:
        return bool(self._frames) or self._over

    def give(self) -> None:
        assert self._wants is not None  # it waits
        self._wants.set_result(self._frames.popleft() if self._frames else None)

    def _open(self) -> None:
        if self._opens is not None and not self._opens.done():
            self._opens.set_result(None)

    def _come(self) -> None:
        if self.waits:
            self._run.reads(self)

    def _done(self, call: Future[Any]) -> None:
        if call.cancelled():
            return
        if call.exception() is None:  # that is told of to whoever reads on
            self._frames.extend(self._last if self.began else ())
        self._over = self.began
        self._open()
        self._come()
