"""What goes wrong with jobs, in each protocol: each line ends as it should, paid once where it can be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.errors import ModelFailed, RunHeld
from segue.ports.provider import CallFault
from segue.providers.anthropic import Anthropic
from segue.providers.anthropic_batches import labelled
from segue.runtime.lanes import ending
from segue.testing.simulator import Failure, Limits, Pace, Simulator
from tests.runtime.world import ONCE, ROWS, World, all_well, echo, ident, until


class FastWorld(World):
    """The simulator's clock is as fast as the engines'."""

    async def simulator(self, **options: Any) -> Simulator:
        return await super().simulator(**{"batch_time": timedelta(seconds=1), "clock": self.clock, **options})

    async def sent(self, number: int) -> str:
        """The id under which a row's line is sent: Anthropic's bear a label, which is known when they are there."""
        if self.dialect != "anthropic":
            return ident(number)
        [job] = await until(lambda: list(self.sim._processor._jobs.values()))
        await until(lambda: job.lines)
        return next(line.custom_id for line in job.lines if labelled(line.custom_id)[0] == ident(number))


@pytest.fixture(params=["openai", "anthropic", "gemini"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[FastWorld]:
    world = FastWorld(tmp_path, request.param)
    yield world
    await world.sim.close()


# ---------------------------------------------------------------- how much may be sent
async def test_a_submission_that_is_too_many_tokens_is_made_smaller(world: FastWorld) -> None:
    sim = await world.simulator(limits=Limits(enqueued_tokens=60))
    all_well(await world.run())
    assert world.paid() == ONCE
    assert len(sim.batches()) > 1


# ---------------------------------------------------------------- what is in the results
@pytest.mark.parametrize("spoil", ["drop_line", "wrong_id", "double_line"])
async def test_lines_that_are_missing_unknown_or_told_twice(world: FastWorld, spoil: str) -> None:
    sim = await world.simulator()
    running = asyncio.ensure_future(world.run())
    getattr(sim.faults, spoil)(await world.sent(2))
    all_well(await running)
    assert world.paid() == (ONCE if spoil == "double_line" else ONCE | {2: 2})


async def test_half_a_line(world: FastWorld) -> None:
    (await world.simulator()).faults.half_line()
    all_well(await world.run())
    assert sorted(world.paid().values()) == [1, 1, 1, 1, 1, 2]


async def test_a_job_that_is_done_and_has_no_file(world: FastWorld) -> None:
    (await world.simulator()).faults.no_output_file()
    all_well(await world.run())
    assert set(world.paid().values()) == {2}


async def test_an_empty_text_where_a_file_would_be(world: FastWorld) -> None:
    """Gemini has one file for all results."""
    (await world.simulator()).faults.empty_error_file_id()
    all_well(await world.run())
    assert set(world.paid().values()) == ({2} if world.dialect == "gemini" else {1})


# ---------------------------------------------------------------- jobs that end early
@pytest.mark.parametrize("end", ["expired", "cancelled"])
async def test_jobs_that_end_early(world: FastWorld, end: str) -> None:
    """What is done is given, and kept; but Gemini gives nothing, and it is all asked for again."""
    pace = Pace(validating=0.0, working=20.0, finalizing=0.0, cancelling=0.0)
    window = timedelta(seconds=10) if end == "expired" else None
    sim = await world.simulator(pace=pace, window=window)
    running = asyncio.ensure_future(world.run())
    batch = await until(lambda: [one for one in sim.batches() if one.completed > 1])
    if end == "cancelled":
        sim._processor.cancel(batch[0].id)
    sim._processor._window = None
    all_well(await running)
    first = sim.batches()[-1]
    assert first.status == end
    assert 0 < first.completed < ROWS
    assert set(world.paid().values()) == ({1, 2} if world.dialect == "gemini" else {1})


async def test_expired_time_and_again(world: FastWorld) -> None:
    """No line goes round for ever, and its error says why."""
    pace = Pace(validating=0.0, working=600.0, finalizing=0.0, cancelling=0.0)
    sim = await world.simulator(pace=pace, window=timedelta(seconds=1))
    for outcome in await world.run():
        assert isinstance(outcome.error, ModelFailed)
        assert "batch_expired" in str(outcome.error)
    assert len(sim.batches()) == 4


async def test_a_job_that_is_stuck_until_it_expires(world: FastWorld) -> None:
    sim = await world.simulator(window=timedelta(seconds=5))
    sim.faults.stall_batch()
    all_well(await world.run())
    assert world.paid() == ONCE
    assert [batch.status for batch in sim.batches()] == ["completed", "expired"]


# ---------------------------------------------------------------- troubles of the wire
WIRE: list[Callable[[Simulator, str, int], None]] = [
    lambda sim, on, times: sim.faults.fail(times, status=529, on=on),
    lambda sim, on, times: sim.faults.fail(times, status=429, retry_after=timedelta(seconds=0.2), on=on),
    lambda sim, on, times: sim.faults.reply_html(times, on=on),
    lambda sim, on, times: sim.faults.reply_html(times, status=200, on=on),
    lambda sim, on, times: sim.faults.close_connection(times, on=on),
    lambda sim, on, times: sim.faults.lose_reply(times, on=on),
    lambda sim, on, times: sim.faults.empty_reply(times, on=on),
]
NAMES = ["529", "429", "html", "html-200", "nothing", "lost", "empty"]
#: Of each protocol: parts of the paths of upload, submission, poll and download. Anthropic has no uploads.
PATHS = {
    "anthropic": ["messages", "messages/batches", "batches/msgbatch", "/results"],
    "openai": ["files", "batches", "batches/", "content"],
    "gemini": ["/upload/", "batchGenerateContent", "/v1beta/batches/", ":download"],
}


@pytest.mark.parametrize("spoil", WIRE, ids=NAMES)
@pytest.mark.parametrize("step", [0, 1, 3], ids=["upload", "submission", "download"])
async def test_troubles_pass(
    world: FastWorld, step: int, spoil: Callable[[Simulator, str, int], None]
) -> None:
    """Three times, then all is well, and nothing is paid twice."""
    on = PATHS[world.dialect][step]
    sim = await world.simulator()
    spoil(sim, on, 3)
    all_well(await world.run())
    assert world.paid() == ONCE


@pytest.mark.parametrize("world", ["anthropic"], indirect=True)
async def test_a_job_of_fewer_lines_than_were_taken_is_found_again(
    world: FastWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One went live before it could be submitted; then the answer to its submission is lost."""
    sim = await world.simulator()
    submit, back, lost = Anthropic.submit, asyncio.Event(), iter([True])

    async def lossy(self: Anthropic, *args: Any) -> Any:
        if not back.is_set():
            raise CallFault(503, "Overloaded", again=True)
        found = await submit(self, *args)
        if next(lost, False):
            raise CallFault(0, "the connection is lost", again=True)
        return found

    monkeypatch.setattr(Anthropic, "submit", lossy)
    late = segue.Batch(within=timedelta(seconds=70), late="live")
    async with world.engine() as engine, asyncio.timeout(30):
        runs = [
            await engine.start(echo(number), id=f"job/{number}", mode="batch" if number else late)
            for number in range(ROWS)
        ]
        assert await runs[0] == "You said: row 0"
        back.set()
        for number, run in enumerate(runs):
            assert await run == f"You said: row {number}"
    assert [batch.total for batch in sim.batches()] == [ROWS - 1]


@pytest.mark.parametrize("world", ["openai", "gemini"], indirect=True)
async def test_a_file_that_is_gone_before_its_job_could_be_submitted(world: FastWorld) -> None:
    """Gemini's live for two days; an outage, or until a process is there again, may take longer."""
    sim = await world.simulator()
    sim.faults.fail(1, status=503, on=PATHS[world.dialect][1])
    running = asyncio.ensure_future(world.run())
    files = await until(lambda: list(sim._processor._files._files))
    for file in files:
        sim._processor._files.delete(file)
    all_well(await running)
    assert world.paid() == ONCE


@pytest.mark.parametrize("spoil", WIRE, ids=NAMES)
async def test_troubles_of_a_poll_pass(
    world: FastWorld, spoil: Callable[[Simulator, str, int], None]
) -> None:
    sim = await world.simulator(batch_time=timedelta(seconds=6))
    running = asyncio.ensure_future(world.run())
    await until(sim.batches)
    spoil(sim, PATHS[world.dialect][2], 3)
    all_well(await running)
    assert world.paid() == ONCE


async def test_a_key_that_is_refused(world: FastWorld) -> None:
    sim = await world.simulator()
    world.key = "sk-wrong-0123456789"
    for outcome in await world.run():
        assert isinstance(outcome.error, RunHeld)
        assert "the key was refused" in str(outcome.error)
        assert "HTTP 401" in str(outcome.error)
        assert world.key not in str(outcome.error)
    assert len(sim.ledger) == 0


async def test_a_job_that_the_provider_forgot(world: FastWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "LATER", 0.2)
    sim = await world.simulator(batch_time=timedelta(seconds=10))
    running = asyncio.ensure_future(world.run())
    (batch,) = await until(sim.batches)
    await until(lambda: batch.status == "in_progress")
    del sim._processor._batches[batch.id]
    all_well(await running)


async def test_a_job_that_isnt_known_for_a_while(world: FastWorld) -> None:
    """A gateway may say so of everything while it begins anew: the job goes on, and is paid."""
    sim = await world.simulator(batch_time=timedelta(seconds=60))
    running = asyncio.ensure_future(world.run())
    (batch,) = await until(sim.batches)
    await until(lambda: batch.completed > ROWS // 2)
    sim.faults.fail(4, status=404, on=PATHS[world.dialect][2])
    all_well(await running)
    assert world.paid() == ONCE


async def test_a_provider_that_is_down_for_a_while(world: FastWorld) -> None:
    """It comes back at the same place and goes on; nobody pays for a line again."""
    slow = timedelta(seconds=40)  # enough to be caught in the middle on a busy machine
    sim = await world.simulator(batch_time=slow, directory=world.path)
    port = int(sim.url.rpartition(":")[2])
    running = asyncio.ensure_future(world.run())
    await until(lambda: [one for one in sim.batches() if 0 < one.completed < ROWS])
    await sim.close()
    await asyncio.sleep(0.1)  # two of the engine's seconds: it polls in vain
    await world.simulator(batch_time=slow, directory=world.path, port=port)
    all_well(await running)
    assert world.paid() == ONCE


# ---------------------------------------------------------------- what the lines say
async def test_a_line_that_fails_for_good(world: FastWorld) -> None:
    def rule(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        return Failure(400, "Too rude.") if text == "row 3" else f"You said: {text}"

    await world.simulator(rule=rule)
    outcomes = await world.run()
    all_well(outcomes, {3})
    error = outcomes[3].error
    assert isinstance(error, ModelFailed)
    assert error.status == 400
    assert "Too rude." in str(error)


async def test_a_line_that_fails_in_passing(world: FastWorld) -> None:
    sim = await world.simulator()
    sim.when("row 4").reply(Failure(529), Failure(429), "You said: row 4")
    all_well(await world.run())
    assert world.paid() == ONCE


async def test_live_calls_through_all_that(world: FastWorld) -> None:
    """The same rows, live: faults before and in the middle of an answer are passed over."""
    sim = await world.simulator()
    sim.faults.fail(2, status=529, retry_after=timedelta(seconds=0.1))
    sim.faults.reply_html()
    sim.faults.close_connection()
    sim.faults.empty_reply()
    all_well(await world.run(mode="live"))
    assert not sim.batches()
    assert sim.ledger.counts()["live_paid"] == ROWS + 1  # that whose answer was empty


@pytest.mark.parametrize("world", ["anthropic", "gemini"], indirect=True)
async def test_a_doubtful_job_holds_up_no_other(world: FastWorld) -> None:
    """Whether a batch of Anthropic's is ours is known when it is over; the lane goes on with other jobs till then."""
    sim = await world.simulator(batch_time=timedelta(seconds=100))
    sim.faults.lose_reply(on="atch" if world.dialect == "anthropic" else "batchGenerate")
    async with world.engine() as engine, asyncio.timeout(30):
        first = await engine.start(echo(0), id="first")
        await until(sim.batches)
        second = await engine.start(echo(1), id="second")
        await until(lambda: len(sim.batches()) == 2)
        assert not any(batch.final for batch in sim.batches())
        assert [await first, await second] == ["You said: row 0", "You said: row 1"]
    assert sim.ledger.counts()["batch_paid"] == 2
