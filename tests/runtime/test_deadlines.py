"""Deadlines: which way calls go, and what becomes of those that would be late."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import DeadlineMissed, ModelFailed, StoreError
from segue.ports.provider import CallFault
from segue.providers.openai import OpenAI
from segue.runtime.lanes import lanes
from segue.runtime.lanes.promotion import _Round
from segue.runtime.receipt import total
from segue.testing.simulator import Pace, Simulator
from tests.runtime.world import World

ROWS = 6
#: Batches that take hours, and end at once when they are cancelled.
STUCK = Pace(validating=0.0, working=3600.0, finalizing=0.0, cancelling=0.0)
MINUTE = timedelta(minutes=1)


@segue.flow(name="deadlines.echo")
async def echo(number: int) -> str:
    return await segue.generate(f"row {number}")


@segue.flow(name="deadlines.asks")
async def asks(number: int) -> str:
    return await segue.ask(await echo(number), returns=str)


@segue.flow(name="deadlines.own")
async def own(number: int) -> str:
    return await segue.generate(f"row {number}", deadline=MINUTE)


@segue.flow(name="deadlines.parent")
async def parent(number: int) -> list[str]:
    return await segue.map(echo, range(number))


@pytest.fixture(params=["memory", "sqlite"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(tmp_path)
    world.store = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'runs.db'}"  # type: ignore[attr-defined]
    yield world
    await world.sim.close()


def engine(world: World, **options: Any) -> segue.Engine:
    return world.engine(world.store, **options)  # type: ignore[attr-defined]


async def mapped(engine: segue.Engine, **how: Any) -> list[Any]:
    async with asyncio.timeout(30):
        return [outcome async for outcome in engine.map(echo, range(ROWS), id="job", **how)]


def kinds(sim: Simulator) -> dict[str, int]:
    """How many requests were paid, by kind."""
    counts: dict[str, int] = {}
    for entry in sim.ledger.lines():
        if entry.paid:
            counts[entry.kind] = counts.get(entry.kind, 0) + 1
    return counts


async def test_without_knowledge_a_near_deadline_goes_live(world: World) -> None:
    sim = await world.simulator()
    async with engine(world, mode=None) as desk:
        assert all(outcome.ok for outcome in await mapped(desk, deadline=MINUTE))
        (use,) = total(use for head in (await desk.store.newest(job="job"))[0] for use in head.usage)
        assert (use.lane, use.calls) == ("live", ROWS)
        assert await desk.store.lanes() == []
    assert kinds(sim) == {"live": ROWS}


async def test_a_batch_that_was_fast_so_far_is_taken(world: World) -> None:
    sim = await world.simulator()
    for number in range(3):
        async with engine(world) as desk:
            assert await desk.run(echo(number)) == f"You said: row {number}"
            await desk.advance()
    if world.store == "memory:":  # type: ignore[attr-defined]
        return  # nothing is learned across processes
    async with engine(world, mode=None) as desk:
        assert all(outcome.ok for outcome in await mapped(desk, deadline=timedelta(hours=6)))
    assert kinds(sim) == {"batch": 3 + ROWS}


async def test_jobs_that_were_ended_since_nobody_needs_them_arent_taken_for_trouble(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Else what comes next would wait for minutes before it is sent."""
    sim = await world.simulator(pace=STUCK)
    async with engine(world, mode=None) as desk:
        await all_stuck(desk)
    assert len(sim.batches()) > 1
    assert "nothing came of" not in caplog.text


async def all_stuck(desk: segue.Engine) -> None:
    """Three calls whose jobs are ended after a while, for they went live."""
    mode = segue.Batch(within=timedelta(seconds=70), late="live")
    for number in range(3):
        assert await desk.run(echo(number), mode=mode) == f"You said: row {number}"
        async with asyncio.timeout(20):
            while await desk.store.lanes():
                await desk.advance()


async def test_jobs_that_were_ended_before_they_were_done_tell_of_no_speed(world: World) -> None:
    sim = await world.simulator(pace=STUCK)
    async with engine(world, mode=None) as desk:
        await all_stuck(desk)
        batches = len(sim.batches())
        assert batches
        assert await desk.run(echo(4), deadline=timedelta(minutes=5)) == "You said: row 4"
    assert len(sim.batches()) == batches


async def test_late_lines_of_a_stuck_job_go_live_and_the_job_is_ended(world: World) -> None:
    sim = await world.simulator(pace=STUCK)
    async with engine(world, mode=segue.Batch(within=timedelta(minutes=2), late="live")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
        (use,) = total(use for head in (await desk.store.newest(job="job"))[0] for use in head.usage)
        assert (use.lane, use.calls) == ("live", ROWS)
        assert await desk.store.unclaimed(job="job") == []
        async with asyncio.timeout(20):
            while await desk.store.lanes():
                await desk.advance()
    (batch,) = sim.batches()
    assert batch.status in ("cancelling", "cancelled")
    assert kinds(sim) == {"live": ROWS}


@pytest.mark.parametrize("status", [503, 404])
async def test_a_job_that_isnt_needed_is_asked_to_end_until_it_is_heard(world: World, status: int) -> None:
    sim = await world.simulator(pace=STUCK)
    sim.faults.fail(1, status=status, on="/cancel")
    async with engine(world, mode=segue.Batch(within=timedelta(minutes=2), late="live")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
        async with asyncio.timeout(20):
            while await desk.store.lanes():
                await desk.advance()
    assert kinds(sim) == {"live": ROWS}


async def test_lines_that_wait_unsubmitted_go_live_once(world: World) -> None:
    sim = await world.simulator()
    sim.faults.fail(10_000, status=503, on="files")
    async with engine(world, mode=segue.Batch(within=timedelta(minutes=2), late="live")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
    assert kinds(sim) == {"live": ROWS}


async def test_late_fail(world: World) -> None:
    await world.simulator(batch_time=timedelta(hours=1))
    async with engine(world, mode=segue.Batch(within=MINUTE, late="fail")) as desk:
        outcomes = await mapped(desk)
        assert [type(outcome.error) for outcome in outcomes] == [DeadlineMissed] * ROWS
        with pytest.raises(DeadlineMissed, match=r"gave no answer in time.*late='live'"):
            await desk.run(echo(1))


async def test_a_job_that_nobody_needs_any_more_isnt_submitted(world: World) -> None:
    """Its file is there, and all its lines went live while it couldn't be submitted."""
    sim = await world.simulator()
    sim.faults.fail(5, status=503, on="batches")
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=66), late="live")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
        async with asyncio.timeout(20):
            while await desk.store.lanes():
                await asyncio.sleep(0.01)
    assert sim.batches() == []
    assert kinds(sim) == {"live": ROWS}


async def test_what_fails_when_it_is_late_is_sent_until_then(world: World) -> None:
    """Its deadline is nearer than a live call would have to begin; many rows make that hours."""
    sim = await world.simulator()
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=50), late="fail")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
    assert kinds(sim) == {"batch": ROWS}


async def test_a_call_has_its_own_deadline(world: World) -> None:
    sim = await world.simulator(batch_time=timedelta(hours=1))
    async with engine(world, mode="batch") as desk:
        assert await desk.run(own(1)) == "You said: row 1"
    assert kinds(sim) == {"live": 1}


async def test_late_lines_go_live_while_their_lane_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch endpoint is out of order, and says to come back in an hour."""

    async def poll(*_: Any) -> Any:
        raise CallFault(503, "Overloaded", again=True, after=3600.0)

    monkeypatch.setattr(OpenAI, "poll", poll)
    sim = await world.simulator(pace=STUCK)
    begun = world.clock.now()
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=90), late="live")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
    assert world.clock.now() - begun < 90
    assert kinds(sim) == {"live": ROWS}


async def test_children_inherit_the_moment(world: World) -> None:
    sim = await world.simulator()
    async with engine(world, mode="batch") as desk:
        run = await desk.start(parent(3), deadline=MINUTE)
        assert len(await run) == 3
        heads = await desk.store.runs()
        assert len(heads) == 4
        assert len({head.spec.config.due for head in heads}) == 1
        mine = await desk.head(run.id)
        assert mine.spec.config.due == mine.spec.created + 60.0
    assert kinds(sim) == {"live": 3}


@pytest.mark.parametrize(("batch", "within", "lane"), [(4, 90, "batch"), (1, 62, "live")])
async def test_both_answers_come_and_one_is_unclaimed(
    world: World, batch: float, within: float, lane: str
) -> None:
    """The batch works on its lines beside the live calls, which are slow enough for both to be paid."""
    sim = await world.simulator(
        batch_time=timedelta(seconds=batch), latency=timedelta(seconds=1.5)
    )  # 80 s or 20, and 30 s by the engine's clock
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=within), late="live")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
        async with asyncio.timeout(20):
            while await desk.store.lanes():
                await desk.advance()
        claimed = total(use for head in (await desk.store.newest(job="job"))[0] for use in head.usage)
        waste = total(await desk.store.unclaimed(job="job"))
    paid: dict[str, tuple[int, int, int]] = {}
    for entry in sim.ledger.lines():
        if entry.paid:
            calls, given, got = paid.get(entry.kind, (0, 0, 0))
            paid[entry.kind] = calls + 1, given + entry.tokens_in, got + entry.tokens_out
    counted: dict[str, tuple[int, int, int]] = {}
    for use in [*claimed, *waste]:
        calls, given, got = counted.get(use.lane, (0, 0, 0))
        counted[use.lane] = calls + use.calls, given + use.input_tokens, got + use.output_tokens
    assert sum(use.calls for use in claimed) == ROWS
    assert lane in {use.lane for use in waste}
    assert counted == paid


async def test_less_time_than_a_live_call_needs_is_warned_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    sim = await world.simulator()
    async with engine(world) as opened:
        await mapped(opened, mode=segue.Batch(within=timedelta(seconds=36), late="live"))
    assert kinds(sim) == {"live": ROWS}
    (said,) = [
        record.getMessage() for record in caplog.records if "all its calls go live" in record.getMessage()
    ]
    assert "60 s before its time" in said
    assert "they have 36 s" in said


async def test_how_long_late_calls_took_says_when_the_next_ones_begin(world: World) -> None:
    sim = await world.simulator()
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=50), late="live")) as desk:
        for number in range(4):
            assert await desk.run(echo(number)) == f"You said: row {number}"
    assert kinds(sim) == {"live": 3, "batch": 1}


@pytest.mark.parametrize("lane", ["another", "the same"])
async def test_a_slow_answer_of_a_provider_holds_up_no_late_line(
    world: World, lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another lane, nor of its own."""
    polled, answer = asyncio.Event(), asyncio.Event()
    poll = OpenAI.poll

    async def slow(self: OpenAI, job: str) -> Any:
        polled.set()
        await answer.wait()
        return await poll(self, job)

    monkeypatch.setattr(lanes, "LOOK", 0.01)
    monkeypatch.setattr(OpenAI, "poll", slow)
    sim = await world.simulator(pace=STUCK)
    async with engine(world, mode="batch") as desk, asyncio.timeout(20):
        first = await desk.start(echo(0))
        await polled.wait()
        second = "far:m" if lane == "the same" else "far:other"
        how = segue.Batch(within=timedelta(seconds=20), late="live")
        assert await desk.run(echo(1), model=second, mode=how) == "You said: row 1"
        assert not answer.is_set()
        assert (await first.head()).status == "parked"
        answer.set()
    assert kinds(sim) == {"live": 1}


async def test_late_calls_that_wait_to_be_tried_again_arent_sent_where_the_batch_answers_first(
    world: World,
) -> None:
    sim = await world.simulator(batch_time=timedelta(seconds=2.5))  # 50 s by the engine's clock
    sim.faults.fail(ROWS, status=429, retry_after=timedelta(seconds=400), on="chat")
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=90), late="live")) as desk:
        for number in range(ROWS):
            await desk.start(asks(number))
        async with asyncio.timeout(20):
            while not await live_jobs(desk):
                await asyncio.sleep(0.01)
            while await desk.store.lanes():
                await asyncio.sleep(0.01)
        assert await desk.store.unclaimed() == []
        assert {head.status for head in await desk.store.runs()} <= {"ready", "parked"}
    assert kinds(sim) == {"batch": ROWS}


async def test_answers_of_late_calls_that_are_no_use_are_on_the_budget(world: World) -> None:
    sim = await world.simulator(pace=STUCK)
    sim.faults.empty_reply(2, on="chat")
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=62), late="live")) as desk:
        assert await desk.run(echo(1), id="a", budget=segue.Budget(tokens=100_000)) == "You said: row 1"
        (standing,) = await desk.store.budgets(["run:a"])
    paid = sum(entry.tokens_in + entry.tokens_out for entry in sim.ledger.lines() if entry.paid)
    assert kinds(sim) == {"live": 3}
    assert standing.spent.tokens > paid


async def test_late_calls_of_runs_that_were_cancelled_meanwhile_arent_sent(world: World) -> None:
    sim = await world.simulator(pace=STUCK)
    sim.faults.fail(ROWS, status=429, retry_after=timedelta(seconds=20), on="chat")
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=62), late="live")) as desk:
        runs = [await desk.start(echo(number), id=f"{number}") for number in range(ROWS)]
        async with asyncio.timeout(10):
            while not await live_jobs(desk):
                await asyncio.sleep(0.01)
            for run in runs:
                await desk.cancel(run.id)
            while await live_jobs(desk):
                await asyncio.sleep(0.01)
        assert {head.status for head in await desk.store.runs()} == {"cancelled"}
    assert kinds(sim) == {}


async def live_jobs(desk: segue.Engine) -> list[Any]:
    return [job for lane in await desk.store.lanes() for job in lane.jobs if job.state == "live"]


async def test_a_store_that_fails_for_a_moment_has_no_late_call_paid_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sim = await world.simulator(pace=STUCK)
    async with engine(world, mode=segue.Batch(within=timedelta(seconds=62), late="live")) as desk:
        store, failures = type(desk.store), iter(range(2))
        outcomes = store.outcomes

        async def failing(self: Any, *args: Any, **how: Any) -> Any:
            if next(failures, None) is not None:
                raise StoreError("here", "it is busy", "wait")
            return await outcomes(self, *args, **how)

        monkeypatch.setattr(store, "outcomes", failing)
        assert all(outcome.ok for outcome in await mapped(desk))
    assert kinds(sim) == {"live": ROWS}
    assert caplog.text.count("can't be stored now") == 2


async def test_late_calls_under_way_come_in_where_another_one_cant_be_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store can't say for a moment whether that one's run goes on."""
    sim = await world.simulator(latency=timedelta(seconds=0.3))
    is_over, asked = _Round._is_over, itertools.count(1)

    async def failing(self: _Round, run: str) -> bool:
        if next(asked) == ROWS:
            await asyncio.sleep(0.1)
            raise StoreError("here", "it is busy", "wait")
        return await is_over(self, run)

    monkeypatch.setattr(_Round, "_is_over", failing)
    async with engine(world, mode=segue.Batch(within=MINUTE, late="live")) as desk:
        assert all(outcome.ok for outcome in await mapped(desk))
    assert kinds(sim) == {"live": ROWS}


async def test_an_engine_that_closes_while_late_lines_are_read_doesnt_wait_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = await world.simulator(pace=STUCK)
    reading, read = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10):
        async with engine(world, mode=segue.Batch(within=timedelta(seconds=62), late="live")) as desk:
            store = type(desk.store)
            job_lines = store.job_lines

            async def slow(self: Any, job: str, *args: Any, **how: Any) -> Any:
                lines = await job_lines(self, job, *args, **how)
                if [one for one in await live_jobs(desk) if one.id == job] and not reading.is_set():
                    reading.set()
                    await read.wait()
                return lines

            monkeypatch.setattr(store, "job_lines", slow)
            await desk.start(echo(1), id="a")
            await reading.wait()
            asyncio.get_running_loop().call_later(0.05, read.set)
    assert kinds(sim) == {}


async def test_an_engine_that_closes_waits_for_no_late_call_that_would_be_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.simulator(pace=STUCK)
    sent, failed = asyncio.Event(), asyncio.Event()

    async def send(*_: Any) -> bytes:
        sent.set()
        await failed.wait()
        raise CallFault(503, "Overloaded", again=True)

    monkeypatch.setattr(OpenAI, "send", send)
    async with asyncio.timeout(10):
        async with engine(world, mode=segue.Batch(within=timedelta(seconds=62), late="live")) as desk:
            await desk.start(echo(1), id="a")
            await sent.wait()
            asyncio.get_running_loop().call_later(0.05, failed.set)


async def test_a_bad_line_fails_alone_where_another_went_live_before_the_file_was_made(world: World) -> None:
    sim = await world.simulator(models=["m"])
    sim.faults.fail(100_000, status=503, on="files")
    late = segue.Batch(within=timedelta(seconds=80), late="live")
    async with engine(world, mode="batch") as desk, asyncio.timeout(20):
        first = await desk.start(echo(0), id="job/0", mode=late)
        others = [
            await desk.start(strange(n, "unheard" if n == 3 else "m"), id=f"job/{n}") for n in (1, 2, 3)
        ]
        assert await first == "You said: row 0"
        assert [job.state for lane in await desk.store.lanes() for job in lane.jobs] == ["intent"]
        sim.faults._coming.clear()
        assert await others[0] == "You said: row 1"
        assert await others[1] == "You said: row 2"
        with pytest.raises(ModelFailed, match="unheard"):
            await others[2]
    assert kinds(sim) == {"live": 1, "batch": 2}


@segue.flow(name="deadlines.strange")
async def strange(number: int, model: str) -> str:
    return await segue.generate(f"row {number}", extra={"model": model})
