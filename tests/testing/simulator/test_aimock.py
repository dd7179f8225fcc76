"""Beside an independent server: `aimock` plays OpenAI and Anthropic as its authors read them.

The same requests go to both. What aimock sends, the simulator sends too, in the same order and of the same types; what
it sends beyond that, and where the two disagree, is listed here by case. There the provider's SDK and documentation
decide, and the comment says how.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from segue.testing.simulator import Failure, Simulator, ToolCall, VirtualClock

AIMOCK = Path(sys.prefix) / "aimock" / "node_modules" / "@copilotkit" / "aimock"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="aimock is a program for Node.js"),
    pytest.mark.skipif(not AIMOCK.exists(), reason="`make test` installs aimock where there is npm"),
]

HELLO = "Hello there, how are you?"
SCRIPT = [
    {"match": {"userMessage": "hello"}, "response": {"content": HELLO}},
    {"match": {"userMessage": "look"}, "response": {"toolCalls": [{"name": "look", "arguments": '{"at":"sea"}'}]}},
    {
        "match": {"userMessage": "busy"},
        "response": {"error": {"message": "Too many", "type": "rate_limit_error"}, "status": 429},
    },
]  # fmt: skip
LOOK: dict[str, Any] = {"type": "object", "properties": {"at": {"type": "string"}}}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


def chat(text: str, **more: Any) -> tuple[str, Any]:
    if text == "look":
        more["tools"] = [{"type": "function", "function": {"name": "look", "parameters": LOOK}}]
    return CHAT, {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def message(text: str, **more: Any) -> tuple[str, Any]:
    if text == "look":
        more["tools"] = [{"name": "look", "input_schema": LOOK}]
    said = [{"role": "user", "content": text}]
    return MESSAGES, {"model": "claude-sonnet-4-5", "max_tokens": 99, "messages": said, **more}


def response(text: str, **more: Any) -> tuple[str, Any]:
    return RESPONSES, {"model": "gpt-4o", "input": text, **more}


USAGE = {"include_usage": True}
CASES: dict[str, tuple[str, Any]] = {
    "chat": chat("hello"),
    "chat, tool": chat("look"),
    "chat, streamed": chat("hello", stream=True, stream_options=USAGE),
    "chat, tool, streamed": chat("look", stream=True),
    "chat, refused": chat("busy"),
    "chat, no JSON": (CHAT, "{"),
    "message": message("hello"),
    "message, tool": message("look"),
    "message, streamed": message("hello", stream=True),
    "message, tool, streamed": message("look", stream=True),
    "message, refused": message("busy"),
    "response": response("hello"),
    "response, streamed": response("hello", stream=True),
    "embedding": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "hello"}),
}
#: Of a completion: optional in the SDK, and sent by OpenAI.
COMPLETION = {"system_fingerprint", "cached_tokens", "reasoning_tokens"}
#: Anthropic's SDK requires the counts of the cache in no answer, but has them in all; documented.
CACHE = {"cache_creation_input_tokens", "cache_read_input_tokens"}
MESSAGE = CACHE | {"ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens", "service_tier"}
#: Required fields of the SDK's `Response`, but for `background`, `completed_at`, `store` and what is in usage.
RESPONSE = {
    *("background", "completed_at", "error", "incomplete_details", "instructions", "max_output_tokens"),
    *("metadata", "logprobs", "parallel_tool_calls", "previous_response_id", "effort", "summary", "store"),
    *("temperature", "type", "tool_choice", "tools", "top_p", "truncation"),
    *("cache_write_tokens", "cached_tokens", "reasoning_tokens"),
}
MORE: dict[str, set[str]] = {
    "chat": COMPLETION,
    "chat, tool": COMPLETION,
    "chat, streamed": COMPLETION | {"usage"},  # null in all chunks but the last; documented
    "chat, tool, streamed": {"system_fingerprint"},
    "message": MESSAGE,
    "message, tool": MESSAGE,
    "message, streamed": MESSAGE | {"input_tokens"},  # of `message_delta`, cumulative; documented
    "message, tool, streamed": MESSAGE | {"input_tokens"},
    "message, refused": {"request_id"},  # documented
    "response": RESPONSE,
    "response, streamed": RESPONSE | {"sequence_number", "usage"},  # required of each event; null at first
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    script = tmp_path_factory.mktemp("aimock") / "script.json"
    script.write_text(json.dumps({"fixtures": SCRIPT}))
    command = ["node", str(AIMOCK / "dist" / "cli.js"), "--port", "0", "--fixtures", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            said = next(line for line in server.stdout if "listening on " in line)
            yield said.partition("listening on ")[2].strip()
        finally:
            server.kill()


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(clock=VirtualClock(), batch_time=timedelta(hours=1)) as sim:
        sim.when("hello").reply(HELLO)
        sim.when("look").reply(ToolCall("look", {"at": "sea"}))
        sim.when("busy").reply(Failure(429, "Too many"))
        yield sim


Shape = dict[str, str]


def shape(value: Any, at: str = "") -> Shape:
    """The fields of a value by their paths, and their types; of a list, those of all its items."""
    match value:
        case dict() if value:
            return {
                path: kind for key, each in value.items() for path, kind in shape(each, f"{at}.{key}").items()
            }
        case list() if value:
            return {path: kind for each in value for path, kind in shape(each, f"{at}[]").items()}
        case None | dict() | list():
            return {at: "nothing"}
    return {at: type(value).__name__}


class Heard:
    """An answer: its status, its fields, and where it was streamed the kinds of its events."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.status = answer.status_code
        self.media = answer.headers["content-type"].partition(";")[0]
        self.kinds: list[str] = []
        self.fields: Shape = {}
        if self.media == "text/event-stream":
            for event in answer.text.replace("\r\n", "\n").strip().split("\n\n"):
                self._event(event)
        else:
            self.fields = shape(answer.json())

    def _event(self, text: str) -> None:
        lines = dict(line.split(": ", 1) for line in text.split("\n"))
        if lines["data"] == "[DONE]":
            self.kinds.append("done")
            return
        event = json.loads(lines["data"])
        kind = lines.get("event") or self._chunk(event)
        if kind != "ping" and kind not in self.kinds[-1:]:  # how often a text is cut is nobody's business
            self.kinds.append(kind)
        if kind != "ping":  # Anthropic says that there may be any number of them
            told = {f"{kind}{path}": what for path, what in shape(event).items()}
            self.fields |= {
                path: what for path, what in told.items() if self.fields.get(path, "nothing") == "nothing"
            }

    def _chunk(self, chunk: dict[str, Any]) -> str:
        if not chunk["choices"]:
            return "usage"
        [choice] = chunk["choices"]
        return "+".join(sorted(choice["delta"])) or str(choice["finish_reason"])


async def ask(url: str, path: str, body: Any) -> Heard:
    headers = {"Authorization": "Bearer k", "x-api-key": "k", "anthropic-version": "2023-06-01"}
    content = body if isinstance(body, str) else json.dumps(body)
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            url + path, content=content, headers=headers | {"content-type": "application/json"}
        )
        return Heard(answer)


def name(path: str) -> str:
    return path.removesuffix("[]").rpartition(".")[2]


def compare(ours: Shape, theirs: Shape, more: set[str], but: dict[str, str] | None = None) -> None:
    """All that they send we send, of the same type; what we send beyond it is known."""
    but = but or {}
    wrong = {
        path: (ours.get(path, "missing"), kind)
        for path, kind in theirs.items()
        if path not in but
        and (path not in ours or (ours[path] != kind and "nothing" not in (ours[path], kind)))
    }
    assert wrong == {}
    assert {name(path) for path in ours.keys() - theirs.keys()} == more


@pytest.mark.parametrize("case", CASES)
async def test_live_calls(case: str, url: str, sim: Simulator):
    ours, theirs = await ask(sim.url, *CASES[case]), await ask(url, *CASES[case])
    if case == "chat, no JSON":  # the texts are each one's own, the form is OpenAI's
        assert ours.fields == theirs.fields
    assert (ours.status, ours.media, ours.kinds) == (theirs.status, theirs.media, theirs.kinds)
    compare(ours.fields, theirs.fields, MORE.get(case, set()))


async def test_where_they_disagree_about_requests(url: str, sim: Simulator):
    # OpenAI names the parameter that is missing.
    nothing = {"model": "gpt-4o"}
    ours, theirs = await ask(sim.url, CHAT, nothing), await ask(url, CHAT, nothing)
    assert (ours.status, theirs.status) == (400, 400)
    assert {path for path, kind in ours.fields.items() if theirs.fields[path] != kind} == {
        ".error.param",
        ".error.code",
    }
    # Anthropic's SDK has `max_tokens` as required; the API answers `max_tokens: Field required`.
    nothing = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    ours, theirs = await ask(sim.url, MESSAGES, nothing), await ask(url, MESSAGES, nothing)
    assert (ours.status, theirs.status) == (400, 200)
    # An error of Anthropic's is of the type `error`, whatever is wrong.
    ours, theirs = await ask(sim.url, MESSAGES, "{"), await ask(url, MESSAGES, "{")
    assert (ours.status, theirs.status) == (400, 400)
    assert ours.fields.keys() - theirs.fields.keys() == {".type", ".request_id"}


# Batches.

LINES = b"".join(
    json.dumps({"custom_id": each, "method": "POST", "url": CHAT, "body": chat("hello")[1]}).encode() + b"\n"
    for each in "abc"
)
#: The SDK has all of them as optional; OpenAI sends those that are null too.
BATCH = {
    *("cancelled_at", "cancelling_at", "completed_at", "error_file_id", "errors", "expired_at", "expires_at"),
    *(
        "failed_at",
        "finalizing_at",
        "in_progress_at",
        "model",
        "output_file_id",
        "input_tokens",
        "output_tokens",
    ),
    *("cached_tokens", "reasoning_tokens", "total_tokens"),
}


class Life:
    """A batch from its file to its end, by OpenAI's SDK."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self.client = client
        self.statuses: list[str] = []
        self.shapes: dict[str, Shape] = {}
        self.lines: dict[str, list[Any]] = {"output": [], "error": []}
        self.ids: set[str] = set()

    async def begin(self, outcome: str = "") -> None:
        file = await self.client.files.create(file=("in.jsonl", LINES), purpose="batch")
        self.shapes["file"] = shape(file.to_dict(mode="json"))
        headers = {"X-AIMock-Batch-Outcome": outcome} if outcome else None
        self.batch = await self.client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"a": "b"},
            extra_headers=headers,
        )
        self._see()

    async def look(self) -> None:
        self.batch = await self.client.batches.retrieve(self.batch.id)
        self._see()

    async def cancel(self) -> None:
        self.batch = await self.client.batches.cancel(self.batch.id)
        self._see()

    def _see(self) -> None:
        if self.batch.status not in self.statuses:
            self.statuses.append(self.batch.status)
            self.shapes[self.batch.status] = shape(self.batch.to_dict(mode="json"))

    async def end(self, step: Callable[[], Awaitable[None]]) -> None:
        while self.batch.status not in ("completed", "failed", "expired", "cancelled"):
            await step()
            await self.look()
        for what, file in (("output", self.batch.output_file_id), ("error", self.batch.error_file_id)):
            if file:
                content = (await self.client.files.content(file)).text
                self.lines[what] = [json.loads(line) for line in content.splitlines()]
        page = await self.client.batches.list(limit=1)
        self.shapes["page"] = shape(
            {key: value for key, value in page.to_dict(mode="json").items() if key != "data"}
        )


@pytest.fixture
async def lives(url: str, sim: Simulator) -> AsyncIterator[tuple[Life, Life]]:
    clients = [AsyncOpenAI(base_url=each, api_key="k", max_retries=0) for each in (sim.base_url, f"{url}/v1")]
    yield Life(clients[0]), Life(clients[1])
    for client in clients:
        await client.close()


async def at_once() -> None:
    """Each look at a batch is a step there."""


@pytest.mark.parametrize("outcome", ["completed", "failed", "expired", "cancelled"])
async def test_batches(outcome: str, lives: tuple[Life, Life], sim: Simulator):
    ours, theirs = lives
    if outcome == "expired":
        sim.faults.expire_batch(done=0)
    if outcome == "failed":
        sim.faults.fail_batch("mock_failure")
    await ours.begin()
    await theirs.begin(outcome if outcome in ("failed", "expired") else "")
    if outcome == "cancelled":
        for life in lives:
            await sim.advance(timedelta(minutes=10) if life is ours else timedelta(0))
            await life.look()
            await life.cancel()

    async def step() -> None:
        await sim.advance(timedelta(minutes=20))

    await ours.end(step)
    await theirs.end(at_once)
    if outcome == "failed":  # "the input file has failed the validation process": it never was in progress
        theirs.statuses.remove("in_progress")
        assert theirs.batch.error_file_id is not None  # nor has it a file
        assert ours.batch.error_file_id is None
    assert ours.statuses == theirs.statuses
    assert ours.statuses[-1] == outcome
    for each in ours.shapes.keys() & theirs.shapes.keys():
        failed = {".error_file_id": "", ".in_progress_at": ""} if each == "failed" else None
        unknown = {name(path) for path in ours.shapes[each].keys() - theirs.shapes[each].keys()}
        assert unknown <= (BATCH if each in ours.statuses else set())
        compare(ours.shapes[each], theirs.shapes[each], unknown, failed)
    if outcome == "completed":
        assert ours.batch.request_counts == theirs.batch.request_counts
        more = {"logprobs", "refusal", *COMPLETION}  # required of a choice and of a message, in the SDK
        compare(shape(ours.lines["output"]), shape(theirs.lines["output"]), more)
        assert [line["custom_id"] for line in theirs.lines["output"]] == ["a", "b", "c"]
        assert sorted(line["custom_id"] for line in ours.lines["output"]) == ["a", "b", "c"]  # in any order
    if outcome in ("expired", "cancelled"):  # "any unfinished requests are in the error file"; documented
        codes = {line["error"]["code"] for line in ours.lines["error"]}
        assert codes == {f"batch_{outcome}"}
        assert theirs.lines == {"output": [], "error": []}


REFUSED: dict[str, Callable[[AsyncOpenAI], Awaitable[Any]]] = {
    "no such batch": lambda client: client.batches.retrieve("batch_x"),
    "no such batch to cancel": lambda client: client.batches.cancel("batch_x"),
    "no such file": lambda client: client.files.retrieve("file-x"),
    "no such file to read": lambda client: client.files.content("file-x"),
    "no such purpose": lambda client: client.files.create(file=("a", b"x"), purpose="nonsense"),  # type: ignore[arg-type]
    "too long a page": lambda client: client.batches.list(limit=1000),
    "no such endpoint": lambda client: client.batches.create(
        input_file_id="file-x",
        endpoint="/v1/nothing",  # type: ignore[arg-type]
        completion_window="24h",
    ),
    "no such window": lambda client: client.batches.create(
        input_file_id="file-x",
        endpoint="/v1/chat/completions",
        completion_window="48",  # type: ignore[arg-type]
    ),
    "no file": lambda client: client.batches.create(
        input_file_id="", endpoint="/v1/chat/completions", completion_window="24h"
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_refused(what: str, lives: tuple[Life, Life]):
    told = []
    for life in lives:
        with pytest.raises(openai.APIStatusError) as caught:
            await REFUSED[what](life.client)
        told.append((caught.value.status_code, caught.value.type))
    assert told[0] == told[1]


async def test_a_file_that_isnt_there_is_found_out_late_by_both(lives: tuple[Life, Life]):
    for life in lives:
        batch = await life.client.batches.create(
            input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert batch.status == "validating"


async def test_a_batch_that_is_over_cant_be_cancelled(lives: tuple[Life, Life], sim: Simulator):
    statuses = []
    for life in lives:
        await life.begin()
        await life.end(sim.finish if life is lives[0] else at_once)
        with pytest.raises(openai.APIStatusError) as caught:
            await life.client.batches.cancel(life.batch.id)
        statuses.append(caught.value.status_code)
    assert statuses == [409, 400]  # people report 409
