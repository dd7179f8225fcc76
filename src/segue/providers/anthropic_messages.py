"""The wire format of Anthropic's Messages: requests and replies. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ..model.chat import Answer, ChatReply, ChatRequest, Citation, File, Message, Stop, Tokens, ToolCall
from ..model.errors import InvalidValue
from . import answer_tool
from .turns import object_of, text_of, turns

#: What a request without `max_tokens` may say; the service wants a number.
MAX_TOKENS = 16_384
PROTOCOL = "anthropic"

_MARK = {"type": "ephemeral"}
#: A conversation in which the model has spoken so often is taken to go on.
_LONG = 2
_BUDGETS = {"low": 2_048, "medium": 8_192, "high": 24_576}
#: Models that think by a budget; later ones decide for themselves, by effort.
_BUDGETED = re.compile(r"claude-3|claude-(opus|sonnet|haiku)-4(-[0-5])?(?![0-9])(-20\d{6})?$")
_THOUGHTS = ("thinking", "redacted_thinking")
#: Keywords of a JSON schema that structured outputs know; others are told in the description.
_KNOWN = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "allOf"}
    | {"$ref", "$defs", "description", "title", "default"}
)
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)


# ---------------------------------------------------------------- requests
def chat_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body of a request that isn't streamed. The order of keys is always the same.

    The beginning that calls have in common, tools and system, is marked to be kept in the cache. So is a conversation
    whose next turn repeats it, one with tools or of some length, at its end and where the turn before ended: the
    service looks for what it has kept at a mark and at the 20 blocks before, and a turn with many tool calls is longer.
    `extra` has the last word, except on streaming; where it says anything of `cache_control`, nothing is marked here,
    and None leaves it at that.
    """
    head = _leading(request.messages)
    system = [{"type": "text", "text": text} for text in map(text_of, request.messages[:head]) if text]
    tools = [
        {"name": each.name, "description": each.description, "input_schema": each.parameters}
        for each in request.tools
    ]
    body: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens or MAX_TOKENS}
    messages = [
        {"role": "assistant" if models else "user", "content": blocks}
        for models, blocks in turns(request.messages[head:], _blocks)
    ]
    if "cache_control" not in request.extra:
        _mark(system or tools)
        if tools or sum(each["role"] == "assistant" for each in messages) >= _LONG:
            for turn in _ends(messages):
                _mark(turn["content"])
    if system:
        body["system"] = system
    body["messages"] = messages
    if tools:
        body["tools"] = tools
    _think(body, request, model)
    if request.answer is not None:
        _ask_for(body, request.answer)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    body |= dict(sorted(request.extra.items()))
    body.pop("stream", None)
    if body.get("cache_control", ...) is None:
        del body["cache_control"]
    return body


def _leading(messages: list[Message]) -> int:
    """How many messages of the system stand at the beginning."""
    return next((at for at, each in enumerate(messages) if each.role != "system"), len(messages))


def _ends(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns with which this request ends, and the one before it of the same conversation."""
    last = messages[-1:]
    before = [each for each in messages[:-1] if each["role"] == "user"]
    return [*before[-1:], *last]


def _mark(blocks: list[dict[str, Any]]) -> None:
    if blocks and blocks[-1].get("type") not in _THOUGHTS:
        blocks[-1]["cache_control"] = _MARK


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        content = [_part(each) for each in _parts(message)]
        return [
            {"type": "tool_result", "tool_use_id": message.call, **({"content": content} if content else {})}
        ]
    blocks = list(message.opaque.get(PROTOCOL) or ())
    blocks += [_part(each) for each in _parts(message)]
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": object_of(call.arguments)}
        for call in message.tool_calls
    ]
    return blocks


def _parts(message: Message) -> Iterable[str | File]:
    parts = message.content if isinstance(message.content, list) else [message.content]
    return [part for part in parts if not isinstance(part, str) or part.strip()]  # it refuses empty texts


def _part(part: str | File) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    image = part.media.startswith("image/")
    if part.url:
        return {"type": "image" if image else "document", "source": {"type": "url", "url": part.url}}
    source = {"type": "base64", "media_type": part.media, "data": part.data}
    if image:
        return {"type": "image", "source": source}
    if part.media == "application/pdf":
        return {"type": "document", "source": source, **_titled(part)}
    if part.media.startswith("text/"):
        text = {"type": "text", "media_type": "text/plain", "data": _decoded(part)}
        return {"type": "document", "source": text, **_titled(part)}
    raise InvalidValue(
        "a file of a message",
        "a picture, a PDF or a text",
        "Anthropic's models read no others",
        repr(part.media),
    )


def _titled(file: File) -> dict[str, str]:
    return {"title": file.name} if file.name else {}


def _decoded(file: File) -> str:
    import base64

    return base64.b64decode(file.data).decode("utf-8", "replace")


def _think(body: dict[str, Any], request: ChatRequest, model: str) -> None:
    effort = request.reasoning
    if effort is None or (effort == "none" and _BUDGETED.search(model)):
        return
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif _BUDGETED.search(model):
        budget = _BUDGETS[effort]
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        if request.max_tokens is None:
            body["max_tokens"] = MAX_TOKENS + budget
    else:
        body["thinking"] = {"type": "adaptive"}
        body["output_config"] = {"effort": effort}


def _ask_for(body: dict[str, Any], answer: Answer) -> None:
    """In a promised form where the service promises that one, else as a call of a tool."""
    schema = _promised(answer.schema)
    if schema is not None:
        form = {"type": "json_schema", "schema": schema}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
        return
    tool = {
        "name": answer_tool.NAME,
        "description": answer_tool.described(answer),
        "input_schema": answer.schema,
    }
    alone = "tools" not in body
    body.setdefault("tools", []).append(tool)
    if body.get("thinking", {}).get("type", "disabled") == "disabled":  # one who thinks can't be forced
        body["tool_choice"] = {"type": "tool", "name": answer_tool.NAME} if alone else {"type": "any"}


# ---------------------------------------------------------------- schemas
def _promised(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as structured outputs take it; None where they don't: open objects, tuples, or one without end."""
    defs = schema.get("$defs", {})
    if _turns_back(schema, defs, ()):
        return None
    try:
        return _fitted(schema)
    except ValueError:
        return None


def _turns_back(node: Any, defs: dict[str, Any], seen: tuple[str, ...]) -> bool:
    """Whether a schema refers to itself."""
    if isinstance(node, list):
        return any(_turns_back(each, defs, seen) for each in node)
    if not isinstance(node, dict):
        return False
    if isinstance(ref := node.get("$ref"), str):
        name = ref.rpartition("/")[2]
        return name in seen or name not in defs or _turns_back(defs[name], defs, (*seen, name))
    return any(_turns_back(each, defs, seen) for name, each in node.items() if name != "$defs")


def _fitted(node: dict[str, Any]) -> dict[str, Any]:
    """Without the keywords that are refused; they are told in words. Raises `ValueError` for open objects, tuples."""
    out: dict[str, Any] = {}
    told: list[str] = []
    if "prefixItems" in node:
        raise ValueError("a list of fixed length")
    for name, value in node.items():
        if name in ("properties", "$defs"):
            out[name] = {key: _fitted(each) for key, each in value.items()}
        elif name in ("anyOf", "allOf"):
            out[name] = [_fitted(each) for each in value]
        elif name == "oneOf":
            out["anyOf"] = [_fitted(each) for each in value]
        elif name == "items":
            out[name] = _fitted(value)
        elif (
            name in _KNOWN or (name == "format" and value in _FORMATS) or (name == "minItems" and value <= 1)
        ):
            out[name] = value
        else:
            told.append(f"{name}: {value}")
    out.pop("default", None)
    if out.get("type") == "object" and out.get("additionalProperties") is not False:
        raise ValueError("an open object")
    if told:
        out["description"] = f"{out.get('description', '')} ({', '.join(told)})".strip()
    return out


# ---------------------------------------------------------------- replies
class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Cited(msgspec.Struct):
    cited_text: str | None = None
    url: str | None = None
    source: str | None = None
    title: str | None = None
    document_title: str | None = None
    file_id: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    citations: list[_Cited] | None = None


class _Reply(msgspec.Struct):
    content: list[_Block]
    model: str | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Raw(msgspec.Struct):
    content: list[dict[str, Any]]


_reply = msgspec.json.Decoder(_Reply)
_raw = msgspec.json.Decoder(_Raw)

_STOPS: dict[str, Stop] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool",
    "refusal": "refusal",
}


def chat_reply(body: bytes) -> ChatReply:
    """What a body says. Raises `ValueError` with the problem where it isn't a reply."""
    reply = _reply.decode(body)
    if reply.stop_reason is None:
        raise ValueError("it has no stop_reason: it isn't whole")
    calls = [_called(block, at) for at, block in enumerate(reply.content) if block.type == "tool_use"]
    answers = [call for call in calls if call.name == answer_tool.NAME]
    calls = [call for call in calls if call.name != answer_tool.NAME]
    stop: Stop = _STOPS.get(reply.stop_reason, "end")
    if stop == "tool" and not calls:
        stop = "end"
    said, citations = _said(reply.content)
    text = answers[0].arguments if answers and not calls else said
    thoughts = "\n\n".join(
        block.thinking for block in reply.content if block.type == "thinking" and block.thinking
    )
    return ChatReply(
        text=text,
        tool_calls=calls,
        stop=stop,
        tokens=_tokens(reply.usage),
        model=reply.model or "",
        reasoning=thoughts or None,
        opaque=_opaque(body) if calls and any(block.type in _THOUGHTS for block in reply.content) else {},
        citations=citations,
    )


def _called(block: _Block, number: int) -> ToolCall:
    if not block.name:
        raise ValueError(f"its tool call {number} has no name")
    given = block.input
    arguments = (
        given if isinstance(given, str) else msgspec.json.encode({} if given is None else given).decode()
    )
    return ToolCall(block.id or f"call_{number}", block.name, arguments)


def _said(blocks: list[_Block]) -> tuple[str, list[Citation]]:
    """The text, and where its parts come from."""
    text = ""
    citations: list[Citation] = []
    for block in blocks:
        if block.type != "text" or not block.text:
            continue
        for each in block.citations or ():
            citations.append(
                Citation(
                    url=each.url or "",
                    title=each.title or each.document_title or "",
                    file=each.file_id or "",
                    quote=each.cited_text or "",
                    start=len(text),
                    end=len(text) + len(block.text),
                )
            )
        text += block.text
    return text, citations


def _opaque(body: bytes) -> dict[str, Any]:
    """Thoughts, which go back with the calls that they led to."""
    return {PROTOCOL: [block for block in _raw.decode(body).content if block.get("type") in _THOUGHTS]}


def _tokens(usage: _Usage | None) -> Tokens:
    if usage is None:
        return Tokens()
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return Tokens((usage.input_tokens or 0) + cached + written, usage.output_tokens or 0, cached, written)
