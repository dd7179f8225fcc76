"""The Responses API on the wire: requests of SDKs, whole answers and streams."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ...model.chat import Tokens
from .chat import Chat
from .dialect import Body, Listener, StreamError, counted, object_of
from .pieces import Pieces, cut, frame

_TRAVEL = ("stream", "stream_options")
_ENDS = ("response.completed", "response.incomplete", "response.failed")
#: Of an item: the text that grows, by the item's type, and the name of its events.
_ARGUMENTS = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "mcp_call": ("arguments", "response.mcp_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
    "code_interpreter_call": ("code", "response.code_interpreter_call_code"),
}
#: Of a part: the text that grows, by the part's type, and the name of its events.
_PARTS = {
    "output_text": ("text", "response.output_text"),
    "refusal": ("refusal", "response.refusal"),
    "summary_text": ("text", "response.reasoning_summary_text"),
    "reasoning_text": ("text", "response.reasoning_text"),
}


class Responses:
    """`/responses`."""

    provider = "openai"
    to = "/v1/responses"
    streams = True

    def plain(self, body: Body) -> Body:
        """See `Dialect.plain`."""
        return {name: value for name, value in body.items() if name not in _TRAVEL}

    def sent(self, tail: str, body: Body, *, stream: bool) -> tuple[str, Body]:
        """See `Dialect.sent`."""
        return tail, {**body, "stream": True} if stream else body

    def line(self, body: Body, model: str) -> Body:
        """See `Dialect.line`."""
        return body

    def is_answer(self, answer: Body) -> bool:
        """See `Dialect.is_answer`."""
        return isinstance(answer.get("output"), list)

    def is_whole(self, answer: Body) -> bool:
        """See `Dialect.is_whole`."""
        parts = (part for item in answer.get("output") or () for part in item.get("content") or ())
        return answer.get("status") == "completed" and not any(
            part.get("type") == "refusal" for part in parts
        )

    def tokens(self, answer: Body) -> Tokens:
        """See `Dialect.tokens`."""
        return counted(answer, "input_tokens", "output_tokens")

    def text(self, answer: Body) -> str:
        """See `Dialect.text`."""
        parts = [part for item in answer["output"] for part in item.get("content") or ()]
        return "".join(part.get("text") or "" for part in parts if part.get("type") == "output_text")

    def failure(self, status: int, message: str, code: str) -> Body:
        """See `Dialect.failure`."""
        return Chat().failure(status, message, code)

    def turns(self, asked: Body) -> dict[str, str]:
        """See `Dialect.turns`."""
        names: dict[str, str] = {}
        fresh: list[str] = []
        items = asked.get("input")
        for item in items if isinstance(items, list) else ():
            kind = item.get("type")
            if kind in ("function_call", "custom_tool_call"):
                names[item.get("call_id", "")] = item.get("name", "")
                fresh = []
            elif kind in ("function_call_output", "custom_tool_call_output"):
                fresh.append(item.get("call_id", ""))
            elif item.get("role") == "assistant":
                fresh = []
        return {call: names.get(call, "") for call in fresh}

    def frames(self, answer: Body, asked: Body) -> Iterator[bytes]:
        """See `Dialect.frames`."""
        maker = _Frames()
        yield from maker.begin(answer)
        for place, item in enumerate(answer["output"]):
            yield from map(maker.number, _item_events(place, item))
        yield maker.end(answer)

    def listen(self, asked: Body | None) -> Listener:
        """See `Dialect.listen`."""
        return _Listener(quiet=asked is None)


class _Frames:
    """Events with their numbers."""

    def __init__(self) -> None:
        self._next = 0

    def number(self, event: Body) -> bytes:
        data = {**event, "sequence_number": self._next}
        self._next += 1
        return frame(data, event["type"])

    def begin(self, answer: Body) -> list[bytes]:
        begun = {**answer, "status": "in_progress", "output": [], "usage": None, "error": None}
        begun |= {name: None for name in ("completed_at", "incomplete_details") if name in begun}
        kinds = ("response.created", "response.in_progress")
        return [self.number({"type": kind, "response": begun}) for kind in kinds]

    def end(self, answer: Body) -> bytes:
        status = answer.get("status")
        kind = f"response.{status}" if f"response.{status}" in _ENDS else "response.completed"
        return self.number({"type": kind, "response": answer})


def _item_events(place: int, item: Body) -> Iterator[Body]:
    """What is sent of an item."""
    kind, ident = item.get("type"), item.get("id")
    where = {"output_index": place, **({"item_id": ident} if ident else {})}
    yield {"type": "response.output_item.added", "output_index": place, "item": _begun(item)}
    for field, index, added in (
        ("summary", "summary_index", "reasoning_summary_part"),
        ("content", "content_index", "content_part"),
    ):
        parts = item.get(field)
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            at = {**where, index: number}
            yield {"type": f"response.{added}.added", **at, "part": _begun(part)}
            yield from _growth(_PARTS.get(part.get("type", "")), part, at)
            yield {"type": f"response.{added}.done", **at, "part": part}
    if kind in _ARGUMENTS:
        yield from _growth(_ARGUMENTS[kind], item, where)
    yield {"type": "response.output_item.done", "output_index": place, "item": item}


def _growth(known: tuple[str, str] | None, thing: Body, at: Body) -> Iterator[Body]:
    """The pieces of a text, and the whole."""
    if known is None:
        return
    name, event = known
    text = thing.get(name) or ""
    more: Body = {"logprobs": []} if event == "response.output_text" else {}
    for piece in cut(text):
        yield {"type": f"{event}.delta", **at, "delta": piece, **more}
    whole = {"name": thing.get("name", "")} if event == "response.function_call_arguments" else {}
    yield {"type": f"{event}.done", **at, **whole, name: text, **more}


def _begun(thing: Body) -> Body:
    """An item or a part as it is when it begins."""
    fresh: Body = {}
    for name, value in thing.items():
        if name == "status":
            value = "in_progress"
        elif name in ("content", "summary", "annotations") and isinstance(value, list):
            value = []
        elif name in ("arguments", "text", "refusal", "input", "code") and isinstance(value, str):
            value = ""
        elif name in ("result", "output", "encrypted_content", "outputs", "logprobs"):
            continue
        fresh[name] = value
    if thing.get("type") == "output_text":
        fresh = {"annotations": [], "logprobs": [], **fresh}
    return fresh


class _Listener:
    """Follows a stream: the texts of the item that grows are given on, all else when the item is whole."""

    def __init__(self, *, quiet: bool) -> None:
        self.over = False
        self._quiet = quiet
        self._frames = _Frames()
        self._answer: Body = {}
        self._next = 0  # the item that is given on
        self._sent = 0  # events of it that were
        self._begun: Body | None = None
        self._part: tuple[str, int] | None = None  # the part of it that grows
        self._pieces = Pieces()
        self._done: dict[int, Body] = {}

    def take(self, data: bytes) -> tuple[list[bytes], str]:
        """See `Listener.take`."""
        if data == b"[DONE]":
            return [], ""
        event = object_of(data)
        kind = event.get("type", "")
        if kind == "error" or (not kind and event.get("error")):
            raise StreamError(data)
        if kind in _ENDS:
            self._answer, self.over = event["response"], True
            return [], ""
        text = event["delta"] if kind == "response.output_text.delta" else ""
        return [] if self._quiet else self._given_on(kind, event), text

    def _given_on(self, kind: str, event: Body) -> list[bytes]:
        """The frames that an event completes."""
        grows = event.get("output_index") == self._next
        match kind:
            case "response.created":
                return self._frames.begin(event["response"])
            case "response.output_item.done":
                self._done[event["output_index"]] = event["item"]
                return self._finish()
            case "response.output_item.added" if grows:
                return self._begin(event["item"])
            case _ if grows and kind.endswith(".delta") and isinstance(event.get("delta"), str):
                return self._grow(kind, event)
        return []

    def _begin(self, item: Body) -> list[bytes]:
        self._begun = item
        return self._number(
            {"type": "response.output_item.added", "output_index": self._next, "item": _begun(item)}
        )

    def _grow(self, kind: str, event: Body) -> list[bytes]:
        """Pieces of a text, of parts in their order; what comes in no order waits for its item's end."""
        index = next((name for name in ("content_index", "summary_index") if name in event), "")
        part = index, event.get(index, 0)
        out: list[bytes] = []
        known = next((type for type, (_, name) in _PARTS.items() if kind == f"{name}.delta"), "")
        if part != self._part:
            first = self._part is None and part[1] == 0
            if not first or self._begun is None or (index and not known):
                self._begun = None
                return []
            self._part = part
            if index:
                added = "content_part" if index == "content_index" else "reasoning_summary_part"
                at = {"output_index": self._next, "item_id": event.get("item_id"), index: part[1]}
                fresh = _begun({"type": known, _PARTS[known][0]: ""})
                out += self._number({"type": f"response.{added}.added", **at, "part": fresh})
        if self._begun is None:
            return out
        for piece in self._pieces.add(event["delta"]):
            more: Body = {"logprobs": []} if known == "output_text" else {}
            at = {name: event[name] for name in ("output_index", "item_id", index) if name in event}
            out += self._number({"type": kind, **at, "delta": piece, **more})
        return out

    def _finish(self) -> list[bytes]:
        """Give on what is left of items that are whole, in their order."""
        out: list[bytes] = []
        while self._next in self._done:
            events = list(_item_events(self._next, self._done[self._next]))
            out += [self._frames.number(event) for event in events[self._sent :]]
            self._next, self._sent, self._begun, self._part = self._next + 1, 0, None, None
            self._pieces = Pieces()
        return out

    def _number(self, event: Body) -> list[bytes]:
        self._sent += 1
        return [self._frames.number(event)]

    def answer(self) -> bytes:
        """See `Listener.answer`."""
        return msgspec.json.encode(self._answer)

    def rest(self) -> list[bytes]:
        """See `Listener.rest`."""
        self._done |= dict(enumerate(self._answer["output"]))
        out = self._finish()
        return [*out, self._frames.end(self._answer)]
