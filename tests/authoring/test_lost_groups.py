"""Children of groups that their supervisor's class doesn't have: it has become another, or was changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Done, Listen, Note
from segue.model.run import Head
from segue.testing import FakeModel
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

ENDS: list[str] = []


class Rooms(IntEnum):
    BACK = 1
    FRONT = 2


@dataclass
class Stay: ...


class Leave(Note): ...


class Guest(Actor[None]): ...


class Upstairs(IntEnum):
    ROOF = 1


class Settled(Actor[list[str]]):
    """What the wanderer becomes."""

    told: list[str] = segue.field(default_factory=list)

    def begin(self) -> Stay:
        return Stay()

    @segue.state
    async def stay(self, _: Stay) -> Listen:
        return Listen()

    @segue.on
    async def stop(self, _: Leave) -> Done[list[str]]:
        return Done(self.told)

    def finished(self, child: segue.Ended) -> None:
        ENDS.append(str(child.group))


class Roofed(Settled):
    groups = Upstairs

    @segue.state
    async def stay(self, _: Stay) -> Listen:
        await segue.spawn(Guest(), group=Upstairs.ROOF, id="roof")
        return Listen()


class Wanderer(Actor[list[str]]):
    groups = Rooms
    roofed: bool

    def begin(self) -> Stay:
        return Stay()

    @segue.state
    async def stay(self, _: Stay) -> Settled | Roofed:
        await segue.spawn(Guest(), group=Rooms.FRONT, id="front")
        await segue.spawn(Guest(), group=Rooms.BACK, id="back")
        return Roofed() if self.roofed else Settled()


@pytest.mark.parametrize("roofed", [False, True])
async def test_children_of_what_the_actor_was_before_are_ended_too(roofed: bool) -> None:
    ENDS.clear()
    async with FakeModel() as model:
        run = await model.engine.start(Wanderer(roofed), id="w")
        await run.tell(Leave())
        assert await run == []
        heads = {head.id: head.status for head in await model.engine.store.runs()}
    assert heads.pop("w") == "done"
    assert set(heads.values()) == {"cancelled"}
    assert ["BACK", "FRONT", *(["1"] if roofed else [])] == ENDS


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        run = await engine.start(Wanderer(True), id="w")
        await run.tell(Leave())

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.reason) == ("done", "")

    assert await at_every_commit(begin, "w", check, kind=kind, path=tmp_path) > 10


async def test_a_group_that_was_taken_out_of_the_code() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(Changed(), id="c")
        await desk.parked("c")
    definition = Changed.__segue__  # type: ignore[attr-defined]  # set when the class is made
    definition.groups = Upstairs
    try:
        async with desk.engine() as engine:
            run = await engine.get("c")
            await run.tell(Leave())
            assert await run is None
            assert (await desk.head("front")).status == "cancelled"
    finally:
        definition.groups = Rooms


class Changed(Actor[None]):
    groups = Rooms

    def begin(self) -> Stay:
        return Stay()

    @segue.state
    async def stay(self, _: Stay) -> Listen:
        await segue.spawn(Guest(), group=Rooms.FRONT, id="front")
        return Listen()

    @segue.on
    async def leave(self, _: Leave) -> Done[None]:
        return Done()
