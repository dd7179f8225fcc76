"""JSON schemas of type forms, in the shape that models are asked for, and the reading of what they answer.

Providers that hold a model to a schema ("strict" mode) want an object at the root, every property required and no
other property. So a type that isn't an object is asked for as `{"value": …}`, an optional property may be null, and
both are undone by `Shape.decode`. What strict mode can't say (a dict with free keys, a fixed tuple, any JSON) is
asked for with the plain schema; validation is ours in either case.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import PurePath
from typing import Any, Generic, TypeVar, cast

import msgspec
import msgspec.inspect

from ..model.errors import InvalidValue
from . import codec, forms
from .reading import is_native

__all__ = ["Schema", "SchemaBuilder", "Shape", "accepts_null", "schema", "strict", "without_nulls"]

T = TypeVar("T")
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
        while (name := _ref(node)) is not None and name not in seen:
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
            name = _name(cls)
            parts, made = {**parts, name: made}, {"$ref": _REFS.format(name=name)}
        made = self._adopt(made, parts)
        self._names[cls] = cast("str", _ref(made))
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
        name, number = _name(tp), 1
        while name in self.defs:
            number += 1
            name = f"{_name(tp)}_{number}"
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


def _name(tp: Any) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", forms.spell(tp)).strip("_") or "value"


def _doc(cls: Any) -> str:
    text = cls.__doc__ or ""
    return "" if text.startswith(f"{cls.__name__}(") else inspect.cleandoc(text)


def _ref(node: Schema) -> str | None:
    found = node.get("$ref")
    return found.rpartition("/")[2] if isinstance(found, str) else None


def _refs(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if (name := _ref(node)) is not None:
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
    name = _ref(made)
    return {**made, "$ref": _REFS.format(name=names.get(name, name))} if name is not None else made


# ---------------------------------------------------------------- strict mode
class _Free(Exception):
    """Strict mode can't say this part."""


# Of OpenAI's strict mode; the narrower dialects of others are their adapters' part.
_KEPT = frozenset(
    (
        *("type", "description", "enum", "const", "format", "pattern", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
#: What strict mode doesn't know is told in words.
_TOLD = ("format", "contentEncoding", "minLength", "maxLength")
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def strict(plain: Schema) -> Schema | None:
    """`plain` as strict mode takes it, or None where strict mode can't say it.

    Every object is closed and requires all its properties; an optional one may be null. Defaults, titles and
    constraints that strict mode doesn't know are left out.
    """
    defs = plain.get("$defs", {})
    if plain.get("type") != "object":
        return None
    try:
        made = _tight(plain, defs)
        return {**made, "$defs": {name: _tight(part, defs) for name, part in defs.items()}} if defs else made
    except _Free:
        return None


def _tight(node: Schema, defs: dict[str, Schema]) -> Schema:
    made = {key: part for key, part in node.items() if key in _KEPT}
    if told := [f"{key}: {node[key]}" for key in _TOLD if key in node and node[key] not in _FORMATS]:
        made["description"] = f"{made.get('description', '')} ({', '.join(told)})".strip()
    if "$ref" in node:
        link = {"$ref": node["$ref"]}
        return {"description": made["description"], "anyOf": [link]} if "description" in made else link
    if (all_of := node.get("allOf")) is not None:
        if len(all_of) != 1:
            raise _Free
        return _tight({**all_of[0], **{key: value for key, value in node.items() if key != "allOf"}}, defs)
    if (any_of := node.get("anyOf", node.get("oneOf"))) is not None:
        made["anyOf"] = [_tight(member, defs) for member in any_of]
        return made
    if "enum" in made or "const" in made:
        return _tight_enum(made)
    if made.get("format") not in _FORMATS:
        made.pop("format", None)
    match made.get("type"):
        case "object":
            return made | _tight_object(node, defs)
        case "array":
            if "prefixItems" in node or not isinstance(node.get("items"), dict):
                raise _Free
            made["items"] = _tight(node["items"], defs)
        case None:
            raise _Free
    return made


def _tight_object(node: Schema, defs: dict[str, Schema]) -> Schema:
    if (
        "properties" not in node
        or "patternProperties" in node
        or isinstance(node.get("additionalProperties"), dict)
    ):
        raise _Free
    required = node.get("required", ())
    properties = {}
    for name, part in node["properties"].items():
        tight = _tight(part, defs)
        fixed = len(tight.get("enum", ())) == 1  # a tag: null would lose what tells a union's members apart
        if name not in required and not fixed and not accepts_null(part, defs):
            text = tight.pop("description", None)
            tight = (
                {"anyOf": [*tight["anyOf"], {"type": "null"}]} if set(tight) == {"anyOf"} else _or_null(tight)
            )
            tight = {"description": text, **tight} if text else tight
        properties[name] = tight
    return {"properties": properties, "required": list(properties), "additionalProperties": False}


def _or_null(node: Schema) -> Schema:
    return {"anyOf": [node, {"type": "null"}]}


def _tight_enum(node: Schema) -> Schema:
    values = node.pop("enum") if "enum" in node else [node.pop("const")]
    groups: dict[str, list[Any]] = {}
    for value in values:
        if type(value) not in _TYPES:
            raise _Free
        groups.setdefault(_TYPES[type(value)], []).append(value)
    node.pop("type", None)
    parts = [
        {"type": kind} if kind == "null" else {"type": kind, "enum": group} for kind, group in groups.items()
    ]
    return node | (parts[0] if len(parts) == 1 else {"anyOf": parts})


def accepts_null(node: Schema, defs: dict[str, Schema]) -> bool:
    """Whether `node` takes null. A node that says nothing of types takes anything."""
    if (name := _ref(node)) is not None:
        return (
            accepts_null(defs[name], {key: part for key, part in defs.items() if key != name})
            if name in defs
            else False
        )
    for key in ("anyOf", "oneOf"):
        if key in node:
            return any(accepts_null(member, defs) for member in node[key])
    if "allOf" in node:
        return all(accepts_null(member, defs) for member in node["allOf"])
    if "enum" in node:
        return None in node["enum"]
    if "const" in node:
        return node["const"] is None
    kind = node.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


def without_nulls(value: Any, node: Schema, defs: dict[str, Schema]) -> Any:
    """`value` without the nulls that strict mode made of optional properties, so that their defaults hold."""
    if (name := _ref(node)) is not None:
        return without_nulls(value, defs.get(name, {}), defs)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in node and isinstance(value, dict | list):
            member = _member_for(value, node[key], defs)
            return value if member is None else without_nulls(value, member, defs)
    if isinstance(value, list):
        items, first = node.get("items"), node.get("prefixItems", ())
        each = [*first, *[items if isinstance(items, dict) else {}] * (len(value) - len(first))]
        return [without_nulls(part, part_node, defs) for part, part_node in zip(value, each, strict=False)]
    if not isinstance(value, dict):
        return value
    properties, required = node.get("properties", {}), node.get("required", ())
    rest = node.get("additionalProperties")
    rest = rest if isinstance(rest, dict) else {}
    return {
        key: without_nulls(part, properties.get(key, rest), defs)
        for key, part in value.items()
        if not (
            part is None
            and key in properties
            and key not in required
            and not accepts_null(properties[key], defs)
        )
    }


def _member_for(value: Any, members: list[Schema], defs: dict[str, Schema]) -> Schema | None:
    """The member of a union that `value` is most likely of: an object's keys are all its own."""
    for member in members:
        while (name := _ref(member)) is not None and name in defs:
            member = defs[name]
        if isinstance(value, list) and member.get("type") == "array":
            return member
        if isinstance(value, dict) and member.get("type") == "object":
            properties = member.get("properties", {})
            free = not properties or isinstance(member.get("additionalProperties"), dict)
            fits = value.keys() <= properties.keys() and set(member.get("required", ())) <= value.keys()
            if (free or fits) and all(
                _may_be(value[key], part) for key, part in properties.items() if key in value
            ):
                return member
    return None


def _may_be(value: object, node: Schema) -> bool:
    """Tells unions apart whose members have a `kind`."""
    if "const" in node:
        return bool(value == node["const"])
    return "enum" not in node or value is None or value in node["enum"]


# ---------------------------------------------------------------- what a model is asked for
@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """What a model is asked to answer with, and how its answer is read.

    `schema` is what to send: in strict form where `strict`. `plain` is the same without strict mode's rewriting.
    Where `wrapped`, both ask for `{"value": …}`.
    """

    name: str
    schema: Schema
    plain: Schema
    strict: bool
    wrapped: bool
    type: Any
    _inner: Schema
    _read: Callable[[object], T]

    @staticmethod
    def of(tp: Any) -> Shape[Any]:
        """The shape of any type form, made once. Raises `BadSignature` for one that JSON can't fill."""
        try:
            return _cached_shape(tp)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            return _shape(tp)

    def decode(self, text: str) -> T:
        """What `text`, a model's answer, says. Raises `InvalidValue`, whose text is fit to send back to the model.

        Taken as JSON is, in this order: the whole text; the only fenced block in it; from the first `{` (or `[`)
        to the last `}` (or `]`). Where `wrapped`, the bare value is taken as well, and for a choice of words
        (`Literal`, an enum) the bare word. Nothing is mended: cut or malformed JSON is an error.
        """
        found = _json_in(text)
        if found is _NO_JSON:
            if (word := self._word(text)) is not _NO_JSON:
                return cast("T", word)
            expected = f"JSON for {forms.spell(self.type)}"
            raise InvalidValue("the answer", expected, _complaint(text), forms.short(repr(text)))
        if not self.wrapped:
            return self._value(found)
        if isinstance(found, dict) and found.keys() == {"value"}:
            try:
                return self._value(found["value"], " (inside `value`)")
            except InvalidValue:
                if (bare := self._try(found)) is not _NO_JSON:
                    return cast("T", bare)
                raise
        return self._value(found, ' (the answer must be an object {"value": …})')

    def _value(self, value: object, note: str = "") -> T:
        try:
            return self._read(without_nulls(value, self._inner, self._inner.get("$defs", {})))
        except InvalidValue as error:
            raise InvalidValue("the answer", error.expected, error.problem + note, error.got) from None

    def _try(self, value: object) -> object:
        try:
            return self._value(value)
        except InvalidValue:
            return _NO_JSON

    def _word(self, text: str) -> object:
        choice = any("enum" in part for part in (self._inner, *self._inner.get("anyOf", ())))
        return self._try(text.strip().strip("`'\"")) if self.wrapped and choice else _NO_JSON


def _shape(tp: Any) -> Shape[Any]:
    inner = schema(tp)
    wrapped = inner.get("type") != "object"
    plain = inner
    if wrapped:
        defs = {"$defs": inner["$defs"]} if "$defs" in inner else {}
        value = {key: part for key, part in inner.items() if key != "$defs"}
        plain = {"type": "object", "properties": {"value": value}, "required": ["value"], **defs}
    tight = strict(plain)
    name = _name(tp)[:64] if forms.members(tp) is None else "answer"
    return Shape(name, tight or plain, plain, tight is not None, wrapped, tp, inner, codec.reader(tp))


_cached_shape = functools.lru_cache(maxsize=1024)(_shape)

_NO_JSON = object()
_FENCED = re.compile(r"^[ \t]*```[\w-]*[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)


def _json_in(text: str) -> object:
    text = text.strip().removeprefix("\ufeff").strip()
    tries = [text]
    if len(blocks := _FENCED.findall(text)) == 1:
        tries.append(blocks[0])
    if not blocks or len(blocks) == 1:
        tries.extend(text[text.find(a) : text.rfind(b) + 1] for a, b in _pairs(text))
    for part in tries:
        try:
            return msgspec.json.decode(part)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue
    return _NO_JSON


def _pairs(text: str) -> list[tuple[str, str]]:
    """The brackets that open first in `text`."""
    found = [pair for pair in (("{", "}"), ("[", "]")) if pair[0] in text]
    return sorted(found, key=lambda pair: text.find(pair[0]))[:1]


def _complaint(text: str) -> str:
    try:
        msgspec.json.decode(text.strip())
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return f"no JSON value was found in it ({error}); answer with the JSON alone"
    return "it isn't one JSON value"
