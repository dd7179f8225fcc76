"""Jobs: rows, keys, going on, and what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import Conflict, InvalidValue, RunHeld, StoreError
from segue.model.run import Head
from segue.runtime.job import FIRST, Job
from segue.testing import Simulator
from tests.runtime.lives import Desk


@segue.step
async def double(x: int) -> int:
    if x == -13:
        raise ValueError("unlucky")
    return x * 2


@segue.flow
async def twice(x: int) -> int:
    return await double(x)


@segue.flow
async def spawns(id: str) -> str:
    return (await segue.spawn(twice(1), id=id)).id


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


async def test_a_job_gives_all_its_rows_each_time() -> None:
    """The second time it waited for ever for a row that no run could be made of."""
    async with segue.Engine() as engine, asyncio.timeout(10):
        job: segue.Job[Any, int] = engine.map(twice, [1, "no", 2], id="job")
        async for _ in job:
            break
        expected = {0: 2, 1: InvalidValue, 2: 4}
        assert await outcomes(job) == await outcomes(job) == expected
        with pytest.raises(InvalidValue):
            await job


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
        runs = len((await engine.store.newest(job="job"))[0])
        assert await engine.map(twice, [4, 3, 1], id="job", key=str) == [8, 6, 2]
        assert len((await engine.store.newest(job="job"))[0]) == runs + 1


async def test_a_key_that_no_store_could_hold_harms_no_other_row(tmp_path: Path) -> None:
    for _ in range(2):  # the second time they are looked for
        async with segue.Engine(f"sqlite:{tmp_path}/runs.db") as engine:
            job = engine.map(twice, [1, 2, 3], id="j", key=lambda x: {1: "a\0b", 2: "\ud800"}.get(x, "c"))
            assert await outcomes(job) == {0: InvalidValue, 1: InvalidValue, 2: 6}
            for call, id in ((twice(1), "a\0b"), (spawns("a\0b"), "")):
                with pytest.raises(InvalidValue, match="the id of a run: expected a text without"):
                    await engine.run(call, id=id)


async def test_a_key_that_was_forgotten() -> None:
    """Else all rows would be new ones, known by their numbers."""
    async with segue.Engine() as engine:
        assert await engine.map(twice, [1, 2], id="keyed", key=lambda x: f"k{x}") == [2, 4]
        with pytest.raises(Conflict, match="'k1': give map\\(\\) the same key= again"):
            await engine.map(twice, [1, 2], id="keyed")
        assert len((await engine.store.newest(job="keyed"))[0]) == 2


async def test_a_key_that_is_the_name_of_a_field() -> None:
    async with segue.Engine() as engine:
        with pytest.raises(InvalidValue, match=r"lambda row: row\['id'\]"):
            engine.map(twice, [1], key="id")  # type: ignore[arg-type]


@segue.flow
async def thrice(x: int) -> int:
    return 3 * x


async def refused(engine: segue.Engine, job: Job[Any, Any], says: str) -> None:
    """It is refused as a whole, and no run was made beside those that were there."""
    there = len((await engine.store.newest(job=job.id))[0])
    with pytest.raises(Conflict, match=says):
        _ = [o async for o in job]
    with pytest.raises(Conflict, match=says):
        await job
    assert len((await engine.store.newest(job=job.id))[0]) == there


async def test_a_job_of_another_flow_is_refused_before_it_begins() -> None:
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2], id="job")
        says = "^job 'job' is one of 'twice', not of 'thrice': give this one another id$"
        await refused(engine, engine.map(thrice, [1, 2, 3], id="job"), says)
        assert [each.total for each in await engine.store.list_jobs()] == [2]


async def test_other_first_rows_are_refused_before_any_is_run() -> None:
    """A job that knows its rows by number takes a list that has moved for the same one."""
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2, 3], id="job")
        says = "^row 1 of job 'job', key '1': its input changed since the job began: know rows by a key"
        await refused(engine, engine.map(twice, [1, 5, 3, 4], id="job"), says)


async def test_a_key_for_a_job_that_knows_its_rows_by_number_is_refused() -> None:
    """All would be run, and paid, anew."""
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2, 3], id="job")
        says = "knows its rows by number, such as row 0, and not by a key, such as 'k1': give no key"
        await refused(engine, engine.map(twice, [1, 2, 3], id="job", key=lambda x: f"k{x}"), says)
        assert await engine.map(twice, [2, 1], id="other", key=str) == [4, 2]
        assert await engine.map(twice, [7, 1, 2], id="other", key=str) == [14, 2, 4]


async def test_a_row_that_changed_further_on_is_refused_when_it_comes() -> None:
    rows = [*range(FIRST), 50, 60]
    async with segue.Engine() as engine:
        await engine.map(twice, rows, id="job")
        got = await outcomes(engine.map(twice, [*rows[:FIRST], 51, 60], id="job"))
        assert (got[FIRST], got[FIRST + 1], got[0]) == (Conflict, 120, 0)


async def test_a_row_that_changed_under_its_key_is_refused_and_the_others_go_on() -> None:
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2, 3], id="job", key=lambda x: str(x % 10))
        got = await outcomes(engine.map(twice, [1, 12, 3, 4], id="job", key=lambda x: str(x % 10)))
        assert got == {0: 2, 1: Conflict, 2: 6, 3: 8}


async def test_two_rows_of_one_key() -> None:
    async with segue.Engine() as engine:
        got = await outcomes(engine.map(twice, [1, 2, 1], id="job", key=str))
        assert got == {0: 2, 1: 4, 2: Conflict}


async def test_two_rows_of_one_key_are_told_to_be_that_whatever_is_in_them() -> None:
    async with segue.Engine() as engine:
        got = [o async for o in engine.map(twice, [1, 2, 11], id="job", key=lambda n: str(n % 10))]
        assert [str(o.error) for o in got if not o.ok] == [
            "row 2 of job 'job', key '1': row 0 has the same key"
        ]


async def test_two_rows_of_one_key_in_a_job_that_goes_on() -> None:
    async with segue.Engine() as engine:
        await engine.map(twice, [1, 2], id="job", key=str)
        async with asyncio.timeout(10):
            assert await outcomes(engine.map(twice, [2, 2, 1], id="job", key=str)) == {
                0: 4,
                1: Conflict,
                2: 2,
            }


async def test_outcomes_that_were_there_before_their_rows_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many of them are kept until it is known whose they are."""
    monkeypatch.setattr("segue.runtime.job.EARLY", 2)

    async with segue.Engine() as engine:
        await engine.map(twice, list(range(1200)), id="job", key=str)

        async def slowly() -> AsyncIterator[int]:
            for number in reversed(range(0, 1200, 2)):
                if number % 100 == 0:
                    await asyncio.sleep(0)
                yield number

        async with asyncio.timeout(10):
            got = [(o.index, o.value) async for o in engine.map(twice, slowly(), id="job", key=str)]
        assert sorted(got) == [(number, 2 * (1198 - 2 * number)) for number in range(600)]


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
            if outcome.index:
                while not (asks := await engine.open_asks()):
                    await asyncio.sleep(0.001)
                await asks[0].answer(3)
        assert got[1] == 1
        assert isinstance(got[0], RunHeld)


@segue.flow(name="jobs.held")
async def held(x: int) -> int:
    return await segue.generate(f"{x}", returns=int)


@segue.flow(name="jobs.middle")
async def middle(x: int) -> int:
    return sum(await segue.map(held, [x, x]))


@segue.flow(name="jobs.waits")
async def waits(x: int) -> int:
    return x if x == 1 else await middle_run(x)


async def middle_run(x: int) -> int:
    return (await segue.map(middle, [x]))[0]


@segue.flow(name="jobs.asks")
async def asks_too(x: int) -> int:
    found = await asyncio.gather(middle_run(x), segue.ask("and?", returns=int))
    return sum(found)


SMALL = segue.Budget(tokens=10)


async def test_rows_that_wait_for_a_held_run_are_given_when_nothing_else_is_left() -> None:
    desk = Desk()
    desk.fake.when("").reply(3)
    async with desk.engine() as engine, asyncio.timeout(10):
        got = await outcomes(engine.map(waits, [0, 1, 2], id="job", budget=SMALL))
        assert (got[1], got[0], got[2]) == (1, RunHeld, RunHeld)
        assert {run.id.count(".") for run in (await engine.store.newest(status=("held",)))[0]} == {2}
        await engine.fund(segue.Budget(tokens=10_000), job="job")
        assert await engine.map(waits, [0, 1, 2], id="job", budget=SMALL) == [6, 1, 6]


async def test_a_row_that_waits_for_more_than_a_held_run_is_waited_for() -> None:
    desk = Desk()
    desk.fake.when("").reply(3)
    async with desk.engine() as engine, asyncio.timeout(10):
        job = asyncio.ensure_future(outcomes(engine.map(asks_too, [5], id="job", budget=SMALL)))
        while not (await engine.store.newest(status=("held",)))[0] or not (asks := await engine.open_asks()):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        assert not job.done()
        await asks[0].answer(1)
        assert await job == {0: RunHeld}


@segue.flow(name="jobs.races")
async def races(x: int) -> str:
    async def child() -> str:
        return str(await (await segue.spawn(held(x), budget=SMALL)))

    ways = {asyncio.ensure_future(child()), asyncio.ensure_future(segue.generate(f"{x}", mode="batch"))}
    done, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in left:
        way.cancel()
    return done.pop().result()


async def test_a_row_that_waits_for_a_batch_too_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had been given as held, and its answer came after the map had ended."""
    monkeypatch.setattr("segue.runtime.ends.POLL", 0.05)
    async with Simulator(batch_time=timedelta(seconds=1)) as sim:
        sim.when("").reply("Yes.")
        model = f"openai:any@{sim.base_url}"
        async with segue.Engine(model=model) as engine, asyncio.timeout(20):
            assert await engine.map(races, [0, 1], id="job") == ["Yes.", "Yes."]


class Go(segue.Note):
    x: int


@segue.flow(name="jobs.told")
async def told(x: int) -> int:
    await segue.spawn(held(x), budget=SMALL)
    return x + (await segue.receive(Go)).x


async def test_a_row_that_waits_for_a_message_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that it started and doesn't wait for is held."""
    monkeypatch.setattr("segue.runtime.ends.POLL", 0.05)
    desk = Desk()
    desk.fake.when("").reply(3)
    async with desk.engine() as engine, asyncio.timeout(10):
        job = asyncio.ensure_future(outcomes(engine.map(told, [5], id="job")))
        while not (await engine.store.newest(status=("held",)))[0]:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)
        await (await engine.get("job/0")).tell(Go(2))
        assert await job == {0: 7}


async def test_who_waits_for_a_run_that_waits_for_a_held_one_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()
    desk.fake.when("").reply(3)
    async with desk.engine() as engine, asyncio.timeout(10):
        waiting = asyncio.ensure_future(engine.run(waits(2), id="top", budget=SMALL))
        while "run top waits for top." not in caplog.text:
            await asyncio.sleep(0.005)
        assert "no budget is left: that of run 'top'" in caplog.text
        await engine.fund(segue.Budget(tokens=10_000), run="top")
        assert await waiting == 6


@segue.flow(name="jobs.asked")
async def asked(x: int) -> int:
    return await segue.ask("and?", returns=int)


async def test_rows_that_wait_are_looked_at_once_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that may go on without a held run, the first ones are."""
    monkeypatch.setattr("segue.runtime.ends.POLL", 0.005)
    async with segue.Engine() as engine, asyncio.timeout(10):
        whole, read = engine.store.newest, 0

        async def newest(*, status: Any = (), limit: int = 1000, **which: Any) -> tuple[list[Head], int]:
            nonlocal read
            heads, before = await whole(status=status, limit=min(limit, 5), **which)
            read += len(heads) if status == ("parked",) else 0
            return heads, before

        job = asyncio.ensure_future(outcomes(engine.map(asked, range(50), id="job")))
        while len(await engine.store.asks()) < 50:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        engine.store.newest = newest  # type: ignore[method-assign]
        looks, look = 0, engine.store.get_job

        async def get_job(id: str) -> Any:
            nonlocal looks
            looks += 1
            return await look(id)

        engine.store.get_job = get_job  # type: ignore[method-assign]
        while looks < 5:
            await asyncio.sleep(0.005)
        assert read <= 5 * looks
        job.cancel()


@pytest.mark.parametrize("budget", [SMALL, segue.Budget(tokens=10_000)], ids=["held", "done"])
async def test_a_row_that_is_resumed_takes_the_place_of_no_other(budget: segue.Budget) -> None:
    """It was given as failed, and is held or done while the others wait."""
    tries = iter([-13, 1])

    @segue.flow
    async def hard(x: int) -> int:
        if x:
            return await segue.ask("and?", returns=int)
        return await double(next(tries)) + await held(x)

    desk = Desk()
    desk.fake.when("").reply(3)
    async with desk.engine() as engine, asyncio.timeout(10):
        given: list[tuple[int, object]] = []

        async def take() -> None:
            async for row in engine.map(hard, range(3), id="job", budget=budget):
                given.append((row.index, row.value if row.ok else type(row.error)))

        taking = asyncio.ensure_future(take())
        while not given:
            await asyncio.sleep(0.005)
        await engine.resume("job/0")
        while (await engine.head("job/0")).status not in ("held", "done"):
            await asyncio.sleep(0.005)
        for left in (2, 1):
            while len(asks := await engine.open_asks()) < left:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            await asks[0].answer(left)
        await taking
        resumed = [(0, 5)] if budget is not SMALL else []
        assert given == [(0, ValueError), *resumed, *given[-2:]]
        assert dict(given[-2:]).keys() == {1, 2}


async def test_a_source_that_fails_raises() -> None:
    def rows() -> object:
        yield 1
        raise OSError("the file is gone")

    async with segue.Engine() as engine:
        with pytest.raises(OSError, match="gone"):
            await engine.map(twice, rows())  # type: ignore[arg-type]


@pytest.mark.parametrize("failing", ["finished", "get_job"])
async def test_looks_that_fail_for_a_moment_break_off_no_map(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs go on, and without an id would be begun, and paid, once more."""
    monkeypatch.setattr("segue.runtime.ground.patience.PAUSE", 0.001)
    async with segue.Engine(linger=0.01) as engine:
        whole, failed = getattr(engine.store, failing), 0

        async def look(*args: Any) -> Any:
            nonlocal failed
            failed += 1
            if failed == 3:
                raise StoreError("here", "the disk reports an error", "check it")
            return await whole(*args)

        monkeypatch.setattr(engine.store, failing, look)
        job = engine.map(slowly, range(3), id="job")
        assert await asyncio.wait_for(_values(job), 10) == [0, 1, 2]
        assert failed > 3


@segue.flow
async def slowly(x: int) -> int:
    await segue.sleep(timedelta(seconds=1.2))
    return x


async def _values(job: Job[int, int]) -> list[int]:
    return await job
