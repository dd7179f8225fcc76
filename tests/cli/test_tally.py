"""One line of how a job stands."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import pytest

import segue
from segue.cli import tally as tallying
from segue.cli.tally import Standing, Tally, in_words
from segue.model.budget import Limit
from segue.model.budget import Standing as Budgeted
from segue.stores import open_store
from segue.testing import Simulator


def test_who_waits_for_room_waits_for_no_person() -> None:
    standing = Standing(total=9, parked=8, lines=2)
    tally = Tally(open_store("memory:"), "j")
    assert "2 waiting for batch · 6 waiting for people, time or other runs" in in_words(
        standing, tally, None, ""
    )
    tally.budgets = [Budgeted("job:j", Limit(tokens=100), waiting=5)]
    words = in_words(standing, tally, None, "")
    assert "5 waiting for room in the budget · 1 waiting for people, time or other runs" in words
    tally.budgets = [Budgeted("job:j", Limit(tokens=100), waiting=7)]
    assert "people" not in in_words(standing, tally, None, "")


@segue.flow
async def two_rounds(text: str) -> str:
    first = await segue.generate(text)
    return await segue.ask(first)


async def test_tokens_are_told_of_while_rows_wait_for_their_next_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tallying, "FIRST", 0.0)
    async with Simulator(batch_time=timedelta(milliseconds=20)) as sim:
        async with segue.Engine(model=f"openai:gpt-5-mini@{sim.base_url}", mode="batch") as engine:
            job = engine.map(two_rounds, ["a", "b"], id="j")
            tally, asked = Tally(engine.store, "j"), engine.asks()
            asks = [await anext(asked), await anext(asked)]
            paid = sum(entry.tokens_in + entry.tokens_out for entry in sim.ledger.lines())
            tally._again = math.inf
            while (await tally.look()).parked < 2:
                await asyncio.sleep(0.01)
            assert tally.tokens == 0  # not by a command that has just begun
            tally._again = 0.0
            with monkeypatch.context() as few:
                few.setattr(tallying, "MOST", 1)
                await tally.look()
            assert tally.tokens == 0  # nor where so many wait
            standing = await tally.look()
            assert (standing.done, tally.tokens) == (0, paid)
            assert f"{paid} tokens" in in_words(standing, tally, None, "")
            for ask in asks:
                await ask.answer("yes")
            await job
            await tally.look()
            assert tally.tokens == paid  # once each


async def test_a_row_whose_line_another_has_waits_for_the_batch() -> None:
    async with Simulator(batch_time=timedelta(hours=1)) as sim:
        async with segue.Engine(
            model=f"openai:gpt-5-mini@{sim.base_url}", mode="batch", reuse=True
        ) as engine:
            engine.map(two_rounds, ["a", "a", "b"], id="j")
            tally = Tally(engine.store, "j")
            async with asyncio.timeout(10):
                while (await tally.look()).parked < 3:
                    await asyncio.sleep(0.01)
            standing = await tally.look()
            assert (standing.for_batch, standing.for_others) == (3, 0)
