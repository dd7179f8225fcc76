"""Translation without any I/O: requests, replies, streams."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from segue.model.chat import Answer, ChatReply, ChatRequest, File, Message, Tokens, ToolCall, ToolSpec
from segue.model.errors import InvalidValue
from segue.providers.completions import (
    chat_body,
    chat_reply,
    embed_body,
    embed_reply,
    is_reply,
)
from segue.providers.wire.chat import Chat
from segue.providers.wire.dialect import StreamError
from segue.providers.wire.events import Events


def body_of(*messages: Message, **more: Any) -> dict[str, Any]:
    return chat_body(ChatRequest(list(messages), **more), "m", limit="max_tokens")


def message_of(message: Message) -> dict[str, Any]:
    return body_of(message)["messages"][0]


# ---------------------------------------------------------------- requests
def test_a_whole_request():
    tool = ToolSpec("look", "Looks.", {"type": "object", "properties": {}})
    body = body_of(
        Message("system", "Be brief."),
        Message("user", "hi"),
        tools=[tool],
        answer=Answer("a name[int]", {"type": "object"}),
        temperature=0.0,
        max_tokens=5,
        reasoning="low",
        extra={"top_p": 0.5, "seed": 1, "temperature": 1.0},
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "Looks.", "parameters": tool.parameters},
            }
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a_name_int_", "schema": {"type": "object"}, "strict": True},
        },
        "temperature": 1.0,
        "max_tokens": 5,
        "reasoning_effort": "low",
        "seed": 1,
        "top_p": 0.5,
    }
    assert list(body)[-3:] == ["reasoning_effort", "seed", "top_p"]


def test_the_order_of_keys_doesnt_depend_on_the_authors():
    one = body_of(Message("user", "a"), extra={"b": 1, "a": 2})
    other = body_of(Message("user", "a"), extra={"a": 2, "b": 1})
    assert msgspec.json.encode(one) == msgspec.json.encode(other)


def test_what_isnt_asked_for_isnt_sent():
    assert set(body_of(Message("user", "a"))) == {"model", "messages"}


def test_streaming_is_not_the_authors_to_choose():
    body = body_of(Message("user", "a"), extra={"stream": True, "stream_options": {}, "n": 1})
    assert set(body) == {"model", "messages", "n"}


def test_a_conversation_with_tools():
    call = ToolCall("c1", "look", '{"at": 1}')
    assert message_of(Message("assistant", "", [call])) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
        ],
    }
    assert message_of(Message("assistant", "I look.", [call]))["content"] == "I look."
    assert message_of(Message("tool", "nothing", call="c1")) == {
        "role": "tool",
        "content": "nothing",
        "tool_call_id": "c1",
    }


def test_parts():
    parts = message_of(
        Message(
            "user",
            [
                "see",
                File(b"ABC", media="image/png"),
                File("https://x/y.png"),
                File(b"ABC", media="audio/mpeg"),
                File(b"ABC", media="audio/x-wav"),
                File(b"ABC", media="application/pdf", name="a.pdf"),
            ],
        )
    )["content"]
    assert parts == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
    ]
    assert message_of(Message("user", ["alone"]))["content"] == "alone"


def test_a_document_by_url_is_refused():
    with pytest.raises(InvalidValue, match=r"only pictures.*File\(data"):
        message_of(Message("user", [File("https://x/y.pdf")]))


def test_embeddings():
    assert embed_body(["a", "b"], "m") == {"model": "m", "input": ["a", "b"], "encoding_format": "float"}


# ---------------------------------------------------------------- replies
def reply_of(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> ChatReply:
    body = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}
    return chat_reply(json.dumps(body).encode())


def test_a_whole_reply():
    reply = reply_of(
        {"role": "assistant", "content": "hi", "refusal": None, "tool_calls": None, "annotations": []},
        model="m-1",
        usage={
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
        },
    )
    assert reply == ChatReply("hi", tokens=Tokens(10, 2, 8), model="m-1")


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", "end"),
        (None, "end"),
        ("length", "length"),
        ("tool_calls", "tool"),
        ("function_call", "tool"),
        ("content_filter", "filter"),
        ("something new", "end"),
    ],
)
def test_stops(finish: str | None, stop: str):
    assert reply_of({"content": "a"}, finish).stop == stop


def test_a_refusal():
    reply = reply_of({"content": None, "refusal": "I won't."})
    assert (reply.stop, reply.text) == ("refusal", "I won't.")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": None, "prompt_tokens_details": None},
        {"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": None}},
    ],
)
def test_usage_with_nothing_in_it(usage: Any):
    assert reply_of({"content": "a"}, usage=usage).tokens == Tokens()


def test_calls_as_servers_variously_write_them():
    reply = reply_of(
        {
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "", "function": {"name": "g", "arguments": {"a": 1}}},
                {"id": None, "index": 2, "function": {"name": "h", "arguments": None}},
            ],
        }
    )
    assert reply.tool_calls == [
        ToolCall("c", "f", "{}"),
        ToolCall("call_1", "g", '{"a":1}'),
        ToolCall("call_2", "h", ""),
    ]
    assert reply.stop == "tool"  # though it says "stop"


def test_content_in_parts_and_reasoning():
    reply = reply_of(
        {"content": [{"type": "text", "text": "a"}, {"type": "thinking"}, "b"], "reasoning": "hm"}
    )
    assert (reply.text, reply.reasoning) == ("ab", "hm")
    assert reply_of({"content": "", "reasoning_content": "hm"}).reasoning == "hm"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"id": "a"}]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"id": "a", "function": {"arguments": ""}}]}}]}',
        b'{"choices": [{"message": {"content": "a"}, "finish_reason": "abort"}]}',
        b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "many"}}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"choices": [{"message": {"content": "a',
    ],
)
def test_what_isnt_a_reply(body: bytes):
    with pytest.raises(ValueError):
        chat_reply(body)


def test_vectors_come_in_the_order_of_the_texts():
    body = {
        "data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1.5]}],
        "usage": {"prompt_tokens": 3},
    }
    assert embed_reply(json.dumps(body).encode()) == ([[1.5], [2.0]], 3)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"data": []}',
        b'{"data": [{"index": 1, "embedding": [1]}]}',
        b'{"data": [{"embedding": "AAAA"}]}',
    ],
)
def test_what_isnt_a_list_of_vectors(body: bytes):
    with pytest.raises(ValueError):
        embed_reply(body)


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'"a"', b"", b"<p>", b'{"choices":null}', b'{"choices": [{]}', b"\xff"]
)
def test_no_outline_of_a_reply(body: bytes):
    assert not is_reply(body)


# ---------------------------------------------------------------- streams
def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int | None = 0, **more: Any
) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return json.dumps(
        {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}
    ).encode()


def put_together(*chunks: bytes) -> dict[str, Any]:
    listener = Chat().listen(None)
    for each in chunks:
        listener.take(each)
    assert listener.over
    body = listener.answer()
    chat_reply(body)
    return json.loads(body)


def test_a_stream_becomes_the_body_of_a_plain_answer():
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}
    assert put_together(
        chunk({"role": "assistant", "content": ""}, created=7, system_fingerprint="fp", usage=None),
        chunk({"content": "he"}),
        chunk({"content": "llo"}),
        chunk({}, "stop"),
        json.dumps({"id": "c1", "choices": [], "usage": usage}).encode(),
    ) == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
        ],
        "usage": usage,
    }


def call(
    index: int | None, id: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(
            [
                call(0, "a", "f", ""),
                call(0, arguments='{"x":'),
                call(1, "b", "g"),
                call(0, arguments="1}"),
                call(1, arguments="{}"),
            ],
            id="interleaved",
        ),
        pytest.param([call(0, "a", "f", '{"x":1}'), call(0, "b", "g", "{}")], id="one index for all"),
        pytest.param(
            [call(None, "a", "f", '{"x":'), call(None, arguments="1}"), call(None, "b", "g", "{}")],
            id="no index",
        ),
        pytest.param(
            [call(0, "a", "f", '{"x":'), call(0, "a", "f", "1}"), call(1, "b", "g", "{}")],
            id="id and name repeated",
        ),
        pytest.param([call(0, "a", "f", {"x": 1}), call(1, "b", "g", {})], id="arguments as objects"),
    ],
)
def test_tool_calls_are_merged(parts: list[dict[str, Any]]):
    body = put_together(*(chunk(part) for part in parts), chunk({}, "tool_calls"))
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert chat_reply(msgspec.json.encode(body)).tool_calls == [
        ToolCall("a", "f", '{"x":1}'),
        ToolCall("b", "g", "{}"),
    ]


def test_reasoning_and_refusals_are_kept():
    body = put_together(
        chunk({"reasoning_content": "h"}), chunk({"reasoning_content": "m"}), chunk({"content": "a"}, "stop")
    )
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    body = put_together(chunk({"refusal": "I "}), chunk({"refusal": "won't"}, "stop"))
    assert body["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": "I won't"}


def test_several_choices_and_logprobs():
    def with_logprobs(index: int, token: str, finish: str | None) -> bytes:
        choice = {"index": index, "delta": {"content": token}, "finish_reason": finish}
        choice["logprobs"] = {"content": [{"token": token}], "refusal": None}
        return json.dumps({"choices": [choice]}).encode()

    listener = Chat().listen(None)
    texts = [listener.take(each)[1] for each in (with_logprobs(0, "a", None), with_logprobs(1, "b", "stop"))]
    assert texts == ["a", ""]  # only the first is told as text
    assert not listener.over
    listener.take(with_logprobs(0, "c", "length"))
    first, second = json.loads(listener.answer())["choices"]
    assert first["logprobs"]["content"] == [{"token": "a"}, {"token": "c"}]
    assert (second["message"]["content"], second["finish_reason"]) == ("b", "stop")


def test_an_error_in_a_stream():
    with pytest.raises(StreamError):
        Chat().listen(None).take(b'{"error": {"message": "no"}}')
    Chat().listen(None).take(b'{"error": null, "choices": [], "usage": null}')


# ---------------------------------------------------------------- events
def events(text: bytes) -> list[bytes]:
    reader = Events()
    found = [reader.line(line.removesuffix(b"\r")) for line in text.split(b"\n")]
    return [each for each in (*found, reader.end()) if each is not None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b": ping\n\n: again\ndata: a\n: between\n\n", [b"a"]),
        (b"event: message\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\n\n\n", []),
        (b"data\n\n", []),
    ],
)
def test_events(text: bytes, expected: list[bytes]):
    assert events(text) == expected


@pytest.mark.parametrize("text", [b'event: error\ndata: {"message":"x"}\n\n', b'error: {"message":"x"}\n\n'])
def test_error_events(text: bytes):
    with pytest.raises(StreamError) as caught:
        events(text)
    assert caught.value.body == b'{"message":"x"}'
