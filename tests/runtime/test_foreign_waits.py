"""Waits that look like asyncio's own locks and joins, and that nothing in the run ends."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import segue

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
