"""The wire format of Chat Completions and embeddings: requests and replies. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..model.chat import (
    ChatReply,
    ChatRequest,
    Citation,
    File,
    Message,
    Stop,
    Tokens,
    ToolCall,
    ToolSpec,
)
from ..model.errors import InvalidValue
from .speech import strict_form
from .wire.dialect import Listener, text_of


class Completions:
    """`Speech` of `/v1/chat/completions`. `limit` is the server's name for `max_tokens`."""

    path = "/v1/chat/completions"
    noun = "a chat completion"
    streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}

    def __init__(self, limit: str = "max_tokens") -> None:
        self._limit = limit

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """See `Speech.body`."""
        return chat_body(request, model, limit=self._limit)

    def reply(self, body: bytes) -> ChatReply:
        """See `Speech.reply`."""
        return chat_reply(body)

    def is_reply(self, body: bytes) -> bool:
        """See `Speech.is_reply`."""
        return is_reply(body)

    def listen(self) -> Listener:
        """See `Speech.listen`."""
        from .wire.chat import Chat

        return Chat().listen(None)


# ---------------------------------------------------------------- requests
def chat_body(request: ChatRequest, model: str, *, limit: str) -> dict[str, Any]:
    """The body of a request that isn't streamed. `limit` is the server's name for `max_tokens`.

    The order of keys is always the same. `extra` has the last word, except on streaming.
    """
    body: dict[str, Any] = {"model": model, "messages": [_message(each) for each in request.messages]}
    if request.tools:
        body["tools"] = [_tool(each) for each in request.tools]
    if request.answer is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": strict_form(request.answer)}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body[limit] = request.max_tokens
    if request.reasoning is not None:
        body["reasoning_effort"] = request.reasoning
    if request.extra:
        body |= dict(sorted(request.extra.items()))
    for name in ("stream", "stream_options"):
        body.pop(name, None)
    return body


def embed_body(texts: Sequence[str], model: str) -> dict[str, Any]:
    """The body of a request for embeddings."""
    return {"model": model, "input": list(texts), "encoding_format": "float"}


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role}
    content: Any = message.content
    if isinstance(content, list):
        only = content[0] if len(content) == 1 else None
        content = only if isinstance(only, str) else [_part(each) for each in content]
    body["content"] = content
    if message.role == "tool":
        body["tool_call_id"] = message.call
    if message.tool_calls:
        body["content"] = content or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body


def _part(part: str | File) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.media.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": part.url or _data_url(part)}}
    if part.url:
        raise InvalidValue(
            "a file of a message", "a picture's URL or a file's bytes", "only pictures are fetched by URL; "
            "download it and hand over the bytes (File(data, media=...))", f"{part.media} at {part.url!r}"
        )  # fmt: skip
    if part.media.startswith("audio/"):
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": _sound(part.media)}}
    return {"type": "file", "file": {"filename": part.name or "file", "file_data": _data_url(part)}}


def _data_url(file: File) -> str:
    return f"data:{file.media};base64,{file.data}"


def _sound(media: str) -> str:
    kind = media.partition("/")[2].partition(";")[0].removeprefix("x-")
    return {"mpeg": "mp3", "wave": "wav", "vnd.wave": "wav", "mp4": "m4a"}.get(kind, kind)


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


# ---------------------------------------------------------------- replies
class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Place(msgspec.Struct):
    url: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class _Annotation(msgspec.Struct):
    url_citation: _Place | None = None


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    annotations: list[_Annotation] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    usage: _Usage | None = None


class _Outline(msgspec.Struct):
    """As little as tells a reply from something else."""

    choices: list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None


_reply = msgspec.json.Decoder(_Reply)
_vectors = msgspec.json.Decoder(_Vectors)
_outline = msgspec.json.Decoder(_Outline)

_STOPS: dict[str, Stop] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "content_filter": "filter",
    "refusal": "refusal",
}
_BROKEN = frozenset({"abort", "cancelled", "error"})  # what servers say of an answer that they gave up


def is_reply(body: bytes) -> bool:
    """Whether a body has the outline of a reply, of either kind."""
    try:
        outline = _outline.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return bool(outline.choices) or bool(outline.data)


def chat_reply(body: bytes) -> ChatReply:
    """What a body says. Raises `ValueError` with the problem where it isn't a reply."""
    reply = _reply.decode(body)
    if not reply.choices:
        raise ValueError("it has no choices")
    choice = reply.choices[0]
    message = choice.message
    if choice.finish_reason in _BROKEN:
        raise ValueError(f"the server gave up its answer: finish_reason {choice.finish_reason!r}")
    calls = [_called(call, number) for number, call in enumerate(message.tool_calls or ())]
    stop: Stop = _STOPS.get(choice.finish_reason or "", "end")
    if stop == "end" and calls:
        stop = "tool"
    text = text_of(message.content)
    if message.refusal:
        stop, text = "refusal", text or message.refusal
    return ChatReply(
        text=text,
        tool_calls=calls,
        stop=stop,
        tokens=_tokens(reply.usage),
        model=reply.model or "",
        reasoning=message.reasoning_content or message.reasoning or None,
        citations=[_citation(each.url_citation) for each in message.annotations or () if each.url_citation],
    )


def _citation(place: _Place) -> Citation:
    return Citation(
        url=place.url or "", title=place.title or "", start=place.start_index, end=place.end_index
    )


def embed_reply(body: bytes) -> tuple[list[list[float]], int]:
    """Vectors in the order of the texts, and input tokens. Raises `ValueError` as `chat_reply` does."""
    reply = _vectors.decode(body)
    if not reply.data:
        raise ValueError("it has no vectors")
    places = [number if each.index is None else each.index for number, each in enumerate(reply.data)]
    if sorted(places) != list(range(len(places))):
        raise ValueError(f"its vectors are numbered {places[:20]}")
    vectors: list[list[float]] = [[]] * len(places)
    for place, each in zip(places, reply.data, strict=True):
        vectors[place] = each.embedding
    return vectors, _tokens(reply.usage).input


def _called(call: _Call, number: int) -> ToolCall:
    function = call.function
    if function is None or not function.name:
        raise ValueError(f"its tool call {number} has no name")
    return ToolCall(call.id or f"call_{number}", function.name, _arguments(function.arguments))


def _arguments(arguments: str | dict[str, Any] | None) -> str:
    if isinstance(arguments, dict):
        return msgspec.json.encode(arguments).decode()
    return arguments or ""


def _tokens(usage: _Usage | None) -> Tokens:
    if usage is None:
        return Tokens()
    details = usage.prompt_tokens_details or _Details()
    return Tokens(
        usage.prompt_tokens or 0,
        usage.completion_tokens or 0,
        details.cached_tokens or 0,
        details.cache_write_tokens or 0,
    )
