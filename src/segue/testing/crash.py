"""Crashes without a process: a store that stops taking writes, as if the process had died at that moment."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any

from ..model.budget import Standing
from ..model.message import Mail
from ..ports.store import CommitResult, Delivery, Landed, Store, Turn
from ..stores.memory import MemoryStore

#: What a dead process gets for its writes; it can do no harm with that.
_DEAD: dict[str, Callable[..., Any]] = {
    "answer": lambda *args: "closed",
    "claim": lambda *args: [],
    "claim_lane": lambda *args: None,
    "create": lambda *args: None,
    "drop_dead": lambda *args: 0,
    "forget": lambda *args, **kwargs: 0,
    "fund": lambda account, limit: Standing(account, limit),
    "outcomes": lambda *args: None,
    "promote": lambda *args, **kwargs: None,
    "put_batch_job": lambda *args: False,
    "resend_dead": lambda *args: None,
    "remove": lambda runs: [False for _ in runs],
    "remove_job": lambda *args: False,
    "reserve": lambda wanted: ["gone" for _ in wanted],
    "sweep": lambda: 0,
    "take": lambda *args: None,
}
#: Writes that count, besides commits and mail, where all do.
_COUNTED = frozenset({"answer", "outcomes", "promote", "put_batch_job", "reserve", "take"})


class Mortal:
    """A store as one process sees it, up to the write at which that process dies.

    `die_at`: the number of the commit, from 1, that is never written; with `after=True` it is written and
    the process dies before it hears of it. With `every`, writes of lanes, answers, mail and budgets count too. From
    then on nothing is written, and every claim counts as lost. Closing it leaves the store open for the
    next life.
    """

    def __init__(self, store: Store, die_at: int | None, *, after: bool = False, every: bool = False) -> None:
        self.inner, self.die_at, self.after, self.every = store, die_at, after, every
        self.commits = 0
        self.dead = False
        self.died: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in _DEAD:
            return method

        async def write(*args: Any, **kwargs: Any) -> Any:
            if not self.dead:
                last = self.every and name in _COUNTED and self._counts()
                if not last:
                    return await method(*args, **kwargs)
                if self.after:
                    await method(*args, **kwargs)
            return _DEAD[name](*args)

        return write

    def _counts(self) -> bool:
        """Count a write; whether it is the last."""
        self.commits += 1
        if self.commits == self.die_at:
            self.dead = True
            asyncio.get_running_loop().call_soon(self.died)
        return self.dead

    async def open(self) -> None:
        """The store outlives its processes."""
        if self.commits == 0:
            await self.inner.open()

    async def close(self) -> None:
        """The store outlives its processes."""

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        """As the store's, until death."""
        if not self.dead:
            if not self._counts():
                return self.inner.commit(turns)
            if self.after:
                self.inner.commit(turns)
        lost: Future[list[CommitResult]] = asyncio.get_running_loop().create_future()
        lost.set_result(["fenced" for _ in turns])
        return lost

    def land(self, turn: Turn, then: Landed) -> CommitResult | None:
        """As the store's, until death."""
        if not self.dead:
            if not self._counts():
                return self.inner.land(turn, then)
            if self.after:
                self.inner.land(turn, lambda _: None)
        return "fenced"

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        """As the store's, until death."""
        if not self.dead:
            if not self._counts():
                return self.inner.append(run, fence, entries, then)
            if self.after:
                self.inner.append(run, fence, entries, lambda _: None)
        asyncio.get_running_loop().call_soon(then, "fenced")
        return False

    def deliver(self, mail: Sequence[Mail], *, now: float) -> Future[list[Delivery]]:
        """As the store's, until death."""
        if not self.dead:
            if not (self.every and self._counts()):
                return self.inner.deliver(mail, now=now)
            if self.after:
                self.inner.deliver(mail, now=now)
        lost: Future[list[Delivery]] = asyncio.get_running_loop().create_future()
        lost.set_result(["gone" for _ in mail])
        return lost


class Survivor(MemoryStore):
    """A store in memory whose claims can be let lapse at once, so that a next life need not wait for it."""

    def lapse(self) -> None:
        """Every claim, of runs and of lanes, counts as lost."""
        for run in self._runs.held.values():
            run.lease = 0.0
        self._runs.lapse = 0.0
        for lane in self._lines.lanes.values():
            lane.lease = 0.0
