"""Urgent messages: kinds of one's own, interruption in three levels; while a handler waits, whatever crashes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Answer, Done, Interrupt, Interrupted, Interruption, Listen, Note, Request
from segue.authoring.actor.envelope import ENVELOPES
from segue.errors import RunCancelled
from segue.model.errors import RunInterrupted
from segue.model.run import Head
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

DID: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    DID.clear()


# ---------------------------------------------------------------- a kind of one's own, in a few lines
signal = segue.kind("signal")


class Signal(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return await turn.handler("signal", type(self))(self)


class Louder(Signal):
    by: int = 1


class Enough(Signal):
    pass


class Volume(Signal, Request[int]):
    pass


class Played(Signal, Request[int]):
    pass


class Unknown(Signal):
    pass


class Long(Note):
    text: str


class Short(Note):
    text: str


class Report(Request[list[str]]):
    pass


@segue.step
async def note(text: str) -> str:
    DID.append(text)
    return text


class Player(Actor[list[str]]):
    volume: int = 0
    played: list[str] = segue.field(default_factory=list)

    @segue.on
    async def play(self, song: Long) -> None:
        self.played.append(f"begin {song.text} {self.volume}")
        said = await segue.ask(song.text)
        self.played.append(f"end {said} {self.volume}")

    @segue.on
    async def short(self, song: Short) -> None:
        self.played.append(f"short {song.text} {self.volume}")

    @segue.on
    async def report(self, request: Report) -> list[str]:
        return self.played

    @signal
    async def louder(self, signal: Louder) -> None:
        await note(f"louder {self.volume}")
        self.volume += signal.by

    @signal
    async def enough(self, signal: Enough) -> Done[list[str]]:
        return Done(self.played)

    @signal
    async def how_loud(self, signal: Volume) -> int:
        return self.volume

    def rollback(self) -> None:
        DID.append("rollback")


async def playing(desk: Desk, engine: Any, mode: str = "live") -> Any:
    """A player whose handler waits for a person."""
    run = await engine.start(Player(), id="player", mode=mode)
    await run.tell(Long("song"))
    while not await engine.open_asks():
        await asyncio.sleep(0.001)
    return run


async def test_urgent_ones_come_before_queued_mail() -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        run = await engine.start(Player(), id="player")
        for text in "abc":
            await run.tell(Short(text))
        await run.tell(Louder(5))
    async with desk.engine() as engine:
        run = await engine.get("player")
        assert await run.request(Report()) == ["short a 5", "short b 5", "short c 5"]


async def test_one_that_has_the_name_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another module's, which was defined later: what a method takes is meant."""
    monkeypatch.setitem(ENVELOPES, "Louder", Louder)
    body = {"__qualname__": "Louder", "__annotations__": {"volume": "str"}}
    other = type("Louder", (segue.Envelope,), body)
    assert ENVELOPES["Louder"] is other
    async with Desk().engine() as engine:
        run = await engine.start(Player(), id="player")
        await run.tell(Louder(5))
        assert await run.request(Volume()) == 5


async def test_and_while_a_handler_waits() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await playing(desk, engine)
        await run.tell(Short("queued"))
        await run.tell(Louder(2))
        await run.tell(Louder(3))
        assert await run.request(Volume()) == 5  # answered, although the song goes on
        (ask,) = await engine.open_asks()
        await ask.answer("song")
        assert await run.request(Report()) == ["begin song 0", "end song 5", "short queued 5"]
    assert DID == ["louder 0", "louder 2"]


async def test_what_it_says_is_next_when_the_handler_is_done() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await playing(desk, engine)
        await run.tell(Short("queued"))
        await run.tell(Enough())
        await desk.parked("player")
        (ask,) = await engine.open_asks()
        await ask.answer("song")
        assert await run == ["begin song 0", "end song 0"]


async def test_one_that_nobody_takes() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await playing(desk, engine)
        await run.tell(Unknown())
        assert await run.request(Volume()) == 0
        (ask,) = await engine.open_asks()
        await ask.answer("song")
        assert await run.request(Report()) == ["begin song 0", "end song 0"]


@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_they_strike_where_they_struck_whatever_crashes(mode: Any, kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        DID.clear()
        await engine.start(Duet(), id="duet", mode=mode)
        await engine.start(conduct(), id="conduct", mode=mode)

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'[3,["before 0","between 1","after 3"]]'
        assert DID.count("louder") <= 4
        assert all(count == 1 for count in desk.fake.remote.sent.values())

    def set_up(desk: Desk) -> None:
        desk.fake.when("").reply(lambda call: call.text)

    lives = await at_every_commit(begin, "conduct", check, kind=kind, path=tmp_path, set_up=set_up)
    assert lives > 10


class Begin(Note):
    pass


class Next(Note):
    pass


class Duet(Actor[None]):
    """Its handler waits for what the conductor sends, in between it is told to be louder."""

    volume: int = 0
    played: list[str] = segue.field(default_factory=list)

    @segue.on
    async def begin_it(self, _: Begin) -> None:
        self.played.append(f"before {self.volume}")
        await segue.receive(Next)
        self.played.append(f"between {self.volume}")
        await segue.generate(f"{self.played}")
        await segue.receive(Next)
        self.played.append(f"after {self.volume}")

    @signal
    async def louder(self, signal: Louder) -> None:
        assert await segue.generate(f"{self.volume}") == f"{self.volume}"
        self.volume += signal.by

    @signal
    async def how_loud(self, signal: Volume) -> int:
        return self.volume

    @signal
    async def how_far(self, signal: Played) -> int:
        return len(self.played)

    @segue.on
    async def report(self, request: Report) -> list[str]:
        return self.played


@segue.flow
async def conduct() -> list[Any]:
    from segue.authoring.context import current

    duet = current("test").run.services.handle("duet", None, None)

    async def until(request: Request[int], count: int) -> None:
        while await duet.request(request) != count:
            await segue.sleep(timedelta(seconds=1))

    await duet.tell(Begin())
    await until(Played(), 1)
    await duet.tell(Louder(1))
    await until(Volume(), 1)
    await duet.tell(Next())
    await until(Played(), 2)
    await duet.tell(Louder(2))
    await until(Volume(), 3)
    await duet.tell(Next())
    return [3, await duet.request(Report())]


# ---------------------------------------------------------------- interruption
@dataclass
class Wait:
    pass


async def interrupted(engine: Any, run: Any, level: Interrupt) -> Head:
    await run.tell(Interruption(level))
    head: Head = await engine.wait(run.id)
    with pytest.raises(RunInterrupted, match="'player' was interrupted"):
        await run
    with pytest.raises(RunCancelled):
        await run
    return head


async def test_at_its_place_in_the_queue() -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        run = await engine.start(Player(), id="player")
        await run.tell(Short("a"))
        await run.tell(Interruption())
        await run.tell(Short("b"))
    async with desk.engine() as engine:
        head = await engine.wait("player")
        assert head.status == "cancelled"
        assert head.error is not None
        assert head.error.type.endswith("RunInterrupted")
    assert DID == []


async def test_after_the_handler_at_work() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await playing(desk, engine)
        await run.tell(Short("queued"))
        await run.tell(Interruption(Interrupt.AFTER_HANDLER))
        await desk.parked("player")
        (ask,) = await engine.open_asks()
        await ask.answer("song")
        assert (await engine.wait("player")).status == "cancelled"
    assert DID == []


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_at_once(kind: str, tmp_path: Path) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await playing(desk, engine)
        head = await interrupted(engine, run, Interrupt.NOW)
        assert head.status == "cancelled"
        assert not await engine.open_asks()
    assert DID == ["rollback"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_at_once_whatever_crashes(kind: str, tmp_path: Path) -> None:
    class Undo(Actor[None]):
        got: list[str] = segue.field(default_factory=list)

        @segue.on
        async def long(self, song: Long) -> None:
            self.got.append("half")
            await note("begun")
            await segue.receive(Begin)

        async def rollback(self) -> None:
            await note(f"rollback {self.got}")

        def teardown(self) -> None:
            assert not self.got

    @segue.flow
    async def stopper() -> None:
        from segue.authoring.context import current

        run = current("test").run.services.handle("undo", None, None)
        await run.tell(Long("x"))
        await segue.sleep(timedelta(minutes=1))
        await run.tell(Interruption(Interrupt.NOW))

    async def begin(engine: Any) -> None:
        DID.clear()
        await engine.start(Undo(), id="undo")
        await engine.start(stopper(), id="stopper")

    def check(desk: Desk, head: Head) -> None:
        assert head.status == "cancelled"
        assert DID.count("rollback []") >= 1
        assert set(DID) <= {"begun", "rollback []"}

    await at_every_commit(begin, "undo", check, kind=kind, path=tmp_path)


async def test_a_request_whose_handler_was_cut_off_hears_of_it() -> None:
    class Kept(Actor[None]):
        n: int = 0

        @segue.on
        async def report(self, request: Report) -> list[str]:
            self.n += 1
            return [await segue.ask("go on?")]

        @segue.on
        async def short(self, song: Short) -> None:
            DID.append(f"{self.n} {song.text}")

        @signal
        async def stop(self, signal: Louder) -> None: ...

    class Skip(segue.Envelope):
        urgent = True

        async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
            assert turn.at_work == "report"
            await turn.abort()
            return Listen()

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Kept(), id="kept")

        async def ask() -> Any:
            return await run.request(Report())

        asking = asyncio.create_task(ask())
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
        await run.tell(Skip())
        with pytest.raises(RunInterrupted):
            await asking
        await run.tell(Short("x"))
        await run.tell(Interruption())
        await engine.wait("kept")
    assert DID == ["0 x"]


async def test_an_actor_may_say_what_it_does_instead() -> None:
    class Busy(Actor[str]):
        asked: int = 0

        async def interrupted(self) -> object:
            self.asked += 1
            await segue.sleep(timedelta(hours=1))
            return Done(f"asked {self.asked} times") if self.asked == 2 else Listen()

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Busy(), id="b")
        await run.tell(Interruption())
        await run.tell(Interruption(Interrupt.AFTER_HANDLER))
        assert await run == "asked 2 times"


async def test_interrupted_is_a_thing_to_return() -> None:
    class Self(Actor[None]):
        @segue.on
        async def short(self, song: Short) -> Interrupted:
            return Interrupted()

        @segue.on
        async def report(self, request: Report) -> Answer[list[str]]:
            return Answer(["x"], then=Interrupted())

        async def teardown(self) -> None:
            await note("teardown")

    desk = Desk()
    async with desk.engine() as engine:
        for id in ("a", "b"):
            run = await engine.start(Self(), id=id)
            if id == "a":
                await run.tell(Short("x"))
            else:
                assert await run.request(Report()) == ["x"]
            with pytest.raises(RunInterrupted):
                await run
    assert DID == ["teardown", "teardown"]


async def test_between_rounds_and_attempts() -> None:
    class Round(Actor[None]):
        def begin(self) -> Wait:
            return Wait()

        @segue.state(every=timedelta(days=1000))
        async def wait(self, state: Wait) -> segue.Again:
            DID.append("round")
            return segue.Again()

        @signal
        async def louder(self, signal: Louder) -> None:
            DID.append("louder")

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Round(), id="player")
        await desk.parked("player")
        await run.tell(Short("waits"))
        await run.tell(Louder())
        await interrupted(engine, run, Interrupt.AFTER_HANDLER)
    assert set(DID) == {"round", "louder"}


# ---------------------------------------------------------------- a call that its task carries out by itself
class Deed(Note):
    pass


class DeedCounts(segue.Subscription[int, int]):
    pass


class Doer(Actor[None]):
    """Its handler has nothing under way but one long step."""

    @segue.on
    async def deed(self, _: Deed) -> None:
        await long_deed()
        LONG_DEED[2] = asyncio.Event()

    @segue.on
    async def counts(self, _: DeedCounts) -> int:
        return 7


LONG_DEED: dict[int, asyncio.Event] = {}


@segue.step
async def long_deed() -> None:
    LONG_DEED[0].set()
    await LONG_DEED[1].wait()


async def test_urgent_ones_find_a_handler_that_carries_out_a_call_by_itself() -> None:
    LONG_DEED.update({0: asyncio.Event(), 1: asyncio.Event()})
    async with segue.Engine() as engine, asyncio.timeout(10):
        run = await engine.start(Doer(), id="doer")
        await run.tell(Deed())
        await LONG_DEED[0].wait()
        async with run.subscribe(DeedCounts()) as feed:
            assert feed.snapshot == 7
        await run.interrupt(Interrupt.NOW)
        with pytest.raises(RunInterrupted):
            await run
    assert 2 not in LONG_DEED


# ---------------------------------------------------------------- asked in the queue, from which nothing is taken
@dataclass
class Round:
    seen: int = 0


class Hello(Note):
    pass


@segue.step
async def say(text: str) -> str:
    DID.append(text)
    return text


class Poller(Actor[str]):
    """Never listens."""

    said: str = ""

    def begin(self) -> Round:
        return Round()

    @segue.state(every=timedelta(hours=1))
    async def poll(self, r: Round) -> segue.Again:
        r.seen += 1
        return segue.Again()

    @segue.on
    async def hello(self, _: Hello) -> None:
        self.said = await say("hello")

    async def interrupted(self) -> Done[str]:
        return Done(f"{self.said}{await say('bye')}")


class Spinner(Poller):
    @segue.state
    async def poll(self, r: Round) -> segue.Again:
        r.seen += 1
        await say("round")
        return segue.Again()


@pytest.mark.parametrize("actor", [Poller, Spinner])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_state_that_goes_round_for_ever_is_left_when_asked_in_the_queue(
    actor: type[Poller], kind: str, tmp_path: Path
) -> None:
    async def begin(engine: Any) -> None:
        run = await engine.start(actor(), id="r")
        await run.tell(Hello())
        await run.interrupt()

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b'"bye"')
        assert DID.count("bye") <= 2  # twice where it died in the middle
        DID.clear()

    assert await at_every_commit(begin, "r", check, kind=kind, path=tmp_path) > 4


async def test_it_is_asked_between_two_rounds() -> None:
    """In memory and parked alike, at once: not when the next round is due."""
    for park in ("auto", "always"):
        desk = Desk(park=park)
        async with desk.engine() as engine:
            run = await engine.start(Poller(), id="r")
            await asyncio.sleep(0.1)
            began = desk.fake.clock.now()
            await run.interrupt()
            assert await asyncio.wait_for(run, 5) == "bye"
            assert desk.fake.clock.now() - began < 3600


# ---------------------------------------------------------------- hooks that fail
class Broken(Player):
    async def interrupted(self) -> Interrupted:
        raise ValueError("in interrupted")

    def rollback(self) -> None:
        raise ValueError("in rollback")

    def teardown(self) -> None:
        DID.append("teardown")


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("level", [*Interrupt, None])
async def test_a_hook_that_fails_doesnt_keep_an_actor_from_ending(
    level: Interrupt | None, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Desk().engine() as engine, asyncio.timeout(4):
        run = await engine.start(Broken())
        if waits:
            await run.tell(Long("song"))
            while not await engine.open_asks():
                await asyncio.sleep(0.001)
        await (run.cancel() if level is None else run.interrupt(level))
        if waits and level in (Interrupt.QUEUED, Interrupt.AFTER_HANDLER):
            (ask,) = await engine.open_asks()
            await ask.answer("la")
        with pytest.raises(RunCancelled if level is None else RunInterrupted):
            await run
    assert DID.count("teardown") == 1
    (told,) = caplog.records
    assert told.exc_info is not None
    hook = "interrupted" if level in (Interrupt.QUEUED, Interrupt.AFTER_HANDLER) else "rollback"
    assert str(told.exc_info[1]) == f"in {hook}"
    assert f"{hook}() failed" in caplog.text
