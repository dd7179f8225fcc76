"""Responses without any I/O: requests, replies, streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import ResponseInputItem
from pydantic import TypeAdapter

from segue.model.chat import Answer, ChatRequest, File, Message, Tokens, ToolCall, ToolSpec
from segue.model.errors import InvalidValue
from segue.providers.responses import OPAQUE, Responses
from segue.providers.wire.dialect import StreamError

SPEECH = Responses()


def body_of(*messages: Message, **more: Any) -> dict[str, Any]:
    return SPEECH.body(ChatRequest(list(messages), **more), "m")


def test_a_whole_request():
    tool = ToolSpec("look", "Looks.", {"type": "object", "properties": {}})
    body = body_of(
        Message("system", "Be brief."),
        Message("user", "hi"),
        tools=[tool],
        answer=Answer("a name[int]", {"type": "object"}),
        temperature=0.5,
        max_tokens=9,
        reasoning="low",
        extra={"top_p": 0.1, "stream": True, "background": True},
    )
    assert body == {
        "model": "m",
        "input": [
            {"type": "message", "role": "system", "content": "Be brief."},
            {"type": "message", "role": "user", "content": "hi"},
        ],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "tools": [
            {
                "type": "function",
                "name": "look",
                "description": "Looks.",
                "parameters": tool.parameters,
                "strict": False,
            }
        ],
        "text": {
            "format": {
                "type": "json_schema",
                "name": "a_name_int_",
                "schema": {"type": "object"},
                "strict": True,
            }
        },
        "temperature": 0.5,
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "top_p": 0.1,
    }


@pytest.mark.parametrize(
    ("part", "made"),
    [
        (
            File(b"x", media="image/png"),
            {"type": "input_image", "image_url": "data:image/png;base64,eA==", "detail": "auto"},
        ),
        (
            File("https://a.b/c.png"),
            {"type": "input_image", "image_url": "https://a.b/c.png", "detail": "auto"},
        ),
        (
            File(b"x", media="application/pdf", name="a.pdf"),
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,eA=="},
        ),
        (File("https://a.b/c.pdf"), {"type": "input_file", "file_url": "https://a.b/c.pdf"}),
    ],
)
def test_files(part: File, made: dict[str, Any]):
    (item,) = body_of(Message("user", ["look", part]))["input"]
    assert item == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "look"}, made],
    }


def test_sound_is_refused():
    with pytest.raises(InvalidValue, match="no sound"):
        body_of(Message("user", [File(b"x", media="audio/mpeg")]))


def test_a_conversation_with_tools():
    items = body_of(
        Message("user", "hi"),
        Message("assistant", "Let me see.", [ToolCall("c1", "look", "{}"), ToolCall("c2", "look", "{}")]),
        Message("tool", "calm", call="c1"),
        Message("tool", ["two ", "parts"], call="c2"),
        Message("assistant", ["It is ", "calm."]),
    )["input"]
    assert items[1:] == [
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "calm"},
        {"type": "function_call_output", "call_id": "c2", "output": "two parts"},
        {"type": "message", "role": "assistant", "content": "It is calm."},
    ]
    for item in items:
        TypeAdapter(ResponseInputItem).validate_python(item)


def message(text: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": list(annotations)}
    return {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}


def response(*output: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(
        {"id": "r", "status": "completed", "model": "m-1", "output": list(output), **more}
    ).encode()


def test_a_reply():
    thought = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm."}]}
    cited = {"type": "url_citation", "url": "https://a.b", "title": "A", "start_index": 0, "end_index": 3}
    filed = {"type": "file_citation", "file_id": "file-1", "filename": "a.pdf", "index": 2}
    usage = {
        "input_tokens": 9,
        "output_tokens": 4,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
    }
    reply = SPEECH.reply(response(thought, message("One. "), message("Two.", cited, filed), usage=usage))
    assert (reply.text, reply.stop, reply.model, reply.reasoning) == ("One. Two.", "end", "m-1", "Hm.")
    assert reply.tokens == Tokens(9, 4, 5, 2)
    web, file = reply.citations
    assert (web.url, web.title, reply.text[web.start : web.end]) == ("https://a.b", "A", "Two")
    assert file.file == "a.pdf"
    again = body_of(Message("assistant", reply.text, opaque=reply.opaque))["input"]
    assert [item["type"] for item in again] == ["reasoning", "message", "message"]
    assert set(reply.opaque) == {OPAQUE}
    assert SPEECH.reply(response(message("plain"))).opaque == {}  # nothing that one would want back


@pytest.mark.parametrize(
    ("more", "stop"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "filter"),
        ({"status": "incomplete"}, "length"),
    ],
)
def test_an_answer_that_was_stopped(more: dict[str, Any], stop: str):
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"a'}
    assert SPEECH.reply(response(message("so far"), call, **more)).stop == stop


def test_a_refusal():
    item = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I won't."}]}
    reply = SPEECH.reply(response(item))
    assert (reply.text, reply.stop) == ("I won't.", "refusal")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"output": null}',
        response(status="failed", error={"code": "server_error", "message": "It broke."}),
        response(status="in_progress"),
        response({"type": "function_call", "arguments": "{}"}),
        response({"type": "message", "content": 7}),
    ],
)
def test_what_is_no_reply(body: bytes):
    with pytest.raises(ValueError):
        SPEECH.reply(body)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"output":[],"status":"failed"}', b'{"choices":[{}]}']
)
def test_what_hasnt_even_the_outline(body: bytes):
    assert not SPEECH.is_reply(body)


def test_a_stream():
    listener = SPEECH.listen()
    whole = response(message("Grüße"))
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "Grü"},
        {"type": "response.something_new", "delta": {"any": "thing"}},
        {"type": "response.output_text.delta", "delta": "ße"},
    ]
    heard = [listener.take(json.dumps(event).encode()) for event in events]
    assert (heard, listener.over) == ([([], ""), ([], "Grü"), ([], ""), ([], "ße")], False)
    listener.take(b'{"type":"response.completed","response":%s}' % whole)
    assert listener.over
    assert SPEECH.reply(listener.answer()).text == "Grüße"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "It broke."},
        {"error": {"message": "It broke.", "code": "server_error"}},
    ],
)
def test_an_error_in_a_stream(event: dict[str, Any]):
    with pytest.raises(StreamError) as caught:
        SPEECH.listen().take(json.dumps(event).encode())
    assert b"It broke." in caught.value.body
