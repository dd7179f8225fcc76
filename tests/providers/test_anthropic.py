"""Anthropic: requests and replies on the wire, live calls, and batches from submission to results, at the simulator."""

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
from segue.providers import anthropic_messages as wire
from segue.providers.anthropic import Anthropic
from segue.testing.simulator import Failure, Said, Simulator, VirtualClock
from segue.testing.simulator import ToolCall as Call
from segue.transports.pooled import Pooled
from tests.transports.serving import Server

HOUR = timedelta(hours=1)
NONCE = "0123456789abcdef0123456789abcdef"
LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
CLOSED = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 3}},
    "required": ["n"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "additionalProperties": {"type": "integer"}}


def fits(provider: Anthropic) -> BatchProvider:
    """For type checkers: it is what the contract wants."""
    return provider


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(clock=VirtualClock(), batch_time=HOUR, key="sk-ant-right-0123456789") as sim:
        yield sim


@pytest.fixture
async def provider(sim: Simulator) -> AsyncIterator[Anthropic]:
    provider = Anthropic(sim.base_url, "sk-ant-right-0123456789", Pooled())
    yield provider
    await provider.close()


def request(text: str = "hello", **more: Any) -> ChatRequest:
    return ChatRequest(as_messages(text), **more)


def body(provider: Anthropic, text: str = "hello", **more: Any) -> bytes:
    return msgspec.json.encode(provider.chat_body(request(text, **more), "claude-opus-5"))


async def lines(*each: tuple[str, bytes]) -> AsyncIterator[tuple[str, bytes]]:
    for line in each:
        yield line


async def submit(provider: Anthropic, *each: tuple[str, bytes], nonce: str = NONCE) -> RemoteJob:
    file = await provider.upload(lines(*each), "chat", nonce)
    return await provider.submit(file, "chat", nonce, lines(*each))


async def results(provider: Anthropic, job: RemoteJob) -> dict[str, LineResult]:
    found = [line async for line in provider.results(job)]
    assert all(isinstance(line, LineResult) for line in found)
    return {line.id: line for line in found if isinstance(line, LineResult)}


# ---------------------------------------------------------------- requests
def test_a_request_in_anthropic_s_words():
    picture = File(b"png", media="image/png")
    messages = [
        Message("system", "Be brief."),
        Message("user", ["What is", picture, File("https://a.example/b.pdf")]),
        Message("assistant", "", [ToolCall("t1", "look", '{"at": "sea"}'), ToolCall("t2", "look", "")]),
        Message("tool", "blue", call="t1"),
        Message("tool", "", call="t2"),
        Message("user", "So?"),
    ]
    made = wire.chat_body(ChatRequest(messages, tools=[LOOK], temperature=0.5, max_tokens=7), "claude-opus-5")
    mark = {"cache_control": {"type": "ephemeral"}}
    assert made == {
        "model": "claude-opus-5",
        "max_tokens": 7,
        "system": [{"type": "text", "text": "Be brief.", **mark}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "cG5n"},
                    },
                    {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}, **mark},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "sea"}},
                    {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "blue"}],
                    },
                    {"type": "tool_result", "tool_use_id": "t2"},
                    {"type": "text", "text": "So?", **mark},
                ],
            },
        ],
        "tools": [{"name": "look", "description": "Looks.", "input_schema": LOOK.parameters}],
        "temperature": 0.5,
    }


def test_what_is_marked_for_the_cache():
    def marked(**more: Any) -> list[str]:
        made = wire.chat_body(ChatRequest([*more.pop("before", ()), *as_messages("x")], **more), "m")
        return [
            name
            for name in ("tools", "system", "messages")
            if b"cache_control" in msgspec.json.encode(made.get(name))
        ]

    law = [Message("system", "The law.")]
    assert marked() == []
    assert marked(before=law) == ["system"]
    assert marked(tools=[LOOK]) == ["tools", "messages"]
    assert marked(before=law, tools=[LOOK]) == ["system", "messages"]
    said = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    assert marked(before=said[:2]) == []
    assert marked(before=said) == ["messages"]
    assert marked(before=law, extra={"cache_control": {"type": "ephemeral"}}) == []
    assert marked(before=law, extra={"cache_control": None}) == []
    assert "cache_control" not in wire.chat_body(request(extra={"cache_control": None}), "m")


def test_thinking_by_budget_and_by_effort():
    def thinks(model: str, reasoning: Any, **more: Any) -> tuple[Any, Any, int]:
        made = wire.chat_body(request(reasoning=reasoning, **more), model)
        return made.get("thinking"), made.get("output_config"), made["max_tokens"]

    for old in (
        "claude-3-7-sonnet-20250219",
        "claude-sonnet-4-20250514",
        "claude-haiku-4-5",
        "claude-opus-4-1",
    ):
        assert thinks(old, "low")[0] == {"type": "enabled", "budget_tokens": 2048}
        assert thinks(old, "none")[0] is None
    for new in ("claude-opus-4-6", "claude-sonnet-5", "claude-opus-4-6-20260205"):
        assert thinks(new, "high") == ({"type": "adaptive"}, {"effort": "high"}, wire.MAX_TOKENS)
        assert thinks(new, "none") == ({"type": "disabled"}, None, wire.MAX_TOKENS)
    assert thinks("claude-haiku-4-5", "high")[2] == wire.MAX_TOKENS + 24_576
    assert thinks("claude-haiku-4-5", "high", max_tokens=30_000)[2] == 30_000
    assert thinks("claude-haiku-4-5", None) == (None, None, wire.MAX_TOKENS)


def test_an_answer_s_form():
    made = wire.chat_body(request(answer=Answer("count", CLOSED)), "m")
    told = {"type": "integer", "description": "(minimum: 3)"}
    assert made["output_config"]["format"]["schema"] == CLOSED | {"properties": {"n": told}}
    assert "tools" not in made
    tree = {
        "type": "object",
        "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
        "required": ["kids"],
        "additionalProperties": False,
    }
    for schema in (OPEN, tree | {"$defs": {"Tree": tree}}):
        made = wire.chat_body(request(answer=Answer("count", schema)), "m")
        assert [tool["name"] for tool in made["tools"]] == [answer_tool.NAME]
        assert made["tool_choice"] == {"type": "tool", "name": answer_tool.NAME}
    made = wire.chat_body(request(answer=Answer("count", OPEN), tools=[LOOK]), "m")
    assert (len(made["tools"]), made["tool_choice"]) == (2, {"type": "any"})
    made = wire.chat_body(request(answer=Answer("count", OPEN), reasoning="low"), "m")
    assert "tool_choice" not in made


def test_files_it_can_t_read():
    with pytest.raises(InvalidValue, match="audio/mp3"):
        wire.chat_body(ChatRequest(as_messages([File(b"x", media="audio/mp3")])), "m")
    text = wire.chat_body(ChatRequest(as_messages([File(b"a,b", media="text/csv", name="t.csv")])), "m")
    assert text["messages"][0]["content"][0]["source"]["data"] == "a,b"


# ---------------------------------------------------------------- replies
def message(*content: dict[str, Any], stop: str | None = "end_turn", **usage: int) -> bytes:
    return json.dumps(
        {"type": "message", "model": "claude", "content": content, "stop_reason": stop, "usage": usage}
    ).encode()


@pytest.mark.parametrize(
    ("stop", "means"),
    [
        ("end_turn", "end"),
        ("stop_sequence", "end"),
        ("pause_turn", "end"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
    ],
)
def test_stops(stop: str, means: str):
    assert wire.chat_reply(message({"type": "text", "text": "a"}, stop=stop)).stop == means


def test_a_reply_with_all_there_is():
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    cited = {
        "type": "web_search_result_location",
        "cited_text": "it is",
        "url": "https://a.example",
        "title": "A",
    }
    reply = wire.chat_reply(
        message(
            thought,
            hidden,
            {"type": "text", "text": "It "},
            {"type": "text", "text": "is.", "citations": [cited]},
            {"type": "tool_use", "id": "t", "name": "look", "input": {"at": "sea"}},
            stop="tool_use",
            input_tokens=1,
            output_tokens=2,
            cache_read_input_tokens=30,
            cache_creation_input_tokens=400,
        )
    )
    assert (reply.text, reply.stop, reply.reasoning) == ("It is.", "tool", "hm")
    assert reply.tokens == Tokens(431, 2, 30, 400)
    assert reply.tool_calls == [ToolCall("t", "look", '{"at":"sea"}')]
    assert reply.opaque == {"anthropic": [thought, hidden]}
    (citation,) = reply.citations
    assert (citation.url, citation.quote, reply.text[citation.start : citation.end]) == (
        "https://a.example",
        "it is",
        "is.",
    )
    again = wire.chat_body(
        ChatRequest(
            [Message("user", "x"), Message("assistant", reply.text, reply.tool_calls, opaque=reply.opaque)]
        ),
        "m",
    )
    assert again["messages"][1]["content"][:2] == [thought, hidden]


def test_an_answer_that_came_as_a_call():
    said = {"type": "tool_use", "id": "t", "name": answer_tool.NAME, "input": {"n": 4}}
    reply = wire.chat_reply(message(said, stop="tool_use"))
    assert (reply.text, reply.tool_calls, reply.stop) == ('{"n":4}', [], "end")
    look = {"type": "tool_use", "id": "u", "name": "look", "input": {}}
    reply = wire.chat_reply(message(said, look, stop="tool_use"))
    assert ([call.name for call in reply.tool_calls], reply.stop) == (["look"], "tool")


@pytest.mark.parametrize("bad", [b"", b"<html>", b"{}", b'{"content": 7}', message(stop=None)])
async def test_what_is_no_message(provider: Anthropic, bad: bytes):
    with pytest.raises(ProviderFault):
        provider.chat_reply(bad)


def test_it_has_no_embeddings(provider: Anthropic):
    with pytest.raises(InvalidValue, match="Anthropic has none"):
        provider.embed_body(["a"], "m")


# ---------------------------------------------------------------- live
async def test_live_and_streamed_say_the_same(sim: Simulator, provider: Anthropic):
    sim.when("hello").reply(
        Said("I look. ", Call("look", {"at": "a b c d e f"}, id="c1"), thinking="let me see")
    )
    asked = body(provider, tools=[LOOK])
    heard: list[str] = []
    plain = provider.chat_reply(await provider.send("chat", asked, None))
    streamed = provider.chat_reply(await provider.send("chat", asked, heard.append))
    assert plain == streamed
    assert "".join(heard) == plain.text == "I look. "
    assert plain.reasoning == "let me see"
    assert sim.ledger.counts()["paid"] == 2


async def test_thoughts_go_back_with_their_calls(sim: Simulator, provider: Anthropic):
    """The service refuses a conversation that lost them."""
    sim.when("It is sunny").reply("Good.")
    sim.when("hello").reply(Said("", Call("look", {"at": "sky"}), thinking="let me see"))
    messages = as_messages("hello")
    reply = None
    for _ in range(2):
        asked = provider.chat_body(ChatRequest(messages, tools=[LOOK], reasoning="low"), "claude-haiku-4-5")
        reply = provider.chat_reply(await provider.send("chat", msgspec.json.encode(asked), None))
        messages = [*messages, Message("assistant", reply.text, reply.tool_calls, opaque=reply.opaque)]
        messages += [Message("tool", "It is sunny", call=call.id) for call in reply.tool_calls]
    assert reply is not None
    assert reply.text == "Good."


async def test_a_conversation_reads_what_its_last_turn_wrote(sim: Simulator, provider: Anthropic):
    law = [Message("system", "The law. " * 1000)]
    said = []
    for text in ("one", "two"):
        asked = provider.chat_body(ChatRequest([*law, *as_messages(text)]), "m")
        said.append(provider.chat_reply(await provider.send("chat", msgspec.json.encode(asked), None)).tokens)
    assert (said[0].cached, said[0].written) == (0, 2250)
    assert (said[1].cached, said[1].written, said[1].input) == (2250, 0, 2251)


@pytest.mark.parametrize(
    ("status", "again", "code"),
    [(429, True, "rate_limit_error"), (529, True, "overloaded_error"), (403, False, "permission_error")],
)
async def test_errors(sim: Simulator, provider: Anthropic, status: int, again: bool, code: str):
    sim.faults.fail(status=status, retry_after=timedelta(seconds=9))
    with pytest.raises(CallFault) as caught:
        await provider.send("chat", body(provider), None)
    assert (caught.value.status, caught.value.again, caught.value.code) == (status, again, code)
    assert caught.value.after == 9


async def test_a_prompt_that_is_too_long(sim: Simulator, provider: Anthropic):
    sim.when("hello").reply(Failure(400, "prompt is too long: 213462 tokens > 200000 maximum"))
    with pytest.raises(CallFault) as caught:
        await provider.send("chat", body(provider), None)
    assert (caught.value.code, caught.value.again) == (OVERFLOW, False)
    job = await submit(provider, ("a", body(provider)))
    await sim.finish()
    found = await results(provider, await provider.poll(job.id))
    assert (found["a"].status, found["a"].code) == (400, OVERFLOW)


@pytest.mark.parametrize("how", [{}, {"abort": True}, {"error": 529}])
async def test_streams_that_break(sim: Simulator, provider: Anthropic, how: dict[str, Any]):
    for after in (0, 1, 4):
        sim.faults.cut_stream_after(after, **how)
        with pytest.raises(CallFault) as caught:
            await provider.send("chat", body(provider), lambda text: None)
        assert caught.value.again
        if "error" in how:
            assert caught.value.code == "overloaded_error"
    assert (
        provider.chat_reply(await provider.send("chat", body(provider), lambda text: None)).text
        == "You said: hello"
    )


async def test_a_call_that_is_cut_off_at_its_length():
    """What came of its arguments is a reply: asked again, it would be as long, and paid again."""

    def event(kind: str, **rest: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **rest})}\n\n".encode()

    server = Server()
    await server.start()
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    server.streams(
        event("message_start", message=json.loads(message(stop=None))),
        event("content_block_start", index=0, content_block=call),
        event(
            "content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"at": "se'}
        ),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 9}),
        event("message_stop"),
    )
    provider = Anthropic(f"{server.url}/v1", "", Pooled())
    reply = provider.chat_reply(await provider.send("chat", body(provider), lambda text: None))
    await provider.close()
    await server.close()
    assert reply.tool_calls == [ToolCall("t", "look", '{"at": "se')]
    assert (reply.stop, reply.tokens.output) == ("length", 9)
    back = wire.chat_body(
        ChatRequest([Message("user", "x"), Message("assistant", "", reply.tool_calls)]), "m"
    )
    assert back["messages"][1]["content"][0]["input"] == {"malformed": '{"at": "se'}


async def test_a_slow_stream_is_no_fault(provider: Anthropic, sim: Simulator):
    import asyncio

    sim.faults.slow_stream(timedelta(minutes=5))
    heard: list[str] = []
    call = asyncio.ensure_future(provider.send("chat", body(provider), heard.append))
    while not call.done():
        await sim.advance(timedelta(minutes=5))
        await asyncio.sleep(0.001)
    assert provider.chat_reply(await call).text == "".join(heard) == "You said: hello"


async def test_proxies_and_keys(sim: Simulator, provider: Anthropic):
    for trouble in (sim.faults.reply_html, sim.faults.empty_reply, sim.faults.close_connection):
        trouble()
        with pytest.raises(CallFault) as caught:
            await provider.send("chat", body(provider), None)
        assert caught.value.again
    wrong = Anthropic(sim.base_url, "sk-ant-wrong-0123456789", Pooled())
    with pytest.raises(CallFault) as caught:
        await wrong.send("chat", body(wrong), None)
    await wrong.close()
    assert (caught.value.status, caught.value.again, caught.value.code) == (
        401,
        False,
        "authentication_error",
    )
    assert "0123456789" not in f"{caught.value!r}{wrong!r}"


async def test_rate_limits_are_heard():
    server = Server()
    await server.start()
    server.answers(json.loads(message()), anthropic_ratelimit_requests_remaining="7")
    provider = Anthropic(f"{server.url}/v1", "k", Pooled())
    heard: list[Any] = []
    await provider.send("chat", body(provider), None, heard.append)
    await provider.close()
    await server.close()
    assert [each.requests for each in heard] == [7]
    assert server.requests[0].headers["anthropic-version"] == "2023-06-01"
    assert server.requests[0].headers["x-api-key"] == "k"
    assert server.requests[0].path == "/v1/messages"


# ---------------------------------------------------------------- batches
async def test_a_batch_from_submission_to_results(sim: Simulator, provider: Anthropic):
    sim.when("rude").reply(Failure(400, "Too rude."))
    sim.when("busy").reply(Failure(529))
    job = await submit(provider, *((text, body(provider, text)) for text in ("kind", "rude", "busy")))
    assert (job.over, job.status, job.total) == (False, "in_progress", 3)
    await sim.advance(HOUR / 2)
    assert not (await provider.poll(job.id)).over
    await sim.advance(HOUR)
    job = await provider.poll(job.id)
    assert (job.over, job.status, job.done, job.failed, job.total) == (True, "ended", 1, 2, 3)
    found = await results(provider, job)
    assert provider.chat_reply(found["kind"].body).text == "You said: kind"
    assert [(found[id].status, found[id].code) for id in ("rude", "busy")] == [
        (400, "invalid_request_error"),
        (529, "overloaded_error"),
    ]
    assert b"Too rude." in found["rude"].body
    await provider.cancel(job.id)  # which comes too late, and is fine


async def test_expired_and_cancelled_lines(sim: Simulator):
    async with Simulator(clock=VirtualClock(), batch_time=40 * HOUR) as sim:
        provider = Anthropic(sim.base_url, "", Pooled())
        each = [(f"l{n}", body(provider, "hi")) for n in range(8)]
        job = await submit(provider, *each)
        await sim.finish()
        found = await results(provider, await provider.poll(job.id))
        assert {(line.status, line.code) for line in found.values()} == {(200, ""), (0, "batch_expired")}
        job = await submit(provider, *each)
        await sim.advance(20 * HOUR)
        await provider.cancel(job.id)
        await sim.finish()
        found = await results(provider, await provider.poll(job.id))
        assert {(line.status, line.code) for line in found.values()} == {(200, ""), (0, "batch_cancelled")}
        await provider.close()


async def test_what_is_marked_is_kept_for_an_hour_in_a_batch(sim: Simulator, provider: Anthropic):
    tricky = 'say "cache_control":{"type":"ephemeral"} ' + "x" * 5000
    asked = provider.chat_body(ChatRequest([Message("system", tricky), *as_messages("x")]), "m")
    job = await submit(provider, ("a", msgspec.json.encode(asked)))
    await sim.finish()
    said = msgspec.json.decode((await results(provider, await provider.poll(job.id)))["a"].body)
    assert said["usage"]["cache_creation"]["ephemeral_1h_input_tokens"] > 1000
    [file] = [file for file in sim.files.all("anthropic") if file.purpose == "requests"]
    sent = msgspec.json.decode(sim.files.content(file.id))["params"]
    assert sent["system"] == [
        {"type": "text", "text": tricky, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]


async def test_an_orphan_is_known_by_its_ids_once_it_is_over(sim: Simulator, provider: Anthropic):
    """Batches have no label: those of as many lines are looked at, when their results can be."""
    since = sim.clock.now()
    two = [(f"l{n}", body(provider, "hi")) for n in range(2)]
    names = [f"{n}" * 32 for n in range(4)]
    jobs = [await submit(provider, *two, nonce=name) for name in names[:3]]
    await submit(provider, ("alone", body(provider, "hi")), nonce=names[3])
    known = {jobs[0].id, jobs[2].id}
    found = await provider.find(names[1], "requests", since, lines=2, others=known)
    assert found is not None
    assert (found.id, found.sure) == (jobs[1].id, False)
    assert await provider.find(names[1], "requests", since, lines=3) is None
    await sim.finish()
    for job, name in zip(jobs, names, strict=False):
        found = await provider.find(name, "requests", since, lines=2)
        assert found is not None
        assert (found.id, found.sure, found.over) == (job.id, True, True)
    assert await provider.find("f" * 32, "requests", since, lines=2) is None
    later = since + 10 * HOUR.total_seconds()
    assert await provider.find(names[1], "requests", later, lines=2) is None


async def test_orphans_whose_results_are_gone(sim: Simulator, provider: Anthropic):
    sim.faults.no_output_file()
    await submit(provider, ("a", body(provider)))
    await sim.finish()
    assert await provider.find(NONCE, "requests", 0, lines=1) is None
    sim.faults.reply_html(on="results")
    await submit(provider, ("a", body(provider)))
    await sim.finish()
    with pytest.raises(CallFault):
        await provider.find(NONCE, "requests", 0, lines=1)


@pytest.mark.parametrize("spoil", ["empty_reply", "half_line", "fail"])
async def test_an_orphan_whose_results_cannot_be_read_is_doubtful(
    sim: Simulator, provider: Anthropic, spoil: str
):
    """They may be said not to be there for a moment, though the batch has their address."""
    if spoil == "half_line":
        sim.faults.half_line()
    job = await submit(provider, ("a", body(provider)))
    await sim.finish()
    if spoil == "empty_reply":
        sim.faults.empty_reply(on="results")
    elif spoil == "fail":
        sim.faults.fail(status=404, on="results")
    found = await provider.find(NONCE, "requests", 0, lines=1)
    assert found is not None
    assert (found.id, found.sure) == (job.id, False)
    if spoil != "half_line":
        found = await provider.find(NONCE, "requests", 0, lines=1)
        assert found is not None
        assert found.sure


async def test_results_that_aren_t_what_they_should_be(sim: Simulator, provider: Anthropic):
    async def over() -> RemoteJob:
        job = await submit(provider, *((f"l{n}", body(provider)) for n in range(3)))
        await sim.finish()
        return await provider.poll(job.id)

    label = NONCE[:16]
    sim.faults.drop_line(f"l0-{label}")
    sim.faults.wrong_id(f"l1-{label}")
    sim.faults.double_line(f"l2-{label}")
    told = [line.id async for line in provider.results(await over()) if isinstance(line, LineResult)]
    assert sorted(told) == ["l2", "l2", "unknown-1-1"]
    sim.faults.half_line()
    kinds = [isinstance(line, LineResult) async for line in provider.results(await over())]
    assert kinds == [True, True, False]
    sim.faults.empty_error_file_id()
    job = await over()
    assert len(await results(provider, job)) == 3  # it is asked for where it has to be
    for trouble in (
        sim.faults.reply_html,
        sim.faults.empty_reply,
        sim.faults.close_connection,
        sim.faults.fail,
    ):
        trouble(2, on="results")  # a connection that turns out to be dead is tried anew once
        with pytest.raises(CallFault) as caught:
            await results(provider, job)
        assert caught.value.again
        sim.faults.take("results", "html", "empty", "refuse", "fail")
    sim.faults.no_output_file()
    with pytest.raises(CallFault) as caught:
        await results(provider, await over())
    assert caught.value.status == 404


async def test_ids_that_don_t_fit(sim: Simulator, provider: Anthropic):
    for bad in ("a:b", "a" * 48, ""):
        with pytest.raises(InvalidValue, match="47 letters"):
            await submit(provider, (bad, body(provider)))
    job = await submit(provider, ("f" * 32, body(provider)), ("a-b_c", body(provider)))
    await sim.finish()
    assert set(await results(provider, await provider.poll(job.id))) == {"f" * 32, "a-b_c"}
