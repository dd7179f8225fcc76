"""A job's ledger, line by line: whatever a provider does, each line ends as it should, and harms no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import pytest

import segue
from segue.model.errors import BadAnswer, ModelFailed, RunCancelled
from segue.model.lane import BatchJob
from segue.ports.provider import CallFault
from segue.providers.openai import OpenAI
from segue.runtime.lanes import delivery, desk, ending, lane
from segue.runtime.lanes.lane import GRACE
from segue.stores.memory import MemoryStore
from segue.testing.clock import VirtualClock
from segue.testing.simulator import Failure, Limits, Pace, Simulator
from tests.runtime.world import ONCE, ROWS, SPEED, World, all_well, echo, ident, until


class Label(msgspec.Struct):
    topic: Literal["billing", "bug"]


@segue.flow(name="lanes.wordy")
async def wordy(text: str | int) -> str:
    return await segue.generate(f"row {text}")


@segue.flow(name="lanes.label")
async def label(number: int) -> str:
    return (await segue.generate(f"row {number}", returns=Label, repairs=1)).topic


@segue.flow(name="lanes.stray")
async def stray(number: int, model: str) -> str:
    return await segue.generate(f"row {number}", extra={"model": model} if model else {})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.sim.close()


# ---------------------------------------------------------------- what is in the files
def empty_at_first(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three copies of a file of results are empty."""
    write = sim._processor._result_file

    def written(batch: Any, content: bytes, what: str) -> str | None:
        file = write(batch, content, what)
        if what == "output" and file:
            sim.faults.empty_reply(3, on=file)
        return file

    monkeypatch.setattr(sim._processor, "_result_file", written)


async def test_a_copy_of_the_results_that_is_empty_isnt_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while the job tells of more outcomes than were read, though another of its files is whole."""
    sim = await world.simulator(
        rule=lambda body: ("5" in str(body["messages"]) and Failure(400, "No.")) or "Yes."
    )
    empty_at_first(sim, monkeypatch)
    outcomes = await world.run()
    assert [outcome.error is None for outcome in outcomes] == [True] * 5 + [False]
    assert world.paid() == ONCE | {5: 0}


async def test_results_that_break_off_are_read_again_without_an_alarm(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.simulator()
    results, broken = OpenAI.results, iter([True])

    async def some(self: OpenAI, job: Any) -> AsyncIterator[Any]:
        number = 0
        async for result in results(self, job):
            number += 1
            if number == 4 and next(broken, False):
                raise CallFault(0, "the connection is lost", again=True)
            yield result

    monkeypatch.setattr(OpenAI, "results", some)
    all_well(await world.run())
    assert world.paid() == ONCE
    assert "aren't open" not in caplog.text


async def test_a_submission_that_comes_late_is_looked_for_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have sent it meanwhile."""
    await world.simulator()
    put, submit, times = MemoryStore.put_batch_job, OpenAI.submit, list[float]()

    async def late(self: MemoryStore, job: BatchJob, fence: int) -> bool:
        done = await put(self, job, fence)
        if job.state == "uploaded" and not times:
            times.append(world.clock.now())
            await asyncio.sleep(GRACE / 2 / SPEED + 0.05)
        return done

    async def submitted(self: OpenAI, *args: Any) -> Any:
        times.append(world.clock.now())
        return await submit(self, *args)

    monkeypatch.setattr(MemoryStore, "put_batch_job", late)
    monkeypatch.setattr(OpenAI, "submit", submitted)
    all_well(await world.run())
    assert world.paid() == ONCE
    assert times[1] - times[0] > GRACE - 1


@pytest.mark.parametrize("times", [3, 10_000])
async def test_a_submission_that_was_cut_off_where_there_is_no_list_of_jobs(
    world: World, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That waited for ever. Now a person is asked, for it may be paid; a gateway may say so for a while, though."""
    monkeypatch.setattr(lane, "GONE", 5)
    sim = await world.simulator()
    sim.faults.lose_reply(on="batches")
    empty_at_first(sim, monkeypatch)  # how often it was looked for doesn't count there

    looks = 0

    async def unlisted(self: OpenAI, *args: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks <= times:
            raise CallFault(404, "no such route", again=False)
        return await find(self, *args, **more)

    find = OpenAI.find
    monkeypatch.setattr(OpenAI, "find", unlisted)
    outcomes = await world.run()
    assert world.paid() == ONCE
    if times == 3:
        all_well(outcomes)
        return
    assert looks == 5
    for outcome in outcomes:
        assert isinstance(outcome.error, ModelFailed)
        assert outcome.error.code == "batch_job_lost"
        assert "segue resume" in str(outcome.error)


async def test_a_line_that_nobody_waits_for_any_more_is_in_the_receipt(world: World) -> None:
    """It is in a job when its run is cancelled that can't be ended, and so it is paid."""
    sim = await world.simulator(batch_time=timedelta(seconds=0.3))
    sim.faults.fail(100, status=400, on="/cancel")
    async with world.engine() as engine, asyncio.timeout(30):
        run = await engine.start(echo(1))
        while not sim.batches():
            await asyncio.sleep(0.01)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run
        while not (await run.receipt()).unclaimed:
            await asyncio.sleep(0.01)
        (line,) = (await run.receipt()).unclaimed
        assert (line.lane, line.calls) == ("batch", 1)
        assert line.input_tokens > 0


@segue.flow(name="lanes.faster")
async def faster(number: int) -> str:
    ways = {asyncio.ensure_future(segue.generate(f"{way} {number}")) for way in ("one", "two")}
    done, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in left:
        way.cancel()
    return done.pop().result()


@segue.flow(name="lanes.faster twice")
async def faster_twice(number: int) -> str:
    return await faster(number) + await segue.generate(f"then {number}")


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("flow", [faster, faster_twice])
async def test_answers_that_come_while_their_calls_are_given_up_are_in_the_receipt(
    world: World, store: str, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one came just before, and their run ends, or goes on, with that."""
    monkeypatch.setattr(delivery, "CHUNK", 3)
    sim = await world.simulator()
    async with world.engine("memory:" if store == "memory" else f"sqlite:{world.path}/runs.db") as engine:
        async with asyncio.timeout(30):
            await engine.map(flow, range(60), id="job")
            while await engine.store.lanes():
                await asyncio.sleep(0.01)
        receipt = await engine.receipt(job="job")
    counted = sum(line.calls for line in [*receipt.lines, *receipt.unclaimed])
    assert counted == sum(entry.paid for entry in sim.ledger.lines("batch"))


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_job_is_ended_for_which_nobody_waits_any_more(world: World, store: str) -> None:
    """All of its runs were cancelled. As long as one of them waits, it goes on."""
    sim = await world.simulator(pace=Pace(validating=0.0, working=3600.0, finalizing=0.0, cancelling=0.0))
    async with world.engine("memory:" if store == "memory" else f"sqlite:{world.path}/runs.db") as engine:
        runs = [await engine.start(echo(number), id=f"{number}") for number in range(ROWS)]
        async with asyncio.timeout(20):
            while not any(job.sent for job in await engine.store.batch_jobs()):
                await asyncio.sleep(0.01)
            for run in runs[1:]:
                await run.cancel()
            while (await engine.store.run_counts()).get("cancelled", 0) < ROWS - 1:
                await asyncio.sleep(0.01)
            await engine.advance()
            assert [batch.status for batch in sim.batches()] == ["in_progress"]
            await runs[0].cancel()
            while await engine.store.lanes():
                await engine.advance()
    assert [batch.status for batch in sim.batches()] == ["cancelled"]
    assert sum(world.paid().values()) == 0


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("trouble", ["files", "batches"])
async def test_lines_of_runs_that_were_cancelled_before_their_job_could_be_made_arent_sent(
    world: World, store: str, trouble: str
) -> None:
    """Nobody waits for the first job's; for the second one's, some. Its file may be there already."""
    sim = await world.simulator()
    for left in (0, 2):
        sim.faults.fail(3, status=503, on=trouble)
        async with world.engine("memory:" if store == "memory" else f"sqlite:{world.path}/runs.db") as engine:
            runs = [await engine.start(echo(number), id=f"{left}/{number}") for number in range(ROWS)]
            async with asyncio.timeout(20):
                while not await engine.store.batch_jobs():
                    await asyncio.sleep(0.01)
                for run in runs[left:]:
                    await run.cancel()
                assert [await run for run in runs[:left]] == [
                    f"You said: row {number}" for number in range(left)
                ]
                while await engine.store.lanes():
                    await asyncio.sleep(0.01)
            assert (await engine.store.line_counts()).get("cancelled", 0) >= ROWS - left
    assert [batch.total for batch in sim.batches()] == [2]


async def test_a_provider_that_doesnt_answer_is_told_of_again_and_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Ever more seldom: said once, the rest of an outage would look like a hang."""
    sim = await world.simulator()
    sim.faults.fail(3, status=503, on="/files")
    all_well(await world.run())
    said = [text for text in caplog.messages if "doesn't answer as it should" in text]
    assert ["in a row" in text for text in said] == [False, True]
    assert "2 times in a row; it is asked again in 2 s: " in said[1]


async def test_a_provider_whose_jobs_all_fail_is_given_time(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four attempts would be over in a moment, and every row with them."""
    monkeypatch.setattr(desk, "PAUSES", (0.0, 20.0))
    sim = await world.simulator()
    sim.faults.fail_batch(times=2)
    begun = world.clock.steady()
    all_well(await world.run())
    assert world.clock.steady() - begun >= 20.0
    assert len(sim.batches()) == 3
    (said,) = [text for text in caplog.messages if "nothing came of batch job" in text]
    assert said.endswith("what goes out again waits 20 s")


async def test_who_looks_once_sends_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`segue advance` has a pause of its own between two looks."""
    monkeypatch.setattr(desk, "PAUSES", (10_000.0,))
    sim = await world.simulator()
    sim.faults.fail_batch(times=1)
    async with world.engine() as engine, asyncio.timeout(30):
        run = await engine.start(echo(1))
        (head,) = await until(lambda: [one for one in sim.batches() if one.status == "failed"])
        lane = await _paused(engine)
        await engine.lanes.sweep()
        assert [one.id for one in sim.batches()] == [head.id]
        await engine.lanes.sweep(poll_now=True)
        assert await run == "You said: row 1"
        assert engine.lanes.desk.pause(lane) <= 0


async def test_who_looks_once_looks_anew_where_a_look_is_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for before, and its answer is of before."""
    sim = await world.simulator(batch_time=timedelta(seconds=0.3))
    poll, asked, told = OpenAI.poll, asyncio.Event(), asyncio.Event()

    async def slow(self: OpenAI, job: str) -> Any:
        found = await poll(self, job)
        if not asked.is_set():
            asked.set()
            await told.wait()
        return found

    monkeypatch.setattr(OpenAI, "poll", slow)
    async with world.engine() as engine, asyncio.timeout(30):
        await engine.start(echo(1))
        await asked.wait()
        await until(lambda: [one for one in sim.batches() if one.status == "completed"])
        looking = asyncio.ensure_future(engine.lanes.sweep(poll_now=True))
        await asyncio.sleep(0)
        told.set()
        await looking
        assert await engine.store.lanes() == []


async def _paused(engine: segue.Engine) -> str:
    """The lane that there is, once it sends nothing."""
    while True:
        for head in await engine.store.lanes():
            if head.waiting and engine.lanes.desk.pause(head.lane) > 0:
                return head.lane
        await asyncio.sleep(0.01)


async def test_what_was_refused_for_the_quota_isnt_out_of_order(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "PAUSES", (10_000.0,))
    sim = await world.simulator()
    sim.faults.fail_batch("token_limit_exceeded", times=1)
    all_well(await world.run())
    assert "failed" in [batch.status for batch in sim.batches()]
    assert not [text for text in caplog.messages if "nothing came of batch job" in text]


async def test_how_long_a_lane_sends_nothing() -> None:
    clock = VirtualClock()
    here = desk.Desk(cast("Any", None), cast("Any", None), clock, lambda: None)

    def came(lane: str = "a", **what: bool) -> float:
        return here.came(lane, **{"good": False, "passing": False, **what})

    assert [came(passing=True) for _ in range(5)] == [0.0, 10.0, 60.0, 300.0, 300.0]
    assert (here.pause("a"), here.pause("b") <= 0) == (300.0, True)
    assert came("b", passing=True) == 0.0
    await clock.sleep(100)
    assert here.pause("a") == 200.0
    assert came() == 0.0  # nothing that may pass: of lines that failed for good, or were called off
    assert here.pause("a") == 200.0
    assert came(good=True, passing=True) == 0.0
    assert here.pause("a") <= 0
    assert [came(passing=True) for _ in range(2)] == [0.0, 10.0]


# ---------------------------------------------------------------- jobs that end early
async def test_each_bad_line_gets_its_own_words(world: World) -> None:
    await world.simulator(models=["m"])
    bad = sorted(range(ROWS), key=ident)[-2:]
    async with world.engine() as engine:
        runs = [
            await engine.start(stray(n, f"unheard-{n}" if n in bad else ""), id=f"job/{n}")
            for n in range(ROWS)
        ]
        for number in bad:
            with pytest.raises(ModelFailed) as failed:
                await runs[number]
            assert f"unheard-{number}" in str(failed.value)
            assert str(failed.value).count("unheard") == 1
        await asyncio.gather(*(run for number, run in enumerate(runs) if number not in bad))


async def test_one_bad_line_fails_alone(world: World) -> None:
    sim = await world.simulator(models=["m"])
    bad = max(range(ROWS), key=ident)  # the first line of a file says of which model all are
    rows = [{"number": n, "model": "unheard-of" if n == bad else ""} for n in range(ROWS)]
    async with world.engine() as engine:
        runs = [await engine.start(stray(**row), id=f"job/{row['number']}") for row in rows]  # type: ignore[arg-type]
        for number, run in enumerate(runs):
            if number == bad:
                with pytest.raises(ModelFailed, match="unheard-of"):
                    await run
            else:
                assert await run == f"You said: row {number}"
    assert world.paid() == ONCE | {bad: 0}
    assert [batch.status for batch in sim.batches()] == ["completed", "failed"]


async def test_a_job_that_is_rejected_whole(world: World) -> None:
    sim = await world.simulator()
    sim.faults.fail_batch("token_limit_exceeded", "Enqueued token limit reached")
    all_well(await world.run())
    assert world.paid() == ONCE


async def test_jobs_are_as_large_as_the_quota_of_tokens_lets_them(world: World) -> None:
    """Jobs are halved until they fit, however often that is; what is left waits, and none of it counts."""
    sim = await world.simulator(limits=Limits(enqueued_tokens=40), batch_time=timedelta(seconds=0.2))
    rows = 40
    async with world.engine() as engine, asyncio.timeout(50):
        values = await engine.map(echo, range(rows), id="job")
        assert values == [f"You said: row {number}" for number in range(rows)]
        assert await engine.store.line_counts() == {"ok": rows}
    done = [batch for batch in sim.batches() if batch.status == "completed"]
    assert all(batch.enqueued_tokens <= 40 for batch in done)
    assert len([batch for batch in sim.batches() if batch.status == "failed"]) > 4
    assert len(sim.ledger.lines("batch")) == rows


async def test_a_line_beyond_the_quota_fails_and_the_others_go_on(world: World) -> None:
    sim = await world.simulator(limits=Limits(enqueued_tokens=200))
    rows: list[Any] = ["x " * 20_000, *range(3)]
    async with world.engine() as engine, asyncio.timeout(50):
        outcomes = [outcome async for outcome in engine.map(wordy, rows, id="job")]
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert [type(error) for error in errors] == [ModelFailed]
    assert "Enqueued token limit reached" in str(errors[0])
    assert len(sim.ledger.lines("batch")) == 3


async def test_a_job_that_is_always_rejected(world: World) -> None:
    sim = await world.simulator()
    for _ in range(10):
        sim.faults.fail_batch("billing_hard_limit_reached", "Billing hard limit has been reached")
    for outcome in await world.run():
        assert isinstance(outcome.error, ModelFailed)
        assert "Billing hard limit has been reached" in str(outcome.error)
    assert len(sim.batches()) == 4


# ---------------------------------------------------------------- troubles of the wire
async def test_an_upload_that_is_answered_with_nonsense_for_ever(world: World) -> None:
    sim = await world.simulator()
    sim.faults.reply_html(1000, status=200, on="files")
    for outcome in await world.run():
        assert isinstance(outcome.error, ModelFailed)
        assert "<html>" in str(outcome.error)


@pytest.mark.parametrize("times", [5, ending.GONE])
async def test_a_file_of_results_that_is_gone(
    world: World, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a gateway says for a while isn't believed: all that was answered would be paid again."""
    monkeypatch.setattr(ending, "LATER", 0.5)
    sim = await world.simulator()
    sim.faults.fail(times, status=404, on="content")
    all_well(await world.run())
    assert set(world.paid().values()) == {1 if times < ending.GONE else 2}


async def test_a_job_whose_results_cant_be_had_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = await world.simulator()
    write, first = sim._processor._result_file, asyncio.Event()

    def written(batch: Any, content: bytes, what: str) -> str | None:
        file = write(batch, content, what)
        if file and not first.is_set():
            first.set()
            sim.faults.fail(10_000, status=500, on=file)
        return file

    monkeypatch.setattr(sim._processor, "_result_file", written)
    async with world.engine() as engine, asyncio.timeout(20):
        await engine.start(echo(1))
        await first.wait()
        assert await engine.run(echo(2)) == "You said: row 2"


# ---------------------------------------------------------------- what the lines say
async def test_a_line_that_fails_for_good(world: World) -> None:
    def rule(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        return Failure(400, "Too rude.", code="content_filter") if text == "row 3" else f"You said: {text}"

    await world.simulator(rule=rule)
    outcomes = await world.run()
    all_well(outcomes, {3})
    error = outcomes[3].error
    assert isinstance(error, ModelFailed)
    assert (error.status, error.code) == (400, "content_filter")
    assert "Too rude." in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {"object": "chat.completion"},
        {"object": "chat.completion", "choices": []},
        {"object": "chat.completion", "choices": [{"index": 0, "message": "no"}]},
        {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": 7}}], "usage": "x"},
    ],
)
async def test_a_body_that_is_no_completion(world: World, body: dict[str, Any]) -> None:
    sim = await world.simulator()
    sim.when("row 1").reply(body)
    outcomes = await world.run()
    all_well(outcomes, {1})
    error = outcomes[1].error
    assert isinstance(error, ModelFailed)
    assert error.code == "bad_body"


async def test_answers_of_the_wrong_type(world: World) -> None:
    def rule(body: dict[str, Any]) -> Any:
        said = json.dumps(body["messages"])
        if "row 1" in said:
            return "I'd rather not"
        if "row 2" in said:
            return {"topic": "bug"} if len(body["messages"]) > 1 else {"topic": "weather"}
        return {"topic": "billing"}

    await world.simulator(rule=rule)
    outcomes = await world.run(label)
    assert [outcome.value for outcome in outcomes if outcome.index not in (1, 2)] == ["billing"] * 4
    assert outcomes[2].value == "bug"
    assert isinstance(outcomes[1].error, BadAnswer)
    assert "I'd rather not" in str(outcomes[1].error)


# ---------------------------------------------------------------- calls that are given up
@segue.step(name="lanes.quick")
async def quick() -> int:
    return 1


@segue.flow(name="lanes.hasty")
async def hasty() -> str:
    first = asyncio.ensure_future(segue.generate("row 0"))
    await asyncio.sleep(0)
    await quick()  # its line is in the lane from here on
    first.cancel()
    return await segue.generate("row 1")


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_a_call_that_is_given_up_is_not_paid(world: World, park: str) -> None:
    sim = await world.simulator()
    async with world.engine(park=park) as engine, asyncio.timeout(30):
        assert await engine.run(hasty(), id="job/0") == "You said: row 1"
        assert await engine.store.line_counts() == {"ok": 1, "cancelled": 1}
    assert len(sim.ledger.lines("batch")) == 1


# ---------------------------------------------------------------- two at once
@pytest.mark.parametrize("leave", [False, True], ids=["both stay", "one leaves"])
async def test_two_engines_on_one_file(world: World, leave: bool) -> None:
    """One fence a lane: no line twice, whoever drives it, and whoever goes."""
    sim = await world.simulator(batch_time=timedelta(seconds=0.2))
    path = f"sqlite:{world.path / 'runs.db'}"

    async def work() -> list[str]:
        async with world.engine(path) as engine:
            return await engine.map(echo, range(ROWS), id="job")

    async with asyncio.timeout(40):
        first, second = asyncio.ensure_future(work()), asyncio.ensure_future(work())
        if leave:
            await until(sim.batches)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            first = asyncio.ensure_future(work())
        expected = [f"You said: row {n}" for n in range(ROWS)]
        assert await first == expected
        assert await second == expected
    assert world.paid() == ONCE


async def test_sweeps_at_once_of_one_engine(world: World) -> None:
    """An engine that is told to sweep while it does so by itself sends nothing twice."""
    await world.simulator()
    async with world.engine() as engine:
        job = engine.map(echo, range(ROWS), id="job")
        ends = asyncio.ensure_future(job._values())
        while not ends.done():
            await engine.advance()
            await asyncio.sleep(0)
        assert await ends == [f"You said: row {n}" for n in range(ROWS)]
    assert world.paid() == ONCE
