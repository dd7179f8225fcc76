"""Flows of SDKs and agents whose process dies at any commit: the next goes on, and nothing recorded is done again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import openai
import pytest
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import segue
from segue.ports.store import Store
from segue.runtime.wake.rebase import entries_of
from segue.testing.crash import Mortal, Survivor
from segue.testing.simulator import Simulator, ToolCall

from .both import PATIENCE, run, simulated, told

CLIENT: openai.AsyncOpenAI
RAN: list[str] = []


@segue.step
async def crash_look(where: str) -> str:
    RAN.append(where)
    return f"nothing in {where}"


@segue.flow
async def crash_agent(question: str) -> list[str]:
    """An agent, beside it a stream that is spoken sentence by sentence."""

    async def asks() -> str:
        model = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=CLIENT))
        return (await Agent(model, tools=[crash_look]).run(f"use tools {question}")).output

    async def speaks() -> str:
        messages: Any = [{"role": "user", "content": f"tell {question}"}]
        said, spoken = "", []
        async for chunk in await CLIENT.chat.completions.create(model="m", messages=messages, stream=True):
            said += chunk.choices[0].delta.content or ""
            if said.endswith(". "):
                spoken.append(asyncio.create_task(crash_look(said)))
                said = ""
        return " ".join(await asyncio.gather(*spoken)) + said

    return list(await asyncio.gather(asks(), speaks()))


def rule(body: dict[str, Any]) -> Any:
    last = body["messages"][-1]
    if body.get("tools") and last["role"] != "tool":
        return ToolCall("crash_look", {"where": "Rome"})
    return "One here. Two there. Three" if "tell" in str(last["content"]) else f"I found {last['content']}."


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global CLIENT
    RAN.clear()
    async with simulated(rule=rule) as sim:
        CLIENT = openai.AsyncOpenAI(base_url=sim.base_url, api_key="key", http_client=segue.http_client())
        yield sim


async def lives(mode: str, die_at: int, after: bool) -> tuple[Any, Any, bool]:
    """Its result and journal when it was killed at that commit and taken up again."""
    store = Survivor()
    mortal = Mortal(store, die_at, after=after)
    died = asyncio.get_running_loop().create_future()
    mortal.died = lambda: died.done() or died.set_result(None)  # type: ignore[assignment,func-returns-value]
    async with segue.Engine(cast("Store", mortal), mode=mode) as engine:  # type: ignore[arg-type]
        started = await engine.start(crash_agent("x"), id="r")
        ending = asyncio.ensure_future(engine.wait(started.id))
        await asyncio.wait({ending, died}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    store.lapse()
    async with segue.Engine(store, mode=mode, verify=True) as engine:  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE):
            value = await (await engine.get("r"))
        return value, told(await entries_of(store, "r")), died.done()


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_process_that_dies_at_any_commit(mode: str, after: bool):
    expected, entries = await run(lambda: crash_agent("x"), mode)
    assert expected == ["I found nothing in Rome.", "nothing in One here.  nothing in Two there. Three"]
    shown = told(entries)
    RAN.clear()
    strikes = 0
    for die_at in range(1, 20):
        value, journal, died = await lives(mode, die_at, after)
        assert value == expected
        assert journal == shown
        if not died:
            break
        strikes += 1
    assert strikes >= 4
    lost = 0 if after else strikes * 3  # steps whose outcome wasn't written yet
    assert len(RAN) <= 3 * (strikes + 1) + lost
