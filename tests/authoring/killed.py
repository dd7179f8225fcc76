"""Actors that die at every commit, before it is written and after, in every store and mode."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from segue.model.run import Head
from segue.stores import open_store
from segue.testing.fake_model import FakeEngine
from tests.runtime.lives import Desk

Begin = Callable[[FakeEngine], Awaitable[object]]


async def through(desk: Desk, run: str, die_at: int | None, after: bool) -> bool:
    """A life until that run is over or the process dies; whether it died."""
    async with desk.engine(die_at, after=after) as engine:
        assert desk.killed is not None
        ending = asyncio.ensure_future(desk.fake.or_unexpected(engine.wait(run)))
        await asyncio.wait({ending, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
        died = desk.killed.done()
        if not died:
            ending.result()
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    return died


async def at_every_commit(
    begin: Begin,
    run: str,
    check: Callable[[Desk, Head], object],
    *,
    kind: str,
    path: Path,
    set_up: Callable[[Desk], object] | None = None,
) -> int:
    """Begin, with nobody at work yet, then carry on until `run` is over; how many lives. `check` sees each end.

    On SQLite each commit is died at once, before it or after in turn: in memory it is both.
    """
    lives = 0
    with in_memory(path) as directory:
        for first in (1, 2):
            for die_at in range(first, 80, 2) if kind == "sqlite" else range(1, 80):
                store = open_store(f"sqlite:{directory}/{die_at}.db") if kind == "sqlite" else None
                desk = Desk(store)
                if set_up is not None:
                    set_up(desk)
                async with desk.engine(worker=False) as engine:
                    await begin(engine)
                died = await through(desk, run, die_at, first == 2)
                lives += 1
                head = await desk.head(run)
                while head.status in ("ready", "parked"):
                    await through(desk, run, None, False)
                    lives += 1
                    head = await desk.head(run)
                check(desk, head)
                if store is not None:
                    await store.close()
                if not died:
                    break
            else:
                raise AssertionError("it commits for ever")
    return lives


@contextmanager
def in_memory(path: Path) -> Iterator[Path]:
    """A directory for files that needn't outlive the machine, whose disk others keep busy; else that one."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield path
        return
    with TemporaryDirectory(dir=memory, prefix="segue-") as directory:
        yield Path(directory)
