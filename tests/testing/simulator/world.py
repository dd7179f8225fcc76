"""What the tests of the simulator share: servers with clients, and rows to send."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from openai import AsyncOpenAI

from segue.testing.simulator import Simulator, VirtualClock


class World:
    """Opens simulators with clients, and closes them all at the end."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    async def simulator(self, **options: Any) -> Simulator:
        options.setdefault("clock", VirtualClock())
        options.setdefault("batch_time", timedelta(hours=1))
        simulator = Simulator(**options)
        await simulator.start()
        self._open.append(simulator)
        return simulator

    def client(self, simulator: Simulator, key: str = "any") -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=simulator.base_url, api_key=key, max_retries=0)
        self._open.append(client)
        return client

    async def pair(self, **options: Any) -> tuple[Simulator, AsyncOpenAI]:
        simulator = await self.simulator(**options)
        return simulator, self.client(simulator)

    async def close(self, *which: Any) -> None:
        for one in reversed(which or tuple(self._open)):
            self._open.remove(one)
            await one.close()


def says(text: str, **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def row(custom_id: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    url = "/v1/chat/completions"
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body or says(custom_id), **more}


def jsonl(*rows: Any) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in rows)


async def submit(client: AsyncOpenAI, *rows: Any, **more: Any) -> Any:
    """Upload a file of rows and create a batch of it."""
    file = await client.files.create(file=("in.jsonl", jsonl(*rows)), purpose="batch")
    more = {"endpoint": "/v1/chat/completions", "completion_window": "24h"} | more
    return await client.batches.create(input_file_id=file.id, **more)


async def read(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    content = (await client.files.content(file_id)).content
    return [json.loads(line) for line in content.splitlines()]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [each["custom_id"] for each in rows]
