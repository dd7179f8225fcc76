"""Urgent messages that wait themselves: one after the other, cut off, failed, or that others need to get by."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import IntEnum
from typing import Any

import pytest

import segue
from segue import Actor, Interrupt, Note, Request
from segue.model.errors import RunCancelled, RunEnded, RunInterrupted
from segue.runtime.handles import answer_by_id
from segue.runtime.wake import departure
from segue.testing.crash import Mortal
from tests.authoring.killed import through
from tests.runtime.lives import Desk


class Go(Note):
    pass


class Stop(Note):
    fails: bool = False


class How(Request[list[str]]):
    pass


class Done(segue.Envelope):
    """Urgent, and takes long: until its question is answered."""

    urgent = True
    name: str

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        if self.name.startswith("slow"):
            await segue.ask(f"{self.name}?")
        if self.name.startswith("bad"):
            raise ValueError(self.name)
        actor.did.append(self.name)
        return None


class Asked(segue.Envelope, Request[str]):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        await segue.ask("asked?")
        return "late"


class Busy(Actor[list[str]]):
    did: list[str] = segue.field(default_factory=list)

    @segue.on
    async def go(self, note: Go) -> None:
        await segue.ask("go on?")
        self.did.append("go")

    @segue.on
    async def how(self, how: How) -> list[str]:
        return self.did

    def rollback(self) -> None:
        self.did.append("rolled back")  # of what is outside; this is undone with the rest


async def asked(engine: Any, question: str) -> Any:
    while not (found := [ask for ask in await engine.open_asks() if ask.question == question]):
        await asyncio.sleep(0.001)
    return found[0]


async def begun(engine: Any, *, at_work: bool) -> Any:
    """One of which a handler waits, or that waits itself."""
    busy = await engine.start(Busy(), id="it")
    if at_work:
        await busy.tell(Go())
        await asked(engine, "go on?")
    return busy


async def struck(desk: Desk) -> None:
    """Until nothing but what is in hand lies before it."""
    while len(await desk.store.inbox("it", 0)) > 1:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("at_work", [True, False])
async def test_one_after_the_other_also_where_no_handler_waits(at_work: bool) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        busy = await begun(engine, at_work=at_work)
        for name in ("slow one", "two"):
            await busy.tell(Done(name))
        await struck(desk)
        await (await asked(engine, "slow one?")).answer("yes")
        if at_work:
            await (await asked(engine, "go on?")).answer("yes")
        assert [name for name in await busy.request(How()) if name != "go"] == ["slow one", "two"]


@pytest.mark.parametrize("at_work", [True, False])
async def test_an_actor_leaves_memory_without_those_that_struck_and_have_not_begun(
    at_work: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        departure, "PATIENT", departure.ROUNDS
    )  # what doesn't end when it is cancelled is told of
    desk = Desk(park="always")
    async with desk.engine() as engine:
        busy = await begun(engine, at_work=at_work)
        for name in ("slow one", "two"):
            await busy.tell(Done(name))
        await (await asked(engine, "slow one?")).answer("now")
        if at_work:
            await (await asked(engine, "go on?")).answer("now")
        assert sorted(await busy.request(How())) == [*(["go"] if at_work else []), "slow one", "two"]
    assert "refuses to be cancelled" not in caplog.text


@pytest.mark.parametrize("at_work", [True, False])
async def test_at_once_means_those_beside_too(at_work: bool) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        busy = await begun(engine, at_work=at_work)
        asking = asyncio.ensure_future(busy.request(Asked()))
        await asked(engine, "asked?")
        await busy.tell(Done("slow two"))
        await struck(desk)
        await busy.interrupt(Interrupt.NOW)
        with pytest.raises(RunInterrupted):
            await asyncio.wait_for(busy, 5)
        with pytest.raises(RunInterrupted):
            await asking
        dead = [(letter.mail.name, letter.reason) for letter in await engine.dead_letters()]
        cut = [("Go", "Busy.go() was cut off")] if at_work else []
        assert sorted(dead) == sorted([*cut, ("Done", "Done was cut off")])


@pytest.mark.parametrize("after", [False, True])
async def test_at_once_with_the_outcome_that_a_handler_waited_for(after: bool) -> None:
    """Its message isn't lost: it counts, or is a dead letter."""
    for die_at in range(1, 12):
        desk = Desk()
        clock = desk.fake.clock
        async with segue.Engine(Mortal(desk.store, None), clock=clock, linger=0.02) as engine:
            busy = await engine.start(Busy(), id="it")
            await busy.tell(Go())
            ask = await asked(engine, "go on?")
        async with segue.Engine(Mortal(desk.store, None), clock=clock, worker=False) as engine:
            await answer_by_id(engine, ask.id, "yes")
            await (await engine.get("it")).interrupt(Interrupt.NOW)
        died = await through(desk, "it", die_at, after)
        while (await desk.head()).status in ("ready", "parked"):
            await through(desk, "it", None, False)
        assert (await desk.head()).status == "cancelled"
        async with desk.engine() as engine:
            await engine.resume("it")
            did = await (await engine.get("it")).request(How())
            dead = [letter.mail.name for letter in await engine.dead_letters()]
        assert (did, dead) in [(["go"], []), ([], ["Go"])]
        if not died:
            return
    raise AssertionError("it commits for ever")


async def test_one_that_fails_beside_is_a_dead_letter() -> None:
    """Once, wherever it is killed."""
    for die_at in range(1, 20):
        desk = Desk()
        async with desk.engine() as engine:
            busy: segue.Run[Any] = await engine.start(Busy(), id="it")
            await busy.tell(Go())
            ask = await asked(engine, "go on?")
        async with desk.engine(worker=False) as engine:
            await (await engine.get("it")).tell(Done("bad"))
        async with desk.engine(die_at) as engine:
            assert desk.killed is not None
            while not desk.killed.done() and (await desk.head()).status != "parked":
                await asyncio.sleep(0.001)
            died = desk.killed.done()
        async with desk.engine() as engine:
            await answer_by_id(engine, ask.id, "yes")
            assert await (await engine.get("it")).request(How()) == ["go"]
            dead = [(letter.mail.name, letter.reason) for letter in await engine.dead_letters()]
        assert dead == [("Done", "Done failed")]
        if not died:
            return
    raise AssertionError("it commits for ever")


class Floor(IntEnum):
    ONE = 1


class Idle(Actor[None]): ...


class Landlord(Busy):
    groups = Floor

    async def setup(self) -> None:
        await segue.spawn(Idle(), group=Floor.ONE)


class Tidy(Busy):
    @segue.on
    async def stop(self, note: Stop) -> segue.Done[list[str]] | segue.Fail:
        return segue.Fail(KeyError("stop")) if note.fails else segue.Done(self.did)

    async def teardown(self) -> None:
        await segue.ask("tidy?")


class Late(Busy):
    async def begin(self) -> None:
        await segue.ask("begin?")
        raise KeyError("begin")


@pytest.mark.parametrize("how", ["cancel", "cancelled", "done", "failed", "never begun"])
async def test_who_asked_hears_of_the_end(how: str) -> None:
    """As of any request whose actor ends before it answers."""
    desk = Desk()
    made: Any = {"cancel": Busy, "cancelled": Landlord, "never begun": Late}.get(how, Tidy)()
    async with segue.Engine(Mortal(desk.store, None), linger=0.02) as engine:
        busy = await engine.start(made, id="it")
        await busy.tell(Go() if "cancel" in how else Stop(fails=how == "failed"))
        first = await asked(
            engine, {"cancel": "go on?", "cancelled": "go on?", "never begun": "begin?"}.get(how, "tidy?")
        )
        asking = asyncio.ensure_future(busy.request(Asked()))
        await asked(engine, "asked?")
        await busy.tell(Done("slow"))
        await struck(desk)
        await (busy.cancel() if "cancel" in how else first.answer("yes"))
        with pytest.raises(RunEnded, match="failed" if how == "never begun" else how):
            await asyncio.wait_for(asking, 5)
        assert "Done" in [letter.mail.name for letter in await engine.dead_letters()]


@pytest.mark.parametrize("level", [Interrupt.AFTER_HANDLER, Interrupt.NOW])
async def test_asked_to_end_while_it_ends(level: Interrupt) -> None:
    desk = Desk()
    async with segue.Engine(Mortal(desk.store, None), linger=0.02) as engine:
        busy = await engine.start(Tidy(), id="it")
        await busy.tell(Stop())
        first = await asked(engine, "tidy?")
        await busy.interrupt(level)
        await struck(desk)
        await first.answer("yes")
        assert await asyncio.wait_for(busy, 5) == []


class Cut(segue.Envelope):
    """Cuts off what is at work."""

    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        await turn.abort()
        return None


@segue.step
async def tried() -> None:
    TRIED.append(1)


class Slow(Actor[int]):
    async def setup(self) -> None:
        await segue.ask("setup?")

    @segue.on
    async def go(self, note: Go) -> None:
        await tried()
        raise KeyError("go")

    @segue.on
    async def stop(self, note: Stop) -> segue.Done[int]:
        return segue.Done(len(TRIED))

    async def failed(self, error: Exception) -> None:
        await segue.ask("failed?")


TRIED: list[int] = []


async def test_a_hook_that_is_cut_off() -> None:
    TRIED.clear()
    desk = Desk()

    async def engine() -> Any:
        return segue.Engine(Mortal(desk.store, None), linger=0.02, verify=False)

    async with await engine() as first:
        slow = await first.start(Slow(), id="it")
        ask = await asked(first, "setup?")
        await slow.tell(Cut())
        async with asyncio.timeout(5):
            while (anew := await asked(first, "setup?")).id == ask.id:
                await asyncio.sleep(0.001)
    async with await engine() as second:
        await answer_by_id(second, anew.id, "yes")
        slow = await second.get("it")
        await slow.tell(Go())
        await asked(second, "failed?")
        await slow.tell(Cut())
        await slow.tell(Stop())
        assert await asyncio.wait_for(slow, 5) == 1
        assert [letter.mail.name for letter in await second.dead_letters()] == ["Go"]


class Careful(Actor[None]):
    @segue.on
    async def go(self, note: Go) -> None:
        await segue.ask("go on?")

    async def rollback(self) -> None:
        await segue.ask("undone?")


async def asked_anew_once_cancelled(engine: segue.Engine, run: segue.Run[Any], question: str) -> str:
    """A hook that asks is cut off, and called again; the id of the question that it asks then."""
    ask = await asked(engine, question)
    await run.cancel()
    async with asyncio.timeout(5):
        while (anew := await asked(engine, question)).id == ask.id:
            await asyncio.sleep(0.001)
    return anew.id


async def comes_to_its_end(desk: Desk, ask: str) -> None:
    """In a later life, with that answer."""
    async with segue.Engine(Mortal(desk.store, None), linger=0.02) as engine:
        await answer_by_id(engine, ask, "yes")
        with pytest.raises(RunCancelled):
            await asyncio.wait_for(await engine.get("it"), 5)


async def test_a_rollback_that_is_cut_off_by_a_cancellation() -> None:
    desk = Desk()
    async with segue.Engine(Mortal(desk.store, None), linger=0.02) as engine:
        careful = await engine.start(Careful(), id="it")
        await careful.tell(Go())
        await asked(engine, "go on?")
        await careful.interrupt(Interrupt.NOW)
        anew = await asked_anew_once_cancelled(engine, careful, "undone?")
    await comes_to_its_end(desk, anew)


async def test_a_teardown_that_is_cut_off_by_a_cancellation() -> None:
    desk = Desk()
    async with segue.Engine(Mortal(desk.store, None), linger=0.02) as engine:
        tidy = await engine.start(Tidy(), id="it")
        await tidy.tell(Stop())
        anew = await asked_anew_once_cancelled(engine, tidy, "tidy?")
    await comes_to_its_end(desk, anew)


class Init(Request[int]):
    pass


BEGUN: list[int] = []


class Lodger(Actor[int]):
    number: int

    def begin(self) -> segue.Listen:
        BEGUN.append(self.number)
        if BEGUN.count(2) == 1:
            raise ValueError("the second lodger begins at the second try")
        return segue.Listen()

    @segue.on
    async def init(self, i: Init) -> int:
        return self.number

    @segue.on
    async def go(self, note: Go) -> segue.Done[int]:
        return segue.Done(1)


class House(Actor[str]):
    """Its handler waits as a lodger leaves; who takes the room can't begin."""

    groups = Floor
    restart = segue.Restart("one", times=2)

    @segue.on
    async def go(self, note: Go) -> None:
        first = await segue.spawn(Lodger(1), group=Floor.ONE)
        await first.tell(Go())
        await segue.sleep(timedelta(seconds=30))

    async def finished(self, child: segue.Ended) -> segue.Done[str] | None:
        if child.why != "done":
            return None
        other = await segue.spawn(Lodger(2), group=Floor.ONE)
        return segue.Done(f"{child.value} and {await other.request(Init())}")


async def test_what_a_supervisor_waits_for_may_begin_anew_meanwhile() -> None:
    """Its verdict is asked for while `finished` waits beside a handler: it doesn't wait for that."""
    BEGUN.clear()
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(House())
        await house.tell(Go())
        assert await asyncio.wait_for(house, 5) == "1 and 2"
        assert BEGUN == [1, 2, 2]
