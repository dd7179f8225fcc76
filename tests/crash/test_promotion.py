"""A process that dies at any step of sending late lines live: the next one goes on, and little is paid twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.budget import Amount
from segue.model.run import Usage
from segue.ports.provider import CallFault, RemoteJob
from segue.ports.store import Store
from segue.runtime import worker
from segue.runtime.lanes import lanes
from segue.runtime.receipt import total
from segue.stores import open_store
from tests.crash.remote import Death, Far, FastClock, MortalStore, Remote, answer

#: So much faster time goes.
SPEED = 300.0
ROWS = [f"row {number}" for number in range(5)]
EXPECTED = [f"heard {row}" for row in ROWS]
#: At so many calls of each kind death strikes: as many as a life has.
CALLS = {"take": 1, "submit": 1, "promote": 1, "job_lines": 4, "send": 5, "outcomes": 1, "put_batch_job": 2}
#: As many as every life has: the fourth look at a job's lines is a poll's, which may come after all is done.
SURE = CALLS | {"job_lines": 3}
MODE = segue.Batch(within=timedelta(seconds=140), late="live")


@pytest.fixture(autouse=True)
def leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lease lapses because this machine is busy: one of a minute would hold for a fifth of a second here."""
    monkeypatch.setattr(worker, "LEASE", 10 * SPEED)
    monkeypatch.setattr(lanes, "LEASE", 10 * SPEED)


@segue.flow(name="crash.late")
async def late(text: str) -> str:
    return await segue.generate(text)


class World:
    """A provider whose jobs hang until they are let go, and that keeps account of live calls."""

    def __init__(self) -> None:
        self.clock = FastClock(SPEED)
        self.remote = Remote(self.clock)
        self.live: Counter[bytes] = Counter()
        self.hangs = True
        self.cancelled: list[str] = []


class StuckFar(Far):
    """Such a provider, as a process speaks to it that may die at a live call."""

    def __init__(self, world: World, death: Death) -> None:
        super().__init__(world.remote)
        self.world, self.death = world, death

    async def send(
        self, endpoint: str, body: bytes, on_text: Callable[[str], None] | None, on_rates: Any = None
    ) -> bytes:
        async def send() -> bytes:
            self.world.live[body] += 1
            return answer(body)

        given: bytes = await self.death.call("send", send, CallFault(0, "this process is dead", again=True))
        return given

    async def submit(self, file: str, endpoint: str, nonce: str, lines: Any = None) -> RemoteJob:
        gone = CallFault(0, "this process is dead", again=True)
        job: RemoteJob = await self.death.call(
            "submit", lambda: Far.submit(self, file, endpoint, nonce), gone
        )
        return job

    async def poll(self, job: str) -> RemoteJob:
        if self.world.hangs:
            return RemoteJob(job, "in_progress", False, total=len(ROWS))
        return await super().poll(job)

    async def cancel(self, job: str) -> None:
        self.world.cancelled.append(job)


class LateStore(MortalStore):
    WATCHED = (*MortalStore.WATCHED, "promote", "reserve")


async def one_life(store: Any, world: World, death: Death, budget: segue.Budget | None = None) -> list[str]:
    provider = StuckFar(world, death)
    async with segue.Engine(
        store, clock=world.clock, mode=MODE, model="far:m", providers={"far": lambda _: provider}
    ) as engine:
        how: Any = {} if budget is None else {"budget": budget}
        return await engine.map(late, ROWS, id="job", **how)


async def until_struck(life: Awaitable[list[str]], death: Death) -> list[str] | None:
    running, struck = asyncio.ensure_future(life), asyncio.ensure_future(death.struck.wait())
    await asyncio.wait({running, struck}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    struck.cancel()
    if not death.struck.is_set():
        return await asyncio.wait_for(running, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return None


def calls(uses: list[Usage], lane: str) -> int:
    return sum(use.calls for use in uses if use.lane == lane)


async def collect(store: Store, world: World) -> None:
    """The jobs end after all; a later sweep reads what they give."""
    world.hangs = False
    world.clock.moved += 2 * lanes.LEASE
    provider = StuckFar(world, Death(0, False))
    async with segue.Engine(
        MortalStore(store, Death(0, False)),
        clock=world.clock,
        mode=MODE,
        model="far:m",
        providers={"far": lambda _: provider},
        worker=False,
    ) as engine:
        async with asyncio.timeout(10):
            while await store.lanes():
                await engine.advance()


@pytest.mark.parametrize(
    "name", ["take", "submit", "promote", "job_lines", "send", "outcomes", "put_batch_job"]
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("address", ["memory:", "sqlite:"])
async def test_death_at_the_first_calls_of_each_kind(
    tmp_path: Path, address: str, after: bool, name: str
) -> None:
    struck = 0
    for at in range(1, 1 + CALLS[name]):
        store = open_store(address if address == "memory:" else f"sqlite:{tmp_path / f'{at}.db'}")
        world, death = World(), Death(at, after, name)
        await store.open()
        try:
            first = await until_struck(one_life(LateStore(store, death), world, death), death)
            world.clock.moved += 2 * lanes.LEASE
            alive = Death(0, False)
            assert await asyncio.wait_for(one_life(LateStore(store, alive), world, alive), 30) == EXPECTED
            await collect(store, world)
            assert await store.line_counts() == {"ok": len(ROWS)}
            claimed = total(use for head in (await store.newest(job="job"))[0] for use in head.usage)
            waste = total(await store.unclaimed(job="job"))
        finally:
            await store.close()
        struck += first is None
        assert sum(use.calls for use in claimed) == len(ROWS)
        lost = sum(world.live.values()) - calls([*claimed, *waste], "live")
        assert lost == 0 or first is None  # calls that were under way
        assert 0 <= lost <= len(ROWS)
        assert all(count <= 2 for count in world.live.values())
        assert calls([*claimed, *waste], "batch") == sum(world.remote.paid.values())
        assert set(world.remote.paid.values()) <= {1}
    assert SURE[name] <= struck <= CALLS[name]


@pytest.mark.parametrize("name", ["take", "promote", "send", "outcomes", "put_batch_job", "reserve"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("address", ["memory:", "sqlite:"])
async def test_a_budget_counts_what_is_used_wherever_death_strikes(
    tmp_path: Path, address: str, after: bool, name: str
) -> None:
    """Both answers of a late line too, and nothing stays reserved."""
    store = open_store(address if address == "memory:" else f"sqlite:{tmp_path / 'runs.db'}")
    world, death, alive = World(), Death(1, after, name), Death(0, False)
    budget = segue.Budget(tokens=100_000)
    await store.open()
    try:
        await until_struck(one_life(LateStore(store, death), world, death, budget), death)
        world.clock.moved += 2 * lanes.LEASE
        life = one_life(LateStore(store, alive), world, alive, budget)
        assert await asyncio.wait_for(life, 30) == EXPECTED
        await collect(store, world)
        uses = [use for head in (await store.newest(job="job"))[0] for use in head.usage]
        uses += await store.unclaimed(job="job")
        (one,) = await store.budgets()
    finally:
        await store.close()
    used = sum(use.input_tokens + use.output_tokens for use in uses)
    assert (one.spent.tokens, one.reserved, one.waiting) == (used, Amount(), 0)
