"""The `google-genai` SDK inside a flow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from pydantic_ai import Agent
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider

import segue
from segue.testing.simulator import Failure, Simulator, ToolCall

from .both import both, simulated

CLIENT: genai.Client


def rule(body: dict[str, Any]) -> Any:
    """Asks for the tool, if it has one and no result of it yet."""
    last = body["messages"][-1]
    if body.get("tools") and last["role"] != "tool":
        return ToolCall("gemini_count", {"text": "a b c"})
    return "It has 5." if last["role"] == "tool" else f"Well, {last['content']}"


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global CLIENT
    async with simulated(rule=rule) as sim:
        options = types.HttpOptions(base_url=sim.url, httpx_async_client=segue.http_client())
        CLIENT = genai.Client(api_key="key", http_options=options)
        yield sim
        CLIENT.close()


@segue.flow
async def gemini_chain(text: str) -> str | None:
    models = CLIENT.aio.models
    first = await models.generate_content(model="m", contents=text)
    return (await models.generate_content(model="m", contents=f"again: {first.text}")).text


async def test_calls_in_turn():
    assert await both(lambda: gemini_chain("hi")) == "Well, again: Well, hi"


@segue.flow
async def gemini_streams(text: str) -> list[str]:
    stream = await CLIENT.aio.models.generate_content_stream(model="m", contents=text)
    return [chunk.text or "" async for chunk in stream]


async def test_streams():
    assert await both(lambda: gemini_streams("once upon a time")) == [
        "Well, ",
        "once ",
        "upon ",
        "a ",
        "time",
        "",
    ]


@segue.step
async def gemini_count(text: str) -> int:
    return len(text)


@segue.flow
async def gemini_tools(text: str) -> str | None:
    """The SDK itself calls the tool."""
    config = types.GenerateContentConfig(tools=[gemini_count])
    return (await CLIENT.aio.models.generate_content(model="m", contents=text, config=config)).text


async def test_tools():
    assert await both(lambda: gemini_tools("count")) == "It has 5."


@segue.flow
async def gemini_agent(text: str) -> str:
    model = GoogleModel("m", provider=GoogleProvider(client=CLIENT))
    return (await Agent(model, tools=[gemini_count]).run(text)).output


async def test_pydantic_ai():
    assert await both(lambda: gemini_agent("count")) == "It has 5."


@segue.flow
async def gemini_fails(text: str) -> str:
    try:
        await CLIENT.aio.models.generate_content(model="m", contents=text)
    except errors.ClientError as error:
        return f"{error.code}: {error.message}"
    return "no error"


async def test_an_error_is_the_sdks_own(sim: Simulator):
    sim.when("bad").reply(Failure(400, "It is too long."))
    assert await both(lambda: gemini_fails("bad")) == "400: It is too long."
