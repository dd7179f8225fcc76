"""The wall clock is set back and forward while runs are at work: nothing is done twice, lost, or looped over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import segue
from segue.model.errors import StoreError
from segue.model.lane import BatchJob
from segue.ports.clock import Timer
from segue.ports.provider import CallFault, RemoteJob
from segue.runtime.calls.limits import Limit
from segue.runtime.ground.jumps import Jumps
from segue.runtime.lanes.desk import Desk
from segue.runtime.lanes.quotas import Quotas
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.fake_model import FakeEngine
from segue.testing.fake_provider import FakeProvider

HOUR, DAY = 3600.0, 86_400.0
DONE: Counter[str] = Counter()


class Wall:
    """A machine's clock, which can be set. Waits are real."""

    def __init__(self) -> None:
        self.set_by = 0.0

    def now(self) -> float:
        return time.time() + self.set_by

    def steady(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


class Counting(MemoryStore):
    """Counts what an engine asks of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    async def claim(self, *args: Any, **more: Any) -> Any:
        self.asked["claim"] += 1
        return await super().claim(*args, **more)

    def commit(self, turns: Any) -> Any:
        self.asked["commit"] += 1
        return super().commit(turns)

    def land(self, turn: Any, then: Any) -> Any:
        self.asked["commit"] += 1
        return super().land(turn, then)


class Desktop:
    """Engines of one machine on one store."""

    def __init__(self) -> None:
        self.clock, self.store, self.fake = Wall(), Counting(), FakeModel()
        self.fake.when("").reply("ok")

    def engine(self, **options: Any) -> FakeEngine:
        return FakeEngine(self.fake, self.store, **{"clock": self.clock, "linger": 0.02, **options})


async def until(is_so: Callable[[], Any], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    DONE.clear()
    monkeypatch.setattr("segue.runtime.worker.POLL", 0.02)
    monkeypatch.setattr("segue.runtime.ground.jumps.CHANCE", 0.4)


# ---------------------------------------------------------------- claims
GO: dict[str, asyncio.Event] = {}


@segue.step(name="jumps.slow")
async def slow(name: str) -> str:
    DONE[name] += 1
    await GO[name].wait()
    return name


@segue.flow(name="jumps.working")
async def working(name: str) -> str:
    return await slow(name)


@pytest.mark.parametrize("by", [DAY, -HOUR, -DAY])
async def test_a_step_under_way_isnt_done_twice(by: float) -> None:
    desk = Desktop()
    GO["a"] = asyncio.Event()
    async with desk.engine() as one, desk.engine() as two:
        run = await one.start(working("a"))
        await until(lambda: DONE["a"])
        fence = (await one.head(run.id)).fence
        for engine in (two, one):  # who sees it first
            desk.clock.set_by += by
            engine.worker.wake()
            await asyncio.sleep(0.06)
        GO["a"].set()
        assert await run == "a"
        assert (await one.head(run.id)).fence == fence
    assert DONE["a"] == 1


async def test_a_claim_that_nobody_renews_is_taken_a_moment_after_a_jump() -> None:
    desk = Desktop()
    GO["b"] = asyncio.Event()
    async with desk.engine() as gone:
        run = await gone.start(working("b"))
        await until(lambda: DONE["b"])
        for task in list(gone.worker._tasks):  # it hangs
            task.cancel()
        async with desk.engine() as other:
            await asyncio.sleep(0.05)
            desk.clock.set_by += DAY
            GO["c"] = asyncio.Event()
            GO["c"].set()
            assert await asyncio.wait_for(other.run(working("c")), 0.2) == "c"  # others aren't held up
            assert DONE["b"] == 1
            await until(lambda: DONE["b"] == 2)
            GO["b"].set()
            assert await (await other.get(run.id)) == "b"


class FullFor(MemoryStore):
    """Writes fail until claims that weren't renewed have lapsed, and one renewal more."""

    full = False
    until = 0.0

    async def renew(self, worker: str, leases: Any, ttl: float, *, now: float) -> list[bool]:
        if self.full:
            self.full = now < self.until
            raise StoreError("here", "the disk is full", "make room")
        return await super().renew(worker, leases, ttl, now=now)

    async def claim(self, *args: Any, **more: Any) -> Any:
        if self.full:
            raise StoreError("here", "the disk is full", "make room")
        return await super().claim(*args, **more)


async def test_claims_that_lapsed_while_the_store_failed_are_renewed_before_any_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else workers take each other's runs, and their own, and what those are at is done, and paid, once more."""
    monkeypatch.setattr("segue.runtime.worker.RENEW", 0.1)
    monkeypatch.setattr("segue.runtime.worker.LEASE", 0.2)
    # after a claim that failed:
    monkeypatch.setattr(Wall, "sleep", staticmethod(lambda _: asyncio.sleep(0.01)))
    desk, store = Desktop(), FullFor()
    GO["e"] = asyncio.Event()
    engines = [FakeEngine(desk.fake, store, clock=desk.clock) for _ in range(2)]
    async with engines[0], engines[1]:
        runs = [await engine.start(working("e")) for engine in engines]
        await until(lambda: DONE["e"] == 2)
        store.until, store.full = desk.clock.now() + 0.3, True
        await until(lambda: not store.full)
        await asyncio.sleep(0.05)  # they look for work
        GO["e"].set()
        assert [await run for run in runs] == ["e", "e"]
        assert [(await run.head()).fence for run in runs] == [1, 1]
    assert DONE["e"] == 2


async def test_a_late_look_for_work_renews_once(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, renewed = Desktop(), list[float]()
    GO["g"] = asyncio.Event()
    async with desk.engine() as engine:
        run = await engine.start(working("g"))
        await until(lambda: DONE["g"])
        renew = engine.store.renew

        async def counted(*args: Any, now: float) -> list[bool]:
            renewed.append(now)
            return await renew(*args, now=now)

        monkeypatch.setattr(engine.store, "renew", counted)
        engine.worker._renewed -= 20
        await engine.worker.claim_once()
        await engine.worker.claim_once()
        assert len(renewed) == 1
        GO["g"].set()
        assert await run == "g"


class Stalls(MemoryStore):
    """Nothing is written for a while; then one renewal after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.goes = asyncio.Event()
        self.goes.set()
        self.waited = 0

    async def renew(self, worker: str, leases: Any, ttl: float, *, now: float) -> list[bool]:
        if not self.goes.is_set():
            await self.goes.wait()
            self.waited += 1
            await asyncio.sleep(0.02 * self.waited)
        return await super().renew(worker, leases, ttl, now=now)

    async def claim(self, *args: Any, **more: Any) -> Any:
        await self.goes.wait()
        return await super().claim(*args, **more)


async def test_claims_that_lapsed_while_the_store_stood_still_are_left_to_those_who_hold_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("segue.runtime.worker.RENEW", 0.1)
    monkeypatch.setattr("segue.runtime.worker.LEASE", 0.3)
    desk, store = Desktop(), Stalls()
    GO["f"] = asyncio.Event()
    engines = [FakeEngine(desk.fake, store, clock=desk.clock) for _ in range(3)]
    async with engines[0], engines[1], engines[2]:
        runs = [await engine.start(working("f")) for engine in engines]
        await until(lambda: DONE["f"] == 3)
        store.goes.clear()
        await asyncio.sleep(0.5)
        store.goes.set()
        await asyncio.sleep(0.1)  # they look for work
        GO["f"].set()
        assert [await run for run in runs] == ["f"] * 3
        assert [(await run.head()).fence for run in runs] == [1] * 3
    assert DONE["f"] == 3


async def test_what_was_buried_is_free_at_once_after_a_jump_too() -> None:
    desk = Desktop()
    async with desk.engine(worker=False) as engine:
        await engine.start(working("d"))
        (claimed,) = await desk.store.claim("gone", 10, 60.0, now=desk.clock.now())
        assert not await desk.store.claim("w", 10, 60.0, now=desk.clock.now() + DAY, lapsed=False)
        await desk.store.bury(["gone"])
        (again,) = await desk.store.claim("w", 10, 60.0, now=desk.clock.now() + DAY, lapsed=False)
        assert again.head.fence == claimed.head.fence + 1


def test_a_jump_is_seen_by_whoever_looks() -> None:
    clock = Wall()
    jumps = Jumps(clock)
    assert not jumps.look()
    assert not jumps.recent
    clock.set_by -= DAY
    assert not jumps.look()  # nothing lapses by that
    clock.set_by += 10.0
    assert not jumps.look()
    clock.set_by += HOUR
    assert jumps.look()
    assert not jumps.look()
    assert jumps.recent


# ---------------------------------------------------------------- sleeps and timers
@segue.flow(name="jumps.sleeper")
async def sleeper(seconds: float) -> str:
    await segue.sleep(timedelta(seconds=seconds))
    DONE["sleeper"] += 1
    return "awake"


@pytest.mark.parametrize("linger", [0.02, 2.0], ids=["parked", "resident"])
@pytest.mark.parametrize("back", [HOUR, DAY])
async def test_a_sleep_is_over_when_the_wall_clock_says_so(linger: float, back: float) -> None:
    desk = Desktop()
    async with desk.engine(linger=linger) as engine:
        run = await engine.start(sleeper(0.3))
        await asyncio.sleep(0.05)
        desk.clock.set_by -= back
        await asyncio.sleep(0.5)
        assert not DONE["sleeper"]
        commits, claims = desk.store.asked["commit"], desk.store.asked["claim"]
        await asyncio.sleep(0.3)
        assert desk.store.asked["commit"] == commits  # it waits, and nothing turns round
        assert desk.store.asked["claim"] - claims < 40
        desk.clock.set_by += back
        assert await asyncio.wait_for(_result(run), 2) == "awake"
    assert DONE["sleeper"] == 1


async def test_a_sleep_is_over_at_once_where_the_clock_has_passed_its_end() -> None:
    desk = Desktop()
    async with desk.engine() as engine:
        run = await engine.start(sleeper(10 * HOUR))
        await asyncio.sleep(0.05)
        desk.clock.set_by += DAY
        assert await asyncio.wait_for(_result(run), 2) == "awake"
    assert DONE["sleeper"] == 1


async def _result(run: segue.Run[Any]) -> Any:
    return await run


class Tick(segue.Note): ...


class Ticker(segue.Actor[None]):
    @segue.on
    async def tick(self, _: Tick) -> None:
        DONE["tick"] += 1


async def test_a_repeating_timer_counts_what_it_missed_as_one_and_waits_for_the_wall_clock() -> None:
    desk = Desktop()
    async with desk.engine() as engine:
        ticker = await engine.start(Ticker())
        await ticker.tell(Tick(), every=timedelta(hours=1))
        await asyncio.sleep(0.1)
        desk.clock.set_by += DAY + 60
        await until(lambda: DONE["tick"])
        await asyncio.sleep(0.1)
        assert DONE["tick"] == 1
        desk.clock.set_by -= DAY
        commits = desk.store.asked["commit"]
        await asyncio.sleep(0.2)
        assert DONE["tick"] == 1
        assert desk.store.asked["commit"] <= commits + 1
        desk.clock.set_by += DAY + HOUR
        await until(lambda: DONE["tick"] == 2)


class Asker(segue.Actor[list[str]]):
    @segue.on
    async def tick(self, _: Tick) -> segue.Done[list[str]]:
        return segue.Done([await segue.ask("now?")])


@pytest.mark.parametrize("key", ["", "tick"])
async def test_a_timer_whose_handler_waits_is_in_hand_though_the_clock_is_set_back(key: str) -> None:
    desk = Desktop()
    async with desk.engine() as engine:
        asker = await engine.start(Asker())
        await asker.tell(Tick(), after=timedelta(minutes=1), key=key)
        await asyncio.sleep(0.1)
        desk.clock.set_by += 90
        async with asyncio.timeout(5):
            while not (asks := await engine.open_asks()) or (await asker.head()).status != "parked":
                await asyncio.sleep(0.01)
        desk.clock.set_by -= HOUR
        await asks[0].answer("now")
        assert await asyncio.wait_for(_result(asker), 2) == ["now"]


@segue.step(name="jumps.shaky", retry=segue.Retry(2, wait=timedelta(seconds=0.1)))
async def shaky() -> int:
    DONE["shaky"] += 1
    if DONE["shaky"] == 1:
        raise OSError("not yet")
    return DONE["shaky"]


@segue.flow(name="jumps.retried")
async def retried() -> int:
    return await shaky()


@pytest.mark.parametrize("by", [DAY, -HOUR])
async def test_a_retry_comes_once_and_no_later_than_the_jump(by: float) -> None:
    desk = Desktop()
    async with desk.engine() as engine:
        run = await engine.start(retried())
        await until(lambda: DONE["shaky"])
        desk.clock.set_by += by
        if by < 0:
            await asyncio.sleep(0.2)
            desk.clock.set_by -= by
        assert await asyncio.wait_for(_result(run), 2) == 2


# ---------------------------------------------------------------- waits that end with the process
async def test_a_pause_of_live_calls_isnt_as_long_as_the_clock_was_set_back() -> None:
    clock = Wall()
    limit = Limit(clock)
    flight = await limit.enter(10, 0)
    limit.refused(flight, CallFault(429, "slow down", again=True, after=0.05))
    limit.leave()
    clock.set_by -= DAY
    await asyncio.wait_for(limit.enter(10, 0), 1)
    limit.close()


async def test_a_lane_and_a_job_are_looked_at_when_they_were_to_be() -> None:
    clock = Wall()
    desk = Desk(MemoryStore(), _NOBODY, clock, lambda: None)
    job = BatchJob("j", "lane", "n", "sent", 1, clock.now())
    for by in (-DAY, DAY):
        desk.look_in(job, 5.0)
        desk.rest("lane", 5.0)
        clock.set_by += by
        assert 4.0 < desk.due(job, False) <= 5.0
        assert 4.0 < desk.rests("lane") <= 5.0
    assert Quotas(clock).held("fake||chat|m|") == 0.0


_NOBODY: Any = None


# ---------------------------------------------------------------- batches
@segue.flow(name="jumps.asked")
async def asked(n: int) -> str:
    return await segue.generate(f"row {n}")


@pytest.mark.parametrize("by", [DAY, -HOUR, -DAY])
async def test_a_batch_is_sent_once_and_comes_back(by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, over = Desktop(), asyncio.Event()

    async def poll(self: FakeProvider, job: str) -> RemoteJob:
        return msgspec.structs.replace(self._shown(self._remote.jobs[job]), over=over.is_set())

    monkeypatch.setattr(FakeProvider, "poll", poll)
    async with desk.engine() as engine, desk.engine():
        job = engine.map(asked, range(5), mode="batch")
        await until(lambda: desk.fake.remote.jobs)
        await asyncio.sleep(0.1)
        desk.clock.set_by += by
        await asyncio.sleep(0.1)
        over.set()
        async with asyncio.timeout(5):
            assert await job == ["ok"] * 5
    assert set(desk.fake.remote.sent.values()) == {1}


async def test_a_lane_isnt_taken_from_who_is_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, go = Desktop(), asyncio.Event()
    begun: list[str] = []
    plain = FakeProvider.upload

    async def upload(self: FakeProvider, lines: Any, endpoint: str, nonce: str) -> str:
        begun.append(nonce)
        await go.wait()
        return await plain(self, lines, endpoint, nonce)

    monkeypatch.setattr(FakeProvider, "upload", upload)
    async with desk.engine() as engine:
        job = engine.map(asked, range(3), mode="batch")
        await until(lambda: begun)
        async with desk.engine() as other:
            await other.lanes.sweep()
            desk.clock.set_by += DAY
            for _ in range(3):
                await other.lanes.sweep()
            assert len(begun) == 1
            go.set()
            async with asyncio.timeout(5):
                assert await job == ["ok"] * 3
    assert set(desk.fake.remote.sent.values()) == {1}
