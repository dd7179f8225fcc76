"""What doesn't wait for a step that is under way: answers given before, mail told before, times, and pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.stores import open_store

MOMENT = timedelta(seconds=0.01)
GATE: list[asyncio.Event] = []


@pytest.fixture(params=["memory", "sqlite"])
async def engine(request: Any, tmp_path: Path) -> AsyncIterator[segue.Engine]:
    store = open_store("memory:" if request.param == "memory" else f"sqlite:{tmp_path}/runs.db")
    GATE[:] = [asyncio.Event()]
    async with segue.Engine(store) as engine:
        yield engine


@segue.step
async def passes() -> None:
    await GATE[0].wait()


@segue.flow
async def flow(many: int) -> None:
    await asyncio.gather(*(passes() for _ in range(many)))


@segue.flow
async def alone() -> None:
    await passes()


class Count(segue.Request[int]):
    pass


class Later(segue.Note):
    pass


class Pass(segue.Note):
    many: int = 1


class Open(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        GATE[0].set()
        return None


class Gate(segue.Actor[int]):
    counted: int = 0

    @segue.on
    async def count(self, request: Count) -> int:
        self.counted += 1
        return self.counted

    @segue.on
    async def later(self, note: Later) -> None:
        await self.me.tell(Open(), after=MOMENT)

    @segue.on
    async def passing(self, note: Pass) -> segue.Done[int]:
        if note.many == 1:
            await passes()
        else:
            await flow(note.many)
        return segue.Done(self.counted)


@pytest.mark.parametrize("many", [1, 2])
async def test_answers_that_were_given_before(engine: segue.Engine, many: int) -> None:
    """They are durable with a commit that the step's outcome isn't part of."""
    run = await engine.start(Gate())
    asked = [asyncio.ensure_future(run.request(Count())) for _ in range(3)]
    told = asyncio.ensure_future(run.tell(Pass(many)))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*asked) == [1, 2, 3]
    GATE[0].set()
    await told
    assert await run == 3


@pytest.mark.parametrize("many", [1, 2])
async def test_an_urgent_message_that_the_actor_told_itself_before(engine: segue.Engine, many: int) -> None:
    run = await engine.start(Gate())
    async with asyncio.timeout(5):
        await asyncio.gather(run.tell(Later()), run.tell(Pass(many)))
        assert await run == 0


@pytest.mark.parametrize("call", [alone, lambda: flow(2), Gate])
async def test_pings(engine: segue.Engine, call: Any) -> None:
    run = await engine.start(call())
    if call is Gate:
        await run.tell(Pass())
    for _ in range(2):
        await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            await run.ping()
    GATE[0].set()
    await run
