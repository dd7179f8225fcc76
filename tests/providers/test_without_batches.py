"""Servers that have no batch API: in batch mode their calls go live, as many at once as they bear."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.testing.simulator import Limits, Simulator
from tests.crash.remote import FastClock

ROWS = 300


@segue.flow(name="without.echo")
async def echo(number: int) -> str:
    return await segue.generate(f"row {number}")


async def through(limits: Limits, speed: float, trouble: Any = None, mode: Any = "batch") -> Simulator:
    clock = FastClock(speed)
    latency = timedelta(seconds=0.003 * speed)
    async with Simulator(plays="without", limits=limits, clock=clock, latency=latency) as sim:
        if trouble is not None:
            trouble(sim)
        model = f"vllm:m@{sim.base_url}"
        async with segue.Engine("memory:", model=model, mode=mode, clock=clock) as engine:
            async with asyncio.timeout(50):
                outcomes = [each async for each in engine.map(echo, range(ROWS))]
            assert engine.models.limit(sim.base_url, "vllm", "m", "").flying == 0
    assert sorted(each.value for each in outcomes) == sorted(f"You said: row {n}" for n in range(ROWS))
    counts = sim.ledger.counts()
    assert (counts["live_paid"], counts["batch_asked"]) == (ROWS, 0)
    return sim


async def test_a_server_that_bears_few_at_once_is_asked_no_more_than_it_bears():
    sim = await through(Limits(at_once=8), speed=20)
    assert sim.crowd.most == 8
    assert sim.crowd.refused < ROWS / 2


async def test_so_many_a_minute():
    sim = await through(Limits(a_minute=100), speed=2000)
    assert sim.crowd.refused < 100  # what was under way when the headers first said so


@pytest.mark.parametrize("status", [429, 498, 503, 529])
async def test_refusals_are_waited_out(status: int):
    def trouble(sim: Simulator) -> None:
        sim.faults.fail(40, status=status, on="chat", retry_after=timedelta(seconds=5))
        sim.faults.fail(40, status=status, on="chat")

    sim = await through(Limits(), speed=500, trouble=trouble)
    assert len(sim.ledger.lines("live")) == ROWS + 80


async def test_one_limit_whatever_the_number():
    @segue.flow
    async def two(number: int) -> str:
        mode = segue.Live(concurrency=5 + number % 2)
        return await segue.generate(f"row {number}", mode=mode)

    async with Simulator(plays="without", latency=timedelta(seconds=0.005)) as sim:
        async with segue.Engine("memory:", model=f"vllm:m@{sim.base_url}") as engine:
            async with asyncio.timeout(30):
                assert len([each async for each in engine.map(two, range(60))]) == 60
    assert sim.crowd.most == 6
