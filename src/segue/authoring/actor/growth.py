"""What of an actor's fields has changed since they were last looked at.

A field that grows by appending is looked at in time that hardly grows with it: of a list whose items can't change,
the items that were there are compared by identity, and only new ones are encoded. Whatever else is encoded anew and
compared as text, so that no change is overlooked.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import operator
import typing
import uuid
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from ...core import forms
from ...core.codec import encode
from ...model.chat import File, Message, ToolCall
from .splices import Splice

#: Shorter texts are replaced whole.
SHORT = 64

#: How far a value is to be trusted to be the same where it is the same object: not at all, yes, or even if it is equal.
CHANGES, FIXED, EXACT = range(3)

_EXACT = frozenset((str, bytes, type(None)))
_FIXED = frozenset(
    (
        *(int, float, bool, uuid.UUID, decimal.Decimal),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
        *(Message, File, ToolCall),
    )
)
_PLAIN = _EXACT | _FIXED


def trust(value: Any) -> int:
    """Whether a value can't change: `CHANGES`, `FIXED` or `EXACT`. What equals a text is that text; 1 equals True."""
    cls = type(value)
    if cls in _EXACT:
        return EXACT
    if (
        cls in _FIXED or isinstance(value, enum.Enum) or hasattr(cls, "__segue_text__")
    ):  # an address is its id
        return FIXED
    if cls is tuple or cls is frozenset:
        return _least(value) if cls is tuple else min(FIXED, _least(value))
    if isinstance(value, msgspec.Struct):
        frozen = value.__struct_config__.frozen
        return (
            min(FIXED, _least(getattr(value, name) for name in value.__struct_fields__))
            if frozen
            else CHANGES
        )
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is not None and parameters.frozen:
        return min(FIXED, _least(getattr(value, field.name) for field in dataclasses.fields(value)))
    return CHANGES


def _least(values: Iterable[Any]) -> int:
    values = values if isinstance(values, list | tuple) else list(values)
    kinds = set(map(type, values))  # mostly one, and plain
    if kinds <= _PLAIN:
        return EXACT if kinds <= _EXACT else FIXED
    least = EXACT
    for value in values:
        least = min(least, trust(value))
        if least == CHANGES:
            break
    return least


_HOLDERS = (list, tuple, dict, Sequence, MutableSequence, Mapping, MutableMapping)


def trust_of(tp: Any) -> int | None:
    """The least trust in what a list, tuple or dict holds that was just read as a `tp`; None where only a look at
    all of it tells."""
    held: set[Any] = set()
    for member in _members(tp):
        parts = typing.get_args(member)
        if forms.origin(member) in _HOLDERS and parts:
            held.update(kind for part in parts if part is not Ellipsis for kind in _members(part))
        elif member not in _PLAIN:
            return None
    if not held or not held <= _PLAIN:
        return None
    return EXACT if held <= _EXACT else FIXED


def _members(tp: Any) -> list[Any]:
    """Of a union, or the type itself."""
    return [type(None) if member is None else forms.bare(member) for member in forms.members(tp) or (tp,)]


class Change(NamedTuple):
    """Of one field. `added`: to what was there; else it was looked at whole. No `splice`: its text is the same."""

    name: str
    splice: Splice | None
    value: Any
    added: Any = None


class Field:
    """One field, as it was when it was last taken: its value and its text."""

    __slots__ = ("_items", "_trust", "_value", "text")

    def __init__(self, value: Any, text: bytes, trust: int | None = None) -> None:
        """`trust`: in what it holds, if its type tells; see `trust_of`."""
        self.text: bytes | bytearray = text
        self._items: Any = None
        self._trust = EXACT
        self._see(value, trust)

    def _see(self, value: Any, told: int | None = None) -> None:
        known, self._value, self._items = self._items, value, None
        before = EXACT if known is None else self._trust
        if type(value) is list or type(value) is tuple:
            self._trust = min(before, _least(_others(value, known))) if told is None else told
            if self._trust:
                self._items = value[:]  # of a tuple, itself
        elif type(value) is dict:
            self._trust = (
                min(before, _least(_others((*value, *value.values()), known))) if told is None else told
            )
            if self._trust:
                self._items = value.copy()
        else:
            self._trust = trust(value)

    def look(self, name: str, value: Any, where: str) -> Change | None:
        """How it has changed."""
        if value is self._value and self._trust and type(value) is not list and type(value) is not dict:
            return None
        if self._items is not None and type(value) is type(self._items):
            added = self._added(value)
            if added is not None:
                return self._append(name, value, added, where) if added else None
        elif type(value) is str and type(self._value) is str and len(self._value) >= SHORT:
            if value.startswith(self._value):
                added = value[len(self._value) :]
                return self._append(name, value, added, where)
        text = encode(value, where=f"{where}.{name}")
        if text == bytes(self.text):
            changes = self._trust == CHANGES and type(value) is type(self._value)
            return None if changes else Change(name, None, value)
        return Change(name, self._splice(name, text), value)

    def _added(self, value: Any) -> Any:
        """What a value has after the items that were there; None if these aren't there as they were."""
        items = self._items
        assert items is not None  # asked before
        count = len(items)
        if len(value) < count:
            return None
        if type(value) is dict:
            same = all(map(operator.is_, items, value)) and all(
                map(operator.is_, items.values(), value.values())
            )
            return dict(islice(value.items(), count, None)) if same else None
        if self._trust == EXACT:
            same = (value if len(value) == count else value[:count]) == items
        else:
            same = all(map(operator.is_, items, value))
        return value[count:] if same else None

    def _append(self, name: str, value: Any, added: Any, where: str) -> Change:
        if not added:
            return Change(name, None, value, added)
        middle = encode(added, where=f"{where}.{name}")[1:-1]
        if type(value) is not str and len(self.text) > 2:
            middle = b"," + middle
        return Change(name, (name, len(self.text) - 1, 1, middle), value, added)

    def _splice(self, name: str, new: bytes) -> Splice:
        """What to put where, so that the text becomes `new`."""
        old = bytes(self.text)
        if len(new) < SHORT or len(old) < SHORT:
            return name, 0, 0, new
        front = _common(old, new)
        limit = min(len(old), len(new)) - front
        back = _common_end(old, new, limit)
        return name, front, back, new[front : len(new) - back]

    def take(self, change: Change) -> int:
        """It is as a change says now; by how many bytes its text has grown."""
        before = len(self.text)
        if change.splice is not None:
            _, front, back, middle = change.splice
            if isinstance(self.text, bytes):  # until now it needed no copy
                self.text = bytearray(self.text)
            self.text[front : before - back] = middle
        if change.added is None or self._items is None:
            self._see(change.value)
        elif type(change.value) is tuple:
            self._trust = min(self._trust, _least(change.added))
            self._value, self._items = change.value, change.value if self._trust else None
        else:
            self._extend(change)
        return len(self.text) - before

    def _extend(self, change: Change) -> None:
        added = change.added
        self._value = change.value
        self._trust = min(self._trust, _least(added))
        if type(added) is dict:
            self._trust = min(self._trust, _least(added.values()))
        if self._trust == CHANGES:
            self._items = None
        elif isinstance(self._items, dict):
            self._items.update(added)
        elif isinstance(self._items, list):
            self._items.extend(added)


def _others(values: Iterable[Any], known: Any) -> Iterable[Any]:
    """Those that aren't among items of which it is known how far they are to be trusted."""
    if not known:
        return values
    there = set(map(id, known))
    if type(known) is dict:
        there.update(map(id, known.values()))
    return [value for value in values if id(value) not in there]


def _common(a: bytes, b: bytes) -> int:
    """How many bytes they have in common in front."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(a: bytes, b: bytes, limit: int) -> int:
    """How many bytes they have in common at the end, `limit` at most."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if a[len(a) - middle : len(a) - low] == b[len(b) - middle : len(b) - low]:
            low = middle
        else:
            high = middle - 1
    return low
