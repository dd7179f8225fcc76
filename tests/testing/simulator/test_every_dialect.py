"""Every fault in every dialect, as a client sees it: what a provider's batches are reported to do, done on command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from segue.model.chat import ChatRequest, as_messages
from segue.model.errors import ProviderFault
from segue.ports.provider import CallFault, LineResult, RemoteJob
from segue.providers import make, resolve
from segue.testing.simulator import Chaos, Limits, Simulator, VirtualClock
from segue.testing.simulator.chaos import KINDS
from segue.transports.pooled import Pooled

HOUR = timedelta(hours=1)
DIALECTS = ("openai", "anthropic", "gemini")
NONCE = "0123456789abcdef0123456789abcdef"


class Desk:
    """A simulator, and one who speaks to it in a dialect."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.sim = Simulator(clock=VirtualClock(), batch_time=HOUR)
        self._provider: Any = None

    async def __aenter__(self) -> Desk:
        await self.sim.start()
        self.speak(self.sim.base_url)
        return self

    def speak(self, url: str) -> None:
        self._provider = make(resolve(f"{self.dialect}:m@{url}", {}), {}, Pooled())

    async def __aexit__(self, *_: object) -> None:
        await self._provider.close()
        await self.sim.close()

    def body(self, text: str) -> bytes:
        return msgspec.json.encode(self._provider.chat_body(ChatRequest(as_messages(text)), "m"))

    async def say(self, text: str, heard: list[str] | None = None) -> str:
        """A live call, streamed where it is heard."""
        sent = await self._provider.send("chat", self.body(text), None if heard is None else heard.append)
        return str(self._provider.chat_reply(sent).text)

    async def submit(self, *names: str) -> RemoteJob:
        asked = [(name, self.body(name)) for name in names]

        async def lines() -> AsyncIterator[tuple[str, bytes]]:
            for each in asked:
                yield each

        file = await self._provider.upload(lines(), "chat", NONCE)
        job: RemoteJob = await self._provider.submit(file, "chat", NONCE, lines())
        return job

    def sent(self, name: str) -> str:
        """A line's id as it is sent: Anthropic's batches have no other place for a label."""
        return f"{name}-{NONCE[:16]}" if self.dialect == "anthropic" else name

    async def poll(self, job: RemoteJob) -> RemoteJob:
        found: RemoteJob = await self._provider.poll(job.id)
        return found

    async def over(self, *names: str) -> RemoteJob:
        job = await self.submit(*names)
        await self.sim.finish()
        return await self.poll(job)

    async def told(self, job: RemoteJob) -> list[LineResult | str]:
        return [line async for line in self._provider.results(job)]

    async def statuses(self, *names: str) -> list[tuple[str, int]]:
        """How each line of a job ended, by its id."""
        found = await self.told(await self.over(*names))
        return sorted((line.id, line.status) for line in found if isinstance(line, LineResult))


@pytest.fixture(params=DIALECTS)
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    async with Desk(request.param) as desk:
        yield desk


LONG = [f"line-{number}" for number in range(20)]
GOOD = [("a", 200), ("b", 200), ("c", 200)]


async def test_lines_that_are_missing_unknown_or_told_twice(desk: Desk):
    for order, left in (
        ("drop_line", 2),
        (f"drop_line({desk.sent('b')!r})", 2),
        ("wrong_id(times=2)", 1),
        ("double_line", 4),
    ):
        desk.sim.faults.order(order)
        statuses = await desk.statuses("a", "b", "c")
        assert sum(line in GOOD for line in statuses) == left, order
        assert len(statuses) == (3 if "wrong" in order else left)
        assert await desk.statuses("a", "b", "c") == GOOD  # each fault is used up
    assert desk.sim.ledger.counts()["batch_paid"] == 8 * 3


@pytest.mark.parametrize("status", [0, 429, 500])
async def test_a_line_that_fails_is_no_answer_and_isnt_paid(desk: Desk, status: int):
    desk.sim.faults.fail_line(desk.sent("b"), status=status)
    statuses = dict(await desk.statuses("a", "b", "c"))
    assert statuses.pop("b") == (500 if desk.dialect != "openai" and not status else status)
    assert statuses == {"a": 200, "c": 200}
    assert desk.sim.ledger.counts()["batch_paid"] == 2


async def test_half_a_line_no_file_and_an_empty_id(desk: Desk):
    desk.sim.faults.half_line()
    told = await desk.told(await desk.over("a", "b"))
    assert sorted(isinstance(line, LineResult) for line in told) == [False, True]
    desk.sim.faults.no_output_file()
    job = await desk.over("a")
    assert (job.over, job.rejected, job.files) == (True, "", ())
    desk.sim.faults.empty_error_file_id()
    job = await desk.over("a")
    assert job.over
    assert "" not in job.files


@pytest.mark.parametrize("done", [0.0, 0.5, 1.0])
async def test_an_expiry_with_partial_results(desk: Desk, done: float):
    desk.sim.faults.expire_batch(done=done)
    names = [f"l{n}" for n in range(8)]
    job = await desk.over(*names)
    found = [line for line in await desk.told(job) if isinstance(line, LineResult)]
    finished = {0.0: 0, 0.5: 4, 1.0: 7}[done]  # one at least wasn't done, or it would be over
    assert desk.sim.ledger.counts()["batch_paid"] == finished
    assert sum(line.status == 200 for line in found) == (0 if desk.dialect == "gemini" else finished)
    [batch] = desk.sim.batches()
    assert (batch.status, batch.completed) == ("expired", finished)


async def test_stuck_at_nothing_done_until_it_expires(desk: Desk):
    desk.sim.faults.stall_batch()
    job = await desk.submit("a", "b")
    await desk.sim.advance(20 * HOUR)
    job = await desk.poll(job)
    assert (job.over, job.done, job.failed) == (False, 0, 0)
    await desk.sim.finish()
    assert (await desk.poll(job)).over
    assert desk.sim.ledger.counts()["batch_paid"] == 0


async def test_a_late_validation(desk: Desk):
    desk.sim.faults.late_validation(20 * HOUR)
    job = await desk.submit("a")
    await desk.sim.advance(20 * HOUR)
    assert desk.sim.batches()[0].status == "validating"
    assert not (await desk.poll(job)).over
    await desk.sim.finish()
    assert (await desk.poll(job)).done == 1


async def test_a_batch_that_fails(desk: Desk):
    if desk.dialect == "anthropic":
        pytest.skip("Anthropic's batches don't fail as a whole")
    desk.sim.faults.fail_batch("token_limit_exceeded", "Enqueued token limit reached")
    job = await desk.over("a")
    assert job.over
    assert "limit" in job.rejected
    assert (await desk.over("a")).done == 1


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ("reply_html", 502),
        ("reply_html(status=200)", 200),
        ("fail(status=429, retry_after=7)", 429),
        ("fail(status=529)", 529),
        ("close_connection", 0),
        ("lose_reply", 0),
        ("empty_reply", 200),
    ],
)
async def test_calls_that_go_wrong(desk: Desk, order: str, status: int):
    desk.sim.faults.order(order)
    with pytest.raises((CallFault, ProviderFault)) as caught:
        await desk.say("hello")
    if isinstance(caught.value, CallFault):
        assert caught.value.status in (status, 0)
        assert caught.value.again
        assert caught.value.after == (7.0 if "retry" in order else None)
    else:
        assert status == 200
    assert "hello" in await desk.say("hello")
    if status:  # the client asks again by itself where a connection that it kept is gone
        job = await desk.submit("a")
        desk.sim.faults.order(order)
        with pytest.raises(CallFault):
            await desk.poll(job)


@pytest.mark.parametrize("order", ["cut_stream_after(1)", "cut_stream_after(1, abort=True)"])
async def test_streams_that_are_cut_off_and_slow_ones(desk: Desk, order: str):
    desk.sim.faults.order(order)
    with pytest.raises((CallFault, ProviderFault)):
        await desk.say("hello", [])
    desk.sim.faults.slow_stream(timedelta(0))
    heard: list[str] = []
    assert await desk.say("hello", heard) == "".join(heard)


async def test_limits(desk: Desk):
    await desk.sim.close()
    limits = Limits(enqueued_tokens=50, a_minute=1)
    async with Simulator(clock=VirtualClock(), batch_time=HOUR, limits=limits) as sim:
        desk.sim = sim
        desk.speak(sim.base_url)
        await desk.say("hello")
        with pytest.raises(CallFault) as caught:
            await desk.say("hello")
        assert caught.value.status == 429
        if desk.dialect == "openai":  # which finds out late
            assert "limit" in (await desk.over(*LONG)).rejected
        else:
            with pytest.raises(CallFault) as caught:
                await desk.submit(*LONG)
            assert caught.value.status == 429


async def test_what_chance_draws_is_drawn_again_from_the_same_seed():
    async def drawn(seed: int) -> dict[str, int]:
        sim = Simulator(clock=VirtualClock(), batch_time=HOUR)
        chaos = Chaos(0.5, seed=seed)
        for when in ("call", "stream", "batch") * 200:
            chaos.strike(when, sim.faults)
        assert set(chaos.done) == set(KINDS)
        assert 200 < chaos.done.total() < 400
        return chaos.done

    assert await drawn(1) == await drawn(1) != await drawn(2)
    chaos, quiet = Chaos(1.0, kinds=["dropped"]), Simulator()
    for when in ("call", "stream", "batch"):
        chaos.strike(when, quiet.faults)
    assert chaos.done == {"dropped": 1}
