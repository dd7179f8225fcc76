"""Live calls over a real connection, and every way in which they fail."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from segue.model.chat import ChatRequest, as_messages
from segue.model.errors import InvalidValue, ProviderFault
from segue.ports.provider import CallFault, Provider
from segue.providers.openai import OpenAI
from segue.providers.responses import Responses
from tests.providers.conftest import KEY
from tests.transports.serving import Server

ASKED = b'{"model":"m","messages":[]}'
REPLY = {
    "id": "c",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}
STREAM = (
    'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"Grüße "}}]}\r\n\r\n'
    ": a comment\r\n\r\n"
    'data: {"choices":[{"index":0,"delta":{"content":"🎵"}}]}\n\n'
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    "data: [DONE]\n\n"
).encode()


def fits(provider: OpenAI) -> Provider:
    """For type checkers: it is what the contract wants."""
    return provider


async def fault_of(provider: OpenAI, on_text: Callable[[str], None] | None = None) -> CallFault:
    with pytest.raises(CallFault) as caught:
        await provider.send("chat", ASKED, on_text)
    shown = (
        "".join(traceback.format_exception(caught.value)) + repr(caught.value.args) + repr(vars(caught.value))
    )
    assert KEY not in shown
    return caught.value


def unheard(text: str) -> None:
    pass


# ---------------------------------------------------------------- what goes well
async def test_a_plain_call(server: Server, provider: OpenAI):
    server.answers(REPLY)
    body = await provider.send("chat", ASKED, None)
    assert json.loads(body) == REPLY
    assert server.bodies == [ASKED]
    request = server.requests[0]
    assert (request.path, request.headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")


async def test_embeddings_and_other_paths(server: Server, provider: OpenAI):
    server.answers({"data": [{"index": 0, "embedding": [1.0]}]})
    await provider.send("embed", b"{}", None)
    await provider.send("/v1/embeddings", b"{}", None)
    assert [request.path for request in server.requests] == ["/v1/embeddings", "/v1/embeddings"]
    with pytest.raises(InvalidValue):
        await provider.send("completions", b"{}", None)


async def test_without_a_key_no_authorization_is_sent(server: Server, connect: Callable[..., OpenAI]):
    server.answers(REPLY)
    await connect(key="", headers={"X-Project": "p"}).send("chat", ASKED, None)
    headers = server.requests[0].headers
    assert ("Authorization" in headers, headers["X-Project"]) == (False, "p")


async def test_a_streamed_call(server: Server, provider: OpenAI):
    server.streams(STREAM)
    heard: list[str] = []
    body = await provider.send("chat", ASKED, heard.append)
    reply = provider.chat_reply(body)
    assert (heard, reply.text, reply.tokens.input) == (["Grüße ", "🎵"], "Grüße 🎵", 3)
    asked = json.loads(server.bodies[0])
    assert asked == {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}


async def test_a_body_that_says_something_else_of_streaming_is_overruled(server: Server, provider: OpenAI):
    server.streams(STREAM)
    await provider.send("chat", b'{"stream":false,"model":"m","stream_options":null}', unheard)
    assert json.loads(server.bodies[0])["stream"] is True
    assert server.bodies[0].count(b'"stream"') == 1


@pytest.mark.parametrize("at", range(0, len(STREAM), 7))
async def test_a_stream_cut_anywhere(at: int, server: Server, provider: OpenAI):
    server.streams(STREAM[:at], STREAM[at : at + 1], STREAM[at + 1 :])
    heard: list[str] = []
    assert provider.chat_reply(await provider.send("chat", ASKED, heard.append)).text == "Grüße 🎵"
    assert "".join(heard) == "Grüße 🎵"


async def test_text_is_told_while_it_comes(server: Server, provider: OpenAI):
    first, rest = STREAM.split(b": a comment")
    told = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(first)
        await asyncio.wait_for(told.wait(), 5)
        await response.write(rest)
        return response

    server.handler = handler
    await provider.send("chat", ASKED, lambda text: told.set())


async def test_connections_are_used_again(server: Server, provider: OpenAI):
    for on_text in (None, unheard, unheard, None):
        if on_text is None:
            server.answers(REPLY)
        else:
            server.streams(STREAM[:-5], STREAM[-5:])
        await provider.send("chat", ASKED, on_text)
    assert (len(server.requests), len(server.peers)) == (4, 1)


async def test_a_server_that_doesnt_hang_up_after_the_last_word(server: Server, provider: OpenAI):
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(STREAM)
        await done.wait()
        return response

    server.handler = handler
    assert provider.chat_reply(await provider.send("chat", ASKED, unheard)).text == "Grüße 🎵"
    done.set()


async def test_a_server_that_doesnt_stream(server: Server, provider: OpenAI):
    server.answers(REPLY)
    heard: list[str] = []
    assert json.loads(await provider.send("chat", ASKED, heard.append)) == REPLY
    assert heard == ["hi"]


async def test_a_server_that_streams_unasked(server: Server, provider: OpenAI):
    server.streams(STREAM)
    assert provider.chat_reply(await provider.send("chat", ASKED, None)).text == "Grüße 🎵"


async def test_a_connection_lost_after_the_last_word_loses_nothing(server: Server, provider: OpenAI):
    server.streams(STREAM.partition(b'data: {"choices":[],"usage"')[0], cut=True)
    assert provider.chat_reply(await provider.send("chat", ASKED, unheard)).text == "Grüße 🎵"


async def test_what_on_text_raises_is_raised(server: Server, provider: OpenAI):
    server.streams(STREAM)

    def refuse(text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="Grüße"):
        await provider.send("chat", ASKED, refuse)


# ---------------------------------------------------------------- streams that fail
@pytest.mark.parametrize("cut", [False, True])
async def test_a_stream_without_an_end_is_truncated(server: Server, provider: OpenAI, cut: bool):
    server.streams(STREAM.partition(b'data: {"choices":[{"index":0,"delta":{},"fin')[0], cut=cut)
    fault = await fault_of(provider, unheard)
    assert (fault.again, fault.code) == (True, "lost" if cut else "truncated")


async def test_a_done_without_an_end_is_truncated_too(server: Server, provider: OpenAI):
    server.streams(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n')
    fault = await fault_of(provider, unheard)
    assert (fault.again, fault.code) == (True, "truncated")


@pytest.mark.parametrize(
    ("event", "again", "code"),
    [
        (b'data: {"error":{"message":"overloaded","type":"server_error","code":null}}', True, "server_error"),
        (b'data: {"error":{"message":"x","code":"503"}}', True, "503"),
        (b'data: {"error":{"message":"x","code":400,"type":"invalid_request_error"}}', False, "400"),
        (
            b'data: {"error":{"message":"x","code":"context_length_exceeded"}}',
            False,
            "context_length_exceeded",
        ),
        (b'data: {"error":{"message":"x","code":"insufficient_quota"}}', False, "insufficient_quota"),
        (b'event: error\ndata: {"message":"overloaded"}', True, ""),
        (b'error: {"message":"overloaded","code":500}', True, "500"),
    ],
)
async def test_an_error_midway(server: Server, provider: OpenAI, event: bytes, again: bool, code: str):
    server.streams(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n' + event + b"\n\n")
    fault = await fault_of(provider, unheard)
    assert (fault.again, fault.code) == (again, code)


@pytest.mark.parametrize(("code", "again"), [("server_error", True), ("invalid_prompt", False)])
async def test_a_response_that_failed_as_it_came(
    server: Server, connect: Callable[..., OpenAI], code: str, again: bool
):
    failed = {"status": "failed", "output": [], "error": {"code": code, "message": "It broke."}}
    server.streams(b"data: %s\n\n" % json.dumps({"type": "response.failed", "response": failed}).encode())
    fault = await fault_of(connect(speech=Responses()), unheard)
    assert (fault.message, fault.code, fault.again) == ("It broke.", code, again)


@pytest.mark.parametrize(
    "text",
    [b"", b"data: [DONE]\n\n", b"<html>busy</html>", b"data: <html>busy\n\n", b'data: {"choices":[{"delta":7}]}\n\n',
     b'data: {"choices":[{"index":0,"delta":{"content":"a', b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
     b": ping\n\n", b'data: {"choices":[]}\n\n'],
)  # fmt: skip
async def test_garbage_in_a_stream(server: Server, provider: OpenAI, text: bytes):
    server.streams(text)
    fault = await fault_of(provider, unheard)
    assert fault.again
    assert ("busy" in text.decode("latin1")) == ("busy" in str(fault))


# ---------------------------------------------------------------- answers that fail
@pytest.mark.parametrize("on_text", [None, unheard])
@pytest.mark.parametrize(
    ("body", "kind", "shown"),
    [
        (b"", "application/json", "empty"),
        (b"<html><body>Gateway  busy</body></html>", "text/html", "Gateway busy"),
        (b'{"id": "c", "choi', "application/json", '{"id": "c", "choi'),
        (b"null", "application/json", "null"),
        (b'"fine"', "application/json", '"fine"'),
        (b"[]", "application/json", "[]"),
        (b'{"choices": []}', "application/json", "choices"),
        (b'{"ok": true}', "application/json", "ok"),
        (b"\xff\xfe", "application/json", "begins"),
    ],
)
async def test_status_200_and_no_reply(
    server: Server, provider: OpenAI, body: bytes, kind: str, shown: str, on_text: Any
):
    server.answers(body, Content_Type=kind)
    fault = await fault_of(provider, on_text)
    assert (fault.status, fault.again, shown in str(fault)) == (200, True, True)


async def test_status_200_with_an_error(server: Server, provider: OpenAI):
    server.answers({"error": {"message": "the model is loading", "type": "server_error"}})
    fault = await fault_of(provider)
    assert (fault.again, fault.message) == (True, "the model is loading")


async def test_what_is_quoted_is_short(server: Server, provider: OpenAI):
    server.answers("<p>" + "word " * 10_000)
    assert len(str(await fault_of(provider))) < 500
    server.answers({"error": {"message": "word " * 10_000}}, status=400)
    assert len(str(await fault_of(provider))) < 1100


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_statuses_that_stay(server: Server, provider: OpenAI, status: int):
    server.answers({"error": {"message": "no such thing", "code": "c", "type": "t"}}, status=status)
    fault = await fault_of(provider)
    place = f"; '{server.url}/v1/chat/completions' was asked" if status == 404 else ""
    assert (fault.status, fault.again, fault.code, fault.message) == (
        status,
        False,
        "c",
        f"no such thing{place}",
    )


@pytest.mark.parametrize("status", [408, 409, 425, 429, 498, 500, 502, 503, 504, 529])
async def test_statuses_that_pass(server: Server, provider: OpenAI, status: int):
    server.answers({"error": {"message": "busy", "type": "t"}}, status=status)
    fault = await fault_of(provider)
    assert (fault.status, fault.again, fault.code, fault.after) == (status, True, "t", None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": "model not found"}', "model not found"),
        ('{"object": "error", "message": "too long", "code": 400}', "too long"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"detail": [{"loc": ["body"]}]}', '[{"loc":["body"]}]'),
        ('[{"error": {"message": "API key not valid"}}]', "API key not valid"),
        ("<html>nginx</html>", "the answer's body is '<html>nginx</html>'"),
        ("", "the answer has no body"),
        ('{"error": {}}', "the answer's body is '{\"error\": {}}'"),
        ("7", "the answer's body is '7'"),
    ],
)
async def test_errors_as_servers_variously_write_them(
    server: Server, provider: OpenAI, body: str, message: str
):
    server.answers(body, status=400)
    assert (await fault_of(provider)).message == message


@pytest.mark.parametrize(
    "kind", [{"code": "insufficient_quota"}, {"type": "insufficient_quota", "code": None}]
)
async def test_money_that_has_run_out_isnt_waited_for(server: Server, provider: OpenAI, kind: dict[str, Any]):
    server.answers({"error": {"message": "pay", **kind}}, status=429, x_should_retry="true")
    fault = await fault_of(provider)
    assert (fault.again, fault.code) == (False, "insufficient_quota")


@pytest.mark.parametrize(("status", "says", "again"), [(500, "false", False), (400, "true", True)])
async def test_the_server_says_whether_to_try_again(
    server: Server, provider: OpenAI, status: int, says: str, again: bool
):
    server.answers({}, status=status, x_should_retry=says)
    assert (await fault_of(provider)).again is again


def date(minutes: int) -> str:
    return format_datetime(NOW + timedelta(minutes=minutes), usegmt=True)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "7", "retry_after_ms": "250"}, 0.25),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "-4"}, None),
        ({"retry_after": date(1), "date": date(0)}, 60.0),
        ({"retry_after": date(-1), "date": date(0)}, 0.0),
    ],
)
async def test_how_long_to_wait(
    server: Server, provider: OpenAI, headers: dict[str, str], after: float | None
):
    server.answers({}, status=429, **headers)
    assert (await fault_of(provider)).after == after


async def test_a_redirect_names_the_cure(server: Server, provider: OpenAI):
    server.answers(status=301, Location="https://elsewhere/v1")
    fault = await fault_of(provider)
    assert (fault.again, "https://elsewhere/v1" in str(fault)) == (False, True)


async def test_nobody_listens(connect: Callable[..., OpenAI]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        fault = await fault_of(connect(f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))
    assert (fault.status, fault.again, fault.code) == (0, True, "unreachable")


async def test_what_isnt_a_reply_is_the_providers_fault(provider: OpenAI):
    with pytest.raises(ProviderFault, match=r"isn't a chat completion.*said"):
        provider.chat_reply(f'{{"choices": "{KEY}"}}'.encode())
    with pytest.raises(ProviderFault, match="isn't a list of embeddings") as caught:
        provider.embed_reply(f'{{"data": "{KEY}"}}'.encode())
    assert KEY not in str(caught.value) + caught.value.body


# ---------------------------------------------------------------- secrets
SECRETS = [
    KEY,
    json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "key%2Fwith%2Bsigns-0123456789",
    "sk-proj-AbCdEf123456_-x",
    "sk-abc*******************wxyz",
    "Bearer eyJhbGciOi.JIUzI1NiJ9",
]


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "form", ['{{"error":{{"message":"Incorrect API key provided: {}.","code":"{}"}}}}', "<html>{}</html>"]
)
async def test_no_secret_is_told(
    server: Server,
    provider: OpenAI,
    form: str,
    secret: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.DEBUG)
    server.answers(form.format(secret, secret), status=status)
    for on_text in (None, unheard):
        fault = await fault_of(provider, on_text)
        shown = f"{fault!s}{fault!r}{fault.code}{caplog.text}"
        assert secret.rpartition(" ")[2] not in shown
        assert "***" in shown


@pytest.mark.parametrize("secret", SECRETS)
async def test_no_secret_is_told_of_a_stream(server: Server, provider: OpenAI, secret: str):
    for text in (
        f'data: {{"error":{{"message":"{secret}","code":"{secret}"}}}}\n\n',
        f"data: {secret}\n\n",
        secret,
    ):
        server.streams(text.encode())
        fault = await fault_of(provider, unheard)
        assert secret.rpartition(" ")[2] not in f"{fault!s}{fault!r}{fault.code}"


async def test_a_key_cut_by_the_shortening_isnt_told_either(server: Server, provider: OpenAI):
    for before in range(270, 300):
        server.answers("x" * before + KEY + "y" * 100, status=500)
        assert KEY[:8] not in str(await fault_of(provider))


async def test_a_short_key_doesnt_spoil_words(server: Server, connect: Callable[..., OpenAI]):
    server.answers({"error": {"message": "any company: any"}}, status=401)
    with pytest.raises(CallFault, match=r"\*\*\* company: \*\*\*"):
        await connect(key="any").send("chat", ASKED, None)


def test_repr_shows_no_key(provider: OpenAI):
    assert KEY not in repr(provider) + str(provider) + repr(provider._mask)
    assert "127.0.0.1" in repr(provider)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_takes_is_refused_without_being_told(connect: Callable[..., OpenAI], key: str):
    with pytest.raises(InvalidValue) as caught:
        connect(key=key)
    assert key not in str(caught.value)


def test_white_space_around_a_key_is_dropped(connect: Callable[..., OpenAI]):
    assert connect(key=f" {KEY}\n")._exchange.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://x/v1", "http:///v1", "http://me:password@x/v1"])
def test_base_urls_that_wont_do(url: str):
    with pytest.raises(InvalidValue) as caught:
        OpenAI(url, "", None)  # type: ignore[arg-type]
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1/", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:8080/v1", "max_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
    ],
)
def test_the_name_of_the_limit(url: str, name: str, connect: Callable[..., OpenAI]):
    body = connect(url).chat_body(ChatRequest(as_messages("hi"), max_tokens=3), "m")
    assert body[name] == 3
