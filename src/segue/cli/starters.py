"""Those who started runs that failed, and what became of them."""

from __future__ import annotations

from typing import NamedTuple

from ..core.replay import Place
from ..model.errors import Damaged
from ..model.run import ENDED, Head
from ..ports.store import Store
from ..runtime.wake.rebase import entries_of


class _Calls(NamedTuple):
    """What one has in its journal of others that it started, by their openings."""

    failed: frozenset[Place]  #: calls whose outcome was that run's
    left: frozenset[Place]  #: runs that go on by themselves, and that it didn't wait for


class Starters:
    """Looked at once each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ends: dict[str, int] = {}  # when each ended, as one that is over it
        self._calls: dict[str, _Calls] = {}

    async def got_over(self, failed: Head) -> bool:
        """Whether who started that run and waited for it ended later, and otherwise: it caught the error, or was
        resumed and began another run. One that failed too may have been got over itself."""
        if (parent := failed.spec.parent) is None:
            return False
        if parent.run not in self._ends:
            head = await self._store.get(parent.run)
            over = head is not None and head.status in ENDED
            if head is not None and head.status == "failed":
                over = await self.got_over(head)
            self._ends[parent.run] = head.finished if head is not None and over else 0
        if not 0 < failed.finished < self._ends[parent.run]:
            return False
        return (parent.path, parent.n) not in (await self._calls_of(parent.run)).left

    async def want(self, failed: Head) -> bool:
        """Whether somebody may still take what that run would come to. Who had it as an outcome of its own call, as of
        `segue.map`, begins another one when it makes that call anew."""
        if (parent := failed.spec.parent) is None:
            return True
        calls = await self._calls_of(parent.run)
        return (parent.path, parent.n) not in calls.failed and not await self.got_over(failed)

    async def _calls_of(self, run: str) -> _Calls:
        if run not in self._calls:
            self._calls[run] = await self._read(run)
        return self._calls[run]

    async def _read(self, run: str) -> _Calls:
        if await self._store.get(run) is None:
            return _Calls(frozenset(), frozenset())
        try:
            entries = await entries_of(self._store, run)
        except Damaged:
            return _Calls(frozenset(), frozenset())
        failed = [entry.opening for entry in entries if entry.kind == "child" and entry.error is not None]
        awaited = {entry.args for entry in entries if entry.kind == "join"}
        spawned = [entry for entry in entries if entry.kind == "spawn"]
        left = [entry.opening for entry in spawned if entry.value not in awaited]
        return _Calls(frozenset(failed), frozenset(left))
