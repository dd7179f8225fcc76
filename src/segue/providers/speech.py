"""What a chat endpoint's wire format has to tell the provider that carries it."""

from __future__ import annotations

from typing import Any, Protocol

from ..model.chat import ChatReply, ChatRequest


class StreamError(Exception):
    """An event that is an error; `body` is what it says."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        super().__init__("an error in a stream")


class Assembly(Protocol):
    """Puts the events of a stream together to the body that the same call without a stream would have had."""

    @property
    def started(self) -> bool:
        """Whether there was an event of an answer."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the answer is whole."""
        ...

    def add(self, data: bytes) -> str:
        """Take an event's data; the text that it adds. Raises `StreamError`, and `ValueError` for what is no event."""
        ...

    def body(self) -> bytes:
        """The whole body."""
        ...


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

    def assembly(self) -> Assembly:
        """For one stream."""
        ...


class Events:
    """Lines of server-sent events as events: `line` gives the data when one is whole."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._kind = b""

    def line(self, line: bytes) -> bytes | None:
        """Take a line; the data of the event that it ends. Raises `StreamError` for an `error` event."""
        if not line:
            return self.end()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name.removeprefix(b"\xef\xbb\xbf"):
            case b"data":
                self._data.append(value)
            case b"event":
                self._kind = value
            case b"error":  # a field of llama.cpp's own
                raise StreamError(value)
        return None

    def end(self) -> bytes | None:
        """The data of an event that no empty line has ended."""
        data, self._data = b"\n".join(self._data), []
        kind, self._kind = self._kind, b""
        if data and kind == b"error":
            raise StreamError(data)
        return data or None
