"""What the code gives up is told the world, though the run leave or die before it came to that."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import segue
from segue.testing import FakeModel
from segue.testing.fake_model import FakeEngine


@segue.step
async def quick() -> int:
    return 1


@segue.flow
async def slow(row: int) -> int:
    await segue.sleep(timedelta(days=900))
    return row


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_a_question_is_closed(park: str) -> None:
    fake = FakeModel()
    open_then: list[int] = []

    @segue.step
    async def look() -> int:
        open_then.append(len(await engine.store.asks()))
        return 0

    @segue.flow
    async def looking() -> int:
        asking = asyncio.create_task(segue.ask("Still open?"))
        await asyncio.sleep(0)
        await quick()
        asking.cancel()
        await segue.sleep(timedelta(days=1))
        return await look()

    engine = FakeEngine(fake, "memory:", park=park)
    async with engine:
        await engine.run(looking())
    assert open_then == [0]


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_a_child_is_cancelled(park: str) -> None:
    @segue.flow
    async def hasty() -> int:
        waiting = asyncio.ensure_future(_all(segue.map(slow, [1, 2])))
        await asyncio.sleep(0.01)
        await quick()
        waiting.cancel()
        await segue.sleep(timedelta(days=1))
        return await quick()

    async with FakeEngine(FakeModel(), "memory:", park=park) as engine:
        assert await engine.run(hasty(), id="h") == 1
        for _ in range(100):
            heads = [head for head in await engine.store.runs() if head.id != "h"]
            if all(head.status == "cancelled" for head in heads):
                break
            await asyncio.sleep(0.01)
        assert [head.status for head in heads] == ["cancelled", "cancelled"]


async def _all(mapped: segue.Mapped[int]) -> list[int]:
    return await mapped


begun: list[str] = []


@segue.step(effect="at-most-once")
async def letter() -> str:
    begun.append("letter")
    await asyncio.sleep(30)
    return "sent"


@segue.step
async def call() -> str:
    await asyncio.sleep(0)
    return "called"


@segue.flow
async def reached() -> str:
    """Whichever comes first; then it waits for long."""
    ways = {asyncio.create_task(letter()), asyncio.create_task(call())}
    done, late = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in late:
        way.cancel()
    await segue.sleep(timedelta(days=1))
    return done.pop().result()


async def test_an_at_most_once_step_that_was_given_up_holds_no_later_life() -> None:
    begun.clear()
    async with FakeEngine(FakeModel(), "memory:") as engine:
        assert await engine.run(reached()) == "called"
    assert begun == ["letter"]
