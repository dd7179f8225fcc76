"""Anthropic's Messages API on the wire: requests of SDKs, whole answers and streams."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ...model.chat import Tokens
from .dialect import Body, Listener, StreamError, object_of
from .pieces import Pieces, cut, frame

#: Texts of a block that grow: the field, the type of the delta.
_GROWS = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}
_TOOLS = ("tool_use", "server_tool_use", "mcp_tool_use")
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Messages:
    """`/v1/messages`."""

    provider = "anthropic"
    to = "chat"
    streams = True

    def plain(self, body: Body) -> Body:
        """See `Dialect.plain`."""
        return {name: value for name, value in body.items() if name != "stream"}

    def sent(self, tail: str, body: Body, *, stream: bool) -> tuple[str, Body]:
        """See `Dialect.sent`."""
        return tail, {**body, "stream": True} if stream else body

    def line(self, body: Body, model: str) -> Body:
        """See `Dialect.line`."""
        return body

    def is_answer(self, answer: Body) -> bool:
        """See `Dialect.is_answer`."""
        return answer.get("type") == "message" and isinstance(answer.get("content"), list)

    def is_whole(self, answer: Body) -> bool:
        """See `Dialect.is_whole`."""
        return answer.get("stop_reason") in ("end_turn", "tool_use", "stop_sequence")

    def tokens(self, answer: Body) -> Tokens:
        """See `Dialect.tokens`. What was read from a cache, or written into it, is part of the input."""
        usage = answer.get("usage") or {}
        cached = usage.get("cache_read_input_tokens") or 0
        written = usage.get("cache_creation_input_tokens") or 0
        asked = (usage.get("input_tokens") or 0) + cached + written
        return Tokens(asked, usage.get("output_tokens") or 0, cached, written)

    def text(self, answer: Body) -> str:
        """See `Dialect.text`."""
        return "".join(block.get("text") or "" for block in answer["content"] if block.get("type") == "text")

    def failure(self, status: int, message: str, code: str) -> Body:
        """See `Dialect.failure`."""
        kind = code or _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}}

    def turns(self, asked: Body) -> dict[str, str]:
        """See `Dialect.turns`."""
        names: dict[str, str] = {}
        fresh: list[str] = []
        for message in asked.get("messages") or ():
            content = message.get("content")
            blocks = content if isinstance(content, list) else []
            if message.get("role") == "assistant":
                fresh = []
                names |= {block["id"]: block["name"] for block in blocks if block.get("type") == "tool_use"}
            else:
                fresh += [block["tool_use_id"] for block in blocks if block.get("type") == "tool_result"]
        return {call: names[call] for call in fresh if call in names}

    def frames(self, answer: Body, asked: Body) -> Iterator[bytes]:
        """See `Dialect.frames`."""
        yield _start(answer)
        for index, block in enumerate(answer["content"]):
            yield from _block(index, block)
        yield from _end(answer)

    def listen(self, asked: Body | None) -> Listener:
        """See `Dialect.listen`."""
        return _Listener()


def _event(kind: str, **rest: object) -> bytes:
    return frame({"type": kind, **rest}, kind)


def _delta(index: int, kind: str, **rest: object) -> bytes:
    return _event("content_block_delta", index=index, delta={"type": kind, **rest})


def _start(answer: Body) -> bytes:
    usage = {**(answer.get("usage") or {}), "output_tokens": 0}
    begun = {**answer, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    begun.pop("stop_details", None)
    begun.pop("container", None)
    return _event("message_start", message=begun)


def _begun(block: Body) -> Body:
    """A block as it is when it begins."""
    kind = block.get("type", "")
    fresh = dict(block)
    if kind in _GROWS:
        fresh[_GROWS[kind][0]] = ""
    if kind == "text" and "citations" in fresh:
        fresh["citations"] = None
    if kind == "thinking":
        fresh["signature"] = ""
    if kind in _TOOLS:
        fresh["input"] = {}
    return fresh


def _block(index: int, block: Body) -> Iterator[bytes]:
    """What is sent of a whole block."""
    yield _event("content_block_start", index=index, content_block=_begun(block))
    kind = block.get("type", "")
    if kind in _GROWS:
        field, delta = _GROWS[kind]
        for piece in cut(block.get(field) or ""):
            yield _delta(index, delta, **{field: piece})
    yield from _tail(index, block)


def _tail(index: int, block: Body) -> Iterator[bytes]:
    """What follows the texts that grow."""
    kind = block.get("type", "")
    if kind == "text":
        for citation in block.get("citations") or ():
            yield _delta(index, "citations_delta", citation=citation)
    elif kind == "thinking" and block.get("signature"):
        yield _delta(index, "signature_delta", signature=block["signature"])
    elif kind in _TOOLS:
        given = block.get("input")
        for piece in cut(given if isinstance(given, str) else msgspec.json.encode(given).decode()):
            yield _delta(index, "input_json_delta", partial_json=piece)
    yield _event("content_block_stop", index=index)


def _end(answer: Body) -> Iterator[bytes]:
    ends = {name: answer.get(name) for name in ("stop_reason", "stop_sequence")}
    ends |= {name: answer[name] for name in ("stop_details", "container") if answer.get(name) is not None}
    yield _event("message_delta", delta=ends, usage=answer.get("usage") or {"output_tokens": 0})
    yield _event("message_stop")


class _Listener:
    """Follows a stream, block by block."""

    def __init__(self) -> None:
        self.over = False
        self._answer: Body = {}
        self._blocks: dict[int, Body] = {}
        self._json: dict[int, str] = {}
        self._pieces = Pieces()

    def take(self, data: bytes) -> tuple[list[bytes], str]:
        """See `Listener.take`."""
        event = object_of(data)
        match event.get("type"):
            case "message_start":
                self._answer = event["message"]
                return [_start(self._answer)], ""
            case "content_block_start":
                self._blocks[event["index"]] = event["content_block"]
                return [
                    _event(
                        "content_block_start",
                        index=event["index"],
                        content_block=_begun(event["content_block"]),
                    )
                ], ""
            case "content_block_delta":
                return self._grow(event["index"], event["delta"])
            case "content_block_stop":
                return self._stop(event["index"]), ""
            case "message_delta":
                self._answer |= {name: value for name, value in event["delta"].items() if name != "type"}
                told = {
                    name: value for name, value in (event.get("usage") or {}).items() if value is not None
                }
                self._answer["usage"] = {**(self._answer.get("usage") or {}), **told}
            case "message_stop":
                self.over = True
            case "error":
                raise StreamError(data)
        return [], ""

    def _grow(self, index: int, delta: Body) -> tuple[list[bytes], str]:
        block = self._blocks[index]
        kind = delta.get("type", "")
        grows = _GROWS.get(block.get("type", ""))
        if grows is not None and kind == grows[1]:
            field, text = grows[0], delta[grows[0]]
            block[field] = (block.get(field) or "") + text
            out = [_delta(index, kind, **{field: piece}) for piece in self._pieces.add(text)]
            return out, text if kind == "text_delta" else ""
        if kind == "input_json_delta":
            self._json[index] = self._json.get(index, "") + delta["partial_json"]
        elif kind == "signature_delta":
            block["signature"] = (block.get("signature") or "") + delta["signature"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        return [], ""

    def _stop(self, index: int) -> list[bytes]:
        block = self._blocks[index]
        if text := self._json.get(index):
            try:
                block["input"] = msgspec.json.decode(text)
            except msgspec.DecodeError:  # the answer reached its length limit in the middle of it
                block["input"] = text
        grows = _GROWS.get(block.get("type", ""))
        out = []
        if grows is not None:
            out = [_delta(index, grows[1], **{grows[0]: piece}) for piece in self._pieces.end()]
        return [*out, *_tail(index, block)]

    def answer(self) -> bytes:
        """See `Listener.answer`."""
        content = [self._blocks[index] for index in sorted(self._blocks)]
        return msgspec.json.encode({**self._answer, "content": content})

    def rest(self) -> list[bytes]:
        """See `Listener.rest`."""
        return list(_end(self._answer))
