"""Chat completions and embeddings as they look on the wire. Pure: replies in, JSON out."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from .replies import Failure, Reply, Said, ToolCall, ToolCalls

__all__ = ["canonical", "chunks", "completion", "embeddings", "error", "tokens", "usage_of"]


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values, equal bytes."""
    return msgspec.json.encode(value, order="sorted")


def tokens(value: Any) -> int:
    """A simple estimate: a token for each four bytes."""
    size = len(value.encode()) if isinstance(value, str) else len(msgspec.json.encode(value))
    return (size + 3) // 4


def error(failure: Failure) -> dict[str, Any]:
    """The body that goes with a status other than 200."""
    return {
        "error": {
            "message": failure.message,
            "type": failure.type,
            "param": failure.param,
            "code": failure.code,
        }
    }


def completion(body: dict[str, Any], reply: Reply, *, id: str, created: int) -> dict[str, Any]:
    """A `chat.completion` that says `reply`. A reply that is one already keeps all it says."""
    if isinstance(reply, dict) and reply.get("object") == "chat.completion":
        return reply
    message = _message(reply, id)
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    if isinstance(reply, Said) and reply.stop != "refusal":
        finish = reply.stop
    count = body.get("n") or 1
    asked = tokens(body.get("messages", []))
    texts = [message.get(name) for name in ("content", "tool_calls", "refusal", "reasoning_content")]
    said = count * sum(tokens(text) for text in texts if text)
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": body.get("model", ""),
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
            for index in range(count)
        ],
        "usage": _usage(asked, said, reply.cached if isinstance(reply, Said) else 0),
        "system_fingerprint": "fp_simulated",
    }


def chunks(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The `chat.completion.chunk`s that add up to a completion; the last one has the usage and no choice."""
    head = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    head["system_fingerprint"] = whole.get("system_fingerprint")
    for choice in whole["choices"]:
        begun = {"index": choice["index"], "logprobs": None, "finish_reason": None}
        for delta in _deltas(choice["message"]):
            yield head | {"choices": [begun | {"delta": delta}]}
        yield head | {"choices": [begun | {"delta": {}, "finish_reason": choice["finish_reason"]}]}
    yield head | {"choices": [], "usage": whole["usage"]}


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """One unit vector for each input, made from its hash."""
    given = body.get("input", "")
    one = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    inputs = [given] if one else list(given)
    size = body.get("dimensions") or 64
    packed = body.get("encoding_format") == "base64"
    asked = sum(len(text) if isinstance(text, list) else tokens(text) for text in inputs)
    return {
        "object": "list",
        "model": body.get("model", ""),
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
            for index, vector in enumerate(_vector(text, size) for text in inputs)
        ],
        "usage": {"prompt_tokens": asked, "total_tokens": asked},
    }


def usage_of(answer: dict[str, Any]) -> tuple[int, int]:
    """Tokens in and out, as an answer states them; zeros where it states none."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):  # a scripted body may say anything
        return 0, 0
    asked = usage.get("prompt_tokens") or usage.get("input_tokens")
    return asked or 0, usage.get("completion_tokens") or usage.get("output_tokens") or 0


def _usage(asked: int, said: int, cached: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": min(cached, asked)},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _message(reply: Reply, id: str) -> dict[str, Any]:
    if isinstance(reply, ToolCall):
        reply = ToolCalls(reply)
    if isinstance(reply, Said):
        return _said(reply, id)
    if not isinstance(reply, ToolCalls):
        text = reply if isinstance(reply, str) else msgspec.json.encode(reply).decode()
        return {"role": "assistant", "content": text, "refusal": None}
    return {
        "role": "assistant",
        "content": reply.text,
        "refusal": None,
        "tool_calls": _calls(reply.calls, id),
    }


def _calls(calls: Sequence[ToolCall], id: str) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{id.rpartition('-')[2]}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
        }
        for index, call in enumerate(calls)
    ]


def _said(said: Said, id: str) -> dict[str, Any]:
    refused = said.stop == "refusal"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or not (said.text or not said.calls) else said.text,
        "refusal": said.text if refused else None,
    }
    if said.thinking:
        message["reasoning_content"] = said.thinking
    if said.cites:
        end = len(said.text)
        message["annotations"] = [
            {
                "type": "url_citation",
                "url_citation": {"url": url, "title": url, "start_index": 0, "end_index": end},
            }
            for url in said.cites
        ]
    if said.calls:
        message["tool_calls"] = _calls(said.calls, id)
    return message


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": None if message.get("tool_calls") else ""}
    for name in ("reasoning_content", "content", "refusal"):
        for piece in re.findall(r"\s*\S+\s*|\s+", message.get(name) or ""):
            yield {name: piece}
    if message.get("annotations"):
        yield {"annotations": message["annotations"]}
    for index, call in enumerate(message.get("tool_calls") or []):
        arguments = call["function"]["arguments"]
        begun = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield {"tool_calls": [begun]}
        for at in range(0, len(arguments), 8):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 8]}}]}


def _vector(text: Any, size: int) -> list[float]:
    digest = hashlib.shake_256(canonical(text)).digest(4 * size)
    raw = [number / 2**31 - 1 for number in struct.unpack(f"<{size}I", digest)]
    length = math.sqrt(sum(x * x for x in raw)) or 1.0
    return [x / length for x in raw]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
