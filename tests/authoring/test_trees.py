"""Trees of supervised actors, attacked: ended twice, crashed while they end, with children that don't answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Interrupt, Listen, Restart
from segue.authoring.actor.interruption import Interruption
from segue.model.errors import RunCancelled, RunEnded, RunInterrupted
from segue.model.run import Head
from tests.authoring.killed import at_every_commit
from tests.authoring.test_supervision import (
    Break,
    Count,
    Floor,
    Hire,
    House,
    Lodger,
    Opening,
    Quarter,
    S,
    Stop,
    goes,
    until,
)
from tests.runtime.lives import Desk


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()


async def test_a_tree_that_is_cancelled_twice_ends_in_order() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Quarter(), id="quarter")
        await until(lambda: {"in1 comes", "in2 comes", "outer comes"} <= set(S))
        for _ in range(3):
            await run.cancel()
            await asyncio.sleep(0)
        with pytest.raises(RunCancelled):
            await run
        assert goes() == ["in2 goes", "in1 goes", "house closes", "outer goes"]
        assert {head.status for head in await desk.store.runs()} == {"cancelled"}


class Begun(segue.Note):
    pass


class Whole(Quarter):
    """A quarter that is asked to end as soon as everybody is there."""

    how: int = 0

    @segue.on
    async def begun(self, _: Begun) -> None:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", *Interrupt])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_tree_killed_at_every_commit_of_its_end(kind: str, how: Any, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        S.clear()
        run = await engine.start(Whole(), id="it")
        if how == "cancel":
            await run.cancel()
        else:
            await run.tell(Interruption(how), after=timedelta(seconds=3))

    ends: list[Any] = []

    def seen(desk: Desk, head: Head) -> None:
        assert head.status == "cancelled"
        order = list(dict.fromkeys(goes()))
        expected = ["in2 goes", "in1 goes", "house closes", "outer goes"]
        assert order == [said for said in expected if said in order]
        ends.append(desk.store.runs())

    lives = await at_every_commit(begin, "it", seen, kind=kind, path=tmp_path)
    for end in ends:
        if kind == "memory":
            assert {head.status for head in await end} <= {"cancelled"}
        else:
            end.close()
    assert lives > 3


class Slow(Actor[str]):
    """Takes its time to end, so that whoever waits for it leaves memory."""

    name: str

    async def teardown(self) -> None:
        await segue.sleep(timedelta(seconds=20))
        S.append(f"{self.name} goes")


class Inner(House):
    """A supervisor that breaks, and has a child that takes its time."""

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Listen:
        S.append("inner comes")
        await segue.spawn(Slow("slow"), group=Floor.CELLAR)
        return Listen()

    @segue.on
    async def break_(self, _: Break) -> segue.Fail:
        return segue.Fail(ValueError("inner broke"))

    @segue.on
    async def counted(self, _: Count) -> int:
        return 7


class Outer(Actor[str]):
    """Bears one restart of its child, no more."""

    groups = Floor
    restart = Restart(times=1, within=timedelta(hours=9))

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Done[str]:
        inner = await segue.spawn(Inner(), group=Floor.HALL, id="inner")
        await inner.tell(Break())
        return segue.Done(str(await inner.request(Count())))


@pytest.mark.parametrize("park", ["linger", "always"])
async def test_a_supervisor_that_begins_anew_asks_once(park: str) -> None:
    desk = Desk()
    options: dict[str, Any] = {"park": park} if park == "always" else {}
    async with desk.engine(**options) as engine:
        assert await engine.run(Outer(), id="outer") == "7"
        assert S.count("inner comes") == 2
        assert S.count("slow goes") >= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_supervisor_that_begins_anew_killed_at_every_commit(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        S.clear()
        await engine.start(Outer(), id="it")

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b'"7"')

    assert await at_every_commit(begin, "it", check, kind=kind, path=tmp_path) > 20


class Pair(Actor[str]):
    """When one of the two breaks, the other one begins anew with it, whose children end before."""

    groups = Floor
    restart = Restart("all", times=1, within=timedelta(hours=9))

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Done[str]:
        inner = await segue.spawn(Inner(), group=Floor.CELLAR, id="inner")
        other = await segue.spawn(Lodger("other"), group=Floor.HALL, id="other")
        brief = await segue.spawn(Lodger("brief"), group=Floor.ATTIC, restart="temporary", id="brief")
        assert await brief.request(Count()) == 1
        await inner.request(Count())
        await other.tell(Break())
        await other.request(Count())
        with suppress(RunInterrupted, RunEnded):
            await brief
        return segue.Done(str(await inner.request(Count())))


async def test_what_is_temporary_ends_with_the_others_and_doesnt_come_back() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(Pair(), id="pair") == "7"
        assert S.count("brief comes") == 1
        assert S.count("other comes") == 2
        assert S.count("inner comes") == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_others_that_begin_anew_killed_at_every_commit(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        S.clear()
        await engine.start(Pair(), id="it")

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b'"7"')
        assert S.count("inner comes") >= 2

    assert await at_every_commit(begin, "it", check, kind=kind, path=tmp_path) > 20


class Tenant(Actor[str]):
    """Fails three times; says when it begins."""

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Done[str]:
        S.append(f"{segue.now().timestamp():.0f}")
        if len(S) < 4:
            raise ValueError("not yet")
        return segue.Done("moved in")


class Landlord(Actor[str]):
    groups = Floor
    restart = Restart(times=9, within=timedelta(hours=9), backoff=timedelta(seconds=60))

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Done[str]:
        return segue.Done(await (await segue.spawn(Tenant(), group=Floor.HALL)))


def pauses() -> list[int]:
    begun = [int(said) for said in S]
    return [later - earlier for earlier, later in pairwise(begun)]


async def test_backoff_doubles() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(Landlord()) == "moved in"
    assert pauses() == [60, 120, 240]


@pytest.mark.slow
async def test_backoff_outlives_crashes() -> None:
    async def begin(engine: Any) -> None:
        S.clear()
        await engine.start(Landlord(), id="it")

    waited: list[list[int]] = []

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b'"moved in"')
        waited.append(
            [pause for pause in pauses() if pause]
        )  # what was cut off begins at the same time again
        assert waited[-1][0] >= 60

    await at_every_commit(begin, "it", check, kind="memory", path=Path())
    assert any(len(each) == 3 and each[2] >= 240 for each in waited)


class Panic(Lodger):
    @segue.on
    async def stop(self, _: Stop) -> segue.Done[str]:
        raise SystemError

    async def interrupted(self) -> None:
        raise KeyError("no")

    async def rollback(self) -> None:
        raise KeyError("nor that")


class Worse(Lodger):
    async def interrupted(self) -> None:
        await asyncio.sleep(3600)


class Refuses(Lodger):
    async def interrupted(self) -> Listen:
        return Listen()


class Riot(House):
    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Listen:
        for n, each in enumerate((Panic("panic"), Worse("worse"), Refuses("refuses"))):
            await segue.spawn(each, group=list(Floor)[n])
        return Listen()


async def test_children_that_dont_want_to_end_dont_keep_the_house_open() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(Riot(), id="house")
        await until(lambda: len(S) == 3)
        await house.tell(Stop())
        assert (await closes(desk, engine, "house")).status == "done"


class Crowd(House):
    many: int = 0
    gone: int = 0

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Listen:
        for n in range(self.many):
            await segue.spawn(Lodger(f"l{n}"), group=Floor.HALL)
        S.append("all there")
        return Listen()

    def finished(self, child: segue.Ended) -> object:
        self.gone += 1
        return None

    @segue.on
    async def stop(self, _: Stop) -> segue.Done[str]:
        return segue.Done("x")

    def teardown(self) -> None:
        S.append(f"{self.gone} gone")


async def test_a_thousand_children() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        began = time.monotonic()
        house = await engine.start(Crowd(many=1000), id="house")
        await until(lambda: "all there" in S)
        t1 = time.monotonic()
        await house.tell(Stop())
        await house
        print("start", t1 - began, "stop", time.monotonic() - t1)
        assert S[-1] == "1000 gone"


class Named(House):
    """Its child has a name, and is there again when it begins anew itself."""

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Listen:
        S.append("named comes")
        await segue.spawn(Lodger("fix"), group=Floor.HALL, id="fix")
        return Listen()

    @segue.on
    async def break_(self, _: Break) -> segue.Fail:
        return segue.Fail(ValueError("named broke"))

    @segue.on
    async def counted(self, _: Count) -> int:
        return 7


class Above(Actor[str]):
    groups = Floor
    restart = Restart(times=1)

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Listen:
        await segue.spawn(Named(), group=Floor.HALL, id="named")
        return Listen()


async def test_a_child_of_a_name_is_there_again_when_its_supervisor_begins_anew() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(Above(), id="above")
        await until(lambda: "fix comes" in S)
        await (await engine.get("named")).tell(Break())
        await until(lambda: S.count("fix comes") == 2)
        assert await (await engine.get("fix.2")).request(Count()) == 1
        assert (await desk.head("fix")).status == "cancelled"
        above = await engine.get("above")
        await above.cancel()
        with suppress(RunEnded, RunCancelled):
            await above
        assert (await desk.head("fix.2")).status == "cancelled"


class Told(House):
    """Says of each child that this is the end."""

    def finished(self, child: segue.Ended) -> object:
        self.ends.append(child.run.id)
        return segue.Done(" ".join(self.ends))


async def test_what_is_said_while_a_tree_ends_doesnt_change_its_result() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(Told(), id="house")
        await house.request(Hire(Floor.CELLAR, "first"))
        await house.request(Hire(Floor.HALL, "last"))
        await (await engine.get("lodger/last")).tell(Stop())
        assert await house == "lodger/last"


class Boom(BaseException):
    pass


class Explodes(Lodger):
    async def rollback(self) -> None:
        raise Boom

    async def interrupted(self) -> None:
        raise Boom


class Hazard(House):
    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Listen:
        await segue.spawn(Explodes("boom"), group=Floor.HALL, id="boom")
        await segue.spawn(Lodger("safe"), group=Floor.CELLAR, id="safe")
        return Listen()


async def closes(desk: Desk, engine: Any, run: str) -> Head:
    """Its end, however long it takes; minutes pass."""
    closing = asyncio.ensure_future(engine.wait(run))
    began = time.monotonic()
    while not closing.done():
        desk.fake.clock.advance(31)
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 20, [
            (head.id, head.status, head.reason) for head in await desk.store.runs()
        ]
    head: Head = closing.result()
    return head


async def test_a_child_that_panics_doesnt_keep_the_others() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        house = await engine.start(Hazard(), id="house")
        await until(lambda: {"boom comes", "safe comes"} <= set(S))
        await house.tell(Stop())
        assert (await closes(desk, engine, "house")).status == "done"
        assert (await desk.head("safe")).status == "cancelled"


async def test_a_child_that_no_worker_knows_doesnt_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(Hazard(), id="house")
        await until(lambda: {"boom comes", "safe comes"} <= set(S))
        await desk.parked("boom")
    async with desk.engine() as engine:
        known = engine.worker.repertoire.target
        engine.worker.repertoire.target = lambda name, module="": (
            None if name == "Explodes" else known(name, module)
        )
        await (await engine.get("house")).tell(Stop())
        assert (await closes(desk, engine, "house")).status == "done"
        assert (await desk.head("safe")).status == "cancelled"
        assert "its child boom didn't end, and is left behind" in caplog.text
