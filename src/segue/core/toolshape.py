"""A function as a tool: what a model is told of it, and the reading of the arguments that a model writes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..model.errors import BadSignature, InvalidValue
from . import codec, docstring, forms
from .schema import Schema, SchemaBuilder
from .signature import Parameter, read_value, resolve
from .strict import accepts_null, strict, without_nulls

_KINDS = inspect._ParameterKind


@dataclass(frozen=True, slots=True)
class ToolShape:
    """A function as a model is told of it, and the reading of the arguments that a model writes.

    `schema` is what to send, in strict form where `strict`; `plain` is the same without strict mode's rewriting.
    """

    name: str
    description: str
    schema: Schema
    plain: Schema
    strict: bool
    result_type: Any
    parameters: tuple[Parameter, ...]
    _reads: Mapping[str, Callable[[object], Any]]

    @staticmethod
    def of(fn: Callable[..., Any], /, *, name: str = "") -> ToolShape:
        """Raises `BadSignature` for a function that a model can't call by JSON: the text names the cure.

        The description is the docstring's first paragraph; that of a parameter comes from `Annotated`, else from
        the docstring (Google, NumPy and Sphinx style are known).
        """
        return _tool(fn, name)

    def bind(self, arguments: bytes | str) -> dict[str, Any]:
        """Typed keyword arguments from a model's JSON. Raises `InvalidValue`, fit to send back to the model.

        Null for a parameter that has a default and doesn't take null means its default; so does nothing at all.
        """
        where = f"arguments of {self.name}"
        names = ", ".join(p.name for p in self.parameters) or "none"
        text = arguments if arguments.strip() else b"{}"
        try:
            given = msgspec.json.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
            problem = f"it isn't JSON ({error})"
            raise InvalidValue(where, "a JSON object", problem, forms.short(repr(shown))) from None
        if not isinstance(given, dict):
            problem = f"the parameters are {names}, by name"
            raise InvalidValue(
                where, "a JSON object", problem, forms.short(msgspec.json.encode(given).decode())
            )
        if unknown := given.keys() - self._reads.keys():
            problem = f"there is no parameter {min(unknown)!r}; the parameters are {names}"
            raise InvalidValue(where, f"parameters of {self.name}", problem)
        return self._typed(given)

    def _typed(self, given: dict[str, object]) -> dict[str, Any]:
        defs = self.plain.get("$defs", {})
        properties = self.plain["properties"]
        made = {}
        for parameter in self.parameters:
            name, node = parameter.name, properties[parameter.name]
            where = f"argument {name!r} of {self.name}"
            if name not in given:
                if parameter.required:
                    raise InvalidValue(where, forms.spell(parameter.type), "it is missing")
                continue
            value = given[name]
            if value is None and not parameter.required and not accepts_null(node, defs):
                continue
            made[name] = read_value(self._reads[name], without_nulls(value, node, defs), where)
        return made


def _tool(fn: Callable[..., Any], name: str) -> ToolShape:
    signature = resolve(fn)
    text, about = docstring.read(fn)
    builder = SchemaBuilder()
    properties: Schema = {}
    for parameter in signature.parameters:
        if problem := _unfit(parameter):
            raise BadSignature(signature.name, *problem)
        with_words = builder.of(parameter.type)
        if "description" not in with_words and parameter.name in about:
            with_words = {"description": about[parameter.name], **with_words}
        properties[parameter.name] = with_words
    required = [p.name for p in signature.parameters if p.required]
    plain = builder.rooted(
        {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    )
    tight = strict(plain)
    return ToolShape(
        re.sub(r"[^A-Za-z0-9_-]+", "_", name or signature.name.rpartition(".")[2]).strip("_")[:64],
        text,
        tight or plain,
        plain,
        tight is not None,
        signature.result,
        signature.parameters,
        {p.name: codec.reader(p.type) for p in signature.parameters},
    )


def _unfit(parameter: Parameter) -> tuple[str, str] | None:
    name = parameter.name
    match parameter.kind:
        case _KINDS.VAR_POSITIONAL:
            return f"a model can't fill *{name}", f"take a list: `{name}: list[…]`"
        case _KINDS.VAR_KEYWORD:
            return f"a model can't fill **{name}", f"name the parameters, or take `{name}: dict[str, …]`"
        case _KINDS.POSITIONAL_ONLY:
            return f"a model names its arguments, and {name!r} is positional-only", "remove the `/`"
        case _:
            pass
    if not parameter.annotated:
        if name in ("self", "cls"):
            return f"{name!r} is left open", "give the tool as a bound method: `thing.method`"
        return f"parameter {name!r} has no annotation", f"annotate it, such as `{name}: str`"
    try:
        codec.decoder(parameter.type)
    except BadSignature as error:
        shown = forms.spell(parameter.type)
        return f"parameter {name!r} is {shown}: of {error.function}, {error.problem}", error.cure
    return None
