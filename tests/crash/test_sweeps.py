"""SIGKILL before every SQL statement of a sweep, and of a claim that leaves some runs to others: nothing is amiss."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue.model.run import Spec
from segue.ports.store import NewRun
from segue.stores.sqlite.store import SqliteStore
from segue.testing.clock import VirtualClock
from tests.authoring.readers import Forgetful, Reader

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and kills")
DAY = 86400.0
#: So many statements an order has at most; it had fewer when this was written.
MOST = 400


class ForADay(Reader, history=timedelta(days=1)):
    pass


@contextmanager
def lives(order: str) -> Iterator[Any]:
    """What has such an order carried out in a process of its own, which may die in it; how that ended."""
    words = [sys.executable, str(HERE / "sweeps.py"), order]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, heard = process.stdin, process.stdout

        def life(path: Path, now: float, dies_at: int = 0) -> int:
            print(json.dumps([str(path), now, dies_at]), file=told, flush=True)
            return int(heard.readline())

        yield life
        told.close()


def copied(origin: Path, path: Path) -> Path:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    shutil.copy(origin, path)
    return path


class Past(msgspec.Struct):
    """What a file has of past turns: each run's rows and how many were dropped, contents, and who holds them."""

    runs: dict[str, tuple[list[bytes], int]]
    contents: set[bytes]
    held: set[tuple[int, bytes]]


async def past(path: Path) -> Past:
    store = SqliteStore(str(path))
    await store.open()
    runs = {}
    for head in await store.runs():
        found = await store.history(head.id)
        runs[head.id] = found.rows, found.dropped
    await store.close()
    with sqlite3.connect(path) as cx:
        assert cx.execute("pragma integrity_check").fetchall() == [("ok",)]
        contents = {digest for (digest,) in cx.execute("select digest from blobs")}
        held = set(cx.execute("select run, digest from holds"))
    cx.close()
    assert {digest for _, digest in held} <= contents
    return Past(runs, contents, held)


@pytest.mark.slow
async def test_a_sweep_that_dies_anywhere_loses_and_doubles_nothing(tmp_path: Path) -> None:
    origin = tmp_path / "origin.db"
    clock = VirtualClock()
    async with segue.Engine(f"sqlite:{origin}", clock=clock) as engine:
        for actor in (Reader, Forgetful, ForADay):
            for number in range(2):
                assert await engine.run(actor(), id=f"{actor.__name__}.{number}") == 40_000
        now = clock.now()
    whole = await past(origin)
    assert all(len(rows) > 3 and not dropped for rows, dropped in whole.runs.values())
    with lives("sweep") as life:
        for when, next_origin in ((now, tmp_path / "sealed.db"), (now + 2 * DAY, tmp_path / "over.db")):
            expected = copied(origin, next_origin)
            assert life(expected, when) == 0
            right = await past(expected)
            assert right.runs != whole.runs
            for dies_at in range(1, MOST):
                path = copied(origin, tmp_path / "dies.db")
                if (ended := life(path, when, dies_at)) == 0:
                    break
                assert ended == -9
                for run, (rows, dropped) in (await past(path)).runs.items():
                    kept, _ = whole.runs[run]
                    assert rows == kept[len(kept) - len(rows) :]  # what is there is in order, and once
                    assert dropped == len(kept) - len(rows)
                assert life(path, when) == 0  # the next one goes on
                assert await past(path) == right
            assert 10 < dies_at < MOST - 1
            origin = expected
    assert {run: len(rows) for run, (rows, _) in right.runs.items()} == {
        run: len(rows) if "Reader" in run else 2  # the last turn's
        for run, (rows, _) in whole.runs.items()
    }


@pytest.mark.slow
async def test_a_claim_that_dies_anywhere_holds_up_nobody(tmp_path: Path) -> None:
    origin = tmp_path / "origin.db"
    store = SqliteStore(str(origin))
    await store.open()
    runs = [
        NewRun(f"{target}.{n}", Spec("flow", target, b"[[],{}]"))
        for n in range(3)
        for target in ("mine", "theirs")
    ]
    await store.create(runs, now=0.0)
    await store.close()
    with lives("claim") as life:
        for dies_at in range(1, MOST):
            path = copied(origin, tmp_path / "dies.db")
            ended = life(path, 1.0, dies_at)
            store = SqliteStore(str(path))
            await store.open()
            theirs = await store.claim("other", 10, 60.0, now=2.0, but=["mine"])
            assert {one.head.id: one.head.fence for one in theirs} == {f"theirs.{n}": 1 for n in range(3)}
            at_once = await store.claim("other", 10, 60.0, now=2.0)  # what the dead one hadn't got
            await store.bury(["doomed"])
            later = await store.claim("other", 10, 60.0, now=3.0)  # what it had
            assert await store.claim("other", 10, 60.0, now=4.0) == []
            assert sorted(one.head.id for one in [*at_once, *later]) == [f"mine.{n}" for n in range(3)]
            assert {one.head.fence for one in at_once} <= {1}
            assert {one.head.fence for one in later} <= {2}
            assert await store.backlog(now=5.0) == (6, None)
            await store.close()
            if ended == 0:
                break
            assert ended == -9
        assert 3 < dies_at < MOST - 1
