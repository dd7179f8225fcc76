"""Children that are both supervised and awaited: the handler has the result, the supervisor hears the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue import Actor, Done, Ended, Restart
from segue.model.run import Head
from segue.testing import FakeModel
from segue.testing.clock import START
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk


class Desks(IntEnum):
    WORKERS = 1


class Worker(Actor[str]):
    how: str

    def begin(self) -> str:
        return self.how

    @segue.state
    async def work(self, how: str) -> Done[str]:
        if how == "waits":
            await segue.sleep(timedelta(seconds=1))
        if how == "fails":
            raise LookupError("no such work")
        return Done(f"worker {how}")


@segue.flow
async def flow_that_works(how: str) -> str:
    return f"flow {how}"


@dataclass
class Resting: ...


class Chief(Actor[list[str]]):
    groups = Desks
    restart = Restart("one", times=1, within=timedelta(hours=1))
    how: list[str]
    got: list[str] = segue.field(default_factory=list)
    ended: list[str] = segue.field(default_factory=list)

    def begin(self) -> list[str]:
        return self.how

    @segue.state
    async def work(self, how: list[str]) -> Resting:
        workers: list[segue.Run[str]] = []
        for each in how:
            call = flow_that_works(each) if each == "flows" else Worker(each)
            workers.append(await segue.spawn(call, group=Desks.WORKERS, restart="temporary"))
        results = await asyncio.gather(*workers, return_exceptions=True)
        self.got = [str(result) for result in results]
        return Resting()

    @segue.state
    async def rest(self, _: Resting) -> Done[list[str]]:
        await segue.sleep(timedelta(seconds=1))
        return Done([*self.got, *sorted(self.ended)])

    def finished(self, child: Ended) -> None:
        self.ended.append(child.why)


class Deaf(Chief):
    """One that doesn't ask how its children ended, and fails with them."""

    finished = Actor.finished

    @segue.state
    async def work(self, how: list[str]) -> Done[list[str]]:
        workers = [await segue.spawn(Worker(each), group=Desks.WORKERS, restart="temporary") for each in how]
        return Done([await worker for worker in workers])


class Patient(Chief):
    """One that waits for the slow one first: the other has ended long before it is awaited."""

    @segue.state
    async def work(self, how: list[str]) -> Done[list[str]]:
        workers = [await segue.spawn(Worker(each), group=Desks.WORKERS, restart="temporary") for each in how]
        for worker in reversed(workers):
            try:
                self.got.append(await worker)
            except LookupError as error:
                self.got.append(str(error))
        return Done(self.got)


class Asking(Actor[list[str]]):
    """One whose `finished` waits: each end is a turn of its own."""

    groups = Desks
    told: list[str] = segue.field(default_factory=list)

    def begin(self) -> Resting:
        return Resting()

    @segue.state
    async def rest(self, _: Resting) -> segue.Listen:
        for _n in range(2):
            await segue.spawn(Worker("at once"), group=Desks.WORKERS)
        return segue.Listen()

    async def finished(self, child: Ended) -> Done[list[str]] | None:
        self.told.append(await flow_that_works(str(child.value)))
        self.told.append(await Worker("waits"))
        return Done(self.told) if len(self.told) == 4 else None


class Add(segue.Request[int]):
    n: int


class Adder(Actor[None]):
    total: int = 0

    @segue.on
    async def add(self, request: Add) -> int:
        self.total += request.n
        return self.total


class Summing(Actor[int]):
    """What one end says is next, while another one's `finished` waits, is next for good."""

    groups = Desks
    heard: int = 0
    adder: segue.Run[None] | None = None

    def begin(self) -> Resting:
        return Resting()

    @segue.state
    async def rest(self, _: Resting) -> segue.Listen:
        self.adder = await segue.spawn(Adder())
        for _n in range(3):
            await segue.spawn(Worker("at once"), group=Desks.WORKERS)
        return segue.Listen()

    async def finished(self, child: Ended) -> list[str] | None:
        assert self.adder is not None  # as the state before left it
        await self.adder.request(Add(1))
        self.heard += 1
        return ["over"] if self.heard == 3 else None

    @segue.state
    async def over(self, _: list[str]) -> Done[int]:
        assert self.adder is not None  # so here
        total = await self.adder.request(Add(0))
        await self.adder.interrupt()
        return Done(total)


class Sleepy(Actor[list[str]]):
    """Two ends that come at once, each of which takes its time."""

    groups = Desks
    told: list[str] = segue.field(default_factory=list)

    def begin(self) -> Resting:
        return Resting()

    @segue.state
    async def rest(self, _: Resting) -> segue.Listen:
        for member in "xy":
            await segue.spawn(Worker("at once"), group=(Desks.WORKERS, member))
        return segue.Listen()

    async def finished(self, child: Ended) -> Done[list[str]] | None:
        await segue.sleep(timedelta(seconds=2))
        self.told.append(child.member)
        return Done(sorted(self.told)) if len(self.told) == 2 else None


HOW = ["at once", "waits", "fails", "flows"]
RESULT = ["worker at once", "worker waits", "no such work", "flow flows", "done", "done", "done", "failed"]


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_the_handler_has_the_result_and_the_supervisor_hears_the_end(park: str) -> None:
    desk = Desk(park=park)
    async with desk.engine(verify=True) as engine:
        assert await engine.run(Chief(HOW), id="it") == RESULT
        assert await engine.dead_letters() == []
        assert {head.status for head in await engine.store.runs()} == {"done", "failed"}


@pytest.mark.parametrize(
    ("how", "gives"), [(["at once"], None), (["at once", "waits"], None), (["fails"], LookupError)]
)
async def test_none_of_them_is_waited_for_once_more(how: list[str], gives: Any) -> None:
    async with FakeModel() as model:  # which verifies
        if gives is None:
            assert await model.run_flow(Deaf(how)) == [f"worker {each}" for each in how]
        else:
            with pytest.raises(gives):
                await model.run_flow(Deaf(how))
        assert await model.engine.dead_letters() == []
        assert (
            model.clock.now() < START.timestamp() + 20
        )  # a child that ends isn't asked to for half a minute


PATIENT = (lambda: Patient(["at once", "fails", "waits"])), ["worker waits", "no such work", "worker at once"]
ASKING = Asking, ["flow worker at once", "worker waits"] * 2


@pytest.mark.parametrize("park", ["auto", "always"])
@pytest.mark.parametrize(("make", "result"), [PATIENT, ASKING], ids=["patient", "asking"])
async def test_an_end_that_came_before_it_was_awaited(make: Any, result: list[str], park: str) -> None:
    desk = Desk(park=park)
    async with desk.engine(verify=True) as engine:
        assert await asyncio.wait_for(engine.run(make(), id="it"), 20) == result
        assert await engine.dead_letters() == []


CHIEF = (lambda: Chief(HOW)), RESULT
SUMMING = Summing, 3
SLEEPY = Sleepy, ["x", "y"]
CRASHED = {"chief": CHIEF, "patient": PATIENT, "asking": ASKING, "summing": SUMMING, "sleepy": SLEEPY}


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(("make", "result"), CRASHED.values(), ids=CRASHED)
async def test_whatever_crashes(make: Any, result: object, kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        await engine.start(make(), id="it")

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.reason) == ("done", "")
        assert msgspec.json.decode(head.value or b"") == result

    assert await at_every_commit(begin, "it", check, kind=kind, path=tmp_path) > 10
