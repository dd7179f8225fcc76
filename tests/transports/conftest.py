from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from segue.transports.pooled import Pooled
from tests.transports.serving import Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pooled]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    pool = Pooled()
    yield pool
    await pool.close()
