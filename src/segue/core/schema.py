"""JSON schemas of type forms."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, time
from pathlib import PurePath
from typing import Any, cast

import msgspec
import msgspec.inspect

from . import codec, forms
from .reading import is_native

Schema = dict[str, Any]

_REFS = "#/$defs/{name}"


def schema(tp: Any) -> Schema:
    """The JSON schema of `tp`, with its `$defs` inside; an object's own schema stands at the root."""
    builder = SchemaBuilder()
    return builder.rooted(builder.of(tp))


class SchemaBuilder:
    """Schemas of several types that share one `$defs`."""

    def __init__(self) -> None:
        self.defs: dict[str, Schema] = {}
        self._names: dict[Any, str] = {}

    def of(self, tp: Any) -> Schema:
        """The schema of `tp`; classes are put into `defs` and referred to. Raises `BadSignature`."""
        codec.decoder(tp)  # what can't be read has no schema; this says why
        return self._of(tp)

    def rooted(self, node: Schema) -> Schema:
        """`node` as a schema of its own: a reference at the root is replaced by what it means."""
        seen = set()
        while (name := ref_of(node)) is not None and name not in seen:
            seen.add(name)
            node = {**self.defs[name], **{key: value for key, value in node.items() if key != "$ref"}}
        used = self._reachable(node)
        return {**node, "$defs": {name: self.defs[name] for name in used}} if used else dict(node)

    def _reachable(self, node: Schema) -> list[str]:
        found: dict[str, None] = {}
        todo = list(_refs(node))
        while todo:
            name = todo.pop(0)
            if name not in found:
                found[name] = None
                todo.extend(_refs(self.defs[name]))
        return list(found)

    def _of(self, tp: Any) -> Schema:
        notes = _notes(tp)
        target = forms.bare(tp)
        if target is object or target is Any:
            return notes
        if forms.is_pydantic(forms.origin(target)):
            return {**self._pydantic(target), **notes}
        if is_native(tp) and not _has_times(tp) and (made := self._native(tp)) is not None:
            return {**made, **notes}
        made = self._by_form(target)
        if made.get("type") == "array" and (bounds := forms.lengths(tp)) is not None:
            made |= {"minItems": bounds[0]} | ({"maxItems": bounds[1]} if bounds[1] < sys.maxsize else {})
        return {**made, **notes}

    def _native(self, tp: Any) -> Schema | None:
        try:
            (made,), parts = msgspec.json.schema_components((tp,), schema_hook=self._of, ref_template=_REFS)
        except (TypeError, KeyError):  # a default that JSON can't carry; two classes of one name
            return None
        return self._adopt(made, parts)

    def _pydantic(self, cls: Any) -> Schema:
        if cls in self._names:
            return {"$ref": _REFS.format(name=self._names[cls])}
        pydantic = sys.modules["pydantic"]
        if hasattr(cls, "model_json_schema"):
            made = cls.model_json_schema()
        else:
            made = pydantic.TypeAdapter(cls).json_schema()
        parts = made.pop("$defs", {})
        if "$ref" not in made:
            name = name_of(cls)
            parts, made = {**parts, name: made}, {"$ref": _REFS.format(name=name)}
        made = self._adopt(made, parts)
        self._names[cls] = cast("str", ref_of(made))
        return made

    def _adopt(self, made: Schema, parts: dict[str, Schema]) -> Schema:
        """Take over `parts`; one whose name is taken by another schema gets a number."""
        renamed = {}
        for name, part in parts.items():
            free, number = name, 1
            while free in self.defs and self.defs[free] != part:
                number += 1
                free = f"{name}_{number}"
            renamed[name] = free
        for name, part in parts.items():
            self.defs[renamed[name]] = _renamed(part, renamed)
        return cast("Schema", _renamed(made, renamed))

    def _by_form(self, tp: Any) -> Schema:
        cls, args = forms.origin(tp), typing.get_args(tp)
        if (members := forms.members(tp)) is not None:
            return {"anyOf": [self._of(member) for member in members]}
        if forms.is_enum(tp):
            return {"title": tp.__name__, "enum": [msgspec.to_builtins(member.value) for member in tp]}
        if forms.fields(tp) is not None:
            return self._record(tp, cls)
        if issubclass(cls, tuple) and args and args[-1] is not Ellipsis:
            count = len(args)
            return {
                "type": "array",
                "prefixItems": [self._of(arg) for arg in args],
                "minItems": count,
                "maxItems": count,
                "items": False,
            }
        if (times := _TIMES.get(cls)) is not None:
            return {"type": "string", "format": times}
        base = next((base for kinds, base in _BASES if issubclass(cls, kinds)), "string")
        if base == "array":
            return {"type": base, "items": self._of(args[0])} if args else {"type": base}
        if base == "object":
            return {"type": base, "additionalProperties": self._of(args[-1])} if args else {"type": base}
        return {"type": base}

    def _record(self, tp: Any, cls: Any) -> Schema:
        if tp in self._names:
            return {"$ref": _REFS.format(name=self._names[tp])}
        name, number = name_of(tp), 1
        while name in self.defs:
            number += 1
            name = f"{name_of(tp)}_{number}"
        self._names[tp] = name
        self.defs[name] = {}
        found = [field for field in forms.fields(tp) or () if field.init]
        if forms.is_named_tuple(cls):
            items = [self._of(field.type) for field in found]
            least = sum(field.required for field in found)
            made: Schema = {"title": name, "type": "array", "prefixItems": items}
            made |= {"minItems": least, "maxItems": len(items)}
        else:
            made = {"title": forms.spell(tp), "type": "object"}
            if text := _doc(cls):
                made["description"] = text
            made["properties"] = {field.key: self._of(field.type) for field in found}
            made["required"] = [field.key for field in found if field.required]
            config = getattr(cls, "__struct_config__", None)
            if config is not None and config.tag is not None:
                made["properties"] = {config.tag_field: {"enum": [config.tag]}, **made["properties"]}
                made["required"] = [config.tag_field, *made["required"]]
        self.defs[name] = made
        return {"$ref": _REFS.format(name=name)}


_BASES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((dict, Mapping), "object"),
    ((str, PurePath), "string"),
    ((int,), "integer"),
    ((float,), "number"),
    ((list, tuple, set, frozenset, deque, Iterable), "array"),
)


#: What msgspec says nothing of, since they may be without a time zone too.
_TIMES: dict[type[Any], str] = {datetime: "date-time", time: "time"}


def _has_times(tp: Any) -> bool:
    """Whether there is a date or time in a type that msgspec reads, whose schema is any string by it."""
    todo: list[Any] = [msgspec.inspect.type_info(tp)]
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            todo.extend(node)
        elif isinstance(node, msgspec.inspect.DateTimeType | msgspec.inspect.TimeType):
            if node.tz is None:
                return True
        elif isinstance(node, msgspec.Struct) and id(node) not in seen:
            seen.add(id(node))
            todo.extend(getattr(node, name, None) for name in node.__struct_fields__ if name != "default")
    return False


def _notes(tp: Any) -> Schema:
    """What `Annotated` says of `tp`, as keys of a schema."""
    text = forms.description(tp)
    return {"description": text} if text else {}


def name_of(tp: Any) -> str:
    """What a type form is called in a schema."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", forms.spell(tp)).strip("_") or "value"


def _doc(cls: Any) -> str:
    text = cls.__doc__ or ""
    return "" if text.startswith(f"{cls.__name__}(") else inspect.cleandoc(text)


def ref_of(node: Schema) -> str | None:
    """The name of the definition that a node stands for."""
    found = node.get("$ref")
    return found.rpartition("/")[2] if isinstance(found, str) else None


def _refs(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if (name := ref_of(node)) is not None:
            yield name
        for key, part in node.items():
            if key != "$defs":
                yield from _refs(part)
    elif isinstance(node, list):
        for part in node:
            yield from _refs(part)


def _renamed(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_renamed(part, names) for part in node]
    if not isinstance(node, dict):
        return node
    made = {key: _renamed(part, names) for key, part in node.items() if key != "discriminator"}
    name = ref_of(made)
    return {**made, "$ref": _REFS.format(name=names.get(name, name))} if name is not None else made
