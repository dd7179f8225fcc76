"""Turns of actors: short messages share commits, and are handled once all the same, whatever crashes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Done, Note, Request
from segue.authoring.actor import driver
from segue.model.run import Head
from segue.ports.store import Turn
from segue.stores.memory import MemoryStore
from tests import commits
from tests.authoring.killed import at_every_commit
from tests.runtime.delayed import Delayed
from tests.runtime.lives import Desk

SEEN: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    SEEN.clear()


class Put(Note):
    text: str


class Think(Note):
    text: str


class Say(Request[str]):
    text: str


class All(Request[list[str]]):
    pass


class Break(Request[int]):
    pass


class Finish(Note):
    pass


class Pad(Actor[list[str]]):
    lines: list[str] = segue.field(default_factory=list)

    @segue.on
    async def put(self, note: Put) -> None:
        SEEN.append(note.text)
        self.lines.append(note.text)

    @segue.on
    async def think(self, note: Think) -> None:
        self.lines.append("half")
        self.lines[-1] = await segue.generate(note.text)

    @segue.on
    async def say(self, request: Say) -> str:
        self.lines.append(request.text)
        return f"{len(self.lines)}"

    @segue.on
    async def all(self, request: All) -> list[str]:
        return self.lines

    @segue.on
    async def breaks(self, request: Break) -> int:
        self.lines.append("broken")
        raise ValueError("broken")

    @segue.on
    async def finish(self, note: Finish) -> Done[list[str]]:
        return Done(self.lines)


@pytest.fixture
def turns() -> list[Turn]:
    return []


async def tell_all(engine: Any, count: int) -> Any:
    run = await engine.start(Pad(), id="pad")
    for n in range(count):
        await run.tell(Put(f"{n}"))
    return run


async def test_short_messages_share_a_commit(turns: list[Turn]) -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        run = await tell_all(engine, 50)
        await run.tell(Finish())
    async with desk.engine() as engine:
        commits.tell(engine.worker, turns.append)
        run = await engine.get("pad")
        assert await run == [f"{n}" for n in range(50)]
    mine = [turn for turn in turns if turn.run == "pad"]
    assert sum(len(turn.consumed) for turn in mine) == 51
    assert len(mine) <= 4  # begin, the messages, the end; a moment may end in between


async def test_a_group_has_a_size(turns: list[Turn]) -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        run = await tell_all(engine, 3 * driver.GROUP)
        await run.tell(Finish())
    async with desk.engine() as engine:
        commits.tell(engine.worker, turns.append)
        await (await engine.get("pad"))
    assert max(len(turn.consumed) for turn in turns) <= driver.GROUP


async def test_what_came_before_a_handler_that_waits_is_committed_at_its_first_call(
    turns: list[Turn],
) -> None:
    desk = Desk()
    desk.fake.when("deep").reply("thought")
    async with desk.engine(worker=False) as engine:
        run = await tell_all(engine, 3)
        await run.tell(Think("deep"))
        await run.tell(Finish())
    async with desk.engine() as engine:
        commits.tell(engine.worker, turns.append)
        assert await (await engine.get("pad")) == ["0", "1", "2", "thought"]
    first = next(turn for turn in turns if turn.entries is not None)
    assert first.checkpoint is not None
    assert b'["0","1","2"]' in first.checkpoint  # not what the handler has begun
    assert len(first.consumed) <= 3


@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_groups_whatever_crashes(mode: Any, kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        run = await engine.start(Pad(), id="pad", mode=mode)
        for message in (Put("a"), Put("b"), Think("deep"), Put("c"), Think("deeper"), Finish()):
            await run.tell(message)

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'["a","b","DEEP","c","DEEPER"]'
        assert all(count == 1 for count in desk.fake.remote.sent.values())

    def set_up(desk: Desk) -> None:
        desk.fake.when("deep").reply(lambda call: call.text.upper())

    lives = await at_every_commit(begin, "pad", check, kind=kind, path=tmp_path, set_up=set_up)
    assert lives > 5


class Pairs(Actor[list[str]]):
    """A handler that takes messages of its own kind."""

    lines: list[str] = segue.field(default_factory=list)

    @segue.on
    async def put(self, first: Put) -> Done[list[str]] | None:
        second = await segue.receive(Put)
        self.lines.append(first.text + second.text)
        return Done(self.lines) if second.text == "end" else None


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_handler_that_receives_its_own_kind_gets_the_next(kind: str, tmp_path: Path) -> None:
    """It got the one in hand once more."""

    async def begin(engine: Any) -> None:
        run = await engine.start(Pairs(), id="pairs")
        for text in ("a", "b", "c", "d", "e", "end"):
            await run.tell(Put(text))

    def check(_: Desk, head: Head) -> None:
        assert head.value == b'["ab","cd","eend"]'

    assert await at_every_commit(begin, "pairs", check, kind=kind, path=tmp_path) > 5


async def test_a_failure_in_a_group_undoes_itself_alone() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await tell_all(engine, 2)
        broken = asyncio.create_task(_request(run, Break()))
        await run.tell(Put("after"))
        with pytest.raises(ValueError, match="broken"):
            await broken
        assert sorted(await run.request(All())) == ["0", "1", "after"]


async def _request(run: Any, message: Any) -> Any:
    return await run.request(message)


async def test_answers_of_a_group_are_each_their_own() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await tell_all(engine, 0)
        said = await asyncio.gather(*(_request(run, Say(f"{n}")) for n in range(20)))
        assert sorted(said, key=int) == [f"{n + 1}" for n in range(20)]


async def test_a_handler_that_is_slow_doesnt_keep_answers_back() -> None:
    class Slow(Actor[None]):
        @segue.on
        async def say(self, request: Say) -> str:
            return request.text

        @segue.on
        def put(self, note: Put) -> None:
            held.wait(30)

    import threading

    held = threading.Event()
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        await engine.start(Slow(), id="slow")
    async with desk.engine() as engine:
        run = await engine.get("slow")
        asking = asyncio.create_task(_request(run, Say("x")))
        await asyncio.sleep(0)
        await run.tell(Put("x"))
        assert await asking == "x"  # although the next handler is at work
        held.set()


async def test_a_handlers_time_is_that_of_its_message() -> None:
    class Clock(Actor[None]):
        times: list[float] = segue.field(default_factory=list)

        @segue.on
        async def put(self, note: Put) -> None:
            before = segue.now().timestamp()
            await segue.sleep(timedelta(hours=1))  # parks: the second life must read the same
            self.times.append(before)

        @segue.on
        async def all(self, request: All) -> list[str]:
            return [f"{self.times[0]}"]

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Clock(), id="clock")
        await desk.parked("clock")
    desk.fake.clock.advance(3600 * 24 * 30)
    async with desk.engine() as engine:
        told = engine.clock.now()
        run = await engine.get("clock")
        await run.tell(Put("x"))
        (time,) = await run.request(All())
    assert told <= float(time) < told + 60


async def test_now_in_a_prompt_replays() -> None:
    class Dated(Actor[None]):
        @segue.on
        async def say(self, request: Say) -> str:
            first = segue.now()
            await segue.sleep(timedelta(hours=1))
            return await segue.generate(f"{first} {request.text}")

    desk = Desk(park="always")
    desk.fake.when("x").reply("ok")
    async with desk.engine() as engine:
        run = await engine.start(Dated(), id="dated")
        desk.fake.clock.advance(1000)
        assert await run.request(Say("x")) == "ok"
        assert (await desk.head("dated")).status in ("ready", "parked")


# ---------------------------------------------------------------- what a handler leaves behind
@segue.step
async def writes(text: str) -> str:
    SEEN.append(text)
    await asyncio.sleep(0.02)
    return text


@segue.step
async def refuses() -> str:
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
    return "lost"


class Leave(Note):
    how: str


class Leaver(Pad):
    @segue.on
    async def leave(self, note: Leave) -> None:
        lost = asyncio.ensure_future(refuses() if note.how == "refuses" else self.behind(note.how))
        await asyncio.wait({lost, asyncio.ensure_future(writes("won"))}, return_when="FIRST_COMPLETED")
        if note.how == "refuses":
            lost.cancel()

    async def behind(self, how: str) -> None:
        try:
            await segue.sleep(timedelta(days=1))
        finally:
            if how == "clears up slowly":
                await asyncio.sleep(0.05)  # longer than it is lingered for
            await writes("behind")

    @segue.on
    async def think(self, note: Think) -> None:
        for n in range(3):
            await writes(f"{n}")
        self.lines.append(await segue.ask(note.text))


@pytest.mark.parametrize("delay", [0.0, 0.08], ids=["", "slow commits"])
@pytest.mark.parametrize("how", ["refuses", "clears up", "clears up slowly"])
async def test_what_a_handler_left_behind_is_none_of_the_next_ones(how: str, delay: float) -> None:
    desk = Desk(Delayed(MemoryStore(), lambda: delay) if delay else None)
    async with desk.engine() as engine:
        run = await engine.start(Leaver(), id="pad")
        await run.feed([Leave(how), Think("and?")])
        async for asked in engine.asks():
            await asyncio.sleep(0.2)
            await desk.parked("pad")
            await asked.answer("yes")
            break
        assert SEEN == ["won", "0", "1", "2"]
        assert await run.request(All()) == ["yes"]
