"""The provider against the simulator: the whole life of a batch, and what goes wrong in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest

from segue.model.chat import Answer, ChatRequest, ToolSpec, as_messages
from segue.ports.provider import CallFault, LineResult, Provider, RemoteJob
from segue.providers import make, resolve
from segue.testing.simulator import Limits, Simulator, ToolCall, ToolCalls, VirtualClock
from segue.transports.pooled import Pooled

HOUR = timedelta(hours=1)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(clock=VirtualClock(), batch_time=HOUR, key="right", limits=Limits()) as sim:
        yield sim


@pytest.fixture
async def provider(sim: Simulator) -> AsyncIterator[Provider]:
    environment = {"SIM_KEY": "right"}
    provider = make(resolve(f"openai:m@{sim.base_url}#SIM_KEY", environment), environment, Pooled())
    yield provider
    await provider.close()


def body(provider: Provider, text: str) -> bytes:
    return msgspec.json.encode(provider.chat_body(ChatRequest(as_messages(text)), "m"))


async def lines(*each: tuple[str, bytes]) -> AsyncIterator[tuple[str, bytes]]:
    for line in each:
        yield line


async def results(provider: Provider, job: RemoteJob) -> dict[str, LineResult]:
    found = [line async for line in provider.results(job)]
    assert all(isinstance(line, LineResult) for line in found)
    return {line.id: line for line in found if isinstance(line, LineResult)}


async def test_a_batch_from_upload_to_results(sim: Simulator, provider: Provider):
    sim.when("France").reply("Paris")
    sim.when("Peru").reply("Lima")
    asked = [(f"line-{place}", body(provider, f"the capital of {place}")) for place in ("France", "Peru")]
    file = await provider.upload(lines(*asked), "chat", "nonce-1")
    job = await provider.submit(file, "chat", "nonce-1")
    assert (job.over, job.nonce, job.file) == (False, "nonce-1", file)
    await sim.advance(HOUR / 2)
    assert not (await provider.poll(job.id)).over
    await sim.advance(HOUR)
    job = await provider.poll(job.id)
    assert (job.over, job.status, job.done, job.failed, job.total) == (True, "completed", 2, 0, 2)
    found = await results(provider, job)
    assert {id: provider.chat_reply(line.body).text for id, line in found.items()} == {
        "line-France": "Paris",
        "line-Peru": "Lima",
    }
    await provider.cancel(job.id)  # which comes too late, and is fine


async def test_an_orphan_is_found_by_nonce_and_by_file(sim: Simulator, provider: Provider):
    since = sim.clock.now()
    made = []
    for number in range(3):
        file = await provider.upload(lines(("a", body(provider, "hi"))), "chat", f"nonce-{number}")
        made.append(await provider.submit(file, "chat", f"nonce-{number}"))
    for job in made:
        for nonce, file in ((job.nonce, ""), ("unknown", job.file), (job.nonce, job.file)):
            found = await provider.find(nonce, file, since)
            assert found is not None
            assert found.id == job.id
    assert await provider.find("unknown", "file-unknown", since) is None


async def test_a_job_whose_answer_was_lost_is_found(sim: Simulator, provider: Provider):
    file = await provider.upload(lines(("a", body(provider, "hi"))), "chat", "n")
    sim.faults.lose_reply(on="/v1/batches")
    with pytest.raises(CallFault) as caught:
        await provider.submit(file, "chat", "n")
    assert caught.value.again
    found = await provider.find("n", file, sim.clock.now())
    assert found is not None
    assert found.file == file


async def test_an_expired_batch():
    async with Simulator(clock=VirtualClock(), batch_time=4 * HOUR, window=2 * HOUR) as sim:
        provider = make(resolve(f"openai:m@{sim.base_url}", {}), {}, Pooled())
        file = await provider.upload(lines(*((f"l{n}", body(provider, "hi")) for n in range(8))), "chat", "n")
        job = await provider.submit(file, "chat", "n")
        await sim.finish()
        job = await provider.poll(job.id)
        assert (job.status, job.over, len(job.files)) == ("expired", True, 2)
        found = await results(provider, job)
        await provider.close()
    kinds = [(line.status, line.code) for line in found.values()]
    assert len(kinds) == 8
    assert set(kinds) == {(200, ""), (0, "batch_expired")}


async def test_files_that_arent_what_they_should_be(sim: Simulator, provider: Provider):
    async def over() -> RemoteJob:
        file = await provider.upload(lines(*((f"l{n}", body(provider, "hi")) for n in range(3))), "chat", "n")
        job = await provider.submit(file, "chat", "n")
        await sim.finish()
        return await provider.poll(job.id)

    sim.faults.half_line()
    found = [line async for line in provider.results(await over())]
    assert [isinstance(line, LineResult) for line in found] == [True, True, False]

    sim.faults.empty_error_file_id()
    job = await over()
    assert len(job.files) == 1
    for trouble in (
        sim.faults.reply_html,
        sim.faults.empty_reply,
        sim.faults.close_connection,
        sim.faults.fail,
    ):
        trouble(2, on="content")  # a connection that turns out to be dead is tried anew once
        with pytest.raises(CallFault) as caught:
            await results(provider, job)
        assert caught.value.again
        sim.faults.take("content", "html", "empty", "refuse", "fail")
    assert len(await results(provider, job)) == 3

    sim.faults.no_output_file()
    assert await results(provider, await over()) == {}

    sim.faults.fail_batch("token_limit_exceeded", "Enqueued token limit reached")
    job = await over()
    assert job.rejected == "Enqueued token limit reached (token_limit_exceeded)"
    assert job.bad_lines == ()


async def test_a_bad_line_is_named(sim: Simulator, provider: Provider):
    good = body(provider, "hi")
    file = await provider.upload(lines(("a", good), ("b", b'"no object"'), ("c", good)), "chat", "n")
    job = await provider.submit(file, "chat", "n")
    await sim.finish()
    job = await provider.poll(job.id)
    assert (job.over, job.bad_lines) == (True, (2,))
    assert "line 2" in job.rejected


async def test_live_and_batch_bodies_say_the_same(sim: Simulator, provider: Provider):
    sim.when("weather").reply(ToolCalls(ToolCall("look", {"at": "sea"})))
    tool = ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
    request = ChatRequest(as_messages("the weather"), tools=[tool])
    asked = msgspec.json.encode(provider.chat_body(request, "m"))
    heard: list[str] = []
    plain = provider.chat_reply(await provider.send("chat", asked, None))
    streamed = provider.chat_reply(await provider.send("chat", asked, heard.append))
    file = await provider.upload(lines(("a", asked)), "chat", "n")
    job = await provider.submit(file, "chat", "n")
    await sim.finish()
    batched = provider.chat_reply((await results(provider, await provider.poll(job.id)))["a"].body)
    assert plain.stop == streamed.stop == batched.stop == "tool"
    for reply in (plain, streamed, batched):
        (call,) = reply.tool_calls
        assert (call.name, msgspec.json.decode(call.arguments)) == ("look", {"at": "sea"})
    assert plain.tokens == streamed.tokens == batched.tokens


async def test_an_answer_in_a_form_and_embeddings(sim: Simulator, provider: Provider):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    request = ChatRequest(as_messages("count"), answer=Answer("count", schema))
    asked = msgspec.json.encode(provider.chat_body(request, "m"))
    reply = provider.chat_reply(await provider.send("chat", asked, None))
    assert set(msgspec.json.decode(reply.text)) == {"n"}
    asked = msgspec.json.encode(provider.embed_body(["a", "b"], "m"))
    vectors, tokens = provider.embed_reply(await provider.send("embed", asked, None))
    assert (len(vectors), tokens > 0) == (2, True)


async def test_a_cut_stream(sim: Simulator, provider: Provider):
    sim.when("long").reply("one two three four five six")
    for aborts in (False, True):
        sim.faults.cut_stream_after(2, abort=aborts)
        with pytest.raises(CallFault) as caught:
            await provider.send("chat", body(provider, "long"), lambda text: None)
        assert caught.value.again


async def test_a_wrong_key(sim: Simulator):
    environment = {"SIM_KEY": "sk-wrong-0123456789"}
    provider = make(resolve(f"openai:m@{sim.base_url}#SIM_KEY", environment), environment, Pooled())
    with pytest.raises(CallFault) as caught:
        await provider.send("chat", body(provider, "hi"), None)
    await provider.close()
    assert (caught.value.status, caught.value.again, caught.value.code) == (401, False, "invalid_api_key")
