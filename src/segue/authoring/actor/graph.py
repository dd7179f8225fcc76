"""The graph of an actor, as its handlers' return types tell it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from ...core.forms import bare, members
from ...model.errors import BadSignature
from ..mail import message_name
from .handlers import hints_of
from .nexts import Again, Answer, Done, Fail, Interrupted, Listen

if TYPE_CHECKING:
    from .definition import ActorDef

LISTENING = "Listening"
EDGE = "[*]"  # where it begins and ends
UNKNOWN = "?"  # where a method leads that doesn't say
_UNSAID = (object, Any, Answer)
_ENDS = (Done, Fail, Interrupted)
#: Hooks whose result is next.
_HOOKS = ("finished", "interrupted")


class Edge(NamedTuple):
    """A way from one state to another. `label`: the method that takes it, or the message that leads there."""

    source: str
    target: str
    label: str = ""


def check_edges(definition: ActorDef) -> None:
    """Raise `BadSignature` for an edge to a state that has no handler."""
    states = definition.handlers.states
    for _, method, kinds in _ways(definition):
        for kind in kinds:
            if kind not in (Listen, Again, *_ENDS, None) and not _is_actor(kind):
                if message_name(kind) not in states:
                    known = ", ".join(sorted(states)) or "none"
                    raise BadSignature(
                        f"{definition.name}.{method}",
                        f"it leads to the state {message_name(kind)}, which has no handler",
                        f"add a @state method that takes one; the states are {known}",
                    )


def edges(definition: ActorDef) -> list[Edge]:
    """The edges of an actor, each once, in the order of its class."""
    out: dict[Edge, None] = {}
    for source, label, kinds in (*_ways(definition), *_signals(definition)):
        for kind in kinds:
            if kind is None:
                target = UNKNOWN
            elif kind is Listen:
                target = LISTENING
            elif kind is Again:
                target = source
            elif kind in _ENDS:
                target = EDGE
            else:
                target = message_name(kind)
            out[Edge(source, target, "" if source == EDGE else label)] = None
    return list(out)


Way = tuple[str, str, list[Any]]  # the state that it leaves, the method, what is next; None: unknown


def _ways(definition: ActorDef) -> Iterator[Way]:
    """All that says what is next, by its return annotation."""
    handlers = definition.handlers
    own = "begin" in definition.own
    yield EDGE, "begin", _kinds(_returns(definition, "begin")) or [None] if own else [Listen]
    for name, handler in handlers.states.items():
        yield name, handler.method, _kinds(handler.returns) or [None]
    for name, handler in handlers.messages.items():
        for method in (handler, *handlers.fallbacks.get(name, ())):
            answers = handler.is_request and not handler.keeps
            kinds = _kinds_then(method.returns) if answers else _kinds(method.returns)
            yield LISTENING, method.method, kinds or [Listen]
    for name in handlers.states:
        for method in handlers.fallbacks.get(name, ()):
            yield name, method.method, _kinds(method.returns) or [None]
    for hook in _HOOKS:
        if hook in definition.own:
            yield LISTENING, hook, _said(_returns(definition, hook))
    if "failed" in definition.own:
        for source in (*handlers.states, *([LISTENING] if handlers.messages else [])):
            yield source, "failed", _said(_returns(definition, "failed"))


def _signals(definition: ActorDef) -> Iterator[Way]:
    """Where handlers of own kinds lead, as far as what they return is a state: their envelopes judge it."""
    handlers = definition.handlers
    for handler in handlers.others.values():
        known = [
            kind for kind in _said(handler.returns) if kind in _ENDS or message_name(kind) in handlers.states
        ]
        yield LISTENING, handler.method, known


def _returns(definition: ActorDef, hook: str) -> Any:
    return hints_of(getattr(definition.cls, hook), f"{definition.name}.{hook}").get("return")


def _kinds(returns: Any) -> list[Any]:
    """The classes that a return annotation names, without those that say nothing; None counts as `Listen`."""
    if returns is None:
        return []
    kinds = [get_origin(part) or part for part in members(returns) or (bare(returns),)]
    kinds = [Listen if kind is type(None) else kind for kind in kinds]
    return [kind for kind in kinds if inspect.isclass(kind) and kind not in _UNSAID]


def _said(returns: Any) -> list[Any]:
    """The same of a method whose None changes nothing."""
    parts = [part for part in members(returns) or (returns,) if part is not type(None)]
    return [kind for part in parts for kind in _kinds(part)]


def _kinds_then(returns: Any) -> list[Any]:
    """What is next after an answer: of `int | Answer[int, Working]`, listening or `Working`."""
    out: list[Any] = []
    for part in members(returns) or (returns,):
        then = get_args(part)[1:] if get_origin(part) is Answer else ()
        out += _kinds(then[0]) if then else [Listen]
    return out


def _is_actor(kind: Any) -> bool:
    return hasattr(kind, "__segue__")


def draw(definition: ActorDef, at: str = "") -> str:
    """A Mermaid state diagram; the state named `at` stands out."""
    found = edges(definition)
    names = list(dict.fromkeys(name for edge in found for name in edge[:2] if name != EDGE))
    lines = ["stateDiagram-v2"]
    for name in names:
        label = name.rpartition(".")[2]
        if _ident(name) != label:
            lines.append(f'    state "{label}" as {_ident(name)}')
    for edge in found:
        label = f": {edge.label}" if edge.label else ""
        lines.append(f"    {_ident(edge.source)} --> {_ident(edge.target)}{label}")
    if at in names:
        lines += ["    classDef now font-weight:bold,stroke-width:4px", f"    class {_ident(at)} now"]
    return "\n".join(lines)


def _ident(name: str) -> str:
    return name if name == EDGE else re.sub(r"\W", "_", name)


def diagram(actor: Any, /, *, at: str = "") -> str:
    """The graph of an actor's class as Mermaid text, from its handlers' return types; the state `at` stands out."""
    definition = getattr(actor, "__segue__", actor)
    draw_it = getattr(definition, "diagram", None)
    if draw_it is None:
        raise TypeError(
            f"segue.diagram() draws actors, and {actor!r} is none; a flow's graph is what its runs record"
        )
    text: str = draw_it(at)
    return text
