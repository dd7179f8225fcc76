"""Who waits for the end of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import StoreError
from segue.model.message import Question
from segue.model.run import Head
from segue.runtime import ends
from segue.runtime.ground import patience
from segue.runtime.handles import Ask


async def test_who_waits_for_an_answer_that_nobody_looks_for_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`print(await engine.run(…))` of a flow that asks would stand there, and say nothing."""
    monkeypatch.setattr(ends, "POLL", 0.001)

    @segue.flow(name="ends.asks")
    async def asks() -> str:
        return await segue.ask("Go on?")

    async def waiting(engine: segue.Engine, *, looks: bool) -> list[str]:
        caplog.clear()
        if looks:
            assert [ask.id async for ask in _first(engine.asks())] == ["a:0"]
        ending = asyncio.ensure_future(_value(await engine.start(asks(), id="a")))
        await asyncio.sleep(0.1)
        await engine.answer("a:0", "yes")
        assert await ending == "yes"
        return [record.getMessage() for record in caplog.records]

    async with segue.Engine("memory:") as engine:
        (said,) = await waiting(engine, looks=False)
        assert said.startswith(
            "run a waits for an answer to a:0, 'Go on?', and nothing here looks at questions: "
        )
    async with segue.Engine("memory:") as engine:
        await engine.start(asks(), id="a")
        assert await waiting(engine, looks=True) == []


@segue.flow(name="ends.row")
async def row(n: int) -> str:
    return await segue.ask("Go on?") if n == 1 else "done"


@segue.flow(name="ends.above")
async def above() -> str:
    return await (await segue.spawn(row(1)))


@pytest.mark.parametrize("looks", [False, True])
async def test_a_question_beneath_what_is_waited_for_is_said(
    looks: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ends, "POLL", 0.01)

    async def said(engine: segue.Engine, ending: Awaitable[object]) -> list[str]:
        caplog.clear()
        waiting = asyncio.ensure_future(ending)
        if looks:
            assert len([ask async for ask in _first(engine.asks())]) == 1
        await asyncio.sleep(0.2)
        (asked,) = await engine.open_asks()
        await engine.answer(asked.id, "yes")
        await waiting
        return [record.getMessage().split(", and")[0].replace(asked.id, "ID") for record in caplog.records]

    async def values(engine: segue.Engine) -> list[str]:
        return await engine.map(row, range(3), id="job")

    async with segue.Engine("memory:") as engine:
        heard = await said(engine, _value(await engine.start(above(), id="a")))
        assert heard == ["run a waits for an answer to ID, 'Go on?'"] * (not looks)
    async with segue.Engine("memory:") as engine:
        heard = await said(engine, values(engine))
        assert heard == ["job job waits for an answer to ID, 'Go on?'"] * (not looks)


async def test_a_question_of_others_is_theirs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ends, "POLL", 0.001)

    @segue.flow(name="ends.waits")
    async def waits() -> str:
        return await segue.receive(str)

    async with segue.Engine("memory:") as engine:
        await engine.start(row(1), id="job/1")
        run = await engine.start(waits(), id="jo")
        waiting = asyncio.ensure_future(_value(run))
        await asyncio.sleep(0.1)
        assert caplog.messages == []
        await run.tell("so")
        assert await waiting == "so"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_who_waits_as_the_engine_closes_is_told(kind: str, tmp_path: Path) -> None:
    """On SQLite it was told to open the store; whoever iterates questions of a store in memory waited for ever."""

    async def outcomes(job: segue.Job[int, str]) -> None:
        async for outcome in job:
            assert outcome.value == "done"

    async def questions(engine: segue.Engine) -> None:
        async for ask in engine.asks():
            assert ask.question == "Go on?"

    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        run = await engine.start(row(1), id="a")
        job = engine.map(row, [1, 2], id="j")
        waiting = [asyncio.ensure_future(wait) for wait in (_value(run), outcomes(job), questions(engine))]
        await asyncio.sleep(0.3)
    async with asyncio.timeout(2):
        for one in waiting:
            with pytest.raises(asyncio.CancelledError, match="the engine was closed"):
                await one


async def _first(asks: AsyncIterator[Ask]) -> AsyncIterator[Ask]:
    async for ask in asks:
        yield ask
        break


async def _value(run: segue.Run[str]) -> str:
    return await run


@segue.flow(name="ends.later")
async def later() -> str:
    await segue.sleep(timedelta(seconds=0.3))
    return "done"


@pytest.mark.parametrize("times", [1, 5])
async def test_who_waits_hears_nothing_of_looks_that_fail_for_a_moment(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on, and who began it once more would have it done, and paid, twice."""
    monkeypatch.setattr(ends, "POLL", 0.01)
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    path, failed = f"sqlite:{tmp_path}/runs.db", 0
    async with segue.Engine(path), segue.Engine(path, worker=False) as engine:
        whole, asks = engine.store.get, engine.store.asks

        async def get(id: str) -> Head | None:
            nonlocal failed
            if id == "it" and failed < times:
                failed += 1
                raise StoreError("here", "the disk reports an error", "check it")
            return await whole(id)

        async def failing(**which: str) -> list[Question]:
            engine.store.asks = asks  # type: ignore[method-assign]
            raise StoreError("here", "the disk reports an error", "check it")

        engine.store.get, engine.store.asks = get, failing  # type: ignore[method-assign, assignment]
        assert await asyncio.wait_for(engine.run(later(), id="it"), 10) == "done"
        assert (failed, engine.store.asks) == (times, asks)


async def test_who_waits_is_told_of_looks_that_go_on_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.001)
    async with segue.Engine(f"sqlite:{tmp_path}/runs.db", worker=False) as engine:
        run = await engine.start(later(), id="it")

        async def get(id: str) -> Head | None:
            raise StoreError("here", "the disk reports an error", "check it")

        engine.store.get = get  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="the disk reports an error"):
            await asyncio.wait_for(_value(run), 20)


@pytest.mark.parametrize("way", ["run", "map"])
async def test_who_waits_hears_nothing_of_a_claim_that_fails(way: str) -> None:
    async with segue.Engine(linger=0.01) as engine:
        whole = engine.store.claim

        async def failing(*_: object, **__: object) -> list[object]:
            engine.store.claim = whole  # type: ignore[method-assign]
            raise StoreError("here", "the disk reports an error", "check it")

        waiting = asyncio.ensure_future(_one(engine) if way == "run" else _all(engine))
        await asyncio.sleep(0.1)
        engine.store.claim = failing  # type: ignore[assignment]
        engine.worker.wake()
        assert await asyncio.wait_for(waiting, 10) == ["done"]
        assert engine.store.claim == whole


async def test_a_look_that_fails_ends_no_loop_over_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    async with segue.Engine(linger=0.01) as engine:
        whole, looks = engine.store.asked, 0

        async def asked(after: int, **how: Any) -> tuple[list[Question], int]:
            nonlocal looks
            looks += 1
            if looks == 1:
                raise StoreError("here", "the disk reports an error", "check it")
            return await whole(after, **how)

        engine.store.asked = asked  # type: ignore[method-assign]
        run = await engine.start(asks_once(), id="a")
        async with asyncio.timeout(10):
            async for ask in engine.asks():
                await ask.answer("yes")
                break
            assert await run == "yes"


@segue.flow(name="ends.once")
async def asks_once() -> str:
    return await segue.ask("Go on?")


@segue.flow(name="ends.slow")
async def slow(seconds: float = 1.2) -> str:
    await segue.sleep(timedelta(seconds=seconds))
    return "done"


async def _one(engine: segue.Engine) -> list[str]:
    return [await engine.run(slow())]


async def _all(engine: segue.Engine) -> list[str]:
    return await engine.map(slow, [1.2])
