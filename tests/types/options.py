"""The types of a flow's own options, and of wrappers that hand options on. Nothing here is run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Unpack, assert_type

import segue


@segue.flow(mode="batch", model=["openai:a", "openai:b"], tags={"team": "a"})
async def letter(name: str) -> int:
    return len(name)


@segue.flow(name="bare", version="1")
async def bare(name: str) -> int:
    return len(name)


async def politely(prompt: str, **options: Unpack[segue.Options]) -> str:
    return await segue.generate(f"Politely: {prompt}", **options)


async def in_batch(name: str, engine: segue.Engine, **how: Unpack[segue.How]) -> int:
    with segue.using(**how):
        run = await engine.start(letter(name), **how)
    return await run


def stubborn(
    fn: Callable[[str], Coroutine[Any, Any, int]], **options: Unpack[segue.StepOptions]
) -> Callable[[str], Coroutine[Any, Any, int]]:
    return segue.step(fn, **options)


def approved(fn: Callable[..., Any]) -> segue.Tool:
    return segue.tool(fn, approve=True)


async def uses(engine: segue.Engine) -> None:
    assert_type(await letter("Ada"), int)
    assert_type(await bare("Ada"), int)
    assert_type(await engine.run(letter("Ada"), mode="live"), int)
    assert_type(await politely("hi", model="openai:a", temperature=0.1), str)
    assert_type(await in_batch("Ada", engine, mode="batch", priority=2), int)
    stubborn(letter, retry=3)
    await segue.generate("x", tools=[approved(letter)])
    await politely("hi", temprature=0.1)  # type: ignore[call-arg]
    await in_batch("Ada", engine, mode="bach")  # type: ignore[arg-type]
    segue.flow(modle="openai:a")  # type: ignore[call-overload]
    segue.flow(mode="bach")  # type: ignore[call-overload]
