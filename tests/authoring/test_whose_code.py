"""Which run the calling code belongs to, where loops, threads and processes are about."""

import asyncio
import os
import subprocess
import sys
import threading
from contextvars import Context

import pytest

import segue
from segue.authoring.context import HOME, find_branch

FORKS = """
import asyncio, os, sys
import segue
from segue.authoring.context import find_branch

@segue.flow
async def forks() -> str:
    assert find_branch() is not None
    if child := os.fork():
        return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    code = 1
    try:
        code = asyncio.run(looks())
    finally:
        os._exit(code)

async def looks() -> int:
    return 7 if find_branch() is None else 8

async def main() -> None:
    async with segue.Engine("memory:", stall=None) as engine:
        print(await engine.run(forks()))

asyncio.run(main())
"""


async def look() -> bool:
    return find_branch() is not None


@segue.flow
async def looks() -> list[bool]:
    def elsewhere() -> bool:
        return Context().run(asyncio.run, look())

    return [await look(), await asyncio.to_thread(elsewhere), Context().run(find_branch) is not None]


async def test_a_loop_on_another_thread_is_no_runs() -> None:
    async with segue.Engine("memory:") as engine:
        assert await engine.run(looks()) == [True, False, True]
        if sys.version_info < (3, 12):  # where that is a shortcut
            assert HOME.loop is asyncio.get_running_loop()
        assert await asyncio.to_thread(lambda: HOME.loop) is None
        HOME.forget()
        assert await engine.run(looks()) == [True, False, True]


def test_a_loop_after_that_of_an_open_engine_is_its_own() -> None:
    first = asyncio.new_event_loop()
    opened, over = first.create_future(), first.create_future()

    async def live() -> None:
        async with segue.Engine("memory:") as engine:
            opened.set_result(engine)
            await over

    try:
        life = first.create_task(live())
        engine = first.run_until_complete(opened)
        assert not asyncio.run(look())
        assert first.run_until_complete(engine.run(looks())) == [True, False, True]
        over.set_result(None)
        first.run_until_complete(life)
        assert HOME.loop is None
    finally:
        first.close()


BUSY, GO = threading.Event(), threading.Event()


@segue.flow
async def blocks() -> None:
    BUSY.set()
    GO.wait(10)


@segue.step
async def double(n: int) -> int:
    return 2 * n


def test_a_loop_that_another_thread_runs_now_is_none_of_this_ones() -> None:
    loop = asyncio.new_event_loop()
    opened, moved = loop.create_future(), loop.create_future()

    async def live() -> None:
        async with segue.Engine("memory:", stall=1000) as engine:
            opened.set_result(engine)
            await moved
            await engine.run(blocks())

    life = loop.create_task(live())
    engine = loop.run_until_complete(opened)
    moved.set_result(None)
    thread = threading.Thread(target=loop.run_until_complete, args=(life,))
    thread.start()
    try:
        assert BUSY.wait(10)
        assert find_branch() is None
        assert asyncio.run(double(2)) == 4  # of no run, so not recorded
        with pytest.raises(RuntimeError, match="open on another event loop"):
            asyncio.run(engine.start(blocks()))
    finally:
        GO.set()
        thread.join()
        loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_is_in_no_run() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "7\n", done.stderr
