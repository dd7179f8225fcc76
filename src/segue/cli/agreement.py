"""How far two sets of values agree: row by row, and field by field."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import Any

import msgspec

#: Pairs of short values that differ are counted up to so many kinds.
KINDS = 10_000
#: A value longer than this as JSON, in characters, isn't counted among the kinds.
SHORT = 60


class Row(msgspec.Struct, frozen=True):
    """A row of one side. `value` is there if `problem` is empty; `seconds` is negative where it isn't known.

    `loose`: it is a text of a table, which says a number or a truth as well as a text.
    """

    key: str
    value: Any = None
    problem: str = ""
    seconds: float = -1.0
    loose: bool = False


class Share(msgspec.Struct, frozen=True):
    """`equal` of `rows`, and between which shares that is likely to lie of more such rows (Wilson, 95 in 100)."""

    equal: int
    rows: int

    @property
    def share(self) -> float | None:
        return self.equal / self.rows if self.rows else None

    @property
    def likely(self) -> tuple[float, float] | None:
        if not self.rows:
            return None
        z, n, p = 1.96, self.rows, self.equal / self.rows
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        wide = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, middle - wide), min(1.0, middle + wide)


class Difference(msgspec.Struct, frozen=True):
    """A row on which the sides differ; `fields` are those that do, of values that are objects."""

    key: str
    fields: list[str]
    a: Any
    b: Any


class Agreement:
    """What is counted while rows pass: those on both sides with a value on each are compared, no others."""

    def __init__(self, *, labels: bool = False) -> None:
        self.labels = labels  # of an object of `b`, only its fields count
        self.rows = self.equal = 0
        self.fields: dict[str, list[int]] = {}  # by name: equal, of so many
        self.kinds: Counter[tuple[str, str, str]] = Counter()
        self.only_a = self.only_b = self.no_value_a = self.no_value_b = 0

    def add(self, a: Row | None, b: Row | None) -> Difference | None:
        """Count a row; how it differs, if it does."""
        if a is None or b is None:
            self.only_a += b is None
            self.only_b += a is None
            return None
        self.no_value_a += bool(a.problem)
        self.no_value_b += bool(b.problem)
        if a.problem or b.problem:
            return None
        self.rows += 1
        differ = self._fields(a.value, b) if _both_objects(a.value, b.value) else []
        if _both_objects(a.value, b.value):
            alike = not differ
        else:
            alike = same(a.value, b.value, loose=b.loose)
        if alike:
            self.equal += 1
            return None
        for name in differ or [""]:
            self._count_kind(
                name, a.value.get(name) if name else a.value, b.value.get(name) if name else b.value
            )
        return Difference(a.key, differ, a.value, b.value)

    def _fields(self, a: dict[str, Any], b: Row) -> list[str]:
        """The names of fields that differ; one that a side lacks differs from all values."""
        names = b.value if self.labels else {**a, **b.value}
        differ = []
        for name in names:
            tally = self.fields.setdefault(name, [0, 0])
            tally[1] += 1
            if name in a and name in b.value and same(a[name], b.value[name], loose=b.loose):
                tally[0] += 1
            else:
                differ.append(name)
        return differ

    def _count_kind(self, name: str, a: Any, b: Any) -> None:
        kind = (name, as_text(a), as_text(b))
        if max(map(len, kind)) <= SHORT and (kind in self.kinds or len(self.kinds) < KINDS):
            self.kinds[kind] += 1


def _both_objects(a: Any, b: Any) -> bool:
    return isinstance(a, dict) and isinstance(b, dict)


def same(a: Any, b: Any, *, loose: bool = False) -> bool:
    """Whether two JSON values are equal: `1` and `1.0` are, `1` and `true` aren't. `loose`: see `Row`."""
    if loose and isinstance(b, str) and not isinstance(a, str):
        return as_text(a).lower() == b.strip().lower() or _number(a) == _number(b) is not None
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name], loose=loose) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, loose=loose) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def as_text(value: Any) -> str:
    """A JSON value for people: a text as it is."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class Times:
    """How long rows took, in seconds."""

    def __init__(self) -> None:
        self._all = array("d")

    def add(self, seconds: float) -> None:
        if seconds >= 0:
            self._all.append(seconds)

    def at(self, share: float) -> float | None:
        """That within which such a share of the rows was done."""
        if not self._all:
            return None
        ranked = sorted(self._all)
        return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1 if share else 0)]
