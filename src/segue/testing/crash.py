"""Crashes without a process: a store that stops taking writes, as if the process had died at that moment."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any

from ..ports.store import CommitResult, Store, Turn

_WRITES: dict[str, Any] = {
    "claim": [],
    "create": None,
    "deliver": None,
    "outcomes": None,
    "take": None,
    "put_batch_job": False,
    "claim_lane": None,
}


class Mortal:
    """A store as one process sees it, up to the commit at which that process dies.

    `die_at`: the number of the commit, from 1, that is never written; with `after=True` it is written and
    the process dies before it hears of it. From then on nothing is written, and every claim counts as lost.
    Closing it leaves the store open for the next life.
    """

    def __init__(self, store: Store, die_at: int | None, *, after: bool = False) -> None:
        self.inner, self.die_at, self.after = store, die_at, after
        self.commits = 0
        self.dead = False
        self.died: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        if self.dead and name in _WRITES:
            result = _WRITES[name]

            async def nothing(*args: Any, **kwargs: Any) -> Any:
                return result if result is not None or name != "deliver" else ["gone"] * len(args[0])

            return nothing
        return getattr(self.inner, name)

    async def open(self) -> None:
        """The store outlives its processes."""
        if self.commits == 0:
            await self.inner.open()

    async def close(self) -> None:
        """The store outlives its processes."""

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        """As the store's, until death."""
        if not self.dead:
            self.commits += 1
            if self.commits != self.die_at:
                return self.inner.commit(turns)
            self.dead = True
            asyncio.get_running_loop().call_soon(self.died)
            if self.after:
                self.inner.commit(turns)
        lost: Future[list[CommitResult]] = asyncio.get_running_loop().create_future()
        lost.set_result(["fenced" for _ in turns])
        return lost
