"""Gemini's generateContent on the wire: requests of SDKs, whole answers and streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...model.chat import Tokens
from .dialect import Body, Listener, StreamError, object_of
from .pieces import Pieces, cut, frame

_KINDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_HEAD = ("modelVersion", "responseId")


class Gemini:
    """`/models/MODEL:generateContent` and `:streamGenerateContent`."""

    provider = "gemini"
    to = "chat"
    streams = True

    def plain(self, body: Body) -> Body:
        """See `Dialect.plain`."""
        return body

    def sent(self, tail: str, body: Body, *, stream: bool) -> tuple[str, Body]:
        """See `Dialect.sent`."""
        model = tail.rpartition(":")[0]
        return f"{model}:streamGenerateContent?alt=sse" if stream else f"{model}:generateContent", body

    def line(self, body: Body, model: str) -> Body:
        """See `Dialect.line`. The path names the model; a line does it itself."""
        return {"model": model, **body}

    def is_answer(self, answer: Body) -> bool:
        """See `Dialect.is_answer`."""
        return bool(answer.get("candidates")) or "promptFeedback" in answer

    def is_whole(self, answer: Body) -> bool:
        """See `Dialect.is_whole`."""
        candidates = answer.get("candidates") or ()
        return bool(candidates) and all(each.get("finishReason") == "STOP" for each in candidates)

    def tokens(self, answer: Body) -> Tokens:
        """See `Dialect.tokens`. Thoughts are output."""
        usage = answer.get("usageMetadata") or {}
        said = (usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0)
        asked = (usage.get("promptTokenCount") or 0) + (usage.get("toolUsePromptTokenCount") or 0)
        return Tokens(asked, said, usage.get("cachedContentTokenCount") or 0)

    def text(self, answer: Body) -> str:
        """See `Dialect.text`."""
        parts = _parts((answer.get("candidates") or [{}])[0])
        return "".join(part["text"] for part in parts if _grows(part) and not part.get("thought"))

    def failure(self, status: int, message: str, code: str) -> Body:
        """See `Dialect.failure`."""
        return {
            "error": {"code": status, "message": message, "status": code or _KINDS.get(status, "INTERNAL")}
        }

    def turns(self, asked: Body) -> dict[str, str]:
        """See `Dialect.turns`. Calls may have no ids."""
        fresh: dict[str, str] = {}
        for content in asked.get("contents") or ():
            if content.get("role") == "model":
                fresh = {}
            for number, part in enumerate(content.get("parts") or ()):
                answer = part.get("functionResponse")
                if answer:
                    fresh[answer.get("id") or f"{number}"] = answer.get("name", "")
        return fresh

    def frames(self, answer: Body, asked: Body) -> Iterator[bytes]:
        """See `Dialect.frames`."""
        maker = _Frames(answer)
        candidates = answer.get("candidates") or []
        if len(candidates) == 1:
            for part in _parts(candidates[0]):
                yield from maker.part(part)
        yield maker.end(answer)

    def listen(self, asked: Body | None) -> Listener:
        """See `Dialect.listen`."""
        return _Listener((((asked or {}).get("generationConfig") or {}).get("candidateCount") or 1) == 1)


def _parts(candidate: Body) -> list[Body]:
    parts: list[Body] = (candidate.get("content") or {}).get("parts") or []
    return parts


def _grows(part: Body) -> bool:
    """Whether a part is a text, and nothing else."""
    return isinstance(part.get("text"), str) and part.keys() <= {"text", "thought"}


class _Frames:
    """The chunks of an answer."""

    def __init__(self, head: Body) -> None:
        self._head = {name: head[name] for name in _HEAD if head.get(name)}

    def part(self, part: Body) -> Iterator[bytes]:
        """What is sent of a whole part."""
        if not _grows(part):
            yield self.piece(part)
            return
        for text in cut(part["text"]):
            yield self.piece({**part, "text": text})

    def piece(self, part: Body) -> bytes:
        content = {"role": "model", "parts": [part]}
        return frame({"candidates": [{"content": content, "index": 0}], **self._head})

    def end(self, answer: Body) -> bytes:
        """The last chunk: all that isn't content; of several candidates, all that they say."""
        candidates = answer.get("candidates") or []
        if len(candidates) == 1:
            bare: Any = {"role": "model", "parts": [{"text": ""}]}
            return frame({**answer, "candidates": [{"index": 0, **candidates[0], "content": bare}]})
        return frame(answer)


class _Listener:
    """Puts chunks together, and gives on what the only candidate says."""

    def __init__(self, alone: bool) -> None:
        self.over = False
        self._alone = alone
        self._answer: Body = {}
        self._candidates: dict[int, Body] = {}
        self._said: dict[int, list[Body]] = {}
        self._pieces = Pieces()
        self._frames: _Frames | None = None

    def take(self, data: bytes) -> tuple[list[bytes], str]:
        """See `Listener.take`."""
        chunk = object_of(data)
        if chunk.get("error"):
            raise StreamError(data)
        if self._frames is None:
            self._answer = {name: chunk[name] for name in _HEAD if name in chunk}
            self._frames = _Frames(self._answer)
        self._answer |= {name: value for name, value in chunk.items() if name not in ("candidates", *_HEAD)}
        out: list[bytes] = []
        text = ""
        for candidate in chunk.get("candidates") or ():
            index = candidate.get("index") or 0
            for part in _parts(candidate):
                made = self._add(index, part)
                if index == 0:
                    out += made if self._alone else []
                    text += part["text"] if _grows(part) and not part.get("thought") else ""
            about = {name: value for name, value in candidate.items() if name != "content"}
            self._candidates[index] = {**self._candidates.get(index, {}), **about}
        ended = all("finishReason" in candidate for candidate in self._candidates.values())
        self.over = ended if self._candidates else "promptFeedback" in self._answer
        return out, text

    def _add(self, index: int, part: Body) -> list[bytes]:
        """Join a text with the one before it; what stood before is whole."""
        assert self._frames is not None  # made with the first chunk
        said = self._said.setdefault(index, [])
        if part == {"text": ""}:
            return []
        last = said[-1] if said else None
        out: list[bytes] = []
        if last is not None and _grows(last) and _grows(part) and last.get("thought") == part.get("thought"):
            said[-1] = {**last, "text": last["text"] + part["text"]}
        else:
            if index == 0:
                out += self._flush()
            said.append(part)
        if index:
            return []
        if not _grows(part):
            return [*out, self._frames.piece(part)]
        return [
            *out,
            *(self._frames.piece({**part, "text": piece}) for piece in self._pieces.add(part["text"])),
        ]

    def _flush(self) -> list[bytes]:
        said = self._said.get(0)
        if not said or self._frames is None:
            return []
        return [self._frames.piece({**said[-1], "text": piece}) for piece in self._pieces.end()]

    def answer(self) -> bytes:
        """See `Listener.answer`."""
        candidates = [
            {"content": {"role": "model", "parts": self._said.get(index, [])}, "index": index, **about}
            for index, about in sorted(self._candidates.items())
        ]
        return msgspec.json.encode({"candidates": candidates, **self._answer})

    def rest(self) -> list[bytes]:
        """See `Listener.rest`."""
        assert self._frames is not None  # there was a chunk
        left = self._flush() if self._alone else []
        return [*left, self._frames.end(object_of(self.answer()))]
