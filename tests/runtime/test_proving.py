"""Each turn of an actor that waited is carried out once more where runs are verified."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

import pytest

import segue
from segue import Actor, Again, Done, Listen, Note, Request
from segue.model.errors import ReplayMismatch, ResultMismatch, RunHeld
from segue.testing import FakeModel
from tests.authoring.killed import through
from tests.runtime.lives import Desk

TICKS = itertools.count()
WAITS = itertools.count()


@segue.step
async def double(n: int) -> int:
    return 2 * n


@dataclass
class First:
    n: int


@dataclass
class Second:
    n: int


class Add(Note):
    n: int


class Total(Request[int]):
    pass


class Sober(Actor[int]):
    """What follows from what is recorded."""

    total: int = 0
    seen: list[int] = segue.field(default_factory=lambda: [7] * 600)

    def begin(self) -> First:
        return First(1)

    async def draw(self) -> int:
        return 0

    @segue.state(retry=2)
    async def first(self, f: First) -> Second:
        self.total += await double(f.n)
        self.total += await self.draw()
        await self.me.tell(Add(5))
        return Second(self.total)

    @segue.state
    async def second(self, s: Second) -> Listen | Again:
        self.seen.append(await double(s.n))
        s.n += 1
        return Again() if s.n < 5 else Listen()

    @segue.on
    async def add(self, a: Add) -> None:
        self.total += await double(a.n)
        await self.me.tell(Close())

    @segue.on
    async def get(self, _: Total) -> int:
        await double(1)
        return self.total

    @segue.on
    async def close(self, _: Close) -> Done[int]:
        return Done(self.total)


class Close(Note):
    pass


class Tipsy(Sober):
    """Its fields don't follow from what is recorded."""

    async def draw(self) -> int:
        return next(TICKS)


class Drunk(Sober):
    """What it calls doesn't either."""

    async def draw(self) -> int:
        return await double(next(TICKS))


class Living(Tipsy):
    @segue.on
    async def close(self, _: Close) -> None:  # type: ignore[override]  # it lives on
        return None


async def test_a_sober_one_is_the_same_again() -> None:
    async with FakeModel() as model:
        assert await model.run_flow(Sober()) == 12


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_an_early_turn_that_differs_is_told_when_the_run_is_awaited(park: Any) -> None:
    async with segue.Engine(verify=True, park=park) as engine:
        with pytest.raises(ResultMismatch, match='"total":'):
            await engine.run(Tipsy())
        with pytest.raises(ReplayMismatch if park == "auto" else RunHeld, match="step 'double'"):
            await engine.run(Drunk())
        assert await engine.run(Sober()) == 12


async def test_that_of_one_that_lives_on_is_told_at_the_end() -> None:
    with pytest.raises(ResultMismatch, match='"total":'):
        async with segue.Engine(verify=True) as engine:
            run = await engine.start(Living())
            assert await run.request(Total()) >= 2
    with pytest.raises(KeyError):  # not in place of an error of its own
        async with segue.Engine(verify=True) as engine:
            run = await engine.start(Living())
            assert await run.request(Total()) >= 2
            raise KeyError


async def test_another_engine_doesnt_look() -> None:
    async with segue.Engine() as engine:
        assert await engine.run(Tipsy()) > 0


class Floor(IntEnum):
    ONE = 1


class Leaf(Actor[int]):
    def begin(self) -> First:
        return First(1)

    @segue.state(every=timedelta(hours=1))
    async def first(self, f: First) -> Again | Done[int]:
        f.n += await double(1)
        return Again() if f.n < 6 else Done(f.n)


class Tree(Actor[int]):
    """Children, urgent messages beside a handler, time, chance, a question."""

    groups = Floor
    ends: int = 0
    ids: list[str] = segue.field(default_factory=list)

    def begin(self) -> First:
        return First(0)

    @segue.state
    async def first(self, _: First) -> Second:
        for _n in range(3):
            await segue.spawn(Leaf(), group=Floor.ONE)
        self.ids.append(str(segue.uuid()))
        await segue.sleep(timedelta(hours=10))
        self.ids.append(str(segue.now()))
        return Second(int(await segue.ask("go?", returns=bool)))

    @segue.state
    async def second(self, _: Second) -> Listen:
        await segue.spawn(Leaf(), group=Floor.ONE)
        return Listen()

    def finished(self, child: segue.Ended) -> Done[int] | None:
        self.ends += 1
        return Done(self.ends) if self.ends == 4 else None


async def test_a_supervisors_turns_are_the_same_again() -> None:
    async with FakeModel().answer("go?", True) as model:
        assert await model.run_flow(Tree()) == 4


class Waiter(Sober):
    """Waits outside segue where it didn't before."""

    async def draw(self) -> int:
        if next(WAITS):
            await asyncio.sleep(3600)
        return 0


async def test_a_turn_that_waits_outside_for_ever_isnt_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async with segue.Engine(verify=True) as engine:
        assert engine._prover is not None
        engine._prover.patience = 0.05
        assert await asyncio.wait_for(engine.run(Waiter()), 10) == 12
    assert "1 turns weren't verified" in caplog.text


class Knock(Request[int]):
    pass


TRIES = itertools.count(1)


@segue.step
async def tries() -> int:
    return next(TRIES)


class Stubborn(Actor[None]):
    knocked: int = 0

    @segue.on(retry=segue.Retry(3, wait=timedelta(seconds=0.01)))
    async def knock(self, _: Knock) -> int:
        self.knocked += 1
        if await tries() % 3:
            raise OSError("nobody opens")
        return self.knocked


async def test_each_attempt_at_a_message_is_replayed() -> None:
    async with FakeModel() as model:
        run = await model.engine.start(Stubborn())
        for _ in range(2):
            await run.tell(Add(1))  # which it doesn't take
            assert await run.request(Knock()) >= 1


class Begin(Note):
    pass


class Hum(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        actor.seen.append("hum")
        await actor.me.tell(Heard())
        actor.seen.append("hummed")
        return None


class Heard(Note):
    pass


class Going(Actor[list[str]]):
    """A message that waits, and leads to states; beside the first of which it is told something urgent."""

    seen: list[str] = segue.field(default_factory=list)

    @segue.on
    async def begin_with(self, _: Begin) -> First:
        self.seen.append(f"begin {await double(1)}")
        await self.me.tell(Heard())
        return First(1)

    @segue.on
    async def heard(self, _: Heard) -> None:
        self.seen.append("heard")

    @segue.state
    async def first(self, f: First) -> Second:
        asked = asyncio.ensure_future(segue.ask("Go on?"))
        await asyncio.wait([asked])
        self.seen.append("first")
        await self.me.tell(Heard())
        self.seen.append("last")
        return Second(1)

    @segue.state
    async def second(self, s: Second) -> Second | Done[list[str]]:
        self.seen.append(f"second {s.n}")
        await self.me.tell(Heard())
        return Second(s.n + 1) if s.n < 3 else Done(self.seen)


async def test_a_message_that_leads_to_a_state_is_a_turn_of_its_own() -> None:
    """What the state does next isn't taken for what the message did."""
    desk = Desk(verify=True)
    desk.fake.answer("Go on?", "yes")
    async with desk.engine() as engine:
        run = await engine.start(Going(), id="it")
        await run.tell(Begin())
        assert (await run)[:2] == ["begin 2", "first"]


@pytest.mark.parametrize("after", [False, True])
async def test_so_it_is_in_the_first_turn_of_a_life(after: bool) -> None:
    for die_at in range(1, 20):
        desk = Desk(verify=True)
        desk.fake.answer("Go on?", "yes")
        async with desk.engine(worker=False) as engine:
            await (await engine.start(Going(), id="it")).tell(Begin())
        died = await through(desk, "it", die_at, after)
        while (await desk.head()).status != "done":
            await through(desk, "it", None, False)
        if not died:
            return
    raise AssertionError("it commits for ever")


async def test_what_branches_do_at_the_end_is_done_in_the_same_order() -> None:
    """What was told last isn't recorded; those who told it went on at once, before others did."""
    desk = Desk(verify=True)
    async with desk.engine() as engine:
        run = await engine.start(Going(), id="it")
        await run.tell(Begin())
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
    async with desk.engine(worker=False) as engine:
        (ask,) = await engine.open_asks()
        await ask.answer("yes")
        await (await engine.get("it")).tell(Hum())
    async with desk.engine() as engine:
        said = await (await engine.get("it"))
    assert said[:5] == ["begin 2", "hum", "hummed", "first", "last"]


class Reminded(Actor[int]):
    times: int = 0

    async def begin(self) -> None:
        await self.me.tell(Add(1), after=timedelta(milliseconds=5))

    @segue.on
    async def add(self, a: Add) -> Done[int] | None:
        self.times += await double(a.n)
        await self.me.tell(a, after=timedelta(milliseconds=5))
        return Done(self.times) if self.times == 6 else None


async def test_a_message_that_became_due_meanwhile_was_due_then() -> None:
    async with segue.Engine(verify=True) as engine:
        assert await engine.run(Reminded()) == 6


class Cleared(Actor[int]):
    """It is given an order while it waits, and then has to try a message again."""

    async def begin(self) -> None:
        await self.me.tell(Add(1))

    @segue.on(retry=segue.Retry(4, wait=timedelta(milliseconds=1)))
    async def add(self, a: Add) -> Done[int] | None:
        if a.n == 1:
            await self.me.unschedule("nothing")
            await segue.sleep(timedelta(milliseconds=5))
            await self.me.tell(Add(2))
            return None
        if await tries() % 4:
            raise OSError("not yet")
        return Done(await double(a.n))


async def test_what_is_tried_again_is_not_what_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TRIES", itertools.count(1))
    async with segue.Engine(verify=True) as engine:
        assert await engine.run(Cleared()) == 4


@segue.step
async def endless() -> None:
    await asyncio.sleep(3600)


class Bounded(Sober):
    @segue.on
    async def knock(self, k: Knock) -> int:
        n = await double(1)
        try:
            async with asyncio.timeout(0.01):
                await endless()
        except TimeoutError:
            return n
        return 0


async def test_a_timeout_of_asyncios_that_struck_last_strikes_again() -> None:
    async with segue.Engine(verify=True) as engine:
        run = await engine.start(Bounded())
        assert await run.request(Knock()) == 2
