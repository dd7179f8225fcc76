"""What the code gives up is told the world, though the run leave or die before it came to that."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.ports.store import Landed, Turn
from segue.runtime.wake.rebase import entries_of
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.fake_model import FakeEngine
from tests.runtime.delayed import Delayed


@segue.step
async def quick() -> int:
    return 1


@segue.flow
async def slow(row: int) -> int:
    await segue.sleep(timedelta(days=900))
    return row


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_a_question_is_closed(park: str) -> None:
    fake = FakeModel()
    open_then: list[int] = []

    @segue.step
    async def look() -> int:
        open_then.append(len(await engine.store.asks()))
        return 0

    @segue.flow
    async def looking() -> int:
        asking = asyncio.create_task(segue.ask("Still open?"))
        await asyncio.sleep(0)
        await quick()
        asking.cancel()
        await segue.sleep(timedelta(days=1))
        return await look()

    engine = FakeEngine(fake, "memory:", park=park)
    async with engine:
        await engine.run(looking())
    assert open_then == [0]


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_a_child_is_cancelled(park: str) -> None:
    @segue.flow
    async def hasty() -> int:
        waiting = asyncio.ensure_future(_all(segue.map(slow, [1, 2])))
        await asyncio.sleep(0.01)
        await quick()
        waiting.cancel()
        await segue.sleep(timedelta(days=1))
        return await quick()

    async with FakeEngine(FakeModel(), "memory:", park=park) as engine:
        assert await engine.run(hasty(), id="h") == 1
        for _ in range(100):
            heads = [head for head in await engine.store.runs() if head.id != "h"]
            if all(head.status == "cancelled" for head in heads):
                break
            await asyncio.sleep(0.01)
        assert [head.status for head in heads] == ["cancelled", "cancelled"]


async def _all(mapped: segue.Mapped[int]) -> list[int]:
    return await mapped


begun: list[str] = []


@segue.step(effect="at-most-once")
async def letter() -> str:
    begun.append("letter")
    await asyncio.sleep(30)
    return "sent"


@segue.step
async def call() -> str:
    await asyncio.sleep(0)
    return "called"


@segue.flow
async def reached() -> str:
    """Whichever comes first; then it waits for long."""
    ways = {asyncio.create_task(letter()), asyncio.create_task(call())}
    done, late = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in late:
        way.cancel()
    await segue.sleep(timedelta(days=1))
    return done.pop().result()


async def test_an_at_most_once_step_that_was_given_up_holds_no_later_life() -> None:
    begun.clear()
    async with FakeEngine(FakeModel(), "memory:") as engine:
        assert await engine.run(reached()) == "called"
    assert begun == ["letter"]


released = asyncio.Event()


@segue.step
async def lingering() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await released.wait()
    return "kept"


@segue.step
async def beside() -> None:
    await asyncio.sleep(0.03)


@segue.step
async def give() -> str:
    return "given"


@segue.step
async def take(text: str) -> str:
    released.set()
    await asyncio.sleep(0.01)  # meanwhile, what was given up comes to its end
    return text


@segue.flow
async def passing_on() -> str:
    other = asyncio.create_task(beside())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await lingering()
    await other
    return await take(await give())


async def test_what_was_given_up_and_comes_late_isnt_taken_for_what_a_step_was_given() -> None:
    released.clear()
    async with segue.Engine("memory:", verify=True) as engine:
        assert await engine.run(passing_on(), id="it") == "given"
        entries = await entries_of(engine.store, "it")
    assert {entry.name: entry.value for entry in entries if entry.path == ""}["lingering"] == b'"kept"'
    assert next(entry for entry in entries if entry.name == "take").args == b'[["given"],{}]'


class Word(segue.Note):
    text: str


class Slow(Delayed):
    """A store that takes its time to say that a message was taken."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), lambda: 0.3 if self.taken else 0.0)
        self.taken = False

    def land(self, turn: Turn, then: Landed) -> None:
        """Later, if it took one."""
        self.taken = bool(turn.consumed)
        super().land(turn, then)


@pytest.mark.parametrize("kind", ["flow", "actor"])
async def test_a_message_that_comes_as_its_call_is_given_up_comes_once_more(kind: str) -> None:
    """`asyncio.wait` knows nothing of commits: the message was taken, and nobody had got it."""

    async def listen() -> list[str]:
        receiving = asyncio.ensure_future(segue.receive(Word))
        await asyncio.wait({receiving}, timeout=0.2)
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return [(await receiving).text]
        return ["cut", (await segue.receive(Word)).text, (await segue.receive(Word)).text]

    @segue.flow(name="given_up.listens")
    async def listens() -> list[str]:
        return await listen()

    class Listens(segue.Actor[list[str]]):
        def begin(self) -> int:
            return 1

        @segue.state
        async def one(self, _: int) -> segue.Done[list[str]]:
            return segue.Done(await listen())

    async with segue.Engine(Slow(), verify=True) as engine, asyncio.timeout(10):  # type: ignore[arg-type]  # as good as one
        run = await engine.start(listens() if kind == "flow" else Listens(), id="it")
        await run.tell(Word("a"))
        await asyncio.sleep(0.5)
        await run.tell(Word("b"))
        assert await run == ["cut", "a", "b"]


async def test_so_does_one_that_comes_as_the_engine_closes(tmp_path: Path) -> None:
    """Calls under way are waited for then, and what was taken meanwhile isn't written before they are in."""

    @segue.step(name="given_up.long")
    async def long() -> None:
        await asyncio.sleep(1.2)

    @segue.flow(name="given_up.closed")
    async def closed() -> str:
        under_way = asyncio.ensure_future(long())
        while True:
            receiving = asyncio.ensure_future(segue.receive(Word))
            await asyncio.wait({receiving}, timeout=0.5)
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                word = await receiving
                await under_way
                return word.text

    store, telling = f"sqlite:{tmp_path}/runs.db", list[Any]()
    async with segue.Engine(store, grace=5) as engine:
        run = await engine.start(closed(), id="it")
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(
            0.45, lambda: telling.append(asyncio.ensure_future(run.tell(Word("a"))))
        )
    async with segue.Engine(store) as engine, asyncio.timeout(10):
        assert await (await engine.get("it")) == "a"
