"""Defaults of decoded dataclasses.

msgspec leaves a plain default on the class of a dataclass where the JSON has no such field. The value reads the same,
but written again the field is missing: equal values would have different bytes, and a default that changes with the
code would change what was recorded. So the defaults are put into the instance, wherever a type has such dataclasses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from msgspec import inspect as look

from . import forms

Fill = Callable[[Any], None]


def filler(tp: Any) -> Fill | None:
    """What completes a `tp` that msgspec made, in place; None where nothing can be missing."""
    root = look.type_info(tp)
    return _Filling().of(root) if _needs(root) else None


def _defaults(node: object) -> dict[str, Any]:
    if not isinstance(node, look.DataclassType):
        return {}
    cls = forms.origin(node.cls)
    if not dataclasses.is_dataclass(cls):  # an attrs class, whose defaults aren't on it
        return {}
    return {
        f.name: f.default for f in dataclasses.fields(cls) if f.init and f.default is not dataclasses.MISSING
    }


def _below(node: Any) -> list[Any]:
    match node:
        case look.DataclassType() | look.StructType() | look.TypedDictType() | look.NamedTupleType():
            return [getattr(field, "type", None) for field in node.fields]
        case look.UnionType():
            return list(node.types)
        case look.TupleType():
            return list(node.item_types)
        case look.DictType():
            return [node.value_type]
        case _:
            item = getattr(node, "item_type", None)
            return [] if item is None else [item]


def _needs(node: Any) -> bool:
    seen: set[int] = set()
    todo = [node]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        if _defaults(part):
            return True
        seen.add(id(part))
        todo.extend(_below(part))
    return False


class _Filling:
    def __init__(self) -> None:
        self.made: dict[int, Fill] = {}

    def of(self, node: Any) -> Fill:
        key = id(node)
        if key in self.made:
            return self.made[key]
        # A class that refers to itself finds this, which by then leads to the whole.
        self.made[key] = lambda value: self.made[key](value)
        self.made[key] = self._make(node)
        return self.made[key]

    def _make(self, node: Any) -> Fill:
        match node:
            case look.DataclassType() | look.StructType():
                parts = [(attrgetter(f.name), self.of(f.type)) for f in node.fields if _needs(f.type)]
                return _object(_defaults(node), parts)
            case look.TypedDictType():
                keys = [(f.name, self.of(f.type)) for f in node.fields if _needs(f.type)]
                return lambda value: _each((fill, value[key]) for key, fill in keys if key in value)
            case look.NamedTupleType():
                items = [
                    (itemgetter(n), self.of(f.type)) for n, f in enumerate(node.fields) if _needs(f.type)
                ]
                return _object({}, items)
            case look.TupleType():
                items = [(itemgetter(n), self.of(t)) for n, t in enumerate(node.item_types) if _needs(t)]
                return _object({}, items)
            case look.UnionType():
                return _union([(_class(t), self.of(t)) for t in node.types if _needs(t)])
            case look.DictType():
                one = self.of(node.value_type)
                return lambda value: _each((one, part) for part in value.values())
            case _:
                one = self.of(node.item_type)
                return lambda value: _each((one, part) for part in value)


def _each(parts: Any) -> None:
    for fill, part in parts:
        fill(part)


def _object(defaults: dict[str, Any], parts: Sequence[tuple[Callable[[Any], Any], Fill]]) -> Fill:

    def fill(value: Any) -> None:
        if defaults and (held := getattr(value, "__dict__", None)) is not None:
            for name, default in defaults.items():
                if name not in held:
                    held[name] = default
        for get, below in parts:
            below(get(value))

    return fill


def _union(members: list[tuple[type[Any] | tuple[type[Any], ...], Fill]]) -> Fill:
    def fill(value: Any) -> None:
        for kind, below in members:
            if isinstance(value, kind):
                below(value)
                return

    return fill


def _class(node: Any) -> type[Any] | tuple[type[Any], ...]:
    match node:
        case look.DataclassType() | look.StructType() | look.NamedTupleType():
            cls: type[Any] = forms.origin(node.cls)
            return cls
        case look.DictType() | look.TypedDictType():
            return dict
        case _:
            return (list, tuple, set, frozenset)
