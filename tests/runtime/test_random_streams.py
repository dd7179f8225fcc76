"""Random programs that read live answers piece by piece, killed and parked at random: they replay to the same end.

A replay has an answer whole. So nothing may depend on how it came: not what other tasks did between two pieces, where
reading was broken off or cancelled, nor a timeout around it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx2
import pytest

import segue
from tests.runtime import programs, test_random_programs
from tests.runtime.programs import Op
from tests.runtime.test_random_programs import World, trial

WAYS = ("all", "break", "acts", "queue", "group", "inside", "cancel")


def make(r: random.Random, depth: int = 0, *, strikes: bool = False) -> list[Op]:
    """As `programs.make`, with streams, and timeouts around them."""

    def inner() -> list[Op]:
        return make(r, depth + 1, strikes=strikes)

    ops: list[Op] = []
    for _ in range(r.randint(1, 3)):
        if strikes and depth < 3 and r.random() < 0.15:
            ops.append(("bounded", inner(), r.choice([0.001, 0.003, 0.01])))
        elif depth < 3 and r.random() < 0.35:
            ops.append(("stream", r.choice(WAYS), r.randint(0, 4), inner()))
        else:
            ops += programs.make(r, max(depth, 1), strikes=strikes)[:2]
    return ops


class Streaming(World):
    """A world with a model in it, whose answers come in words at any pace."""

    def __init__(self, seed: int, *, strikes: bool = False) -> None:
        super().__init__(seed, strikes=strikes)
        self.program = make(random.Random(seed), strikes=strikes)
        transport = httpx2.MockTransport(self._answer)
        self.client = segue.http_client(base_url="http://model/v1", transport=transport)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        words = [f"w{self.chance.randint(0, 6)} " for _ in range(self.chance.randint(1, 5))]
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, content=self._chunks(words))

    async def _chunks(self, words: list[str]) -> AsyncIterator[bytes]:
        for number, word in enumerate(words):
            if number > 1 and self.chance.random() < 0.1:
                return  # cut off
            for _ in range(self.chance.choice([0, 0, 1, 3, 8])):
                await asyncio.sleep(0)
            if self.chance.random() < 0.15:
                await asyncio.sleep(0.002)
            yield _chunk({"delta": {"content": word}, "index": 0})
        yield _chunk({"delta": {}, "index": 0, "finish_reason": "stop"})
        yield b"data: [DONE]\n\n"

    async def _pieces(self, v: int) -> AsyncIterator[int]:
        """What the model says; -1 at last where it was cut off."""
        try:
            async for piece in self._said(v):
                yield piece
        except httpx2.HTTPError:
            yield -1

    async def _said(self, v: int) -> AsyncIterator[int]:
        body = {"model": "m", "messages": [{"role": "user", "content": f"say {v}"}], "stream": True}
        async with self.client.stream("POST", "/chat/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    said = json.loads(line[6:])["choices"][0]["delta"].get("content")
                    if said:
                        yield int(said[1:])

    async def run(self, ops: list[Op], shared: list[int] | None) -> int:
        """Interpret a program."""
        v = 0
        for op in ops:
            match op:
                case ("stream", way, k, part):
                    got = await self._stream(way, k, part, shared, v)
                    v = await self.step("after", 0, sum(got) % 7)
                case ("bounded", part, seconds):
                    try:
                        async with asyncio.timeout(seconds):
                            v = await self.run(part, shared)
                    except TimeoutError:
                        v = await self.step("bounded", 0)
                case _:
                    v = (v + await programs.run(self, [op], shared)) % 7
        return v

    async def _stream(self, way: str, k: int, part: list[Op], shared: list[int] | None, v: int) -> list[int]:
        got: list[int] = []
        queue: asyncio.Queue[int | None] = asyncio.Queue()

        async def read() -> None:
            async with aclosing(self._pieces(v)) as pieces:
                async for piece in pieces:
                    got.append(piece)
                    queue.put_nowait(piece)
                    if way == "cancel" and len(got) > k:
                        reader.cancel()
            queue.put_nowait(None)

        match way:
            case "all":
                await read()
            case "break":
                async with aclosing(self._pieces(v)) as pieces:
                    async for piece in pieces:
                        got.append(piece)
                        if len(got) > k:
                            break
            case "acts":
                tasks = [asyncio.create_task(self.step("on", 0, piece)) async for piece in self._pieces(v)]
                got += await asyncio.gather(*tasks)
            case "inside":
                got += [await self.step("in", 0, piece) async for piece in self._pieces(v)]
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(read())
                    task = group.create_task(self.run(part, shared))
                got.append(task.result())
            case _:
                reader = asyncio.create_task(read())
                taken = 0
                while way == "queue" and await queue.get() is not None:
                    taken += 1
                    if taken > k:
                        reader.cancel()
                        break
                await asyncio.gather(reader, return_exceptions=True)
        return got


def _chunk(choice: dict[str, Any]) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("strikes", [False, True])
@pytest.mark.parametrize("block", range(4))
async def test_random_programs_replay_where_answers_are_read_as_they_come(
    block: int, slow: bool, strikes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_random_programs, "World", Streaming)
    for seed in range(40_000 + block * 10, 40_010 + block * 10):
        state, _ = await trial(seed, shared=bool(seed % 2), slow=slow, strikes=strikes)
        assert state == "done", (seed, state)
