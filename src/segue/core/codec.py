"""Typed values as JSON bytes, and back.

The caller of a recorded call always gets the decoded copy, live too: a tuple that nothing annotates is a list in
every mode. So types may be lost only where no annotation asks for them, and data never: NaN, text with lone
surrogates, keys that JSON doesn't have and objects without a schema are refused where they were made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..model.errors import InvalidValue
from . import forms
from .complaint import invalid, invalid_text
from .encoding import digest, encode, encode_call, encode_deterministic, encode_stable
from .memo import memoized
from .reading import (
    Read,
    completed,
    custom,
    is_native,
    parse,
    pydantic_json,
    reader_of,
)

__all__ = [
    "decode",
    "decoder",
    "digest",
    "encode",
    "encode_call",
    "encode_deterministic",
    "encode_stable",
    "reader",
]


def decode(data: bytes | str, tp: Any = Any, *, where: str = "value") -> Any:
    """`data` as a `tp`. Raises `InvalidValue`, which begins with `where`."""
    try:
        return decoder(tp)(data)
    except InvalidValue as error:
        raise _placed(error, where) from None


def _placed(error: InvalidValue, where: str) -> InvalidValue:
    return InvalidValue(where, error.expected, error.problem, error.got)


@memoized
def decoder(tp: Any, where: str = "value") -> Callable[[bytes | str], Any]:
    """What reads JSON as a `tp`, made once for each type. Raises `BadSignature` for a type that JSON can't fill.

    It raises `InvalidValue`, which begins with `where`. Reading is strict: `"1"` is no int. (A pydantic model reads as
    its own rules say.)
    """
    parse = raw_decoder(tp)

    def read(data: bytes | str) -> Any:
        try:
            return parse(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _placed(invalid_text(tp, data, error), where) from None

    return read


def reader(tp: Any, *, strict: bool = True) -> Read:
    """What turns parsed JSON into a `tp`. `strict=False` also takes `"1"` for an int, as a CSV file writes it."""
    read = reader_of(tp, strict)

    def checked(value: object) -> Any:
        try:
            return read(value)
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            raise invalid(tp, value, error) from None

    return checked


def raw_decoder(tp: Any) -> Callable[[bytes | str], Any]:
    target = forms.bare(tp)
    if target is Any or target is object:
        return parse
    if forms.is_pydantic(target):
        return pydantic_json(target)
    if is_native(tp):
        return completed(msgspec.json.Decoder(tp, dec_hook=custom).decode, tp)
    read = reader_of(tp, True)
    return lambda data: read(parse(data))
