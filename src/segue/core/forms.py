"""Type forms: what an annotation says, taken apart without importing pydantic."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import sys
import types
import typing
from typing import Any, NamedTuple, NewType, TypeVar, Union

import msgspec

from ..model.errors import BadSignature
from .memo import memoized


class FormField(NamedTuple):
    """A field of a class: its attribute, its key in JSON, its type, and whether JSON and `__init__` have it."""

    name: str
    key: str
    type: Any
    required: bool
    init: bool = True


def bare(tp: Any) -> Any:
    """`tp` without alias, `NewType`, `Annotated`, `Required` and the like around it."""
    while True:
        if isinstance(tp, NewType):
            tp = tp.__supertype__
        elif type(tp).__name__ == "TypeAliasType":
            tp = tp.__value__
        elif isinstance(tp, TypeVar):
            tp = tp.__bound__ or Any
        elif type(typing.get_origin(tp)).__name__ == "TypeAliasType":
            alias = typing.get_origin(tp)
            tp = substitute(
                alias.__value__, dict(zip(alias.__type_params__, typing.get_args(tp), strict=True))
            )
        elif hasattr(tp, "__metadata__"):
            tp = tp.__origin__
        elif typing.get_origin(tp) in _QUALIFIERS:
            tp = typing.get_args(tp)[0]
        else:
            return tp


_QUALIFIERS = {
    typing.Required,
    typing.NotRequired,
    typing.Final,
    getattr(typing, "ReadOnly", typing.Required),
}


def metadata(tp: Any) -> tuple[Any, ...]:
    """What `Annotated` adds to `tp`; the outermost comes last."""
    if typing.get_origin(tp) in _QUALIFIERS:
        return metadata(typing.get_args(tp)[0])
    return tuple(getattr(tp, "__metadata__", ()))


def description(tp: Any) -> str:
    """The words that `Annotated` gives: a string, a `Doc`, a msgspec `Meta` or a pydantic `Field`."""
    for note in reversed(metadata(tp)):
        text = note if isinstance(note, str) else getattr(note, "description", None)
        if text is None:
            text = getattr(note, "documentation", None)
        if isinstance(text, str) and text:
            return text
    return ""


def lengths(tp: Any) -> tuple[int, int] | None:
    """(least, most) that msgspec's `Meta` allows, or None where it says nothing of it."""
    found = [note for note in metadata(tp) if isinstance(note, msgspec.Meta)]
    least = [note.min_length for note in found if note.min_length is not None]
    most = [note.max_length for note in found if note.max_length is not None]
    return (max(least, default=0), min(most, default=sys.maxsize)) if least or most else None


def members(tp: Any) -> tuple[Any, ...] | None:
    """The members of a union without msgspec's `UNSET`, or None where `tp` is none."""
    tp = bare(tp)
    if typing.get_origin(tp) is Union or isinstance(tp, types.UnionType):
        flat: list[Any] = []
        for member in typing.get_args(tp):
            inner = members(member)
            flat.extend(inner if inner is not None else [member])
        return tuple(member for member in flat if member is not msgspec.UnsetType)
    return None


def is_pydantic(tp: Any) -> bool:
    """Whether `tp` is a pydantic model or dataclass; never imports pydantic."""
    if "pydantic" not in sys.modules:
        return False
    return isinstance(tp, type) and hasattr(tp, "__pydantic_validator__")


def is_text(tp: Any) -> bool:
    """Whether `tp` is a class of ours that is written as a text, such as a run's address."""
    return isinstance(tp, type) and hasattr(tp, "__segue_read__")


def is_typed_dict(tp: Any) -> bool:
    return isinstance(tp, type) and issubclass(tp, dict) and hasattr(tp, "__total__")


def is_named_tuple(tp: Any) -> bool:
    return isinstance(tp, type) and issubclass(tp, tuple) and hasattr(tp, "_fields")


def origin(tp: Any) -> Any:
    """The class of a generic alias, or `tp` itself."""
    return typing.get_origin(tp) or tp


@memoized
def fields(tp: Any) -> tuple[FormField, ...] | None:
    """The fields of a dataclass, Struct, TypedDict, NamedTuple or pydantic model, or None for anything else."""
    cls = origin(tp)
    if not isinstance(cls, type) or cls is types.UnionType:
        return None
    hints = _hints_of(tp)
    if issubclass(cls, msgspec.Struct):
        return tuple(
            FormField(f.name, f.encode_name, hints[f.name], f.required) for f in msgspec.structs.fields(cls)
        )
    if is_pydantic(cls) and hasattr(cls, "model_fields"):
        return tuple(
            FormField(name, field.alias or name, hints.get(name, field.annotation), field.is_required())
            for name, field in cls.model_fields.items()
        )
    if dataclasses.is_dataclass(cls):
        return tuple(
            FormField(f.name, f.name, hints[f.name], f.init and _bare_field(f), f.init)
            for f in dataclasses.fields(cls)
        )
    if is_typed_dict(cls):
        required: frozenset[str] = cls.__required_keys__  # type: ignore[attr-defined]  # of a TypedDict
        return tuple(FormField(name, name, hint, name in required) for name, hint in hints.items())
    if is_named_tuple(cls):
        names: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]  # of a NamedTuple
        defaults: dict[str, Any] = cls._field_defaults  # type: ignore[attr-defined]  # of a NamedTuple
        return tuple(FormField(name, name, hints.get(name, Any), name not in defaults) for name in names)
    return None


def _bare_field(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints_of(tp: Any) -> dict[str, Any]:
    cls = origin(tp)
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, AttributeError) as error:
        raise BadSignature(
            spell(tp),
            f"an annotation can't be resolved: {error}",
            "import the name ordinarily, not under TYPE_CHECKING, and define it at the module's top",
        ) from None
    given = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(tp), strict=False))
    return {name: substitute(hint, given) for name, hint in hints.items()} if given else hints


def substitute(tp: Any, given: dict[Any, Any]) -> Any:
    """`tp` with its type variables replaced."""
    if isinstance(tp, TypeVar):
        return given.get(tp, tp)
    loose = getattr(tp, "__parameters__", ())
    return (
        tp[tuple(given.get(variable, variable) for variable in loose)]
        if loose and not isinstance(tp, type)
        else tp
    )


def spell(tp: Any) -> str:
    """`tp` as an author would write it, without modules."""
    if tp is None or tp is type(None):
        return "None"
    if tp is Any or tp is inspect.Parameter.empty:
        return "Any"
    if tp is Ellipsis:
        return "..."
    if isinstance(tp, str):
        return tp
    if isinstance(tp, types.UnionType) or typing.get_origin(tp) is Union:
        return " | ".join(spell(part) for part in typing.get_args(tp))
    if hasattr(tp, "__metadata__"):
        return spell(tp.__origin__)
    head, args = typing.get_origin(tp), typing.get_args(tp)
    if head is typing.Literal:
        return f"Literal[{', '.join(repr(arg) for arg in args)}]"
    if head is collections.abc.Callable:
        return "Callable"
    if head is not None and args:
        return f"{spell(head)}[{', '.join(spell(arg) for arg in args)}]"
    name = getattr(tp, "__qualname__", None) or getattr(tp, "__name__", None)
    return str(name).rpartition("<locals>.")[2] if name else str(tp).removeprefix("typing.")


def short(text: str, limit: int = 160) -> str:
    """`text` cut in the middle where it is longer than `limit`."""
    return text if len(text) <= limit else f"{text[: limit - 40]} … {text[-36:]}"


def is_enum(tp: Any) -> bool:
    return isinstance(tp, type) and issubclass(tp, enum.Enum)
