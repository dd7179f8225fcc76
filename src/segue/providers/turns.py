"""A conversation in turns, as Anthropic and Gemini have it: what the same side says in a row is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..model.chat import Message

Parts = list[dict[str, Any]]


def turns(messages: Iterable[Message], parts: Callable[[Message], Parts]) -> list[tuple[bool, Parts]]:
    """Whether the model speaks, and what is said; a tool's result is the user's. Nothing is said in no turn."""
    out: list[tuple[bool, Parts]] = []
    for message in messages:
        models, said = message.role == "assistant", parts(message)
        if out and out[-1][0] == models:
            out[-1][1].extend(said)
        elif said:
            out.append((models, said))
    return out


def text_of(message: Message) -> str:
    """Its texts, without its files."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part for part in message.content if isinstance(part, str))


def object_of(arguments: str) -> dict[str, Any]:
    """A call's arguments as they are sent back; what the model didn't write as an object is quoted."""
    try:
        found = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        found = None
    return found if isinstance(found, dict) else {"malformed": arguments}
