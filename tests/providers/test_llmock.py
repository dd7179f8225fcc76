"""Beside an independent server: `llmock` speaks Anthropic's and Gemini's protocols as its authors read them.

It has no files for Gemini's batches, so of those only live calls are compared.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from segue.model.chat import ChatRequest, ToolSpec, as_messages
from segue.ports.provider import LineResult
from segue.providers.anthropic import Anthropic
from segue.providers.gemini import Gemini
from segue.transports.pooled import Pooled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="a listening socket is handed on"),
]
NONCE = "0123456789abcdef0123456789abcdef"
LOOK = ToolSpec(
    "look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "llmock.main:app", "--fd", str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LLMOCK_RESPONSE_STYLE": "echo"},
        )
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.terminate()
            server.wait(10)


def provider_of(name: str, url: str) -> Anthropic | Gemini:
    if name == "anthropic":
        return Anthropic(f"{url}/anthropic/v1", "k", Pooled())
    return Gemini(f"{url}/gemini/v1beta", "k", Pooled())


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
async def test_live_calls(name: str, url: str) -> None:
    provider = provider_of(name, url)
    for request in (ChatRequest(as_messages("hello")), ChatRequest(as_messages("hello"), tools=[LOOK])):
        asked = msgspec.json.encode(provider.chat_body(request, "m"))
        heard: list[str] = []
        plain = provider.chat_reply(await provider.send("chat", asked, None))
        streamed = provider.chat_reply(await provider.send("chat", asked, heard.append))
        assert plain.tokens == streamed.tokens
        assert plain.tokens.output > 0
        assert (plain.text, plain.stop) == (streamed.text, streamed.stop) == ("".join(heard), plain.stop)
        if request.tools:
            assert (
                [call.name for call in plain.tool_calls]
                == [call.name for call in streamed.tool_calls]
                == ["look"]
            )
        else:
            assert "hello" in plain.text
    await provider.close()


async def lines(*each: tuple[str, bytes]) -> AsyncIterator[tuple[str, bytes]]:
    for line in each:
        yield line


async def test_a_message_batch(url: str) -> None:
    provider = Anthropic(f"{url}/anthropic/v1", "k", Pooled())
    asked = msgspec.json.encode(provider.chat_body(ChatRequest(as_messages("hello")), "m"))
    each = [(f"l{number}", asked) for number in range(3)]
    file = await provider.upload(lines(*each), "chat", NONCE)
    job = await provider.submit(file, "chat", NONCE, lines(*each))
    found = await provider.find(NONCE, file, 0.0, lines=3)
    assert found is not None
    assert (found.id, found.sure) == (job.id, False)
    async with asyncio.timeout(20):
        while not (job := await provider.poll(job.id)).over:
            await asyncio.sleep(0.2)  # it takes three of its seconds
    assert (job.done, job.failed, job.total) == (3, 0, 3)
    results = {line.id: line async for line in provider.results(job) if isinstance(line, LineResult)}
    assert sorted(results) == ["l0", "l1", "l2"]
    assert all("hello" in provider.chat_reply(line.body).text for line in results.values())
    found = await provider.find(NONCE, file, 0.0, lines=3)
    assert found is not None
    assert (found.id, found.sure) == (job.id, True)
    await provider.close()
