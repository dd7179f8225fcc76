"""Parsed JSON as typed values, by hand, for the types that msgspec refuses: what can't be told apart by its kind.

A union is read by trying each member; the one that keeps most of the data wins. Of `str` and another type that is
written as a string (`datetime | str`), what reads as the other type is of it.
"""

from __future__ import annotations

import collections
import functools
import pathlib
import sys
import typing
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
)
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any, cast

import msgspec
import msgspec.inspect

from ..model.errors import BadSignature
from . import forms
from .complaint import Wrong, in_words, problem_of
from .defaults import filler
from .encoding import encode_deterministic, write
from .memo import memoized

Read = Callable[[object], Any]
parse = msgspec.json.Decoder().decode


def custom(tp: Any, value: object) -> object:
    """msgspec's hook for classes that it doesn't know."""
    return value if tp is object else reader_of(tp, True)(value)


def _custom_lax(tp: Any, value: object) -> object:
    return value if tp is object else reader_of(tp, False)(value)


@memoized
def reader_of(tp: Any, strict: bool) -> Read:
    return _Reading(strict).of(tp)


def is_native(tp: Any) -> bool:
    """Whether msgspec reads `tp` by itself, with `custom` for single classes."""
    try:
        info = msgspec.inspect.type_info(tp)
    except TypeError as error:
        if "InitVar" in str(error):
            cure = "make it a field, or compute what depends on it before"
            raise BadSignature(
                forms.spell(tp), "an InitVar isn't kept, so the value can't be made again", cure
            ) from None
        return False
    except (NameError, AttributeError) as error:
        cure = "import the name ordinarily, not under TYPE_CHECKING, and define it at the module's top"
        raise BadSignature(forms.spell(tp), f"an annotation can't be resolved: {error}", cure) from None
    if isinstance(info, msgspec.inspect.CustomType):
        return False
    seen: set[int] = set()
    todo: list[Any] = [info]
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            todo.extend(node)
            continue
        if not isinstance(node, msgspec.Struct) or id(node) in seen:
            continue
        seen.add(id(node))
        match node:
            case msgspec.inspect.DataclassType(cls=cls) if forms.is_pydantic(forms.origin(cls)):
                return False
            case msgspec.inspect.DictType(key_type=msgspec.inspect.CustomType(cls=cls)) if cls is not object:
                return False  # its keys would stay strings
            case msgspec.inspect.CustomType(cls=cls) if cls is not object:
                reader_of(cls, True)  # raises for a class that can't be read
        # A class may not be done when its field refers to it; `getattr` then finds nothing.
        todo.extend(getattr(node, name, None) for name in node.__struct_fields__ if name != "default")
    return True


def pydantic_json(cls: Any) -> Callable[[bytes | str], Any]:
    pydantic = sys.modules["pydantic"]
    # Written by name, since an alias for reading may differ from the one for writing; a model uses the alias.
    both = {"by_alias": True, "by_name": True} if _version(pydantic.VERSION) >= (2, 11) else {}
    validate = (
        cls.model_validate_json
        if hasattr(cls, "model_validate_json")
        else pydantic.TypeAdapter(cls).validate_json
    )

    def read(data: bytes | str) -> Any:
        # A part of a message or a call is a `msgspec.Raw`, which pydantic doesn't know.
        return validate(bytes(data) if isinstance(data, msgspec.Raw) else data, **both)

    return read


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def completed(read: Callable[[Any], Any], tp: Any) -> Callable[[Any], Any]:
    """`read` and, where `tp` holds dataclasses, the defaults that msgspec leaves out."""
    fill = filler(tp)
    if fill is None:
        return read

    def whole(value: Any) -> Any:
        made = read(value)
        fill(made)
        return made

    return whole


class _Reading:
    """Builds a reader of parsed JSON, form by form; classes that refer to themselves are met again by name."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.open: dict[Any, Read] = {}

    def of(self, tp: Any) -> Read:
        if not is_native(tp) and (bounds := forms.lengths(tp)) is not None:
            return _sized(self._of(tp), *bounds)
        return self._of(tp)

    def _of(self, tp: Any) -> Read:
        target = forms.bare(tp)
        cls = forms.origin(target)
        if target is Any or target is object:
            return lambda value: value
        if forms.is_pydantic(cls):
            return _pydantic_reader(target)
        if forms.is_text(cls):
            return lambda value: cls.__segue_read__(msgspec.convert(value, str))
        if is_native(tp):
            convert = functools.partial(
                msgspec.convert,
                type=tp,
                strict=self.strict,
                str_keys=True,
                dec_hook=custom if self.strict else _custom_lax,
            )
            return completed(convert, tp)
        if (members := forms.members(target)) is not None:
            return self.union(target, members)
        if forms.is_enum(target):
            return _enum_reader(target)
        key = target if _can_hash(target) else id(target)
        if key in self.open:
            return lambda value: self.open[key](value)
        self.open[key] = _unfinished
        made = self.open[key] = self.collection(target, cls) or self.record(target, cls) or _refused(tp)
        return made

    def union(self, tp: Any, members: tuple[Any, ...]) -> Read:
        _check_union(tp, members)
        ranked = sorted(members, key=_rank)
        readers = [(member, self.of(member)) for member in ranked]

        def read(value: object) -> object:
            best: tuple[tuple[int, int], object] | None = None
            problems = []
            for member, attempt in readers:
                try:
                    got = attempt(value)
                except (msgspec.ValidationError, ValueError) as error:
                    problem, path = problem_of(error)
                    problems.append(f"as {forms.spell(member)}: {in_words(problem, path)}")
                    continue
                score = _likeness(value, got)
                if score == (0, 0):
                    return got
                if best is None or score < best[0]:
                    best = score, got
            if best is None:
                raise Wrong("fits no member of the union (" + "; ".join(problems) + ")")
            return best[1]

        return read

    def collection(self, tp: Any, cls: Any) -> Read | None:
        args = typing.get_args(tp)
        if not isinstance(cls, type) or forms.is_named_tuple(cls) or forms.is_typed_dict(cls):
            return None
        if issubclass(cls, tuple) and args and args[-1] is not Ellipsis:
            return self.fixed(tuple(self.of(arg) for arg in args if arg != ()))
        if issubclass(cls, (list, tuple, set, frozenset, collections.deque)) or cls in _ARRAYS:
            item = self.of(args[0] if args else Any)
            make = _ARRAYS.get(cls, cls)
            return lambda value: make(_each(item, _is(list, value)))
        if issubclass(cls, dict) or cls in _MAPPINGS:
            return self.mapping(cls, args)
        for base, plain in _SCALARS:
            if issubclass(cls, base):
                make_one: Callable[..., Any] = cls
                return lambda value: make_one(msgspec.convert(value, plain, strict=self.strict))
        return None

    def fixed(self, items: tuple[Read, ...]) -> Read:
        def read(value: object) -> object:
            given = _is(list, value)
            if len(given) != len(items):
                raise Wrong(f"Expected an array of length {len(items)}, got {len(given)}")
            return tuple(
                _in(f"[{index}]", item, part)
                for index, (item, part) in enumerate(zip(items, given, strict=True))
            )

        return read

    def mapping(self, cls: Any, args: tuple[Any, ...]) -> Read:
        counts = isinstance(cls, type) and issubclass(cls, collections.Counter)
        key_type, item_type = (
            (*args, int) if counts and args else args if len(args) == 2 else (Any, int if counts else Any)
        )
        item = self.of(item_type)
        # Keys are text in JSON; a dict of one key lets msgspec read it as it would.
        key_of = self.key(key_type)
        make: Callable[[dict[Any, Any]], Any] = _MAPPINGS.get(cls, cls)

        def read(value: object) -> object:
            return make({key_of(k): _in(f"[{k!r}]", item, part) for k, part in _is(dict, value).items()})

        return read

    def key(self, tp: Any) -> Callable[[Any], Any]:
        if tp is Any or tp is str:
            return lambda key: key
        form: Any = dict[tp, int]
        if not is_native(form):
            return self.of(tp)

        def read(key: Any) -> Any:
            return next(iter(msgspec.convert({key: 0}, form, str_keys=True)))

        return read

    def record(self, tp: Any, cls: Any) -> Read | None:
        found = forms.fields(tp)
        if found is None:
            return None
        parts = [(field, self.of(field.type)) for field in found]
        if forms.is_named_tuple(cls):
            return _named_tuple_reader(cls, parts)
        config: Any = getattr(cls, "__struct_config__", None)
        if config is not None and config.array_like:
            cure = "leave array_like out, or tag the union's members"
            raise BadSignature(
                forms.spell(tp), "an array_like Struct that holds such a union can't be read", cure
            )
        names = {field.key for field in found}
        late = [field.name for field in found if not field.init]
        make = cast("Callable[..., Any]", dict if forms.is_typed_dict(cls) else cls)

        def read(value: object) -> object:
            given = _is(dict, value)
            if config is not None and config.tag is not None:
                if given.get(config.tag_field) != config.tag:
                    raise Wrong(
                        f"Expected {config.tag!r} as `{config.tag_field}`, got {given.get(config.tag_field)!r}"
                    )
            elif config is not None and config.forbid_unknown_fields and (extra := given.keys() - names):
                raise Wrong(f"Object contains unknown field `{min(extra)}`")
            made = {}
            for field, part in parts:
                if field.key in given:
                    made[field.name] = _in(f".{field.key}", part, given[field.key])
                elif field.required:
                    raise Wrong(f"Object missing required field `{field.key}`")
            later = {name: made.pop(name) for name in late if name in made}
            built = _build(make, made)
            for name, part in later.items():
                object.__setattr__(built, name, part)
            return built

        return read


def _sized(read: Read, least: int, most: int) -> Read:
    def checked(value: object) -> object:
        made = read(value)
        if hasattr(made, "__len__") and not least <= len(made) <= most:
            raise Wrong(
                f"Expected length {f'>= {least}' if len(made) < least else f'<= {most}'}, got {len(made)}"
            )
        return made

    return checked


def _can_hash(tp: Any) -> bool:
    try:
        hash(tp)
    except TypeError:  # what Annotated adds to it, or to a part of it
        return False
    return True


def _unfinished(value: object) -> object:
    raise AssertionError("a reader was used while it was built")


def _refused(tp: Any) -> Read:
    if isinstance(tp, str | int | float | list | dict | tuple | set) or hasattr(
        type(tp), "__dataclass_fields__"
    ):
        raise BadSignature(
            forms.short(repr(tp)), "it is a value, not a type", "give the type itself, as in list[int]"
        )
    cure = "use a dataclass, a msgspec.Struct, a TypedDict, a pydantic model or plain JSON types"
    if {str, bytes} <= set(forms.members(tp) or ()):
        cure = "use one of the two"
    raise BadSignature(forms.spell(tp), "JSON can't be read as this type", cure)


_SCALARS: tuple[tuple[type[Any], Any], ...] = (
    (str, str),
    (int, int),
    (float, float),
    (pathlib.PurePath, str),
)
_ARRAYS: dict[Any, Callable[..., Any]] = {
    Sequence: list,
    MutableSequence: list,
    Collection: list,
    Iterable: list,
    AbstractSet: set,
    MutableSet: set,
}
_MAPPINGS: dict[Any, Callable[..., Any]] = {
    Mapping: dict,
    MutableMapping: dict,
    collections.defaultdict: functools.partial(collections.defaultdict, None),
}


def _build(make: Callable[..., Any], values: dict[str, Any]) -> Any:
    try:
        return make(**values)
    except (TypeError, ValueError) as error:
        raise Wrong(str(error)) from error


def _named_tuple_reader(cls: Any, parts: list[tuple[forms.FormField, Read]]) -> Read:
    least = sum(field.required for field, _ in parts)

    def read(value: object) -> object:
        given = _is(list, value)
        if not least <= len(given) <= len(parts):
            raise Wrong(f"Expected an array of length {least} to {len(parts)}, got {len(given)}")
        pairs = zip(parts, given, strict=False)
        return _build(cls, {f.name: _in(f"[{n}]", part, item) for n, ((f, part), item) in enumerate(pairs)})

    return read


def _enum_reader(cls: Any) -> Read:
    by_text = {encode_deterministic(member.value): member for member in cls}

    def read(value: object) -> object:
        try:
            return by_text[encode_deterministic(value)]
        except KeyError:
            raise Wrong(f"Invalid enum value {value!r}") from None

    return read


def _pydantic_reader(cls: Any) -> Read:
    validate = pydantic_json(cls)

    def read(value: object) -> object:
        # Through JSON, for which pydantic has its own rules (a strict model takes a date from a string).
        try:
            return validate(msgspec.json.encode(value))
        except ValueError as error:
            raise Wrong(*problem_of(error)) from None

    return read


def _is(kind: type[Any], value: object) -> Any:
    if not isinstance(value, kind):
        raise Wrong(f"Expected `{'array' if kind is list else 'object'}`, got `{_kind(value)}`")
    return value


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case dict():
            return "object"
        case list():
            return "array"
        case _:
            return type(value).__name__


def _each(item: Read, values: list[object]) -> list[Any]:
    return [_in(f"[{index}]", item, value) for index, value in enumerate(values)]


def _in(step: str, read: Read, value: object) -> Any:
    try:
        return read(value)
    except (msgspec.ValidationError, ValueError) as error:
        problem, path = problem_of(error)
        raise Wrong(problem, step + path) from error


# ---------------------------------------------------------------- unions
_TEXTS = (str, bytes, bytearray, Decimal)


def _check_union(tp: Any, members: tuple[Any, ...]) -> None:
    """Refuse what can't be told apart: data would come back as another type."""
    bare = [forms.bare(member) for member in members]
    if str in bare and any(member in _TEXTS for member in bare if member is not str):
        raise BadSignature(
            forms.spell(tp), "JSON writes both as strings, and either could be the other", "use one of them"
        )
    looks: dict[object, Any] = {}
    for member in bare:
        found = None if forms.is_named_tuple(forms.origin(member)) else forms.fields(member)
        if found is None:
            continue
        config = getattr(forms.origin(member), "__struct_config__", None)
        look = (config and config.tag, frozenset((field.key, repr(field.type)) for field in found))
        if look in looks:
            raise BadSignature(
                forms.spell(tp),
                f"{forms.spell(looks[look])} and {forms.spell(member)} have the same fields in JSON",
                "give each a field such as `kind: Literal['…']`, or use msgspec.Struct with tag=True",
            )
        looks[look] = member


def _rank(tp: Any) -> int:
    """Members that take more come later, so that they don't hide the others."""
    tp = forms.bare(tp)
    cls = forms.origin(tp)
    if tp is Any or tp is object:
        return 3
    if (
        isinstance(cls, type)
        and cls is not str
        and issubclass(cls, (str, pathlib.PurePath))
        and not forms.is_enum(cls)
    ):
        return 2
    return 1 if cls in (str, dict, list, Mapping, Sequence) else 0


def _likeness(value: object, got: object) -> tuple[int, int]:
    """How many leaves of `value` reading it as `got` lost, and how many it added."""
    before = set(_leaves(value, ""))
    after = set(_leaves(parse(write(got)), ""))
    return len(before - after), len(after - before)


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield path, "{}"
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}")
    elif isinstance(value, list):
        yield path, "[]"
        for index, part in enumerate(value):
            yield from _leaves(part, f"{path}[{index}]")
    else:
        yield path, (type(value).__name__, value)
