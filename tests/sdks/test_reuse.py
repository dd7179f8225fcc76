"""SDKs' requests that are the same: streamed or whole, live or in batch, they are one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

import segue
from segue.testing.simulator import Said, Simulator

from .both import simulated

OPENAI: openai.AsyncOpenAI
CLAUDE: anthropic.AsyncAnthropic


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global OPENAI, CLAUDE
    async with simulated() as sim:
        client: Any = segue.http_client()
        OPENAI = openai.AsyncOpenAI(base_url=sim.base_url, api_key="key", http_client=client)
        CLAUDE = anthropic.AsyncAnthropic(base_url=sim.url, api_key="key", http_client=client)
        yield sim


def paid(sim: Simulator) -> int:
    return sum(entry.paid for entry in sim.ledger.lines())


@segue.flow
async def reuse_chat(text: str, *, stream: bool) -> str:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": text}]}
    if not stream:
        return (await OPENAI.chat.completions.create(**asked)).choices[0].message.content or ""
    said = ""
    async for chunk in await OPENAI.chat.completions.create(**asked, stream=True):
        said += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    return said


@segue.flow
async def reuse_claude(text: str) -> str:
    asked = [{"role": "user", "content": text}]
    message = await CLAUDE.messages.create(model="claude", max_tokens=100, messages=asked)  # type: ignore[arg-type]  # as JSON
    return "".join(block.text for block in message.content if block.type == "text")


@segue.flow
async def reuse_response(text: str) -> str:
    return (await OPENAI.responses.create(model="m", input=text)).output_text


@segue.flow
async def reuse_vectors(text: str) -> int:
    return len((await OPENAI.embeddings.create(model="text-embedding-3-small", input=[text])).data)


@segue.flow
async def reuse_models() -> int:
    return len([model async for model in OPENAI.models.list()])


WAYS = [("live", False), ("live", True), ("batch", True), ("batch", False)]


@pytest.mark.parametrize("first", WAYS)
async def test_a_stream_and_a_whole_answer_are_one(sim: Simulator, first: tuple[str, bool]) -> None:
    async with segue.Engine("memory:", reuse=True, verify=True) as engine:
        for mode, stream in (first, *WAYS):
            assert await engine.run(reuse_chat("hi", stream=stream), mode=mode) == "You said: hi"  # type: ignore[arg-type]
        lanes = [use.lane for head in await engine.store.runs() for use in head.usage]
        assert sorted(lanes) == sorted([first[0], *["reused"] * 4])
    assert paid(sim) == 1


@pytest.mark.parametrize("call", [reuse_claude, reuse_response, reuse_vectors])
async def test_every_protocol(sim: Simulator, call: Any) -> None:
    async with segue.Engine("memory:", reuse=True, verify=True) as engine:
        said = [await engine.run(call("hi"), mode=mode) for mode in ("live", "batch", "live")]  # type: ignore[arg-type]
        assert said == [said[0]] * 3
    assert paid(sim) == 1


@pytest.mark.parametrize("stop", ["length", "content_filter", "refusal"])
async def test_what_was_cut_off_or_declined_is_asked_anew(sim: Simulator, stop: str) -> None:
    sim.when("hi").reply(Said("no", stop=stop))
    async with segue.Engine("memory:", reuse=True) as engine:
        for mode in ("live", "batch"):
            await engine.run(reuse_chat("hi", stream=False), mode=mode)  # type: ignore[arg-type]
            await engine.run(reuse_claude("hi"), mode=mode)  # type: ignore[arg-type]
        assert await engine.forget() == 0
    assert paid(sim) == 4


async def test_an_id_in_a_prompt_is_part_of_the_question(sim: Simulator) -> None:
    """A journal's check takes generated ids for one another; an answer to one isn't one to the other."""
    one, two = "Order 11111111-1111-4111-8111-111111111111", "Order 22222222-2222-4222-8222-222222222222"
    async with segue.Engine("memory:", reuse=True) as engine:
        assert await engine.run(reuse_chat(one, stream=False)) == f"You said: {one}"
        assert await engine.run(reuse_chat(two, stream=False)) == f"You said: {two}"
    assert paid(sim) == 2


async def test_requests_that_ask_no_model_are_sent_each_time(sim: Simulator) -> None:
    async with segue.Engine("memory:", reuse=True) as engine:
        for _ in range(2):
            assert await engine.run(reuse_models()) > 0
        assert await engine.forget() == 0
