from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx2
import openai
import pytest

from segue.errors import InvalidValue
from segue.testing.simulator import Simulator
from segue.testing.simulator.faults import Faults
from tests.testing.simulator.world import World, ids, read, row, says, submit


def statuses(simulator: Simulator) -> list[int]:
    return [entry.status for entry in simulator.ledger.lines("live")]


async def test_a_page_from_a_proxy(world: World):
    simulator, client = await world.pair()
    simulator.faults.reply_html()
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(**says("x"))
    assert caught.value.status_code == 502
    assert caught.value.response.headers["content-type"].startswith("text/html")
    assert "<html>" in caught.value.response.text
    await client.chat.completions.create(**says("x"))
    assert statuses(simulator) == [502, 200]


async def test_errors_so_many_times_on_one_route(world: World):
    simulator, client = await world.pair()
    simulator.faults.fail(2, on="chat")
    await client.embeddings.create(model="e", input="x")
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(**says("x"))
    await client.chat.completions.create(**says("x"))
    assert statuses(simulator) == [200, 500, 500, 200]


async def test_too_many_requests(world: World):
    simulator, client = await world.pair()
    simulator.faults.fail(status=429, retry_after=timedelta(seconds=7))
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**says("x"))
    assert caught.value.response.headers["retry-after"] == "7"


async def test_a_connection_that_is_closed_before_anything_is_done(world: World):
    simulator, client = await world.pair()
    simulator.faults.close_connection()
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(**says("x"))
    assert [(entry.status, entry.paid) for entry in simulator.ledger.lines()] == [(0, False)]
    await client.chat.completions.create(**says("x"))


async def test_a_reply_that_is_lost_was_paid(world: World):
    simulator, client = await world.pair()
    simulator.faults.lose_reply(on="chat")
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(**says("x"))
    assert statuses(simulator) == [200]


async def test_a_batch_whose_creation_was_never_confirmed_is_there(world: World):
    simulator, client = await world.pair()
    simulator.faults.lose_reply(on="/batches")
    with pytest.raises(openai.APIConnectionError):
        await submit(client, row("a"), metadata={"nonce": "n1"})
    [orphan] = [batch async for batch in client.batches.list()]
    assert orphan.metadata == {"nonce": "n1"}


async def test_an_empty_reply(world: World):
    simulator, client = await world.pair()
    simulator.faults.empty_reply()
    raw = await client.chat.completions.with_raw_response.create(**says("x"))
    assert raw.content == b""
    assert statuses(simulator) == [200]


async def test_a_delay_on_the_simulator_s_clock(world: World):
    simulator, client = await world.pair()
    simulator.faults.delay(timedelta(hours=1), on="chat")
    call = asyncio.create_task(client.chat.completions.create(**says("x")))
    while not simulator.clock._sleepers:
        await asyncio.sleep(0.001)
    assert statuses(simulator) == []
    await simulator.advance(timedelta(hours=1))
    await call


@pytest.mark.parametrize("streams", [1, 2])
async def test_a_stream_that_ends_too_early_looks_like_a_whole_one(world: World, streams: int):
    simulator, client = await world.pair()
    simulator.faults.cut_stream_after(2, times=streams)
    for _ in range(streams):
        stream = await client.chat.completions.create(**says("a b c"), stream=True)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You "
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None]
    whole = await client.chat.completions.create(**says("a b c"), stream=True)
    assert len([chunk async for chunk in whole]) == 7
    cut, *_, last = simulator.ledger.lines()
    assert 0 < cut.tokens_out < last.tokens_out
    assert cut.tokens_in == last.tokens_in


async def test_a_stream_that_breaks_off(world: World):
    simulator, client = await world.pair()
    simulator.faults.cut_stream_after(2, abort=True)
    stream = await client.chat.completions.create(**says("x"), stream=True)
    heard = []
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        async for chunk in stream:
            heard.append(chunk)
    assert len(heard) == 2
    assert statuses(simulator) == [200]


async def test_a_line_that_is_missing_and_one_that_nobody_asked_for(world: World):
    simulator, client = await world.pair()
    simulator.faults.drop_line("a")
    simulator.faults.wrong_id("b")
    for expected in ({"c"}, {"a", "b", "c"}):
        batch = await submit(client, row("a"), row("b"), row("c"))
        await simulator.finish()
        batch = await client.batches.retrieve(batch.id)
        assert batch.request_counts.completed == 3
        found = ids(await read(client, batch.output_file_id))
        assert set(found) & {"a", "b", "c"} == expected
        assert len(found) == max(2, len(expected))
    assert simulator.ledger.counts()["batch_paid"] == 6


async def test_half_a_line(world: World):
    simulator, client = await world.pair()
    simulator.faults.half_line()
    batch = await submit(client, row("a"), row("b"))
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    content = (await client.files.content(batch.output_file_id)).content
    first, rest = content.split(b"\n")
    assert first.endswith(b"}")
    assert rest.startswith(b'{"id"')
    assert not rest.endswith(b"}")
    assert len(first) / 3 < len(rest) < len(first)


async def test_no_output_file(world: World):
    simulator, client = await world.pair()
    simulator.faults.no_output_file()
    batch = await submit(client, row("a"))
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert simulator.ledger.counts()["batch_paid"] == 1


async def test_an_error_file_without_a_name(world: World):
    simulator, client = await world.pair()
    simulator.faults.empty_error_file_id()
    batch = await submit(client, row("a"))
    await simulator.finish()
    assert (await client.batches.retrieve(batch.id)).error_file_id == ""


async def test_a_batch_that_fails_for_a_reason_of_the_provider_s(world: World):
    simulator, client = await world.pair()
    simulator.faults.fail_batch("token_limit_exceeded")
    for expected in ("failed", "completed"):
        batch = await submit(client, row("a"))
        await simulator.finish()
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == expected


@pytest.mark.parametrize("fault", ["delay", "slow_stream", "late_validation"])
def test_times_of_faults_say_their_unit(fault: str) -> None:
    with pytest.raises(InvalidValue, match=r"by: expected a timedelta, .* 0\.5"):
        getattr(Faults(), fault)(0.5)
