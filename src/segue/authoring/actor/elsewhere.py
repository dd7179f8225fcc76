"""A state that is carried out in another process: the actor and its state go there as JSON, and come back changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...core.codec import decoder, encode
from ...model.entry import Failure
from ...model.errors import BadSignature
from ..context import BRANCH
from ..failures import to_exception, to_failure
from ..mail import message_name
from ..pooled import Named, named
from .handlers import Handler
from .nexts import Again, Done, Fail, Interrupted, Listen

if TYPE_CHECKING:
    from .definition import ActorDef


class _There(msgspec.Struct, array_like=True):
    fields: msgspec.Raw
    state: msgspec.Raw


class _Back(msgspec.Struct, array_like=True):
    fields: msgspec.Raw
    state: msgspec.Raw
    next: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


_there, _back = msgspec.json.Decoder(_There).decode, msgspec.json.Decoder(_Back).decode
_SIMPLE = {"listen": Listen, "again": Again, "interrupted": Interrupted}


def pack(definition: ActorDef, handler: Handler, actor: Any, state: Any) -> Named:
    """A state's turn, for another process."""
    where = f"a state of {definition.name}"
    data = msgspec.json.encode(
        _There(msgspec.Raw(definition.dump(actor)), msgspec.Raw(encode(state, where=where)))
    )
    return Named(*named(definition.cls), data, f"{definition.name}.{handler.method}", how=handler.name)


def carry_out(definition: ActorDef, work: Named) -> bytes:
    """In the other process: the turn, and what it changed."""
    there = _there(work.data)
    handler = definition.handlers.states[work.how]
    actor, state = definition.load(there.fields), handler.read(bytes(there.state))
    BRANCH.set(work.label)  # what the method may ask of where it is
    result = getattr(actor, handler.method)(state)
    back = _Back(
        msgspec.Raw(definition.dump(actor)),
        msgspec.Raw(encode(state, where=f"a state of {definition.name}")),
        "",
    )
    _say_what_is_next(definition, handler, back, result)
    return msgspec.json.encode(back)


def _say_what_is_next(definition: ActorDef, handler: Handler, back: _Back, result: Any) -> None:
    where = f"what {definition.name}.{handler.method} returned"
    name = message_name(type(result))
    for kind, cls in _SIMPLE.items():
        if result is cls or isinstance(result, cls):
            back.next = kind
    if isinstance(result, Done):
        back.next, back.value = "done", msgspec.Raw(encode(result.value, where=where))
    elif isinstance(result, Fail):
        back.next, back.error = "fail", to_failure(result.error)
    elif name in definition.handlers.states:
        back.next, back.value = f"state {name}", msgspec.Raw(encode(result, where=where))
    elif result is not None and not back.next:
        raise BadSignature(
            f"{definition.name}.{handler.method}",
            f"it runs in another process and returned {result!r}, which is no state of the actor",
            "return a state, Listen(), Again(), Done(…) or Fail(…)",
        )


def unpack(definition: ActorDef, handler: Handler, actor: Any, data: bytes) -> tuple[Any, Any]:
    """Here again: the actor as it was changed there; what is next, and the state as it is now."""
    back = _back(data)
    definition.restore(actor, back.fields)
    return _what_is_next(definition, back), handler.read(bytes(back.state))


def _what_is_next(definition: ActorDef, back: _Back) -> Any:
    kind, _, name = back.next.partition(" ")
    if kind == "done":
        return Done(decoder(definition.result_type)(bytes(back.value)))
    if kind == "fail" and back.error is not None:
        return Fail(to_exception(back.error))
    if kind == "state":
        return definition.handlers.states[name].read(bytes(back.value))
    return _SIMPLE[kind]() if kind else None
