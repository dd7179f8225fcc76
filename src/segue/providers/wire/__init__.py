"""What SDKs put on the wire: recognising a model call by its path, and the dialects that such calls are in."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable

from .dialect import Body, Dialect, Listener, Request, StreamError, object_of

__all__ = ["Body", "Dialect", "Listener", "Request", "StreamError", "dialect_of", "object_of", "recognise"]


# A dialect is loaded when a call is in it: few programs speak more than one.
def _chat() -> Dialect:
    from .chat import Chat

    return Chat()


def _responses() -> Dialect:
    from .responses import Responses

    return Responses()


def _embeddings() -> Dialect:
    from .embeddings import Embeddings

    return Embeddings()


def _messages() -> Dialect:
    from .messages import Messages

    return Messages()


def _gemini() -> Dialect:
    from .gemini import Gemini

    return Gemini()


#: How a call's path ends, the endpoint that a lane of such calls has, and the dialect of both.
_PATHS: tuple[tuple[str, str, Callable[[], Dialect]], ...] = (
    ("/chat/completions", "/v1/chat/completions", _chat),
    ("/responses", "/v1/responses", _responses),
    ("/embeddings", "/v1/embeddings", _embeddings),
    ("/v1/messages", "chat", _messages),
)
_GEMINI = re.compile(r"(/models/[^/:]+):(generateContent|streamGenerateContent)$")
#: Parts of a query that say what is called, and are no secret.
_QUERY = ("api-version",)


def recognise(method: str, url: str, body: bytes) -> Request | None:
    """The model call that a request is, or None for another one."""
    if method != "POST":
        return None
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = urllib.parse.urlencode(
        [pair for pair in urllib.parse.parse_qsl(parts.query) if pair[0] in _QUERY]
    )
    gemini = _GEMINI.search(parts.path)
    if gemini is not None:
        dialect, tail = _gemini(), gemini[0]
    else:
        found = next((each for each in _PATHS if parts.path.endswith(each[0])), None)
        if found is None:
            return None
        tail, dialect = found[0], found[2]()
    try:
        asked = object_of(body)
    except ValueError:
        return None
    if gemini is not None:
        model, streams = gemini[1].removeprefix("/models/"), gemini[2] == "streamGenerateContent"
        tail = f"{gemini[1]}:generateContent"
    else:
        model, streams = str(asked.get("model") or ""), asked.get("stream") is True
    root = f"{parts.scheme}://{host}{parts.path[: -len(gemini[0] if gemini is not None else tail)]}"
    return Request(dialect, root, tail, model, asked, dialect.plain(asked), streams, query)


def dialect_of(to: str) -> Dialect:
    """The dialect of a lane whose endpoint is a path."""
    return next(dialect() for _, known, dialect in _PATHS if known == to)
