"""Rebase: a run goes on under changed code and takes from its old journal what still fits."""

from __future__ import annotations

from collections import deque

from ..model.entry import Entry, Pool
from .replay import Replay


class Pooled:
    """The outcomes that a rebased run may still take. Each is used once; what nobody asks for is dropped.

    A strict pool (`--rerun`, fork) matches calls of a path by name and digest, in order. Otherwise (`--keep`)
    the name at the old place is enough, and then the name on the path.
    """

    def __init__(self, pool: Pool) -> None:
        self.strict = pool.strict
        self._by_check: dict[tuple[str, str, str, bytes], deque[Entry]] = {}
        self._left: dict[tuple[str, int], Entry] = {}
        for entry in Replay(pool.entries, 0.0).calls.values():
            self._left[entry.path, entry.n] = entry
        for entry in sorted(self._left.values(), key=_place):
            self._by_check.setdefault(self._check(entry), deque()).append(entry)

    def take(self, path: str, n: int, kind: str, name: str, digest: bytes) -> Entry | None:
        """The entry for a call that the code makes, if one fits and is unused."""
        if not self.strict:
            there = self._left.get((path, n))
            if there is not None and (there.kind, there.name) == (kind, name):
                return self._left.pop((path, n))
        queue = self._by_check.get((path, kind, name, digest if self.strict else b""))
        while queue:
            entry = queue.popleft()
            if self._left.pop((entry.path, entry.n), None) is not None:
                return entry
        return None

    def waits(self, path: str, n: int) -> bool:
        """Whether nobody took the call of that place so far, and it has no outcome yet."""
        entry = self._left.get((path, n))
        return entry is not None and entry.made

    def unused(self) -> list[Entry]:
        """What nobody asked for so far."""
        return list(self._left.values())

    def blocks(self, path: str, name: str) -> bool:
        """Whether an unused outcome of a call of that name stands on the path: the call would be repeated."""
        return any(entry.path == path and entry.name == name for entry in self._left.values())

    def _check(self, entry: Entry) -> tuple[str, str, str, bytes]:
        return entry.path, entry.kind, entry.name, entry.digest if self.strict else b""


def _place(entry: Entry) -> tuple[str, int]:
    return entry.path, entry.n
