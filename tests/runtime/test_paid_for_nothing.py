"""What was paid in a batch counts, though changed code asks for something else by the time it is back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.testing import Simulator


def asking(prompt: str, then: str = "") -> Any:
    @segue.flow(name="paid for nothing", version="1")
    async def flow() -> str:
        said = await segue.generate(f"{prompt} one") if prompt else ""
        return await segue.generate(f"{then} {said}") if then else said

    return flow


AFTER: dict[str, tuple[Any, dict[str, Any]]] = {
    "another prompt": (asking("other", "two"), {}),
    "no prompt": (asking(""), {}),
    "another prompt, live": (asking("other"), {"mode": "live"}),
}


@pytest.mark.parametrize("changed", AFTER)
@pytest.mark.parametrize("late", [False, True])
async def test_an_answer_that_nobody_takes_counts(tmp_path: Path, changed: str, late: bool) -> None:
    """`late`: the run is resumed before the answer is back."""
    after, how = AFTER[changed]
    async with Simulator(batch_time=timedelta(milliseconds=500 if late else 10)) as sim:

        def engine() -> segue.Engine:
            return segue.Engine(
                f"sqlite:{tmp_path}/runs.db", model=f"openai:any@{sim.base_url}", mode="batch"
            )

        async with engine() as desk:
            await desk.start(asking("the first")(), id="it")
            await until(lambda: bool(sim.batches()), desk)
        async with engine() as desk:
            desk.worker.register(after.__segue__)
            if late:
                await desk.tell("it", "poke", b"1")
            assert (await desk.wait("it")).status == "held"
            await desk.resume("it", **how)
            assert (await desk.wait("it")).status == "done"
            while any(job.state != "closed" for job in await desk.store.batch_jobs()):
                await desk.clock.sleep(0.01)
            receipt = await desk.receipt(run="it")
        counts = sim.ledger.counts()
        paid = counts.get("batch_paid", 0) + counts.get("live_paid", 0)
        assert sum(line.calls for line in [*receipt.lines, *receipt.unclaimed]) == paid


async def until(true: Callable[[], bool], desk: segue.Engine) -> None:
    while not true():
        await desk.clock.sleep(0.01)
