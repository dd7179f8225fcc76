"""What stays in memory of a run that is over, whatever it left open: nothing."""

from __future__ import annotations

import asyncio
import gc
from contextvars import Context, copy_context
from pathlib import Path

import pytest

import segue
from segue.authoring.context import BRANCH, Work
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


@pytest.mark.parametrize("flow", [alone, together], ids=["alone", "together"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_run_that_is_over_waits_for_no_collector(
    flow: segue.Flow[[int], int], store: str, tmp_path: Path
) -> None:
    async with segue.Engine("memory:" if store == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        gc.collect()
        gc.disable()
        try:
            for n in range(3):
                await engine.run(flow(3), id=f"over.{n}")
            await asyncio.sleep(0.01)
            there = [each for each in gc.get_objects() if type(each) is Executor]
            assert [each for each in there if each.id.startswith("over.")] == []  # other tests' may be kept
        finally:
            gc.enable()
            KEPT.clear()
