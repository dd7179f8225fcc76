"""Requests that are the same are paid once where the caller allows it: in one job, across runs, modes and crashes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.errors import ModelFailed, Truncated
from segue.model.run import Usage
from segue.runtime.lanes.lanes import LEASE
from segue.runtime.proof import verify
from segue.runtime.receipt import total
from segue.stores import open_store
from segue.testing.crash import Mortal
from segue.testing.simulator import Failure, Said, Simulator
from tests.runtime.world import World

WEEK = timedelta(days=7)
ROWS, PROMPTS = 60, 5


@segue.flow(name="reuse.ask")
async def ask(number: int) -> str:
    return await segue.generate(f"prompt {number % PROMPTS}")


@segue.flow(name="reuse.told")
async def told(prompt: str) -> tuple[str, bool]:
    reply = await segue.generate(prompt, returns=segue.Reply[str])
    return reply.value, reply.reused


@segue.flow(name="reuse.twice")
async def twice(prompt: str) -> list[str]:
    return list(await asyncio.gather(*(segue.generate(prompt) for _ in range(3))))


@segue.flow(name="reuse.anew")
async def anew(prompt: str) -> str:
    return await segue.generate(prompt, reuse=False)


@segue.flow(name="reuse.vectors")
async def vectors(text: str) -> int:
    return len(await segue.embed([text, "another"]))


@segue.flow(name="reuse.lost")
async def lost(prompt: str) -> str:
    """Waits for its answer for a minute only."""
    try:
        async with segue.timeout(timedelta(seconds=60)):
            return await segue.generate(prompt)
    except TimeoutError:
        return "lost"


@pytest.fixture(params=["memory", "sqlite"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(tmp_path)
    world.store = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'runs.db'}"  # type: ignore[attr-defined]
    yield world
    await world.sim.close()


def engine(world: World, **options: Any) -> segue.Engine:
    return world.engine(world.store, **{"reuse": True, **options})  # type: ignore[attr-defined]


def paid(sim: Simulator) -> list[str]:
    """The digests of the requests that were paid."""
    return [entry.sha256 for entry in sim.ledger.lines() if entry.paid]


async def mapped(desk: segue.Engine, flow: Any, rows: Any, job: str = "job", **how: Any) -> list[Any]:
    async with asyncio.timeout(30):
        outcomes = [outcome async for outcome in desk.map(flow, rows, id=job, **how)]
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in sorted(outcomes, key=lambda outcome: outcome.index)]


async def used(desk: segue.Engine, job: str = "job") -> dict[str, int]:
    """Calls by lane."""
    uses = total(use for head in (await desk.store.newest(job=job))[0] for use in head.usage)
    return {use.lane: use.calls for use in uses}


async def test_a_line_whose_commit_brought_no_mail_is_nothing_to_tell(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.simulator()
    async with engine(world) as desk:
        await mapped(desk, ask, range(PROMPTS))
    gc.collect()  # asyncio tells of lost errors then
    assert [record.getMessage() for record in caplog.records] == []


EXPECTED = [f"You said: prompt {number % PROMPTS}" for number in range(ROWS)]


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_job_pays_each_request_once(world: World, mode: str) -> None:
    sim = await world.simulator()
    async with engine(world, mode=mode) as desk:
        assert await mapped(desk, ask, range(ROWS)) == EXPECTED
        assert await used(desk) == {mode: PROMPTS, "reused": ROWS - PROMPTS}
        assert await mapped(desk, ask, range(ROWS), "again") == EXPECTED
        assert await used(desk, "again") == {"reused": ROWS}
        assert await desk.store.lanes() == []
        for head in await desk.store.runs():
            await verify.replay_stored(desk.worker, desk.store, head)
    assert len(paid(sim)) == len(set(paid(sim))) == PROMPTS


@pytest.mark.parametrize("first", ["live", "batch"])
async def test_what_one_mode_paid_the_other_takes(world: World, first: str) -> None:
    sim = await world.simulator()
    async with engine(world, mode=first) as desk:
        assert await desk.run(told("hello")) == ("You said: hello", False)
        other = "batch" if first == "live" else "live"
        again = await desk.run(told("hello"), mode=other, id="again")  # type: ignore[arg-type]  # one of the two
        assert again == ("You said: hello", True)
        assert len(await desk.store.line_counts()) <= 1  # no line was left open
        assert (await desk.head("again")).fence == 1  # it never left memory
        await verify.replay_stored(desk.worker, desk.store, await desk.head("again"))
        (use,) = (await desk.head("again")).usage
        assert (use.lane, use.calls) == ("reused", 1)
        assert use.input_tokens > 0
    assert len(paid(sim)) == 1


async def test_without_it_nothing_is_kept_or_taken(world: World) -> None:
    sim = await world.simulator()
    async with engine(world, reuse=None, mode="live") as desk:
        for _ in range(2):
            assert await desk.run(told("hello")) == ("You said: hello", False)
        for _ in range(2):
            assert await desk.run(told("hello"), reuse=True) in [
                ("You said: hello", each) for each in (True, False)
            ]
        with pytest.raises(ValueError, match="reuse must be longer than nothing"):
            await desk.run(told("x"), reuse=timedelta(0))
    assert len(paid(sim)) == 3


async def test_a_call_may_ask_anew(world: World) -> None:
    sim = await world.simulator()
    async with engine(world, mode="live") as desk:
        for _ in range(2):
            await desk.run(told("hello"))
            await desk.run(anew("hello"))
    assert len(paid(sim)) == 3


async def test_calls_of_one_run(world: World) -> None:
    sim = await world.simulator()
    async with engine(world) as desk:
        for mode in ("live", "batch"):
            assert await desk.run(twice(mode), mode=mode) == [f"You said: {mode}"] * 3
    assert len(paid(sim)) == 2


async def test_an_answer_that_is_too_old_is_asked_anew_and_takes_its_place(world: World) -> None:
    sim = await world.simulator()
    async with engine(world, mode="live") as desk:
        await desk.run(told("hello"))
        world.clock.moved += timedelta(days=8).total_seconds()
        assert (await desk.run(told("hello"), reuse=WEEK))[1] is False
        assert (await desk.run(told("hello"), reuse=WEEK))[1] is True
        assert await desk.forget(older_than=WEEK) == 0
        assert await desk.forget() == 1
        assert (await desk.run(told("hello")))[1] is False
    assert len(paid(sim)) == 3


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_embeddings(world: World, mode: str) -> None:
    sim = await world.simulator()
    async with engine(world, mode=mode, model="far:text-embedding-3-small") as desk:
        for _ in range(2):
            assert await desk.run(vectors("hello")) == 2
    assert len(paid(sim)) == 1


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_an_answer_that_was_cut_off_is_shared_but_not_kept(world: World, mode: str) -> None:
    sim = await world.simulator()
    sim.when("long").reply(Said("far too long a", stop="length"))
    async with engine(world, mode=mode) as desk:
        for _ in range(2):
            with pytest.raises(Truncated):
                await desk.run(twice("long"))
    assert len(paid(sim)) == 2


async def test_an_error_is_all_of_theirs(world: World) -> None:
    sim = await world.simulator()
    sim.when("bad").reply(Failure(400))
    async with engine(world) as desk:
        outcomes = [outcome async for outcome in desk.map(told, ["bad"] * 4, id="job")]
        assert [type(outcome.error) for outcome in outcomes] == [ModelFailed] * 4
        assert await desk.store.line_counts() == {"error": 4}
    assert len(list(sim.ledger.lines("batch"))) == 1


async def test_a_line_that_goes_round_again_brings_its_followers(world: World) -> None:
    sim = await world.simulator()
    sim.when("hello").reply(Failure(500), "You said: hello")
    async with engine(world) as desk:
        assert await mapped(desk, told, ["hello"] * 4) == [
            ("You said: hello", each) for each in (False, True, True, True)
        ]
    assert len(paid(sim)) == 1


async def test_who_leaves_makes_room_for_the_next(world: World) -> None:
    """The one that was to be sent is given up before it is: another is sent in its place, once."""
    sim = await world.simulator()
    async with engine(world, mode=segue.Batch(max_age=timedelta(hours=1)), worker=True) as desk:
        desk.is_busy = lambda: True  # type: ignore[method-assign]  # so that lines wait for company
        desk.lanes._busy = desk.is_busy
        first = await desk.start(lost("hello"), id="first")
        while not await desk.store.line_counts():
            await asyncio.sleep(0.005)
        others = [await desk.start(told("hello"), id=f"other {number}") for number in range(3)]
        while (await desk.store.line_counts()).get("following") != 3:
            await asyncio.sleep(0.005)
        assert await first == "lost"
        assert await desk.store.line_counts() == {"cancelled": 1, "waiting": 1, "following": 2}
        desk.lanes._busy = lambda: False
        desk.caretaker.look()
        async with asyncio.timeout(30):
            assert [await other for other in others] == [
                ("You said: hello", each) for each in (False, True, True)
            ]
    assert len(paid(sim)) == 1


async def test_who_leaves_a_job_is_answered_for_the_others_who_pay(world: World) -> None:
    """The same where it is in a provider's job already: nothing is sent twice, and one of those left counts it."""
    sim = await world.simulator(batch_time=timedelta(seconds=0.3))
    async with engine(world, mode="batch") as desk:
        first = await desk.start(lost("hello"), id="first")
        while not (await desk.store.line_counts()).get("taken"):
            await asyncio.sleep(0.005)
        others = [await desk.start(told("hello"), id=f"other {number}") for number in range(2)]
        while (await desk.store.line_counts()).get("following") != 2:
            await asyncio.sleep(0.005)
        await first.cancel()
        async with asyncio.timeout(30):
            assert sorted([await other for other in others]) == [
                ("You said: hello", each) for each in (False, True)
            ]
        assert {use.lane for use in total(use for head in await desk.store.runs() for use in head.usage)} == {
            "batch",
            "reused",
        }
        assert (await desk.head("first")).usage == []
        assert await desk.store.unclaimed() == []
    assert len(paid(sim)) == 1


async def test_a_line_whose_call_would_be_live_by_now_counts_as_what_it_was(world: World) -> None:
    modes: list[Any] = ["batch"]

    @segue.flow
    async def changed() -> str:
        return await segue.generate("prompt", mode=modes.pop() if modes else "live")

    await world.simulator()
    async with engine(world) as desk:
        assert await desk.run(changed(), id="it") == "You said: prompt"
        assert not modes
        assert [use.lane for use in (await desk.head("it")).usage] == ["batch"]


async def test_the_receipt_says_what_was_reused(world: World) -> None:
    await world.simulator()
    async with engine(world) as desk:
        await mapped(desk, ask, range(ROWS))
        receipt = await desk.receipt(job="job")
        line = next(line for line in receipt.lines if line.lane == "reused")
        assert (line.calls, line.usd) == (ROWS - PROMPTS, 0.0)
        priced = desk.price([Usage("openai:gpt-5-mini", "reused", 10, 1000, 1000)])
        assert priced.usd == 0.0
        assert priced.usd_if_live > 0


async def test_a_watcher_sees_the_text_and_that_it_is_no_new_one(world: World) -> None:
    await world.simulator()
    async with engine(world, mode="live") as desk:
        await desk.run(told("hello"))
        run = await desk.start(told("hello"))
        events = [event async for event in run]
        assert "".join(event.text for event in events if isinstance(event, segue.Token)) == "You said: hello"
        (recorded,) = [event for event in events if isinstance(event, segue.Recorded)]
        assert recorded.reused


@segue.flow(name="reuse.many")
async def many(number: int) -> str:
    return await segue.generate(f"prompt {number % 10}")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_thousand_rows_of_ten_prompts_pay_ten(tmp_path: Path, mode: str) -> None:
    """Across a process that dies in the middle, and in a second job."""
    world, path = World(tmp_path), f"sqlite:{tmp_path / 'runs.db'}"
    sim = await world.simulator(latency=timedelta(milliseconds=20))
    expected = [f"You said: prompt {number % 10}" for number in range(1000)]
    died = asyncio.Event()
    inner = open_store(path)
    mortal = Mortal(inner, 450)
    mortal.died = died.set
    desk = world.engine(mortal, reuse=True, mode=mode)  # type: ignore[arg-type]
    async with desk:
        life = asyncio.ensure_future(mapped(desk, many, range(1000)))
        await asyncio.wait_for(died.wait(), 30)
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
    await inner.close()
    world.clock.moved += 2 * LEASE
    async with world.engine(path, reuse=True, mode=mode) as desk:
        assert await mapped(desk, many, range(1000)) == expected
        assert await used(desk) == {mode: 10, "reused": 990}
        assert await mapped(desk, many, range(1000), "again") == expected
        assert await used(desk, "again") == {"reused": 1000}
        assert await desk.store.lanes() == []
    assert len(set(paid(sim))) == 10
    if mode == "batch":
        assert len(paid(sim)) == 10
    else:
        assert len(paid(sim)) <= 20  # those under way when it died
    await world.sim.close()
