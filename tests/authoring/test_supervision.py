"""Supervised children: ended group by group, begun anew by policy; whatever crashes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import IntEnum
from typing import Any

import pytest

import segue
from segue import Actor, Done, Ended, Fail, Note, Request, Restart
from tests.runtime.lives import Desk

S: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()


class Floor(IntEnum):
    CELLAR = 1
    HALL = 2
    ATTIC = 3


class Stop(Note):
    pass


class Break(Note):
    pass


class Count(Request[int]):
    pass


class Hire(Note):
    floor: Floor
    name: str
    restart: str = "transient"


class Lodger(Actor[str]):
    name: str
    count: int = 0

    def setup(self) -> None:
        S.append(f"{self.name} comes")

    def teardown(self) -> None:
        S.append(f"{self.name} goes")

    @segue.on
    async def stop(self, _: Stop) -> Done[str]:
        return Done(self.name)

    @segue.on
    async def break_(self, _: Break) -> Fail:
        return Fail(ValueError(f"{self.name} broke"))

    @segue.on
    async def counted(self, _: Count) -> int:
        self.count += 1
        return self.count


class House(Actor[str]):
    groups = Floor
    restart = Restart("one", times=2, within=timedelta(minutes=1))
    ends: list[str] = segue.field(default_factory=list)

    @segue.on
    async def hire(self, note: Hire) -> None:
        await segue.spawn(Lodger(note.name), group=note.floor, restart=note.restart, id=f"lodger/{note.name}")  # type: ignore[arg-type]

    @segue.on
    async def stop(self, _: Stop) -> Done[str]:
        return Done("closed")

    def finished(self, child: Ended) -> None:
        S.append(f"{child.run.id} {child.group.name} {child.why} {child.value or child.error}")
        self.ends.append(child.run.id)

    def teardown(self) -> None:
        S.append("house closes")


async def test_groups_end_from_the_last_to_the_first() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house")
        for floor, name in ((Floor.CELLAR, "c"), (Floor.ATTIC, "a1"), (Floor.HALL, "h"), (Floor.ATTIC, "a2")):
            await house.tell(Hire(floor, name))
        lodger = await engine.get("lodger/c") if False else None
        await until(lambda: len(S) == 4)
        S.clear()
        await house.tell(Stop())
        assert await house == "closed"
        goes = [said for said in S if said.endswith("goes") or said == "house closes"]
        assert sorted(goes[:2]) == ["a1 goes", "a2 goes"]
        assert goes[2:] == ["h goes", "c goes", "house closes"]
        assert len([said for said in S if "interrupted" in said]) == 4
        assert lodger is None


async def test_a_child_that_fails_begins_anew_with_its_mail() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house2")
        await house.tell(Hire(Floor.HALL, "x"))
        await until(lambda: "x comes" in S)
        x = await engine.get("lodger/x")
        assert await x.request(Count()) == 1
        assert await x.request(Count()) == 2
        await x.tell(Break())
        assert await x.request(Count()) == 1  # anew, and the request wasn't lost
        assert S == ["x comes", "x goes", "x comes"]
        await x.tell(Stop())
        assert await x == "x"  # transient: done is done
        await until(lambda: "lodger/x HALL done x" in S)


async def test_one_that_fails_too_often_is_set_aside() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House(), id="house3")
        await house.tell(Hire(Floor.HALL, "y"))
        await until(lambda: "y comes" in S)
        y = await engine.get("lodger/y")
        for _ in range(3):
            await y.tell(Break())
        with pytest.raises(segue.model.errors.RunHeld, match="y broke"):
            await y
        assert S.count("y comes") == 3
        await house.tell(Stop())  # held ones are cancelled in the end
        desk.clock.advance(timedelta(minutes=5)) if hasattr(desk, "clock") else None


async def until(what: Any) -> None:
    for _ in range(2000):
        if what():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(S)
