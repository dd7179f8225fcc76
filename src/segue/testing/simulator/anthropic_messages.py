"""Anthropic's Messages as they look on the wire: what is asked, as chat; what is said, as blocks and events. Pure."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from .completion import tokens
from .replies import Failure

__all__ = ["as_chat", "check", "error", "event", "events", "message", "usage_of"]

_FIELDS = frozenset(
    {
        "cache_control",
        "container",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "messages",
        "metadata",
        "model",
    }
    | {
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
    }
    | {"tool_choice", "tools", "top_k", "top_p"}
)
_KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 409: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_STOPS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
#: Keywords of a JSON schema that structured outputs refuse.
_REFUSED = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"}
    | {"maxItems", "uniqueItems", "patternProperties", "minProperties", "maxProperties"}
)


def error(failure: Failure, request_id: str = "") -> dict[str, Any]:
    """The body that goes with a status other than 200."""
    kind = _KINDS.get(failure.status, "api_error" if failure.status >= 500 else "invalid_request_error")
    told = {"type": "error", "error": {"type": kind, "message": failure.message}}
    return told | ({"request_id": request_id} if request_id else {})


# ---------------------------------------------------------------- what is asked
def check(body: Any) -> Failure | None:
    """What is wrong with a request, if anything."""
    try:
        _check(body)
    except _Wrong as wrong:
        return Failure(400, str(wrong))
    return None


class _Wrong(Exception):
    pass


def _check(body: Any) -> None:
    if not isinstance(body, dict):
        raise _Wrong("The body must be a JSON object.")
    for name in ("model", "max_tokens", "messages"):
        if name not in body:
            raise _Wrong(f"{name}: Field required")
    for name in body:
        if name not in _FIELDS:
            raise _Wrong(f"{name}: Extra inputs are not permitted")
    most = body["max_tokens"]
    if not isinstance(most, int) or most < 1:
        raise _Wrong("max_tokens: Input should be greater than or equal to 1")
    for tool in body.get("tools") or ():
        if "input_schema" in tool and not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool.get("name", "")):
            raise _Wrong("tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
    thinks = _check_thinking(body, most)
    _check_schema(((body.get("output_config") or {}).get("format") or {}).get("schema"))
    marks = msgspec.json.encode(body).count(b'"cache_control":{"type":"ephemeral"')
    if marks > 4:
        raise _Wrong(f"A maximum of 4 blocks with cache_control may be provided. Found {marks}.")
    _check_messages(body["messages"], thinks)


def _check_thinking(body: dict[str, Any], most: int) -> bool:
    thinking = body.get("thinking") or {"type": "disabled"}
    kind = thinking.get("type")
    if kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise _Wrong(
            f"thinking: Input tag {kind!r} found using 'type' does not match any of the expected tags"
        )
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            raise _Wrong("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= most:
            raise _Wrong("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if kind != "disabled" and (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise _Wrong("Thinking may not be enabled when tool_choice forces tool use.")
    return bool(kind == "enabled")


def _check_schema(schema: Any) -> None:
    """What structured outputs don't take."""
    if isinstance(schema, list):
        for each in schema:
            _check_schema(each)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        raise _Wrong(
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be set to false"
        )
    if refused := sorted(_REFUSED & schema.keys() if "type" in schema else ()):
        raise _Wrong(f"output_config.format.schema: property {refused[0]!r} is not supported")
    for name, each in schema.items():
        if name in ("properties", "$defs"):
            _check_schema(list(each.values()))
        elif name in ("items", "anyOf", "allOf", "oneOf"):
            _check_schema(each)


def _check_messages(messages: Any, thinks: bool) -> None:
    if not isinstance(messages, list) or not messages:
        raise _Wrong("messages: at least one message is required")
    wanted: set[str] = set()
    for at, each in enumerate(messages):
        role = each.get("role") if isinstance(each, dict) else None
        if role not in ("user", "assistant"):
            raise _Wrong(f"messages.{at}.role: Input should be 'user' or 'assistant'")
        blocks = _blocks(each.get("content"))
        if not blocks:
            raise _Wrong(f"messages.{at}: all messages must have non-empty content")
        if any(block.get("type") == "text" and not block.get("text", "").strip() for block in blocks):
            raise _Wrong("messages: text content blocks must be non-empty")
        answered = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
        if strange := [ident for ident in answered if ident not in wanted]:
            raise _Wrong(
                f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {strange[0]}"
            )
        if missing := wanted - set(answered):
            raise _Wrong(
                f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(sorted(missing))}"
            )
        uses = [block for block in blocks if block.get("type") == "tool_use"]
        wanted = {block["id"] for block in uses} if role == "assistant" else set()
        if any(not isinstance(block.get("input"), dict) for block in uses):
            raise _Wrong(f"messages.{at}.content: tool_use.input: Input should be a valid dictionary")
        thoughts = ("thinking", "redacted_thinking")
        if uses and thinks and blocks[0].get("type") not in thoughts:
            raise _Wrong(
                f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`."
            )
        if any(block.get("type") == "thinking" and not _signed(block) for block in blocks):
            raise _Wrong(f"messages.{at}.content.0: Invalid `signature` in `thinking` block")


def _signed(block: dict[str, Any]) -> bool:
    return str(block.get("signature")) == _signature(block.get("thinking", ""))


def _signature(thinking: str) -> str:
    return f"sim-{tokens(thinking)}-{sum(thinking.encode()) % 65_521:x}"


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for block in content or () if isinstance(block, dict)]


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The same request in the words of Chat Completions, in which replies are thought of."""
    messages: list[dict[str, Any]] = []
    if system := _text(_blocks(body.get("system"))):
        messages.append({"role": "system", "content": system})
    for each in body["messages"]:
        messages.extend(_as_chat(each["role"], _blocks(each["content"])))
    chat: dict[str, Any] = {"model": body["model"], "messages": messages}
    tools = [tool for tool in body.get("tools") or () if "input_schema" in tool]
    if tools:
        chat["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "description": tool.get("description", ""),
                    "parameters": tool["input_schema"],
                },
            }
            for tool in tools
        ]
    match (body.get("tool_choice") or {}).get("type"):
        case "any":
            chat["tool_choice"] = "required"
        case "tool":
            chat["tool_choice"] = {"type": "function", "function": {"name": body["tool_choice"]["name"]}}
    if form := (body.get("output_config") or {}).get("format"):
        schema = {"name": "answer", "schema": form["schema"], "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    for name, chats in (
        ("temperature", "temperature"),
        ("max_tokens", "max_tokens"),
        ("stop_sequences", "stop"),
    ):
        if name in body:
            chat[chats] = body[name]
    return chat


def _text(blocks: list[dict[str, Any]]) -> str:
    return "\n".join(block.get("text", "") for block in blocks if block.get("type") == "text")


def _as_chat(role: str, blocks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        if block.get("type") == "tool_result":
            result = _text(_blocks(block.get("content")))
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": result}
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    rest = [block for block in blocks if block.get("type") in ("text", "image", "document")]
    if not uses and not rest:
        return
    content: Any = _text(rest)
    if any(block.get("type") != "text" for block in rest):
        content = [
            {"type": "text", "text": block["text"]}
            if block.get("type") == "text"
            else {"type": "image_url", "image_url": {"url": _url(block["source"])}}
            for block in rest
        ]
    said: dict[str, Any] = {"role": role, "content": content}
    if uses:
        said["tool_calls"] = [
            {
                "id": block["id"],
                "type": "function",
                "function": {
                    "name": block["name"],
                    "arguments": msgspec.json.encode(block["input"]).decode(),
                },
            }
            for block in uses
        ]
    yield said


def _url(source: dict[str, Any]) -> str:
    if source.get("type") == "base64":
        return f"data:{source.get('media_type', '')};base64,{source.get('data', '')}"
    return str(source.get("url", ""))


# ---------------------------------------------------------------- what is said
def message(completion: dict[str, Any], *, id: str, usage: dict[str, Any]) -> dict[str, Any]:
    """A `message` that says what a completion says. `usage` is of the request, without what is said."""
    choice = completion["choices"][0]
    said = choice["message"]
    content: list[dict[str, Any]] = []
    if thinking := said.get("reasoning_content"):
        content.append({"type": "thinking", "thinking": thinking, "signature": _signature(thinking)})
    if text := said.get("content") or said.get("refusal"):
        content.append({"type": "text", "text": text})
    for call in said.get("tool_calls") or ():
        content.append(
            {
                "type": "tool_use",
                "id": _tool_id(call["id"]),
                "name": call["function"]["name"],
                "input": msgspec.json.decode(call["function"]["arguments"] or "{}"),
            }
        )
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": completion.get("model", ""),
        "content": content,
        "stop_reason": _stop(choice.get("finish_reason"), bool(said.get("refusal"))),
        "stop_sequence": None,
        "usage": usage | {"output_tokens": (completion.get("usage") or {}).get("completion_tokens") or 1},
    }


def usage_of(body: dict[str, Any]) -> tuple[int, int]:
    """Tokens in, whether cached or not, and out."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return 0, 0
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(usage.get(name) or 0 for name in names), usage.get("output_tokens") or 0


def _stop(finish: str | None, refused: bool) -> str:
    return "refusal" if refused else _STOPS.get(finish or "", "end_turn")


def _tool_id(id: str) -> str:
    return id if id.startswith("toolu_") else f"toolu_{re.sub(r'[^a-zA-Z0-9]', '', id)}"


def event(kind: str, **rest: Any) -> bytes:
    """A server-sent event."""
    data = msgspec.json.encode({"type": kind, **rest})
    return f"event: {kind}\ndata: ".encode() + data + b"\n\n"


async def events(
    chunks: AsyncIterator[dict[str, Any]], begun: dict[str, Any], heard: dict[str, Any]
) -> AsyncIterator[bytes]:
    """The events of a message whose chunks come as a completion's. `begun` is the message before it says anything.

    What was counted at last is written into `heard`.
    """
    yield event("message_start", message=begun)
    blocks = _Blocks()
    finish, refused = None, False
    async for chunk in chunks:
        if chunk.get("usage"):
            heard["output_tokens"] = chunk["usage"].get("completion_tokens") or 0
        for choice in chunk.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or {}
            refused = refused or bool(delta.get("refusal"))
            for each in blocks.add(delta):
                yield each
    for each in blocks.end():
        yield each
    usage = {name: value for name, value in begun["usage"].items() if isinstance(value, int)}
    usage["output_tokens"] = heard.get("output_tokens") or blocks.tokens
    heard.update(usage)
    yield event(
        "message_delta", delta={"stop_reason": _stop(finish, refused), "stop_sequence": None}, usage=usage
    )
    yield event("message_stop")


class _Blocks:
    """Deltas of a completion as blocks of a message."""

    def __init__(self) -> None:
        self.tokens = 0
        self._index = -1
        self._kind: str = ""
        self._thinking = ""

    def add(self, delta: dict[str, Any]) -> Iterator[bytes]:
        if thinking := delta.get("reasoning_content"):
            yield from self._at("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._thinking += thinking
            yield self._delta(type="thinking_delta", thinking=thinking)
        if text := delta.get("content") or delta.get("refusal"):
            yield from self._at("text", {"type": "text", "text": ""})
            yield self._delta(type="text_delta", text=text)
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            if call.get("id"):
                begun = {
                    "type": "tool_use",
                    "id": _tool_id(call["id"]),
                    "name": function["name"],
                    "input": {},
                }
                yield from self._at(f"tool {call.get('index', 0)}", begun)
                yield self._delta(type="input_json_delta", partial_json="")
            if arguments := function.get("arguments"):
                yield self._delta(type="input_json_delta", partial_json=arguments)

    def end(self) -> Iterator[bytes]:
        if self._kind == "thinking":
            yield self._delta(type="signature_delta", signature=_signature(self._thinking))
        if self._kind:
            yield event("content_block_stop", index=self._index)
        self._kind = ""

    def _at(self, kind: str, begun: dict[str, Any]) -> Iterator[bytes]:
        if self._kind == kind:
            return
        yield from self.end()
        self._index += 1
        self._kind = kind
        yield event("content_block_start", index=self._index, content_block=begun)
        if self._index == 0:
            yield event("ping")

    def _delta(self, **delta: Any) -> bytes:
        self.tokens += 1
        return event("content_block_delta", index=self._index, delta=delta)
