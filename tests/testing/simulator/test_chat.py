from __future__ import annotations

import asyncio
import base64
import json
import struct
from datetime import timedelta
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from segue.testing.fake_model import ToolUse
from segue.testing.simulator import Failure, SystemClock, ToolCall, ToolCalls
from segue.testing.simulator.replies import Scene
from tests.testing.simulator.world import World, says


class Numbered(BaseModel):
    n: int


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def test_a_reply_has_text_usage_and_an_id_of_its_own(world: World):
    _, client = await world.pair()
    first = await client.chat.completions.create(**says("hello"))
    second = await client.chat.completions.create(**says("hello"))
    assert first.choices[0].message.content == "You said: hello"
    assert first.choices[0].finish_reason == "stop"
    assert first.model == "m"
    assert first.usage is not None
    assert first.usage.completion_tokens == 4
    assert first.usage.total_tokens == first.usage.prompt_tokens + 4
    assert first.id != second.id
    assert first.choices == second.choices


async def test_a_script_answers_in_turn_and_the_last_reply_stays(world: World):
    simulator, client = await world.pair(rule=lambda body: "other")
    simulator.when("capital").reply("Paris", "Rome")
    said = [await client.chat.completions.create(**says("the capital?")) for _ in range(3)]
    assert [each.choices[0].message.content for each in said] == ["Paris", "Rome", "Rome"]
    other = await client.chat.completions.create(**says("anything"))
    assert other.choices[0].message.content == "other"


async def test_the_longest_text_that_is_found_answers(world: World):
    """And of equal ones the last, as a fake model's do."""
    simulator, client = await world.pair(rule=lambda body: "other")
    simulator.when("capital").reply("one of them")
    simulator.when("capital of Italy").reply("Rome")
    simulator.when("capital of").reply("another of them")
    for text, answer in (
        ("capital of Italy?", "Rome"),
        ("capital of Peru?", "another of them"),
        ("capital!", "one of them"),
    ):
        said = await client.chat.completions.create(**says(text))
        assert said.choices[0].message.content == answer
    simulator.when("capital of").reply("yet another")
    said = await client.chat.completions.create(**says("capital of Peru?"))
    assert said.choices[0].message.content == "yet another"


@pytest.mark.parametrize("reply", [{"a": [1]}, [1, 2], 7, None, True])
async def test_any_json_value_can_be_said(world: World, reply: Any):
    _, client = await world.pair(rule=lambda body: reply)
    said = await client.chat.completions.create(**says("x"))
    assert json.loads(said.choices[0].message.content or "") == reply


async def test_a_rule_may_be_a_coroutine_function_and_sees_the_body(world: World):
    async def rule(body: dict[str, Any]) -> str:
        return f"{body['model']} {body['temperature']}"

    _, client = await world.pair(rule=rule)
    said = await client.chat.completions.create(**says("x", temperature=0.5))
    assert said.choices[0].message.content == "m 0.5"


@pytest.mark.parametrize("raised", [False, True])
async def test_a_rule_may_fail(world: World, raised: bool):
    def rule(body: dict[str, Any]) -> Failure:
        failure = Failure(429, "slow down", retry_after=1.5)
        if raised:
            raise failure
        return failure

    simulator, client = await world.pair(rule=rule)
    with pytest.raises(openai.RateLimitError, match="slow down") as caught:
        await client.chat.completions.create(**says("x"))
    assert caught.value.response.headers["retry-after"] == "1.5"
    assert [(entry.status, entry.paid) for entry in simulator.ledger.lines()] == [(429, False)]


async def test_a_bug_in_a_rule_is_told(world: World):
    _, client = await world.pair(rule=lambda body: body["nothing"])
    with pytest.raises(openai.InternalServerError, match="KeyError"):
        await client.chat.completions.create(**says("x"))


async def test_what_a_rule_gives_may_be_all_that_a_script_says(world: World):
    given: Any = [ToolCall("a", {"n": 1}), ToolCall("b")]
    _, client = await world.pair(rule=lambda body: given)
    for _ in range(2):
        said = await client.chat.completions.create(**says("x"))
        assert [call.function.name for call in said.choices[0].message.tool_calls or []] == ["a", "b"]
        given = [ToolUse("a", n=1), ToolUse("b")]
    given = Numbered(n=3)
    said = await client.chat.completions.create(**says("x"))
    assert said.choices[0].message.content == '{"n":3}'
    given = object()
    with pytest.raises(openai.InternalServerError, match="is no reply"):
        await client.chat.completions.create(**says("x"))


async def test_a_stream_adds_up_to_the_reply(world: World):
    text = "one two  three\nfour"
    _, client = await world.pair(rule=lambda body: text)
    stream = await client.chat.completions.create(**says("x"), stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len(chunks) == 6
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_states_the_usage_that_the_whole_reply_has(world: World):
    simulator, client = await world.pair()
    whole = await client.chat.completions.create(**says("x"))
    options = {"include_usage": True}
    stream = await client.chat.completions.create(**says("x"), stream=True, stream_options=options)
    *_, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage == whole.usage
    first, second = simulator.ledger.lines("live")
    assert (first.tokens_in, first.tokens_out) == (second.tokens_in, second.tokens_out)
    assert first.tokens_out > 0


async def test_a_stream_that_fails_at_once_is_an_error(world: World):
    _, client = await world.pair(rule=lambda body: Failure(503))
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(**says("x"), stream=True)


async def test_tool_calls_come_whole_or_in_fragments(world: World):
    reply = ToolCalls(ToolCall("weather", {"city": "Rome, Italy"}), ToolCall("now", id="call_1"))
    _, client = await world.pair(rule=lambda body: reply)
    whole = await client.chat.completions.create(**says("x"), tools=[TOOL])
    assert whole.choices[0].finish_reason == "tool_calls"
    calls = whole.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["weather", "now"]
    assert json.loads(calls[0].function.arguments) == {"city": "Rome, Italy"}
    assert calls[1].id == "call_1"

    stream = await client.chat.completions.create(**says("x"), tools=[TOOL], stream=True)
    deltas = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    of_first = [delta for delta in deltas if delta.index == 0]
    assert [delta.function.name for delta in of_first][:2] == ["weather", None]
    assert of_first[0].id is not None
    assert "".join(delta.function.arguments or "" for delta in of_first) == '{"city":"Rome, Italy"}'
    assert len(of_first) > 2


async def test_a_tool_that_must_be_called_is_called(world: World):
    _, client = await world.pair()
    said = await client.chat.completions.create(**says("x"), tools=[TOOL], tool_choice="required")
    [call] = said.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "a"}


async def test_a_schema_is_fulfilled(world: World):
    class Person(BaseModel):
        name: str
        age: int

    _, client = await world.pair()
    said = await client.chat.completions.parse(**says("x"), response_format=Person)
    assert said.choices[0].message.parsed == Person(name="a", age=0)


async def test_embeddings_are_unit_vectors_that_repeat(world: World):
    simulator, client = await world.pair()
    made = await client.embeddings.create(model="e", input=["a", "b", "a"], dimensions=8)
    first, second, third = (each.embedding for each in made.data)
    assert first == third != second
    assert sum(x * x for x in first) == pytest.approx(1)
    assert len(first) == 8
    packed: Any = await client.embeddings.create(model="e", input="a", dimensions=8, encoding_format="base64")
    unpacked = struct.unpack("<8f", base64.b64decode(packed.data[0].embedding))
    assert list(unpacked) == pytest.approx(first, rel=1e-6)
    assert [entry.endpoint for entry in simulator.ledger.lines()] == ["/v1/embeddings"] * 2


async def test_only_known_models_answer(world: World):
    _, client = await world.pair(models=["a", "b"])
    assert [model.id async for model in client.models.list()] == ["a", "b"]
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(**says("x"))
    assert caught.value.code == "model_not_found"


async def test_a_wrong_key_is_refused(world: World):
    simulator = await world.simulator(key="right")
    with pytest.raises(openai.AuthenticationError):
        await world.client(simulator, key="wrong").chat.completions.create(**says("x"))
    await world.client(simulator, key="right").chat.completions.create(**says("x"))
    assert simulator.ledger.counts()["asked"] == 1


@pytest.mark.parametrize(
    ("path", "content", "status", "param"),
    [
        ("/chat/completions", b"{", 400, None),
        ("/chat/completions", b"[]", 400, None),
        ("/chat/completions", b'{"model":"m"}', 400, "messages"),
        ("/chat/completions", b'{"model":"m","messages":["x"]}', 400, "messages"),
        ("/chat/completions", b'{"messages":[{"role":"user","content":"x"}]}', 400, "model"),
        ("/nothing", b"{}", 404, None),
    ],
)
async def test_nonsense_is_refused_in_the_provider_s_shape(
    world: World, path: str, content: bytes, status: int, param: str | None
):
    _, client = await world.pair()
    with pytest.raises(openai.APIStatusError) as caught:
        await client.post(path, cast_to=object, content=content)
    assert caught.value.status_code == status
    assert caught.value.param == param
    assert caught.value.body is not None
    assert "message" in dict(caught.value.body)  # type: ignore[call-overload]


async def test_a_wrong_method_is_refused_in_the_provider_s_shape(world: World):
    _, client = await world.pair()
    with pytest.raises(openai.APIStatusError) as caught:
        await client.get("/chat/completions", cast_to=object)
    assert caught.value.status_code == 405


async def test_latency_passes_on_the_simulator_s_clock(world: World):
    simulator, client = await world.pair(latency=timedelta(seconds=30))
    call = asyncio.create_task(client.chat.completions.create(**says("x")))
    while not simulator.clock._sleepers:
        await asyncio.sleep(0.001)
    assert not call.done()
    await simulator.advance(timedelta(seconds=30))
    assert (await call).choices[0].message.content == "You said: x"


async def test_on_the_machine_s_clock_latency_takes_time(world: World):
    _, client = await world.pair(clock=SystemClock(), latency=timedelta(milliseconds=20))
    before = asyncio.get_running_loop().time()
    await client.chat.completions.create(**says("x"))
    assert asyncio.get_running_loop().time() - before >= 0.02


async def test_an_upstream_answers_instead(world: World):
    behind = await world.simulator(key="secret", models=["m"])
    behind.when("hello").reply("from behind the hills")
    simulator, client = await world.pair(upstream=behind.base_url, upstream_key="secret")
    whole = await client.chat.completions.create(**says("hello"))
    assert whole.choices[0].message.content == "from behind the hills"
    stream = await client.chat.completions.create(**says("hello"), stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "from behind the hills"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(**says("hello") | {"model": "other"})
    assert caught.value.code == "model_not_found"
    assert [entry.status for entry in behind.ledger.lines()] == [200, 200, 404]
    told = [(entry.status, entry.tokens_in, entry.tokens_out) for entry in simulator.ledger.lines()]
    assert told == [(entry.status, entry.tokens_in, entry.tokens_out) for entry in behind.ledger.lines()]


async def test_an_upstream_that_is_not_there_is_a_bad_gateway(world: World):
    behind = await world.simulator()
    await world.close(behind)
    _, client = await world.pair(upstream=behind.base_url)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**says("x"), stream=stream)
        assert caught.value.status_code == 502


def test_what_a_fake_model_takes_is_a_reply_too():
    (call,) = [Scene("x").reply(ToolUse("search", query="y")).next()]
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("search", {"query": "y"})
    calls = Scene("x").reply([ToolUse("a"), ToolUse("b")]).next()
    assert isinstance(calls, ToolCalls)
    assert [each.name for each in calls.calls] == ["a", "b"]


def test_what_no_reply_can_be_is_refused_at_once():
    with pytest.raises(TypeError, match="give a text, a JSON value, a ToolCall"):
        Scene("x").reply(object())  # type: ignore[arg-type]  # that is the point
