"""The wire format of OpenAI's Responses: requests and replies. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..model.chat import ChatReply, ChatRequest, Citation, File, Message, Stop, Tokens, ToolCall, ToolSpec
from ..model.errors import InvalidValue
from .speech import strict_form
from .wire.dialect import Listener

#: The name under which a message keeps the items that its provider wants back.
OPAQUE = "responses"
#: What goes with every request: nothing is kept there, so that thoughts come back with all they hold.
_STATELESS = {"store": False, "include": ["reasoning.encrypted_content"]}
_TRAVEL = ("stream", "stream_options", "background", "background_options")


class Responses:
    """`Speech` of `/v1/responses`."""

    path = "/v1/responses"
    noun = "a response"
    streamed: dict[str, Any] = {"stream": True}

    def body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """See `Speech.body`. The order of keys is always the same; `extra` has the last word, except on travel."""
        body: dict[str, Any] = {"model": model, "input": [*_items(request.messages)], **_STATELESS}
        if request.tools:
            body["tools"] = [_tool(each) for each in request.tools]
        if request.answer is not None:
            body["text"] = {"format": {"type": "json_schema", **strict_form(request.answer)}}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body["max_output_tokens"] = request.max_tokens
        if request.reasoning is not None:
            body["reasoning"] = {"effort": request.reasoning}
        body |= dict(sorted(request.extra.items()))
        for name in _TRAVEL:
            body.pop(name, None)
        return body

    def reply(self, body: bytes) -> ChatReply:
        """See `Speech.reply`."""
        response = _response.decode(body)
        if response.output is None:
            raise ValueError("it has no output")
        if response.status not in ("completed", "incomplete", None):
            said = f": {response.error.message or response.error.code}" if response.error else ""
            raise ValueError(f"the server gave up its answer: status {response.status!r}{said}")
        return _read(response)

    def is_reply(self, body: bytes) -> bool:
        """See `Speech.is_reply`."""
        try:
            outline = _outline.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        return outline.output is not None and outline.status in ("completed", "incomplete", None)

    def listen(self) -> Listener:
        """See `Speech.listen`."""
        from .wire.responses import Responses as Wire

        return Wire().listen(None)


# ---------------------------------------------------------------- requests
def _items(messages: list[Message]) -> Iterator[dict[str, Any]]:
    for message in messages:
        kept = message.opaque.get(OPAQUE)
        if message.role == "tool":
            yield {"type": "function_call_output", "call_id": message.call, "output": _text(message)}
        elif kept:
            yield from kept
        else:
            if message.content or not message.tool_calls:
                yield {"type": "message", "role": message.role, "content": _content(message)}
            for call in message.tool_calls:
                yield {
                    "type": "function_call",
                    "call_id": call.id,
                    "name": call.name,
                    "arguments": call.arguments,
                }


def _text(message: Message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(each for each in content if isinstance(each, str))


def _content(message: Message) -> str | list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return content
    if all(isinstance(each, str) for each in content) and (len(content) == 1 or message.role == "assistant"):
        return _text(message)
    return [_part(each) for each in content]


def _part(part: str | File) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    if part.media.startswith("audio/"):
        raise InvalidValue(
            "a file of a message", "a picture or a document", "the Responses API hears no sound; "
            "ask a model that does, such as 'openai:gpt-audio'", part.media
        )  # fmt: skip
    data = f"data:{part.media};base64,{part.data}"
    if part.media.startswith("image/"):
        return {"type": "input_image", "image_url": part.url or data, "detail": "auto"}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.name or "file", "file_data": data}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    told = {"description": tool.description} if tool.description else {}
    return {"type": "function", "name": tool.name, **told, "parameters": tool.parameters, "strict": False}


# ---------------------------------------------------------------- replies
class _Annotation(msgspec.Struct):
    type: str = ""
    url: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None
    file_id: str | None = None
    filename: str | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[_Annotation] | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None


class _Response(msgspec.Struct):
    output: list[msgspec.Raw] | None = None
    status: str | None = None
    error: _Error | None = None
    incomplete_details: _Incomplete | None = None
    model: str | None = None
    usage: _Usage | None = None


class _Outline(msgspec.Struct):
    output: list[msgspec.Raw] | None = None
    status: str | None = None


_response = msgspec.json.Decoder(_Response)
_outline = msgspec.json.Decoder(_Outline)
_item = msgspec.json.Decoder(_Item)


class _Reading:
    """The items of an answer, so far."""

    def __init__(self) -> None:
        self.text = ""
        self.refusals: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[ToolCall] = []
        self.citations: list[Citation] = []
        self.thinks = False

    def add(self, item: _Item) -> None:
        match item.type:
            case "message":
                for part in item.content or ():
                    self._part(part)
            case "function_call":
                if not item.name:
                    raise ValueError(f"its tool call {len(self.calls)} has no name")
                ident = item.call_id or f"call_{len(self.calls)}"
                self.calls.append(ToolCall(ident, item.name, item.arguments or ""))
            case "reasoning":
                self.thinks = True
                self.thoughts += [part.text for part in (item.summary or item.content or ()) if part.text]

    def _part(self, part: _Part) -> None:
        if part.refusal:
            self.refusals.append(part.refusal)
        for each in part.annotations or ():
            self.citations.append(
                Citation(
                    url=each.url or "",
                    title=each.title or "",
                    file=each.filename or each.file_id or "",
                    start=_from(each.start_index, len(self.text)),
                    end=_from(each.end_index, len(self.text)),
                )
            )
        self.text += part.text or ""


def _from(place: int | None, base: int) -> int | None:
    return None if place is None else base + place


def _read(response: _Response) -> ChatReply:
    reading = _Reading()
    raw = response.output or []
    for each in raw:
        reading.add(_item.decode(each))
    stop: Stop = "tool" if reading.calls else "end"
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        stop = "filter" if reason == "content_filter" else "length"
    elif reading.refusals:
        stop = "refusal"
    usage = response.usage or _Usage()
    details = usage.input_tokens_details or _InputDetails()
    return ChatReply(
        text=reading.text or "\n".join(reading.refusals),
        tool_calls=reading.calls,
        stop=stop,
        tokens=Tokens(
            usage.input_tokens or 0,
            usage.output_tokens or 0,
            details.cached_tokens or 0,
            details.cache_write_tokens or 0,
        ),
        model=response.model or "",
        reasoning="\n\n".join(reading.thoughts) or None,
        opaque={OPAQUE: [msgspec.json.decode(each) for each in raw]} if reading.thinks else {},
        citations=reading.citations,
    )
