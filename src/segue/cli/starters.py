"""Those who started runs that failed, and what became of them."""

from __future__ import annotations

from ..model.errors import Damaged
from ..model.run import ENDED, Head
from ..ports.store import Store
from ..runtime.wake.rebase import entries_of


class Starters:
    """Looked at once each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ends: dict[str, int] = {}  # when each ended, as one that is over it
        self._failed: dict[str, set[tuple[str, int]]] = {}  # their calls, by what started others

    async def got_over(self, failed: Head) -> bool:
        """Whether who started that run ended later, and otherwise: it caught the error, or was resumed and began
        another run. One that failed too may have been got over itself."""
        if (parent := failed.spec.parent) is None:
            return False
        if parent.run not in self._ends:
            head = await self._store.get(parent.run)
            over = head is not None and head.status in ENDED
            if head is not None and head.status == "failed":
                over = await self.got_over(head)
            self._ends[parent.run] = head.finished if head is not None and over else 0
        return 0 < failed.finished < self._ends[parent.run]

    async def want(self, failed: Head) -> bool:
        """Whether somebody may still take what that run would come to. Who had it as an outcome of its own call, as of
        `segue.map`, begins another one when it makes that call anew."""
        if (parent := failed.spec.parent) is None:
            return True
        if parent.run not in self._failed:
            self._failed[parent.run] = await self._failed_calls(parent.run)
        return (parent.path, parent.n) not in self._failed[parent.run] and not await self.got_over(failed)

    async def _failed_calls(self, run: str) -> set[tuple[str, int]]:
        if await self._store.get(run) is None:
            return set()
        try:
            entries = await entries_of(self._store, run)
        except Damaged:
            return set()
        return {entry.opening for entry in entries if entry.kind == "child" and entry.error is not None}
