"""Rebase: a run goes on under changed code and takes from its old journal what still fits."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from ..model.entry import MODEL, Entry, Pool
from .encoding import digest as digest_of
from .journal import merged

#: Added to the number of a paid call whose place another one has taken, as often as it takes.
ELSEWHERE = 1 << 32
#: How the arguments of a later turn of a conversation begin: with the number of the turn that it goes on from.
_AFTER = re.compile(rb'\{"after":(\d+),')


class Pooled:
    """The outcomes that a rebased run may still take. Each is used once; what nobody asks for is dropped.

    A strict pool (`--rerun`, fork) matches calls of a path by name and digest, in order. Otherwise (`--keep`) one that
    asks the same comes first, then the name at the old place, which is counted from the last call that was taken there,
    and then the name on the path. Of model calls, whose name says nothing, it is the next behind that one. A later turn
    of a conversation is found where the turn before it was, and nowhere else.
    """

    def __init__(self, pool: Pool) -> None:
        self.strict, self.repeat, self.told = pool.strict, pool.repeat, pool.told
        self.revived, self.unsure = pool.revived, pool.unsure
        self._awaited = {(child.path, child.n): child for child in pool.awaited}
        self._spent = {(entry.path, entry.name) for entry in pool.spent}
        self._left = dict(enumerate(merged(pool.entries)))
        self._order = {id(entry): number for number, entry in self._left.items()}
        self._stood: dict[tuple[str, int], int] = {}  # by where a call stands that took one: where that stood
        self._last: dict[str, tuple[int, int]] = {}  # the same of the last on each path
        made = [entry for entry in self._left.values() if entry.made]
        self._open = {(entry.path, entry.n, entry.digest) for entry in made}
        self._still = set[tuple[str, int]]()  # where calls stand that were open there already
        self._by_place: dict[tuple[str, int], int] = {}
        self._by_check: dict[tuple[_Name, bytes], deque[int]] = {}
        self._by_name: dict[_Name, deque[int]] = {}
        for number, entry in sorted(self._left.items(), key=_place):
            self._by_place.setdefault((entry.path, entry.n), number)
            self._by_check.setdefault((_named(entry), entry.digest), deque()).append(number)
            self._by_name.setdefault(_named(entry), deque()).append(number)

    def take(self, path: str, n: int, kind: str, name: str, digest: bytes, args: bytes = b"") -> Entry | None:
        """The entry for a call that the code makes, if one fits and is unused."""
        before = goes_on_from(kind, args)
        if before >= 0:
            stood = self._stood.get((path, before), -1)
            if stood < 0:
                return None
            args = _going_on_from(stood, args)
            before, digest = stood, digest_of(args)
        named = path, kind, name, before
        number = self._first(self._by_check.get((named, digest)))
        if number is None and not self.strict:
            number = self._by(n, named)
        if number is None:
            return None
        entry = self._left.pop(number)
        self._stood[path, n] = entry.n
        self._last[path] = n, entry.n % ELSEWHERE
        if entry.made and entry.n == n:
            self._still.add((path, n))
        return entry

    def _by(self, n: int, named: _Name) -> int | None:
        """The one of that name at the old place, or else the first; of model calls the next."""
        path, kind, *_ = named
        now, then = self._last.get(path, (-1, -1))
        alike = self._by_name.get(named)
        if kind in MODEL:
            return self._first(alike, then)
        there = self._by_place.get((path, n - now + then), -1)
        if there in self._left and _named(self._left[there]) == named:
            return there
        return self._first(alike)

    def _first(self, queue: deque[int] | None, behind: int = -1) -> int | None:
        """The first that is left, of those that stood behind that place."""
        while queue and queue[0] not in self._left:
            queue.popleft()
        left = (number for number in queue or () if number in self._left)
        return next((number for number in left if self._left[number].n % ELSEWHERE > behind), None)

    def spend(self, entries: Iterable[Entry]) -> None:
        """Count as used what calls took in earlier lives, of which these are the records."""
        for entry in sorted(entries, key=lambda entry: (entry.path, entry.n)):
            self.take(entry.path, entry.n, entry.kind, entry.name, entry.digest, entry.args)

    def order(self, entry: Entry) -> tuple[int, int]:
        """Where an outcome stood in the old journal."""
        return entry.batch if entry.given_up < 0 else entry.given_up, self._order[id(entry)]

    def waits(self, path: str, n: int) -> bool:
        """Whether nobody took the call of that place so far, and it has no outcome yet."""
        entry = self._left.get(self._by_place.get((path, n), -1))
        return entry is not None and entry.made

    def was_open(self, path: str, n: int, digest: bytes) -> bool:
        """Whether that call was waiting at that place before the rebase, and is the one that waits there now."""
        if self.strict:
            return (path, n, digest) in self._open
        return (path, n) in self._still

    def awaited(self, path: str, n: int, name: str, digest: bytes) -> str:
        """The id of the child that this call waits for already; empty if there is none."""
        child = self._awaited.get((path, n))
        if child is None or child.name != name or (self.strict and child.digest != digest):
            return ""
        return child.id

    def unused(self, taken: Collection[tuple[str, int]] = ()) -> list[Entry]:
        """What nobody asked for so far, to stand beside the calls at the places that are `taken`.

        A call whose place is taken gets another one, and turns of a conversation go on from where the turn before them
        is then. Of calls that wait for their outcome, which comes to their old place, those are left out.
        """
        places = set(taken)
        now = {(path, stood): n for (path, n), stood in self._stood.items()}
        out: dict[int, Entry] = {}
        for number, entry in sorted(self._left.items(), key=lambda item: item[1].n % ELSEWHERE):
            n, before = entry.n, goes_on_from(entry.kind, entry.args)
            while (entry.path, n) in places:
                n += ELSEWHERE
            after = now.get((entry.path, before), -1)
            if before >= 0 > after or (entry.made and (n, after) != (entry.n, before)):
                continue
            places.add((entry.path, n))
            now[entry.path, entry.n] = n
            if after != before:
                args = _going_on_from(after, entry.args)
                entry = msgspec.structs.replace(entry, args=args, digest=digest_of(args))
            out[number] = msgspec.structs.replace(entry, n=n)
        return [out[number] for number in sorted(out)]

    def blocks(self, path: str, name: str) -> bool:
        """Whether a call of that name was made on the path, whose outcome nobody takes: it would be repeated."""
        if self.repeat:
            return False
        unused = any(entry.path == path and entry.name == name for entry in self._left.values())
        return unused or (path, name) in self._spent


_Name = tuple[str, str, str, int]


def _named(entry: Entry) -> _Name:
    return entry.path, entry.kind, entry.name, goes_on_from(entry.kind, entry.args)


def goes_on_from(kind: str, args: bytes) -> int:
    """The number of the turn before, of a later turn of a conversation; else -1."""
    found = _AFTER.match(args) if kind == "generate" else None
    return -1 if found is None else int(found[1])


def _going_on_from(before: int, args: bytes) -> bytes:
    return _AFTER.sub(b'{"after":%d,' % before, args, count=1)


def _place(item: tuple[int, Entry]) -> tuple[str, int]:
    return item[1].path, item[1].n
