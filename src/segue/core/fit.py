"""Whether what is written as one type can be read as another, as far as types tell.

Only what surely can't is told: a type that isn't known, a validator of its own, a text that may be a date fit.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import types
import typing
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec

from ..model.errors import BadSignature
from . import forms


class Misfit(NamedTuple):
    """A member of a type, no value of which can be read; `why`, where that isn't plain."""

    part: Any
    why: str


def misfits(written: Any, read: Any) -> list[Misfit]:
    """The members of `written`, if it is a union, no value of which can be read as a `read`."""
    judged = ((part, _clash(part, read, frozenset())) for part in _each(written))
    return [Misfit(part, why) for part, why in judged if why is not None]


def _each(tp: Any) -> tuple[Any, ...]:
    members = forms.members(tp)
    return (forms.bare(tp),) if members is None else tuple(forms.bare(member) for member in members)


_Seen = frozenset[tuple[Any, Any]]


def _clash(part: Any, read: Any, seen: _Seen) -> str | None:
    """Why no `part` can be read as a `read`; empty if it is plain; None if one may be."""
    whys = [_clash_one(part, target, seen) for target in _each(read)]
    if not whys or None in whys:
        return None
    return whys[0] if len(whys) == 1 else ""


def _clash_one(part: Any, target: Any, seen: _Seen) -> str | None:
    writes, reads = _kinds(part, reading=False), _kinds(target, reading=True)
    if writes is None or reads is None:
        return None
    if writes.isdisjoint(reads):
        return ""
    if writes == reads == _ARRAY:
        return _clash_items(_items(part), _items(target), seen)
    if writes == reads == _OBJECT:
        return _clash_objects(part, target, seen)
    return None


def _clash_all(written: Any, read: Any, seen: _Seen) -> str | None:
    """The same of all members of `written`."""
    whys = [_clash(part, read, seen) for part in _each(written)]
    if not whys or None in whys:
        return None
    return f"{forms.spell(written)}, not {forms.spell(read)}" + (f": {whys[0]}" if whys[0] else "")


# ---------------------------------------------------------------- what a type is in JSON
_SCALARS: tuple[tuple[type, frozenset[str], frozenset[str]], ...] = (
    (bool, frozenset({"bool"}), frozenset({"bool"})),
    (int, frozenset({"int"}), frozenset({"int", "float"})),
    (float, frozenset({"float"}), frozenset({"int", "float"})),
    (str, frozenset({"str"}), frozenset({"str"})),
    *(
        (cls, frozenset({"str"}), frozenset({"str", "int", "float"}))
        for cls in (datetime, date, time, timedelta, Decimal)
    ),
    *((cls, frozenset({"str"}), frozenset({"str"})) for cls in (bytes, bytearray, UUID, pathlib.PurePath)),
)
_ARRAY, _OBJECT, _TEXT, _NULL = (frozenset({kind}) for kind in ("array", "object", "str", "null"))
_LISTS = (list, tuple, set, frozenset, collections.deque)


def _kinds(tp: Any, *, reading: bool) -> frozenset[str] | None:
    """What values of a type are in JSON; None if that isn't known."""
    if typing.get_origin(tp) is typing.Literal:
        return _kinds_of(typing.get_args(tp), reading)
    cls = forms.origin(tp)
    if cls is type(None) or cls is None:
        return _NULL
    if not isinstance(cls, type) or cls is object:
        return None
    if forms.is_pydantic(cls):
        return _OBJECT if _is_plain_model(cls) else None
    if forms.is_text(cls):
        return _TEXT
    if forms.is_enum(cls):
        return _kinds_of([member.value for member in cls], reading)  # type: ignore[attr-defined]  # an enum
    for scalar, writes, reads in _SCALARS:
        if issubclass(cls, scalar):
            return reads if reading else writes
    if forms.is_named_tuple(cls) or issubclass(cls, _LISTS):
        return _ARRAY
    if issubclass(cls, msgspec.Struct):
        return _ARRAY if cls.__struct_config__.array_like else _OBJECT
    if dataclasses.is_dataclass(cls) or issubclass(cls, dict) or cls in _MAPPINGS:
        return _OBJECT
    if cls in (Sequence, Collection, Iterable) or issubclass(cls, AbstractSet):
        return _ARRAY if reading else None  # a text is a sequence too
    return None


_MAPPINGS = (Mapping, MutableMapping, types.MappingProxyType)


def _kinds_of(values: Iterable[object], reading: bool) -> frozenset[str] | None:
    found: set[str] = set()
    for value in values:
        kinds = _kinds(type(value), reading=reading)
        if kinds is None:
            return None
        found |= kinds
    return frozenset(found)


def _is_plain_model(cls: Any) -> bool:
    """Whether a pydantic model is read from its fields and written as them, with nothing of its own before or after."""
    core = getattr(cls, "__pydantic_core_schema__", None)
    if not isinstance(core, dict):
        return False
    if core.get("type") == "definitions":
        core = core["schema"]
    inner = core.get("schema")
    return (
        core.get("type") == "model"
        and not core.get("root_model")
        and "serialization" not in core
        and isinstance(inner, dict)
        and inner.get("type") == "model-fields"
    )


# ---------------------------------------------------------------- their parts
class _Items(NamedTuple):
    types: tuple[Any, ...]
    fixed: bool


def _items(tp: Any) -> _Items | None:
    args, cls = typing.get_args(tp), forms.origin(tp)
    if forms.is_named_tuple(cls) or not (isinstance(cls, type) and args):
        return None
    if issubclass(cls, tuple) and args[-1] is not Ellipsis:
        return _Items(() if args == ((),) else args, True)
    return _Items(args[:1], False)


def _clash_items(written: _Items | None, read: _Items | None, seen: _Seen) -> str | None:
    if written is None or read is None:
        return None
    if written.fixed and read.fixed and len(written.types) != len(read.types):
        return f"{len(written.types)} items, not {len(read.types)}"
    count = max(len(written.types), len(read.types))
    pairs = zip(
        written.types if written.fixed else written.types * count,
        read.types if read.fixed else read.types * count,
        strict=False,
    )
    for item, wanted in pairs:
        why = _clash_all(item, wanted, seen)
        if why is not None:
            return f"its items are {why}"
    return None


def _clash_objects(part: Any, target: Any, seen: _Seen) -> str | None:
    written, read = forms.origin(part), forms.origin(target)
    if (written, read) in seen:
        return None
    seen |= {(written, read)}
    given, wanted = typing.get_args(part), typing.get_args(target)
    if read in written.__mro__ and not (written is read and given and wanted):
        return None
    try:
        have, need = forms.fields(part), forms.fields(target)
    except BadSignature:
        return None
    if have is None and need is None and len(given) == len(wanted) == 2:
        why = _clash_all(given[1], wanted[1], seen)
        return None if why is None else f"its values are {why}"
    if have is None or need is None:
        return None
    known = {field.key: field for field in have}
    for field in need:
        if _has_alias(read, field.name):
            continue
        if field.key in known:
            why = _clash_all(known[field.key].type, field.type, seen)
            if why is not None:
                return f"its {field.key!r} is {why}"
        elif field.required and not _takes_more(written):
            return f"it has no {field.key!r}"
    return None


def _has_alias(cls: Any, name: str) -> bool:
    """Whether a pydantic model reads a field by other names too."""
    fields = cast("dict[str, Any]", getattr(cls, "model_fields", {})) if forms.is_pydantic(cls) else {}
    return name in fields and getattr(fields[name], "validation_alias", None) is not None


def _takes_more(cls: Any) -> bool:
    """Whether values may have fields that the class doesn't tell."""
    return forms.is_pydantic(cls) and cls.model_config.get("extra") == "allow"
