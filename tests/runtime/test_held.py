"""Held runs: what a person can do with them."""

from __future__ import annotations

import itertools

import pytest

import segue
from segue.model.errors import RunCancelled


async def test_a_held_run_is_cancelled_for_good(tmp_path: object) -> None:
    clock = itertools.count()

    @segue.step
    async def note(at: int) -> int:
        return at

    @segue.flow
    async def smuggler() -> str:
        await note(next(clock))
        return await segue.ask("go on?")

    async with segue.Engine() as engine:
        run = await engine.start(smuggler(), id="s")
        async for ask in engine.asks():
            await ask.answer("yes")
            break
        head = await engine.wait("s")
        assert head.status == "held"
        assert "segue.now()" in head.reason
        await run.cancel()
        with pytest.raises(RunCancelled):
            while (head := await engine.wait("s")).status == "held":
                await engine.ends.next()
            await run
        assert (await run.head()).status == "cancelled"
