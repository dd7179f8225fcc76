"""A process that was killed holds nothing up."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import StoreError
from segue.ports.store import Turn
from segue.runtime import alive

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def _name_in(pipe: object) -> None:
    pipe.send(alive.new_name())  # type: ignore[attr-defined]
    time.sleep(60)


def test_this_process_is_alive() -> None:
    assert not alive.is_gone(alive.new_name())
    assert alive.new_name() != alive.new_name()


@pytest.mark.parametrize("name", ["", "w", "0a1b-1-1-1", "a-b-c-d", "f00-99999999-1-x"])
def test_who_cant_be_judged_counts_as_alive(name: str) -> None:
    assert not alive.is_gone(name)


@posix
def test_a_killed_process_is_gone() -> None:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_name_in, args=(there,))
    process.start()
    name = here.recv()
    assert not alive.is_gone(name)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not alive.is_gone(name):  # nobody has waited for it yet, so that it is a zombie on Linux
        assert time.monotonic() < deadline
        time.sleep(0.01)
        if sys.platform != "linux":
            process.join()
    process.join()
    assert alive.is_gone(name)


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_number_used_again_is_another_process() -> None:
    machine, process, begun, rest = alive.new_name().split("-")
    assert alive.is_gone("-".join((machine, process, str(int(begun) - 1), rest)))


@posix
def test_who_cant_be_looked_at_now_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `/proc` entry is hidden, or this process has no file descriptor left."""
    machine, process, begun, rest = alive.new_name().split("-")
    name = "-".join((machine, process, begun if int(begun) else "1", rest))

    def fails(path: Path) -> str:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_text", fails)
    assert not alive.is_gone(name)


_KILLED = """
import asyncio, os, signal, sys
import segue

@segue.step
async def die() -> None:
    if os.environ["DIE"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

@segue.flow(name="mortal")
async def mortal() -> str:
    await die()
    return "done"

async def main() -> None:
    async with segue.Engine(sys.argv[1]) as engine:
        print(await engine.run(mortal(), id="r"))

asyncio.run(main())
"""


@posix
async def test_the_next_process_goes_on_at_once(tmp_path: Path) -> None:
    """It doesn't wait for the lease of the one that was killed."""

    def life(die: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _KILLED, f"sqlite:{tmp_path}/runs.db"],
            env={**os.environ, "DIE": die},
            capture_output=True,
            text=True,
            timeout=40,
        )

    first = await asyncio.to_thread(life, "1")
    assert first.returncode == -signal.SIGKILL
    second = await asyncio.to_thread(life, "0")
    assert (second.stdout, second.returncode) == ("done\n", 0), second.stderr
    async with segue.Engine(f"sqlite:{tmp_path}/runs.db") as engine:
        assert await engine.store.workers() == []


async def test_why_runs_cant_be_given_back_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk none of thousands can, and each would say so."""

    def full(turns: object) -> asyncio.Future[Any]:
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(StoreError("memory:", "the disk is full", "make room"))
        return failed

    async with segue.Engine("memory:") as engine:
        commit, engine.store.commit = engine.store.commit, full  # type: ignore[method-assign]
        for number in range(5):
            engine.worker._return(Turn(run=f"r{number}", fence=1, status="ready", release=True, now=0.0))
        await asyncio.sleep(0)
        engine.store.commit = commit  # type: ignore[method-assign]
    (said,) = [one.getMessage() for one in caplog.records]
    assert said.startswith("runs such as r0 can't be given back")
    assert said.endswith("the disk is full; make room")


async def test_an_engine_that_ended_badly_holds_nothing(tmp_path: Path) -> None:
    """Its runs couldn't be given back; another engine of this process takes them over at once."""
    store = f"sqlite:{tmp_path}/runs.db"

    @segue.step
    async def wait() -> None:
        await asyncio.sleep(0 if stuck.is_set() else 60)

    @segue.flow(name="alive.stuck")
    async def flow() -> str:
        await wait()
        return "done"

    stuck = asyncio.Event()
    first = segue.Engine(store)
    await first.__aenter__()
    await first.start(flow(), id="r")
    await asyncio.sleep(0.1)
    await first.store.close()  # as if the disk had gone
    await first.__aexit__(None, None, None)
    stuck.set()
    async with segue.Engine(store) as engine, asyncio.timeout(10):
        assert await engine.run(flow(), id="r") == "done"
