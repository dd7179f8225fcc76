"""The types of what programs call, as both type checkers see them. Nothing here is run: `make check` reads it."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

import segue


@segue.flow
async def typed_flow(text: str) -> int:
    return len(text)


async def runs(engine: segue.Engine) -> None:
    assert_type(await engine.run(typed_flow("x"), id="a", mode="batch", model="openai:gpt"), int)
    assert_type(await engine.run(typed_flow("x"), model=["openai:a", "openai:b"], tags={"team": "a"}), int)
    run = await engine.start(typed_flow("x"), mode=segue.Batch(max_age=timedelta(hours=1)), priority=2)
    assert_type(run, segue.Run[int])
    await engine.run(typed_flow("x"), mode="bach")  # type: ignore[arg-type]
    await engine.run(typed_flow("x"), modle="openai:gpt")  # type: ignore[call-arg]
    await engine.start(typed_flow("x"), model=7)  # type: ignore[arg-type]
    await engine.fork("a", before="#1", model="openai:gpt")
    await engine.fork("a", befor="#1")  # type: ignore[call-arg]


async def jobs(engine: segue.Engine) -> None:
    job = engine.map(typed_flow, ["x"], id="j", mode="batch", model="openai:gpt", limit=3)
    assert_type(job, segue.Job[str, int])
    assert_type(await job, list[int])
    async for row in job:
        assert_type(row.value, int)
    engine.map(typed_flow, [1])  # type: ignore[arg-type]
    engine.map(typed_flow, ["x"], priority="high")  # type: ignore[arg-type]


async def inside() -> None:
    with segue.using(mode="live", models={"cheap": "openai:gpt"}):
        await segue.spawn(typed_flow("x"), id="b", model="cheap")
    segue.using(mod="live")  # type: ignore[call-arg]
