"""Requests from outside: answered at a port of the process, carried out once whatever becomes of the caller."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

import segue
from segue.model.errors import MailboxFull, RunEnded
from segue.model.message import PORT
from segue.stores import open_store
from segue.stores.memory import MemoryStore

HANDLED: list[int] = []


class Weigh(segue.Request[int]):
    n: int


class Finish(segue.Note): ...


class Scale(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def weigh(self, m: Weigh) -> int:
        HANDLED.append(m.n)
        if m.n < 0:
            raise ValueError(f"{m.n} is no weight")
        if m.n == 7:
            await segue.sleep(timedelta(seconds=0.3))
        self.total += m.n
        return self.total

    @segue.on
    async def finish(self, _: Finish) -> segue.Done[None]:
        return segue.Done(None)


class Narrow(Scale):
    mailbox = segue.Mailbox(1, full="fail")


@pytest.fixture(params=["memory", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    HANDLED.clear()
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/runs.db"


async def test_a_request_makes_no_run_and_leaves_nothing(address: str) -> None:
    async with segue.Engine(address) as engine:
        scale = await engine.start(Scale(), id="scale")
        assert [await scale.request(Weigh(1)) for _ in range(3)] == [1, 2, 3]
        assert await asyncio.gather(*(scale.request(Weigh(1)) for _ in range(300))) == [*range(4, 304)]
        assert [head.id for head in await engine.store.runs()] == ["scale"]
        left = 303
        while left:  # read ones are forgotten some time later
            left = len((await engine.store.letters({engine.port.address: 0})).get(engine.port.address, ()))
            await asyncio.sleep(0.01)


async def test_errors(address: str) -> None:
    async with segue.Engine(address) as engine:
        scale = await engine.start(Scale(), id="scale")
        with pytest.raises(ValueError, match="-1 is no weight"):
            await scale.request(Weigh(-1))
        await scale.tell(Finish())
        await scale
        with pytest.raises(RunEnded):
            await scale.request(Weigh(1))
        narrow = await engine.start(Narrow(), id="narrow")
        first = asyncio.ensure_future(narrow.request(Weigh(7)))
        while not HANDLED or HANDLED[-1] != 7:
            await asyncio.sleep(0.001)
        with pytest.raises(MailboxFull):
            await narrow.request(Weigh(1))
        assert await first == 7


async def test_a_late_answer_is_nobodys(address: str) -> None:
    async with segue.Engine(address) as engine:
        scale = await engine.start(Scale(), id="scale")
        with pytest.raises(TimeoutError, match="request Weigh"):
            await scale.request(Weigh(7), timeout=timedelta(milliseconds=1))
        assert await scale.request(Weigh(1)) == 8


async def test_the_death_of_the_caller_loses_the_answer_alone() -> None:
    HANDLED.clear()
    store = MemoryStore()
    async with segue.Engine(store) as first:
        scale = await first.start(Scale(), id="scale")
        await scale.request(Weigh(1))
        name = first.worker.name
        asking = asyncio.ensure_future(scale.request(Weigh(7)))
        while HANDLED != [1, 7]:
            await asyncio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with segue.Engine(store) as second:
        scale = await second.get("scale")  # type: ignore[assignment]  # by its id
        assert await scale.request(Weigh(2)) == 10
        while name in await store.workers():  # the answer to the dead one is dropped
            await asyncio.sleep(0.01)
        assert await store.letters({PORT + name: 0}) == {}
    assert HANDLED[0] == 1
    assert HANDLED.count(2) == 1


async def test_between_processes(tmp_path: Path) -> None:
    HANDLED.clear()
    path = f"sqlite:{tmp_path}/runs.db"
    async with (
        segue.Engine(open_store(path)) as worker,
        segue.Engine(open_store(path), worker=False) as client,
    ):
        await worker.start(Scale(), id="scale")
        scale = await client.get("scale")
        assert await scale.request(Weigh(3)) == 3
