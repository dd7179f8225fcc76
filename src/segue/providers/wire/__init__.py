"""What SDKs put on the wire: recognising a model call by its path, and the dialects that such calls are in."""

from __future__ import annotations

import re
import urllib.parse

from .chat import Chat
from .dialect import Body, Dialect, Listener, Request, StreamError, object_of
from .embeddings import Embeddings
from .gemini import Gemini
from .messages import Messages
from .responses import Responses

__all__ = ["Body", "Dialect", "Listener", "Request", "StreamError", "dialect_of", "object_of", "recognise"]

_PATHS: tuple[tuple[str, Dialect], ...] = (
    ("/chat/completions", Chat()),
    ("/responses", Responses()),
    ("/embeddings", Embeddings()),
    ("/v1/messages", Messages()),
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
    dialect: Dialect
    if gemini is not None:
        dialect, tail = Gemini(), gemini[0]
    else:
        found = next((each for each in _PATHS if parts.path.endswith(each[0])), None)
        if found is None:
            return None
        tail, dialect = found
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
    return next(dialect for _, dialect in _PATHS if dialect.to == to)
