"""Single sweeps, beside others that are at work, and on a store that can't be written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.errors import StoreError
from segue.ports.store import Landed, Turn
from segue.runtime.worker import POLL
from segue.stores.poison import LAPSES, SUSPECT

GATE: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def begin() -> None:
    GATE.clear()


@segue.step
async def long() -> str:
    GATE["begun"].set()
    await GATE["go on"].wait()
    return "done"


@segue.flow(name="advance.slow")
async def slow() -> str:
    return await long()


@segue.flow(name="advance.asking")
async def asking(text: str) -> bool:
    return await segue.ask("Right?", show=text, returns=bool)


async def test_a_sweep_leaves_to_others_what_they_are_at_work_on(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    GATE.update({name: asyncio.Event() for name in ("begun", "go on")})
    async with segue.Engine(store) as other, asyncio.timeout(10):
        run = await other.start(slow(), id="slow")
        await GATE["begun"].wait()
        async with segue.Engine(store, worker=False) as sweeper:
            await sweeper.start(asking("x"), id="ask")
            assert await asyncio.wait_for(sweeper.advance(), 5)  # it still waits, and nobody waits for it
            assert (await sweeper.head("ask")).status == "parked"
        GATE["go on"].set()
        assert await run == "done"


def fill(engine: segue.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no more room in its store, but for what is as small as a claim."""
    whole = engine.store.land

    def land(turn: Turn, then: Landed) -> Any:
        if turn.entries is None and not turn.asks:
            return whole(turn, then)
        full = StoreError("here", "the disk is full", "make room")
        asyncio.get_running_loop().call_soon(then, full)
        return None

    monkeypatch.setattr(engine.worker, "commit", land)


async def test_a_sweep_ends_where_turns_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async with segue.Engine(worker=False) as engine:
        await engine.start(asking("x"), id="it")
        with monkeypatch.context() as full:
            fill(engine, full)
            with pytest.raises(StoreError, match="the disk is full"):
                await asyncio.wait_for(engine.advance(), 5)


async def test_runs_of_a_full_store_are_no_poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store, worker=False) as engine:
        await engine.start(asking("x"), id="it")
    for _ in range(LAPSES + 1):
        async with segue.Engine(store, worker=False) as engine:
            with monkeypatch.context() as full, pytest.raises(StoreError, match="the disk is full"):
                fill(engine, full)
                await asyncio.wait_for(engine.advance(), 5)
    async with segue.Engine(store, worker=False) as engine:
        await engine.advance()
        assert (await engine.head("it")).status == "parked"


async def test_a_worker_tries_a_full_store_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = 0
    async with segue.Engine() as engine:
        whole = engine.store.claim

        async def claim(*how: object, **more: object) -> object:
            nonlocal claims
            claims += 1
            return await whole(*how, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(engine.store, "claim", claim)
        with monkeypatch.context() as full:
            fill(engine, full)
            await engine.start(asking("x"), id="it")
            while engine.worker.failure is None:
                await asyncio.sleep(0)
            before = claims
            await asyncio.sleep(0.1)
            assert claims - before <= 1


@segue.step
async def short() -> None:
    await asyncio.sleep(0.01)


@segue.flow(name="advance.brief")
async def brief() -> None:
    await short()


async def test_suspects_are_woken_one_after_another_without_a_pause(tmp_path: Path) -> None:
    """They were claimed by workers that were killed before they had written anything."""
    path = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(path, worker=False) as engine:
        for n in range(20):
            await engine.start(brief(), id=f"brief/{n}")
        for n in range(SUSPECT):
            await engine.store.claim(f"killed{n}", 100, 1.0, now=engine.clock.now())
            await engine.store.bury([f"killed{n}"])
    async with segue.Engine(path) as engine, asyncio.timeout(POLL * 5):
        while len((await engine.store.newest(status=("done",)))[0]) < 20:
            await asyncio.sleep(0.01)
