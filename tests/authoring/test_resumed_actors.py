"""Actors that failed or were interrupted, and that a person has go on: with their fields, and mail that was kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import IntEnum
from pathlib import Path

import pytest

import segue
from segue import Actor, Done, Fail, Interrupt, Note, Request
from segue.errors import Conflict
from segue.model.errors import RunCancelled, RunInterrupted
from segue.runtime.handles import answer_by_id
from segue.stores import open_store
from segue.testing.crash import Mortal
from tests.runtime.lives import Desk

CALLED: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    CALLED.clear()


async def dies(desk: Desk, die_at: int, *, after: bool) -> bool:
    """A life of the engine, until the run `it` has ended or the process is killed; whether it was."""
    async with desk.engine(die_at, after=after) as engine:
        assert desk.killed is not None
        ending = asyncio.ensure_future(engine.wait("it"))
        await asyncio.wait({ending, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
        died = desk.killed.done()
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    return died


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


class Walk(Actor[list[int]]):
    """Its states wait, and each step of the way is taken once."""

    got: list[int] = segue.field(default_factory=list)

    def begin(self) -> Ask:
        return Ask(1)

    @segue.state
    async def ask(self, at: Ask) -> Ask | Done[list[int]]:
        await seen(f"at {at.n}")
        await segue.ask(f"{at.n}?")
        self.got.append(at.n)
        return Ask(at.n + 1) if at.n < 3 else Done(self.got)


class CarefulWalk(Walk):
    async def teardown(self) -> None:
        await tidy()


@segue.step
async def seen(text: str) -> None:
    CALLED.append(text)


@pytest.mark.parametrize("cls", [Walk, CarefulWalk])
async def test_it_goes_on_after_the_state_after_which_it_ended(cls: type[Walk]) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(cls(), id="it")
        for n in (1, 2, 3):
            while not (asks := [ask for ask in await engine.open_asks() if ask.question == f"{n}?"]):
                await asyncio.sleep(0.001)
            if n == 2:
                await run.interrupt(Interrupt.AFTER_HANDLER)
                while await desk.store.inbox("it", 0):  # it has struck
                    await asyncio.sleep(0.001)
            await asks[0].answer("yes")
            if n == 2:
                with pytest.raises(RunInterrupted):
                    await run
                await engine.resume("it")
                run = await engine.get("it")
        assert await run == [1, 2, 3]
    assert [call for call in CALLED if call != "tidy"] == ["at 1", "at 2", "at 3"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("cls", [Book, Careful])
async def test_the_message_after_which_it_ended_counts_whatever_crashes(cls: type[Book], after: bool) -> None:
    for die_at in range(1, 20):
        desk = Desk()
        clock = desk.fake.clock
        async with segue.Engine(Mortal(desk.store, None), clock=clock, linger=0.02) as engine:
            run = await engine.start(cls(), id="it")
            await run.feed([Ask(1), Add(2)])
            while not (asks := await engine.open_asks()):
                await asyncio.sleep(0.001)
            await run.interrupt(Interrupt.AFTER_HANDLER)
        async with segue.Engine(Mortal(desk.store, None), clock=clock, worker=False) as engine:
            await answer_by_id(engine, asks[0].id, "yes")
        died = await dies(desk, die_at, after=after)
        while (await desk.head()).status in ("ready", "parked"):
            await dies(desk, 0, after=False)
        async with desk.engine() as engine:
            await engine.resume("it")
            (dead,) = await engine.dead_letters()
            assert dead.mail.name == "Add"
            await engine.resend(dead.id)
            run = await engine.get("it")
            assert await run.request(Sum()) == [1, 2]
        if not died:
            return
    raise AssertionError("it commits for ever")


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
        died = await dies(desk, die_at, after=after)
        async with desk.engine() as engine:
            assert await engine.result("it") == [1]
        assert ["tidy"] * (2 if after or not died else len(CALLED)) == CALLED
        assert len(CALLED) <= 3  # a step is done again where it died in it
        if not died:
            return
    raise AssertionError("it commits for ever")


# ---------------------------------------------------------------- supervisors
class Floors(IntEnum):
    CELLAR = 1
    HALL = 2


class Lodger(Book):
    def teardown(self) -> None:
        CALLED.append("left")


class Where(Request[list[str]]):
    """Who lives here, and how their ends were told."""


@segue.step
async def look() -> None:
    CALLED.append("watch")


@segue.flow
async def watch() -> str:
    await look()
    await segue.ask("Who is there?")
    return "watched"


class Landlord(Book):
    groups = Floors
    told: list[str] = segue.field(default_factory=list)

    async def setup(self) -> None:
        CALLED.append("setup")
        await segue.spawn(Lodger(), group=Floors.CELLAR, id="ada")
        await segue.spawn(Lodger(), group=(Floors.HALL, "flat 2"), id="bob")
        await segue.spawn(Lodger(), group=Floors.HALL, id="cyd", restart="temporary")

    def finished(self, child: segue.Ended) -> None:
        self.told.append(f"{child.run.id} {child.why} {child.member}")

    @segue.on
    async def where(self, _: Where) -> list[str]:
        return self.told


class Agency(Book):
    """Supervises a supervisor, and a flow."""

    groups = Floors

    async def setup(self) -> None:
        await segue.spawn(Landlord(), group=Floors.CELLAR, id="landlord")
        await segue.spawn(watch(), group=Floors.HALL, id="watch")


def ended(how: str) -> type[Exception]:
    return ValueError if how == "failed" else RunInterrupted if how == "interrupted" else RunCancelled


async def end(run: segue.Run[list[int]], how: str) -> None:
    if how == "failed":
        await run.tell(Break())
    elif how == "interrupted":
        await run.interrupt()
    else:
        await run.cancel()
    with pytest.raises(ended(how)):
        await run


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("how", ["failed", "interrupted", "cancelled"])
async def test_children_go_on_with_their_supervisor(how: str, kind: str, tmp_path: Path) -> None:
    desk = Desk(open_store(f"sqlite:{tmp_path}/runs.db") if kind == "sqlite" else None)
    async with desk.engine() as engine:
        landlord = await engine.start(Landlord(), id="it")
        await landlord.request(Where())
        ada, bob, cyd = [await engine.get(id) for id in ("ada", "bob", "cyd")]
        await bob.tell(Add(1))
        assert await bob.request(Sum()) == [1]
        await cyd.tell(Stop())  # done before, so it stays so
        await until(lambda: cyd_is_told(landlord))
        await end(landlord, how)
        assert [(await run.head()).status for run in (ada, bob, cyd)] == ["cancelled", "cancelled", "done"]
    CALLED.clear()
    async with desk.engine() as engine:
        assert await engine.resume("it") == ["it", "ada", "bob"]
        landlord, ada, bob = [await engine.get(id) for id in ("it", "ada", "bob")]
        await bob.tell(Add(2))
        assert await bob.request(Sum()) == [1, 2]
        await bob.tell(Break())  # it is supervised as before: it begins anew
        assert await bob.request(Sum()) == []
        assert await ada.request(Sum()) == []
        assert CALLED == ["left"]  # bob, once: nobody was set up, or spawned, again
        await landlord.tell(Stop())
        assert await landlord == []
        assert sorted(CALLED) == ["left"] * 3
        assert [(await run.head()).status for run in (ada, bob)] == ["cancelled", "cancelled"]
    await desk.store.close()


async def cyd_is_told(landlord: segue.Run[list[int]]) -> bool:
    return await landlord.request(Where()) == ["cyd done None"]


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await found():
            await asyncio.sleep(0.001)


async def test_supervisors_below_go_on_with_theirs() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        agency = await engine.start(Agency(), id="it")
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
        assert await (await engine.get("landlord")).request(Where()) == []
        await end(agency, "interrupted")
        assert CALLED == ["setup", "watch", "left", "left", "left"]
    CALLED.clear()
    async with desk.engine() as engine:
        *resumed, flow = sorted(await engine.resume("it"))
        assert resumed == ["ada", "bob", "cyd", "it", "landlord", "watch"]
        assert flow.startswith("watch.")  # the flow itself, which `watch` carries out
        assert await (await engine.get("cyd")).request(Sum()) == []
        while not (asks := await engine.open_asks()):
            await asyncio.sleep(0.001)
        await asks[0].answer("ann")
        assert await engine.result("watch") == "watched"
        assert CALLED == []  # what it had done it didn't do again
        agency = await engine.get("it")
        await end(agency, "interrupted")
        assert CALLED == ["left"] * 3
        assert sorted(await engine.resume("it")) == ["ada", "bob", "cyd", "it", "landlord"]


@pytest.mark.parametrize("after", [False, True])
async def test_it_goes_on_with_them_whatever_crashes(after: bool) -> None:
    for die_at in range(1, 20):
        CALLED.clear()
        desk = Desk()
        async with desk.engine() as engine:
            landlord = await engine.start(Landlord(), id="it")
            await landlord.request(Where())
            await end(landlord, "interrupted")
            CALLED.clear()
        async with desk.engine(worker=False) as engine:
            await engine.resume("it")
            await (await engine.get("it")).tell(Stop())
        died = await dies(desk, die_at, after=after)
        async with desk.engine() as engine:
            assert await engine.result("it") == []
            for id in ("ada", "bob", "cyd"):
                assert (await engine.head(id)).status == "cancelled"
        if not died:
            assert CALLED == ["left"] * 3
            return
    raise AssertionError("it commits for ever")


async def test_a_child_that_is_gone_on_with_meanwhile_is_left_to_go_on() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        landlord = await engine.start(Landlord(), id="it")
        await landlord.request(Where())
        await end(landlord, "interrupted")
        assert await engine.resume("ada") == ["ada"]
        assert await engine.resume("it") == ["it", "bob", "cyd"]
        assert await (await engine.get("ada")).request(Sum()) == []
        await end(await engine.get("it"), "interrupted")
        assert (await engine.head("ada")).status == "cancelled"  # it is its supervisor's again


MORE: list[str] = []  # what is done first, since the code changed


class Known(Request[list[str]]): ...


class Lessor(Actor[None]):
    groups = Groups
    known: tuple[str, ...] = ()

    @segue.on
    async def let(self, note: Add) -> None:
        for name in MORE:
            await note_down(name)
        run = await segue.spawn(Helper(), group=Groups.HELPERS)
        await segue.ask("To whom?")
        self.known = (run.id,)

    @segue.on
    async def who(self, message: Known) -> list[str]:
        return list(self.known)


@segue.step
async def note_down(name: str) -> None:
    CALLED.append(name)


async def test_a_child_of_a_turn_that_is_resumed_under_changed_code_is_supervised() -> None:
    MORE.clear()
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Lessor(), id="it")
        await run.tell(Add(1))
        while not (asks := await engine.open_asks()):
            await asyncio.sleep(0.001)
        await desk.parked()
    MORE.append("first")
    async with desk.engine(worker=False) as engine:
        await engine.answer(asks[0].id, "Ada")
    async with desk.engine() as engine:
        await desk.until("it", "held")
        await engine.resume("it")
        run = await engine.get("it")
        (child,) = [head.id for head in await desk.store.runs() if head.id != "it"]
        assert await run.request(Known()) == [child]
        await run.interrupt()
        with pytest.raises(RunInterrupted):
            await run
        assert (await desk.head(child)).status == "cancelled"
    assert CALLED == ["first"]
    MORE.clear()
