"""The newest deltas of an actor: how what changes next is written together with them.

Waking is as dear by the row as by the byte, and a commit writes a page of a file however little is new on it. So what
is new goes into the row of the newest delta as long as that is short, and once there are many short ones behind one
another, all of them become one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from .checkpoint import Delta, Kin, read_delta, write_delta
from .splices import Splice, Splices

#: How long a delta becomes, in bytes: a part of what it is of, but neither so short that there are many, nor longer
#: than what fits a page of SQLite's. (Several on a page are as good where many actors share it.)
SHORT, LONG, PART = 1000, 3900, 64
#: So many short ones become one.
MANY = 64

#: How much of a field's text is as it was, in front and at the back, by field.
Reach = dict[str, tuple[int, int]]
#: What a field's text is now, but for so much in front and at the back.
Between = Callable[[str, int, int], bytes]


class Stored(NamedTuple):
    """A delta to be stored, in the place of how many of the newest ones, and of how many bytes."""

    delta: bytes
    replaces: int
    gone: int


class Tail:
    """The newest deltas as they are stored."""

    __slots__ = ("_fields", "_kin", "_open", "_short", "_size", "_splices", "_unread", "_weight")

    def __init__(self, deltas: Sequence[bytes] = ()) -> None:
        self._open = False  # whether the newest may be gone on with; what it is then
        self._short: list[tuple[int, Reach]] = []  # sizes of those that may become one, and what they changed
        # The newest first. They are read once one is added, which most wakes don't.
        self._unread = [*takewhile(_is_short, reversed(deltas[-MANY:]))]

    def _read(self) -> None:
        short, self._unread = self._unread, []
        for stored in reversed(short):
            delta = read_delta(stored)
            self._count(delta, len(stored))
            if stored is short[0]:
                self._keep(delta, stored)

    def add(self, delta: Delta, whole: int, between: Between) -> Stored:
        """How one more is stored. `whole`: bytes of what it is a change of."""
        if self._unread:
            self._read()
        stored = write_delta(delta)
        room = min(max(whole // PART, SHORT), LONG)
        if self._open and self._weight + len(stored) <= room:
            return self._go_on(delta)
        if len(self._short) >= MANY:
            if (one := self._as_one(delta, between)) is not None:
                return one
            del self._short[0]
        self._count(delta, len(stored))
        self._keep(delta, stored)
        return Stored(stored, 0, 0)

    def _count(self, delta: Delta, size: int) -> None:
        """One more is stored."""
        if size > LONG or (reach := _reach(delta)) is None:
            self._short.clear()
        else:
            self._short.append((size, reach))

    def _keep(self, delta: Delta, stored: bytes) -> None:
        """It is the newest."""
        self._open, self._size = len(stored) <= LONG and not delta.family, len(stored)
        if self._open:
            self._splices, self._kin, self._fields = Splices(delta.splices), delta.kin, delta.fields
            self._weight = (
                self._size - len(delta.head) - len(delta.fields)
            )  # but for what the next one has anew

    def _go_on(self, delta: Delta) -> Stored:
        """In the row of the newest."""
        gone, splices = self._size, self._splices
        if delta.fields:
            splices.clear()
        for splice in delta.splices:
            splices.add(splice)
        kin = _together(self._kin, delta.kin)
        delta = Delta(delta.head, list(splices), kin=kin, fields=delta.fields or self._fields)
        stored = write_delta(delta)
        del self._short[-1:]
        self._count(delta, len(stored))
        self._keep(delta, stored)
        return Stored(stored, 1, gone)

    def _as_one(self, delta: Delta, between: Between) -> Stored | None:
        """In one row with all that are short; None where that would be longer than they are."""
        reach = _reach(delta)
        if reach is None:
            return None
        for _, other in self._short:
            reach = _least(reach, ((name, *kept) for name, kept in other.items()))
        splices: list[Splice] = [(name, *kept, between(name, *kept)) for name, kept in reach.items()]
        stored = write_delta(Delta(delta.head, splices))
        many, gone = len(self._short), sum(size for size, _ in self._short)
        if len(stored) > 2 * gone:
            return None
        self._short.clear()
        self._open = False
        return Stored(stored, many, gone)


def _is_short(stored: bytes) -> bool:
    return len(stored) <= LONG


def _reach(delta: Delta) -> Reach | None:
    """What it changed, if that is nothing but texts."""
    if delta.fields or delta.kin or delta.family:
        return None
    return _least({}, ((name, front, back) for name, front, back, _ in delta.splices))


def _least(reach: Reach, others: Iterable[tuple[str, int, int]]) -> Reach:
    """What two have changed."""
    out = dict(reach)
    for name, front, back in others:
        kept = out.get(name)
        out[name] = (front, back) if kept is None else (min(front, kept[0]), min(back, kept[1]))
    return out


def _together(earlier: list[Kin], later: list[Kin]) -> list[Kin]:
    """What became of each child last; one that went and came again has both, since it is at another place then."""
    if not later:
        return earlier
    out: dict[tuple[str, bool], Kin] = {}
    for one in (*earlier, *later):
        if isinstance(one, str):
            out.pop((one, True), None)
            out[one, False] = one
        else:
            out[one.id, True] = one
    return list(out.values())
