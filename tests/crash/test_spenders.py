"""Processes that share a budget never overspend it, however many there are and whatever becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

import pytest

from segue.core.admission import estimate
from segue.model.budget import Amount
from segue.stores.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
ROWS, COST = 30, 5
#: What a live call of these reserves at most, and how many of a process's may be under way.
SHARE = estimate(200) + 2


class Desk:
    def __init__(self, path: Path) -> None:
        self.path, self.store, self.ledger = path, f"sqlite:{path / 'runs.db'}", path / "ledger"

    async def spender(self, job: str, tokens: int) -> asyncio.subprocess.Process:
        words = (self.store, job, str(ROWS), "live", str(self.ledger), str(tokens))
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.spender", *words, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )

    async def until_done(self, tokens: int) -> None:
        """Both jobs, side by side."""
        both = [await self.spender(job, tokens) for job in "ab"]
        for one in both:
            _, said = await asyncio.wait_for(one.communicate(), 60)
            assert one.returncode == 0, said.decode()

    @property
    def paid(self) -> int:
        return sum(int(line) for line in self.ledger.read_text().splitlines())

    async def look(self) -> tuple[int, int, Amount, dict[str, int]]:
        """Tokens spent, and used by runs; what is reserved; runs by status."""
        store = SqliteStore(str(self.path / "runs.db"))
        await store.open()
        try:
            (budget,) = await store.budgets()
            heads = await store.runs(limit=1000)
        finally:
            await store.close()
        used = sum(use.input_tokens + use.output_tokens for head in heads for use in head.usage)
        counts: dict[str, int] = {}
        for head in heads:
            counts[head.status] = counts.get(head.status, 0) + 1
        return budget.spent.tokens, used, budget.reserved, counts


@pytest.mark.slow
async def test_two_processes_share_a_budget(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    limit = 200
    await desk.until_done(limit)
    spent, used, reserved, counts = await desk.look()
    assert spent == used == desk.paid <= limit
    assert limit - spent < SHARE
    assert reserved == Amount()
    assert counts["held"] > 0
    await desk.until_done(10_000)
    spent, used, reserved, counts = await desk.look()
    assert spent == used == desk.paid == 2 * ROWS * 2 * COST
    assert (reserved, counts) == (Amount(), {"done": 2 * ROWS})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_kills(tmp_path: Path, seed: int) -> None:
    """Live calls under way at a kill are sent again, and are all that is paid beyond the budget."""
    desk, draw = Desk(tmp_path), random.Random(seed)
    limit = 300
    for _ in range(6):
        running = [await desk.spender(job, limit) for job in "ab"]
        await asyncio.sleep(draw.uniform(0.5, 1.3))
        draw.shuffle(running)
        for one in running:
            with contextlib.suppress(ProcessLookupError):  # it was done
                one.kill()
            await one.communicate()
            await asyncio.sleep(draw.uniform(0.0, 0.3))
    await desk.until_done(limit)
    spent, used, reserved, _ = await desk.look()
    assert spent == used <= limit
    assert reserved == Amount()
    assert limit - spent < SHARE
    lost = desk.paid - spent
    assert 0 <= lost <= 12 * (limit // SHARE + 1) * COST
    await desk.until_done(10_000)
    spent, used, reserved, counts = await desk.look()
    assert (spent, reserved, counts) == (used, Amount(), {"done": 2 * ROWS})
    assert desk.paid - spent == lost
