"""What a run waited for when it was cancelled was closed: it is opened again when a person has the run go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.errors import RunCancelled
from segue.runtime.handles import Ask
from segue.stores import open_store
from tests.runtime.lives import Desk

DONE: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    DONE.clear()


@segue.step
async def work(name: str) -> None:
    DONE.append(name)


@segue.flow
async def asks(name: str) -> str:
    await work(name)
    return f"{name}: {await segue.ask(f'{name}?')}"


@dataclass
class Asking: ...


class Asks(segue.Actor[str]):
    name: str

    def begin(self) -> Asking:
        return Asking()

    @segue.state
    async def ask(self, _: Asking) -> segue.Done[str]:
        return segue.Done(await asks(self.name))


class Above(segue.Actor[str]):
    def begin(self) -> Asking:
        return Asking()

    @segue.state
    async def ask(self, _: Asking) -> segue.Done[str]:
        return segue.Done(await Asks("a"))


@segue.flow
async def awaits() -> str:
    return await Above()


@segue.flow
async def maps() -> list[str]:
    return await segue.map(asks, ["a", "b", "c"])


async def questions(engine: segue.Engine, *texts: str) -> list[Ask]:
    async with asyncio.timeout(5):
        while True:
            found = await engine.open_asks()
            if sorted(ask.question for ask in found) == sorted(texts):
                return found
            await asyncio.sleep(0.001)


async def cancel(engine: segue.Engine) -> None:
    run = await engine.get("it")
    await run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await questions(engine)  # none is left


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(
    ("make", "names", "runs", "result"),
    [
        (lambda: asks("a"), "a", 1, "a: yes"),
        (lambda: Asks("a"), "a", 1, "a: yes"),
        (Above, "a", 2, "a: yes"),
        (awaits, "a", 3, "a: yes"),
        (maps, "abc", 4, ["a: yes", "b: yes", "c: yes"]),
    ],
)
async def test_a_cancelled_run_goes_on(
    make: Callable[[], Any], names: str, runs: int, result: Any, kind: str, tmp_path: Path
) -> None:
    desk = Desk(open_store(f"sqlite:{tmp_path}/runs.db") if kind == "sqlite" else None)
    texts = [f"{name}?" for name in names]
    async with segue.Engine(desk.store) as engine:
        await engine.start(make(), id="it")
        await questions(engine, *texts)
        await cancel(engine)
    for _ in range(2):  # each time
        async with segue.Engine(desk.store) as engine:
            resumed = await engine.resume("it")
            assert (resumed[0], len(resumed)) == ("it", runs)
            await questions(engine, *texts)
            await cancel(engine)
    async with segue.Engine(desk.store) as engine:
        await engine.resume("it")
        for ask in await questions(engine, *texts):
            await ask.answer("yes")
        assert await (await engine.get("it")) == result
    assert sorted(DONE) == list(names)  # whatever was done stays done
    await desk.store.close()


async def test_one_that_ended_otherwise_meanwhile_isnt_begun_again() -> None:
    desk = Desk()
    async with segue.Engine(desk.store) as engine:
        await engine.start(maps(), id="it")
        await questions(engine, "a?", "b?", "c?")
        await cancel(engine)
        children = [head.id for head in await engine.store.runs() if head.id != "it"]
        for child in children:
            await engine.resume(child)
        for ask in await questions(engine, "a?", "b?", "c?"):
            if ask.question == "b?":
                await ask.answer("alone")
                await engine.wait(ask.run)
        assert await engine.resume("it") == ["it"]  # two go on already, one is done
        for ask in await questions(engine, "a?", "c?"):
            await ask.answer("yes")
        assert await (await engine.get("it")) == ["a: yes", "b: alone", "c: yes"]
    assert sorted(DONE) == ["a", "b", "c"]
