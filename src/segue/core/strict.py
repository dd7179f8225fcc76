"""Schemas as providers' strict mode takes them, and what it does to answers undone.

Strict mode wants every object closed and all its properties required, so an optional one may be null. What it can't say
(a dict with free keys, a fixed tuple, any JSON) has no strict form.
"""

from __future__ import annotations

from typing import Any

from .schema import Schema, ref_of


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
    if (name := ref_of(node)) is not None:
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
    if (name := ref_of(node)) is not None:
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
        while (name := ref_of(member)) is not None and name in defs:
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
