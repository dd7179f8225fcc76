"""A web service: tokens as they come, and the same answer to the same id."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from segue.testing import Simulator

from .folders import Folder

service = Folder("service").service


async def test_tokens_and_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Simulator(rule=lambda body: "It has ten legs.\nAll crabs do.") as sim:
        monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        for life in range(2):
            async with TestClient(TestServer(service.make())) as client:
                answer = await client.post("/ask", params={"id": "1"}, data="What is a crab?")
                assert answer.headers["X-Question"] == "1"
                events = (await answer.text()).split("\n\n")[:-1]
                assert events[-1] == "event: done\ndata: It has ten legs.\ndata: All crabs do."
                tokens = [event for event in events if event.startswith("event: token")]
                assert (len(tokens) > 3) is (life == 0)
        assert sim.ledger.counts()["live_paid"] == 1
