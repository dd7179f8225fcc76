"""What a request's handler says that it answers, beside what the request wants."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_args, get_origin

from ...core.fit import misfits
from ...core.forms import bare, members, spell
from ...model.errors import BadSignature
from .handlers import Handler, hints_of
from .nexts import Again, Answer, Done, Fail, Interrupted, Listen

if TYPE_CHECKING:
    from .definition import ActorDef

_NEXTS = (Listen, Again, Done, Fail, Interrupted)


def check_answers(definition: ActorDef) -> None:
    """Raise `BadSignature` for an annotation of an answer that nobody who asks could read."""
    handlers = definition.handlers
    for name, handler in handlers.messages.items():
        if handler.keeps:
            _check(definition, handler, handler, _kept(definition, handler))
        elif handler.is_request:
            for method in (handler, *handlers.fallbacks.get(name, ())):
                if method.returns is not None:
                    _check(definition, handler, method, method.returns)


def _kept(definition: ActorDef, handler: Handler) -> Any:
    """What the `Responder` of a handler takes."""
    fn = getattr(definition.cls, handler.method)
    responder = hints_of(fn, f"{definition.name}.{handler.method}")[list(inspect.signature(fn).parameters)[2]]
    return next(iter(get_args(responder)), Any)


def _check(definition: ActorDef, asked: Handler, method: Handler, annotated: Any) -> None:
    for part in members(annotated) or (bare(annotated),):
        kind = get_origin(part) or part
        if kind in _NEXTS:
            raise _told(definition, asked, method, part, "", then=True)
        answered = part
        if kind is Answer:
            answered = next(iter(get_args(part)), Any)
        if any(not misfits(answered, other) for other in _others(definition, asked, method)):
            continue  # of a method that takes several, it answers another one
        for misfit in misfits(answered, asked.gives):
            said = get_origin(misfit.part) or misfit.part
            then = kind is not Answer and not asked.keeps and _is_next(definition, said)
            raise _told(definition, asked, method, misfit.part, misfit.why, then=then)


def _others(definition: ActorDef, asked: Handler, method: Handler) -> list[Any]:
    """What the other requests want that a method takes."""
    messages, fallbacks = definition.handlers.messages, definition.handlers.fallbacks
    return [
        one.gives
        for name, one in messages.items()
        if one.is_request
        and one is not asked
        and method.method in [each.method for each in (one, *fallbacks.get(name, ()))]
    ]


def _is_next(definition: ActorDef, kind: Any) -> bool:
    return hasattr(kind, "__segue__") or any(
        state.takes is kind for state in definition.handlers.states.values()
    )


def _told(
    definition: ActorDef, asked: Handler, method: Handler, part: Any, why: str, *, then: bool
) -> BadSignature:
    got, wanted = spell(part), spell(asked.gives)
    problem = f"it answers {asked.name} with {got}, and {wanted} is wanted" + (f": {why}" if why else "")
    cure = f"answer with what is wanted, or write `class {asked.name}(Request[{got}])`"
    if then:
        problem = f"what it returns answers {asked.name}, which wants {wanted}, and {got} is none"
        made = spell(get_origin(part) or part)
        cure = f"return Answer(value, then={made}(…)), and annotate it as Answer[{wanted}, {got}]"
    return BadSignature(f"{definition.name}.{method.method}", problem, cure)
