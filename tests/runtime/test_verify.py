"""Replays of finished runs: what follows from the journal alone passes, what doesn't is shown."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest

import segue
from segue.model.errors import ReplayMismatch, ResultMismatch
from segue.testing import FakeModel


@segue.step
async def double(value: float) -> float:
    return value * 2


@segue.flow
async def sound(n: int) -> float:
    rows = await asyncio.gather(*(double(i) for i in range(n)))
    await segue.sleep(timedelta(days=1))
    text = await segue.generate(
        f"Sum {rows} at {segue.now()} with {segue.uuid()} and {segue.random.random()}"
    )
    return sum(rows) + float(text)


@segue.flow
async def verified_parent(n: int) -> list[float]:
    return await segue.map(sound, range(n))


@pytest.fixture
async def fake() -> object:
    fake = FakeModel()
    fake.when("").reply("1")
    return fake


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_sound_flows_pass(fake: FakeModel, mode: str) -> None:
    async with fake:
        assert await fake.engine.run(sound(3), mode=mode) == 7
        assert await fake.engine.run(verified_parent(3), mode=mode) == [1, 1, 3]
        assert [row.value async for row in fake.engine.map(sound, [1, 2], mode=mode)]


async def test_an_error_passes(fake: FakeModel) -> None:
    @segue.flow
    async def failing() -> None:
        await double(1)
        raise ValueError("as it must")

    async with fake:
        with pytest.raises(ValueError, match="as it must"):
            await failing()


async def test_races_pass(fake: FakeModel) -> None:
    @segue.flow
    async def race() -> float:
        tasks = [asyncio.create_task(double(i)) for i in range(3)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        lost = asyncio.create_task(segue.ask("Never?", timeout=timedelta(days=1)))
        await asyncio.sleep(0)
        lost.cancel()
        return next(task for task in tasks if task in done).result()

    async with fake:
        assert await race() in (0, 2, 4)


async def test_a_task_left_behind_passes(fake: FakeModel) -> None:
    @segue.flow
    async def careless() -> float:
        task = asyncio.create_task(segue.sleep(timedelta(days=9)))
        value = await double(1)
        del task
        return value

    async with fake:
        assert await careless() == 2


async def test_a_clock_in_an_argument(fake: FakeModel) -> None:
    @segue.flow
    async def clocked() -> float:
        return await double(time.time())

    async with fake:
        with pytest.raises(ReplayMismatch, match=r"segue\.now\(\)") as failed:
            await clocked()
    assert "resume" not in str(failed.value)


async def test_chance_in_the_result(fake: FakeModel) -> None:
    @segue.flow
    async def lucky() -> float:
        return await double(1) + random.random()

    async with fake:
        with pytest.raises(ResultMismatch, match=r"segue\.random"):
            await lucky()
        with pytest.raises(ResultMismatch):
            await fake.engine.map(lucky_row, [1])


@segue.flow
async def lucky_row(row: int) -> float:
    return await double(row) + random.random()


async def test_a_call_more_and_a_call_less(fake: FakeModel) -> None:
    counter: Iterator[int] = count()

    @segue.flow
    async def more() -> int:
        runs = next(counter)
        for i in range(1 + runs):
            await double(i)
        return 1

    async with fake:
        with pytest.raises(ReplayMismatch, match=r"was nothing and is now step 'double'"):
            await more()

        @segue.flow
        async def less() -> int:
            for i in range(max(0, 3 - next(counter))):
                await double(i)
            return 1

        with pytest.raises(ReplayMismatch, match=r"not made"):
            await less()


async def test_a_wait_more(fake: FakeModel) -> None:
    """Where the recorded run gave a call up, the code now waits for it."""
    counter = count()

    @segue.flow
    async def patient() -> str:
        asking = asyncio.create_task(segue.ask("Never?", timeout=timedelta(days=1), default="no"))
        await asyncio.sleep(0)
        await double(1)
        if next(counter):
            return await asking
        asking.cancel()
        return "no"

    async with fake:
        with pytest.raises(ReplayMismatch, match="waits"):
            await patient()


async def test_a_replay_that_is_cut_off_leaves_no_task_behind(fake: FakeModel) -> None:
    replaying = asyncio.Event()
    seen: list[object] = []

    @segue.flow
    async def slow() -> float:
        value = await double(1)
        if seen:
            replaying.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(asyncio.current_task())
        seen.append(value)
        return value

    async with fake:
        awaiting = asyncio.ensure_future(fake.engine.run(slow()))
        await replaying.wait()
    await asyncio.gather(awaiting, return_exceptions=True)
    assert len(seen) == 2
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_call_that_is_never_awaited_is_told_of_with_the_line_that_made_it() -> None:
    @segue.flow
    async def forgetful() -> None:
        double(1)  # type: ignore[unused-coroutine]  # that is what is forgotten

    async with FakeModel():
        with pytest.warns(RuntimeWarning, match=r"(?s)Coroutine created at.*test_verify\.py.* in forgetful"):
            await forgetful()
