"""A web service: tokens as they come, and the same answer to the same id."""

from __future__ import annotations

import asyncio
from datetime import timedelta
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


async def test_an_answer_that_a_service_left_unfinished_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = asyncio.Event()

    def rule(body: object) -> str:
        asked.set()
        return "It has ten legs."

    async with Simulator(rule=rule, latency=timedelta(seconds=0.3)) as sim:
        monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        async with TestClient(TestServer(service.make())) as client:
            asking = asyncio.ensure_future(client.post("/ask", params={"id": "1"}, data="What is a crab?"))
            await asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with TestServer(service.make()) as server:  # nobody asks again
            head = await asyncio.wait_for(server.app[service.ENGINE].wait("question/1"), 20)
        assert head.value == b'"It has ten legs."'
