"""What has to be known of a protocol to record its calls, whoever makes them. Pure: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from ...model.chat import Tokens

Body = dict[str, Any]


def counted(answer: Body, asked: str, said: str) -> Tokens:
    """What an answer of OpenAI's protocols counts, by the names that its usage has for what was asked and said."""
    usage = answer.get("usage") or {}
    details = usage.get(f"{asked}_details") or {}
    cached, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    return Tokens(usage.get(asked) or 0, usage.get(said) or 0, cached, written)


def text_of(content: Any) -> str:
    """What a message of Chat Completions says, also where a server sends parts: those that are no text say nothing."""
    if isinstance(content, list):
        return "".join(map(_said, content))
    return content if isinstance(content, str) else ""


def _said(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else ""


class StreamError(Exception):
    """An event of a stream that is an error; `body` is what it says."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        super().__init__("an error in a stream")


class Listener(Protocol):
    """Follows a streamed answer. What it gives are the frames that `Dialect.frames` makes of the whole answer."""

    over: bool  #: the answer is whole

    def take(self, data: bytes) -> tuple[list[bytes], str]:
        """The frames that an event's data completes, and the text that they hold.

        Raises `StreamError` for an error, `ValueError` for what is no event of this protocol.
        """
        ...

    def answer(self) -> bytes:
        """The body that the same call without a stream would have had."""
        ...

    def rest(self) -> list[bytes]:
        """The frames that end the stream: they are for when the answer is recorded."""
        ...


class Dialect(Protocol):
    """One endpoint's requests and answers. `provider` is who speaks it, `to` the endpoint as a lane has it."""

    provider: str
    to: str
    streams: bool  #: whether its answers can be streamed

    def plain(self, body: Body) -> Body:
        """A request without what says only how the answer travels."""
        ...

    def sent(self, tail: str, body: Body, *, stream: bool) -> tuple[str, Body]:
        """The end of the path, and the body, of a plain request that is to be sent."""
        ...

    def line(self, body: Body, model: str) -> Body:
        """The body of a batch line for a plain request."""
        ...

    def is_answer(self, answer: Body) -> bool:
        """Whether a body has the outline of an answer."""
        ...

    def is_whole(self, answer: Body) -> bool:
        """Whether an answer is all that was to be said: not cut off, declined or filtered."""
        ...

    def tokens(self, answer: Body) -> Tokens:
        """What an answer counts; zeros where it doesn't say."""
        ...

    def text(self, answer: Body) -> str:
        """What it says."""
        ...

    def frames(self, answer: Body, asked: Body) -> Iterator[bytes]:
        """A whole answer as the stream that the request asked for."""
        ...

    def listen(self, asked: Body | None) -> Listener:
        """Follow the stream of an answer; where nothing was asked for its frames, it may leave them out."""
        ...

    def failure(self, status: int, message: str, code: str) -> Body:
        """An error, as the SDKs of this protocol read it."""
        ...

    def turns(self, asked: Body) -> dict[str, str]:
        """The tools whose results a request carries since the last answer: name by id of the call."""
        ...


class Request(msgspec.Struct, frozen=True):
    """A model call as an SDK makes it.

    `root` is the URL up to where the protocol's paths begin, `tail` the rest of it. `streams`: the answer was asked
    for as a stream. `query` holds what of the query belongs to the call and is no secret.
    """

    dialect: Dialect
    root: str
    tail: str
    model: str
    asked: Body
    body: Body
    streams: bool
    query: str = ""


def object_of(data: bytes) -> Body:
    """JSON that is an object. Raises `ValueError`."""
    found = msgspec.json.decode(data)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found
