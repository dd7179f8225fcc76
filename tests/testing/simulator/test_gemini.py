"""Gemini's dialect, as its own SDK hears it."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from google import genai
from google.genai import errors, types

from segue.testing.simulator import Failure, Limits, Said, Simulator, ToolCall
from tests.testing.simulator.world import World

HOUR = timedelta(hours=1)
LOOK = types.FunctionDeclaration(
    name="look",
    description="Looks.",
    parameters_json_schema={"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
)


class Client:
    """The SDK's client, that closes."""

    def __init__(self, simulator: Simulator, key: str) -> None:
        self._http = httpx2.AsyncClient()
        options = types.HttpOptions(
            base_url=simulator.url,
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_async_client=self._http,
        )
        self.whole = genai.Client(api_key=key, http_options=options)
        self.models, self.files, self.batches = (
            self.whole.aio.models,
            self.whole.aio.files,
            self.whole.aio.batches,
        )

    async def close(self) -> None:
        await self.whole.aio.aclose()
        self.whole.close()
        await self._http.aclose()


def client_of(world: World, simulator: Simulator, key: str = "any") -> Client:
    client = Client(simulator, key)
    world._open.append(client)
    return client


async def pair(world: World, **options: Any) -> tuple[Simulator, Client]:
    simulator = await world.simulator(**options)
    return simulator, client_of(world, simulator)


def config(**more: Any) -> types.GenerateContentConfig:
    manual = types.AutomaticFunctionCallingConfig(disable=True)
    return types.GenerateContentConfig(automatic_function_calling=manual, **more)


def tools(**more: Any) -> types.GenerateContentConfig:
    return config(tools=[types.Tool(function_declarations=[LOOK])], **more)


def line(key: str, text: str = "") -> dict[str, Any]:
    return {"key": key, "request": {"contents": [{"parts": [{"text": text or key}]}]}}


async def upload(client: Client, *rows: Any) -> str:
    content = b"".join(
        (each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in rows
    )
    about = types.UploadFileConfig(display_name="in", mime_type="application/jsonl")
    file = await client.files.upload(file=io.BytesIO(content), config=about)
    assert file.name is not None
    return file.name


async def submit(client: Client, *rows: Any, name: str = "n") -> str:
    file = await upload(client, *rows)
    about = types.CreateBatchJobConfig(display_name=name)
    job = await client.batches.create(model="gemini-2.5-flash", src=file, config=about)
    assert job.name is not None
    return job.name


async def state(client: Client, job: str) -> str:
    found = (await client.batches.get(name=job)).state
    assert found is not None
    return found.name


async def results(client: Client, job: str) -> dict[str, Any]:
    dest = (await client.batches.get(name=job)).dest
    assert dest is not None
    assert dest.file_name is not None
    content = await client.files.download(file=dest.file_name)
    rows = [json.loads(each) for each in content.splitlines()]
    return {each["key"]: each for each in rows}


# ---------------------------------------------------------------- live
async def test_content(world: World):
    simulator, client = await pair(world)
    brief = config(system_instruction="Be brief.")
    said = await client.models.generate_content(model="gemini-2.5-flash", contents="hello", config=brief)
    assert (said.text, said.candidates[0].finish_reason.name) == ("You said: hello", "STOP")
    [entry] = simulator.ledger.lines()
    assert (entry.endpoint, entry.model) == (
        "/v1/models/gemini-2.5-flash:generateContent",
        "gemini-2.5-flash",
    )
    usage = said.usage_metadata
    assert (entry.tokens_in, entry.tokens_out) == (usage.prompt_token_count, usage.candidates_token_count)
    assert said.model_version == "gemini-2.5-flash"


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3-pro"])
@pytest.mark.parametrize(
    "reply",
    [
        "a b c",
        Said(
            "",
            ToolCall("look", {"at": "sea"}, id="c1"),
            ToolCall("look", {"at": "x"}, id="c2"),
            thinking="hm, well",
        ),
        Said("I look.", ToolCall("look", {"at": "the north " * 9}, id="c1")),
        Said("as far as", stop="length"),
        Said("", stop="content_filter"),
    ],
)
async def test_a_stream_adds_up_to_the_answer(world: World, reply: Any, model: str):
    simulator, client = await pair(world)
    simulator.when("hello").reply(reply)
    asked = tools(thinking_config=types.ThinkingConfig(include_thoughts=True))
    whole = await client.models.generate_content(model=model, contents="hello", config=asked)
    chunks = [
        chunk
        async for chunk in await client.models.generate_content_stream(
            model=model, contents="hello", config=asked
        )
    ]

    def said(*answers: Any) -> tuple[str, str, list[Any]]:
        parts = [
            part for each in answers for part in (each.candidates[0].content or types.Content()).parts or []
        ]
        text = "".join(part.text for part in parts if part.text and not part.thought)
        thoughts = "".join(part.text for part in parts if part.text and part.thought)
        calls = [(part.function_call, part.thought_signature) for part in parts if part.function_call]
        return text, thoughts, calls

    assert said(*chunks) == said(whole)
    assert chunks[-1].candidates[0].finish_reason == whole.candidates[0].finish_reason
    assert chunks[-1].usage_metadata.prompt_token_count == whole.usage_metadata.prompt_token_count
    first, second = simulator.ledger.lines()
    assert (first.tokens_in, first.tokens_out) == (second.tokens_in, second.tokens_out)


async def test_tools_there_and_back(world: World):
    simulator, client = await pair(world)
    simulator.when("It is blue").reply("Blue, then.")
    simulator.when("hello").reply(ToolCall("look", {"at": "sky"}))
    for model in ("gemini-2.5-flash", "gemini-3-pro"):
        first = await client.models.generate_content(model=model, contents="hello", config=tools())
        [call] = first.function_calls
        assert (call.name, call.args) == ("look", {"at": "sky"})
        answer = types.Part.from_function_response(name="look", response={"result": "It is blue"})
        answer.function_response.id = call.id
        history = [types.UserContent("hello"), first.candidates[0].content]
        said = await client.models.generate_content(
            model=model, contents=[*history, types.UserContent([answer])], config=tools()
        )
        assert said.text == "Blue, then."
        with pytest.raises(errors.ClientError, match="number of function response parts"):
            await client.models.generate_content(model=model, contents=[*history, "well?"], config=tools())
    history[1].parts[0].thought_signature = None
    with pytest.raises(errors.ClientError, match="missing a `thought_signature`"):
        await client.models.generate_content(
            model="gemini-3-pro", contents=[*history, types.UserContent([answer])], config=tools()
        )


async def test_an_answer_in_a_form(world: World):
    _, client = await pair(world)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"response_mime_type": "application/json", "response_json_schema": schema}
    said = await client.models.generate_content(model="gemini-2.5-flash", contents="x", config=config(**form))
    assert json.loads(said.text) == {"n": 0}
    with pytest.raises(errors.ClientError, match="is unsupported"):
        await client.models.generate_content(model="gemini-2.5-flash", contents="x", config=tools(**form))
    await client.models.generate_content(model="gemini-3-pro", contents="x", config=tools(**form))
    calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
    forced = tools(tool_config=types.ToolConfig(function_calling_config=calling))
    said = await client.models.generate_content(model="gemini-2.5-flash", contents="x", config=forced)
    assert said.function_calls[0].name == "look"


async def test_bad_requests(world: World):
    simulator = await world.simulator()
    url = f"{simulator.url}/v1beta/models/m:generateContent"
    parts = [{"role": "user", "parts": [{"text": "x"}]}]
    for body, told in (
        ({"contents": []}, "contents is not specified"),
        ({"messages": []}, 'Unknown name "messages"'),
        ({"contents": parts, "generation_config": {"max_tokens": 1}}, 'Unknown name "maxTokens"'),
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [{"role": "user", "parts": []}]}, "must not be empty"),
    ):
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
            assert told in error["message"]
    assert simulator.ledger.counts()["paid"] == 0


async def test_errors(world: World):
    simulator = await world.simulator(key="right")
    client = client_of(world, simulator, "right")
    for status, name, error in (
        (429, "RESOURCE_EXHAUSTED", errors.ClientError),
        (503, "UNAVAILABLE", errors.ServerError),
        (500, "INTERNAL", errors.ServerError),
    ):
        simulator.faults.fail(status=status, retry_after=timedelta(seconds=7), on="generateContent")
        with pytest.raises(error) as caught:
            await client.models.generate_content(model="m", contents="x")
        assert (caught.value.code, caught.value.status) == (status, name)
        assert caught.value.details["error"]["details"][0]["retryDelay"] == "7s"
    wrong = client_of(world, simulator, "wrong")
    with pytest.raises(errors.ClientError) as refused:
        await wrong.models.generate_content(model="m", contents="x")
    assert refused.value.code == 401
    assert [entry.status for entry in simulator.ledger.lines()] == [429, 503, 500]


async def test_a_stream_that_is_cut(world: World):
    simulator, client = await pair(world)
    simulator.faults.cut_stream_after(2)
    heard = [
        chunk.text async for chunk in await client.models.generate_content_stream(model="m", contents="a b")
    ]
    assert heard == ["You ", "said: "]
    assert simulator.ledger.counts()["paid"] == 1


async def test_embeddings(world: World):
    simulator, client = await pair(world)
    about = types.EmbedContentConfig(output_dimensionality=8)
    made = await client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config=about)
    assert [len(each.values) for each in made.embeddings] == [8, 8]
    assert simulator.ledger.counts()["paid"] == 1


# ---------------------------------------------------------------- files and batches
async def test_files(world: World):
    _, client = await pair(world)
    name = await upload(client, line("a"))
    file = await client.files.get(name=name)
    assert (file.display_name, file.state.name, file.mime_type) == ("in", "ACTIVE", "application/jsonl")
    assert [each.name async for each in await client.files.list()] == [name]
    await client.files.delete(name=name)
    with pytest.raises(errors.ClientError):
        await client.files.get(name=name)


async def test_a_batch_from_a_file(world: World):
    simulator, client = await pair(world, batch_time=HOUR)
    simulator.when("rude").reply(Failure(400, "too rude"))
    job = await submit(client, line("a"), line("b", "rude"), line("c"), name="label")
    assert await state(client, job) == "JOB_STATE_PENDING"
    await simulator.advance(HOUR / 2)
    assert await state(client, job) == "JOB_STATE_RUNNING"
    await simulator.advance(HOUR)
    found = await client.batches.get(name=job)
    assert (found.state.name, found.display_name, found.model) == (
        "JOB_STATE_SUCCEEDED",
        "label",
        "models/gemini-2.5-flash",
    )
    said = await results(client, job)
    assert said["a"]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "You said: a"
    assert said["b"]["error"] == {"code": 400, "message": "too rude", "status": "INVALID_ARGUMENT"}
    assert simulator.ledger.counts()["batch_paid"] == 2
    assert {entry.model for entry in simulator.ledger.lines("batch")} == {"gemini-2.5-flash"}
    await client.batches.delete(name=job)
    with pytest.raises(errors.ClientError):
        await client.batches.get(name=job)


async def test_a_batch_whose_requests_are_inline(world: World):
    simulator, client = await pair(world)
    simulator.when("rude").reply(Failure(429))
    inline = [types.InlinedRequest(contents=text, metadata={"key": text}) for text in ("a", "rude", "c")]
    about = types.CreateBatchJobConfig(display_name="n")
    job = await client.batches.create(model="gemini-2.5-flash", src=inline, config=about)
    await simulator.finish()
    found = await client.batches.get(name=job.name)
    said = found.dest.inlined_responses
    assert [each.response.text if each.response else each.error.code for each in said] == [
        "You said: a",
        429,
        "You said: c",
    ]
    assert [each.metadata["key"] for each in said] == ["a", "rude", "c"]


async def test_batches_that_fail(world: World):
    simulator, client = await pair(world, limits=Limits(lines=3))
    good = line("a")
    simulator.faults.fail_batch("INTERNAL", "told to")
    for rows, told in (
        ([good], "told to"),
        ([good, good], "the key 'a' of another line"),
        ([good, b"{"], "Line 2 of the input file is no request"),
        ([line(f"{n}") for n in range(4)], "more than 3"),
    ):
        job = await submit(client, *rows)
        await simulator.finish()
        assert await state(client, job) == "JOB_STATE_FAILED"
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{simulator.url}/v1beta/{job}") as response,
        ):
            assert told in (await response.json())["error"]["message"]
    assert simulator.ledger.counts()["paid"] == 0
    with pytest.raises(errors.ClientError, match="not found"):
        await client.batches.create(
            model="m", src="files/none", config=types.CreateBatchJobConfig(display_name="n")
        )


async def test_too_many_tokens(world: World):
    _, client = await pair(world, limits=Limits(enqueued_tokens=10))
    with pytest.raises(errors.ClientError) as caught:
        await submit(client, line("a" * 100))
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")


async def test_expired_and_cancelled_batches_have_nothing_to_show(world: World):
    simulator, client = await pair(world, batch_time=60 * HOUR)
    job = await submit(client, *(line(f"l{n}") for n in range(8)))
    await simulator.advance(48 * HOUR)
    found = await client.batches.get(name=job)
    assert (found.state.name, found.dest) == ("JOB_STATE_EXPIRED", None)
    job = await submit(client, *(line(f"l{n}") for n in range(8)))
    await simulator.advance(30 * HOUR)
    await client.batches.cancel(name=job)
    await simulator.finish()
    found = await client.batches.get(name=job)
    assert (found.state.name, found.dest) == ("JOB_STATE_CANCELLED", None)


async def test_pages_of_batches(world: World):
    _, client = await pair(world)
    made = [await submit(client, line("a"), name=f"n{n}") for n in range(5)]
    listed = await client.batches.list(config=types.ListBatchJobsConfig(page_size=2))
    assert [job.name async for job in listed] == made[::-1]


async def test_faults_of_batches(world: World):
    simulator, client = await pair(world)
    rows = [line("a"), line("b"), line("c")]
    simulator.faults.drop_line("a")
    simulator.faults.wrong_id("b")
    job = await submit(client, *rows)
    await simulator.finish()
    assert set(await results(client, job)) == {"unknown-1-1", "c"}
    simulator.faults.no_output_file()
    job = await submit(client, *rows)
    await simulator.finish()
    found = await client.batches.get(name=job)
    assert (found.state.name, found.dest) == ("JOB_STATE_SUCCEEDED", None)
    simulator.faults.empty_error_file_id()
    job = await submit(client, *rows)
    await simulator.finish()
    assert (await client.batches.get(name=job)).dest.file_name == ""
    simulator.faults.stall_batch()
    job = await submit(client, *rows)
    await simulator.advance(47 * HOUR)
    assert await state(client, job) == "JOB_STATE_RUNNING"
    await simulator.advance(HOUR)
    assert await state(client, job) == "JOB_STATE_EXPIRED"


async def test_all_on_one_port(world: World):
    """Files and batches of OpenAI and of Gemini are under the same paths; nobody sees another's."""
    simulator, client = await pair(world)
    openai = world.client(simulator)
    job = await submit(client, line("a"))
    theirs = await openai.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    other = await openai.batches.create(
        input_file_id=theirs.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert [each.id async for each in openai.files.list()] == [theirs.id]
    assert [each.id async for each in openai.batches.list()] == [other.id]
    assert [each.name async for each in await client.batches.list()] == [job]
    assert len([each async for each in await client.files.list()]) == 1
    with pytest.raises(errors.ClientError):
        await client.batches.get(name=f"batches/{other.id}")


async def test_a_restart(world: World, tmp_path: Path):
    simulator, client = await pair(world, directory=tmp_path)
    job = await submit(client, *(line(f"l{n}") for n in range(10)))
    await simulator.advance(HOUR / 2)
    moment = simulator.clock.now()
    await world.close(client, simulator)
    simulator, client = await pair(world, directory=tmp_path)
    await simulator.advance(timedelta(seconds=moment - simulator.clock.now()))
    await simulator.finish()
    assert len(await results(client, job)) == 10
    assert simulator.ledger.counts()["batch_paid"] == 10
    assert simulator.ledger.counts()["paid_twice"] == 0


async def test_a_real_model_behind_it(world: World):
    upstream = await world.simulator()
    _, client = await pair(world, upstream=upstream.base_url)
    upstream.when("hello").reply(ToolCall("look", {"at": "sea"}))
    said = await client.models.generate_content(model="m", contents="hello", config=tools())
    assert said.function_calls[0].args == {"at": "sea"}
    assert [entry.endpoint for entry in upstream.ledger.lines()] == ["/v1/chat/completions"]
