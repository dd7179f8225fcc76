"""Rebase: a run goes on under changed code and takes from its old journal what still fits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ..model.entry import Entry, Pool
from .journal import merged


class Pooled:
    """The outcomes that a rebased run may still take. Each is used once; what nobody asks for is dropped.

    A strict pool (`--rerun`, fork) matches calls of a path by name and digest, in order. Otherwise (`--keep`)
    the name at the old place is enough, and then the name on the path.
    """

    def __init__(self, pool: Pool) -> None:
        self.strict, self.repeat, self.told = pool.strict, pool.repeat, pool.told
        self.revived, self.unsure = pool.revived, pool.unsure
        self._awaited = {(child.path, child.n): child for child in pool.awaited}
        self._spent = {(entry.path, entry.name) for entry in pool.spent}
        self._left = dict(enumerate(merged(pool.entries)))
        self._order = {id(entry): number for number, entry in self._left.items()}
        made = [entry for entry in self._left.values() if entry.made]
        self._open = {(entry.path, entry.n, entry.digest if self.strict else b"") for entry in made}
        self._by_place: dict[tuple[str, int], int] = {}
        self._by_check: dict[tuple[str, str, str, bytes], deque[int]] = {}
        for number, entry in sorted(self._left.items(), key=_place):
            self._by_place.setdefault((entry.path, entry.n), number)
            self._by_check.setdefault(self._check(entry), deque()).append(number)

    def take(self, path: str, n: int, kind: str, name: str, digest: bytes) -> Entry | None:
        """The entry for a call that the code makes, if one fits and is unused."""
        if not self.strict:
            number = self._by_place.get((path, n), -1)
            there = self._left.get(number)
            if there is not None and (there.kind, there.name) == (kind, name):
                return self._left.pop(number)
        queue = self._by_check.get((path, kind, name, digest if self.strict else b""))
        while queue:
            entry = self._left.pop(queue.popleft(), None)
            if entry is not None:
                return entry
        return None

    def spend(self, entries: Iterable[Entry]) -> None:
        """Count as used what calls took in earlier lives, of which these are the records."""
        for entry in sorted(entries, key=lambda entry: (entry.path, entry.n)):
            self.take(entry.path, entry.n, entry.kind, entry.name, entry.digest)

    def order(self, entry: Entry) -> tuple[int, int]:
        """Where an outcome stood in the old journal."""
        return entry.batch if entry.given_up < 0 else entry.given_up, self._order[id(entry)]

    def waits(self, path: str, n: int) -> bool:
        """Whether nobody took the call of that place so far, and it has no outcome yet."""
        entry = self._left.get(self._by_place.get((path, n), -1))
        return entry is not None and entry.made

    def was_open(self, path: str, n: int, digest: bytes) -> bool:
        """Whether that call was waiting at that place before the rebase."""
        return (path, n, digest if self.strict else b"") in self._open

    def awaited(self, path: str, n: int, name: str, digest: bytes) -> str:
        """The id of the child that this call waits for already; empty if there is none."""
        child = self._awaited.get((path, n))
        if child is None or child.name != name or (self.strict and child.digest != digest):
            return ""
        return child.id

    def unused(self) -> list[Entry]:
        """What nobody asked for so far."""
        return list(self._left.values())

    def blocks(self, path: str, name: str) -> bool:
        """Whether a call of that name was made on the path, whose outcome nobody takes: it would be repeated."""
        if self.repeat:
            return False
        unused = any(entry.path == path and entry.name == name for entry in self._left.values())
        return unused or (path, name) in self._spent

    def _check(self, entry: Entry) -> tuple[str, str, str, bytes]:
        return entry.path, entry.kind, entry.name, entry.digest if self.strict else b""


def _place(item: tuple[int, Entry]) -> tuple[str, int]:
    return item[1].path, item[1].n
