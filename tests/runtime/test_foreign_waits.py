"""Waits that look like asyncio's own locks and joins, and that nothing in the run ends."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import segue
from segue.stores.memory import MemoryStore

Flow = Callable[[], Coroutine[Any, Any, int]]


@segue.step
async def one() -> int:
    return 1


@segue.flow(name="foreign.program")
async def program() -> int:
    code = "import time; time.sleep(0.1); print('said')"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return await one() + 196 + len(said.split()[0])


@segue.flow(name="foreign.thread")
async def thread() -> int:
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.1), None)
    return await one() + 200


@pytest.mark.parametrize("flow", [program, thread])
async def test_a_run_goes_on_when_they_are_over(flow: Flow) -> None:
    async with segue.Engine("memory:", verify=True) as engine:
        run = await engine.start(flow(), id="it")
        async with asyncio.timeout(20):
            assert await run == 201


class Look(segue.Request[int]): ...


class Fetch(segue.Note): ...


class Fetcher(segue.Actor[None]):
    looked: int = 0

    @segue.on
    async def look(self, _: Look) -> int:
        self.looked += 1
        return self.looked

    @segue.on
    async def fetch(self, _: Fetch) -> None:
        self.looked = 100
        await OVER[-1].wait()


OVER: list[asyncio.Event] = []


async def test_what_was_answered_before_one_doesnt_wait_for_it() -> None:
    """The answers of messages before, and that to a ping, left only with what the handler did next."""
    OVER.append(asyncio.Event())
    store = MemoryStore()
    async with segue.Engine(store, worker=False, linger=0.02) as outside:
        fetcher = await outside.start(Fetcher(), id="it")
        answers = [asyncio.ensure_future(fetcher.request(Look())) for _ in range(3)]
        await asyncio.sleep(0.01)
        await fetcher.tell(Fetch())
        async with segue.Engine(store, linger=0.02) as engine, asyncio.timeout(10):
            assert await asyncio.gather(*answers) == [1, 2, 3]
            await fetcher.ping()
            claimed = await store.load("it")
            assert claimed is not None
            assert b'"looked":3' in (claimed.checkpoint or b"")  # nothing of what goes on
            OVER[-1].set()
            assert await (await engine.get("it")).request(Look()) == 101
