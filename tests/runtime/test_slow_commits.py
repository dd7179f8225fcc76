"""Commits that take their time: what happens to a call between its outcome and the moment when its code gets it."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Sequence
from typing import Any

import pytest

import segue
from segue.core.replay import Replay
from segue.model.entry import GIVEN_UP, Entry
from segue.ports.store import CommitResult, Landed, Store, Turn
from segue.runtime.wake.executor import Executor
from segue.stores.memory import MemoryStore
from segue.testing.crash import Mortal
from segue.testing.fake_provider import FakeProvider
from tests.runtime.delayed import Delayed
from tests.runtime.lives import Desk


class Patient(Delayed):
    """Answers the first commit that journals something when told to."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner, lambda: 0.0)
        self.sent, self.release = asyncio.Event(), asyncio.Event()

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        if self.sent.is_set() or turns[0].entries is None:
            return super().commit(turns)
        self.sent.set()
        held: Future[list[CommitResult]] = asyncio.get_running_loop().create_future()
        done = self.inner.commit(turns).result()
        asyncio.ensure_future(self.release.wait()).add_done_callback(lambda _: held.set_result(done))
        return held

    def land(self, turn: Turn, then: Landed) -> None:
        if self.sent.is_set() or turn.entries is None:
            return super().land(turn, then)
        self.sent.set()
        result = self.inner.land(turn, then)
        assert result is not None
        asyncio.ensure_future(self.release.wait()).add_done_callback(lambda _: then(result))
        return None

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        if self.sent.is_set():
            return super().append(run, fence, entries, then)
        self.sent.set()
        assert self.inner.append(run, fence, entries, then)
        asyncio.ensure_future(self.release.wait()).add_done_callback(lambda _: then("committed"))
        return False


@segue.step
async def outrun(n: int) -> int:
    return n


@segue.flow
async def timed_in_flight() -> str:
    """The time is up while the outcome is being committed."""
    try:
        async with asyncio.timeout(0.005):
            first = await outrun(1)
    except TimeoutError:
        return f"late: {await outrun(2)}"
    return f"in time: {first} {await outrun(3)}"


@segue.flow
async def timed_and_going_on() -> str:
    """The same, and the block goes on."""
    try:
        async with asyncio.timeout(0.005):
            await outrun(1)
            await segue.ask("And now?")
    except TimeoutError:
        return f"late: {await outrun(2)}"
    return "in time"


@pytest.mark.parametrize(
    ("flow", "result"), [(timed_in_flight, "in time: 1 3"), (timed_and_going_on, "late: 2")]
)
@pytest.mark.parametrize("die_at", [None, 2])
async def test_a_timeout_strikes_at_rest_not_while_an_outcome_is_committed(
    flow: Any, result: str, die_at: int | None
) -> None:
    inner = MemoryStore()
    store = Patient(inner)
    mortal = Mortal(store, die_at, after=True)
    died = asyncio.get_running_loop().create_future()
    mortal.died = lambda: died.done() or died.set_result(None)
    async with segue.Engine(mortal, verify=True) as engine:
        await engine.start(flow(), id="it")
        await store.sent.wait()
        asyncio.get_running_loop().call_later(0.02, store.release.set)
        ending = asyncio.ensure_future(engine.wait("it"))
        await asyncio.wait({ending, died}, return_when=asyncio.FIRST_COMPLETED)
        if die_at is None:
            assert (await ending).status == "done"
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    async with segue.Engine(inner, verify=True) as engine:
        assert await (await engine.get("it")) == result


@segue.flow
async def both() -> int:
    return sum(await asyncio.gather(outrun(1), outrun(2)))


async def test_a_run_that_leaves_waits_for_what_is_on_its_way() -> None:
    store = Patient(MemoryStore())
    async with segue.Engine(store) as engine:
        await engine.start(both(), id="it")
        await store.sent.wait()
        one = engine.worker.awake["it"]
        assert isinstance(one, Executor)
        one.leave("ready")
        await asyncio.sleep(0.01)
        assert not one.over
        store.release.set()
        async with asyncio.timeout(5):
            await one.has_left()
            assert await (await engine.get("it")) == 3


def test_what_was_given_up_on_its_way_is_given_up_again() -> None:
    """Of a call that something foreign cancelled while its outcome was committed."""
    made = Entry("", 0, "step", "a", b"", b"", 0, 0, b"1", None, 5.0)
    replay = Replay([made, Entry("", 0, "", "", b"", b"", 0, GIVEN_UP)], 0.0)
    assert replay.made("", 0, "step", "a", b"") is not None
    assert replay.next_batch() is None
    assert [entry.given_up for entry in replay.lacking({("", 0)})] == [0]
    replay.gave_up(("", 0))
    assert replay.next_batch() == [made], "nobody waits for it; it tells the time"
    assert replay.time == 5.0
    assert replay.used_up


async def test_a_batch_whose_only_outcome_was_given_up_tells_the_time_again() -> None:
    store = Patient(MemoryStore())

    @segue.flow
    async def cut_in_flight() -> str:
        """Something foreign cancels the call while its outcome is being committed, and waits until it is."""
        call = asyncio.ensure_future(outrun(1))
        await asyncio.sleep(0)
        await store.sent.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        store.release.set()
        await asyncio.sleep(0.1)
        return str(segue.now().timestamp())

    async with segue.Engine(store, verify=True, linger=0.01) as engine:
        run = await engine.start(cut_in_flight(), id="it")
        assert float(await run) > (await run.head()).spec.begun


# ---------------------------------------------------------------- what was paid is in the receipt
@segue.flow
async def judged_twice() -> str:
    """The slower judgement comes while the faster one's is being committed: it loses, and was paid for."""
    first, second = (asyncio.create_task(segue.generate(f"Judge {n}.")) for n in (1, 2))
    done, pending = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return done.pop().result()


@segue.flow
async def judged_and_forgotten() -> str:
    """Nobody awaits the second judgement, which has come when the flow ends."""
    forgotten = asyncio.create_task(segue.generate("Judge 2."))
    first = await segue.generate("Judge 1.")
    del forgotten
    return first


@pytest.mark.parametrize("flow", [judged_twice, judged_and_forgotten])
async def test_a_judgement_that_nobody_waits_for_is_paid_and_kept(
    flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Patient(MemoryStore())
    send = FakeProvider.send

    async def second_is_slower(self: FakeProvider, endpoint: str, body: bytes, *how: Any) -> bytes:
        reply = await send(self, endpoint, body, *how)
        if b"Judge 2." in body:
            await store.sent.wait()
            asyncio.get_running_loop().call_later(0.01, store.release.set)
        return reply

    monkeypatch.setattr(FakeProvider, "send", second_is_slower)
    desk = Desk(store)
    desk.fake.when("Judge").reply("good")
    async with desk.engine(verify=True) as engine:
        assert await engine.run(flow(), id="it") == "good"
        run = await engine.get("it")
        assert [line.calls for line in (await run.receipt()).lines] == [2]
    values = [entry.value for entry in await desk.entries() if entry.kind == "generate"]
    assert len(values) == 2
    assert None not in values
