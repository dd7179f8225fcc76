"""The graph of an actor, as its handlers' return types tell it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, get_origin

from ...core.forms import members
from ...model.errors import BadSignature
from ..mail import message_name
from .handlers import Handler, hints_of
from .nexts import Again, Answer, Done, Fail, Interrupted, Listen

if TYPE_CHECKING:
    from .definition import ActorDef

LISTENING = "Listening"
EDGE = "[*]"  # where it begins and ends
_UNKNOWN = (object, Any, Answer)
_ENDS = (Done, Fail, Interrupted)


class Edge(NamedTuple):
    """A way from one state to another. `label`: the method that takes it, or the message that leads there."""

    source: str
    target: str
    label: str = ""


def check_edges(definition: ActorDef) -> None:
    """Raise `BadSignature` for an edge to a state that has no handler."""
    states = definition.handlers.states
    for _, method, returns in _sources(definition):
        for kind in _kinds(returns):
            if (
                kind not in (Listen, Again, *_ENDS)
                and not _is_actor(kind)
                and message_name(kind) not in states
            ):
                known = ", ".join(sorted(states)) or "none"
                raise BadSignature(
                    f"{definition.name}.{method}",
                    f"it leads to the state {message_name(kind)}, which has no handler",
                    f"add a @state method that takes one; the states are {known}",
                )


def edges(definition: ActorDef) -> list[Edge]:
    """The edges of an actor, each once, in the order of its class."""
    out: dict[Edge, None] = {}
    for source, label, returns in _sources(definition):
        kinds = list(_kinds(returns))
        if returns is None or not kinds:
            kinds.append(Listen)
        for kind in kinds:
            if kind is Listen:
                target = LISTENING
            elif kind is Again:
                target = source
            elif kind in _ENDS:
                target = EDGE
            else:
                target = message_name(kind)
            out[Edge(source, target, "" if source == EDGE else label)] = None
    return list(out)


def _sources(definition: ActorDef) -> Iterator[tuple[str, str, Any]]:
    """All that says what is next: the state that it leaves, the method, and its return annotation."""
    begin = definition.cls.begin
    hints = hints_of(begin, f"{definition.name}.begin")
    yield EDGE, "begin", Listen if begin.__qualname__ == "Actor.begin" else hints.get("return")
    handlers = definition.handlers
    for name, handler in handlers.states.items():
        yield name, handler.method, handler.returns
    for name, handler in handlers.messages.items():
        yield LISTENING, handler.method, _unanswered(handler)
        yield from ((LISTENING, f.method, _unanswered(f)) for f in handlers.fallbacks.get(name, ()))
    for name in handlers.states:
        yield from ((name, f.method, f.returns) for f in handlers.fallbacks.get(name, ()))


def _unanswered(handler: Handler) -> Any:
    """What a message's handler returns besides an answer."""
    return None if handler.is_request else handler.returns


def _kinds(returns: Any) -> Iterator[Any]:
    """The classes that a return annotation names, without those that say nothing; None counts as `Listen`."""
    for part in members(returns) or (returns,):
        kind = get_origin(part) or part
        if kind is type(None) and returns is not None:
            yield Listen
        elif inspect.isclass(kind) and kind not in _UNKNOWN:
            yield kind


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
