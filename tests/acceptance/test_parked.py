"""A waiting run is a row: 10,000 of them, on a batch job and on a person; what each takes, and how all wake."""

from __future__ import annotations

import asyncio
import gc
import resource
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.ports.provider import LineResult, RemoteJob
from segue.runtime.ground.clock import SystemClock
from tests.crash.remote import Far, Remote, answer

RUNS = 10_000
WARM = 3_000
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@segue.flow(name="parked.model")
async def model(number: int) -> str:
    return await segue.generate(f"row {number}")


@segue.flow(name="parked.person")
async def person(number: int) -> bool:
    return await segue.ask("Send it?", returns=bool)


class Slow(Far):
    """A provider whose jobs end on command."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(remote)
        self.over = False

    async def poll(self, job: str) -> RemoteJob:
        if self.over:
            return await super().poll(job)
        return RemoteJob(job, "in_progress", False)

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        for ident, body in self.remote.files[job.file]:
            yield LineResult(ident, 200, answer(body))


def resident() -> float:
    """Kilobytes of this process now."""
    gc.collect()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def disk(path: Path) -> float:
    """Kilobytes in use in the database. The log beside it is as large as an engine makes it, not its runs."""
    cx = sqlite3.connect(path)
    pages, free, size = (
        cx.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    cx.close()
    return (pages - free) * size / 1024


async def parked(engine: segue.Engine, job: str, runs: int) -> None:
    """All runs of the job wait, and nothing of them is left in memory."""
    while True:
        known = await engine.store.get_job(job)
        if known is not None and known.counts.get("parked") == runs and not engine.worker.awake:
            break
        await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) < 20
    assert threading.active_count() < 80


async def measured(tmp_path: Path, flow: Any, provider: Slow, wake: Any) -> None:
    path = tmp_path / "runs.db"
    store = f"sqlite:{path}"
    options: dict[str, Any] = {"mode": "batch", "model": "far:m", "providers": {"far": lambda _: provider}}
    async with segue.Engine(store, **options) as engine:
        engine.map(flow, range(WARM), id="warm")  # what an engine itself takes: its caches, its room
        await parked(engine, "warm", WARM)
        before, empty, began = resident(), disk(path), time.monotonic()
        engine.map(flow, range(RUNS), id="job")
        await parked(engine, "job", RUNS)
        took = time.monotonic() - began
        memory = (resident() - before) / RUNS
        size = (disk(path) - empty) / RUNS
        began, cpu = time.monotonic(), time.process_time()
        await wake(engine)
        while (await engine.store.get_job("job")).counts.get("done") != RUNS:  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
        woken, cpu = time.monotonic() - began, time.process_time() - cpu
        print(
            f"\n{RUNS:,} runs parked in {took:.1f} s: {memory:.2f} KB resident and {size:.2f} KB on disk each; "
            f"all awake and done in {woken:.1f} s ({cpu:.1f} s CPU)"
        )
        assert memory < 2.0
        assert size < 2.0
        indexes = {outcome.index async for outcome in engine.map(flow, range(RUNS), id="job") if outcome.ok}
        assert indexes == set(range(RUNS))


async def test_on_a_batch_job(tmp_path: Path) -> None:
    remote = Remote(SystemClock())  # type: ignore[arg-type]  # tells the time, no more is asked
    provider = Slow(remote)

    async def wake(engine: segue.Engine) -> None:
        while sum(len(lines) for lines in remote.files.values()) < RUNS + WARM:
            await asyncio.sleep(0.05)
        provider.over = True

    await measured(tmp_path, model, provider, wake)
    assert set(remote.paid.values()) == {1}


async def test_on_a_person(tmp_path: Path) -> None:
    async def wake(engine: segue.Engine) -> None:
        questions = await engine.open_asks()
        assert len(questions) >= RUNS
        for start in range(0, len(questions), 500):
            await asyncio.gather(*(question.answer(True) for question in questions[start : start + 500]))

    await measured(tmp_path, person, Slow(Remote(SystemClock())), wake)  # type: ignore[arg-type]
