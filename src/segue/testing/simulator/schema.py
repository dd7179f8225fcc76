"""A JSON schema's smallest instance: what a model says when nobody told it what to say."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["instance"]

#: What adapters tell in words, since a provider's schemas don't know it: `(minLength: 3, format: decimal)`.
_TOLD = re.compile(r"(?<=[( ])(\w+): ([^,()]+)(?=[,)])")
_FORMATS = {
    "decimal": "0",
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance(schema: dict[str, Any]) -> Any:
    """A small valid instance, the same one each time.

    Knows the keywords that providers accept for structured output; `pattern` it doesn't fulfil. A schema that
    can only be met by an endless value raises `ValueError`.
    """
    return _Inventor(schema).make(schema, 0)


class _Inventor:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def make(self, schema: Any, depth: int) -> Any:
        if depth > 60:
            raise ValueError(
                "The schema has no finite instance that is found by taking the first alternative"
            )
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            return self.make(self._resolve(schema["$ref"]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._first(schema[word], depth)
        if "allOf" in schema:
            return self.make(self._merged(schema), depth + 1)
        return self._typed({**_told(schema.get("description", "")), **schema}, depth)

    def _resolve(self, ref: str) -> Any:
        found: Any = self._root
        for part in ref.removeprefix("#").strip("/").split("/"):
            if part:
                found = found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def _first(self, alternatives: list[Any], depth: int) -> Any:
        for alternative in alternatives[:-1]:
            try:
                return self.make(alternative, depth + 1)
            except ValueError:
                continue  # it refers to itself without end: a later one may not
        return self.make(alternatives[-1], depth + 1)

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            while "$ref" in part:
                part = self._resolve(part["$ref"])
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", []), *part.get("required", [])]
            merged |= part
            if properties:
                merged |= {"properties": properties, "required": required}
        return merged

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        match _type(schema):
            case "object":
                properties = schema.get("properties", {})
                return {
                    name: self.make(properties.get(name), depth + 1) for name in schema.get("required", [])
                }
            case "array":
                first = schema.get("prefixItems", [])
                rest = [schema.get("items")] * (schema.get("minItems", len(first)) - len(first))
                return [self.make(part, depth + 1) for part in (*first, *rest)]
            case "string":
                return _string(schema)
            case "integer":
                return int(_number(schema, whole=True))
            case "number":
                return _number(schema, whole=False)
            case "boolean":
                return False
            case _:
                return None


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind is None:
        return "object" if "properties" in schema or not schema else "string"
    return str(kind)


def _told(description: str) -> dict[str, Any]:
    """Keywords of a schema that its description tells."""
    found: dict[str, Any] = {}
    for word, value in _TOLD.findall(description):
        try:
            found[word] = json.loads(value)
        except ValueError:
            found[word] = value
    return found


def _string(schema: dict[str, Any]) -> str:
    least: int = schema.get("minLength", 1)
    if schema.get("contentEncoding") == "base64":
        return "YWFh" * -(-least // 3)  # lengths are those of the bytes
    most = schema.get("maxLength", least)
    return str(_FORMATS.get(schema.get("format", ""), "a" * min(max(least, 1), most)))


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    """0, or the bound that is nearest to it."""
    lows = [schema["minimum"]] if "minimum" in schema else []
    highs = [schema["maximum"]] if "maximum" in schema else []
    room = 1 if whole else _room(schema)
    lows += [schema["exclusiveMinimum"] + room] if "exclusiveMinimum" in schema else []
    highs += [schema["exclusiveMaximum"] - room] if "exclusiveMaximum" in schema else []
    value: float = min([max([0, *lows]), *highs])
    step: float = schema.get("multipleOf", 0)
    if not step:
        return value
    return value // step * step if value < 0 else -(-value // step) * step


def _room(schema: dict[str, Any]) -> float:
    """How far from an exclusive bound is well inside."""
    names = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    bounds = [schema[name] for name in names if name in schema]
    width: float = max(bounds) - min(bounds) if bounds else 0.0
    return min(1.0, width / 2) if width else 1.0
