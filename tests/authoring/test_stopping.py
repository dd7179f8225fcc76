"""Plain functions on threads learn that they needn't go on."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Again, Done, Fail, Interrupt, Interrupted
from segue.model.errors import RunInterrupted
from segue.model.run import Head
from segue.testing import FakeModel
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

BEGUN, STOPPED = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def told() -> None:
    BEGUN.clear()
    STOPPED.clear()


def spin(seconds: float = 5.0) -> int:
    """How often it went round until it was told to stop."""
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until and not segue.should_stop():
        rounds += 1
        if rounds == 3:
            BEGUN.set()
        time.sleep(0.001)
    if segue.should_stop():
        STOPPED.set()
    return rounds


async def begun() -> None:
    while not BEGUN.is_set():
        await asyncio.sleep(0.001)


async def stopped() -> None:
    async with asyncio.timeout(4):
        while not STOPPED.is_set():
            await asyncio.sleep(0.001)


@dataclass
class Counting:
    rounds: int = 0


class Counter(Actor[int]):
    counted: int = 0

    def begin(self) -> Counting:
        return Counting()

    @segue.state
    def count(self, c: Counting) -> Again | Done[int]:
        c.rounds = self.counted = spin()
        return Done(c.rounds)

    def teardown(self) -> None: ...


class Asked(Counter):
    """One that has nothing to say when it is asked to end."""

    @segue.state
    def count(self, c: Counting) -> Again:
        self.counted = spin()
        return Again()


async def test_a_handler_is_told_that_its_actor_is_to_end_after_it() -> None:
    async with FakeModel() as model:  # which verifies
        run = await model.engine.start(Counter())
        await begun()
        await run.interrupt(Interrupt.AFTER_HANDLER)
        assert await run > 0  # what it had done is not lost
    assert STOPPED.is_set()


async def test_one_that_has_no_end_of_its_own_is_interrupted() -> None:
    async with FakeModel() as model:
        run = await model.engine.start(Asked())
        await begun()
        await run.interrupt(Interrupt.AFTER_HANDLER)
        with pytest.raises(RunInterrupted):
            await run
    assert STOPPED.is_set()


async def test_one_that_is_cut_off_doesnt_go_on_unseen() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(Counter())
        await begun()
        await run.interrupt(Interrupt.NOW)
        with pytest.raises(RunInterrupted):
            await run
        await stopped()


async def test_a_handler_whose_time_is_up() -> None:
    class Bounded(Counter):
        @segue.state(timeout=timedelta(seconds=0.05))
        def count(self, c: Counting) -> Done[int]:
            return Done(spin())

        @segue.fallback
        async def late(self, c: Counting, error: TimeoutError) -> Done[int]:
            return Done(-1)

    async with segue.Engine() as engine, asyncio.timeout(4):
        assert await engine.run(Bounded()) == -1
        await stopped()


async def test_a_handler_isnt_told_of_what_waits_in_the_queue() -> None:
    class Short(Counter):
        @segue.state
        def count(self, c: Counting) -> Done[int]:
            return Done(spin(0.05))

    async with segue.Engine() as engine:
        run = await engine.start(Short())
        await begun()
        await run.interrupt()
        assert await run > 0
    assert not STOPPED.is_set()


async def test_who_says_how_it_ends_isnt_interrupted() -> None:
    class Says(Actor[str]):
        def begin(self) -> str:
            return "go"

        @segue.state
        async def go(self, how: str) -> Done[str] | Fail:
            await segue.ask("How?")
            return Done("well")

        def interrupted(self) -> Interrupted:
            return Interrupted()

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Says(), id="it")
        while not (asks := await engine.open_asks()):
            await asyncio.sleep(0.001)
        await run.interrupt(Interrupt.AFTER_HANDLER)
        await desk.parked()
        await asks[0].answer("so")
        assert await run == "well"


# ---------------------------------------------------------------- steps
@segue.step(timeout=timedelta(seconds=0.05))
def step_that_spins() -> int:
    return spin()


@segue.step
def step_that_goes_on() -> int:
    return spin()


@segue.flow
async def flow_of_step_that_spins() -> None:
    await step_that_spins()


@segue.flow
async def flow_of_step_that_goes_on() -> int:
    return await step_that_goes_on()


async def test_a_step_whose_time_is_up() -> None:
    async with segue.Engine() as engine:
        with pytest.raises(TimeoutError):
            await engine.run(flow_of_step_that_spins())
        await stopped()


@pytest.mark.parametrize("work", [flow_of_step_that_goes_on, Counter])
async def test_who_leaves_keeps_no_thread(work: Any) -> None:
    async with segue.Engine(grace=0) as engine:
        await engine.start(work())
        await begun()
    await stopped()


async def test_elsewhere_nothing_is_to_stop() -> None:
    assert not segue.should_stop()
    assert await asyncio.to_thread(segue.should_stop) is False


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        run = await engine.start(Counter(), id="it")
        await run.tell(segue.Interruption(Interrupt.AFTER_HANDLER))

    def check(desk: Desk, head: Head) -> None:
        assert head.status in ("done", "cancelled")

    await at_every_commit(begin, "it", check, kind=kind, path=tmp_path)
