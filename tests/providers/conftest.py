from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from segue.providers.openai import OpenAI
from segue.transports.pooled import Pooled
from tests.transports.serving import Server

KEY = "key/with+signs-0123456789"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[..., OpenAI]]:
    """Makes providers for the server, or another URL."""
    made: list[OpenAI] = []

    def connect(url: str = "", key: str = KEY, **options: Any) -> OpenAI:
        made.append(OpenAI(url or f"{server.url}/v1", key, Pooled(), **options))
        return made[-1]

    yield connect
    for each in made:
        await each.close()


@pytest.fixture
def provider(connect: Callable[..., OpenAI]) -> OpenAI:
    return connect()
