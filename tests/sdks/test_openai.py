"""The `openai` SDK inside a flow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import openai
import pytest
from pydantic import BaseModel

import segue
from segue.testing.simulator import Failure, Simulator, ToolCall

from .both import both, run, simulated

CLIENT: openai.AsyncOpenAI


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global CLIENT
    async with simulated() as sim:
        CLIENT = openai.AsyncOpenAI(base_url=sim.base_url, api_key="key", http_client=segue.http_client())
        yield sim


async def say(text: str, **options: Any) -> Any:
    return await CLIENT.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}], **options
    )


@segue.flow
async def openai_chain(text: str) -> str:
    first = (await say(text)).choices[0].message.content
    return (await say(f"again: {first}")).choices[0].message.content or ""


async def test_calls_in_turn(sim: Simulator):
    sim.when("again").reply("second")
    assert await both(lambda: openai_chain("hi")) == "second"


@segue.flow
async def openai_branches(text: str) -> list[str]:
    async def one(number: int) -> str:
        first = (await say(f"{number} {text}")).choices[0].message.content
        return (await say(f"again {first}")).choices[0].message.content or ""

    return await asyncio.gather(*(one(number) for number in range(4)))


async def test_calls_side_by_side_share_a_job(sim: Simulator):
    said = await both(lambda: openai_branches("hi"))
    assert said[3] == "You said: again You said: 3 hi"
    assert sim.ledger.counts()["batch_paid"] == 8
    assert len(sim.batches()) == 2


@segue.flow
async def openai_streams(text: str) -> list[str]:
    stream = await say(text, stream=True, stream_options={"include_usage": True})
    pieces = []
    async for chunk in stream:
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        if chunk.usage:
            pieces.append(f"{chunk.usage.completion_tokens} tokens")
    return pieces


async def test_a_stream_comes_in_the_same_pieces_in_every_mode(sim: Simulator):
    sim.when("tell").reply("once upon a time there was  a wire")
    pieces = await both(lambda: openai_streams("tell"))
    assert pieces == ["", "once ", "upon ", "a ", "time ", "there ", "was  ", "a ", "wire", "", "9 tokens"]


@segue.flow
async def openai_breaks_off(text: str) -> str:
    read = ""
    async with await say(text, stream=True) as stream:
        async for chunk in stream:
            read += chunk.choices[0].delta.content or ""
            if len(read) > 8:
                break
    return (await say(f"go on: {read}")).choices[0].message.content or ""


async def test_a_stream_that_is_broken_off_is_recorded_whole(sim: Simulator):
    sim.when("tell").reply("once upon a time there was a wire")
    assert await both(lambda: openai_breaks_off("tell")) == "You said: go on: once upon "


@segue.flow
async def openai_ends_in_a_stream(text: str) -> str:
    async for chunk in await say(text, stream=True):
        if chunk.choices[0].delta.content:
            return chunk.choices[0].delta.content
    return ""


async def test_a_flow_that_ends_in_the_middle_of_a_stream(sim: Simulator):
    assert await both(lambda: openai_ends_in_a_stream("tell")) == "You "


@segue.step
async def openai_speak(sentence: str) -> int:
    return len(sentence)


@segue.flow
async def openai_sentences(text: str) -> list[int]:
    """A recorded call for each sentence as it comes, side by side with the stream or in its way."""
    spoken, out = [], []
    sentence = ""
    async for chunk in await say(text, stream=True):
        sentence += chunk.choices[0].delta.content or ""
        if sentence.endswith(". "):
            spoken.append(asyncio.create_task(openai_speak(sentence)))
            sentence = ""
        elif sentence.endswith("! "):
            out.append(await openai_speak(sentence))
            sentence = ""
    out += await asyncio.gather(*spoken)
    return [*out, await openai_speak(sentence)]


async def test_calls_upon_what_has_come_of_a_stream(sim: Simulator):
    sim.when("tell").reply("One two. Three! Four five. Six seven. Eight")
    assert await both(lambda: openai_sentences("tell")) == [7, 9, 11, 11, 5]


@segue.flow
async def openai_shares(text: str) -> str:
    """Streams side by side that write to one list: what comes of it goes into a prompt."""
    seen: list[str] = []

    async def one(number: int) -> None:
        async for chunk in await say(f"{text} {number}", stream=True):
            if chunk.choices[0].delta.content:
                seen.append(f"{number}{chunk.choices[0].delta.content}")

    await asyncio.gather(*(one(number) for number in range(3)))
    return (await say("".join(seen))).choices[0].message.content or ""


async def test_streams_side_by_side(sim: Simulator):
    for _ in range(5):
        value, _ = await run(lambda: openai_shares("hi"), "live")
        assert value.startswith("You said: ")
    await run(lambda: openai_shares("hi"), "batch")


class Person(BaseModel):
    name: str
    age: int


@segue.flow
async def openai_parses(text: str) -> str:
    reply = await CLIENT.chat.completions.parse(
        model="m", messages=[{"role": "user", "content": text}], response_format=Person
    )
    person = reply.choices[0].message.parsed
    assert person is not None
    async with CLIENT.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": text}], response_format=Person
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == person
    return f"{person.name} {person.age}"


async def test_typed_answers(sim: Simulator):
    sim.when("who").reply({"name": "Ada", "age": 36})
    assert await both(lambda: openai_parses("who")) == "Ada 36"


@segue.flow
async def openai_tools(text: str, stream: bool) -> str:
    messages: list[Any] = [{"role": "user", "content": text}]
    schema = {"type": "object", "properties": {"sentence": {"type": "string"}}, "required": ["sentence"]}
    schema["additionalProperties"] = False
    tool = {"type": "function", "function": {"name": "openai_speak", "parameters": schema, "strict": True}}
    while True:
        async with CLIENT.chat.completions.stream(model="m", messages=messages, tools=[tool]) as events:  # type: ignore[list-item]
            if stream:
                async for _ in events:
                    pass
            message = (await events.get_final_completion()).choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = await openai_speak(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})


async def test_tools(sim: Simulator):
    def rule(body: dict[str, Any]) -> Any:
        last = body["messages"][-1]
        return (
            f"It has {last['content']}."
            if last["role"] == "tool"
            else ToolCall("openai_speak", {"sentence": "a b c"})
        )

    async with simulated(rule=rule) as sim:
        global CLIENT
        CLIENT = openai.AsyncOpenAI(base_url=sim.base_url, api_key="key", http_client=segue.http_client())
        for stream in (False, True):
            assert await both(lambda stream=stream: openai_tools("count", stream)) == "It has 5."


@segue.flow
async def openai_embeds(texts: list[str]) -> list[float]:
    reply = await CLIENT.embeddings.create(model="m", input=texts)
    plain = await CLIENT.embeddings.create(model="m", input=texts, encoding_format="float")
    assert plain.data[1].embedding == pytest.approx(reply.data[1].embedding, abs=1e-6)
    return reply.data[1].embedding[:3]


async def test_embeddings(sim: Simulator):
    assert len(await both(lambda: openai_embeds(["a", "b"]))) == 3


@segue.flow
async def openai_fails(text: str) -> str:
    try:
        await say(text)
    except openai.BadRequestError as error:
        return f"{error.status_code}: {error.body['message']}"  # type: ignore[index]
    return "no error"


async def test_an_error_is_the_sdks_own(sim: Simulator):
    sim.when("bad").reply(Failure(400, "It is too long.", code="context_length_exceeded"))
    assert await both(lambda: openai_fails("bad")) == "400: It is too long."


@segue.flow
async def openai_gives_up(text: str) -> str:
    try:
        await say(text)
    except openai.InternalServerError as error:
        return f"{error.status_code}"
    return "no error"


async def test_what_was_tried_again_by_the_engine_isnt_by_the_sdk(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("segue.runtime.calls.trying.LIVE_RETRY", segue.Retry(2, wait=timedelta(0)))
    sim.when("down").reply(Failure(500, "Something broke."))
    value, entries = await run(lambda: openai_gives_up("down"), "live")
    assert value == "500"
    assert len(entries) == 1
    assert len(sim.ledger) == 2


@segue.flow
async def responses_chain(text: str) -> list[str]:
    first = await CLIENT.responses.create(model="m", input=text)
    pieces, kinds = [], []
    async for event in await CLIENT.responses.create(
        model="m", input=f"again {first.output_text}", stream=True
    ):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
    async with CLIENT.responses.stream(model="m", input="who", text_format=Person) as stream:
        parsed = (await stream.get_final_response()).output_parsed
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    return [first.output_text, *pieces, str(parsed)]


async def test_responses(sim: Simulator):
    sim.when("who").reply({"name": "Ada", "age": 36})
    said = await both(lambda: responses_chain("hi"))
    assert said == ["You said: hi", "You ", "said: ", "again ", "You ", "said: ", "hi", "name='Ada' age=36"]


@segue.flow
async def responses_tools(text: str) -> str:
    items: list[Any] = [{"role": "user", "content": text}]
    schema = {"type": "object", "properties": {"sentence": {"type": "string"}}}
    tool: Any = {"type": "function", "name": "openai_speak", "parameters": schema, "strict": False}
    while True:
        async with CLIENT.responses.stream(model="m", input=items, tools=[tool]) as stream:
            reply = await stream.get_final_response()
        calls = [item for item in reply.output if item.type == "function_call"]
        if not calls:
            return reply.output_text
        for call in calls:
            result = await openai_speak(**json.loads(call.arguments))
            items.append(call.model_dump(include={"type", "call_id", "name", "arguments"}))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": str(result)})


async def test_responses_with_tools():
    def rule(body: dict[str, Any]) -> Any:
        last = body["messages"][-1]
        return (
            f"It has {last['content']}."
            if last["role"] == "tool"
            else ToolCall("openai_speak", {"sentence": "a b"})
        )

    async with simulated(rule=rule) as sim:
        global CLIENT
        CLIENT = openai.AsyncOpenAI(base_url=sim.base_url, api_key="key", http_client=segue.http_client())
        assert await both(lambda: responses_tools("count")) == "It has 3."
