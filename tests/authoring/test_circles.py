"""Actors that ask each other at the same moment, each in a handler of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Done, Note, Request
from segue.model.errors import Deadlock
from segue.model.message import Letter
from segue.model.run import Head
from segue.runtime.wake import circles
from segue.runtime.wake.executor import Executor
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk, until


class Next(Request[int]):
    n: int


class Go(Note):
    """Have one asked while others are told the same."""

    other: segue.Run[Any]
    timeout: timedelta | None = None
    after: timedelta | None = None


class Refused(Note):
    why: str


class Asks(Actor[list[str]]):
    """Over once it has an answer, and whom it asked was refused."""

    said: list[str] = segue.field(default_factory=list)

    @segue.on
    async def go(self, go: Go) -> Done[list[str]] | None:
        if go.after is not None:
            await segue.sleep(go.after)
        try:
            return self.hears(str(await go.other.request(Next(1), timeout=go.timeout)))
        except (Deadlock, TimeoutError) as error:
            await go.other.tell(Refused(f"{type(error).__name__}: {error}"))
            return None

    @segue.on
    async def next(self, m: Next) -> int:
        return m.n + 1

    @segue.on
    async def refused(self, refused: Refused) -> Done[list[str]] | None:
        return self.hears(refused.why)

    def hears(self, text: str) -> Done[list[str]] | None:
        self.said = sorted([*self.said, text])
        return Done(self.said) if len(self.said) == 2 else None


WHY = "Deadlock: run 'b' asks 'a', which waits for it: a → b → a, each asked by itself"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_one_of_two_is_refused_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        a, b = await engine.start(Asks(), id="a"), await engine.start(Asks(), id="b")
        await a.tell(Go(b))
        await b.tell(Go(a))

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, json.loads(head.value or b"")) == ("done", ["2", WHY])

    assert await at_every_commit(begin, "a", check, kind=kind, path=tmp_path) > 5


async def test_who_asks_for_a_time_has_that_time() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        a, b = await engine.start(Asks(), id="a"), await engine.start(Asks(), id="b")
        await a.tell(Go(b, timedelta(seconds=5)))
        await b.tell(Go(a, timedelta(seconds=9)))
        assert await desk.fake.or_unexpected(engine.wait("b"))
        assert await b == ["2", "TimeoutError: the request Next to 'b' timed out"]


@pytest.mark.parametrize("later", ["a", "b"])
async def test_what_lies_there_is_refused_too_when_its_caller_is_asked(later: str) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        a, b = await engine.start(Asks(), id="a"), await engine.start(Asks(), id="b")
        await a.tell(Go(b, after=timedelta(seconds=5) if later == "a" else None))
        await b.tell(Go(a, after=timedelta(seconds=5) if later == "b" else None))
        await desk.fake.or_unexpected(engine.wait("a"))
        assert await a == ["2", WHY]


class Slow(Actor[str]):
    """Over once it was asked."""

    heard: str = ""

    @segue.on
    async def go(self, go: Go) -> None:
        if go.after is not None:
            await segue.sleep(go.after)
        try:
            self.heard = str(await go.other.request(Next(1), timeout=go.timeout))
        except TimeoutError:
            self.heard = "late"

    @segue.on
    async def next(self, m: Next) -> int:
        await self.me.tell(Refused(""))
        return m.n + 1

    @segue.on
    async def refused(self, _: Refused) -> Done[str]:
        return Done(self.heard)


@pytest.mark.parametrize("after", [timedelta(seconds=5), timedelta(seconds=15)])
@pytest.mark.parametrize(("slow", "hurried"), ["ab", "ba"])
async def test_what_is_asked_for_a_time_is_carried_out_all_the_same(
    slow: str, hurried: str, after: timedelta
) -> None:
    """Who had stopped waiting wasn't told, and its message was gone."""
    desk = Desk()
    async with desk.engine() as engine:
        one, two = await engine.start(Slow(), id=slow), await engine.start(Slow(), id=hurried)
        await one.tell(Go(two, after=after))
        await two.tell(Go(one, timeout=timedelta(seconds=10)))
        assert await desk.fake.or_unexpected(engine.wait(slow))
        assert (await one, await two) == ("2", "late")


class Passes(Actor[None]):
    """Has another one asked by whoever asks it."""

    beyond: segue.Run[Any]

    @segue.on
    async def next(self, m: Next) -> int:
        return await self.beyond.request(m)


async def test_a_longer_circle_is_refused_where_it_closes() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        last = await engine.start(Asks(), id="last")
        middle = await engine.start(Passes(last), id="middle")
        first = await engine.start(Passes(middle), id="first")
        await last.tell(Go(first))
        with pytest.raises(Deadlock, match=r"'middle' asks 'last'.*: last → first → middle → last"):
            await asyncio.wait_for(first.request(Next(1)), 20)


class Forwards(Actor[None]):
    """Answers whoever asks it once another one has answered."""

    beyond: segue.Run[Any]
    asked: segue.Responder[int] | None = None

    @segue.on
    async def next(self, m: Next, reply: segue.Responder[int]) -> None:
        self.asked = reply
        await self.beyond.request(m).forward()

    @segue.on
    async def came(self, answer: segue.Response[Next]) -> None:
        assert self.asked is not None
        assert answer.error is not None
        await self.asked.fail(answer.error)

    @segue.on
    async def refused(self, refused: Refused) -> None:
        await self.beyond.tell(refused)


@pytest.mark.parametrize(("last", "first"), ["ab", "ba"])
async def test_a_circle_by_way_of_one_that_forwards_is_refused(last: str, first: str) -> None:
    desk = Desk()
    async with desk.engine() as engine, asyncio.timeout(10):
        one, two = await engine.start(Asks(), id=last), await engine.start(Asks(), id=first)
        between = await engine.start(Forwards(one), id="between")
        await one.tell(Go(two))
        await two.tell(Go(between))
        chain = f"{last} → {first} → between → {last}"
        assert await one == [
            "2",
            f"Deadlock: run 'between' asks {last!r}, which waits for it: {chain}, each asked by itself",
        ]


class Item(Note):
    n: int


class Feeds(Actor[None]):
    came: int = 0

    @segue.on
    async def go(self, go: Go) -> None:
        await go.other.feed(map(Item, range(250)))

    @segue.on
    async def item(self, _: Item) -> None:
        self.came += 1

    @segue.on
    async def next(self, m: Next) -> int:
        return self.came


async def test_two_that_feed_each_other_go_on() -> None:
    desk = Desk()
    async with desk.engine() as engine, asyncio.timeout(20):
        a, b = await engine.start(Feeds(), id="a"), await engine.start(Feeds(), id="b")
        await a.tell(Go(b))
        await b.tell(Go(a))
        for one in (a, b):
            while await one.request(Next(0)) < 250:
                await asyncio.sleep(0.001)


class Wonders(Actor[None]):
    """Asks who feeds it at each hundredth item."""

    feeder: segue.Run[Any]
    timeout: timedelta | None = None
    heard: list[int] = segue.field(default_factory=list)

    @segue.on
    async def item(self, item: Item) -> None:
        if item.n % 100 == 0:
            self.heard.append(await self.feeder.request(Next(0), timeout=self.timeout))

    @segue.on
    async def next(self, m: Next) -> int:
        return len(self.heard)


@pytest.mark.parametrize("timeout", [None, timedelta(seconds=5)])
@pytest.mark.parametrize(("feeder", "fed"), ["ab", "ba"])
async def test_who_asks_whoever_feeds_it_is_answered(
    feeder: str, fed: str, timeout: timedelta | None
) -> None:
    desk = Desk()
    async with desk.engine() as engine, asyncio.timeout(20):
        one = await engine.start(Feeds(), id=feeder)
        other = await engine.start(Wonders(feeder=one, timeout=timeout), id=fed)
        await one.tell(Go(other))
        while await other.request(Next(0)) < 3:
            await asyncio.sleep(0.001)


class Late(Actor[None]):
    """Asks whoever asked it, once that has given up."""

    asked: int = 0

    @segue.on
    async def go(self, go: Go) -> None:
        if go.after is not None:
            await segue.sleep(go.after)
            await go.other.request(Next(1))
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await go.other.request(Next(1))

    @segue.on
    async def next(self, m: Next) -> int:
        self.asked += m.n
        return self.asked


@pytest.mark.parametrize(("late", "asks"), ["ab", "ba"])
async def test_what_was_given_up_is_carried_out_whoever_is_asked_then(late: str, asks: str) -> None:
    desk = Desk()
    async with desk.engine() as engine, asyncio.timeout(20):
        one, other = await engine.start(Late(), id=late), await engine.start(Late(), id=asks)
        await one.tell(Go(other, after=timedelta(seconds=9)))
        await other.tell(Go(one))
        answer = asyncio.ensure_future(desk.fake.or_unexpected(one.request(Next(0))))
        while not answer.done():
            await desk.fake.clock.sleep(1)
        assert await answer == 1


class Thinks(Asks):
    """Takes its time when it was refused."""

    @segue.on
    async def go(self, go: Go) -> None:
        with contextlib.suppress(Deadlock):
            await go.other.request(Next(1))
        await segue.sleep(timedelta(hours=1))


async def test_who_closes_a_circle_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Letter] = []

    def seen(run: Executor, letter: Letter, circle: tuple[str, ...]) -> None:
        told.append(letter)
        answer(run, letter, circle)

    answer = circles._answer
    monkeypatch.setattr(circles, "_answer", seen)
    desk = Desk()
    async with desk.engine() as engine, asyncio.timeout(20):
        a, b = await engine.start(Asks(), id="a"), await engine.start(Thinks(), id="b")
        await a.tell(Go(b))
        await b.tell(Go(a))
        await until(lambda: told)
        for n in range(5):  # each has it look anew
            await a.tell(Refused(str(n)))
            await a.ping()
    assert len(told) == 1
