"""Code that blocks the event loop: told of by name, once a place, and its leases are kept."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.runtime import worker
from segue.runtime.ground.events import Blocked
from segue.runtime.watch import Watch
from segue.stores.sqlite import SqliteStore
from tests.runtime.lives import Desk

STALL = 0.05


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.WARNING, "segue")
    return lambda: [record.getMessage() for record in caplog.records if "event loop" in record.getMessage()]


def hog(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(100))


@segue.step
async def blocking_step(seconds: float) -> None:
    hog(seconds)


@segue.step
async def blocking_other(seconds: float) -> None:
    time.sleep(seconds)


@segue.step
def waiting_step(seconds: float) -> None:
    time.sleep(seconds)


@segue.flow
async def blocking_flow(seconds: float, times: int) -> None:
    for _ in range(times):
        hog(seconds)
        await segue.sleep(segue.now() - segue.now())


class BlockingActor(segue.Actor[None]):
    def begin(self) -> str:
        return "go"

    @segue.state
    async def go(self, _: str) -> segue.Done[None]:
        time.sleep(8 * STALL)
        return segue.Done()


@segue.flow
async def flow_of_blocking_step() -> None:
    await blocking_step(8 * STALL)


@segue.flow
async def flow_of_several() -> None:
    await asyncio.gather(waiting_step(8 * STALL), blocking_other(8 * STALL))


async def test_a_step_that_blocks(told: Any) -> None:
    async with segue.Engine(stall=STALL) as engine:
        await engine.run(flow_of_blocking_step(), id="it")
    (text,) = told()
    assert "run it of flow_of_blocking_step, step 'blocking_step', has kept" in text
    assert text.partition(", at ")[2].partition(":")[0] == __file__
    assert " in hog:" in text
    async with segue.Engine(stall=STALL) as engine:
        await engine.run(flow_of_several())
    assert len(told()) == 2
    assert "step 'blocking_other'" in told()[1]


async def test_a_flow_that_blocks_is_told_of_once_a_place(told: Any) -> None:
    async with segue.Engine(stall=STALL) as engine:
        run = await engine.start(blocking_flow(8 * STALL, 3), id="it")
        events = [event async for event in run if isinstance(event, Blocked)]
        await run
    (text,), (event,) = told(), events
    assert "run it of blocking_flow has kept" in text
    assert "do that in a step" in text
    assert (event.run, event.target, event.step) == ("it", "blocking_flow", "")
    assert event.where.endswith(" in hog")
    assert event.seconds >= STALL


async def test_a_handler_that_blocks(told: Any) -> None:
    async with segue.Engine(stall=STALL) as engine:
        await engine.run(BlockingActor(), id="it")
    (text,) = told()
    assert "run it of BlockingActor has kept" in text
    assert text.partition(", at ")[2].partition(":")[0] == __file__
    assert "BlockingActor.go" in text or "in go" in text


async def test_code_outside_runs_that_blocks(told: Any) -> None:
    async with segue.Engine(stall=STALL) as engine:
        run = await engine.start(waits_for_mail(), id="it")
        await asyncio.sleep(STALL)
        while not told():
            hog(8 * STALL)
            await asyncio.sleep(STALL)
        await run.tell("go")
        await run
    assert "code that is no run's has kept" in told()[0]


@segue.flow
async def waits_for_mail() -> None:
    await waiting_step(20 * STALL)
    await segue.receive(str)


async def test_what_doesnt_block_isnt_told_of(told: Any) -> None:
    @segue.flow
    async def calm() -> None:
        await waiting_step(6 * STALL)
        await blocking_step(STALL / 5)

    async with segue.Engine(stall=STALL) as engine:
        await engine.run(calm())
    async with segue.Engine(stall=0) as engine:
        await engine.run(blocking_flow(8 * STALL, 1))
    assert told() == []


async def test_what_segue_itself_does_isnt_blamed_on_who_runs_the_loop(told: Any) -> None:
    async with segue.Engine(stall=STALL) as engine:
        run = await engine.start(waits_for_mail(), id="it")
        asyncio.get_running_loop().call_soon(time.sleep, 8 * STALL)
        await asyncio.sleep(6 * STALL)
        await run.cancel()
    assert told() == []


async def test_one_thread_an_engine_and_none_after_it() -> None:
    def threads() -> int:
        return sum(thread.name == "segue-watch" for thread in threading.enumerate())

    before = threads()
    desk = Desk()
    async with desk.engine() as engine:
        await asyncio.gather(*(engine.run(blocking_flow(0, 1)) for _ in range(5)))
        assert threads() == before + 1
    assert threads() == before


async def test_leases_are_kept_while_the_loop_is_blocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second worker would take the run over, and a blocked loop's commit would be refused."""
    monkeypatch.setattr(worker, "LEASE", 0.4)
    monkeypatch.setattr(worker, "RENEW", 0.1)
    taken: list[Any] = []

    def rival() -> None:
        async def look() -> None:
            store = SqliteStore(str(tmp_path / "runs.db"))
            await store.open()
            for _ in range(12):
                await asyncio.sleep(0.1)
                taken.extend(await store.claim("rival", 10, 60.0, now=time.time()))
            await store.close()

        asyncio.run(look())

    @segue.flow
    async def hogs_for_long() -> str:
        await waiting_step(0)
        time.sleep(1.5)
        return "mine"

    other = threading.Thread(target=rival)
    async with segue.Engine(f"sqlite:{tmp_path / 'runs.db'}") as engine:
        run = await engine.start(hogs_for_long(), id="it")
        other.start()
        assert await run == "mine"
        other.join()
    assert taken == []


async def test_a_loop_that_is_gone_ends_the_thread() -> None:
    loop = asyncio.new_event_loop()
    watch = Watch(loop, lambda: [object()], lambda event: None, patience=0.01)  # type: ignore[list-item]
    loop.close()
    watch._thread.join(5)
    assert not watch._thread.is_alive()


@segue.flow
async def runs(work: str) -> None:
    space: dict[str, Any] = {}
    exec(compile(f"def work():\n    {work}", SOURCES[work], "exec"), space)
    space["work"]()


#: What a flow does, and in which file.
SOURCES = {
    "import slow_to_import": "/home/them/app.py",
    "import slow_to_import as segues_own": str(Path(segue.__file__).parent / "core" / "x.py"),
    "import time; hog = time.sleep(0.3)": str(Path(segue.__file__).parent / "core" / "x.py"),
}


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (
            "import slow_to_import",
            "/home/them/app.py:2 in work: it imports slow_to_import: do that at the top",
        ),
        ("import time; hog = time.sleep(0.3)", "core/x.py:2, no fault of that line"),
    ],
)
async def test_it_says_what_blocks(
    work: str, says: str, told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_to_import(tmp_path, monkeypatch)
    async with segue.Engine(stall=STALL) as engine:
        await engine.run(runs(work), id="it")
    (text,) = told()
    who = "segue itself" if "core/x.py" in says else "run it of runs"
    assert text.startswith(f"{who} has kept")
    assert says in text


async def test_what_segue_imports_nobody_is_warned_of(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow_to_import(tmp_path, monkeypatch)
    caplog.set_level(logging.INFO, "segue")
    async with segue.Engine(stall=STALL) as engine:
        run = await engine.start(runs("import slow_to_import as segues_own"), id="it")
        assert not [event async for event in run if isinstance(event, Blocked)]
    (record,) = [one for one in caplog.records if "event loop" in one.getMessage()]
    assert record.levelname == "INFO"
    assert "segue itself has kept" in record.getMessage()
    assert "core/x.py:2, importing slow_to_import, once" in record.getMessage()


def slow_to_import(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have such a module."""
    monkeypatch.syspath_prepend(path)
    (path / "slow_to_import.py").write_text(
        "import time, collections\nmade = collections.namedtuple('made', 'x')\ntime.sleep(0.3)\n"
    )
    monkeypatch.delitem(sys.modules, "slow_to_import", raising=False)


async def test_of_many_that_are_quick_none_is_blamed(told: Any) -> None:
    """A turn of the loop in which thousands have their turn is long, and nobody's fault."""
    loop = asyncio.get_running_loop()
    async with segue.Engine(stall=STALL) as engine:
        run = await engine.start(waits_for_mail(), id="it")
        await asyncio.sleep(2 * STALL)
        for _ in range(400):
            loop.call_soon(hog, STALL / 40)
        await asyncio.sleep(0)
        await asyncio.sleep(STALL)
        await run.cancel()
    assert told() == []
