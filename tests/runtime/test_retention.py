"""What stays in memory of a run that is over, whatever it left open: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from contextvars import Context, copy_context
from pathlib import Path

import pytest

import segue
from segue.authoring.context import BRANCH, Work
from segue.authoring.pooled import side_by_side
from segue.runtime.wake.executor import Executor

KEPT: list[Context] = []


@segue.step
async def opens_a_connection(n: int) -> int:
    KEPT.append(copy_context())  # as the loop does with each callback of a connection
    return n


@segue.flow(name="retention.alone")
async def alone(n: int) -> int:
    return await opens_a_connection(n)


@segue.flow(name="retention.together")
async def together(n: int) -> int:
    return sum(await asyncio.gather(*(opens_a_connection(i) for i in range(n))))


class Wait(segue.Note): ...


class Waiter(segue.Actor[None]):
    @segue.on
    async def wait(self, _: Wait) -> None:
        await segue.ask("Go on?", returns=bool)


@segue.step
async def refused(n: int) -> int:
    raise ValueError(n)


@segue.flow(name="retention.fails")
async def fails(n: int) -> int:
    return await refused(n)


@segue.flow(name="retention.goes_on")
async def goes_on(n: int) -> int:
    try:
        return await refused(n)
    except ValueError:
        return n


@segue.flow(name="retention.child")
async def child(n: int) -> int:
    raise ValueError(n)


@segue.flow(name="retention.parent")
async def parent(n: int) -> int:
    return len(await segue.map(child, range(n), errors="return"))


@pytest.mark.parametrize("flow", [alone, together], ids=["alone", "together"])
async def test_what_a_step_keeps_open_keeps_nothing_of_the_run(flow: segue.Flow[[int], int]):
    KEPT.clear()
    async with segue.Engine("memory:", verify=False) as engine:
        await engine.run(flow(3), id="r")
        await asyncio.sleep(0)
        gc.collect()
        assert KEPT
        works = [each[BRANCH] for each in KEPT]
        assert [isinstance(work, Work) and work.args for work in works] == [b""] * len(works)  # what it asked
        assert [each for each in gc.get_objects() if type(each) is Executor and each.id == "r"] == []
    KEPT.clear()


@pytest.mark.skipif(side_by_side(), reason="on free-threaded builds what two threads had is the collector's")
@pytest.mark.parametrize(
    "flow", [alone, together, fails, goes_on, parent], ids=["alone", "together", "fails", "goes on", "parent"]
)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_run_that_is_over_waits_for_no_collector(
    flow: segue.Flow[[int], int], store: str, tmp_path: Path
) -> None:
    async with segue.Engine("memory:" if store == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        gc.collect()
        gc.disable()
        try:
            for n in range(3):
                with contextlib.suppress(ValueError):
                    await engine.run(flow(3), id=f"over.{n}")
            await asyncio.sleep(0.01)
            assert still_there("over.") == []
        finally:
            gc.enable()
            KEPT.clear()


async def test_an_actor_that_parks_in_a_handler_waits_for_no_collector() -> None:
    async with segue.Engine("memory:") as engine:
        gc.collect()
        gc.disable()
        try:
            waiter = await engine.start(Waiter(), id="parks")
            await waiter.tell(Wait())
            async for _ in engine.asks():
                break
            async with asyncio.timeout(5):
                while engine.worker.awake:
                    await asyncio.sleep(0.01)
            assert still_there("parks") == []
        finally:
            gc.enable()


def still_there(prefix: str) -> list[str]:
    """Wakes of those runs; other tests' may be kept."""
    there = [each for each in gc.get_objects() if type(each) is Executor]
    return [each.id for each in there if each.id.startswith(prefix)]
