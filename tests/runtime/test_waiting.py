"""Calls that wait for a thread, a process or their turn: it is said what for, and their time doesn't run yet."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta

import pytest

import segue
from segue import Waiting
from segue.authoring.pooled import side_by_side
from segue.runtime import worker
from segue.runtime.calls import room
from segue.runtime.calls.limits import Flight, Limit, Told
from segue.runtime.calls.processes import Processes
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.fake_model import FakeEngine
from tests.runtime import heavy

LET_GO = threading.Event()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    LET_GO.clear()
    monkeypatch.setattr(worker, "THREADS", 1)
    monkeypatch.setattr(room, "LONG", 0.02)


@segue.step(timeout=timedelta(seconds=0.3))
def brief() -> None:
    time.sleep(0.03)


@segue.flow
async def many(n: int) -> int:
    return len(await asyncio.gather(*(brief() for _ in range(n))))


async def test_the_time_of_a_step_runs_once_it_has_a_thread() -> None:
    async with segue.Engine("memory:") as engine:
        assert await engine.run(many(12)) == 12


@segue.step(timeout=timedelta(seconds=0.05))
def stuck() -> None:
    LET_GO.wait(10)


@segue.step
def next_one() -> str:
    return "done"


@segue.flow
async def after_one_that_is_stuck() -> str:
    try:
        await stuck()
    except TimeoutError:
        return await next_one()
    return "it wasn't stuck"


async def told(run: segue.Run[object]) -> list[Waiting]:
    found: list[Waiting] = []
    async for event in run:
        if isinstance(event, Waiting):
            found.append(event)
            LET_GO.set()
    return found


async def test_a_step_that_was_given_up_keeps_its_thread_and_who_waits_for_it_says_so() -> None:
    async with segue.Engine("memory:") as engine, asyncio.timeout(5):
        run = await engine.start(after_one_that_is_stuck(), id="it")
        (waiting,) = await told(run)
        assert await run == "done"
    assert waiting == Waiting(run="it", n=1, name="next_one", what="a thread: none of 1 is free")


async def test_a_pool_that_is_never_full_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "THREADS", 12)
    async with segue.Engine("memory:") as engine, asyncio.timeout(5):
        assert await told(await engine.start(many(12))) == []


@segue.flow
async def two_heavy() -> list[list[int]]:
    return await asyncio.gather(heavy.squares(1), heavy.squares(2))


@pytest.mark.skipif(side_by_side(), reason="threads do it on free-threaded builds")
async def test_a_process_that_is_waited_for() -> None:
    async with segue.Engine("memory:") as engine, asyncio.timeout(20):
        engine.worker._processes = Processes(1)
        (waiting,) = await told(await engine.start(two_heavy(), id="it"))
    assert (waiting.name, waiting.path, waiting.what) == (
        "squares",
        "/squares.1",
        "a process: none of 1 is free",
    )


@segue.flow
async def calls() -> str:
    return await segue.generate("a")


async def test_a_live_call_says_what_its_limit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    enter = Limit.enter

    async def waits(limit: Limit, most: int, tokens: int, told: Told | None = None) -> Flight:
        assert told is not None
        told("its turn")
        return await enter(limit, most, tokens, told)

    monkeypatch.setattr(Limit, "enter", waits)
    fake = FakeModel()
    fake.when("a").reply("said")
    async with FakeEngine(fake, MemoryStore()) as engine, asyncio.timeout(5):
        run = await engine.start(calls(), id="it", model="fake:small")
        (waiting,) = await told(run)
        assert await run == "said"
    assert waiting == Waiting(run="it", n=0, name="fake:small", what="its turn")


async def test_places_are_taken_in_turn_and_none_is_lost_with_who_gives_up() -> None:
    one, took = room.Room(1, "a place"), list[int]()

    async def takes(n: int) -> None:
        await one.enter()
        took.append(n)

    assert one.enter_at_once()
    first, second, third = [asyncio.ensure_future(takes(n)) for n in range(3)]
    await asyncio.sleep(0)
    second.cancel()
    one.leave()
    first.cancel()  # in the moment in which it is given the place
    await asyncio.gather(first, second, return_exceptions=True)
    await third
    assert took == [2]
    assert not one.enter_at_once()
    one.leave()
    assert one.enter_at_once()
