"""OpenAI's Responses as they look on the wire: what is asked, as chat; what is said, as items and events. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .replies import Failure

__all__ = ["as_chat", "background", "check", "events", "failed", "response", "waiting"]

_ROLES = ("user", "assistant", "system", "developer")
_ALONE = "Item of type 'reasoning' was provided without its required following item."
_PIECES = re.compile(r"\s*\S+\s*|\s+")


# ---------------------------------------------------------------- what is asked
def check(body: dict[str, Any], *, batch: bool = False) -> Failure | None:
    """What is wrong with a request that has a model and an input, if anything."""
    try:
        _check(body, batch)
    except _Wrong as wrong:
        message, param = wrong.args
        return Failure(400, message, code="invalid_value", param=param, type="invalid_request_error")
    return None


class _Wrong(Exception):
    pass


def _check(body: dict[str, Any], batch: bool) -> None:
    for name in ("messages", "max_tokens", "max_completion_tokens", "response_format", "reasoning_effort"):
        if name in body:
            raise _Wrong(f"Unsupported parameter: {name!r}.", name)
    items = body["input"]
    if not isinstance(items, str | list):
        raise _Wrong("Invalid type for 'input': expected a string or an array.", "input")
    called: set[str] = set()
    thinking = False
    given: list[Any] = items if isinstance(items, list) else []
    for place, item in enumerate(given):
        where = f"input[{place}]"
        kind: str = item.get("type", "message") if isinstance(item, dict) else ""
        if kind == "function_call":
            called.add(item["call_id"])
        elif kind == "function_call_output" and item.get("call_id") not in called:
            raise _Wrong(
                f"No tool call found for function call output with call_id {item.get('call_id')}.", where
            )
        elif kind == "message" and item.get("role") not in _ROLES:
            raise _Wrong(f"Invalid value: {item.get('role')!r}.", f"{where}.role")
        elif kind == "reasoning" and not item.get("encrypted_content"):
            raise _Wrong(
                f"Item {item.get('id')!r} not found: items are not persisted when store is false.", where
            )
        elif kind not in ("message", "function_call", "function_call_output", "reasoning"):
            raise _Wrong(f"Invalid value: {kind!r}.", f"{where}.type")
        if thinking and not (kind in ("function_call", "reasoning") or item.get("role") == "assistant"):
            raise _Wrong(_ALONE, where)
        thinking = kind == "reasoning"
        _check_parts(item, where)
    if thinking:
        raise _Wrong(_ALONE, "input")
    for place, tool in enumerate(body.get("tools") or ()):
        if "function" in tool or not tool.get("name"):
            raise _Wrong(f"Missing required parameter: 'tools[{place}].name'.", f"tools[{place}].name")
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema" and not (form.get("name") and "schema" in form):
        raise _Wrong("Missing required parameter: 'text.format.name'.", "text.format.name")
    if isinstance(most := body.get("max_output_tokens"), int) and most < 1:
        raise _Wrong("Invalid 'max_output_tokens': integer below minimum value.", "max_output_tokens")
    if body.get("background") and (batch or body.get("store") is False):
        raise _Wrong("Background mode requires store to be true, and a live call.", "background")
    if background(body) != "soonest" and (not body.get("background") or body.get("stream")):
        raise _Wrong(
            "This completion window requires background=true without streaming.", "background_options"
        )


def _check_parts(item: dict[str, Any], where: str) -> None:
    content = item.get("content")
    if item.get("type", "message") != "message" or not isinstance(content, list):
        return
    known = (
        ("output_text", "refusal")
        if item["role"] == "assistant"
        else ("input_text", "input_image", "input_file")
    )
    for place, part in enumerate(content):
        if part.get("type") not in known:
            raise _Wrong(f"Invalid value: {part.get('type')!r}.", f"{where}.content[{place}].type")


def background(body: dict[str, Any]) -> str:
    """The completion window that is asked for. Raises `Failure` for one that isn't there."""
    window = (body.get("background_options") or {}).get("completion_window", "soonest")
    if window not in ("soonest", "2h", "8h"):
        raise Failure(400, f"Invalid value: {window!r}.", code="invalid_value", param="background_options")
    return str(window)


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """A request as one of Chat Completions, which is what rules and models know."""
    items = body["input"]
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    messages: list[dict[str, Any]] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    for item in items:
        _add(messages, item)
    chat: dict[str, Any] = {"model": body["model"], "messages": messages}
    if body.get("tools"):
        chat["tools"] = [_tool(tool) for tool in body["tools"] if tool.get("type") == "function"]
    if isinstance(choice := body.get("tool_choice"), str):
        chat["tool_choice"] = choice
    elif choice:
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        told = {name: form[name] for name in ("name", "schema", "strict") if name in form}
        chat["response_format"] = {"type": "json_schema", "json_schema": told}
    elif form.get("type") == "json_object":
        chat["response_format"] = {"type": "json_object"}
    for theirs, ours in (("temperature", "temperature"), ("max_output_tokens", "max_tokens")):
        if body.get(theirs) is not None:
            chat[ours] = body[theirs]
    return chat


def _add(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    match item.get("type", "message"):
        case "function_call":
            call = {
                "id": item["call_id"],
                "type": "function",
                "function": {"name": item["name"], "arguments": item["arguments"]},
            }
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]})
        case "message":
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append({"role": role, "content": _parts(item["content"])})


def _parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    if all("text" in part for part in content):
        return "".join(part["text"] for part in content)
    return [_part(part) for part in content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part["type"]:
        case "input_image":
            return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
        case "input_file":
            return {"type": "file", "file": {name: part[name] for name in part if name != "type"}}
        case _:
            return {"type": "text", "text": part.get("text", "")}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {name: tool[name] for name in tool if name not in ("type", "strict")},
    }


# ---------------------------------------------------------------- what is said
def response(body: dict[str, Any], completion: dict[str, Any], *, id: str, now: float) -> dict[str, Any]:
    """The response that says what a completion says."""
    choice = completion["choices"][0]
    message, usage = choice["message"], completion.get("usage") or {}
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(choice["finish_reason"])
    status = "incomplete" if reason else "completed"
    details = usage.get("prompt_tokens_details") or {}
    asked, said = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return _head(body, id, now) | {
        "status": status,
        "completed_at": None if reason else int(now),
        "incomplete_details": {"reason": reason} if reason else None,
        "model": completion.get("model") or body["model"],
        "output": [*_items(body, message, id.rpartition("_")[2], status)],
        "usage": {
            "input_tokens": asked,
            "input_tokens_details": {
                "cached_tokens": details.get("cached_tokens", 0),
                "cache_write_tokens": details.get("cache_write_tokens", 0),
            },
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + said,
        },
    }


def waiting(body: dict[str, Any], *, id: str, now: float, status: str = "queued") -> dict[str, Any]:
    """A response of the background that isn't there yet."""
    return _head(body, id, now) | {"status": status, "output": [], "usage": None}


def failed(body: dict[str, Any], failure: Failure, *, id: str, now: float) -> dict[str, Any]:
    """A response of the background that came to nothing."""
    error = {
        "code": failure.code or ("server_error" if failure.status >= 500 else "invalid_prompt"),
        "message": failure.message,
    }
    return waiting(body, id=id, now=now, status="failed") | {"error": error}


def _head(body: dict[str, Any], id: str, now: float) -> dict[str, Any]:
    return {
        "id": id,
        "object": "response",
        "created_at": int(now),
        "completed_at": None,
        "background": bool(body.get("background")),
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
    }


def _items(body: dict[str, Any], message: dict[str, Any], name: str, status: str) -> Iterator[dict[str, Any]]:
    if thinking := message.get("reasoning_content"):
        item = {
            "id": f"rs_{name}",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": thinking}],
        }
        yield item | {"encrypted_content": f"sealed:{name}"}
    parts: list[dict[str, Any]] = []
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    if message.get("content"):
        cited = [
            {"type": "url_citation", **each["url_citation"]} for each in message.get("annotations") or ()
        ]
        parts.append(
            {"type": "output_text", "text": message["content"], "annotations": cited, "logprobs": []}
        )
    if parts or not message.get("tool_calls"):
        yield {
            "id": f"msg_{name}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": parts,
        }
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield {
            "id": f"fc_{name}_{index}",
            "type": "function_call",
            "status": status,
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": call["function"]["arguments"],
        }


# ---------------------------------------------------------------- as a stream
def events(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events that tell of a response."""
    begun = whole | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    plain = _plain_events(whole, begun)
    for number, event in enumerate(plain):
        yield event | {"sequence_number": number}


def _plain_events(whole: dict[str, Any], begun: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("created", "in_progress"):
        yield {"type": f"response.{kind}", "response": begun}
    for place, item in enumerate(whole["output"]):
        at = {"output_index": place, "item_id": item["id"]}
        fresh = {"content": [], "summary": [], "arguments": "", "status": "in_progress"}
        first = {name: fresh.get(name, value) for name, value in item.items()}
        yield {"type": "response.output_item.added", "output_index": place, "item": first}
        match item["type"]:
            case "message":
                for number, part in enumerate(item["content"]):
                    yield from _part_events(at | {"content_index": number}, part)
            case "reasoning":
                for number, part in enumerate(item["summary"]):
                    yield from _summary_events(at | {"summary_index": number}, part)
            case "function_call":
                kind = "response.function_call_arguments"
                for start in range(0, len(item["arguments"]), 8):
                    yield {"type": f"{kind}.delta", **at, "delta": item["arguments"][start : start + 8]}
                yield {"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _part_events(at: dict[str, Any], part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name = "refusal" if part["type"] == "refusal" else "text"
    kind = "response.refusal" if name == "refusal" else "response.output_text"
    more: dict[str, Any] = {} if name == "refusal" else {"logprobs": []}
    empty = part | {name: ""} | ({} if name == "refusal" else {"annotations": []})
    yield {"type": "response.content_part.added", **at, "part": empty}
    for piece in _PIECES.findall(part[name]):
        yield {"type": f"{kind}.delta", **at, "delta": piece, **more}
    yield {"type": f"{kind}.done", **at, name: part[name], **more}
    yield {"type": "response.content_part.done", **at, "part": part}


def _summary_events(at: dict[str, Any], part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = "response.reasoning_summary"
    yield {"type": f"{kind}_part.added", **at, "part": part | {"text": ""}}
    for piece in _PIECES.findall(part["text"]):
        yield {"type": f"{kind}_text.delta", **at, "delta": piece}
    yield {"type": f"{kind}_text.done", **at, "text": part["text"]}
    yield {"type": f"{kind}_part.done", **at, "part": part}
