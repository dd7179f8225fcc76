"""What strikes with an outcome has begun before the code calls anything else, in a life as in a replay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import segue
from segue.testing.crash import Mortal
from tests.authoring.killed import through
from tests.runtime.lives import Desk


@segue.step
async def quick(n: int) -> int:
    return n


@segue.step
async def seen(by: str) -> str:
    return by


class Go(segue.Note):
    pass


class Turned(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        actor.volume += 1
        return None


class Player(segue.Actor[str]):
    volume: int = 0

    @segue.on
    async def go(self, note: Go) -> segue.Done[str]:
        await segue.ask("Go on?")
        await quick(1)
        said = await seen(f"volume {self.volume}")
        await segue.ask("Enough?")
        return segue.Done(said)


async def together(desk: Desk, call: Any, told: Any) -> None:
    """An actor whose question is answered and which is told something, both while nobody is at work."""
    clock = desk.fake.clock
    async with segue.Engine(Mortal(desk.store, None), clock=clock, linger=0.02) as engine:
        run = await engine.start(call, id="it")
        await run.tell(Go())
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
    async with segue.Engine(Mortal(desk.store, None), clock=clock, worker=False) as engine:
        (ask,) = await engine.open_asks()
        await ask.answer("yes")
        await told(await engine.get("it"))


@pytest.mark.parametrize("after", [False, True])
async def test_an_urgent_message(after: bool) -> None:
    for die_at in range(1, 12):
        desk = Desk(verify=True)
        desk.fake.answer("Enough?", "yes")
        await together(desk, Player(), lambda run: run.tell(Turned()))
        died = await through(desk, "it", die_at, after)
        while (head := await desk.head()).status in ("ready", "parked"):
            await through(desk, "it", None, False)
        assert (head.status, head.value) == ("done", b'"volume 1"'), head.reason
        if not died:
            return
    raise AssertionError("it commits for ever")
