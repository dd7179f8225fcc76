"""What becomes of an actor's past turns: kept, dropped, or kept for a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

import segue
from segue.core.contents import content_digest
from segue.model.entry import Entry, encode_entries
from segue.model.errors import Conflict
from segue.model.mode import DROP, KEEP
from segue.model.run import Spec
from segue.ports.store import History, NewRun, Turn
from segue.runtime.wake import rebase
from segue.stores.memory import MemoryStore
from segue.testing.clock import VirtualClock
from tests.authoring.readers import Forgetful, Reader


class Remembering(Forgetful, history="keep"):
    pass


@pytest.fixture(params=["memory:", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param) if request.param == "memory:" else f"sqlite:{tmp_path / 'runs.db'}"


async def _past(engine: segue.Engine, run: str) -> History:
    await engine.sweep()
    return await engine.store.history(run, rows=False)


async def test_the_class_says_more_than_the_engine(store: str) -> None:
    async with segue.Engine(store) as engine:
        for actor in (Reader, Forgetful, Remembering):
            assert await engine.run(actor(), id=actor.__name__) == 40_000
        kept = await _past(engine, "Reader")
        assert kept.archived == 4
        assert await _past(engine, "Remembering") == kept
        assert await _past(engine, "Forgetful") == History([], 0, kept.archived)
    async with segue.Engine("memory:", history="drop") as engine:
        for actor in (Reader, Remembering):
            assert await engine.run(actor(), id=actor.__name__) == 40_000
        assert (await _past(engine, "Reader")).archived == 0
        assert await _past(engine, "Remembering") == kept


async def test_it_is_kept_for_a_time(store: str) -> None:
    clock = VirtualClock()
    async with segue.Engine(store, history=timedelta(days=30), clock=clock) as engine:
        assert await engine.run(Reader(), id="r") == 40_000
        kept = await _past(engine, "r")
        assert kept.dropped == 0
        clock.advance(29 * 86400.0)
        assert await _past(engine, "r") == kept
        clock.advance(2 * 86400.0)
        assert await _past(engine, "r") == History([], 0, kept.archived)


async def test_what_is_dropped_is_gone_from_the_file(tmp_path: Path) -> None:
    """Contents too; the last turn stays, and what others hold."""
    path = tmp_path / "runs.db"
    async with segue.Engine(f"sqlite:{path}") as engine:
        await engine.run(Forgetful(), id="r")
        await engine.sweep()
        await engine.sweep()
    with sqlite3.connect(path) as cx:
        (blobs,) = cx.execute("select count(*) from blobs").fetchone()
        (rows,) = cx.execute("select count(*) from journal where run > 0").fetchone()
        (held,) = cx.execute("select count(*) from holds").fetchone()
    cx.close()
    assert (blobs, rows, held) == (1, 2, 1)  # its call, and how it left the fields


async def test_a_run_goes_on_while_its_past_is_dropped(store: str) -> None:
    async with segue.Engine(store, park="always", history="drop") as engine:
        run = await engine.start(Reader(), id="r")
        while not (await run.head()).finished:
            await engine.sweep()
        assert await run == 40_000
        assert (await _past(engine, "r")).archived == 0


async def test_an_actor_with_a_past_cant_be_forked() -> None:
    async with segue.Engine(history="drop") as engine:
        await engine.run(Reader(), id="r")
        await engine.sweep()
        with pytest.raises(Conflict, match=r"its past \(\d+ commits of it were dropped.*start another one"):
            await engine.fork("r")


async def test_who_looks_while_it_is_dropped_sees_what_is_there() -> None:
    class Busy(MemoryStore):
        """The run goes on, and its past is dropped, between two looks."""

        async def get_blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
            if moves:
                self.commit([moves.pop()])
                await self.sweep(now=1.0, limit=9)
            return await super().get_blobs(digests)

    moves: list[Turn] = []
    store = Busy()
    async with segue.Engine(store, history="drop", worker=False):
        await store.create(
            [NewRun("r", Spec("actor", "x", b"{}", history=DROP))], now=0.0, worker="w", ttl=60.0
        )
        name = content_digest(b'"large"')
        entry = Entry("", 0, "step", "page", b"d", b"[]", 0, 0, name, None, 1.0, value_blob=True)
        large = {"entries": encode_entries([entry]), "blobs": [(name, b'"large"')]}
        store.commit([Turn(run="r", fence=1, **large)])
        moves.append(Turn(run="r", fence=1, checkpoint=b"s"))
        assert await rebase.entries_of(store, "r") == []
        store.commit([Turn(run="r", fence=1, **large)])
        (found,) = await rebase.entries_of(store, "r")
        assert found.value == b'"large"'


async def test_what_isnt_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="history must be 'keep', 'drop' or a timedelta above nothing"):
        segue.Engine(history=timedelta(0))
    with pytest.raises(ValueError, match="not 'days'"):

        class Strange(segue.Actor[None], history="days"):  # type: ignore[arg-type]  # that is the point
            pass

    assert (Forgetful.__segue__.history, Remembering.__segue__.history) == (DROP, KEEP)  # type: ignore[attr-defined]
