"""A supervisor's children are written down as changes: what is stored grows with what happens, not with how many."""

from __future__ import annotations

import asyncio
import random
from enum import Enum
from typing import Any

import msgspec
import pytest

import segue
from segue.authoring.actor.checkpoint import Child, Delta, read_stored, write_checkpoint
from segue.authoring.actor.family import Family
from segue.authoring.actor.tail import Tail
from segue.ports.store import Turn
from tests.authoring.test_long_lives import Written

HEAD, BASE = b'{"fields":null}', b'{"fields":{}}'


def child(id: str, level: int = 0) -> Child:
    return Child(id, "HALL", "leaf", "temporary", level=level)


class Shelf:
    """What is stored of a family, as an actor's wakes leave it."""

    def __init__(self, family: Family) -> None:
        self.family, self.deltas = family, list[bytes]()
        self.base, self.tail = BASE, Tail()

    def write(self, *, whole: bool) -> None:
        if whole or self.family.scrambled:
            stored = msgspec.json.decode(BASE) | {"children": self.family.whole()}
            self.base, self.deltas, self.tail = write_checkpoint(stored), [], Tail()
        else:
            delta = Delta(HEAD, [], kin=self.family.changed(), fields=b"{}")
            new = self.tail.add(delta, 0, lambda *_: b"")
            turn = Turn(run="a", fence=1, delta=new.delta, replaces=new.replaces)
            self.deltas = turn.after(self.deltas)

    def read(self) -> list[Child]:
        return read_stored(self.base, self.deltas).children


def here(children: list[Child]) -> list[Child]:
    """Those that haven't ended with their supervisor."""
    return [child for child in children if not child.gone]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_read_is_what_was_kept(seed: int) -> None:
    chance = random.Random(seed)
    family = Family([])
    shelf, kept = Shelf(family), list(family)
    rows = 0
    for _ in range(80):
        rows = max(rows, len(shelf.deltas))
        id = str(chance.randrange(8))
        match chance.randrange(8):
            case 0 | 1:
                family.put(child(id, chance.randrange(5)))
            case 2 if id in family:
                family.drop(id)
            case 3:
                family.keep()
                kept = list(family)
            case 4:
                settled = list(family) == kept  # else what goes or comes meanwhile may stand elsewhere
                shelf.write(whole=chance.random() < 0.2)
                if settled:
                    assert here(shelf.read()) == kept
                assert sorted(here(shelf.read()), key=str) == sorted(kept, key=str)
            case 6 if id in family:
                family.leave(id)
            case 7 if chance.random() < 0.2:
                family.back({"0", "1", id})
            case 5 if chance.random() < 0.1:
                family.keep()
                kept = list(family)
                shelf.write(whole=False)
                family = shelf.family = Family(shelf.read())  # another wake
                shelf.tail = Tail(shelf.deltas)
                assert list(family) == kept
            case _:
                pass
    family.keep()
    shelf.write(whole=False)
    assert here(shelf.read()) == list(family)
    assert len(family) == len(list(family))
    assert rows < 6


class Floor(Enum):
    HALL = 1


class Come(segue.Note):
    pass


class Lodger(segue.Actor[None]):
    """Waits."""


class House(segue.Actor[int]):
    groups = Floor
    come: int = 0

    @segue.on
    async def one(self, _: Come) -> None:
        self.come += 1
        await segue.spawn(Lodger(), group=Floor.HALL)


async def test_bytes_written_grow_with_what_happens() -> None:
    """Each child that comes one after the other, and each that goes, is written a few times, not as often as there
    are others."""
    store, many = Written(), 300

    async def written() -> tuple[int, int]:
        mine = [turn for turn in store.turns if turn.run == "house"]
        return sum(len(turn.checkpoint or b"") + len(turn.delta or b"") for turn in mine), len(mine)

    async with segue.Engine(store) as engine:
        house = await engine.start(House(), id="house")
        for _ in range(many):
            await house.tell(Come())
            while await store.inbox("house", 0):
                await asyncio.sleep(0)
        came, commits = await written()
        stored: Any = await store.load("house")
        children = read_stored(stored.checkpoint, stored.deltas).children
        await house.interrupt()
        await engine.wait("house")
        gone, _ = await written()
    assert len(children) == many
    assert commits > many
    one = len(write_checkpoint(children)) // many
    assert came < 8 * one * many, (came, one)
    assert gone - came < 8 * one * many, (gone - came, one)
