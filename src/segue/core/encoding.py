"""Values as JSON bytes, and what keeps a value from being written.

msgspec writes; what is slow is done only where its output shows a need, or where it failed.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import hashlib
import pathlib
import re
import types
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import msgspec

from ..model.errors import UNREADABLE, BadSignature, NotEncodable
from . import forms


def _plain(value: object) -> object:
    """What msgspec doesn't write by itself, as something that it does."""
    dump = getattr(value, "model_dump", None)
    if dump is not None and hasattr(value, "__pydantic_serializer__"):
        return dump(mode="json", round_trip=True, by_alias=False, warnings=False)
    text = getattr(value, "__segue_text__", None)
    if text is not None:
        return text()
    match value:
        case bool():  # as a key of a dict
            raise TypeError("bool")
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case pathlib.PurePath():
            return str(value)
        case collections.deque():
            return list(value)
        case types.MappingProxyType():
            return dict(value)
    raise TypeError(type(value).__name__)


def _bits(value: object) -> object:
    """As `_plain`, but a model's fields as they are: pydantic too makes null of NaN where the type is Any."""
    if hasattr(value, "model_dump") and forms.is_pydantic(type(value)):
        return dict(cast("Iterable[tuple[str, object]]", value))
    return _plain(value)


write = msgspec.json.Encoder(enc_hook=_plain).encode
write_sorted = msgspec.json.Encoder(enc_hook=_plain, order="deterministic").encode
_pack = msgspec.msgpack.Encoder(enc_hook=_bits).encode
# msgspec writes NaN and infinities as null, so only text with a null is looked at again. (From behind: that is faster.)
_NULL: Final = b"null"
# In MessagePack the same floats keep their bits: 0xcb, then a sign and eleven ones.
_find_nan = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]").search


def encode(value: object, *, where: str = "value") -> bytes:
    """JSON bytes of `value`. Raises `NotEncodable`, which says what at which path of it, and the cure."""
    try:
        data = write(value)
    except Exception as error:
        raise _refusal(value, where, error) from error
    if data.rfind(_NULL) >= 0 and value is not None and _has_nan(value):
        raise _refusal(value, where, None)
    return data


def encode_plain(value: object) -> bytes | None:
    """As `encode`, of what needs no second look; None for what does, or can't be written."""
    try:
        data = write(value)
    except Exception:
        return None
    return data if data.rfind(_NULL) < 0 else None


def encode_deterministic(value: object, *, where: str = "value") -> bytes:
    """As `encode`, with keys and sets sorted: equal values give equal bytes. For digests."""
    try:
        data = write_sorted(value)
    except TypeError:
        encode(value, where=where)
        return write(_ordered(value, keys=True))
    except Exception as error:
        raise _refusal(value, where, error) from error
    if data.rfind(_NULL) >= 0 and _has_nan(value):
        raise _refusal(value, where, None)
    return data


def encode_stable(value: object, *, where: str = "value") -> bytes:
    """As `encode`, with sets sorted by how they are written: in another process a set of texts has another order."""
    data = encode(value, where=where)
    if data.find(b"[") < 0 or not _holds_set([value], _lists(data, 0)):
        return data
    return write(_ordered(value, keys=False))


def encode_call(args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """As `encode_stable`, of the arguments of a call, which two lists stand around."""
    call = (args, kwargs)
    data = encode(call)
    lists = _lists(data, 2)
    if not lists:
        return data
    held = [value for value in args if type(value) not in LEAVES]
    if kwargs:
        held += [value for value in kwargs.values() if type(value) not in LEAVES]
    return write(_ordered(call, keys=False)) if _holds_set(held, lists) else data


_read_raw = msgspec.json.Decoder(msgspec.Raw).decode


def is_json(data: bytes) -> bool:
    """Whether bytes are JSON text."""
    try:
        data.decode()
        _read_raw(data)
    except UNREADABLE:
        return False
    return True


def digest(data: bytes) -> bytes:
    """16 bytes of SHA-256, which is as fast as BLAKE2 on small input and faster from 200 bytes."""
    return hashlib.sha256(data).digest()[:16]


def _ordered(value: object, *, keys: bool) -> object:
    """`value` with all its sets, and with `keys` its dicts, sorted by how they are written: msgspec can't compare
    1 with "a"."""
    if isinstance(value, dict):
        written = [(_key(key), _ordered(item, keys=keys)) for key, item in value.items()]
        return dict(sorted(written, key=lambda pair: pair[0]) if keys else written)
    if isinstance(value, (set, frozenset)):
        return [msgspec.Raw(text) for text in sorted(write(_ordered(item, keys=keys)) for item in value)]
    if isinstance(value, (list, tuple, collections.deque)):
        return [_ordered(item, keys=keys) for item in value]
    if isinstance(value, (str, int, float, enum.Enum, type(None))):
        return value
    if dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct):
        # Through bytes for renamed fields and tags; sets below have lost their order by then, so ours are put back.
        plain = msgspec.json.decode(write(value))
        if isinstance(plain, dict):
            for field in forms.fields(type(value)) or ():
                if field.key in plain:
                    plain[field.key] = _ordered(getattr(value, field.name), keys=keys)
            return plain
    if hasattr(value, "model_dump") and forms.is_pydantic(type(value)):
        return _ordered_as(value, _plain(value))
    return msgspec.Raw(write_sorted(value))


def _ordered_as(value: object, dumped: Any) -> Any:
    """What pydantic made of `value`, with the lists sorted that were sets; its own serializers come first."""
    if isinstance(dumped, dict):
        parts = value if isinstance(value, dict) else {name: getattr(value, name, None) for name in dumped}
        if len(parts) == len(dumped):  # a dict's keys may be written otherwise, in the same order
            return {
                key: _ordered_as(part, item)
                for (key, item), part in zip(dumped.items(), parts.values(), strict=True)
            }
    if isinstance(dumped, list) and isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        if len(value) == len(dumped):
            made = [_ordered_as(part, item) for part, item in zip(value, dumped, strict=True)]
            return sorted(made, key=write) if isinstance(value, (set, frozenset)) else made
    return dumped


#: Types that hold no other values.
LEAVES: frozenset[type] = frozenset(
    {str, int, float, bool, type(None), bytes, bytearray, Decimal, msgspec.Raw}
    | {datetime, date, time, timedelta, UUID}
)


def _lists(data: bytes, start: int) -> int:
    """How many lists were written from there on: none, one, or some (below zero). Faster than to count them."""
    first = data.find(b"[", start)
    return 0 if first < 0 else 1 if data.find(b"[", first + 1) < 0 else -1


def _holds_set(parts: list[Any], most: int) -> bool:
    """Whether there is a set in these, or in what they hold, which is added to them.

    They were written with `most` lists, of which a set makes one: once so many are found, none of them is a set. (Below
    zero: with some.)
    """
    leaves, text = LEAVES, str  # which most parts are
    for part in parts:
        kind: Any = type(part)
        if kind is dict:
            inside: Any = part.values()
        elif kind is list or kind is tuple:
            inside, most = part, most - 1
            if not most:
                return False
        elif isinstance(part, (set, frozenset)):
            return True
        else:
            most = -1  # what that holds isn't all written
            if isinstance(part, (dict, types.MappingProxyType)):
                inside = part.values()
            elif isinstance(part, (list, tuple, collections.deque)):
                inside = part
            else:
                inside = [getattr(part, name, None) for name in _open_fields(kind)]
        for each in inside:
            if type(each) is not text and type(each) not in leaves:
                parts.append(each)
    return False


@functools.lru_cache(maxsize=4096)
def _open_fields(cls: type) -> tuple[str, ...]:
    """The fields of a class that may hold more than a text or a number."""
    if cls in LEAVES:
        return ()
    try:
        fields = forms.fields(cls)
    except BadSignature:
        fields = None
    if fields is None:
        return tuple(field.name for field in getattr(cls, "__attrs_attrs__", ()))
    return tuple(field.name for field in fields if forms.bare(field.type) not in LEAVES)


def _key(key: object) -> str:
    return cast("str", next(iter(msgspec.json.decode(write({key: 0})))))


def _has_nan(value: object) -> bool:
    try:
        packed = _pack(value)
    except _UNWRITABLE:  # MessagePack has no integers beyond 64 bit
        return _blame(value, "", ()) is not None
    return _find_nan(packed) is not None and _blame(value, "", ()) is not None


# ---------------------------------------------------------------- what can't be written, and where
# A model's own serializer may raise any of these.
_UNWRITABLE = (
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    msgspec.MsgspecError,
)


_NO_KEY = object()


class _Fault(NamedTuple):
    path: str
    what: str
    hint: str


def _refusal(value: object, where: str, error: Exception | None) -> NotEncodable:
    try:
        fault = _blame(value, "", ()) or _Fault("", _name(value), str(error))
    except RecursionError:
        fault = _Fault("", f"{_name(value)} nested too deeply", "flatten it")
    return NotEncodable(where, fault.path, fault.what, fault.hint)


def _blame(value: object, path: str, above: tuple[int, ...]) -> _Fault | None:
    """The deepest part of `value` that can't be written, or None."""
    match value:
        case float():
            return (
                None
                if isfinite(value)
                else _Fault(path, f"{float(value)!r}", "use None, or a string, for it")
            )
        case str():
            return _blame_text(value, path)
        case None | int() | bytes() | bytearray() | Decimal() | msgspec.Raw() | pathlib.PurePath():
            return None
    if id(value) in above:
        return _Fault(path, f"{_name(value)} that holds itself", "store ids in place of the reference")
    for step, key, part in _parts(value):
        if key is not _NO_KEY and (bad := _blame_key(key, path)):
            return bad
        if fault := _blame(part, path + step, (*above, id(value))):
            return fault
    try:
        write(value)
    except RecursionError:
        return _Fault(path, f"{_name(value)} nested too deeply", "flatten it")
    except _UNWRITABLE as error:
        reason = (
            "" if isinstance(error, TypeError) else f"{type(error).__name__}: {forms.short(str(error))}; "
        )
        return _Fault(path, _name(value), reason + _cure(value))
    return None


def _blame_text(text: str, path: str) -> _Fault | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        cure = "clean it: text.encode('utf-8', 'replace').decode()"
        return _Fault(path, f"text with a lone surrogate ({forms.short(ascii(text), 60)})", cure)
    return None


def _blame_key(key: object, path: str) -> _Fault | None:
    try:
        write({key: 0})
    except _UNWRITABLE:
        shown = forms.short(ascii(key), 60)
        return _Fault(path, f"a dict with the key {shown}", "use strings as keys, or a list of pairs")
    return None


def _parts(value: Any) -> Iterator[tuple[str, object, object]]:
    """(step of the path, key of a dict, part)"""
    if isinstance(value, (dict, types.MappingProxyType)):
        for key, part in value.items():
            shown = (
                f".{key}"
                if isinstance(key, str) and key.isidentifier()
                else f"[{forms.short(ascii(key), 60)}]"
            )
            yield shown, key, part
    elif isinstance(value, (list, tuple, collections.deque)):
        for index, part in enumerate(value):
            yield f"[{index}]", _NO_KEY, part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield "{…}", _NO_KEY, part
    elif isinstance(value, enum.Enum):
        yield ".value", _NO_KEY, value.value
    elif not isinstance(value, type):
        for name in _attributes(value):
            part = getattr(value, name, msgspec.UNSET)
            if part is not msgspec.UNSET:
                yield f".{name}", _NO_KEY, part


def _attributes(value: Any) -> list[str]:
    cls = type(value)
    if isinstance(value, msgspec.Struct):
        return list(cls.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    if forms.is_pydantic(cls):
        fields: dict[str, Any] = getattr(cls, "model_fields", {})
        return [name for name, _ in value if name not in fields or not fields[name].exclude]
    return [field.name for field in getattr(cls, "__attrs_attrs__", ())]


def _name(value: object) -> str:
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _cure(value: object) -> str:
    if isinstance(value, BaseException):
        return "raise it, or store str(error)"
    if isinstance(value, type):
        return "store its name"
    if hasattr(value, "__await__"):
        return "await it first"
    if (hasattr(value, "close") or hasattr(value, "aclose")) and not isinstance(
        value, Generator | AsyncGenerator
    ):
        return "live things are never stored: open it where it is used, or make it a @segue.resource"
    if isinstance(value, Iterator | AsyncIterator):
        return "make a list of it"
    if callable(value):
        return "store its name, or what it returns"
    return "make it a dataclass, a msgspec.Struct or a pydantic model, or store its plain parts"
