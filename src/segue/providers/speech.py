"""What OpenAI's chat endpoints have in common, and what their wire formats tell the provider that carries them."""

from __future__ import annotations

import re
from typing import Any, Protocol

from ..model.chat import Answer, ChatReply, ChatRequest
from .wire.dialect import Listener


class Speech(Protocol):
    """One chat endpoint: where it is, and what goes to and comes from it. Pure."""

    path: str
    noun: str  #: what its replies are called
    streamed: dict[str, Any]  #: what a body says that asks for a stream

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The body of a request that isn't streamed."""
        ...

    def reply(self, body: bytes) -> ChatReply:
        """What a body says. Raises `ValueError` with the problem where it isn't a reply."""
        ...

    def is_reply(self, body: bytes) -> bool:
        """Whether a body has the outline of a reply."""
        ...

    def listen(self) -> Listener:
        """Follow one stream."""
        ...


def strict_form(answer: Answer) -> dict[str, Any]:
    """The form that a model has to keep to; its name as it is taken."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", answer.name)[:64] or "answer"
    return {"name": name, "schema": answer.schema, "strict": True}
