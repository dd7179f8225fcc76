"""What is wrong with a value that was read, in words, and where."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from ..model.errors import InvalidValue
from . import forms

_parse = msgspec.json.Decoder().decode


class Wrong(ValueError):
    """A part of a value isn't of its type; `path` leads to it."""

    def __init__(self, problem: str, path: str = "") -> None:
        self.problem, self.path = problem, path
        super().__init__(problem)


_AT = re.compile(r"^(.*) - at `(?:(key)` in `)?\$([^`]*)`+$", re.DOTALL)
_KEY = " as a key"


def problem_of(error: Exception) -> tuple[str, str]:
    """(what is wrong, path to it) of any error that reading raises."""
    if isinstance(error, Wrong):
        return error.problem, error.path
    if (listed := getattr(error, "errors", None)) is not None and type(error).__module__.startswith(
        "pydantic"
    ):
        first = listed(include_url=False, include_input=False)[0]
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""  # type: ignore[attr-defined]  # pydantic's
        return first["msg"] + more, path
    found = _AT.match(str(error))
    problem, path = (found[1] + (_KEY if found[2] else ""), found[3]) if found else (str(error), "")
    if error.__cause__ is not None and isinstance(error.__cause__, ValueError):
        inner, below = problem_of(error.__cause__)
        return inner, path + below
    return problem, path


def invalid(tp: Any, value: object, error: Exception) -> InvalidValue:
    """The error for parsed JSON that isn't a `tp`."""
    if isinstance(error, RecursionError):
        return InvalidValue("value", forms.spell(tp), "it is nested too deeply")
    problem, path = problem_of(error)
    shown = forms.short(json.dumps(_at(value, path), ensure_ascii=False, default=repr))
    return InvalidValue("value", forms.spell(tp), in_words(problem, path), shown)


#: JSON's kinds as msgspec calls them, for people and models.
_KINDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
}
_MISFIT = re.compile(r"^Expected `([^`]+)`, got `([^`]+)`$")
_DEMAND = re.compile(r"^Expected `([^`]+)`(.*)$", re.DOTALL)
_FIELD = re.compile(r"^Object (missing required|contains unknown) field `([^`]+)`$")


def in_words(problem: str, path: str) -> str:
    """A problem and where it is. What was expected as a whole is said before it, and so isn't here again."""
    if problem.endswith(_KEY):
        return in_words(problem.removesuffix(_KEY), f"a key of {path}" if path else "a key")
    if found := _MISFIT.match(problem):
        return (
            f"{path} is {_kinds(found[2])}, not {_kinds(found[1])}" if path else f"it is {_kinds(found[2])}"
        )
    if found := _DEMAND.match(problem):
        return f"{path or 'it'} must be {_kinds(found[1])}{found[2]}"
    if found := _FIELD.match(problem):
        lacks = found[1] == "missing required"
        problem = f"the field `{found[2]}` is missing" if lacks else f"there is no field `{found[2]}`"
    else:
        problem = problem[:1].lower() + problem[1:] if problem[1:2].islower() else problem
    return f"{problem} at {path}" if path else problem


def _kinds(names: str) -> str:
    return " or ".join(_KINDS.get(name, name) for name in names.split(" | "))


def invalid_text(tp: Any, data: Any, error: Exception) -> InvalidValue:
    """The error for text that isn't JSON, or not of a `tp`."""
    text = data if isinstance(data, str) else bytes(data).decode("utf-8", "replace")
    try:
        return invalid(tp, _parse(text), error)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return InvalidValue("value", forms.spell(tp), _first_line(error), forms.short(repr(text)))


def _first_line(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]


def _at(value: Any, path: str) -> object:
    """The part of `value` at `path`, or all of it where the path doesn't lead there."""
    part = value
    for name, index, key in re.findall(r"\.([^.\[]+)|\[(\d+)\]|\['(.*?)'\]", path):
        try:
            part = part[int(index)] if index else part[name or key]
        except (KeyError, IndexError, TypeError):
            return value
    return part
