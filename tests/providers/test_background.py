"""Between live and batch: what is wanted within a window runs in the background, and is there in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import segue
from segue.errors import ContextOverflow, ModelFailed
from segue.ports.provider import CallFault, Provider, Windowed
from segue.providers import make, resolve
from segue.testing.simulator import Failure, Said, Simulator, ToolCall
from segue.transports.pooled import Pooled
from tests.crash.remote import FastClock

HOUR = timedelta(hours=1)


@segue.flow(name="background.look")
async def look(place: str) -> str:
    return await segue.generate(f"How is {place}?", tools=[weather])


async def weather(place: str) -> str:
    """The weather."""
    return f"{place} is calm"


def rule(body: dict[str, Any]) -> Any:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"Well: {last['content']}"
    return Said("", ToolCall("weather", {"place": last["content"][7:-1]}), thinking="I should look.")


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(rule=rule, batch_time=timedelta(seconds=0.1)) as sim:
        yield sim


def engine(sim: Simulator, within: timedelta, name: str = "openai-responses") -> segue.Engine:
    mode = segue.Batch(within=within)
    return segue.Engine("memory:", model=f"{name}:m@{sim.base_url}", mode=mode, clock=FastClock(50))


@pytest.mark.parametrize(
    ("within", "kind", "lane"),
    [
        (24 * HOUR, "batch", "batch"),
        (12 * HOUR, "background", "8h"),
        (8 * HOUR, "background", "8h"),
        (3 * HOUR, "background", "2h"),
        (HOUR, "background", "2h"),
    ],
)
async def test_the_slowest_way_that_is_in_time(sim: Simulator, within: timedelta, kind: Any, lane: str):
    async with engine(sim, within) as here, asyncio.timeout(20):
        outcomes = [each async for each in here.map(look, [f"sea {n}" for n in range(40)], id="job")]
        receipt = await here.receipt(job="job")
        assert await here.store.lanes() == []
    assert sorted(each.value for each in outcomes) == sorted(f"Well: sea {n} is calm" for n in range(40))
    assert {entry.kind for entry in sim.ledger.lines()} == {kind}
    assert (sim.ledger.counts()["paid"], sim.ledger.counts()["paid_twice"]) == (80, 0)
    assert [(line.lane, line.calls) for line in receipt.lines] == [(lane, 80)]


async def test_who_has_no_such_way_goes_by_batch(sim: Simulator):
    async with engine(sim, 2 * HOUR, "openai") as here, asyncio.timeout(20):
        assert await here.run(look("the sea")) == "Well: the sea is calm"
    assert {entry.kind for entry in sim.ledger.lines()} == {"batch"}


@segue.flow(name="background.say")
async def say(place: str) -> str:
    return await segue.generate(f"How is {place}?", max_tokens=20)


async def test_what_answers_cost_that_come_side_by_side_is_off_the_budget():
    async with (
        Simulator(batch_time=timedelta(seconds=0.1)) as sim,
        engine(sim, 2 * HOUR) as here,
        asyncio.timeout(20),
    ):
        budget = segue.Budget(tokens=100_000)
        rows = [row async for row in here.map(say, [f"sea {n}" for n in range(40)], id="job", budget=budget)]
        assert [row.error for row in rows] == [None] * 40
        (standing,) = await here.store.budgets(["job:job"])
        billed = sum(entry.tokens_in + entry.tokens_out for entry in sim.ledger.lines() if entry.paid)
    assert (standing.spent.tokens, standing.reserved.tokens) == (billed, 0)
    assert billed > 0


async def test_what_fails_in_the_background_goes_round_again_or_is_told(sim: Simulator):
    sim.when("once").reply(Failure(500, "It broke."), "fine")
    sim.when("long").reply(Failure(400, "Your input exceeds the context window of this model."))
    sim.when("bad").reply(Failure(400, "No.", code="invalid_prompt"))
    async with engine(sim, 2 * HOUR) as here, asyncio.timeout(20):
        assert await here.run(look("once")) == "fine"
        with pytest.raises(ContextOverflow):
            await here.run(look("long"))
        with pytest.raises(ModelFailed, match="invalid_prompt"):
            await here.run(look("bad"))
    assert len(sim.ledger) == 4


async def test_what_is_refused_at_once_and_what_passes(sim: Simulator):
    sim.when("fine").reply("fine")
    sim.faults.fail(2, status=429, on="responses")
    sim.faults.reply_html(2, on="responses")
    async with engine(sim, 2 * HOUR) as here, asyncio.timeout(20):
        assert await here.run(look("fine")) == "fine"
    assert sim.ledger.counts()["paid"] == 1


@pytest.fixture
async def provider(sim: Simulator) -> AsyncIterator[Provider]:
    provider = make(resolve(f"openai-responses:m@{sim.base_url}", {}), {}, Pooled())
    yield provider
    await provider.close()


async def test_one_response_is_one_job(sim: Simulator, provider: Provider):
    sim.when("fine").reply("fine")
    assert isinstance(provider, Windowed)
    background = provider.windows[2 * HOUR]

    async def line() -> AsyncIterator[tuple[str, bytes]]:
        yield "line", b'{"model":"m","input":"fine","store":false}'

    job = await background.submit(await background.upload(line(), "chat", "n"), "chat", "n", line())
    assert (job.over, job.nonce, job.total) == (False, "n", 1)
    assert await background.find("n", "", 0.0) is None
    async with asyncio.timeout(5):
        while not (job := await background.poll(job.id)).over:
            await asyncio.sleep(0.005)
    (result,) = [each async for each in background.results(job)]
    assert not isinstance(result, str)
    assert (result.id, result.status, background.chat_reply(result.body).text) == ("line", 200, "fine")
    (entry,) = sim.ledger.lines("background")
    assert entry.custom_id == "line"
    await background.cancel(job.id)  # which comes too late, and is fine

    job = await background.submit("none", "chat", "n", line())
    await background.cancel(job.id)
    (gone,) = [each async for each in background.results(await background.poll(job.id))]
    assert not isinstance(gone, str)
    assert (gone.id, gone.code) == ("line", "batch_cancelled")
    with pytest.raises(CallFault) as caught:
        await background.poll("resp_unknown")
    assert caught.value.status == 404


async def test_the_body_of_a_line_is_the_same_in_every_way(sim: Simulator, provider: Provider):
    assert isinstance(provider, Windowed)
    from segue.model.chat import ChatRequest, as_messages

    request = ChatRequest(as_messages("hi"), extra={"background": True, "stream": True})
    bodies = [each.chat_body(request, "m") for each in (provider, *provider.windows.values())]
    assert bodies[0] == bodies[1] == bodies[2]
    assert not {"background", "stream"} & set(msgspec.json.decode(msgspec.json.encode(bodies[0])))
