"""Stores that are slow to say what they did, or to close."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any

from segue.ports.store import CommitResult, Landed, Store, Turn
from segue.stores.memory import MemoryStore


class Lingering(MemoryStore):
    """One that takes a while to close."""

    async def close(self) -> None:
        await asyncio.sleep(0.2)
        await super().close()


class Delayed:
    """A store whose commits are answered late, each after as many seconds as `delay` says."""

    def __init__(self, inner: Store, delay: Callable[[], float]) -> None:
        self.inner, self.delay, self.at_once = inner, delay, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        """As the store's; who waits for it hears of it later."""
        loop = asyncio.get_running_loop()
        late: Future[list[CommitResult]] = loop.create_future()
        done = self.inner.commit(turns)

        def tell() -> None:
            if not late.done():
                late.set_result(done.result())

        loop.call_later(self.delay(), tell)
        return late

    def land(self, turn: Turn, then: Landed) -> None:
        """As the store's, as late."""
        loop = asyncio.get_running_loop()

        def late(result: CommitResult | BaseException) -> None:
            loop.call_later(self.delay(), then, result)

        if (result := self.inner.land(turn, late)) is not None:
            late(result)

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        """As the store's, as late."""
        loop = asyncio.get_running_loop()

        def late(result: CommitResult | BaseException) -> None:
            loop.call_later(self.delay(), then, result)

        if self.inner.append(run, fence, entries, late):
            late("committed")
        return False
