"""Rebase: a run goes on under changed code and takes from its old journal what still fits."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Hashable, Iterable

import msgspec

from ..model.entry import MODEL, Entry, Pool
from .encoding import digest as digest_of
from .homes import ELSEWHERE, Homes
from .journal import merged
from .replay import Place

#: Calls that the world always knows by their openings. Of those to models it does where they wait for a batch.
OPENED = ("ask", "child", "request", "spawn")
#: Calls that tell by what they ask which branch makes them, once it has another number.
TELLING = ("step", "tell", "forward", *OPENED, *MODEL)
#: How the arguments of a later turn of a conversation begin: with the number of the turn that it goes on from.
_AFTER = re.compile(rb'\{"after":(\d+),')


class Pooled:
    """The outcomes that a rebased run may still take. Each is used once; what nobody asks for is dropped.

    A strict pool (`--rerun`, fork) matches calls of a path by name and digest, in order. Otherwise (`--keep`) one that
    asks the same comes first, then the name at the old place, which is counted from the last call that was taken there,
    and then the name on the path. Of model calls, whose name says nothing, it is the next behind that one. A branch
    that has another number now is known by its first call that tells; see `Homes`. A later turn of a conversation is
    found where the turn before it was, and nowhere else. `turns`: it is an actor's, see `Homes`.
    """

    def __init__(self, pool: Pool, *, turns: bool = False) -> None:
        self.strict, self.repeat, self.told = pool.strict, pool.repeat, pool.told
        self.revived, self.unsure = pool.revived, pool.unsure
        self._spent = {(entry.path, entry.name) for entry in pool.spent}
        self._left = dict(enumerate(merged(pool.entries)))
        self._alike: dict[Hashable, set[str]] = {}  # the paths of calls, by what was asked and heard
        self._order = {id(entry): number for number, entry in self._left.items()}
        self._stood: dict[Place, Place] = {}  # by where a call stands that took one: where that stood
        self._last: dict[str, tuple[int, int]] = {}  # the same of the last on each path
        self._meant: dict[Place, tuple[_Check, int]] = {}  # for calls that are about to be made
        self._taken: set[int] = set()  # by those
        self._homes = Homes(turns=turns)
        self._paths: dict[tuple[str, bytes], dict[str, None]] = {}  # by shape and what was asked there
        self._by_opening: dict[Place, int] = {}
        self._by_place: dict[Place, int] = {}
        self._by_check: dict[tuple[_Name, bytes], deque[int]] = {}
        self._by_name: dict[_Name, deque[int]] = {}
        for number, entry in sorted(self._left.items(), key=_place):
            self._by_place.setdefault((entry.path, entry.n), number)
            self._by_check.setdefault((_named(entry), entry.digest), deque()).append(number)
            self._by_name.setdefault(_named(entry), deque()).append(number)
            if entry.opened is not None or (_is_known(entry) and entry.opening not in self._by_opening):
                self._by_opening[entry.opening] = number

    def take(self, path: str, n: int, kind: str, name: str, digest: bytes, args: bytes = b"") -> Entry | None:
        """The entry for a call that the code makes, if one fits and is unused."""
        number = self._find(path, n, kind, name, digest, args)
        self._meant.pop((path, n), None)
        self._taken.discard(number)
        return self._hand(path, n, number) if number >= 0 else None

    def _hand(self, path: str, n: int, number: int) -> Entry:
        entry = self._left[number]
        self._stood[path, n] = entry.path, entry.n
        if self._tells(entry):
            self._homes.settle(path, entry.path, entry.n)
        if entry.path == self._homes.of(path):
            self._last[path] = n, entry.n % ELSEWHERE
        del self._left[number]
        return entry

    def _tells(self, entry: Entry) -> bool:
        """Whether a call shows which branch made it: no other of that shape asked the same and heard the same."""
        if entry.kind not in TELLING or not entry.path:
            return False
        if not self._alike:
            for one in self._left.values():
                self._alike.setdefault(self._heard(one), set()).add(one.path)
        return entry.made or len(self._alike[self._heard(entry)]) == 1

    def _heard(self, entry: Entry) -> Hashable:
        shape = self._homes.shape(entry.path)
        return shape, entry.kind, entry.name, entry.digest, entry.value, entry.error

    def find(self, path: str, n: int, kind: str, name: str, digest: bytes, args: bytes) -> Entry | None:
        """The entry that the code's next call there is to take, if it is this one. No other call gets it meanwhile."""
        number = self._find(path, n, kind, name, digest, args)
        self._meant[path, n] = (kind, name, digest), number
        self._taken.add(number)
        found = self._left.get(number)
        if found is not None and self._tells(found):
            self._homes.settle(path, found.path, found.n)
        return found

    def _find(self, path: str, n: int, kind: str, name: str, digest: bytes, args: bytes) -> int:
        """The number of an entry that fits; -1 if none does."""
        if (path, n) in self._meant:
            check, meant = self._meant[path, n]
            if check == (kind, name, digest):
                return meant
            del self._meant[path, n]
            self._taken.discard(meant)
        home, before = self._homes.of(path), goes_on_from(kind, args)
        if before >= 0:
            home, before = self._stood.get((path, before), (home, -1))
            if before < 0:
                return -1
            args = _going_on_from(before, args)
            digest = digest_of(args)
        named = home, kind, name, before
        number = self._first(self._by_check.get((named, digest)))
        if number is None and before < 0 and kind in TELLING and self._homes.may_move(path):
            number = self._in_another_branch(path, kind, name, digest)
        if number is None and not self.strict:
            number = self._by(path, n, named)
        return -1 if number is None else number

    def _in_another_branch(self, path: str, kind: str, name: str, digest: bytes) -> int | None:
        """The same call in a branch that had another number, or that went before another branch came to its place."""
        if not self._paths:
            for entry in sorted(self._left.values(), key=lambda entry: self._homes.order(entry.path)):
                self._paths.setdefault((self._homes.shape(entry.path), entry.digest), {})[entry.path] = None
        homes = self._paths.get((self._homes.shape(path), digest), {})
        elsewhere: int | None = None
        for home in list(homes):
            alike = self._by_check.get(((home, kind, name, -1), digest), ())
            left = [number for number in alike if number in self._left]
            if not left:
                del homes[home]  # for good: nothing comes back
            left = [number for number in left if number not in self._taken]
            number = next((i for i in left if self._homes.is_another(home, self._left[i].n)), None)
            if number is not None and self._homes.is_beside(path, home):
                return number
            elsewhere = number if elsewhere is None else elsewhere
        return elsewhere

    def _by(self, path: str, n: int, named: _Name) -> int | None:
        """The one of that name at the old place, or else the first; of model calls the next."""
        home, kind, *_ = named
        now, then = self._last.get(path, (-1, -1))
        alike = self._by_name.get(named)
        if kind in MODEL:
            return self._first(alike, then)
        there = self._by_place.get((home, n - now + then), -1)
        if self._is_left(there) and _named(self._left[there]) == named:
            return there
        return self._first(alike)

    def _first(self, queue: deque[int] | None, behind: int = -1) -> int | None:
        """The first that is left, of those that stood behind that place."""
        while queue and queue[0] not in self._left:
            queue.popleft()
        left = (number for number in queue or () if self._is_left(number))
        return next((number for number in left if self._left[number].n % ELSEWHERE > behind), None)

    def _is_left(self, number: int) -> bool:
        return number in self._left and number not in self._taken

    def spend(self, entries: Iterable[Entry]) -> None:
        """Count as used what calls took in earlier lives, of which these are the records."""
        for entry in sorted(entries, key=lambda entry: (entry.path, entry.n)):
            number = -1 if entry.opened is None else self._by_opening.get(entry.opened, -1)
            known = self._left.get(number)
            if known is not None and (known.kind, known.name) == (entry.kind, entry.name):
                self._hand(entry.path, entry.n, number)
            else:
                self.take(entry.path, entry.n, entry.kind, entry.name, entry.digest, entry.args)

    def order(self, entry: Entry) -> tuple[int, int]:
        """Where an outcome stood in the old journal."""
        return entry.batch if entry.given_up < 0 else entry.given_up, self._order[id(entry)]

    def waits(self, path: str, n: int) -> bool:
        """Whether nobody took the call of that opening so far, and it has no outcome yet."""
        entry = self._left.get(self._by_opening.get((path, n), -1))
        return entry is not None and entry.made

    def unused(self, taken: Collection[Place] = ()) -> list[Entry]:
        """What nobody asked for so far, to stand beside the calls at the places that are `taken`.

        A call whose place is taken gets another one, and turns of a conversation go on from where the turn before them
        is then.
        """
        places = set(taken)
        now = {stood: place for place, stood in self._stood.items()}
        out: dict[int, Entry] = {}
        for number, entry in sorted(self._left.items(), key=lambda item: item[1].n % ELSEWHERE):
            path, n = self._homes.now(entry.path), entry.n
            before = after = goes_on_from(entry.kind, entry.args)
            if before >= 0:
                path, after = now.get((entry.path, before), (path, -1))
                if after < 0:
                    continue
            while (path, n) in places:
                n += ELSEWHERE
            places.add((path, n))
            now[entry.path, entry.n] = path, n
            if after != before:
                args = _going_on_from(after, entry.args)
                entry = msgspec.structs.replace(entry, args=args, digest=digest_of(args))
            opened = entry.opening if _is_known(entry) else entry.opened
            out[number] = msgspec.structs.replace(entry, path=path, n=n, opened=opened)
        return [out[number] for number in sorted(out)]

    def blocks(self, path: str, name: str) -> bool:
        """Whether a call of that name was made on the path, whose outcome nobody takes: it would be repeated."""
        if self.repeat:
            return False
        home = self._homes.of(path)
        unused = any(entry.path == home and entry.name == name for entry in self._left.values())
        return unused or (home, name) in self._spent


_Name = tuple[str, str, str, int]
_Check = tuple[str, str, bytes]


def _named(entry: Entry) -> _Name:
    return entry.path, entry.kind, entry.name, goes_on_from(entry.kind, entry.args)


def _is_known(entry: Entry) -> bool:
    """Whether the world knows the call by its opening, or did."""
    return entry.made or entry.kind in OPENED


def goes_on_from(kind: str, args: bytes) -> int:
    """The number of the turn before, of a later turn of a conversation; else -1."""
    found = _AFTER.match(args) if kind == "generate" else None
    return -1 if found is None else int(found[1])


def _going_on_from(before: int, args: bytes) -> bytes:
    return _AFTER.sub(b'{"after":%d,' % before, args, count=1)


def _place(item: tuple[int, Entry]) -> Place:
    return item[1].path, item[1].n
