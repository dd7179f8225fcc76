"""A base URL where no API is: what is told names the place that was asked, and the one that was probably meant."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from segue.model.chat import ChatRequest, as_messages
from segue.ports.provider import CallFault, Provider
from segue.providers import make, resolve
from segue.testing.simulator import Simulator
from segue.transports.pooled import Pooled

#: Provider, path of the base URL, where a live call and a batch go, and what was probably meant.
WRONG = [
    ("openai", "", "/chat/completions", "/files", "/v1"),
    ("openai", "/nix", "/nix/chat/completions", "/nix/files", "/nix/v1"),
    ("openai", "/v1/models", "/v1/models/chat/completions", "/v1/models/files", "/v1"),
    ("openai", "/chat/completions", "/chat/completions/chat/completions", "/chat/completions/files", "/v1"),
    ("anthropic", "/v1/messages", "/v1/messages/messages", "/v1/messages/messages/batches", "/v1"),
    ("gemini", "/nix", "/nix/models/m:generateContent", "/nix/files", "/nix/v1beta"),
]


async def no_lines() -> AsyncIterator[tuple[str, bytes]]:
    yield "line-1", b'{"model":"m"}'


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as sim:
        yield sim


def provider_at(name: str, url: str) -> Provider:
    return make(resolve(f"{name}:m@{url}", {}), {}, Pooled())


@pytest.mark.parametrize(("name", "path", "live", "batch", "meant"), WRONG)
async def test_nothing_there(sim: Simulator, name: str, path: str, live: str, batch: str, meant: str):
    provider = provider_at(name, sim.url + path)
    body = msgspec.json.encode(provider.chat_body(ChatRequest(as_messages("x")), "m"))
    try:
        with pytest.raises(CallFault) as fault:
            await provider.send("chat", body, None)
        assert f"'{sim.url}{live}' was asked: should the base URL be '{sim.url}{meant}'?" in str(fault.value)
        with pytest.raises(CallFault) as fault:
            file = await provider.upload(no_lines(), "chat", "nonce")
            await provider.submit(file, "chat", "nonce", no_lines())
        assert f"'{sim.url}{batch}' was asked: should the base URL be '{sim.url}{meant}'?" in str(fault.value)
    finally:
        await provider.close()


async def test_a_server_that_has_only_some_of_it(sim: Simulator):
    """The base URL looks right, so none is proposed."""
    provider = provider_at("openai", f"{sim.url}/nix/v1")
    try:
        with pytest.raises(CallFault, match=r"'http.*/nix/v1/chat/completions' was asked$"):
            await provider.send("chat", b"{}", None)
    finally:
        await provider.close()


async def test_a_model_or_a_job_that_isnt_there():
    """It says itself what is missing."""
    async with Simulator(models=["one"]) as sim:
        provider = provider_at("openai", sim.base_url)
        try:
            body = msgspec.json.encode(provider.chat_body(ChatRequest(as_messages("x")), "m"))
            for asking in (provider.send("chat", body, None), provider.poll("batch_1")):
                with pytest.raises(CallFault) as fault:
                    await asking
                assert fault.value.status == 404
                assert "was asked" not in str(fault.value)
        finally:
            await provider.close()
