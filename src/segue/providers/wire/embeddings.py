"""Embeddings on the wire."""

from __future__ import annotations

from collections.abc import Iterator

from ...model.chat import Tokens
from .chat import Chat
from .dialect import Body, Listener


class Embeddings:
    """`/embeddings`. Vectors stay as the SDK asked for them: numbers, or base64."""

    provider = "openai"
    to = "/v1/embeddings"
    streams = False

    def plain(self, body: Body) -> Body:
        """See `Dialect.plain`."""
        return body

    def sent(self, tail: str, body: Body, *, stream: bool) -> tuple[str, Body]:
        """See `Dialect.sent`."""
        return tail, body

    def line(self, body: Body, model: str) -> Body:
        """See `Dialect.line`."""
        return body

    def is_answer(self, answer: Body) -> bool:
        """See `Dialect.is_answer`."""
        return bool(answer.get("data"))

    def is_whole(self, answer: Body) -> bool:
        """See `Dialect.is_whole`."""
        return True

    def tokens(self, answer: Body) -> Tokens:
        """See `Dialect.tokens`."""
        return Tokens((answer.get("usage") or {}).get("prompt_tokens") or 0)

    def text(self, answer: Body) -> str:
        """See `Dialect.text`."""
        return ""

    def failure(self, status: int, message: str, code: str) -> Body:
        """See `Dialect.failure`."""
        return Chat().failure(status, message, code)

    def turns(self, asked: Body) -> dict[str, str]:
        """See `Dialect.turns`."""
        return {}

    def frames(self, answer: Body, asked: Body) -> Iterator[bytes]:
        """There is no such stream."""
        raise NotImplementedError("embeddings aren't streamed")

    def listen(self, asked: Body | None) -> Listener:
        """There is no such stream."""
        raise NotImplementedError("embeddings aren't streamed")
