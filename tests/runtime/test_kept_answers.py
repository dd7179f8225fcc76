"""An answer that comes while who asked is over waits for it: should it go on, nobody does the work again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.errors import RunCancelled, StepFailed
from segue.runtime.handles import Ask
from segue.stores import open_store
from tests.runtime.lives import Desk

ENGINE: list[segue.Engine] = []
DONE: list[str] = []
broken: set[str] = set()  #: steps that fail
tidy: list[bool] = []  #: whether to ask at the end
first: list[str] = []  #: what is asked before all else


class Say(segue.Request[str]):
    text: str


class Clerk(segue.Actor[None]):
    @segue.on
    async def say(self, message: Say) -> str:
        await noted(message.text)
        return await segue.ask(f"say {message.text}")


@dataclass
class Saying:
    text: str


class Boss(segue.Actor[str]):
    def begin(self) -> Saying:
        return Saying("a")

    @segue.state
    async def say(self, what: Saying) -> segue.Done[str]:
        return segue.Done(await says(what.text))


@segue.step
async def noted(text: str) -> None:
    DONE.append(text)


@segue.step
async def shaky(text: str) -> None:
    if text in broken:
        raise StepFailed(text)


@segue.flow(version="1")
async def says(text: str, timeout: timedelta | None = None) -> str:
    for asked in first:
        await segue.ask(asked)
    clerk: Any = await ENGINE[-1].get("clerk")
    return await clerk.request(Say(text), timeout=timeout)


@segue.flow
async def says_beside(text: str) -> str:
    """One branch waits for the clerk; the other one fails as soon as it is told to."""

    async def other() -> None:
        await segue.receive(str)
        await shaky(text)

    async with asyncio.TaskGroup() as group:
        said = group.create_task(says(text))
        group.create_task(other())
    return said.result()


@pytest.fixture(params=["memory", "sqlite"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    DONE.clear()
    broken.clear()
    first.clear()
    tidy.clear()
    desk = Desk(open_store(f"sqlite:{tmp_path}/runs.db") if request.param == "sqlite" else None)
    yield desk
    await desk.store.close()


@asynccontextmanager
async def life(desk: Desk) -> AsyncIterator[segue.Engine]:
    async with desk.engine() as engine, asyncio.timeout(20):
        ENGINE[:] = [engine]
        yield engine


async def begin(engine: segue.Engine, call: Any) -> Any:
    await engine.start(Clerk(), id="clerk")
    return await engine.start(call, id="it")


async def question(engine: segue.Engine) -> Ask:
    while not (found := await engine.open_asks()):
        await asyncio.sleep(0.001)
    (ask,) = found
    return ask


async def answered(engine: segue.Engine) -> None:
    """The clerk's answer is on its way to who asked."""
    await (await question(engine)).answer("yes")
    while (await engine.head("clerk")).status != "parked":
        await asyncio.sleep(0.001)


async def cancel(engine: segue.Engine, run: Any) -> None:
    await question(engine)
    await run.cancel()
    with pytest.raises(RunCancelled):
        await run


async def test_it_came_while_the_run_was_cancelled(desk: Desk) -> None:
    async with life(desk) as engine:
        await cancel(engine, await begin(engine, says("a")))
        await answered(engine)
    async with life(desk) as engine:
        await engine.resume("it")
        assert await (await engine.get("it")) == "yes"
    assert DONE == ["a"]


async def test_it_came_while_the_run_had_failed(desk: Desk) -> None:
    broken.add("a")
    async with life(desk) as engine:
        run = await begin(engine, says_beside("a"))
        await question(engine)
        await engine.tell("it", "str", b'"go"')
        with pytest.raises(ExceptionGroup):
            await run
        await answered(engine)
    broken.clear()
    async with life(desk) as engine:
        await engine.resume("it")
        assert await (await engine.get("it")) == "yes"
    assert DONE == ["a"]


@segue.flow
async def says_and_tidies_up(text: str) -> str:
    try:
        return await says_beside(text)
    finally:
        if tidy:
            await segue.ask("tidied up?")


class TidyBoss(Boss):
    @segue.state
    async def say(self, what: Saying) -> segue.Done[str]:
        return segue.Done(await says_and_tidies_up(what.text))


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda: says_and_tidies_up("a"), "cancelled"),
        (lambda: says_and_tidies_up("a"), "failed"),
        (TidyBoss, "cancelled"),
    ],
)
async def test_it_came_while_the_run_tidied_up(desk: Desk, make: Callable[[], Any], end: str) -> None:
    broken.add("a")
    tidy.append(True)
    async with life(desk) as engine:
        run = await begin(engine, make())
        await question(engine)
        if end == "failed":
            await engine.tell("it", "str", b'"go"')
        else:
            await run.cancel()
        while len(asked := await engine.open_asks()) < 2:
            await asyncio.sleep(0.001)
        by_text = {ask.question: ask for ask in asked}
        await by_text["say a"].answer("yes")
        while (await engine.head("clerk")).status != "parked" or (await desk.head()).status != "parked":
            await asyncio.sleep(0.001)
    async with life(desk) as engine:  # and is read once more
        await (await question(engine)).answer("no")
        while (await desk.head()).status != end:
            await asyncio.sleep(0.001)
    broken.clear()
    tidy.clear()
    async with life(desk) as engine:
        await engine.resume("it")
        if end == "cancelled":
            await engine.tell("it", "str", b'"go"')
        assert await (await engine.get("it")) == "yes"
    assert DONE == ["a"]


async def test_it_came_in_time_and_the_run_goes_on_later(desk: Desk) -> None:
    async with life(desk) as engine:
        await cancel(engine, await begin(engine, says("a", timedelta(hours=1))))
        await answered(engine)
    desk.fake.clock.advance(7200)
    async with life(desk) as engine:
        await engine.resume("it")
        assert await (await engine.get("it")) == "yes"


async def test_an_actor_whose_state_asked(desk: Desk) -> None:
    async with life(desk) as engine:
        await cancel(engine, await begin(engine, Boss()))
        await answered(engine)
    async with life(desk) as engine:
        await engine.resume("it")
        assert await (await engine.get("it")) == "yes"
    assert DONE == ["a"]


async def test_it_waits_until_the_code_comes_to_its_call(desk: Desk) -> None:
    """Changed code asks something else first, and is cancelled there."""
    async with life(desk) as engine:
        await cancel(engine, await begin(engine, says("a")))
        await answered(engine)
    first.append("may I?")
    for _ in range(2):
        async with life(desk) as engine:
            await engine.resume("it")
            await cancel(engine, await engine.get("it"))
    async with life(desk) as engine:
        await engine.resume("it")
        await (await question(engine)).answer("of course")
        assert await (await engine.get("it")) == "yes"
    assert DONE == ["a"]


async def test_a_new_run_of_that_id_gets_none(desk: Desk) -> None:
    async with life(desk) as engine:
        await cancel(engine, await begin(engine, says("a")))
        await answered(engine)
        assert await engine.remove("it") == 1
        run = await engine.start(says("a"), id="it")
        assert (await question(engine)).run == "clerk"
        await (await question(engine)).answer("again")
        assert await run == "again"
