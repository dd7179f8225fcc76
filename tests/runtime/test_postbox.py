"""Mail from outside to full mailboxes: those who wait for room stand in a line."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.errors import Conflict, RunEnded
from segue.model.message import Mail
from segue.stores.memory import MemoryStore
from tests.runtime.delayed import Lingering


class Item(segue.Note):
    n: int


class Taken(segue.Request[list[int]]): ...


class Narrow(segue.Actor[None]):
    mailbox = segue.Mailbox(5, full="wait")
    taken: list[int] = segue.field(default_factory=list)

    @segue.on
    async def item(self, item: Item) -> None:
        self.taken.append(item.n)

    @segue.on
    async def asked(self, _: Taken) -> list[int]:
        return self.taken


class Counting(MemoryStore):
    delivered = 0

    def deliver(self, mail: Sequence[Mail], *, now: float) -> Any:
        self.delivered += len(mail)
        return super().deliver(mail, now=now)


async def test_those_who_wait_for_room_dont_all_try_whenever_there_is_some() -> None:
    """That was a square: of 400, each room for five had all of them try."""
    store = Counting()
    async with segue.Engine(store) as engine:
        narrow = await engine.start(Narrow(), id="narrow")
        await asyncio.gather(*(narrow.tell(Item(n)) for n in range(400)))
        assert sorted(await narrow.request(Taken())) == [*range(400)]
    assert store.delivered < 400 * 8


async def test_who_gives_up_waiting_lets_the_next_one_try() -> None:
    store = MemoryStore()
    async with segue.Engine(store, worker=False) as outside, segue.Engine(store) as engine:
        await outside.start(Narrow(), id="narrow")
        narrow = await outside.get("narrow")
        await engine.worker.stop(0)  # nobody takes anything
        tells = [asyncio.ensure_future(narrow.tell(Item(n))) for n in range(9)]
        await asyncio.sleep(0.01)
        assert [tell.done() for tell in tells] == [True] * 5 + [False] * 4
        for tell in tells[5:8]:
            tell.cancel()
        async with segue.Engine(store):
            async with asyncio.timeout(10):
                await tells[8]
            assert (await narrow.request(Taken()))[-1] == 8


class Stuck(segue.Actor[None]):
    mailbox = segue.Mailbox(1, full="wait")

    @segue.on
    async def item(self, item: Item) -> None:
        await segue.ask("Go on?", returns=bool)

    @segue.on
    async def asked(self, _: Taken) -> list[int]:
        return []


async def full(engine: segue.Engine) -> segue.Run[None]:
    stuck = await engine.start(Stuck(), id="stuck")
    await stuck.tell(Item(0))
    return stuck


async def test_the_time_of_those_who_wait_for_room_is_up_at_its_time() -> None:
    """They were told one after the other, each half a second later."""
    async with segue.Engine() as engine:
        stuck, within = await full(engine), timedelta(seconds=0.1)
        asked = [asyncio.ensure_future(stuck.request(Taken(), timeout=within)) for _ in range(10)]
        async with asyncio.timeout(2):
            told = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(error) for error in told} == {TimeoutError}


async def test_whoever_is_cancelled_as_the_time_is_up_is_told_of_no_error() -> None:
    """Asyncio reported an exception that was never retrieved."""
    told, loop = list[dict[str, Any]](), asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    async with segue.Engine() as engine:
        stuck = await full(engine)
        asking = asyncio.create_task(stuck.request(Taken(), timeout=timedelta(seconds=0.05)))
        await asyncio.sleep(0.01)
        loop.call_later(0.06, asking.cancel)
        time.sleep(0.1)  # both are due
        await asyncio.wait({asking})
        assert asking.cancelled()
        del asking
        gc.collect()
    assert told == []


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_whoever_waits_for_room_is_told_that_the_engine_is_closed(kind: str, tmp_path: Path) -> None:
    """They waited for ever, or were told to open the store."""
    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        stuck = await full(engine)
        waiting = [asyncio.ensure_future(stuck.tell(Item(n))) for n in (1, 2)]
        waiting += [asyncio.ensure_future(stuck.request(Taken())) for _ in range(2)]
        await asyncio.sleep(0.1)
    async with asyncio.timeout(2):
        for one in waiting:
            with pytest.raises(asyncio.CancelledError, match="before there was room"):
                await one


async def test_nothing_is_sent_while_the_engine_closes() -> None:
    """It waited for ever, where the mailbox was full; on SQLite it was told to open the store."""
    async with AsyncExitStack() as closing:
        stuck = await full(await closing.enter_async_context(segue.Engine(Lingering())))
        closes = asyncio.create_task(closing.aclose())
        await asyncio.sleep(0.1)
        for send in (stuck.tell(Item(1)), stuck.request(Taken())):
            with pytest.raises(asyncio.CancelledError, match="the engine was closed"):
                async with asyncio.timeout(5):
                    await send
        await closes


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_whoever_waits_for_room_is_told_that_the_run_has_ended(kind: str, tmp_path: Path) -> None:
    """They were told one after the other, each half a second later."""
    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        stuck = await full(engine)
        told = [asyncio.ensure_future(stuck.tell(Item(n))) for n in range(1, 12)]
        asked = asyncio.ensure_future(stuck.request(Taken()))
        await asyncio.sleep(0.1)
        await stuck.cancel()
        async with asyncio.timeout(3):
            for one in told:
                with pytest.raises(Conflict, match="it is cancelled"):
                    await one
            with pytest.raises(RunEnded, match="it is cancelled"):
                await asked
