"""The `anthropic` SDK inside a flow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

import segue
from segue.testing.simulator import Failure, Simulator, ToolCall

from .both import both, simulated

CLIENT: anthropic.AsyncAnthropic


def rule(body: dict[str, Any]) -> Any:
    """Asks for the tool, if it has one and no result of it yet."""
    last = body["messages"][-1]
    if body.get("tools") and last["role"] != "tool":
        return ToolCall("anthropic_count", {"text": "a b c"})
    return f"It has {last['content']}." if last["role"] == "tool" else f"Well, {last['content']}"


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global CLIENT
    async with simulated(rule=rule) as sim:
        CLIENT = anthropic.AsyncAnthropic(base_url=sim.url, api_key="key", http_client=segue.http_client())
        yield sim


async def say(messages: list[Any], **options: Any) -> Any:
    return await CLIENT.messages.create(model="m", max_tokens=100, messages=messages, **options)


@segue.flow
async def anthropic_chain(text: str) -> str:
    first = await say([{"role": "user", "content": text}])
    second = await say([{"role": "user", "content": f"again: {first.content[0].text}"}])
    return second.content[0].text


async def test_calls_in_turn():
    assert await both(lambda: anthropic_chain("hi")) == "Well, again: Well, hi"


@segue.flow
async def anthropic_streams(text: str) -> list[str]:
    pieces = []
    async with CLIENT.messages.stream(
        model="m", max_tokens=100, messages=[{"role": "user", "content": text}]
    ) as stream:
        async for piece in stream.text_stream:
            pieces.append(piece)
        final = await stream.get_final_message()
    raw = [event.type async for event in await say([{"role": "user", "content": text}], stream=True)]
    return [*pieces, str(final.stop_reason), str(final.usage.output_tokens > 0), *raw[:3]]


async def test_streams():
    assert await both(lambda: anthropic_streams("once upon a time")) == [
        *("Well, ", "once ", "upon ", "a ", "time", "end_turn", "True"),
        *("message_start", "content_block_start", "content_block_delta"),
    ]


@segue.step
async def anthropic_count(text: str) -> int:
    return len(text)


@segue.flow
async def anthropic_tools(text: str) -> str:
    messages: list[Any] = [{"role": "user", "content": text}]
    tool = {
        "name": "anthropic_count",
        "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    while True:
        async with CLIENT.messages.stream(
            model="m",
            max_tokens=100,
            messages=messages,
            tools=[tool],  # type: ignore[list-item]
        ) as stream:
            reply = await stream.get_final_message()
        uses = [block for block in reply.content if block.type == "tool_use"]
        if not uses:
            return reply.content[0].text  # type: ignore[union-attr]
        messages.append({"role": "assistant", "content": reply.content})
        results = [
            {"type": "tool_result", "tool_use_id": use.id, "content": str(await anthropic_count(**use.input))}
            for use in uses
        ]
        messages.append({"role": "user", "content": results})


async def test_tools():
    assert await both(lambda: anthropic_tools("count")) == "It has 5."


@segue.flow
async def anthropic_agent(text: str) -> str:
    provider = AnthropicProvider(anthropic_client=CLIENT)
    return (await Agent(AnthropicModel("m", provider=provider), tools=[anthropic_count]).run(text)).output


async def test_pydantic_ai():
    assert await both(lambda: anthropic_agent("count")) == "It has 5."


@segue.flow
async def anthropic_fails(text: str) -> str:
    try:
        await say([{"role": "user", "content": text}])
    except anthropic.BadRequestError as error:
        return f"{error.status_code}: {error.body['error']['message']}"  # type: ignore[index]
    return "no error"


async def test_an_error_is_the_sdks_own(sim: Simulator):
    sim.when("bad").reply(Failure(400, "It is too long."))
    assert await both(lambda: anthropic_fails("bad")) == "400: It is too long."
