"""Who waits for the end of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import segue
from segue.runtime import ends
from segue.runtime.handles import Ask


async def test_who_waits_for_an_answer_that_nobody_looks_for_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`print(await engine.run(…))` of a flow that asks would stand there, and say nothing."""
    monkeypatch.setattr(ends, "POLL", 0.001)

    @segue.flow(name="ends.asks")
    async def asks() -> str:
        return await segue.ask("Go on?")

    async def waiting(engine: segue.Engine, *, looks: bool) -> list[str]:
        caplog.clear()
        if looks:
            assert [ask.id async for ask in _first(engine.asks())] == ["a:0"]
        ending = asyncio.ensure_future(_value(await engine.start(asks(), id="a")))
        await asyncio.sleep(0.1)
        await engine.answer("a:0", "yes")
        assert await ending == "yes"
        return [record.getMessage() for record in caplog.records]

    async with segue.Engine("memory:") as engine:
        (said,) = await waiting(engine, looks=False)
        assert said.startswith(
            "run a waits for an answer to a:0, 'Go on?', and nothing here looks at questions: "
        )
    async with segue.Engine("memory:") as engine:
        await engine.start(asks(), id="a")
        assert await waiting(engine, looks=True) == []


async def _first(asks: AsyncIterator[Ask]) -> AsyncIterator[Ask]:
    async for ask in asks:
        yield ask
        break


async def _value(run: segue.Run[str]) -> str:
    return await run
