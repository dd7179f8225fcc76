"""Answers as people type them, by the JSON schema of the question."""

from __future__ import annotations

from typing import Any

import msgspec

from ..authoring.tool import is_decision
from ..core.conform import misfit

Schema = dict[str, Any]
_YES, _NO = frozenset({"y", "yes", "true"}), frozenset({"n", "no", "false"})


class Unfit(ValueError):
    """What was typed is no answer; the text says what would be."""

    def __init__(self, problem: str, expected: str) -> None:
        self.problem, self.expected = problem, expected
        super().__init__(f"that doesn't fit: {problem}; expected {expected}")


def expects(schema: Schema) -> str:
    """What may be typed, for a prompt."""
    choices = _choices(schema)
    if is_decision(schema):
        return "approve / deny: reason / edit: {…}"
    if choices is not None:
        return " / ".join(str(choice) for choice in choices)
    match resolve(schema).get("type"):
        case "boolean":
            return "y / n"
        case "string":
            return "text"
        case "integer" | "number" as kind:
            return f"{'an' if kind == 'integer' else 'a'} {kind}"
        case "object":
            return f"JSON with {', '.join(resolve(schema).get('properties', {})) or 'any fields'}"
    return "JSON"


def read(text: str, schema: Schema) -> Any:
    """The answer that was typed. Raises `Unfit`."""
    if is_decision(schema) and not text.lstrip().startswith("{"):
        decision = _decision(text)
        if (problem := misfit(decision, schema)) is not None:
            raise Unfit(problem, expects(schema))
        return decision
    for value in _readings(text, schema):
        if misfit(value, schema) is None:
            return value
    readings = list(_readings(text, schema))
    problem = misfit(readings[0], schema)
    raise Unfit(str(problem), expects(schema))


def _readings(text: str, schema: Schema) -> list[Any]:
    """What a text may mean, the likeliest first."""
    word = text.strip()
    kind = resolve(schema).get("type")
    readings: list[Any] = []
    if kind == "string":
        return [text, word]
    if "boolean" in _kinds(schema) and word.lower() in _YES | _NO:
        readings.append(word.lower() in _YES)
    try:
        readings.append(msgspec.json.decode(word))
    except (msgspec.DecodeError, ValueError):
        readings.append(word)
    choices = _choices(schema) or []
    readings += [choice for choice in choices if str(choice).lower() == word.lower()]
    return [*readings, text] if "string" in _kinds(schema) else readings


def resolve(schema: Schema) -> Schema:
    """The schema behind a reference."""
    while "$ref" in schema:
        defs = schema.get("$defs", {})
        schema = {**defs.get(schema["$ref"].rpartition("/")[2], {}), "$defs": defs}
    return schema


def _parts(schema: Schema) -> list[Schema]:
    whole = resolve(schema)
    defs = whole.get("$defs", schema.get("$defs", {}))
    parts = whole.get("anyOf") or whole.get("oneOf")
    return [resolve({**part, "$defs": defs}) for part in parts] if parts else [whole]


def _kinds(schema: Schema) -> set[str]:
    kinds: set[str] = set()
    for part in _parts(schema):
        kind = part.get("type", [])
        kinds |= {kind} if isinstance(kind, str) else set(kind)
        if "enum" in part or "const" in part:
            kinds |= (
                {"string"}
                if any(isinstance(each, str) for each in part.get("enum", [part.get("const")]))
                else set()
            )
    return kinds


def _choices(schema: Schema) -> list[Any] | None:
    """The values that there are, if they are listed."""
    found: list[Any] = []
    for part in _parts(schema):
        if "enum" in part:
            found += part["enum"]
        elif "const" in part:
            found.append(part["const"])
        elif part.get("type") == "null":
            found.append(None)
        else:
            return None
    return found


# ---------------------------------------------------------------- approval of tools
def _decision(text: str) -> Any:
    word, _, rest = text.strip().partition(":")
    match word.strip().lower():
        case "approve" | "y" | "yes":
            return {"decision": "approve"}
        case "deny" | "n" | "no":
            return {"decision": "deny", "reason": rest.strip()}
        case "edit":
            try:
                arguments = msgspec.json.decode(rest, type=dict[str, Any])
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise Unfit(str(error), "a JSON object of arguments after `edit:`") from None
            return {"decision": "edit", "arguments": arguments}
    raise Unfit(repr(text.strip()), "approve, deny: reason, or edit: {…}")
