"""What runs have behind them in the store in memory: shelved, packed, and dropped in time."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import islice

import msgspec

from ...model.entry import BLOB, Pool
from ...ports.store import History
from .past import Contents, Past, next_over, seal
from .run import Run


class Archive:
    """Which runs have a past that is to be packed, or dropped."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._archived: dict[str, Run] = {}  #: those with archived rows to be sealed
        self._sealed: list[tuple[float, int, Run]] = []  #: when packed ones aren't kept any longer

    def put(self, run: Run, blobs: Sequence[tuple[bytes, bytes]]) -> None:
        """Contents that came with a turn."""
        for digest, content in blobs:
            self._contents.put(digest, content)
        run.digests = [*(run.digests or ()), *(digest for digest, _ in blobs)]

    def same(self, content: bytes) -> bytes:
        """That content; a large one that came with a turn isn't kept twice."""
        return content if len(content) <= BLOB else self._contents.same(content)

    def sharing(self, pool: Pool) -> Pool:
        """That pool; none of its large values is kept twice."""
        entries = [
            entry
            if entry.value is None or (value := self.same(entry.value)) is entry.value
            else msgspec.structs.replace(entry, value=value)
            for entry in pool.entries
        ]
        return msgspec.structs.replace(pool, entries=entries)

    def shelve(self, run: Run) -> None:
        """What is live of its journal is past."""
        if run.shelve():
            self._archived[run.id] = run

    def lose(self, run: Run) -> None:
        """It is removed."""
        past, run.past = run.past or Past(), None
        held = [run.digests or [], past.digests, *(one.digests for one in past.packed)]
        self._contents.let_go([digest for digests in held for digest in digests])
        self._archived.pop(run.id, None)

    def history(self, run: Run, rows: bool) -> History:
        """Its turns so far."""
        live, past = run.journal or [], run.past or Past()
        return History([*past.archived(), *live] if rows else [], past.count(), past.dropped)

    def sweep(self, now: float, limit: int) -> int:
        """Pack and drop; how many runs there were to see to."""
        over: list[Run] = []
        while self._sealed and self._sealed[0][0] <= now and len(over) < limit:
            over.append(heappop(self._sealed)[2])
        some = [*over, *islice(self._archived.values(), limit - len(over))]
        for run in some:
            self._archived.pop(run.id, None)
            if seal(run, self._contents, now):
                self._archived[run.id] = run
            due = None if run.past is None else next_over(run.past)
            if due is not None:
                heappush(self._sealed, (due, run.number, run))
        return len(some)
