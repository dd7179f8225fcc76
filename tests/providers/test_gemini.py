"""Gemini: requests and replies on the wire, live calls, and batches from upload to results, at the simulator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from segue.model.chat import Answer, ChatRequest, File, Message, Tokens, ToolCall, ToolSpec, as_messages
from segue.model.errors import InvalidValue, ProviderFault
from segue.ports.provider import OVERFLOW, BatchProvider, CallFault, LineResult, RemoteJob
from segue.providers import answer_tool
from segue.providers import gemini_content as wire
from segue.providers.gemini import Gemini
from segue.providers.gemini_batches import line_result, operation, remote_job
from segue.providers.masking import Mask
from segue.testing.simulator import Failure, Said, Simulator, VirtualClock
from segue.testing.simulator import ToolCall as Call
from segue.transports.pooled import Pooled
from tests.transports.serving import Server

HOUR = timedelta(hours=1)
KEY = "AIza-right-0123456789"
LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
FORM = Answer("count", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


def fits(provider: Gemini) -> BatchProvider:
    """For type checkers: it is what the contract wants."""
    return provider


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(clock=VirtualClock(), batch_time=HOUR, key=KEY) as sim:
        yield sim


@pytest.fixture(params=["v1beta", "v1"])
async def provider(sim: Simulator, request: pytest.FixtureRequest) -> AsyncIterator[Gemini]:
    provider = Gemini(f"{sim.url}/{request.param}", KEY, Pooled())
    yield provider
    await provider.close()


def asking(text: str = "hello", **more: Any) -> ChatRequest:
    return ChatRequest(as_messages(text), **more)


def body(provider: Gemini, text: str = "hello", model: str = "gemini-2.5-flash", **more: Any) -> bytes:
    return msgspec.json.encode(provider.chat_body(asking(text, **more), model))


async def lines(*each: tuple[str, bytes]) -> AsyncIterator[tuple[str, bytes]]:
    for line in each:
        yield line


async def submit(provider: Gemini, *each: tuple[str, bytes], nonce: str = "n") -> RemoteJob:
    file = await provider.upload(lines(*each), "chat", nonce)
    return await provider.submit(file, "chat", nonce, lines(*each))


async def results(provider: Gemini, job: RemoteJob) -> dict[str, LineResult]:
    found = [line async for line in provider.results(job)]
    assert all(isinstance(line, LineResult) for line in found)
    return {line.id: line for line in found if isinstance(line, LineResult)}


# ---------------------------------------------------------------- requests
def test_a_request_in_gemini_s_words():
    messages = [
        Message("system", "Be brief."),
        Message("user", ["What is", File(b"png", media="image/png"), File("https://a.example/b.pdf")]),
        Message("assistant", "", [ToolCall("call_0", "look", '{"at": "sea"}'), ToolCall("x7", "look", "")]),
        Message("tool", "blue", call="call_0"),
        Message("tool", "grey", call="x7"),
        Message("user", "So?"),
    ]
    extra = {"generationConfig": {"seed": 3}, "safetySettings": []}
    request = ChatRequest(messages, tools=[LOOK], temperature=0.5, max_tokens=7, extra=extra)
    assert wire.chat_body(request, "gemini-2.5-flash") == {
        "model": "gemini-2.5-flash",
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "What is"},
                    {"inlineData": {"mimeType": "image/png", "data": "cG5n"}},
                    {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.example/b.pdf"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "look", "args": {"at": "sea"}}},
                    {"functionCall": {"id": "x7", "name": "look", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "look", "response": {"result": "blue"}}},
                    {"functionResponse": {"id": "x7", "name": "look", "response": {"result": "grey"}}},
                    {"text": "So?"},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "look", "description": "Looks.", "parametersJsonSchema": LOOK.parameters}
                ]
            }
        ],
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 7, "seed": 3},
        "safetySettings": [],
    }


def test_thinking_by_budget_and_by_level():
    def thinks(model: str, reasoning: Any) -> Any:
        return wire.chat_body(asking(reasoning=reasoning), model)["generationConfig"]["thinkingConfig"]

    assert thinks("gemini-2.5-pro", "low") == {"thinkingBudget": 1024, "includeThoughts": True}
    assert thinks("gemini-2.5-flash", "none") == {"thinkingBudget": 0, "includeThoughts": False}
    for model in ("gemini-3-pro-preview", "gemini-3.8-flash", "models/gemini-10-x", "mine"):
        assert thinks(model, "high") == {"thinkingLevel": "high", "includeThoughts": True}


def test_an_answer_s_form():
    alone = wire.chat_body(asking(answer=FORM), "gemini-2.5-flash")
    assert alone["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": FORM.schema,
    }
    late = wire.chat_body(asking(answer=FORM, tools=[LOOK]), "gemini-3-pro")
    assert late["generationConfig"] == alone["generationConfig"]
    early = wire.chat_body(asking(answer=FORM, tools=[LOOK]), "gemini-2.5-pro")
    names = [each["name"] for each in early["tools"][0]["functionDeclarations"]]
    assert names == ["look", answer_tool.NAME]
    assert early["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert "generationConfig" not in early


# ---------------------------------------------------------------- replies
def answer(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": finish, **more}
    return json.dumps({"candidates": [candidate], "modelVersion": "g"}).encode()


@pytest.mark.parametrize(
    ("finish", "means"),
    [("STOP", "end"), ("MAX_TOKENS", "length"), ("SAFETY", "filter"), ("PROHIBITED_CONTENT", "filter")],
)
def test_stops(finish: str, means: str):
    assert wire.chat_reply(answer({"text": "a"}, finish=finish)).stop == means


def test_a_reply_with_all_there_is():
    parts: list[dict[str, Any]] = [
        {"text": "hm ", "thought": True},
        {"text": "Größe "},
        {"text": "ist 3."},
        {"functionCall": {"name": "look", "args": {"at": "sea"}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "look", "id": "x7"}},
    ]
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 8, "endIndex": 14}, "groundingChunkIndices": [0, 5]}
        ],
    }
    told = json.loads(answer(*parts, groundingMetadata=grounding))
    told["usageMetadata"] = {
        "promptTokenCount": 5,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 11,
        "cachedContentTokenCount": 2,
    }
    reply = wire.chat_reply(json.dumps(told).encode())
    assert (reply.text, reply.reasoning, reply.stop, reply.model) == ("Größe ist 3.", "hm ", "tool", "g")
    assert reply.tokens == Tokens(5, 18, 2)
    assert reply.tool_calls == [ToolCall("call_3", "look", '{"at":"sea"}'), ToolCall("x7", "look", "{}")]
    assert reply.opaque == {"gemini": parts}
    [citation] = reply.citations
    assert (citation.url, reply.text[citation.start : citation.end]) == ("https://a.example", "ist 3.")
    said = Message("assistant", reply.text, reply.tool_calls, opaque=reply.opaque)
    assert wire.chat_body(ChatRequest([Message("user", "x"), said]), "g")["contents"][1]["parts"] == parts


def test_an_answer_that_came_as_a_call():
    said = {"functionCall": {"name": answer_tool.NAME, "args": {"n": 4}}}
    reply = wire.chat_reply(answer(said))
    assert (reply.text, reply.tool_calls, reply.stop) == ('{"n":4}', [], "end")
    reply = wire.chat_reply(answer(said, {"functionCall": {"name": "look"}}))
    assert ([call.name for call in reply.tool_calls], reply.stop) == (["look"], "tool")


def test_a_prompt_that_was_blocked():
    reply = wire.chat_reply(
        b'{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}'
    )
    assert (reply.text, reply.stop, reply.tokens.input) == ("", "filter", 3)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        answer({"text": "a"}, finish=None),
        answer({"text": "a"}, finish="MALFORMED_FUNCTION_CALL"),
    ],
)
def test_what_is_no_answer(bad: bytes):
    with pytest.raises(ProviderFault):
        Gemini("http://127.0.0.1:1/v1beta", "", Pooled()).chat_reply(bad)


# ---------------------------------------------------------------- live
@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3-pro"])
async def test_live_and_streamed_say_the_same(sim: Simulator, provider: Gemini, model: str):
    calls = (Call("look", {"at": "a b"}, id="c1"), Call("look", {"at": "c"}, id="c2"))
    sim.when("hello").reply(Said("I look. ", *calls, thinking="let me see"))
    asked = body(provider, model=model, tools=[LOOK], reasoning="low")
    heard: list[str] = []
    plain = provider.chat_reply(await provider.send("chat", asked, None))
    streamed = provider.chat_reply(await provider.send("chat", asked, heard.append))
    assert plain == streamed
    assert "".join(heard) == plain.text == "I look. "
    assert plain.reasoning == "let me see"
    assert [entry.model for entry in sim.ledger.lines("live")] == [model, model]


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3-pro"])
async def test_a_conversation_with_tools(sim: Simulator, provider: Gemini, model: str):
    """The service refuses one that lost a signature, or an answer to a call."""
    sim.when("It is sunny").reply("Good.")
    sim.when("hello").reply(Said("", Call("look", {"at": "sky"}), Call("look", {"at": "sea"})))
    messages = as_messages("hello")
    reply = None
    for _ in range(2):
        asked = provider.chat_body(ChatRequest(messages, tools=[LOOK]), model)
        reply = provider.chat_reply(await provider.send("chat", msgspec.json.encode(asked), None))
        messages = [*messages, Message("assistant", reply.text, reply.tool_calls, opaque=reply.opaque)]
        messages += [Message("tool", "It is sunny", call=call.id) for call in reply.tool_calls]
    assert reply is not None
    assert reply.text == "Good."


async def test_an_answer_in_a_form_with_and_without_tools(sim: Simulator, provider: Gemini):
    for model, more in (("gemini-2.5-flash", {}), ("gemini-3-pro", {"tools": [LOOK]})):
        asked = body(provider, model=model, answer=FORM, **more)
        assert json.loads(provider.chat_reply(await provider.send("chat", asked, None)).text) == {"n": 0}
    sim.when("hello").reply(Call(answer_tool.NAME, {"n": 5}))
    asked = body(provider, answer=FORM, tools=[LOOK])
    assert json.loads(provider.chat_reply(await provider.send("chat", asked, None)).text) == {"n": 5}


async def test_embeddings(sim: Simulator, provider: Gemini):
    asked = msgspec.json.encode(provider.embed_body(["a", "b"], "gemini-embedding-001"))
    vectors, tokens = provider.embed_reply(await provider.send("embed", asked, None))
    assert (len(vectors), vectors[0] != vectors[1], tokens) == (2, True, 2)
    with pytest.raises(InvalidValue, match="go live only"):
        await provider.upload(lines(("a", asked)), "embed", "n")


@pytest.mark.parametrize(
    ("status", "again", "code"),
    [(429, True, "RESOURCE_EXHAUSTED"), (503, True, "UNAVAILABLE"), (403, False, "PERMISSION_DENIED")],
)
async def test_errors(sim: Simulator, provider: Gemini, status: int, again: bool, code: str):
    sim.faults.fail(status=status, retry_after=timedelta(seconds=9))
    with pytest.raises(CallFault) as caught:
        await provider.send("chat", body(provider), None)
    assert (caught.value.status, caught.value.again, caught.value.code) == (status, again, code)
    assert caught.value.after == 9


async def test_a_connection_lost_after_the_last_word_loses_nothing():
    server = Server()
    await server.start()
    whole = {"candidates": [{"content": {"parts": [{"text": "Yes."}]}, "finishReason": "STOP"}]}
    server.streams(b"data: %s\n\n" % msgspec.json.encode(whole), cut=True)
    provider = Gemini(f"{server.url}/v1beta", "", Pooled())
    heard: list[str] = []
    answer = await provider.send("chat", body(provider), heard.append)
    await provider.close()
    await server.close()
    assert (provider.chat_reply(answer).text, heard) == ("Yes.", ["Yes."])


async def test_how_long_to_wait_is_told_in_the_body():
    server = Server()
    await server.start()
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    server.answers(
        {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": details}}, 429
    )
    provider = Gemini(f"{server.url}/v1beta", "", Pooled())
    with pytest.raises(CallFault) as caught:
        await provider.send("chat", body(provider), None)
    await provider.close()
    await server.close()
    assert caught.value.after == 34.5


async def test_a_prompt_that_is_too_long(sim: Simulator, provider: Gemini):
    told = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    sim.when("hello").reply(Failure(400, told))
    with pytest.raises(CallFault) as caught:
        await provider.send("chat", body(provider), None)
    assert (caught.value.code, caught.value.again) == (OVERFLOW, False)
    job = await submit(provider, ("a", body(provider)))
    await sim.finish()
    found = await results(provider, await provider.poll(job.id))
    assert (found["a"].status, found["a"].code) == (400, OVERFLOW)


@pytest.mark.parametrize("how", [{}, {"abort": True}, {"error": 503}])
async def test_streams_that_break(sim: Simulator, provider: Gemini, how: dict[str, Any]):
    for after in (0, 1, 2):
        sim.faults.cut_stream_after(after, **how)
        with pytest.raises(CallFault) as caught:
            await provider.send("chat", body(provider), lambda text: None)
        assert caught.value.again
    assert (
        provider.chat_reply(await provider.send("chat", body(provider), lambda text: None)).text
        == "You said: hello"
    )


async def test_proxies_and_keys(sim: Simulator, provider: Gemini):
    for trouble in (sim.faults.reply_html, sim.faults.empty_reply, sim.faults.close_connection):
        trouble()
        with pytest.raises(CallFault) as caught:
            await provider.send("chat", body(provider), None)
        assert caught.value.again
    wrong = Gemini(f"{sim.url}/v1beta", "AIza-wrong-0123456789", Pooled())
    with pytest.raises(CallFault) as caught:
        await wrong.send("chat", body(wrong), None)
    await wrong.close()
    assert (caught.value.status, caught.value.again, caught.value.code) == (401, False, "UNAUTHENTICATED")
    assert "0123456789" not in f"{caught.value!r}{wrong!r}"


# ---------------------------------------------------------------- batches
async def test_a_batch_from_upload_to_results(sim: Simulator, provider: Gemini):
    sim.when("rude").reply(Failure(400, "Too rude."))
    sim.when("busy").reply(Failure(503))
    each = [(text, body(provider, text)) for text in ("kind", "rude", "busy")]
    file = await provider.upload(lines(*each), "chat", "label")
    job = await provider.submit(file, "chat", "label", lines(*each))
    assert (job.over, job.status, job.nonce) == (False, "pending", "label")
    await sim.advance(HOUR / 2)
    job = await provider.poll(job.id)
    assert (job.over, job.status, job.total, file.endswith(job.file)) == (False, "running", 3, True)
    await sim.advance(HOUR)
    job = await provider.poll(job.id)
    assert (job.over, job.status, job.done, job.failed, job.total) == (True, "succeeded", 1, 2, 3)
    found = await results(provider, job)
    assert provider.chat_reply(found["kind"].body).text == "You said: kind"
    assert [(found[id].status, found[id].code) for id in ("rude", "busy")] == [
        (400, "INVALID_ARGUMENT"),
        (503, "UNAVAILABLE"),
    ]
    assert b"Too rude." in found["rude"].body
    assert {entry.model for entry in sim.ledger.lines("batch")} == {"gemini-2.5-flash"}
    await provider.cancel(job.id)  # which comes too late, and is fine


async def test_an_orphan_is_found_by_label_and_by_file(sim: Simulator, provider: Gemini):
    made = []
    for number in range(120):  # more than a page
        file = (
            await provider.upload(lines(("a", body(provider))), "chat", f"n{number}")
            if number < 2
            else made[0][0]
        )
        made.append((file, await provider.submit(file, "chat", f"n{number}")))
    file, job = made[1]
    for nonce, known in (("n1", ""), ("unknown", file), ("n1", file)):
        found = await provider.find(nonce, known, sim.clock.now())
        assert found is not None
        assert (found.id, found.sure) == (job.id, True)
    assert await provider.find("unknown", "m files/unknown", sim.clock.now()) is None


async def test_a_batch_whose_answer_was_lost_is_found(sim: Simulator, provider: Gemini):
    file = await provider.upload(lines(("a", body(provider))), "chat", "n")
    sim.faults.lose_reply(on="batchGenerateContent")
    with pytest.raises(CallFault) as caught:
        await provider.submit(file, "chat", "n")
    assert caught.value.again
    found = await provider.find("n", file, sim.clock.now())
    assert found is not None


async def test_batches_without_results(sim: Simulator):
    async with Simulator(clock=VirtualClock(), batch_time=60 * HOUR) as sim:
        provider = Gemini(f"{sim.url}/v1beta", "", Pooled())
        job = await submit(provider, ("a", body(provider)))
        await sim.finish()
        job = await provider.poll(job.id)
        assert (job.status, job.over, job.files, job.rejected) == ("expired", True, (), "")
        job = await submit(provider, ("a", body(provider)))
        await provider.cancel(job.id)
        await sim.finish()
        job = await provider.poll(job.id)
        assert (job.status, job.over, await results(provider, job)) == ("cancelled", True, {})
        sim.faults.fail_batch("INTERNAL", "told to fail")
        job = await submit(provider, ("a", body(provider)))
        await sim.finish()
        job = await provider.poll(job.id)
        assert (job.status, job.over, job.rejected) == ("failed", True, "told to fail")
        await provider.close()


async def test_results_that_aren_t_what_they_should_be(sim: Simulator, provider: Gemini):
    async def over() -> RemoteJob:
        job = await submit(provider, *((f"l{n}", body(provider)) for n in range(3)))
        await sim.finish()
        return await provider.poll(job.id)

    sim.faults.drop_line("l0")
    sim.faults.wrong_id("l1")
    sim.faults.double_line("l2")
    told = [line.id async for line in provider.results(await over()) if isinstance(line, LineResult)]
    assert sorted(told) == ["l2", "l2", "unknown-1-1"]
    sim.faults.half_line()
    kinds = [isinstance(line, LineResult) async for line in provider.results(await over())]
    assert kinds == [True, True, False]
    for odd in (sim.faults.empty_error_file_id, sim.faults.no_output_file):
        odd()
        assert await results(provider, await over()) == {}
    job = await over()
    for trouble in (
        sim.faults.reply_html,
        sim.faults.empty_reply,
        sim.faults.close_connection,
        sim.faults.fail,
    ):
        trouble(2, on="download")  # a connection that turns out to be dead is tried anew once
        with pytest.raises(CallFault) as caught:
            await results(provider, job)
        assert caught.value.again
        sim.faults.take("download", "html", "empty", "refuse", "fail")
    assert len(await results(provider, job)) == 3


async def test_uploads_that_go_wrong(sim: Simulator, provider: Gemini):
    for trouble in (sim.faults.reply_html, sim.faults.close_connection, sim.faults.fail):
        for skipped in (0, 1):  # the announcement, then the bytes
            if skipped:
                sim.faults.delay(timedelta(0), on="upload")
            trouble(on="upload")
            with pytest.raises(CallFault) as caught:
                await provider.upload(lines(("a", body(provider))), "chat", "n")
            assert caught.value.again
    file = await provider.upload(lines(("a", body(provider))), "chat", "n")
    assert file.startswith("gemini-2.5-flash files/")


@pytest.mark.parametrize("name", ["BATCH_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED"])
def test_states_by_either_name(name: str):
    told = {
        "name": "batches/b",
        "metadata": {"state": name, "batchStats": {"requestCount": "3", "successfulRequestCount": "2"}},
        "response": {"responsesFile": "files/f"},
    }
    job = remote_job(operation(json.dumps(told).encode()), Mask(""))
    assert (job.status, job.over, job.files, job.total, job.done) == (
        "partially_succeeded",
        True,
        ("files/f",),
        3,
        2,
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"key": "a", "error": {"code": 8, "message": "m"}}, LineResult("a", 429, b"", "8")),
        ({"key": "a", "status": {"code": 500, "message": "m"}}, LineResult("a", 500, b"", "500")),
        (
            {"key": "a", "error": {"code": 14, "status": "UNAVAILABLE"}},
            LineResult("a", 503, b"", "UNAVAILABLE"),
        ),
        ({"key": "a"}, LineResult("a", 0, b"", "no_response")),
    ],
)
def test_lines_that_failed(line: dict[str, Any], expected: LineResult):
    found = line_result(json.dumps(line).encode(), Mask(""))
    assert isinstance(found, LineResult)
    assert (found.id, found.status, found.code) == (expected.id, expected.status, expected.code)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"response": {}}', b'{"key": 7}'])
def test_lines_that_can_t_be_read(line: bytes):
    assert isinstance(line_result(line, Mask("")), str)
