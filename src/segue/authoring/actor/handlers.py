"""The marked methods of an actor's class, read once: what each takes and gives, and how it is carried out."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NewType

import msgspec

from ...core.forms import bare, is_typed_dict, members, origin, spell
from ...core.retry import Retry
from ...model.checks import seconds
from ...model.errors import BadSignature
from ...model.mode import Mode, as_mode
from ..mail import message_name
from ..message import Request, Responder, is_urgent, message_parser, message_reader, response_type
from ..pooled import named
from .envelope import ENVELOPES, Envelope
from .marks import Mark

_ONCE = Retry(1)


class Handler(msgspec.Struct, kw_only=True):
    """One marked method, for one type of what it takes. `gives` is a request's answer's; a fallback `catches` errors.

    `plain`: nothing is to be done but to await it.
    """

    method: str
    kind: str
    takes: Any
    name: str
    gives: Any = None
    catches: tuple[type[Exception], ...] = ()
    returns: Any = None
    mode: Mode | None = None
    retry: Retry = _ONCE
    timeout: timedelta | None = None
    every: float = 0.0
    is_async: bool = True
    is_request: bool = False
    keeps: bool = False  #: it takes a `Responder`, and answers when it likes
    by_itself: bool = False  #: what it takes is an `Envelope`, which has it called
    elsewhere: bool = False  #: it runs in another process
    plain: bool = False
    quick: bool = False  #: and the same where it fails; it answers what it returns
    answers: str = ""  #: what its answers are called, to whom they can't be written
    read: Callable[[bytes], Any]
    parse: Callable[[bytes], Any]  #: as `read`, but for the words of its errors


class Handlers(msgspec.Struct):
    """All of a class: of states and messages by the name of what they take; of other kinds by kind and that name."""

    states: dict[str, Handler]
    messages: dict[str, Handler]
    fallbacks: dict[str, list[Handler]]
    others: dict[tuple[str, str], Handler]

    def envelope(self, name: str) -> type[Envelope] | None:
        """What travels under that name: what a method takes, else the one that was defined last."""
        for handler in self.others.values():
            if (
                handler.name == name
                and isinstance(handler.takes, type)
                and issubclass(handler.takes, Envelope)
            ):
                return handler.takes
        return ENVELOPES.get(name)


def read_handlers(cls: type[Any], owner: str) -> Handlers:
    """The handlers of a class. Raises `BadSignature`, which names the method and the cure."""
    found = Handlers({}, {}, {}, {})
    for method, fn, mark in _marked(cls):
        for handler in _handlers(cls, owner, method, fn, mark):
            _put(found, handler, owner)
    for name, fallbacks in found.fallbacks.items():
        if name not in found.states and name not in found.messages:
            known_names = ", ".join(sorted([*found.states, *found.messages])) or "nothing"
            raise BadSignature(
                f"{owner}.{fallbacks[0].method}",
                f"it is a fallback for {name}, which has no handler",
                f"take one of what the actor handles: {known_names}",
            )
    for handler in found.messages.values():
        _check_envelope(handler, found.fallbacks, owner)
        has_more = handler.keeps or handler.by_itself or handler.name in found.fallbacks
        handler.quick = handler.plain and not has_more
    return found


def _check_envelope(handler: Handler, fallbacks: dict[str, list[Handler]], owner: str) -> None:
    """Raise `BadSignature` for what an envelope, which may come beside another handler, has no place for."""
    name, method = handler.name, handler.method
    if not handler.by_itself:
        if is_urgent(handler.takes):
            cure = "derive it from segue.Envelope, which says how it is carried out, or leave `urgent` out"
            raise BadSignature(f"{owner}.{method}", f"{name} says that it is urgent", cure)
        return
    fallback = next(iter(fallbacks.get(name, ())), None)
    if fallback is not None or handler.keeps or handler.retry.attempts > 1:
        where = f"{owner}.{method if fallback is None else fallback.method}"
        problem = f"{name} is carried out once, and answered by what its handler returns"
        raise BadSignature(where, problem, "have it take no Responder, and no retry or fallback")


def _put(found: Handlers, handler: Handler, owner: str) -> None:
    known: Handler | None
    if handler.kind == "fallback":
        found.fallbacks.setdefault(handler.name, []).append(handler)
        return
    if handler.kind == "state":
        known = found.states.setdefault(handler.name, handler)
    elif handler.kind == "on":
        known = found.messages.setdefault(handler.name, handler)
    else:
        known = found.others.setdefault((handler.kind, handler.name), handler)
    if known is not handler:
        raise BadSignature(
            f"{owner}.{handler.method}",
            f"{known.method}() takes a {handler.name} too",
            "give each state and each message one handler",
        )


def _marked(cls: type[Any]) -> list[tuple[str, Any, Mark]]:
    """Methods with their marks. One that overrides a marked one has its mark, unless it has its own."""
    out: list[tuple[str, Any, Mark]] = []
    seen: set[str] = set()
    for owner in cls.__mro__:
        for name in vars(owner):
            if name in seen:
                continue
            marks = [
                mark
                for base in cls.__mro__
                if (mark := getattr(vars(base).get(name), "__segue_mark__", None)) is not None
            ]
            fn = getattr(cls, name, None)
            if marks and inspect.isfunction(fn):
                seen.add(name)
                out.append((name, fn, marks[0]))
    return out


def _handlers(cls: type[Any], owner: str, method: str, fn: Any, mark: Mark) -> list[Handler]:
    """A marked method: for each of the types that it takes, where it takes one of a union's."""
    where = f"{owner}.{method}"
    hints = hints_of(fn, where)
    parameters = list(inspect.signature(fn).parameters)[1:]
    catches: tuple[type[Exception], ...] = ()
    if mark.kind == "fallback":
        if len(parameters) != 2 or any(name not in hints for name in parameters):
            cure = "write it as `(self, x: Kind, error: SomeError)`"
            raise BadSignature(where, "a fallback takes what failed and the error, both annotated", cure)
        catches = _errors(hints[parameters[1]], where)
    keeps = mark.kind == "on" and len(parameters) == 2 and _is_responder(hints.get(parameters[1]))
    if mark.kind != "fallback" and not keeps and (len(parameters) != 1 or parameters[0] not in hints):
        cure = "write it as `(self, x: Kind)`: the type names the state or message"
        raise BadSignature(where, "a handler takes one annotated argument", cure)
    takes = hints[parameters[0]]
    if mark.pool == "process":
        if inspect.iscoroutinefunction(fn) or mark.kind != "state":
            cure = "make it a plain `def` with @state, or put what needs another process into a step"
            raise BadSignature(where, "only a state that waits for nothing can run in another process", cure)
        named(cls)
    return [
        _handler(where, method, fn, mark, _named(one, where), hints.get("return"), catches, keeps=keeps)
        for one in members(takes) or (takes,)
    ]


def _handler(
    where: str,
    method: str,
    fn: Any,
    mark: Mark,
    takes: Any,
    returns: Any,
    catches: tuple[type[Exception], ...],
    *,
    keeps: bool,
) -> Handler:
    is_request = issubclass(origin(takes), Request)
    if keeps and not is_request:
        cure = "leave the second argument out, or have it take a segue.Request"
        raise BadSignature(where, "only a request is answered by a Responder", cure)
    is_async = inspect.iscoroutinefunction(fn)
    return Handler(
        method=method,
        kind=mark.kind,
        takes=takes,
        name=message_name(takes),
        gives=response_type(takes) if is_request else None,
        catches=catches,
        returns=returns,
        mode=None if mark.mode is None else as_mode(mark.mode),
        retry=Retry(mark.retry) if isinstance(mark.retry, int) else mark.retry,
        timeout=mark.timeout,
        every=0.0 if mark.every is None else seconds(f"every of {where}", mark.every),
        is_async=is_async,
        is_request=is_request,
        keeps=keeps,
        by_itself=issubclass(origin(takes), Envelope),
        elsewhere=mark.pool == "process",
        answers=f"the answer of {where}",
        plain=is_async and mark.mode is None and mark.timeout is None,
        read=_reader(takes, where),
        parse=message_parser(takes),
    )


def _errors(tp: Any, where: str) -> tuple[type[Exception], ...]:
    """The errors that a fallback takes: of one type, or of a union's."""
    found: tuple[Any, ...] = members(tp) or (tp,)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise BadSignature(
                where, f"{spell(one)} is no type of errors", "annotate it with an Exception class"
            )
    return found


def _named(tp: Any, where: str) -> Any:
    """The type without an alias. Raises `BadSignature` for what is no value's own type, by which it would be known."""
    tp = tp if isinstance(tp, NewType) else bare(tp)
    cls: Any = origin(tp)
    never = cls in (object, Any, type(None)) or is_typed_dict(cls) or getattr(cls, "_is_protocol", False)
    if never or not isinstance(cls, type) or inspect.isabstract(cls):
        raise BadSignature(
            where,
            f"a state or message is known by its own type, and no value's is {spell(tp)}",
            "take a dataclass, a Note or a Request, or a union of such",
        )
    return tp


def _is_responder(tp: Any) -> bool:
    return tp is Responder or typing.get_origin(tp) is Responder


def hints_of(fn: Any, where: str) -> dict[str, Any]:
    """A function's annotations, read."""
    try:
        return typing.get_type_hints(fn)
    except NameError as error:
        raise BadSignature(
            where, f"an annotation can't be read: {error}", "let it name what stands at the top of the module"
        ) from None


def _reader(tp: Any, where: str) -> Callable[[bytes], Any]:
    try:
        return message_reader(tp, f"what {where} takes")
    except BadSignature as error:
        raise BadSignature(
            where, str(error), "let states and messages be dataclasses of plain values"
        ) from None
    except TypeError as error:
        raise BadSignature(where, f"a {tp!r} can't be stored: {error}", "make it a dataclass") from None
