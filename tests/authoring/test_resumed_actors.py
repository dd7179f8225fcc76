"""Actors that failed or were interrupted, and that a person has go on: with their fields, and mail that was kept."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from pathlib import Path

import pytest

import segue
from segue import Actor, Done, Fail, Interrupt, Note, Request
from segue.errors import Conflict
from segue.model.errors import RunInterrupted
from segue.stores import open_store
from tests.runtime.lives import Desk

CALLED: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    CALLED.clear()


class Groups(IntEnum):
    HELPERS = 1


class Add(Note):
    n: int


class Ask(Note):
    n: int


class Break(Note): ...


class Stop(Note): ...


class Sum(Request[list[int]]): ...


class Book(Actor[list[int]]):
    got: list[int] = segue.field(default_factory=list)

    @segue.on
    async def add(self, note: Add) -> None:
        self.got.append(note.n)

    @segue.on
    async def ask(self, note: Ask) -> None:
        await segue.ask("Add it?")
        self.got.append(note.n)

    @segue.on
    async def break_(self, _: Break) -> Fail:
        return Fail(ValueError("broken"))

    @segue.on
    async def stop(self, _: Stop) -> Done[list[int]]:
        return Done(self.got)

    @segue.on
    async def sum(self, _: Sum) -> list[int]:
        return self.got


class Careful(Book):
    """One whose end takes time, and is written down before."""

    def setup(self) -> None:
        CALLED.append("setup")

    def teardown(self) -> None:
        CALLED.append("teardown")


@segue.step
async def tidy() -> None:
    CALLED.append("tidy")


class Slow(Careful):
    async def teardown(self) -> None:
        await tidy()
        await tidy()


class Helper(Actor[None]): ...


class House(Book):
    groups = Groups

    async def setup(self) -> None:
        await segue.spawn(Helper(), group=Groups.HELPERS, id="helper")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("how", [None, *Interrupt])
@pytest.mark.parametrize("cls", [Book, Careful, House])
async def test_what_ended_goes_on(cls: type[Book], how: Interrupt | None, kind: str, tmp_path: Path) -> None:
    desk = Desk(open_store(f"sqlite:{tmp_path}/runs.db") if kind == "sqlite" else None)
    async with desk.engine() as engine:
        run = await engine.start(cls(), id="it")
        await run.tell(Add(1))
        assert await run.request(Sum()) == [1]
        await (run.tell(Break()) if how is None else run.interrupt(how))
        with pytest.raises(ValueError if how is None else RunInterrupted):
            await run
    async with desk.engine() as engine:
        await engine.resume("it")
        run = await engine.get("it")
        await run.tell(Add(2))
        assert await run.request(Sum()) == [1, 2]
        await run.tell(Stop())
        assert await run == [1, 2]
    assert (["setup", "teardown", "teardown"] if cls is Careful else []) == CALLED
    await desk.store.close()


async def test_what_it_hadnt_handled_is_kept_and_sent_again() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Careful(), id="it")
        await run.tell(Ask(1))
        await run.tell(Add(2))
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
        await run.interrupt(Interrupt.NOW)
        with pytest.raises(RunInterrupted):
            await run
        cut, left = await engine.dead_letters()
        assert (cut.mail.name, cut.reason) == ("Ask", "Careful.ask() was cut off")
        assert (left.mail.name, left.reason) == ("Add", "the run had ended (cancelled)")
        with pytest.raises(Conflict, match="`segue resume it`"):
            await engine.resend(left.id)
        await engine.resume("it")
        for letter in (left, cut):
            await engine.resend(letter.id)
        while not (asks := await engine.open_asks()):
            await asyncio.sleep(0.001)
        await asks[0].answer("yes")
        assert await run.request(Sum()) == [2, 1]


@pytest.mark.parametrize("after", [False, True])
async def test_its_next_end_is_gone_through_once_whatever_crashes(after: bool) -> None:
    for die_at in range(1, 20):
        CALLED.clear()
        desk = Desk()
        async with desk.engine() as engine:
            run = await engine.start(Slow(), id="it")
            await run.interrupt()
            with pytest.raises(RunInterrupted):
                await run
            await engine.resume("it")
            await run.tell(Add(1))
            await run.request(Sum())
        CALLED.clear()
        async with desk.engine(worker=False) as engine:
            await (await engine.get("it")).tell(Stop())
        async with desk.engine(die_at, after=after) as engine:
            assert desk.killed is not None
            ending = asyncio.ensure_future(engine.wait("it"))
            await asyncio.wait({ending, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
            died = desk.killed.done()
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        async with desk.engine() as engine:
            assert await engine.result("it") == [1]
        assert ["tidy"] * (2 if after or not died else len(CALLED)) == CALLED
        assert len(CALLED) <= 3  # a step is done again where it died in it
        if not died:
            return
    raise AssertionError("it commits for ever")
