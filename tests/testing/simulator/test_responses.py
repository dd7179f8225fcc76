"""Responses, as OpenAI's own SDK sees them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError

from segue.testing.simulator import Failure, Said, ToolCall, ToolCalls

from .world import World, read, row, submit

ASKED = {"model": "m", "store": False}
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": False,
}


async def test_a_whole_answer(world: World):
    simulator, client = await world.pair()
    simulator.when("France").reply(Said("Paris", thinking="Hm.", cites=["https://a.b"], cached=2))
    response = await client.responses.create(input="the capital of France", **ASKED)
    assert (response.status, response.output_text) == ("completed", "Paris")
    thought, message = response.output
    assert (thought.type, thought.summary[0].text) == ("reasoning", "Hm.")  # type: ignore[union-attr]
    assert message.content[0].annotations[0].url == "https://a.b"  # type: ignore[union-attr]
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 2
    (entry,) = simulator.ledger.lines("live")
    assert (entry.endpoint, entry.tokens_in, entry.tokens_out) == (
        "/v1/responses",
        response.usage.input_tokens,
        response.usage.output_tokens,
    )


@pytest.mark.parametrize(
    ("stop", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_an_answer_that_was_stopped(world: World, stop: str, reason: str):
    simulator, client = await world.pair()
    simulator.when("story").reply(Said("Once upon", stop=stop))
    response = await client.responses.create(input="a story", **ASKED)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == reason


@pytest.mark.parametrize(
    "said",
    [
        "one two three",
        Said("I won't.", stop="refusal"),
        Said("so far", stop="length"),
        Said("text", ToolCall("look", {"at": "sea"}), thinking="I should look."),
        ToolCalls(ToolCall("look", {"at": "sea"}), ToolCall("look", {"at": "sky"})),
    ],
)
async def test_a_stream_adds_up(world: World, said: Any):
    simulator, client = await world.pair()
    simulator.when("go").reply(said)
    whole = await client.responses.create(input="go", tools=[TOOL], **ASKED)
    async with client.responses.stream(input="go", tools=[TOOL], **ASKED) as stream:
        kinds = [event.type async for event in stream]
        assert kinds[-1] == f"response.{whole.status}"
        final = kinds[-1] == "response.completed" and await stream.get_final_response()
    texts = [event.delta async for event in await client.responses.create(input="go", stream=True, **ASKED)
             if event.type == "response.output_text.delta"]  # fmt: skip
    assert "".join(texts) == whole.output_text
    if final:
        assert [item.type for item in final.output] == [item.type for item in whole.output]
        assert final.output_text == whole.output_text


async def test_a_conversation_with_tools_and_thoughts(world: World):
    seen: list[Any] = []

    def rule(body: dict[str, Any]) -> Any:
        seen.append(body)
        if len(seen) == 1:
            return Said("", ToolCall("look", {"at": "sea"}), thinking="I should look.")
        return "It is calm."

    _, client = await world.pair(rule=rule)
    asked: list[Any] = [{"role": "user", "content": "How is the sea?"}]
    first = await client.responses.create(input=asked, tools=[TOOL], **ASKED)
    asked += [item.model_dump(exclude_none=True) for item in first.output]
    asked.append({"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "calm"})  # type: ignore[union-attr]
    second = await client.responses.create(input=asked, tools=[TOOL], **ASKED)
    assert second.output_text == "It is calm."
    assert [message["role"] for message in seen[1]["messages"]] == ["user", "assistant", "tool"]
    assert seen[1]["messages"][2] == {
        "role": "tool",
        "tool_call_id": first.output[-1].call_id,
        "content": "calm",
    }  # type: ignore[union-attr]
    with pytest.raises(BadRequestError, match="reasoning"):  # a thought belongs to what followed it
        await client.responses.create(input=[asked[1], asked[0]], **ASKED)


async def test_a_form(world: World):
    _, client = await world.pair()
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form: Any = {"type": "json_schema", "name": "count", "schema": schema, "strict": True}
    response = await client.responses.create(input="count", text={"format": form}, **ASKED)
    assert response.output_text == '{"n":0}'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"messages": []}, "Unsupported parameter: 'messages'"),
        ({"input": 7}, "Invalid type for 'input'"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]}, "No tool call found"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "'text'"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools\\[0\\].name"),
        ({"background": True, "store": False}, "requires store"),
        ({"background_options": {"completion_window": "2h"}}, "requires background"),
        ({"background": True, "background_options": {"completion_window": "3h"}}, "'3h'"),
    ],
)
async def test_what_is_refused(world: World, body: dict[str, Any], says: str):
    _, client = await world.pair()
    with pytest.raises(BadRequestError, match=says):
        await client.post("/responses", body={"model": "m", "input": "x"} | body, cast_to=dict)


async def test_in_a_batch(world: World):
    simulator, client = await world.pair()
    simulator.when("France").reply("Paris")
    lines = [
        row("a", {"model": "m", "input": "the capital of France"}, url="/v1/responses"),
        row("b", {"model": "m", "input": "x", "background": True}, url="/v1/responses"),
    ]
    batch = await submit(client, *lines, endpoint="/v1/responses")
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert batch.request_counts is not None
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 1)
    (line,) = await read(client, batch.output_file_id)
    assert line["response"]["body"]["output"][0]["content"][0]["text"] == "Paris"
    assert simulator.ledger.counts()["tokens_out"] == line["response"]["body"]["usage"]["output_tokens"]


@pytest.mark.parametrize(("window", "share"), [("2h", 0.25), ("8h", 0.5)])
async def test_in_the_background(world: World, window: Any, share: float):
    hour = timedelta(hours=1)
    simulator, client = await world.pair(batch_time=hour)
    simulator.when("France").reply("Paris")
    options: Any = {"completion_window": window}
    begun = await client.responses.create(
        model="m", input="France", background=True, background_options=options, metadata={"segue": "line"}
    )
    assert (begun.status, begun.output) == ("queued", [])
    await simulator.advance(hour * share * 0.9)
    assert (await client.responses.retrieve(begun.id)).status == "queued"
    assert len(simulator.ledger) == 0
    await simulator.advance(hour * share * 0.2)
    done = await client.responses.retrieve(begun.id)
    assert (done.status, done.output_text, done.id) == ("completed", "Paris", begun.id)
    (entry,) = simulator.ledger.lines("background")
    assert (entry.paid, entry.custom_id) == (True, "line")


async def test_what_fails_or_is_cancelled_in_the_background(world: World):
    simulator, client = await world.pair()
    simulator.when("bad").reply(Failure(500, "It broke."))
    options: Any = {"completion_window": "2h"}
    bad, gone = [
        await client.responses.create(model="m", input=text, background=True, background_options=options)
        for text in ("bad", "good")
    ]
    assert (await client.responses.cancel(gone.id)).status == "cancelled"
    await simulator.advance(timedelta(hours=2))
    failed = await client.responses.retrieve(bad.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.message) == ("failed", "server_error", "It broke.")
    assert (await client.responses.retrieve(gone.id)).status == "cancelled"
    assert simulator.ledger.counts()["paid"] == 0
    await client.responses.delete(bad.id)
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(bad.id)
