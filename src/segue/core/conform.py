"""Whether a JSON value fits a JSON schema, of the kind that segue itself writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def misfit(value: Any, schema: Schema) -> str | None:
    """What is wrong with a value, with the place in it; None if it fits."""
    return next(_misfits(value, schema, schema.get("$defs", {}), ""), None)


def _misfits(value: Any, schema: Schema, defs: Schema, at: str) -> Iterator[str]:
    if "$ref" in schema:
        yield from _misfits(value, defs.get(schema["$ref"].rpartition("/")[2], {}), defs, at)
        return
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            found = [next(_misfits(value, part, defs, at), None) for part in schema[choice]]
            if None not in found:
                yield " or ".join(dict.fromkeys(str(problem) for problem in found))
                return
    where = at or "the value"
    if "const" in schema and value != schema["const"]:
        yield f"{where} must be {schema['const']!r}, not {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} must be one of {', '.join(map(repr, schema['enum']))}, not {value!r}"
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{where} must be {_spell(schema['type'])}, not {value!r}"
        return
    if isinstance(value, dict):
        yield from _object(value, schema, defs, at)
    elif isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        for number, item in enumerate(value):
            part = prefix[number] if number < len(prefix) else schema.get("items", {})
            if isinstance(part, dict):
                yield from _misfits(item, part, defs, f"{at}[{number}]")
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{where} has {len(value)} items"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield f"{where} is out of range: {value!r}"


def _object(value: dict[str, Any], schema: Schema, defs: Schema, at: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}.{name} is missing"
    rest = schema.get("additionalProperties", True)
    for name, item in value.items():
        part = known.get(name, rest)
        if part is False:
            yield f"{at}.{name} isn't a field; the fields are {', '.join(known)}"
        elif isinstance(part, dict):
            yield from _misfits(item, part, defs, f"{at}.{name}")


def _is(value: Any, kind: str | list[str]) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _TYPES.get(name, (object,))) for name in kinds)


def _spell(kind: str | list[str]) -> str:
    kinds = [kind] if isinstance(kind, str) else kind
    return " or ".join(
        f"{'an' if name[0] in 'aio' else 'a'} {name}" if name != "null" else "null" for name in kinds
    )
