"""A supervisor's children are written down as changes: what is stored grows with what happens, not with how many."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec
import pytest

import segue
from segue.authoring.actor.checkpoint import Child, Delta, read_stored, write_checkpoint
from segue.authoring.actor.family import Family
from segue.authoring.actor.tail import Tail
from segue.ports.store import Turn
from segue.runtime.wake import departure
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


def last_of(family: Family, groups: list[str]) -> tuple[str, str]:
    """The rank that is to end first, by its definition."""
    present = dict.fromkeys(each.group for each in family)
    others = [name for name in present if name not in groups]
    group = next(name for name in reversed([*groups, *others]) if name in present)
    return group, list(dict.fromkeys(each.member for each in family if each.group == group))[-1]


@pytest.mark.parametrize("seed", range(40))
def test_the_last_rank_is_found_as_if_all_were_looked_at(seed: int) -> None:
    chance = random.Random(seed)

    def one(id: int) -> Child:
        return Child(str(id), chance.choice("ABCD"), "leaf", "temporary", member=chance.choice("123"))

    family = Family([one(id) for id in range(chance.randrange(10))])
    groups = ["A", "B", "C", "D"][: chance.randrange(2, 5)]
    for id in range(100, 300):
        if chance.random() < 0.5 or not len(family):
            family.put(one(id))
        else:
            family.drop(chance.choice(list(family)).id)
        if len(family) and chance.random() < 0.7:
            rank = family.last(groups)
            assert rank == last_of(family, groups)
            assert family.of(rank) == [each for each in family if (each.group, each.member) == rank]


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


class Stair(segue.Actor[None]):
    """Has as many lodgers as it is told, all in one group or each in a part of its own; one goes after the other."""

    groups = Floor
    many: int
    apart: bool

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        for i in range(self.many):
            await segue.spawn(Slow(i), group=(Floor.HALL, i) if self.apart else Floor.HALL)
        return segue.Listen()


@dataclass
class Opening: ...


class Slow(segue.Actor[None]):
    i: int

    async def teardown(self) -> None:
        for _ in range(20 * self.i):
            await asyncio.sleep(0)


@pytest.mark.parametrize("apart", [False, True])
async def test_an_end_looks_at_each_child_a_few_times(apart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at all of them whenever one has ended."""
    looks = {"all": 0, "rank": 0, "words": 0}
    everybody, of, last = Family.__iter__, Family.of, Family.last

    def counted_all(family: Family) -> Any:
        looks["all"] += len(family)
        return everybody(family)

    def counted(family: Family, rank: Any) -> list[Child]:
        found = of(family, rank)
        looks["rank"] += len(found)
        return found

    def asked(family: Family, groups: Any) -> Any:
        looks["words"] += 1
        return last(family, groups)

    monkeypatch.setattr(Family, "__iter__", counted_all)
    monkeypatch.setattr(Family, "of", counted)
    monkeypatch.setattr(Family, "last", asked)
    monkeypatch.setattr(departure, "LARGE", 1)  # it stays in memory for the next word, as a large one does
    monkeypatch.setattr(departure, "STAY_BYTE", 1.0)
    many = 40
    async with segue.Engine("memory:") as engine:
        stair = await engine.start(Stair(many, apart), id="stair")
        await stair.interrupt()
        assert (await engine.wait("stair")).status == "cancelled"
    assert looks["words"] >= many // 2, looks  # they came one by one
    assert looks["all"] + looks["rank"] <= 4 * many, looks
