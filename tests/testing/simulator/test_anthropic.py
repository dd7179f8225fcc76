"""Anthropic's dialect, as its own SDK hears it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from segue.testing.simulator import Failure, Limits, Said, Simulator, ToolCall
from tests.testing.simulator.world import World

HOUR = timedelta(hours=1)
LOOK = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}


def client_of(world: World, simulator: Simulator, key: str = "any") -> AsyncAnthropic:
    client = AsyncAnthropic(base_url=simulator.url, api_key=key, max_retries=0)
    world._open.append(client)
    return client


async def pair(world: World, **options: Any) -> tuple[Simulator, AsyncAnthropic]:
    simulator = await world.simulator(**options)
    return simulator, client_of(world, simulator)


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}


def line(custom_id: str, **more: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "params": says(custom_id, **more)}


async def results(client: AsyncAnthropic, batch_id: str) -> dict[str, Any]:
    return {each.custom_id: each.result async for each in await client.messages.batches.results(batch_id)}


# ---------------------------------------------------------------- live
async def test_a_message(world: World):
    simulator, client = await pair(world)
    message = await client.messages.create(**says("hello", system="Be brief."))
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert [block.text for block in message.content] == ["You said: hello"]
    [entry] = simulator.ledger.lines()
    assert (entry.endpoint, entry.model, entry.paid) == ("/v1/messages", "claude", True)
    assert (entry.tokens_in, entry.tokens_out) == (message.usage.input_tokens, message.usage.output_tokens)
    assert message.usage.service_tier == "standard"


@pytest.mark.parametrize(
    "said",
    [
        "a b c",
        Said(
            "", ToolCall("look", {"at": "sea"}, id="c1"), ToolCall("look", {}, id="c2"), thinking="hm, well"
        ),
        Said("I look.", ToolCall("look", {"at": "the north " * 9}, id="c1")),
        Said("as far as", stop="length"),
        Said("I won't.", stop="refusal"),
    ],
)
async def test_a_stream_adds_up_to_the_message(world: World, said: Any):
    simulator, client = await pair(world)
    simulator.when("hello").reply(said)
    request = says("hello", tools=[LOOK])
    whole = await client.messages.create(**request)
    kinds = []
    async with client.messages.stream(**request) as stream:
        async for event in stream:
            kinds.append(event.type)
        streamed = await stream.get_final_message()
    assert streamed.model_dump(exclude={"id", "usage"}) == whole.model_dump(exclude={"id", "usage"})
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.usage.input_tokens == whole.usage.input_tokens
    first, second = simulator.ledger.lines()
    assert (first.tokens_in, first.tokens_out) == (second.tokens_in, second.tokens_out)


async def test_the_stops(world: World):
    simulator, client = await pair(world)
    simulator.when("x").reply(
        Said("cut", stop="length"),
        Said("no", stop="refusal"),
        Said("", stop="content_filter"),
        ToolCall("look", {"at": "x"}),
    )
    stops = [(await client.messages.create(**says("x", tools=[LOOK]))).stop_reason for _ in range(4)]
    assert stops == ["max_tokens", "refusal", "refusal", "tool_use"]


async def test_tools_there_and_back(world: World):
    simulator, client = await pair(world)
    simulator.when("It is blue").reply("Blue, then.")
    simulator.when("hello").reply(Said("", ToolCall("look", {"at": "sky"}), thinking="I'll look"))
    thinks: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}
    first = await client.messages.create(**(says("hello", tools=[LOOK]) | thinks))
    thought, call = first.content
    assert (thought.type, call.type, call.input) == ("thinking", "tool_use", {"at": "sky"})
    answer = {"type": "tool_result", "tool_use_id": call.id, "content": "It is blue"}
    messages: list[Any] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [block.model_dump() for block in first.content]},
        {"role": "user", "content": [answer]},
    ]
    request = says("", tools=[LOOK]) | thinks | {"messages": messages}
    assert (await client.messages.create(**request)).content[0].text == "Blue, then."
    messages[1]["content"].pop(0)
    with pytest.raises(anthropic.BadRequestError, match="Expected `thinking`"):
        await client.messages.create(**request)
    messages.pop()
    with pytest.raises(anthropic.BadRequestError, match="Expected `thinking`"):
        await client.messages.create(
            **request | {"messages": [*messages, {"role": "user", "content": "so?"}]}
        )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "'user' or 'assistant'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "non-empty"),
        ({"extra_body": {"response_format": {}}}, "Extra inputs are not permitted"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, "must be greater than"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            "additionalProperties",
        ),
    ],
)
async def test_bad_requests(world: World, wrong: dict[str, Any], told: str):
    simulator, client = await pair(world)
    with pytest.raises(anthropic.BadRequestError, match=told) as caught:
        await client.messages.create(**(says("x") | wrong))
    assert caught.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    assert simulator.ledger.counts()["paid"] == 0


async def test_an_answer_in_a_form(world: World):
    _, client = await pair(world)
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "schema": schema}}
    message = await client.messages.create(**says("x"), output_config=form)
    assert json.loads(message.content[0].text) == {"n": 0}
    forced: Any = {"type": "tool", "name": "look"}
    message = await client.messages.create(**says("x", tools=[LOOK]), tool_choice=forced)
    assert message.content[0].type == "tool_use"


async def test_a_prompt_s_beginning_is_kept_for_a_while(world: World):
    simulator, client = await pair(world)
    kept: Any = [{"type": "text", "text": "law " * 5000, "cache_control": {"type": "ephemeral"}}]

    async def ask(text: str, system: Any = kept) -> tuple[int, int, int]:
        usage = (await client.messages.create(**says(text, system=system))).usage
        return usage.cache_creation_input_tokens, usage.cache_read_input_tokens, usage.input_tokens

    assert await ask("one") == (5000, 0, 1)
    assert await ask("another one") == (0, 5000, 3)
    await simulator.advance(timedelta(minutes=6))
    assert await ask("one") == (5000, 0, 1)
    lasting: Any = [{**kept[0], "text": "x" * 8000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    message = await client.messages.create(**says("one", system=lasting))
    assert message.usage.cache_creation.ephemeral_1h_input_tokens == 2000  # type: ignore[union-attr]
    await simulator.advance(timedelta(minutes=50))
    assert await ask("two", lasting) == (0, 2000, 1)
    short: Any = [{**kept[0], "text": "short"}]
    assert await ask("one", short) == (0, 0, 3)


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (429, "rate_limit_error", anthropic.RateLimitError),
        (529, "overloaded_error", anthropic.InternalServerError),
        (500, "api_error", anthropic.InternalServerError),
    ],
)
async def test_errors(world: World, status: int, kind: str, error: type[anthropic.APIStatusError]):
    simulator, client = await pair(world)
    simulator.faults.fail(status=status, retry_after=timedelta(seconds=7), on="messages")
    with pytest.raises(error) as caught:
        await client.messages.create(**says("x"))
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "7"
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    simulator.when("y").reply(Failure(status))
    with pytest.raises(error):
        await client.messages.create(**says("y"))
    assert [entry.status for entry in simulator.ledger.lines()] == [status, status]


async def test_a_wrong_key_and_a_proxy(world: World):
    simulator = await world.simulator(key="right")
    client = client_of(world, simulator, "wrong")
    with pytest.raises(anthropic.AuthenticationError):
        await client.messages.create(**says("x"))
    client = client_of(world, simulator, "right")
    simulator.faults.reply_html()
    with pytest.raises(anthropic.InternalServerError, match="<html>"):
        await client.messages.create(**says("x"))
    await client.messages.create(**says("x"))


async def test_streams_that_break(world: World):
    simulator, client = await pair(world)

    async def heard() -> str:
        async with client.messages.stream(**says("a b c")) as stream:
            return "".join([text async for text in stream.text_stream])

    simulator.faults.cut_stream_after(5, error=529)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await heard()
    assert caught.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index]
    simulator.faults.cut_stream_after(5)
    assert await heard() == "You said: "
    assert await heard() == "You said: a b c"
    assert simulator.ledger.counts()["paid"] == 3


# ---------------------------------------------------------------- batches
async def test_a_batch_from_creation_to_results(world: World):
    simulator, client = await pair(world, batch_time=HOUR)
    simulator.when("b").reply(Failure(400, "too rude"))
    batch = await client.messages.batches.create(requests=[line("a"), line("b"), line("c")])
    assert (batch.processing_status, batch.results_url, batch.ended_at) == ("in_progress", None, None)
    assert (batch.expires_at - batch.created_at) == timedelta(hours=24)
    assert batch.request_counts.processing == 3
    await simulator.advance(HOUR / 2)
    batch = await client.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 3)
    assert batch.request_counts.succeeded == 0
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        await client.messages.batches.results(batch.id)
    await simulator.advance(HOUR)
    batch = await client.messages.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert batch.processing_status == "ended"
    assert (counts.processing, counts.succeeded, counts.errored, counts.canceled, counts.expired) == (
        0,
        2,
        1,
        0,
        0,
    )
    found = await results(client, batch.id)
    assert found["a"].message.content[0].text == "You said: a"
    assert found["a"].message.usage.service_tier == "batch"
    assert (found["b"].error.error.type, found["b"].error.error.message) == (
        "invalid_request_error",
        "too rude",
    )
    assert simulator.ledger.counts()["batch_paid"] == 2
    await client.messages.batches.delete(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve(batch.id)


async def test_what_is_wrong_with_a_line_is_told_at_the_end(world: World):
    simulator, client = await pair(world)
    bad = [line("late", stream=True), line("none", max_tokens=0), line("good")]
    batch = await client.messages.batches.create(requests=bad)
    await simulator.finish()
    found = await results(client, batch.id)
    assert [found[name].type for name in ("late", "none", "good")] == ["errored", "errored", "succeeded"]


@pytest.mark.parametrize(
    ("requests", "told"),
    [
        ([], "at least 1 item"),
        ([line("a"), line("a")], "unique"),
        ([line("a:b")], "should match pattern"),
        ([line("a" * 65)], "should match pattern"),
        ([line("")], "should match pattern"),
    ],
)
async def test_batches_that_are_refused_at_once(world: World, requests: list[Any], told: str):
    simulator, client = await pair(world)
    with pytest.raises(anthropic.BadRequestError, match=told):
        await client.messages.batches.create(requests=requests)
    assert simulator.batches() == []


async def test_too_much(world: World):
    _, client = await pair(world, limits=Limits(bytes=1000))
    with pytest.raises(anthropic.RequestTooLargeError):
        await client.messages.batches.create(requests=[line("a" * 60), *(line(f"a{n}") for n in range(20))])
    _simulator, client = await pair(world, limits=Limits(enqueued_tokens=50))
    with pytest.raises(anthropic.RateLimitError):
        await client.messages.batches.create(requests=[line("a"), line("b"), line("c")])


async def test_expired_and_cancelled_in_the_middle(world: World):
    simulator, client = await pair(world, batch_time=30 * HOUR)
    batch = await client.messages.batches.create(requests=[line(f"l{n}") for n in range(8)])
    await simulator.advance(24 * HOUR)
    kinds = {result.type for result in (await results(client, batch.id)).values()}
    assert kinds == {"succeeded", "expired"}
    batch = await client.messages.batches.create(requests=[line(f"l{n}") for n in range(8)])
    await simulator.advance(10 * HOUR)
    batch = await client.messages.batches.cancel(batch.id)
    assert batch.processing_status == "canceling"
    assert batch.cancel_initiated_at is not None
    await simulator.finish()
    batch = await client.messages.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert (batch.processing_status, counts.succeeded > 0, counts.canceled > 0) == ("ended", True, True)
    found = await results(client, batch.id)
    assert sum(result.type == "canceled" for result in found.values()) == counts.canceled
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.batches.cancel(batch.id)


async def test_pages_of_batches(world: World):
    _, client = await pair(world)
    made = [(await client.messages.batches.create(requests=[line("a")])).id for _ in range(5)]
    assert [batch.id async for batch in client.messages.batches.list(limit=2)] == made[::-1]
    page = await client.messages.batches.list(limit=2, before_id=made[0])
    assert [batch.id for batch in page.data] == [made[2], made[1]]


async def test_faults_of_batches(world: World):
    simulator, client = await pair(world)
    requests = [line("a"), line("b"), line("c")]

    async def told() -> list[str]:
        batch = await client.messages.batches.create(requests=requests)
        await simulator.finish()
        return sorted([each.custom_id async for each in await client.messages.batches.results(batch.id)])

    simulator.faults.drop_line("a")
    simulator.faults.wrong_id("b")
    simulator.faults.double_line("c")
    assert await told() == ["c", "c", "unknown-1-1"]
    assert await told() == ["a", "b", "c"]
    simulator.faults.no_output_file()
    batch = await client.messages.batches.create(requests=requests)
    await simulator.finish()
    batch = await client.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.results_url) == ("ended", None)
    simulator.faults.empty_error_file_id()
    batch = await client.messages.batches.create(requests=requests)
    await simulator.finish()
    assert (await client.messages.batches.retrieve(batch.id)).results_url == ""
    simulator.faults.stall_batch()
    batch = await client.messages.batches.create(requests=requests)
    await simulator.advance(23 * HOUR)
    assert (await client.messages.batches.retrieve(batch.id)).processing_status == "in_progress"
    await simulator.advance(HOUR)
    assert (await client.messages.batches.retrieve(batch.id)).request_counts.expired == 3
    assert simulator.ledger.lines(batch=batch.id)[0].paid is False


async def test_a_restart(world: World, tmp_path: Path):
    simulator, client = await pair(world, directory=tmp_path)
    batch = await client.messages.batches.create(requests=[line(f"l{n}") for n in range(10)])
    await simulator.advance(HOUR / 2)
    moment = simulator.clock.now()
    await world.close(client, simulator)
    simulator, client = await pair(world, directory=tmp_path)
    await simulator.advance(timedelta(seconds=moment - simulator.clock.now()))
    await simulator.finish()
    found = await results(client, batch.id)
    assert {result.type for result in found.values()} == {"succeeded"}
    assert simulator.ledger.counts()["batch_paid"] == 10
    assert simulator.ledger.counts()["paid_twice"] == 0


async def test_a_real_model_behind_it(world: World):
    upstream = await world.simulator()
    _simulator, client = await pair(world, upstream=upstream.base_url)
    upstream.when("hello").reply(ToolCall("look", {"at": "sea"}))
    async with client.messages.stream(**says("hello", tools=[LOOK])) as stream:
        message = await stream.get_final_message()
    assert (message.stop_reason, message.content[0].input) == ("tool_use", {"at": "sea"})
    assert [entry.endpoint for entry in upstream.ledger.lines()] == ["/v1/chat/completions"]
