"""A simulated provider, and engines that send it batches: what becomes of each row, and how often it is paid."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import segue
from segue.authoring.map import Outcome
from segue.ports.provider import BatchProvider
from segue.providers.anthropic import Anthropic
from segue.providers.anthropic_batches import labelled
from segue.providers.gemini import Gemini
from segue.providers.openai import OpenAI
from segue.runtime.calls.naming import line_id
from segue.testing.simulator import Simulator
from segue.transports.pooled import Pooled
from tests.crash.remote import FastClock
from tests.runtime import lives

ROWS = 6
SPEED = 20.0
KEY = "sk-right-0123456789"
ONCE = dict.fromkeys(range(ROWS), 1)

until = partial(lives.until, within=20)


@segue.flow(name="lanes.echo")
async def echo(number: int) -> str:
    return await segue.generate(f"row {number}")


class World:
    """A simulator and engines that talk to it in one protocol; the engines' clock is fast."""

    def __init__(self, path: Path, dialect: str = "openai") -> None:
        self.path, self.dialect = path, dialect
        self.sim: Simulator
        self.clock = FastClock(SPEED)
        self.key = KEY

    async def simulator(self, **options: Any) -> Simulator:
        options = {"batch_time": timedelta(seconds=0.05), "key": KEY, **options}
        self.sim = Simulator(**options)
        await self.sim.start()
        return self.sim

    def provider(self, _: Any) -> BatchProvider:
        match self.dialect:
            case "anthropic":
                return Anthropic(self.sim.base_url, self.key, Pooled())
            case "gemini":
                return Gemini(f"{self.sim.url}/v1beta", self.key, Pooled())
        return OpenAI(self.sim.base_url, self.key, Pooled())

    def engine(self, store: str = "memory:", **options: Any) -> segue.Engine:
        options = {"mode": "batch", "model": "far:m", "clock": self.clock, **options}
        return segue.Engine(store, providers={"far": self.provider}, **options)

    async def run(self, flow: Any = echo, rows: Any = range(ROWS), **options: Any) -> list[Outcome[Any, Any]]:
        async with self.engine(**options) as engine:
            async with asyncio.timeout(30):
                outcomes = [outcome async for outcome in engine.map(flow, rows, id="job")]
            assert await engine.store.lanes() == []
            return sorted(outcomes, key=lambda outcome: outcome.index)

    def paid(self) -> dict[int, int]:
        """How often each row's first line was paid."""
        lines = {ident(number): number for number in range(ROWS)}
        counts = dict.fromkeys(range(ROWS), 0)
        for entry in self.sim.ledger.lines("batch"):
            number = lines.get(labelled(entry.custom_id or "")[0])
            if entry.paid and number is not None:
                counts[number] += 1
        return counts


def ident(number: int) -> str:
    return line_id(f"job/{number}", ("", 0))


def all_well(outcomes: list[Outcome[Any, Any]], but: set[int] | None = None) -> None:
    for outcome in outcomes:
        if outcome.index not in (but or set()):
            assert outcome.error is None, outcome.error
            assert outcome.value == f"You said: row {outcome.index}"
