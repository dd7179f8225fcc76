"""What consecutive requests of a conversation have in common stays the same, byte for byte, and is marked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import segue
from segue.model.chat import ChatRequest, Message, ToolSpec
from segue.providers import make, resolve
from segue.providers.openai import OpenAI
from segue.testing.simulator import Said, Simulator, ToolCall
from segue.transports.pooled import Pooled

#: What grows in a request's body, by provider.
GROWS = {"openai": "messages", "openai-responses": "input", "anthropic": "messages", "gemini": "contents"}
LAW = "The law. " * 600
TURNS = 4


class Label(msgspec.Struct):
    z: str
    a: int


async def zebra(order: str, at: int = 1) -> str:
    """Where an order is."""
    return f"{order} is on its way"


async def ant(question: str) -> str:
    """Something else."""
    return question


@segue.flow(name="prefix.talk")
async def talk() -> Label:
    return await segue.generate("Find the order.", system=LAW, tools=[zebra, ant], returns=Label)


def rule(body: dict[str, Any]) -> Any:
    """Asks for tools, two at a time, until enough was said."""
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    if turn == TURNS:
        return {"z": "found", "a": 1}
    return Said(
        "Hm.", ToolCall("zebra", {"order": f"o{turn}"}), ToolCall("ant", {"question": "why"}), thinking="Hm."
    )


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(rule=rule, batch_time=timedelta(milliseconds=20)) as sim:
        yield sim


async def bodies(sim: Simulator, name: str, mode: Any) -> list[bytes]:
    """The requests of that conversation, as they are sent."""
    model = "gemini-3-pro" if name == "gemini" else "m"
    root = sim.base_url if name.startswith("openai") else sim.url
    provider: Any = make(resolve(f"{name}:{model}@{root}", {}), {}, Pooled())
    seen: list[bytes] = []
    send, upload = provider.send, provider.upload

    async def sending(endpoint: str, body: bytes, *rest: Any) -> bytes:
        seen.append(body)
        return await send(endpoint, body, *rest)  # type: ignore[no-any-return]

    async def uploading(lines: Any, endpoint: str, nonce: str) -> str:
        found = [line async for line in lines]
        seen.extend(body for _, body in found)

        async def again() -> AsyncIterator[tuple[str, bytes]]:
            for line in found:
                yield line

        return await upload(again(), endpoint, nonce)  # type: ignore[no-any-return]

    provider.send, provider.upload = sending, uploading
    async with segue.Engine(
        "memory:", mode=mode, model=f"far:{model}", providers={"far": lambda _: provider}
    ) as engine:
        async with asyncio.timeout(30):
            assert await engine.run(talk()) == Label("found", 1)
    return seen


def unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: unmarked(each) for name, each in value.items() if name != "cache_control"}
    return [unmarked(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("name", GROWS)
async def test_each_turn_begins_as_the_one_before(sim: Simulator, name: str, mode: str) -> None:
    sent = [unmarked(msgspec.json.decode(body)) for body in await bodies(sim, name, mode)]
    assert len(sent) == TURNS + 1
    again = [unmarked(msgspec.json.decode(body)) for body in await bodies(sim, name, mode)]
    grows = GROWS[name]
    for before, after in itertools.pairwise(sent):
        assert list(before) == list(after)  # in the same order
        rest = [msgspec.json.encode({**body, grows: []}) for body in (before, after)]
        assert rest[0] == rest[1]
        told = [msgspec.json.encode(body[grows])[:-1] for body in (before, after)]
        assert told[1].startswith(told[0])
        assert len(told[1]) > len(told[0])
    first = [msgspec.json.encode(turns[0]) for turns in (sent, again)]
    assert first[0] == first[1]  # another run begins alike
    shown = first[0].decode()
    assert shown.index('"zebra"') < shown.index(
        '"ant"'
    )  # tools as they were given, and what is in their schemas


async def test_what_anthropic_has_kept_is_read_in_the_next_turn(sim: Simulator) -> None:
    """Marks stand where the request before ended, too, so all of it is read."""
    provider: Any = make(resolve(f"anthropic:m@{sim.url}", {}), {}, Pooled())
    tokens = []
    read = provider.chat_reply

    def reading(body: bytes) -> Any:
        reply = read(body)
        tokens.append(reply.tokens)
        return reply

    provider.chat_reply = reading
    async with segue.Engine(
        "memory:", mode="live", model="far:m", providers={"far": lambda _: provider}
    ) as engine:
        await engine.run(talk())
    turns = list(dict.fromkeys((each.input, each.cached) for each in tokens))
    assert len(turns) == TURNS + 1
    for (before, _), (_, cached) in itertools.pairwise(turns):
        assert cached == before


def test_openai_is_told_which_requests_begin_alike() -> None:
    def key(provider: OpenAI, question: str, *, system: str = "", tools: Any = (), **extra: Any) -> Any:
        said = [*([Message("system", system)] if system else []), Message("user", question)]
        return provider.chat_body(ChatRequest(said, tools=list(tools), extra=extra), "m").get(
            "prompt_cache_key"
        )

    own, other = (
        OpenAI(url, "k", Pooled()) for url in ("https://api.openai.com/v1", "https://x.openai.azure.com/v1")
    )
    tool = ToolSpec("look", "Looks.", {"type": "object"})
    law = key(own, "a", system=LAW)
    assert law
    assert key(own, "b", system=LAW) == law
    assert len({law, key(own, "a", system="Another."), key(own, "a", system=LAW, tools=[tool])}) == 3
    assert key(own, "a") is None
    assert key(own, "a", system=LAW, prompt_cache_key="mine") == "mine"
    assert key(own, "a", system=LAW, prompt_cache_key=None) is None
    assert key(other, "a", system=LAW) is None
