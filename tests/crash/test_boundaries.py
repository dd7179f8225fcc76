"""A process that dies at any step between a line and its outcome: the next one goes on, and pays nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.ports.provider import CallFault, RemoteJob
from segue.ports.store import Store
from segue.runtime.lanes import delivery, ending, lane, lanes
from segue.stores import open_store
from tests.crash.remote import Death, Far, FastClock, MortalFar, MortalStore, Remote

ROWS = [f"row {number}" for number in range(7)]
EXPECTED = [f"heard then heard {row}" for row in ROWS]
#: Calls of an undisturbed life that a death can strike at; more than there are is fine.
MOST = 60


@segue.flow(name="crash.twice")
async def twice(text: str) -> str:
    first = await segue.generate(text)
    return await segue.generate(f"then {first}")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "CHUNK", 3)
    monkeypatch.setattr(ending, "CHUNK", 3)
    monkeypatch.setattr(delivery, "CHUNK", 3)


def engine_of(store: Any, provider: Far, clock: FastClock) -> segue.Engine:
    return segue.Engine(
        store, clock=clock, mode="batch", model="far:m", providers={"far": lambda _: provider}
    )


async def one_life(store: Any, provider: Far, clock: FastClock) -> list[str]:
    async with engine_of(store, provider, clock) as engine:
        return await engine.map(twice, ROWS, id="job", budget=segue.Budget(tokens=100_000))


async def cut_off(store: Store, remote: Remote, death: Death) -> list[str] | None:
    """A life that ends when death strikes, with what it had in hand; its results if it was spared."""
    life = asyncio.ensure_future(one_life(MortalStore(store, death), MortalFar(remote, death), remote.clock))
    struck = asyncio.ensure_future(death.struck.wait())
    await asyncio.wait({life, struck}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    struck.cancel()
    if not death.struck.is_set():
        return await asyncio.wait_for(life, 1)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    return None


async def strike(store: Store, at: int, after: bool, lag: float = 0.0) -> tuple[bool, Remote, str]:
    """Die at that call, then live on. Whether death struck, and where."""
    clock = FastClock()
    remote = Remote(clock, lag)
    death = Death(at, after)
    await store.open()
    try:
        first = await cut_off(store, remote, death)
        clock.moved += 2 * lanes.LEASE
        results = await asyncio.wait_for(
            one_life(MortalStore(store, Death(0, False)), Far(remote), clock), 30
        )
        assert results == EXPECTED, death.where
        assert first is None or first == EXPECTED
        assert await store.lanes() == []
        assert await store.line_counts() == {"ok": 2 * len(ROWS)}
        (budget,) = await store.budgets()
        assert (budget.spent.tokens, budget.reserved.tokens, budget.waiting) == (5 * 2 * len(ROWS), 0, 0)
    finally:
        await store.close()
    return first is None, remote, death.where


async def every(address: Any, after: bool, lag: float) -> set[str]:
    """Die at every call there is."""
    seen: set[str] = set()
    for at in range(1, MOST):
        struck, remote, where = await strike(open_store(address(at)), at, after, lag)
        assert set(remote.paid.values()) == {1}, f"paid {remote.paid} when it died {where}"
        assert len(remote.paid) == 2 * len(ROWS)
        if not struck:
            return seen
        seen.add(where.split()[1])
    raise AssertionError("the work takes more calls than were tried")


ALL = {
    "claim_lane",
    "take",
    "job_lines",
    "job_bodies",
    "upload",
    "put_batch_job",
    "submit",
    "poll",
    "results",
    "outcomes",
}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("lag", [0.0, 15.0], ids=["listed", "listed late"])
async def test_death_at_every_call(after: bool, lag: float) -> None:
    assert await every(lambda at: "memory:", after, lag) == ALL


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_death_at_every_call_on_a_file(tmp_path: Path, after: bool) -> None:
    assert await every(lambda at: f"sqlite:{tmp_path / str(at)}.db", after, 0.0) == ALL


async def test_the_window_that_is_left() -> None:
    """Accepted, cut off before its id was noted, and not listed for longer than the grace period: sent again."""
    for at in range(1, MOST):
        _, remote, where = await strike(open_store("memory:"), at, True, lag=10 * lane.GRACE)
        if where == "after submit":
            assert set(remote.paid.values()) == {1, 2}
            return
        assert set(remote.paid.values()) == {1}
    raise AssertionError("no submission was struck")


class Flaky(Far):
    """Its uploads fail for a long time; then it accepts a job, doesn't say so, and lists it late."""

    def __init__(self, remote: Remote, failures: int, lost: int) -> None:
        super().__init__(remote)
        self.failures, self.lost = failures, lost

    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        if self.failures:
            self.failures -= 1
            raise CallFault(503, "later", again=True)
        return await super().upload(lines, endpoint, nonce)

    async def submit(self, file: str, endpoint: str, nonce: str, lines: Any = None) -> RemoteJob:
        job = await super().submit(file, endpoint, nonce)
        if self.lost:
            self.lost -= 1
            raise CallFault(0, "the connection was lost", again=True, code="lost")
        return job


@pytest.mark.parametrize("failures", [0, 6])
async def test_the_grace_period_begins_with_the_submission(failures: int) -> None:
    """However long ago the job was made up: an answer that was lost isn't asked for again too soon."""
    clock = FastClock()
    remote = Remote(clock, lag=0.6 * lane.GRACE)
    provider = Flaky(remote, failures, lost=2)
    async with asyncio.timeout(30):
        assert await one_life(open_store("memory:"), provider, clock) == EXPECTED
    assert set(remote.paid.values()) == {1}
    assert clock.now() - clock.moved > (2 * lane.GRACE if failures else lane.GRACE)


async def test_what_is_sent_again_gets_a_grace_period_of_its_own() -> None:
    """The first submission never arrived; of the second only the answer was lost."""

    class Deaf(Flaky):
        heard = 0

        async def submit(self, file: str, endpoint: str, nonce: str, lines: Any = None) -> RemoteJob:
            self.heard += 1
            if self.heard == 1:
                raise CallFault(0, "the connection was lost", again=True, code="lost")
            return await super().submit(file, endpoint, nonce)

    clock = FastClock()
    remote = Remote(clock, lag=0.6 * lane.GRACE)
    async with asyncio.timeout(30):
        assert await one_life(open_store("memory:"), Deaf(remote, 0, lost=1), clock) == EXPECTED
    assert set(remote.paid.values()) == {1}


async def test_a_look_that_is_out_of_date() -> None:
    """One engine looks at a lane; before it has it, another sends its job and goes. The job isn't sent again."""
    clock = FastClock()
    remote = Remote(clock, lag=0.6 * lane.GRACE)
    uploading, looked, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class First(Far):
        async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
            uploading.set()
            await looked.wait()
            return await super().upload(lines, endpoint, nonce)

    class Late(MortalStore):
        async def lanes(self) -> Any:
            heads = await self.inner.lanes()
            if heads and heads[0].jobs and not looked.is_set():
                assert heads[0].jobs[0].state == "intent"
                looked.set()
                await go.wait()
            return heads

    store = open_store("memory:")
    await store.open()
    spared = Death(0, False)
    async with asyncio.timeout(30):
        first = asyncio.ensure_future(one_life(MortalStore(store, spared), First(remote), clock))
        await uploading.wait()
        second = asyncio.ensure_future(one_life(Late(store, spared), Far(remote), clock))
        while not remote.jobs:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        go.set()
        assert await second == EXPECTED
    assert set(remote.paid.values()) == {1}


async def test_what_was_never_submitted_isnt_looked_for() -> None:
    """An upload is cut off. Some servers have no list of jobs, where it would be looked for in vain for ever."""

    class Unlisted(Far):
        async def find(self, nonce: str, file: str, since: float, **known: Any) -> RemoteJob | None:
            raise CallFault(404, "no such path", again=False)

    store = open_store("memory:")
    clock = FastClock()
    remote = Remote(clock)
    await store.open()
    assert await cut_off(store, remote, Death(1, False, "upload")) is None
    assert [job.state for job in await store.batch_jobs()] == ["intent"]
    clock.moved += 2 * lanes.LEASE
    async with asyncio.timeout(10):
        assert await one_life(MortalStore(store, Death(0, False)), Unlisted(remote), clock) == EXPECTED
    assert set(remote.paid.values()) == {1}
