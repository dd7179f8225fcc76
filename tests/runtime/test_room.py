"""The room of a worker: runs that only wait don't keep those out that they wait for."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.ports.store import Claimed
from segue.stores.memory import MemoryStore
from tests.runtime.lives import Desk

ROOM, MANY = 3, 8


class Count(segue.Request[int]): ...


class Counts(segue.Subscription[int, int]): ...


class Counter(segue.Actor[None]):
    n: int = 0

    @segue.on
    async def count(self, _: Count) -> int:
        self.n += 1
        await segue.publish(Counts, self.n)
        return self.n

    @segue.on
    async def counts(self, _: Counts) -> int:
        return self.n


@segue.flow
async def lagging() -> int:
    await segue.sleep(timedelta(seconds=0.3))
    return 7


@segue.flow
async def one(n: int) -> int:
    await segue.sleep(timedelta(seconds=0.01))
    return n


engine_here: Any = None
STEPS: set[int] = set()


@segue.step
async def asks(n: int) -> int:
    answer: int = await (await engine_here.get("counter")).request(Count())
    return answer


@segue.step
async def awaits(n: int) -> int:
    STEPS.add(n)
    while len(STEPS) < ROOM:
        await asyncio.sleep(0)
    found: int = await (await engine_here.get("lagging"))
    return found


@segue.step
async def starts(n: int) -> int:
    STEPS.add(n)
    while len(STEPS) < ROOM:
        await asyncio.sleep(0)
    value: int = await engine_here.run(one(n))
    return value


@segue.step
async def maps(n: int) -> int:
    STEPS.add(n)
    while len(STEPS) < ROOM:
        await asyncio.sleep(0)
    return len([outcome async for outcome in engine_here.map(one, range(4))])


@segue.step
async def follows(n: int) -> int:
    counter = await engine_here.get("counter")
    async with counter.subscribe(Counts()) as feed:
        heard: int = feed.snapshot + await anext(aiter(feed))
    return heard


@segue.flow
async def does(step: str, n: int) -> int:
    done: int = await {"asks": asks, "awaits": awaits, "starts": starts, "maps": maps, "follows": follows}[
        step
    ](n)
    return done


@pytest.mark.parametrize("step", ["asks", "awaits", "starts", "maps", "follows"])
async def test_steps_that_wait_for_runs_dont_keep_them_out(step: str) -> None:
    global engine_here
    STEPS.clear()
    async with segue.Engine(room=ROOM, linger=0.05) as engine_here:  # so the one that lags parks
        counter = await engine_here.start(Counter(), id="counter")
        await engine_here.start(lagging(), id="lagging")
        while engine_here.worker.awake:
            await asyncio.sleep(0.001)
        runs = [asyncio.ensure_future(engine_here.run(does(step, n))) for n in range(MANY)]
        async with asyncio.timeout(10):
            while step == "follows" and not all(run.done() for run in runs):
                await counter.request(Count())
                await asyncio.sleep(0.01)
            found = await asyncio.gather(*runs)
        expected = {"awaits": [7] * MANY, "starts": [*range(MANY)], "maps": [4] * MANY}
        assert sorted(found) == expected.get(step, sorted(found))
        assert engine_here.worker.absent.count == 0


ready = False


@segue.step
async def is_ready() -> bool:
    return ready


@segue.step
async def make_ready() -> None:
    global ready
    ready = True


@segue.flow
async def polling() -> str:
    while not await is_ready():
        await segue.sleep(timedelta(seconds=0.05))
    return "ready"


@segue.flow
async def making() -> None:
    await make_ready()


async def test_runs_that_poll_make_room_for_what_they_poll_for() -> None:
    """Their pauses are short, so they stay for them; not where others can't get in."""
    global ready
    ready = False
    async with segue.Engine(room=ROOM) as engine:
        polls = [asyncio.ensure_future(engine.run(polling())) for _ in range(ROOM)]
        while len(engine.worker.awake) < ROOM:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            await engine.run(making())
            assert await asyncio.gather(*polls) == ["ready"] * ROOM


@segue.step
async def nothing() -> None: ...


@segue.flow
async def long_parent(children: int) -> int:
    for _ in range(1100):
        await nothing()
    return sum([n async for n in segue.map(one, range(children))])


async def test_a_parent_with_a_long_history_makes_room_for_its_children() -> None:
    """To replay it takes long, so it stays for them; not where it has all the room."""
    desk = Desk(linger=2.0)
    async with desk.engine(room=1) as engine, asyncio.timeout(9):
        assert await engine.run(long_parent(5)) == 10


class Letter(segue.Note): ...


@segue.flow
async def asking() -> int:
    await segue.ask("Go on?")
    return len([await segue.receive(Letter) for _ in range(3)])


async def test_who_has_much_mail_stays_for_the_next_letter() -> None:
    """To wake it reads all of it: each of n letters to one that was parked had all of them read."""
    claimed = 0

    class Counting(MemoryStore):
        async def claim(self, *args: Any, **more: Any) -> list[Claimed]:
            nonlocal claimed
            found = await super().claim(*args, **more)
            claimed += len(found)
            return found

    async with segue.Engine(Counting()) as engine:
        run = await engine.start(asking(), id="it")
        for _ in range(300):
            await run.tell(Letter())
        while (await run.head()).status != "parked":
            await asyncio.sleep(0.001)
        claimed = 0
        for _ in range(20):
            await run.tell(Letter())
            await asyncio.sleep(0.005)
        assert 1 <= claimed < 10
        while (await run.head()).status != "parked":  # not for long
            await asyncio.sleep(0.001)
        (ask,) = await engine.open_asks()
        await ask.answer("yes")
        assert await run == 3
