"""Jobs: rows, keys, going on, and what is given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import segue
from segue.errors import Conflict, InvalidValue, RunHeld


@segue.step
async def double(x: int) -> int:
    if x == -13:
        raise ValueError("unlucky")
    return x * 2


@segue.flow
async def twice(x: int) -> int:
    return await double(x)


async def outcomes(job: segue.Job[int, int]) -> dict[int, object]:
    return {o.index: o.value if o.ok else type(o.error) async for o in job}


async def test_outcomes_come_and_values_are_in_order() -> None:
    async with segue.Engine() as engine:
        assert await engine.map(twice, range(1200)) == [2 * x for x in range(1200)]
        got = await outcomes(engine.map(twice, [1, -13, 2], id="some"))
        assert got == {0: 2, 1: ValueError, 2: 4}


async def test_async_rows() -> None:
    async def rows() -> AsyncIterator[int]:
        for x in range(3):
            yield x

    async with segue.Engine() as engine:
        assert await engine.map(twice, rows()) == [0, 2, 4]


async def test_no_rows() -> None:
    async with segue.Engine() as engine:
        assert await engine.map(twice, []) == []


async def test_a_row_that_does_not_fit_harms_no_other() -> None:
    async with segue.Engine() as engine:
        got = await outcomes(engine.map(twice, [1, "two", object(), 4]))  # type: ignore[list-item]
        assert got[0] == 2
        assert got[1] is InvalidValue
        assert got[3] == 8
        assert len(got) == 4


async def test_the_same_call_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store) as engine:
        first = [o.run.id async for o in engine.map(twice, [1, 2, 3], id="nightly")]
    async with segue.Engine(store) as engine:
        job = engine.map(twice, [1, 2, 3, 4], id="nightly")
        again = [(o.index, o.value, o.run.id) async for o in job]
    assert sorted(index for index, _, _ in again) == [0, 1, 2, 3]
    assert {run for _, _, run in again} > set(first)


async def test_fewer_rows_give_fewer_outcomes() -> None:
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2, 3], id="job")
        assert await engine.map(twice, [1, 2], id="job") == [2, 4]


async def test_a_key_makes_a_job_incremental() -> None:
    """Yesterday's rows are known by their key wherever they stand today, and those left out aren't given."""
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2, 3], id="job", key=str)
        runs = len(await engine.store.runs(job="job"))
        assert await engine.map(twice, [4, 3, 1], id="job", key=str) == [8, 6, 2]
        assert len(await engine.store.runs(job="job")) == runs + 1


async def test_a_changed_row_is_refused_and_the_others_go_on() -> None:
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2, 3], id="job")
        got = await outcomes(engine.map(twice, [1, 5, 3], id="job"))
        assert got == {0: 2, 1: Conflict, 2: 6}


async def test_two_rows_of_one_key() -> None:
    async with segue.Engine() as engine:
        got = await outcomes(engine.map(twice, [1, 2, 1], id="job", key=str))
        assert got == {0: 2, 1: 4, 2: Conflict}


async def test_held_runs_are_given_when_nothing_else_is_left() -> None:
    chance = iter(range(100))

    @segue.flow
    async def smuggler(x: int) -> int:
        if x:
            return x
        await double(100 + next(chance))
        return await segue.ask("go on?", returns=int)

    async with segue.Engine() as engine:
        job = engine.map(smuggler, [0, 1], id="job")
        got: dict[int, object] = {}
        async for outcome in job:
            got[outcome.index] = outcome.error or outcome.value
            for ask in await engine.open_asks():
                await ask.answer(3)
        assert got[1] == 1
        assert isinstance(got[0], RunHeld)


async def test_a_source_that_fails_raises() -> None:
    def rows() -> object:
        yield 1
        raise OSError("the file is gone")

    async with segue.Engine() as engine:
        with pytest.raises(OSError, match="gone"):
            await engine.map(twice, rows())  # type: ignore[arg-type]
