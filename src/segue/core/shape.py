"""What models are asked for: a type form's schema in the shape that they are held to, and the reading of answers.

Providers that hold a model to a schema ("strict" mode) want an object at the root, every property required and no
other property. So a type that isn't an object is asked for as `{"value": …}`, an optional property may be null, and
both are undone by `Shape.decode`. What strict mode can't say is asked for with the plain schema; validation is ours in
either case.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import msgspec

from ..model.errors import InvalidValue
from . import codec, forms
from .memo import memoized
from .schema import Schema, name_of, schema
from .strict import strict, without_nulls

T = TypeVar("T")


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


@memoized
def _shape(tp: Any) -> Shape[Any]:
    inner = schema(tp)
    wrapped = inner.get("type") != "object"
    plain = inner
    if wrapped:
        defs = {"$defs": inner["$defs"]} if "$defs" in inner else {}
        value = {key: part for key, part in inner.items() if key != "$defs"}
        plain = {"type": "object", "properties": {"value": value}, "required": ["value"], **defs}
    tight = strict(plain)
    name = name_of(tp)[:64] if forms.members(tp) is None else "answer"
    return Shape(name, tight or plain, plain, tight is not None, wrapped, tp, inner, codec.reader(tp))


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
