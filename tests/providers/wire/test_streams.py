"""A stream passed through, one made of the whole answer, and one in other pieces: the same frames, the same answer."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from segue.providers.wire import chat, gemini, messages, pieces, recognise, responses
from segue.providers.wire.dialect import Dialect

TEXT = "Once upon a  time\nthere were 日本語の長い文で空白がないものがありました and " + "x" * 70 + " end. "
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 2},
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"where": "here and there"}'},
}
CUSTOM = {"id": "call_2", "type": "custom", "custom": {"name": "run", "input": "print( 1 )"}}


def completion(*said: dict[str, Any], **more: Any) -> dict[str, Any]:
    choices = [
        {"index": n, "message": {"role": "assistant", **each}, "finish_reason": "stop"}
        for n, each in enumerate(said)
    ]
    head = {"id": "c1", "object": "chat.completion", "created": 7, "model": "m", "system_fingerprint": "fp"}
    return {**head, "choices": choices, "usage": USAGE, **more}


def response(*output: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    head = {"id": "r1", "object": "response", "created_at": 1, "model": "m", "status": status, "error": None}
    return {**head, "output": list(output), "usage": {"input_tokens": 3, "output_tokens": 2}, "tools": []}


def said(*texts: str) -> dict[str, Any]:
    parts = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text} for text in texts]
    return {"id": "m1", "type": "message", "status": "completed", "role": "assistant", "content": parts}


REASONED = {
    "id": "rs",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": TEXT}],
    "status": "completed",
}
FUNCTION = {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": '{"a": 1}'}
SEARCH = {
    "type": "web_search_call",
    "id": "w",
    "status": "completed",
    "action": {"type": "search", "query": "q"},
}


def message(*content: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    head = {"id": "msg", "type": "message", "role": "assistant", "model": "m"}
    usage = {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 8}
    return {**head, "stop_reason": stop, "stop_sequence": None, "usage": usage, "content": list(content)}


def generated(*parts: dict[str, Any]) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, "finishReason": "STOP"}
    usage = {"promptTokenCount": 4, "candidatesTokenCount": 3, "thoughtsTokenCount": 1}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}


ANSWERS: list[tuple[str, Dialect, dict[str, Any], dict[str, Any]]] = [
    ("text", chat.Chat(), completion({"content": TEXT}), {"stream_options": {"include_usage": True}}),
    ("no usage", chat.Chat(), completion({"content": TEXT}), {}),
    ("empty", chat.Chat(), completion({"content": ""}), {}),
    ("refusal", chat.Chat(), completion({"content": None, "refusal": "I won't."}), {}),
    ("thought", chat.Chat(), completion({"reasoning_content": TEXT, "content": "So."}), {}),
    ("tools", chat.Chat(), completion({"content": None, "tool_calls": [CALL, CUSTOM]}), {}),
    ("text and tool", chat.Chat(), completion({"content": "Wait.", "tool_calls": [CALL]}), {}),
    ("other fields", chat.Chat(), completion({"content": "Hm.", "annotations": [{"type": "url"}]}), {}),
    ("choices", chat.Chat(), completion({"content": TEXT}, {"content": "b c"}), {"n": 2}),
    ("text", responses.Responses(), response(said(TEXT)), {}),
    ("parts", responses.Responses(), response(said("a b", "c d")), {}),
    ("many", responses.Responses(), response(REASONED, SEARCH, said(TEXT), FUNCTION), {}),
    ("cut off", responses.Responses(), response(said("a"), status="incomplete"), {}),
    ("text", messages.Messages(), message({"type": "text", "text": TEXT}), {}),
    (
        "thought and tool",
        messages.Messages(),
        message(
            {"type": "thinking", "thinking": TEXT, "signature": "sig=="},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "t", "name": "look", "input": {"where": ["here", 1]}},
            stop="tool_use",
        ),
        {},
    ),
    ("text", gemini.Gemini(), generated({"text": TEXT}), {}),
    (
        "thought and tool",
        gemini.Gemini(),
        generated(
            {"text": "Hm. ", "thought": True},
            {"text": TEXT},
            {"functionCall": {"name": "look", "args": {"a": 1}}, "thoughtSignature": "s"},
        ),
        {},
    ),
]


def data_of(frames: list[bytes]) -> list[bytes]:
    return [
        line.removeprefix(b"data: ")
        for each in frames
        for line in each.splitlines()
        if line.startswith(b"data")
    ]


def told_by(frames: list[bytes]) -> list[Any]:
    return [data if data == b"[DONE]" else msgspec.json.decode(data) for data in data_of(frames)]


def without_usage(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "usage"}


@pytest.mark.parametrize(
    ("dialect", "answer", "asked"),
    [each[1:] for each in ANSWERS],
    ids=[f"{each[1].__class__.__name__}-{each[0]}" for each in ANSWERS],
)
def test_a_stream_is_the_same_however_it_came(
    dialect: Dialect, answer: dict[str, Any], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    canonical = list(dialect.frames(answer, asked))
    chance = random.Random(5)

    def ragged(text: str) -> list[str]:
        out = []
        while text:
            size = chance.randint(1, 24)
            out.append(text[:size])
            text = text[size:]
        return out

    for _ in range(20):
        with monkeypatch.context() as patch:
            for module in (chat, responses, messages, gemini):
                patch.setattr(module, "cut", ragged)
            raw = list(dialect.frames(answer, asked))
        listener, quiet = dialect.listen(asked), dialect.listen(None)
        frames: list[bytes] = []
        text = ""
        for data in data_of(raw):
            assert not listener.over or data == b"[DONE]" or b'"usage"' in data
            made, told = listener.take(data)
            assert quiet.take(data)[1] == told
            frames += made
            text += told
        assert listener.over
        assert quiet.over
        assert quiet.answer() == listener.answer()
        whole = msgspec.json.decode(listener.answer())
        if isinstance(dialect, chat.Chat) and not asked.get("stream_options"):
            assert whole == without_usage(answer)
        else:
            assert whole == answer
        assert told_by(frames + listener.rest()) == told_by(canonical)
        assert text == dialect.text(answer)


def test_content_in_parts_is_streamed_as_text():
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "one "}, "two"]
    dialect, answer = chat.Chat(), completion({"content": parts})
    assert dialect.text(answer) == "one two"
    same = completion({"content": "one two"})
    assert told_by(list(dialect.frames(answer, {}))) == told_by(list(dialect.frames(same, {})))
    listener = dialect.listen({})
    choice = {"index": 0, "delta": {"role": "assistant", "content": parts}, "finish_reason": "stop"}
    _, text = listener.take(msgspec.json.encode({**completion(), "choices": [choice]}))
    whole = msgspec.json.decode(listener.answer())
    assert text == dialect.text(whole) == "one two"


def test_pieces_are_those_of_the_whole_text():
    chance = random.Random(1)
    for _ in range(2000):
        parts = ["a", "bc", " ", "\n", "x" * 40, " " * 35, "日本"]
        text = "".join(chance.choice(parts) for _ in range(chance.randint(0, 14)))
        growing, out, at = pieces.Pieces(), [], 0
        while at < len(text):
            size = chance.randint(1, 9)
            out += growing.add(text[at : at + size])
            at += size
        out += growing.end()
        assert out == pieces.cut(text)
        assert "".join(out) == text


@pytest.mark.parametrize(
    ("url", "to", "root", "tail", "model"),
    [
        (
            "https://api.openai.com/v1/chat/completions",
            "/v1/chat/completions",
            "https://api.openai.com/v1",
            "/chat/completions",
            "m",
        ),
        ("https://u:p@h/v1/responses?k=secret", "/v1/responses", "https://h/v1", "/responses", "m"),
        (
            "https://api.anthropic.com/v1/messages?beta=true",
            "chat",
            "https://api.anthropic.com",
            "/v1/messages",
            "m",
        ),
        (
            "https://g/v1beta/models/g-2:streamGenerateContent?alt=sse&key=secret",
            "chat",
            "https://g/v1beta",
            "/models/g-2:generateContent",
            "g-2",
        ),
    ],
)
def test_model_calls_are_known_by_their_path(url: str, to: str, root: str, tail: str, model: str):
    request = recognise("POST", url, b'{"model":"m","stream":true}')
    assert request is not None
    assert (request.dialect.to, request.root, request.tail, request.model) == (to, root, tail, model)
    assert request.streams
    assert "stream" not in request.body or "gemini" in type(request.dialect).__module__
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    "url", ["https://h/v1/models", "https://h/v1/files", "https://h/v1/messages/batches"]
)
def test_other_requests_are_no_model_calls(url: str):
    assert recognise("POST", url, b"{}") is None
    assert recognise("GET", "https://h/v1/responses/r1", b"") is None
