"""What a function takes, and its arguments as those of a recorded call."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..model.errors import BadSignature, InvalidValue, NotEncodable
from . import codec, forms
from .memo import memoized
from .schema import schema

__all__ = ["InputShape", "Parameter", "read_value", "resolve"]

_EMPTY = inspect.Parameter.empty
_KINDS = inspect._ParameterKind


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function; `type` is Any where it has no annotation."""

    name: str
    type: Any
    kind: inspect._ParameterKind
    required: bool
    annotated: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """A function's parameters and result with their annotations resolved."""

    name: str
    parameters: tuple[Parameter, ...]
    result: Any
    raw: inspect.Signature


@memoized
def resolve(fn: Callable[..., Any]) -> Signature:
    """`fn`'s signature, annotations resolved once. Raises `BadSignature` where one can't be."""
    name = _title(fn)
    raw = _raw(fn)
    hints = _hints(fn, name)
    result = fn if isinstance(fn, type) else _result(hints.get("return", Any))
    parameters = tuple(
        Parameter(
            p.name,
            hints.get(p.name, Any),
            p.kind,
            p.default is _EMPTY,
            p.name in hints,
        )
        for p in raw.parameters.values()
    )
    return Signature(name, parameters, result, raw)


def _raw(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:  # of some that are written in C, such as `time.time`, Python knows none
        return inspect.Signature(
            [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )


def _title(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _hints(fn: Any, name: str) -> dict[str, Any]:
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not (inspect.isroutine(fn) or isinstance(fn, type)) and not hasattr(fn, "__wrapped__"):
        fn = type(fn).__call__
    target = getattr(fn, "__init__", None) if isinstance(fn, type) else inspect.unwrap(fn)
    target = getattr(target, "__func__", target)
    try:
        return typing.get_type_hints(target, localns=_closure(target), include_extras=True)
    except (NameError, AttributeError) as error:
        raise BadSignature(
            name,
            f"an annotation can't be resolved: {error}",
            "import the name ordinarily, not under TYPE_CHECKING, and define it at the module's top",
        ) from None


def _closure(fn: Any) -> dict[str, Any] | None:
    """The names around a nested function that its body holds; its annotations may mean them."""
    code = getattr(fn, "__code__", None)
    if code is None or not fn.__closure__:
        return None
    cells = zip(code.co_freevars, fn.__closure__, strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}


def _result(tp: Any) -> Any:
    """What awaiting the call gives: a function may be annotated with the awaitable that it returns."""
    cls, args = typing.get_origin(tp), typing.get_args(tp)
    if cls in (collections.abc.Coroutine, collections.abc.Awaitable):
        return args[-1]
    return type(None) if tp is None else tp


def read_value(read: Callable[[object], Any], value: object, where: str) -> Any:
    """A value as `read` has it. Raises `InvalidValue`, which says where it was to stand."""
    try:
        return read(value)
    except InvalidValue as error:
        raise InvalidValue(where, error.expected, error.problem, error.got) from None


# ---------------------------------------------------------------- recorded calls
_split_call = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]).decode


@dataclass(frozen=True, slots=True)
class InputShape:
    """A function's arguments as JSON `[args, kwargs]`, and back, typed by its annotations.

    Live and replayed calls both get what `decode_call` gives. A parameter without annotation is plain JSON.
    The same call is the same bytes however its arguments were passed: all that can stand by position do.
    """

    name: str
    parameters: tuple[Parameter, ...]
    result_type: Any
    _raw: inspect.Signature
    _positional: tuple[Callable[[bytes | str], Any], ...]
    _named: Mapping[str, Callable[[bytes | str], Any]]
    _rest: Callable[[bytes | str], Any] | None
    _others: Callable[[bytes | str], Any] | None
    _least: int
    _alone: Callable[[bytes | str], Any] | None  #: reads the one parameter, if that is all there is

    @staticmethod
    def of(fn: Callable[..., Any], /) -> InputShape:
        """Made once for each function. Raises `BadSignature` for an annotation that JSON can't fill."""
        return _input(fn)

    def encode_call(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
        """Raises `NotEncodable`, which names the argument, and `TypeError` as the call itself would."""
        if kwargs or not self._least <= len(args) <= len(self._positional):
            try:
                bound = self._raw.bind(*args, **kwargs)
            except TypeError as error:
                as_row = not kwargs and len(args) == 1 and isinstance(args[0], tuple | list | dict)
                cure = "; a map hands over each row as one argument: take a dataclass in place of several"
                raise TypeError(f"{self.name}() {error}{cure if as_row else ''}") from None
            args, kwargs = bound.args, bound.kwargs
        try:
            return codec.encode_call(args, kwargs)
        except NotEncodable:
            for name, value in self._by_name(args, kwargs):
                codec.encode(value, where=f"argument {name!r} of {self.name}")
            raise

    @property
    def _where(self) -> str:
        return f"arguments of {self.name}"

    def decode_call(self, data: bytes | str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Raises `InvalidValue`, which names the argument: the stored call may be older than the code."""
        if (
            self._alone is not None
            and isinstance(data, bytes)
            and data[:2] == b"[["
            and data[-5:] == b"],{}]"
        ):
            try:
                return (self._alone(data[2:-5]),), {}
            except InvalidValue:
                pass  # it is told of below, by name, or isn't one alone
        try:
            given, named = _split_call(data)
        except (msgspec.MsgspecError, ValueError) as error:
            shown = data if isinstance(data, str) else data.decode("utf-8", "replace")
            raise InvalidValue(self._where, "[args, kwargs]", str(error), forms.short(repr(shown))) from None
        if len(given) > len(self._positional) and self._rest is None:
            problem = f"it takes {len(self._positional)} by position"
            raise InvalidValue(self._where, "those of its signature", problem, f"{len(given)}")
        args = []
        for index, raw in enumerate(given):
            read = self._positional[index] if index < len(self._positional) else self._rest
            args.append(self._argument(read, raw, index))
        kwargs = {}
        for name, raw in named.items():
            read = self._named.get(name, self._others)
            if read is None:
                known = ", ".join(self._named) or "none"
                problem = f"there is no parameter {name!r}; the parameters are {known}"
                raise InvalidValue(self._where, "those of its signature", problem)
            kwargs[name] = self._argument(read, raw, name)
        return tuple(args), kwargs

    def taker(self, row: object) -> Parameter | None:
        """The parameter whose value a row of a file is; None where the row is an object of all of them by name.

        That is the only one, or the first where all others have a default: of a row that is no object, and of one that
        doesn't have it by its name, where objects are what it takes.
        """
        takes = self._takes
        if len(takes) == 1 and len(self.parameters) == 1:
            return takes[0]
        if not takes or [p for p in takes if p.required] != takes[:1]:
            return None
        if not isinstance(row, dict):
            return takes[0]
        by_name = takes[0].name in row or self._others is not None or not _takes_objects(takes[0].type)
        return None if by_name else takes[0]

    @property
    def _takes(self) -> list[Parameter]:
        """The parameters that have a name of their own."""
        return [p for p in self.parameters if p.kind not in (_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD)]

    def bind_row(self, row: object, *, text: bool = False) -> bytes:
        """`row` of a JSONL or CSV file as one call, checked and typed, as `encode_call` writes it.

        One parameter takes the row itself (see `taker`); else several take an object by their names. With `text`, every
        cell is text as in CSV: `"1"`, `"true"` are read as what the parameter is, and an empty cell that doesn't fit
        means the default, or None. A one-parameter function of what isn't an object also takes an object that has its
        name alone.
        """
        if (one := self.taker(row)) is not None:
            return self._bind_one(one, row, text=text)
        takes = self._takes
        if not isinstance(row, dict):
            names = ", ".join(p.name for p in takes)
            problem = f"its parameters are {names}, by name" if names else "it has no parameters: a row is {}"
            raise InvalidValue(f"row for {self.name}", "an object", problem, _shown(row))
        known = {p.name for p in takes}
        if self._others is None and (unknown := [key for key in row if key not in known]):
            there = f"the parameters are {', '.join(sorted(known))}" if known else "it has no parameters"
            problem = f"there is no parameter {unknown[0]!r}; {there}"
            raise InvalidValue(f"row for {self.name}", f"parameters of {self.name}", problem, _shown(row))
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for p in takes:
            value = self._cell(p, row.get(p.name, msgspec.UNSET), text=text)
            if value is msgspec.UNSET:
                continue
            if p.kind is _KINDS.POSITIONAL_ONLY:
                args.append(value)
            else:
                kwargs[p.name] = value
        kwargs.update({str(key): value for key, value in row.items() if key not in known})
        return self.encode_call(args, kwargs)

    def _bind_one(self, parameter: Parameter, row: object, *, text: bool) -> bytes:
        if isinstance(row, dict) and not _takes_objects(parameter.type):
            if row.keys() != {parameter.name}:
                raise self._not_alone(parameter, row, text=text)
            row = row[parameter.name]
        value = self._cell(parameter, row, text=text)
        if value is msgspec.UNSET:
            return self.encode_call((), {})
        if parameter.kind is _KINDS.KEYWORD_ONLY:
            return self.encode_call((), {parameter.name: value})
        return self.encode_call((value,), {})

    def _not_alone(self, parameter: Parameter, row: Mapping[str, object], *, text: bool) -> InvalidValue:
        there = ", ".join(map(str, row)) or "none"
        if text:
            expected = f"one column {parameter.name!r}"
            problem = f"the columns are {there}; keep only one of that name"
        else:
            expected = f"{forms.spell(parameter.type)}, or an object with {parameter.name!r} alone"
            problem = f"its fields are {there}; keep only that one"
        problem += ", or give the flow a parameter for each"
        return InvalidValue(f"row for {self.name}", expected, problem)

    def _cell(self, parameter: Parameter, value: object, *, text: bool) -> Any:
        """The value for `parameter`, or UNSET where its default is meant."""
        where = f"argument {parameter.name!r} of {self.name}"
        if value is msgspec.UNSET:
            if parameter.required:
                raise InvalidValue(where, forms.spell(parameter.type), "the row doesn't have it")
            return msgspec.UNSET
        read = codec.reader(parameter.type, strict=not text)
        try:
            return read_value(read, value, where)
        except InvalidValue:
            if text and value == "":
                if not parameter.required:
                    return msgspec.UNSET
                if type(None) in (forms.members(parameter.type) or ()):
                    return None
            if text and isinstance(value, dict) and (filled := _filled(parameter.type, value)) != value:
                return read_value(read, filled, where)
            raise

    def _argument(self, read: Callable[[bytes | str], Any] | None, raw: Any, at: int | str) -> Any:
        if read is None:
            raise AssertionError(f"no reader for argument {at!r}")
        try:
            return read(raw)
        except InvalidValue as error:
            name = at if isinstance(at, str) else self._name_at(at)
            where = f"argument {name!r} of {self.name}"
            raise InvalidValue(where, error.expected, error.problem, error.got) from None

    def _name_at(self, index: int) -> str:
        names = [p.name for p in self.parameters if p.kind in _POSITIONAL or p.kind is _KINDS.VAR_POSITIONAL]
        return names[min(index, len(names) - 1)]

    def _by_name(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[tuple[str, object]]:
        return [(self._name_at(n), value) for n, value in enumerate(args)] + list(kwargs.items())


_POSITIONAL = (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)


@memoized
def _input(fn: Callable[..., Any]) -> InputShape:
    signature = resolve(fn)
    reads: dict[str, Callable[[bytes | str], Any]] = {}
    for p in signature.parameters:
        try:
            reads[p.name] = codec.decoder(p.type)
        except BadSignature as error:
            problem = f"parameter {p.name!r} is {forms.spell(p.type)}: of {error.function}, {error.problem}"
            raise BadSignature(signature.name, problem, error.cure) from None
    parameters = signature.parameters
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    needs_names = any(p.kind is _KINDS.KEYWORD_ONLY and p.required for p in parameters)
    return InputShape(
        signature.name,
        parameters,
        signature.result,
        signature.raw,
        tuple(reads[p.name] for p in positional),
        {
            p.name: reads[p.name]
            for p in parameters
            if p.kind in (_KINDS.POSITIONAL_OR_KEYWORD, _KINDS.KEYWORD_ONLY)
        },
        next((reads[p.name] for p in parameters if p.kind is _KINDS.VAR_POSITIONAL), None),
        next((reads[p.name] for p in parameters if p.kind is _KINDS.VAR_KEYWORD), None),
        # A call that lacks names always goes the slow way, which tells what is missing.
        len(positional) + 1 if needs_names else sum(p.required for p in positional),
        reads[positional[0].name] if len(positional) == len(parameters) == 1 else None,
    )


@memoized
def _takes_objects(tp: Any) -> bool:
    node = schema(tp)
    kinds = [
        part.get("type", "object" if not part or "$ref" in part else "")
        for part in (node, *node.get("anyOf", ()))
    ]
    return "object" in (kinds[1:] if "anyOf" in node else kinds)


def _filled(tp: Any, row: dict[str, object]) -> dict[str, object]:
    """A row of text that is an object, without the empty cells that don't fit: they mean the default, or None."""
    filled = dict(row)
    found = (forms.fields(forms.bare(member)) for member in forms.members(tp) or (tp,))
    for field in next((fields for fields in found if fields is not None), ()):
        if filled.get(field.key) != "":
            continue
        try:
            codec.reader(field.type, strict=False)("")
        except InvalidValue:
            if not field.required:
                del filled[field.key]
            elif type(None) in (forms.members(field.type) or ()):
                filled[field.key] = None
    return filled


def _shown(value: object) -> str:
    try:
        return forms.short(codec.encode(value).decode())
    except NotEncodable:
        return forms.short(repr(value))
