"""Time and chance: what a replay tells again, waits that survive, bounds in durable time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import segue
from segue.model.errors import NotInRun
from segue.model.run import Head
from tests.runtime.lives import Desk, everywhere

DAY = timedelta(days=1)


@segue.step
async def one() -> int:
    return 1


async def test_sleep_takes_durable_time() -> None:
    @segue.flow
    async def flow() -> timedelta:
        before = segue.now()
        await segue.sleep(30 * DAY)
        return segue.now() - before

    assert await Desk().run(flow()) == 30 * DAY


async def test_sleep_survives_restarts() -> None:
    @segue.flow
    async def flow() -> timedelta:
        before = segue.now()
        await segue.sleep(timedelta(seconds=1500))
        return segue.now() - before

    desk = Desk()
    desk.fake.clock.busy = lambda sleeping: True  # time stands still
    async with desk.engine(linger=0.0) as engine:
        engine._fake.clock.busy = lambda sleeping: True
        run = await engine.start(flow(), id="it")
        head = await desk.parked()
        assert head.wake == head.spec.created + 1500
    async with desk.engine() as engine:  # 1000 seconds later
        run = await engine.get("it")
        assert await run == timedelta(seconds=1500)


async def test_sleep_until() -> None:
    until = datetime(2031, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    @segue.flow
    async def flow() -> datetime:
        await segue.sleep(until)
        await segue.sleep(until)  # past already
        await segue.sleep(timedelta(0))
        await segue.sleep(timedelta(seconds=-5))
        return segue.now()

    assert await Desk().run(flow()) == until


async def test_sleep_wants_a_time_zone() -> None:
    @segue.flow
    async def flow() -> None:
        await segue.sleep(datetime(2031, 1, 1))

    with pytest.raises(ValueError, match="time zone"):
        await Desk().run(flow())


async def test_many_sleeps_end_in_order() -> None:
    @segue.flow
    async def flow() -> list[int]:
        order: list[int] = []

        async def nap(n: int) -> None:
            await segue.sleep(timedelta(hours=n))
            order.append(n)

        await asyncio.gather(*(nap(n) for n in (3, 1, 2)))
        return order

    assert await Desk().run(flow()) == [1, 2, 3]


async def test_now_uuid_and_chance_are_told_again() -> None:
    seen: list[Any] = []

    @segue.flow
    async def flow() -> None:
        here = [
            segue.now(),
            segue.uuid(),
            segue.random.random(),
            segue.random.choice("abcdefgh"),
            segue.uuid(),
        ]
        await one()
        here += [segue.now(), segue.random.randint(0, 10**12), segue.random.sample(range(100), 5)]
        seen.append(here)
        await segue.sleep(DAY)
        assert segue.now() > here[0]

    desk = Desk()
    await desk.run(flow())
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][1] != seen[0][4]
    await desk.run(flow(), id="other")
    assert seen[2][1] != seen[0][1]
    assert seen[0][1].version == 4


async def test_a_normal_draw_is_told_again() -> None:
    """The library's `gauss` makes two values at a time and keeps one, for any run that comes next."""
    seen: list[float] = []

    @segue.flow
    async def flow() -> None:
        seen.append(segue.random.gauss(5, 2))
        await one()
        await segue.sleep(DAY)

    await Desk().run(flow())
    assert len(seen) == 2
    assert seen[0] == seen[1]


async def test_chance_belongs_to_its_branch() -> None:
    @segue.flow
    async def flow() -> list[str]:
        async def draw() -> str:
            await one()
            return str(segue.uuid())

        return await asyncio.gather(*(draw() for _ in range(20)))

    drawn = await Desk().run(flow())
    assert len(set(drawn)) == 20


async def test_chance_is_fair() -> None:
    @segue.flow
    async def flow() -> list[float]:
        return [segue.random.random() for _ in range(2000)]

    drawn = await Desk().run(flow())
    assert 0.45 < sum(drawn) / 2000 < 0.55
    assert all(0 <= x < 1 for x in drawn)


async def test_outside_a_run() -> None:
    for verb in (segue.now, segue.uuid, segue.random.random):
        with pytest.raises(NotInRun, match="outside a run"):
            verb()
    with pytest.raises(NotInRun):
        await segue.sleep(DAY)


# ---------------------------------------------------------------- timeouts
async def test_timeout_counts_parked_time() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            async with segue.timeout(DAY):
                await segue.sleep(3 * DAY)
        except TimeoutError as error:
            await one()
            return f"{error}, {(segue.now() - start).days} day"
        return "?"

    start = datetime(2030, 1, 1, tzinfo=UTC)

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'"the block took longer than 1 day, 0:00:00, 1 day"'

    assert await everywhere(flow, lambda desk: None, check) > 8


async def test_timeout_in_time() -> None:
    @segue.flow
    async def flow() -> int:
        async with segue.timeout(DAY):
            value = await one()
            await segue.sleep(timedelta(hours=1))
        await segue.sleep(3 * DAY)
        return value

    assert await Desk().run(flow()) == 1


BEGUN = threading.Event()


@segue.step
async def stays() -> None:
    BEGUN.set()
    await asyncio.Event().wait()


@segue.step
def stays_on_a_thread() -> None:
    BEGUN.set()
    while not segue.should_stop():
        time.sleep(0.001)


@pytest.mark.parametrize("step", [stays, stays_on_a_thread])
@pytest.mark.parametrize("how", ["timeout", "sleep", "ask"])
async def test_a_time_strikes_while_a_step_is_under_way(how: str, step: Any) -> None:
    @segue.flow
    async def flow() -> str:
        if how == "timeout":
            with pytest.raises(TimeoutError):
                async with segue.timeout(DAY):
                    await step()
            return "late"
        async with asyncio.TaskGroup() as group:
            working = group.create_task(step())
            if how == "sleep":
                await segue.sleep(DAY)
            else:
                assert not await segue.ask("Go on?", returns=bool, timeout=DAY, default=False)
            working.cancel()
        return "late"

    BEGUN.clear()
    desk = Desk()
    async with desk.engine() as engine, asyncio.timeout(4):
        run = await engine.start(flow())
        while not BEGUN.is_set():
            await asyncio.sleep(0.001)
        for _ in range(20):  # the run comes to rest
            await asyncio.sleep(0)
        desk.fake.clock.advance(DAY.total_seconds())
        assert await run == "late"


async def test_timeouts_in_each_other() -> None:
    @segue.flow
    async def flow() -> list[str]:
        order: list[str] = []
        try:
            async with segue.timeout(3 * DAY):
                try:
                    async with segue.timeout(DAY):
                        await segue.sleep(30 * DAY)
                except TimeoutError:
                    order.append("inner")
                await segue.sleep(30 * DAY)
        except TimeoutError:
            order.append("outer")
        return order

    assert await Desk().run(flow()) == ["inner", "outer"]


async def test_an_error_in_a_timeout_is_itself() -> None:
    @segue.flow
    async def flow() -> None:
        async with segue.timeout(DAY):
            await one()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await Desk().run(flow())


async def test_timeout_of_the_receive_and_the_ask_within() -> None:
    @segue.flow
    async def flow() -> int:
        late = 0
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                async with segue.timeout(DAY):
                    await segue.ask("Who?", timeout=30 * DAY)
            late += 1
        with contextlib.suppress(TimeoutError):
            async with segue.timeout(DAY):
                await segue.receive(str)
        return late

    desk = Desk()
    assert await desk.run(flow()) == 2
    assert await desk.store.asks() == []


@segue.step
async def slow() -> str:
    await asyncio.sleep(30)
    return "?"


@pytest.mark.parametrize("how", ["timeout", "wait_for", "wait"])
async def test_asyncios_timeout_strikes_again_in_a_replay(how: str) -> None:
    """It counts the time in memory only, which nobody recorded; a replay that needs it to have struck goes on."""

    async def bounded(n: int) -> str:
        if how == "timeout":
            async with asyncio.timeout(0.03 + n / 100):
                return await slow()
        if how == "wait_for":
            return await asyncio.wait_for(slow(), 0.03 + n / 100)
        task = asyncio.create_task(slow())
        _, pending = await asyncio.wait([task], timeout=0.03 + n / 100)
        for left in pending:
            left.cancel()
        raise TimeoutError

    @segue.flow
    async def flow() -> list[str]:
        async def branch(n: int) -> str:
            try:
                return await bounded(n)
            except TimeoutError:
                return f"late {n} {await one()}"

        order = await asyncio.gather(*(branch(n) for n in range(3)))
        began.append(loop.time())
        order.append(await segue.ask("Who?"))
        order.append(await segue.ask("Who?"))
        return order

    loop = asyncio.get_running_loop()
    began: list[float] = []
    desk = Desk(verify=True)
    desk.fake.answer("Who?", "me")
    assert await desk.run(flow()) == ["late 0 1", "late 1 1", "late 2 1", "me", "me"]
    assert len(began) == 4
    assert began[-1] - began[0] < 1.0


class Late(segue.Request[str]): ...


@pytest.mark.parametrize("how", ["wait_for", "wait"])
async def test_what_ends_with_a_step_given_up_is_verified(how: str) -> None:
    """Nothing that is recorded comes after the time, so nothing tells that it went off but the end."""

    async def bounded() -> str:
        assert await one() == 1
        if how == "wait_for":
            try:
                return await asyncio.wait_for(slow(), 0.02)
            except TimeoutError:
                return "late"
        task = asyncio.create_task(slow())
        _, pending = await asyncio.wait([task], timeout=0.02)
        for left in pending:
            left.cancel()
        return "late"

    @segue.flow
    async def flow() -> str:
        return await bounded()

    class Patient(segue.Actor[None]):
        late: int = 0

        @segue.on
        async def wait(self, _: Late) -> str:
            self.late += 1
            return await bounded()

    async with Desk(verify=True).engine() as engine:
        assert await engine.run(flow()) == "late"
        patient = await engine.start(Patient())
        assert await patient.request(Late()) == "late"


async def test_a_durable_wait_in_asyncios_timeout_parks() -> None:
    @segue.flow
    async def flow() -> str:
        async with asyncio.timeout(0.5):
            return await asyncio.wait_for(segue.ask("Who?"), 0.5)

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        assert not engine.worker.awake
        desk.fake.answer("Who?", "me")
        assert (await engine.open_asks())[0].question == "Who?"
        await (await engine.open_asks())[0].answer("you")
        assert await run == "you"


async def test_a_timeout_that_comes_with_the_result_doesnt_strike_later() -> None:
    @segue.flow
    async def flow() -> str:
        async with segue.timeout(DAY):
            answer = await segue.receive(str)
        answer += str(await one())
        async with segue.timeout(DAY):
            with contextlib.suppress(asyncio.CancelledError):
                await segue.sleep(9 * DAY)
        return answer + await segue.ask("Who?")

    desk = Desk(verify=True)
    desk.fake.answer("Who?", "me")
    async with desk.engine(worker=False) as engine:
        await engine.start(flow(), id="it")
    desk.fake.clock.busy = lambda sleeping: True
    async with desk.engine():
        desk.fake.clock.busy = lambda sleeping: True
        await desk.parked()
    async with desk.engine(worker=False) as engine:
        await engine.tell("it", "str", b'"hi"')
    desk.fake.clock.advance(2 * 86400)  # both are there when it wakes
    assert await desk.run(flow()) == "hi1me"
