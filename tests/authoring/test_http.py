"""`segue.http_client`: what is recorded, what is refused, what never reaches a journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import segue
from segue.model.entry import Entry
from segue.model.errors import NotInRun, ReplayMismatch, WrongPlace
from segue.runtime.proof.verify import replay
from segue.runtime.wake.rebase import entries_of
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.simulator import Failure, Simulator
from tests.runtime.lives import Desk

KEY = "sk-very-secret-0123456789"
CLIENT: httpx2.AsyncClient
SIM: Simulator


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global CLIENT, SIM
    async with Simulator(batch_time=timedelta(milliseconds=20), key=KEY) as SIM:
        headers = {"Authorization": f"Bearer {KEY}", "x-trace": "secret-too"}
        async with segue.http_client(base_url=SIM.base_url, headers=headers) as CLIENT:
            yield SIM


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def say(text: str, **more: Any) -> str:
    reply = await CLIENT.post("/chat/completions", json=chat(text), **more)
    reply.raise_for_status()
    return str(reply.json()["choices"][0]["message"]["content"])


@segue.flow
async def http_says(text: str) -> str:
    return await say(text)


async def run(call: Any, mode: str = "live", **options: Any) -> tuple[Any, list[Entry]]:
    async with segue.Engine("memory:", mode=mode, verify=True, **options) as engine:
        started = await engine.start(call, id="r")
        async with asyncio.timeout(30):
            value = await started
        return value, await entries_of(engine.store, "r")


# ---------------------------------------------------------------- where it may be used
async def test_outside_a_run_it_raises():
    with pytest.raises(NotInRun, match=r"segue\.http_client\(\) was called outside a run"):
        await say("hi")
    assert len(SIM.ledger) == 0


async def test_outside_a_run_an_sdk_is_told_at_once():
    client = openai.AsyncOpenAI(base_url=SIM.base_url, api_key=KEY, http_client=segue.http_client())
    with pytest.raises(openai.BadRequestError, match="outside a run"):
        await client.models.list()


async def test_outside_a_run_it_is_a_plain_client_if_so_wanted():
    async with segue.http_client(outside="live", base_url=SIM.base_url) as client:
        reply = await client.get("/models", headers={"Authorization": f"Bearer {KEY}"})
    assert reply.status_code == 200


async def test_a_fake_model_says_what_to_do_instead():
    async with FakeModel() as model:
        with pytest.raises(WrongPlace, match="simulator"):
            await http_says("hi")
    assert model.calls == []


def sync_say(text: str) -> str:
    with segue.http_client(httpx2.Client, base_url=SIM.base_url) as client:
        reply = client.post("/chat/completions", json=chat(text), headers={"Authorization": f"Bearer {KEY}"})
    return str(reply.raise_for_status().json()["choices"][0]["message"]["content"])


@segue.step
def http_sync_step(text: str) -> str:
    assert threading.current_thread() is not threading.main_thread()
    return sync_say(text)


@segue.step
async def http_async_step(text: str) -> str:
    return await say(text)


@segue.flow
async def http_steps(text: str) -> list[str]:
    return [await http_sync_step(text), await http_async_step(text)]


async def test_in_a_step_a_client_just_sends():
    value, entries = await run(http_steps("hi"))
    assert value == ["You said: hi"] * 2
    assert [entry.kind for entry in entries] == ["step", "step"]


@segue.flow
async def http_step_refused(sync: bool) -> str:
    try:
        await (http_sync_step if sync else http_async_step)("hi")
    except WrongPlace as error:
        return str(error)
    return "sent"


@pytest.mark.parametrize("sync", [True, False])
async def test_in_a_step_of_a_batch_it_raises(sync: bool):
    value, _ = await run(http_step_refused(sync), "batch")
    assert "make 'http_" in value
    assert "a flow" in value
    assert len(SIM.ledger) == 0


@segue.flow
async def http_sync_in_a_flow(text: str) -> str:
    return sync_say(text)


async def test_a_sync_client_in_a_flow_raises():
    with pytest.raises(WrongPlace, match="async client"):
        await run(http_sync_in_a_flow("hi"))


def test_what_cant_be_recorded_is_refused_when_it_is_made():
    with pytest.raises(TypeError, match="mounts"):
        segue.http_client(mounts={})
    with pytest.raises(TypeError, match="httpx2 or httpx"):
        segue.http_client(dict)


async def test_the_older_library(monkeypatch: pytest.MonkeyPatch):
    httpx = pytest.importorskip("httpx")  # comes with langgraph

    @segue.flow(name="http_older")
    async def older(text: str) -> str:
        client = segue.http_client(httpx.AsyncClient, base_url=SIM.base_url)
        assert type(client) is httpx.AsyncClient
        reply = await client.post(
            "/chat/completions", json=chat(text), headers={"Authorization": f"Bearer {KEY}"}
        )
        return str(reply.json()["choices"][0]["message"]["content"])

    assert (await run(older("hi")))[0] == "You said: hi"


# ---------------------------------------------------------------- secrets
@segue.flow
async def http_with_secrets(text: str) -> str:
    await CLIENT.get(f"/models?limit=3&api_key={KEY}")
    return await say(text, params={"key": KEY})


async def test_no_secret_reaches_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "runs.db"
    async with segue.Engine(f"sqlite:{path}", verify=True) as engine:
        events = []
        started = await engine.start(http_with_secrets("hi"), id="r")
        async for event in started:
            events.append(repr(event))
        await started
        args = [json.loads(entry.args) for entry in await entries_of(engine.store, "r")]
    assert args[0]["url"].endswith("/v1/models?limit=3")
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for secret in (KEY, "secret-too"):
        assert secret.encode() not in stored
        assert secret not in "".join(events) + caplog.text


async def test_no_secret_is_in_an_error(sim: Simulator):
    sim.when("hi").reply(Failure(400, f"The key {KEY} may not do this."))

    @segue.flow(name="http_fails_with_secret")
    async def fails(text: str) -> str:
        return (await CLIENT.post("/chat/completions", json=chat(text))).text

    value, entries = await run(fails("hi"))
    assert KEY not in value
    assert KEY not in repr(entries)


# ---------------------------------------------------------------- keys in batch
async def test_in_batch_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_KEY_OF_MINE", KEY)
    async with segue.Engine("memory:", mode="batch", verify=True) as engine:
        assert await engine.run(http_says("hi")) == "You said: hi"
    assert len(SIM.batches()) == 1


async def test_a_replay_at_the_desk_wants_no_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", SIM.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with segue.Engine("memory:", mode="batch") as engine:
        assert await engine.run(http_says("hi"), id="r") == "You said: hi"
        monkeypatch.delenv("OPENAI_API_KEY")
        head, entries = await engine.head("r"), await entries_of(engine.store, "r")
        await replay(engine.worker, head, entries)


async def test_in_batch_another_key_than_the_environments_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", SIM.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    with pytest.raises(WrongPlace, match="OPENAI_API_KEY holds another key") as refused:
        await run(http_says("hi"), "batch")
    assert KEY not in str(refused.value)


async def test_in_batch_a_key_that_the_environment_doesnt_have_is_refused(monkeypatch: pytest.MonkeyPatch):
    @segue.flow(name="http_far")
    async def far(text: str) -> None:
        await CLIENT.post("https://models.example.com/v1/chat/completions", json=chat(text))

    with pytest.raises(WrongPlace, match=r"http_client\(key='VARIABLE'\)"):
        await run(far("hi"), "batch")


async def test_a_named_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NAMED", KEY)

    @segue.flow(name="http_named")
    async def named(text: str) -> str:
        client = segue.http_client(base_url=SIM.base_url, key="NAMED")
        reply = await client.post("/chat/completions", json=chat(text))
        return str(reply.json()["choices"][0]["message"]["content"])

    assert (await run(named("hi"), "batch"))[0] == "You said: hi"


# ---------------------------------------------------------------- what is the same call
@segue.flow
async def http_made_up(text: str) -> str:
    """Headers and ids that differ in every life."""
    made_up = os.urandom(16).hex()
    return await say(f"{text} {made_up}: {made_up}", headers={"x-stainless-retry-count": made_up})


async def test_made_up_ids_and_headers_are_no_difference():
    await run(http_made_up("hi"))
    await run(http_made_up("hi"), park="always")


async def test_an_idempotency_key_is_the_same_in_every_life(sim: Simulator):
    seen: list[str] = []

    @segue.flow(name="http_keyed")
    async def keyed(text: str) -> int:
        transport = httpx2.MockTransport(
            lambda request: seen.append(request.headers["Idempotency-Key"]) or _busy()
        )
        client = segue.http_client(base_url=SIM.base_url, transport=transport)
        reply = await client.post("/files", content=text, headers={"Idempotency-Key": os.urandom(8).hex()})
        return reply.status_code

    def _busy() -> httpx2.Response:
        if len(seen) < 3:
            return httpx2.Response(503, headers={"retry-after": "0"}, json={})
        return httpx2.Response(200, json={})

    assert (await run(keyed("hi")))[0] == 200
    assert len(seen) == 3
    assert len(set(seen)) == 1
    await run(keyed("hi"), park="always")
    assert len(set(seen)) == 2  # by that id in another store it is another run
    assert seen.count(seen[0]) == 3


async def test_an_idempotency_key_stays_where_changed_code_has_a_call_more_in_front():
    seen: list[str] = []
    changed = False

    async def answers(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["Idempotency-Key"])
        if len(seen) == 2:  # the second one is under way when the process dies
            await asyncio.Event().wait()
        return httpx2.Response(200, json={})

    @segue.flow(name="http_keyed_moved", version="1")
    async def keyed() -> None:
        if changed:
            await segue.sleep(timedelta(0))
        client = segue.http_client(base_url=SIM.base_url, transport=httpx2.MockTransport(answers))
        for _ in range(2):
            await client.post("/files", content="hi", headers={"Idempotency-Key": os.urandom(8).hex()})

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(keyed(), id="it")
        while len(seen) < 2:
            await asyncio.sleep(0.001)
    changed = True
    async with desk.engine() as engine:
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        await (await engine.get("it"))
    assert seen[2:] == [seen[1]]
    assert seen[0] != seen[1]


# ---------------------------------------------------------------- requests that ask no model
@segue.flow
async def http_other(text: str) -> list[Any]:
    listed = await CLIENT.get("/models")
    file = await CLIENT.post("/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", text.encode())})
    content = await CLIENT.get(f"/files/{file.json()['id']}/content")
    missing = await CLIENT.get("/files/nothing")
    return [listed.json()["object"], content.text, missing.status_code]


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_other_requests_are_recorded_whole(mode: str):
    value, entries = await run(http_other("{}"), mode, park="always")
    assert value == ["list", "{}", 404]
    assert [entry.name for entry in entries[:2]] == ["GET /v1/models", "POST /v1/files"]
    assert len(SIM.files.all("openai")) == 1  # uploaded once, in however many lives


@segue.flow
async def http_with_a_password(base_url: str) -> list[int]:
    client = segue.http_client(base_url=base_url.replace("://", "://ada:a%2Fword@"))
    asked, other = await client.post("/chat/completions", json=chat("hi")), await client.get("/models")
    return [asked.status_code, other.status_code]


async def test_a_url_with_a_password():
    async with Simulator() as sim:
        value, entries = await run(http_with_a_password(sim.base_url))
    assert value == [200, 200]
    assert all(b"word" not in entry.args for entry in entries)


# ---------------------------------------------------------------- streams
@segue.flow
async def http_streams(text: str) -> str:
    out = []
    async with CLIENT.stream("POST", "/chat/completions", json=chat(text, stream=True)) as reply:
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                said = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if said:
                    out.append(said)
                    await segue.emit({"read": said})
    return "".join(out)


class Slow:
    """A server whose answer comes a piece at a time, when it is let."""

    def __init__(self, pieces: list[str], *, breaks: bool = False) -> None:
        self.pieces, self.breaks = pieces, breaks
        self.gates = [asyncio.Event() for _ in pieces]
        self.calls = 0

    def client(self) -> httpx2.AsyncClient:
        return segue.http_client(base_url="http://slow/v1", transport=httpx2.MockTransport(self._answer))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self._frames())

    async def _frames(self) -> AsyncIterator[bytes]:
        for piece, gate in zip(self.pieces, self.gates, strict=True):
            await gate.wait()
            yield self._frame({"delta": {"content": piece}, "index": 0})
        if not self.breaks:
            yield self._frame({"delta": {}, "index": 0, "finish_reason": "stop"})
            yield b"data: [DONE]\n\n"

    def _frame(self, choice: dict[str, Any]) -> bytes:
        chunk = {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }
        return f"data: {json.dumps(chunk)}\n\n".encode()


async def test_the_code_reads_a_stream_as_it_comes_and_watchers_see_it():
    global CLIENT
    server = Slow(["one ", "two ", "three ", "four"])
    CLIENT = server.client()
    async with segue.Engine("memory:", verify=True) as engine:
        started = await engine.start(http_streams("hi"), id="r")
        texts, read = [], []

        async def watch() -> None:
            number = 0
            async for event in started:
                if isinstance(event, segue.Token):
                    texts.append(event.text)
                elif getattr(event, "value", None) and isinstance(event.value, dict):  # type: ignore[attr-defined]
                    read.append(event.value["read"])  # type: ignore[attr-defined]
                    number += 1
                    server.gates[min(number + 1, 3)].set()

        watching = asyncio.create_task(watch())
        server.gates[0].set()
        server.gates[1].set()
        async with asyncio.timeout(20):
            assert await started == "one two three four"
            await watching
    assert texts == ["one ", "two ", "three ", "four"]
    assert read == ["one ", "two ", "three ", "four"]  # each was read before the next but one was sent


async def test_a_stream_that_is_read_as_the_engine_closes_comes_in_and_is_paid_once():
    global CLIENT
    server, store = Slow(["one ", "two ", "three"]), MemoryStore()
    CLIENT = server.client()
    server.gates[0].set()
    server.gates[1].set()
    async with segue.Engine(store) as engine:
        started = await engine.start(http_streams("hi"), id="r")
        async for event in started:
            if getattr(event, "value", None) == {"read": "one "}:
                break
        asyncio.get_running_loop().call_later(0.1, server.gates[2].set)
    async with segue.Engine(store) as engine, asyncio.timeout(10):
        assert await (await engine.get("r")) == "one two three"
    assert server.calls == 1


@segue.step
async def http_late(text: str) -> str:
    await asyncio.sleep(0.05)
    return text


@pytest.mark.parametrize("acts", [False, True])
async def test_a_stream_that_is_read_until_a_timeout_takes_nothing_along(acts: bool):
    """A call beside it keeps its outcome; what the code began upon what it read isn't waited for in vain."""
    global CLIENT
    server = Slow(["one ", "two ", "three"])
    CLIENT = server.client()
    server.gates[0].set()
    server.gates[1].set()

    @segue.flow(name="http_timed")
    async def timed() -> list[str]:
        beside = asyncio.create_task(http_late("beside"))
        begun = []
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(0.3),
                CLIENT.stream("POST", "/chat/completions", json=chat("hi", stream=True)) as reply,
            ):
                async for line in reply.aiter_lines():
                    if acts and line.startswith("data: {"):
                        begun.append(asyncio.create_task(http_late("upon it")))
        return [await beside, *await asyncio.gather(*begun)]

    async with asyncio.timeout(10):
        value, entries = await run(timed())
    assert value == ["beside"]
    assert [entry.name for entry in entries if entry.kind != "strike"] == ["http_late"]
    assert server.calls == 1


async def test_a_timeout_beside_a_stream_that_is_read_strikes_where_it_did():
    """Between two pieces; and what it gave up had come in, and waited for the stream's end."""
    first, server = Slow(["nil ", "nought ", "zero"]), Slow(["one ", "two ", "three "])
    clients = first.client(), server.client()
    for gate in (*first.gates, *server.gates[:2]):
        gate.set()

    @segue.flow(name="http_timed_beside")
    async def timed() -> str:
        asyncio.get_running_loop().call_later(0.5, server.gates[2].set)
        came = []

        async def read(client: httpx2.AsyncClient) -> None:
            async with client.stream("POST", "/chat/completions", json=chat("hi", stream=True)) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        came.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")

        async def bounded() -> str:
            try:
                async with asyncio.timeout(0.2):
                    return await http_late("in time")
            except TimeoutError:
                return f"struck after {''.join(came)}"

        await read(clients[0])
        said, _ = await asyncio.gather(bounded(), read(clients[1]))
        return await http_late(said)

    async with asyncio.timeout(10):
        value, _ = await run(timed())
    assert value == "struck after nil nought zeroone "  # a word is whole once the next one begins


async def test_a_timeout_that_was_entered_upon_a_piece_is_forgotten_with_it():
    """Where another one ends the reading: the next life has read nothing, and enters none."""
    server = Slow(["one ", "two ", "three "])
    client = server.client()
    server.gates[0].set()
    server.gates[1].set()

    @segue.flow(name="http_timed_upon")
    async def timed() -> str:
        begun = []

        async def upon() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.gather(http_late("upon it"), asyncio.Event().wait())

        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(0.4),
                client.stream("POST", "/chat/completions", json=chat("hi", stream=True)) as reply,
            ):
                async for line in reply.aiter_lines():
                    if line.startswith("data: {") and not begun:
                        begun.append(asyncio.create_task(upon()))
        return await http_late("over")

    async with asyncio.timeout(10):
        value, _ = await run(timed())
    assert value == "over"


async def test_a_timeout_that_ends_a_stream_comes_after_what_was_left_of_the_one_before():
    """In a replay too, which has what was left of it with the step before."""
    first, second = Slow(["one ", "two ", "three ", "four "]), Slow(["five ", "six "])
    for gate in (*first.gates, second.gates[0]):
        gate.set()
    clients = [first.client(), second.client()]

    @segue.flow(name="http_timed_second")
    async def timed() -> str:
        came = []

        async def read(client: httpx2.AsyncClient) -> None:
            async with client.stream("POST", "/chat/completions", json=chat("hi", stream=True)) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: {") and client is clients[0]:
                        came.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")
                        if len(came) == 1:
                            await http_late("upon it")  # until the end is there

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                for client in clients:
                    await read(client)
        return await http_late("".join(came))

    async with asyncio.timeout(10):
        value, entries = await run(timed())
    assert value == "one two three four "
    assert [entry.kind for entry in entries if entry.kind != "strike"] == ["http", "step", "step"]


@pytest.mark.parametrize("timed", [False, True])
async def test_a_reader_that_the_code_cancels(timed: bool):
    """Upon what it has read, it is one that breaks off: the answer is recorded. By a timer of the code's own, which no
    replay would have strike, the call is given up."""
    server = Slow(["one ", "two ", "three ", "four "])
    client = server.client()
    for gate in server.gates[:3]:
        gate.set()

    @segue.flow(name="http_read_enough")
    async def enough() -> str:
        pieces, read_so_far = asyncio.Queue[str](), list[str]()

        async def read() -> None:
            async with client.stream("POST", "/chat/completions", json=chat("hi", stream=True)) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        read_so_far.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")
                        await pieces.put(line)

        reader = asyncio.create_task(read())
        if timed:
            await asyncio.wait([reader], timeout=0.2)
        else:
            await pieces.get()
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        asyncio.get_running_loop().call_later(0.05, server.gates[3].set)
        return await http_late("" if timed else "".join(read_so_far))

    async with asyncio.timeout(10):
        value, entries = await run(enough())
    assert value in ("", "one ")
    assert [entry.kind for entry in entries] == (["step"] if timed else ["http", "step"])
    assert server.calls == 1


async def test_text_of_a_run_whose_sdk_asks_for_no_stream():
    SIM.when("hi").reply("once upon a time")
    async with segue.Engine("memory:", verify=True) as engine:
        started = await engine.start(http_says("hi"))
        assert [piece async for piece in started.text()] == ["once ", "upon ", "a ", "time"]


async def test_a_stream_that_breaks_off_after_it_was_read_is_an_error_in_its_middle():
    """In a replay too, which tells again what had come."""
    global CLIENT
    server = Slow(["one ", "two "], breaks=True)
    CLIENT = server.client()
    server.gates[0].set()

    @segue.flow(name="http_broken")
    async def broken(text: str) -> str:
        came = []
        try:
            async with CLIENT.stream("POST", "/chat/completions", json=chat(text, stream=True)) as reply:
                async for line in reply.aiter_lines():
                    server.gates[1].set()
                    if line.startswith("data: {"):
                        came.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")
        except httpx2.ReadError as error:
            return f"{await http_late(''.join(came))}: {error}"
        return "whole"

    value, entries = await run(broken("hi"))
    assert value.startswith("one : ")
    assert "ended before the answer did" in value
    assert [entry.error is not None for entry in entries] == [True, False]
    assert server.calls == 1


async def test_a_stream_that_breaks_off_before_it_was_read_is_tried_again():
    global CLIENT
    CLIENT = segue.http_client(base_url=SIM.base_url, headers={"Authorization": f"Bearer {KEY}"})
    SIM.when("hi").reply("once upon a time")
    SIM.faults.cut_stream_after(1, abort=True)
    value, entries = await run(http_streams("hi"))
    assert value == "once upon a time"
    assert [entry.error for entry in entries] == [None]


async def http_read(text: str) -> str:
    async with CLIENT.stream("POST", "/chat/completions", json=chat(text, stream=True)) as reply:
        return "".join([line async for line in reply.aiter_lines()])


@segue.flow
async def http_times_out(text: str) -> str:
    try:
        async with asyncio.timeout(0.2):
            await http_read(text)
    except TimeoutError:
        return await http_after(text)
    return "read"


@segue.step
async def http_after(text: str) -> str:
    return f"after {text}"


async def test_a_timeout_in_the_middle_of_a_stream():
    global CLIENT
    server = Slow(["one ", "two "])
    CLIENT = server.client()
    server.gates[0].set()
    value, _ = await run(http_times_out("hi"))
    assert value == "after hi"


@segue.flow
async def http_waits_in_a_stream(text: str) -> str:
    return await http_read(text)


async def test_a_run_can_be_cancelled_in_the_middle_of_a_stream():
    global CLIENT
    server = Slow(["one ", "two "])
    CLIENT = server.client()
    server.gates[0].set()
    async with segue.Engine("memory:") as engine:
        started = await engine.start(http_waits_in_a_stream("hi"), id="r")
        while not server.calls:
            await asyncio.sleep(0.005)
        await started.cancel()
        async with asyncio.timeout(20):
            head = await engine.wait("r")
    assert head.status == "cancelled"


async def test_an_engine_that_closes_in_the_middle_of_a_stream_leaves_the_run_to_the_next():
    global CLIENT
    server = Slow(["one ", "two "])
    CLIENT = server.client()
    server.gates[0].set()
    store = MemoryStore()
    async with segue.Engine(store) as engine:
        await engine.start(http_waits_in_a_stream("hi"), id="r")
        while not server.calls:
            await asyncio.sleep(0.005)
    for gate in server.gates:
        gate.set()
    async with segue.Engine(store, verify=True) as engine:
        run = await engine.get("r")
        async with asyncio.timeout(20):
            assert "two" in await run
    assert server.calls == 2


# ---------------------------------------------------------------- conversations
@segue.flow
async def http_talks(turns: int) -> int:
    messages: list[dict[str, Any]] = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"turn {turn} " + "x" * 100})
        reply = await CLIENT.post("/chat/completions", json={"model": "m", "messages": messages})
        messages.append(reply.json()["choices"][0]["message"])
    return len(messages)


async def test_a_conversation_grows_by_what_is_said():
    value, entries = await run(http_talks(20))
    assert value == 40
    sizes = [len(entry.args) for entry in entries]
    assert max(sizes[1:]) < 2 * min(sizes[1:])
    told = json.loads(entries[-1].args)
    assert told["after"] == "#18"
    assert [message["role"] for message in told["body"]["messages"]] == ["assistant", "user"]


@segue.flow
async def http_talks_otherwise(wording: str) -> None:
    """Says something else in the middle of a conversation, in another life."""
    first = {"role": "user", "content": "hi"}
    said = WORDING.pop(0)
    for messages in ([first], [first, {"role": "assistant", "content": said}, first]):
        await CLIENT.post("/chat/completions", json={"model": "m", "messages": messages})
    await segue.sleep(timedelta(seconds=0))


WORDING: list[str] = []


async def test_a_difference_in_a_conversation_is_shown():
    WORDING[:] = ["one", "two", "two", "two"]
    with pytest.raises(ReplayMismatch, match="one"):
        await run(http_talks_otherwise("x"))


async def test_streams_side_by_side_are_read_in_turn():
    """Whose pieces came between each other's: a replay, which has each whole, finds them in the same order."""
    global CLIENT
    servers = [Slow(["a1 ", "a2 ", "a3"]), Slow(["b1 ", "b2 ", "b3"])]
    clients = [server.client() for server in servers]
    seen: list[str] = []

    @segue.flow(name="http_interleaved")
    async def interleaved() -> str:
        seen.clear()

        async def one(client: httpx2.AsyncClient) -> None:
            async with client.stream("POST", "/chat/completions", json=chat("hi", stream=True)) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        seen.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")

        await asyncio.gather(*map(one, clients))
        return "".join(seen)

    async def let() -> None:
        for gates in zip(*(server.gates for server in reversed(servers)), strict=True):
            for gate in gates:
                gate.set()
                await asyncio.sleep(0.01)

    letting = asyncio.create_task(let())
    value, _ = await run(interleaved())
    await letting
    assert value in ("a1 a2 a3b1 b2 b3", "b1 b2 b3a1 a2 a3")


class Helper(segue.Actor[str]):
    """Asks a model through an SDK's client while it works."""

    question: str

    def begin(self) -> str:
        return self.question

    @segue.state
    async def think(self, question: str) -> segue.Done[str]:
        return segue.Done(await say(question) + await http_read(question))


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_in_an_actor(mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_KEY_OF_MINE", KEY)
    async with segue.Engine("memory:", mode=mode) as engine:  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            told = await engine.run(Helper(question="hi"))
    assert told.startswith("You said: hidata: ")


async def test_a_place_without_batches_is_called_live_in_batch_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OLLAMA_BASE_URL", SIM.base_url)
    async with segue.Engine("memory:", mode="batch", verify=True) as engine:
        started = await engine.start(http_says("hi"))
        assert await started == "You said: hi"
        receipt = await started.receipt()
    assert SIM.batches() == []
    assert [(line.model, line.lane) for line in receipt.lines] == [("ollama:m", "live")]


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_tokens_are_counted_under_one_name(mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_KEY_OF_MINE", KEY)
    async with segue.Engine("memory:", mode=mode) as engine:  # type: ignore[arg-type]
        started = await engine.start(http_says("hi"))
        await started
        (line,) = (await started.receipt()).lines
    assert (line.model, line.lane, line.calls) == ("openai:m", mode, 1)
    assert line.input_tokens > 0
    assert line.output_tokens > 0


async def test_what_no_job_could_take_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segue.providers.batches.Format.max_bytes", 1000)

    @segue.flow(name="http_too_large")
    async def too_large(text: str) -> str:
        return (await CLIENT.post("/chat/completions", json=chat(text))).text

    value, entries = await run(too_large("x" * 2000), "batch")
    assert "takes 1,000 in a batch" in value
    assert [entry.error is not None for entry in entries] == [True]
