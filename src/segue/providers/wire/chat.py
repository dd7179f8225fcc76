"""Chat Completions on the wire: requests of SDKs, whole answers and streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...model.chat import Tokens
from .dialect import Body, Listener, StreamError, counted, object_of, text_of
from .pieces import Pieces, cut, frame

#: Texts that grow in a stream, in the order in which models say them.
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")
_WHOLE = ("stop", "tool_calls", "function_call")
_TRAVEL = ("stream", "stream_options")
DONE = b"data: [DONE]\n\n"


class Chat:
    """`/chat/completions`."""

    provider = "openai"
    to = "/v1/chat/completions"
    streams = True

    def plain(self, body: Body) -> Body:
        """See `Dialect.plain`."""
        return {name: value for name, value in body.items() if name not in _TRAVEL}

    def sent(self, tail: str, body: Body, *, stream: bool) -> tuple[str, Body]:
        """See `Dialect.sent`. A stream is asked to end with the usage."""
        if stream:
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        return tail, body

    def line(self, body: Body, model: str) -> Body:
        """See `Dialect.line`."""
        return body

    def is_answer(self, answer: Body) -> bool:
        """See `Dialect.is_answer`."""
        return bool(answer.get("choices"))

    def is_whole(self, answer: Body) -> bool:
        """See `Dialect.is_whole`."""
        choices = answer.get("choices") or ()
        refused = any((choice.get("message") or {}).get("refusal") for choice in choices)
        return not refused and all(choice.get("finish_reason") in _WHOLE for choice in choices)

    def tokens(self, answer: Body) -> Tokens:
        """See `Dialect.tokens`."""
        return counted(answer, "prompt_tokens", "completion_tokens")

    def text(self, answer: Body) -> str:
        """See `Dialect.text`."""
        return text_of(answer["choices"][0].get("message", {}).get("content"))

    def failure(self, status: int, message: str, code: str) -> Body:
        """See `Dialect.failure`."""
        kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}

    def turns(self, asked: Body) -> dict[str, str]:
        """See `Dialect.turns`."""
        names: dict[str, str] = {}
        fresh: list[str] = []
        for message in asked.get("messages") or ():
            if message.get("role") == "assistant":
                fresh = []
                calls = message.get("tool_calls") or ()
                names |= {call["id"]: call["function"]["name"] for call in calls if call.get("function")}
            elif message.get("role") == "tool":
                fresh.append(message.get("tool_call_id", ""))
        return {call: names[call] for call in fresh if call in names}

    def frames(self, answer: Body, asked: Body) -> Iterator[bytes]:
        """See `Dialect.frames`."""
        maker = _Frames(answer, asked)
        for choice in answer["choices"]:
            yield from maker.choice(choice)
        yield from maker.end(answer)

    def listen(self, asked: Body | None) -> Listener:
        """See `Dialect.listen`."""
        return _Listener(asked)


class _Frames:
    """The chunks of an answer."""

    def __init__(self, head: Body, asked: Body) -> None:
        self._usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        told = {name: head[name] for name in _HEAD if head.get(name) not in (None, "")}
        self._head = {"id": "", **told, "object": "chat.completion.chunk"}

    def delta(self, index: int, delta: Body, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
        return self._frame({"choices": [choice], **({"usage": None} if self._usage else {})})

    def first(self, index: int, field: str) -> bytes:
        """The chunk with which a choice begins; `field` is what it goes on with."""
        return self.delta(index, {"role": "assistant", "content": "" if field in ("content", "") else None})

    def call(self, index: int, number: int, call: Body) -> bytes:
        """The chunk with which a tool call begins."""
        kind = call.get("type") or "function"
        inner = call.get(kind) or {}
        grows = "input" if kind == "custom" else "arguments"
        begun = {**call, "index": number, "type": kind, kind: {**inner, grows: ""}}
        return self.delta(index, {"tool_calls": [begun]})

    def argument(self, index: int, number: int, piece: str, kind: str) -> bytes:
        grows = "input" if kind == "custom" else "arguments"
        return self.delta(index, {"tool_calls": [{"index": number, kind: {grows: piece}}]})

    def choice(self, choice: Body) -> Iterator[bytes]:
        """All chunks of a whole choice."""
        index, message = choice.get("index") or 0, choice.get("message") or {}
        texts = {name: text for name in _TEXTS if (text := text_of(message.get(name)))}
        calls = message.get("tool_calls") or []
        yield self.first(index, next(iter(texts), "tool_calls" if calls else ""))
        for name, text in texts.items():
            for piece in cut(text):
                yield self.delta(index, {name: piece})
        for number, call in enumerate(calls):
            yield self.call(index, number, call)
            kind = call.get("type") or "function"
            for piece in cut(_growing(call)):
                yield self.argument(index, number, piece, kind)
        yield from self.closing(choice)

    def closing(self, choice: Body) -> Iterator[bytes]:
        """The chunks with which a choice ends."""
        index, message = choice.get("index") or 0, choice.get("message") or {}
        known = {"role", "tool_calls", *_TEXTS}
        others = {name: value for name, value in message.items() if name not in known and value is not None}
        if others:
            yield self.delta(index, others)
        more = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        yield self.delta(index, {}, choice.get("finish_reason"), **more)

    def end(self, answer: Body) -> Iterator[bytes]:
        """The chunks with which the stream ends."""
        if self._usage:
            yield self._frame({"choices": [], "usage": answer.get("usage")})
        yield DONE

    def _frame(self, rest: Body) -> bytes:
        return frame({**self._head, **rest})


def _growing(call: Body) -> str:
    kind = call.get("type") or "function"
    text = (call.get(kind) or {}).get("input" if kind == "custom" else "arguments")
    return text if isinstance(text, str) else "" if text is None else msgspec.json.encode(text).decode()


class _Listener:
    """Puts chunks together, and gives those of the first choice on."""

    def __init__(self, asked: Body | None) -> None:
        self.over = False
        self._quiet = asked is None
        self._asked = asked = asked or {}
        self._answer: Body = {}
        self._choices: dict[int, _Choice] = {}
        self._frames: _Frames | None = None
        self._wanted: int = asked.get("n") or 1
        self._alone = self._wanted == 1

    def take(self, data: bytes) -> tuple[list[bytes], str]:
        """See `Listener.take`."""
        if data == b"[DONE]":
            return [], ""
        chunk = object_of(data)
        if chunk.get("error"):
            raise StreamError(data)
        if self._frames is None:
            if not chunk.get("choices"):  # some servers begin with a chunk of their own
                return [], ""
            told = {name: chunk[name] for name in _HEAD if chunk.get(name) not in (None, "")}
            self._answer = {"id": "", "object": "chat.completion", **told}
            self._frames = _Frames(self._answer, self._asked)
        if chunk.get("usage"):
            self._answer["usage"] = chunk["usage"]
        frames: list[bytes] = []
        text = ""
        for delta in chunk.get("choices") or ():
            index = delta.get("index") or 0
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice(index, self._frames, self._quiet)
            made = choice.add(delta)
            if index == 0:
                text += choice.said(delta)
                frames += made if self._alone else []
        ended = [choice.finish is not None for choice in self._choices.values()]
        self.over = len(ended) >= self._wanted and all(ended)
        return frames, text

    def answer(self) -> bytes:
        """See `Listener.answer`."""
        usage = {"usage": self._answer["usage"]} if "usage" in self._answer else {}
        choices = [self._choices[index].whole() for index in sorted(self._choices)]
        return msgspec.json.encode({**self._answer, "choices": choices, **usage})

    def rest(self) -> list[bytes]:
        """See `Listener.rest`."""
        answer = object_of(self.answer())
        assert self._frames is not None  # there was a chunk
        out: list[bytes] = []
        for choice in answer["choices"]:
            if self._alone:
                out += self._choices[choice["index"]].last()
                out += self._frames.closing(choice)
            else:
                out += self._frames.choice(choice)
        return [*out, *self._frames.end(answer)]


class _Choice:
    """One choice of a stream, so far."""

    def __init__(self, index: int, frames: _Frames, quiet: bool) -> None:
        self.finish: str | None = None
        self._index, self._frames, self._quiet = index, frames, quiet
        self._texts: dict[str, list[str]] = {}
        self._calls: list[Body] = []
        self._logprobs: dict[str, list[Any]] = {}
        self._others: Body = {}
        self._pieces = Pieces()
        self._at: tuple[str, int] | None = None  # what grows now

    def add(self, delta: Body) -> list[bytes]:
        """Take a delta; the chunks that it completes."""
        self.finish = delta.get("finish_reason") or self.finish
        for name, values in (delta.get("logprobs") or {}).items():
            self._logprobs.setdefault(name, []).extend(values or ())
        message: Body = delta.get("delta") or {}
        out: list[bytes] = []
        for name in _TEXTS:
            if piece := text_of(message.get(name)):
                self._texts.setdefault(name, []).append(piece)
                out += self._grow((name, 0), piece)
        for part in message.get("tool_calls") or ():
            out += self._call(part)
        for name, value in message.items():
            if name not in {"role", "tool_calls", *_TEXTS} and value is not None:
                self._others[name] = _merged(self._others.get(name), value)
        return out

    def said(self, delta: Body) -> str:
        """The text that a delta adds."""
        return text_of((delta.get("delta") or {}).get("content"))

    def _call(self, part: Body) -> list[bytes]:
        """Fragments of a call share an index; some servers leave it out, or give every call the same."""
        number = part.get("index")
        kind = part.get("type") or ("custom" if "custom" in part else "function")
        inner = part.get(kind) or {}
        known = None
        for place, call in enumerate(self._calls):
            if call["#"] == number if number is not None else place == len(self._calls) - 1:
                known = place
        fresh = part.get("id") and inner.get("name")
        if known is None or (fresh and self._calls[known].get("id") not in (None, "", part["id"])):
            known = len(self._calls)
            begun = {"id": part.get("id") or f"call_{known}", "type": kind, kind: {"name": ""}, "#": number}
            self._calls.append(begun)
        call = self._calls[known]
        text = _growing({"type": kind, kind: inner})
        call[kind]["name"] = call[kind]["name"] or inner.get("name") or ""
        call.setdefault("text", []).append(text)
        return self._grow(("tool_calls", known), text)

    def _grow(self, at: tuple[str, int], text: str) -> list[bytes]:
        """Cut what is added into pieces; what grew before is whole."""
        if self._quiet:
            return []
        out: list[bytes] = []
        if at != self._at:
            if self._at is None:
                out.append(self._frames.first(self._index, at[0]))
            out += self.last(begin=False)
            self._at = at
            if at[0] == "tool_calls":
                out.append(self._frames.call(self._index, at[1], self._whole_call(at[1])))
        return out + [self._piece(piece) for piece in self._pieces.add(text)]

    def last(self, *, begin: bool = True) -> list[bytes]:
        """The chunk that is left of what grew last."""
        if self._at is None:
            return [self._frames.first(self._index, "")] if begin else []
        return [self._piece(piece) for piece in self._pieces.end()]

    def _piece(self, piece: str) -> bytes:
        assert self._at is not None  # it grows
        name, number = self._at
        if name == "tool_calls":
            return self._frames.argument(self._index, number, piece, self._calls[number]["type"])
        return self._frames.delta(self._index, {name: piece})

    def _whole_call(self, number: int) -> Body:
        call = self._calls[number]
        kind = call["type"]
        grows = "input" if kind == "custom" else "arguments"
        return {"id": call["id"], "type": kind, kind: {**call[kind], grows: "".join(call.get("text", ()))}}

    def whole(self) -> Body:
        """The choice as it is in a whole answer."""
        texts = {name: "".join(self._texts[name]) for name in _TEXTS if name in self._texts}
        content = texts.pop("content", None if self._calls or "refusal" in texts else "")
        message: Body = {"role": "assistant", "content": content, **texts, **self._others}
        if self._calls:
            message["tool_calls"] = [self._whole_call(number) for number in range(len(self._calls))]
        choice: Body = {"index": self._index, "message": message}
        if self._logprobs:
            choice["logprobs"] = {name: values or None for name, values in self._logprobs.items()}
        return {**choice, "finish_reason": self.finish}


def _merged(old: Any, new: Any) -> Any:
    """What a field is after another delta of it."""
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    if isinstance(old, str) and isinstance(new, str) and old != new:
        return old + new
    return new
