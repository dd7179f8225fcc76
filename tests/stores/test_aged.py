"""A store that has been in use for long: what is done all the time mustn't look at all that ever was."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.cli.tally import Tally
from segue.model.budget import Account, Amount, Limit, Reservation
from segue.model.lane import Answer, BatchJob, LineOutcome
from segue.ports.store import JobHead
from segue.stores.sqlite import SqliteStore, answers, batches, budgets, jobs, lists, past, questions, runs
from segue.stores.sqlite.ledger import Ledger
from segue.stores.sqlite.patience import BUSY
from segue.stores.sqlite.schema import connect
from segue.testing.store_contract.acts import HOUR, LANE, commit, create, line, question, start, take

#: Instructions of SQLite's machine are counted in so many.
STEP = 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "aged.db"


async def age(path: Path, since: int, upto: int) -> None:
    """Runs that are over, each with a job and a provider's job that are, too, and a budget."""
    store = SqliteStore(str(path))
    await store.open()
    drive = await store.claim_lane(LANE, "w", HOUR, now=0.0)
    assert drive is not None
    try:
        for n in range(since, upto):
            run, job, batch = f"run{n:04}", f"job{n:04}", f"batch{n:04}"
            await store.put_job(JobHead(job, "greet", float(n)))
            await store.fund(f"run:{run}", Limit(1), now=0.0)
            (fence,) = await start(store, run, job=job)
            await commit(store, run, fence, lines=[line(run, run)], asks=[question(run, run)])
            await take(store, drive, job=batch)
            await store.outcomes(batch, drive, [LineOutcome(run, "ok", b"1")], now=1.0)
            await commit(store, run, fence, status="done", value=b"1")
    finally:
        await store.close()


class Steps:
    """Counts those that SQLite takes."""

    taken = 0

    def __call__(self) -> int:
        self.taken += STEP
        return 0


def work(path: Path, look: Callable[..., Any], *args: Any) -> int:
    """How many steps SQLite takes for a look."""
    cx = connect(str(path), busy=1.0, write=False)
    steps = Steps()
    try:
        look(cx, *args)  # the tables are read
        cx.set_progress_handler(steps, STEP)
        look(cx, *args)
    finally:
        cx.close()
    return steps.taken


LOOKS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "runs of a job that is new": (lists.newest, ("new", "", (), 0, 20)),
    "runs of a job": (lists.newest, ("job0007", "", (), 0, 1000)),
    "runs of none": (lists.newest, ("", "", (), 0, 20)),
    "runs that one started": (lists.newest, (None, "run0007", (), 0, 20)),
    "runs that wait": (lists.newest, (None, "", ("parked",), 0, 20)),
    "runs that wait, of a job": (lists.newest, ("job0007", "", ("parked",), 0, 20)),
    "the newest runs": (lists.newest, (None, "", (), 0, 5)),
    "the newest runs that are done": (lists.newest, (None, "", ("done",), 0, 5)),
    "a job": (jobs.get_job, ("job0007",)),
    "open questions": (questions.asks, ("", "")),
    "what is ready": (lists.backlog, (1e9, ())),
    "who works": (lists.workers, ()),
    "lanes": (batches.lanes, ()),
    "open provider jobs": (batches.jobs, ("", True, 0)),
    "the newest provider jobs": (batches.jobs, ("", False, 10)),
    "a budget": (budgets.standings, (("run:run0007",),)),
}


async def test_what_is_done_all_the_time_does_not_look_at_all_that_ever_was(path: Path) -> None:
    await age(path, 0, 20)
    young = {name: work(path, look, *args) for name, (look, args) in LOOKS.items()}
    await age(path, 20, 320)
    aged = {name: work(path, look, *args) for name, (look, args) in LOOKS.items()}
    more = {name: (young[name], aged[name]) for name in LOOKS if aged[name] > young[name] + 100}
    assert not more, "steps of SQLite, of 20 and of 320 that are over"


async def look_at_job(path: Path) -> int:
    """How many steps SQLite takes for `segue map` to tell how its job stands."""
    steps = Steps()
    store = SqliteStore(str(path))
    await store.open()
    try:
        await store._look(lambda cx: cx.set_progress_handler(steps, STEP))
        standing = await Tally(store, "new").look()
        assert (standing.parked, standing.lines) == (1, 2)
    finally:
        await store.close()
    return steps.taken


async def test_to_tell_how_a_job_stands_does_not_look_at_all_lines_that_ever_were(path: Path) -> None:
    await age(path, 0, 20)
    store = SqliteStore(str(path))
    await store.open()
    await store.put_job(JobHead("new", "greet", 0.0))
    (fence,) = await start(store, "run", job="new")
    drive = await store.claim_lane(LANE, "w", HOUR, now=0.0)
    assert drive is not None
    await commit(store, "run", fence, lines=[line("a", "run"), line("b", "run")])
    await take(store, drive, lines=1, job="batch")
    await commit(store, "run", fence, status="parked")
    await store.close()
    young = await look_at_job(path)
    with contextlib.closing(sqlite3.connect(path)) as cx:
        cx.execute(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)"
            " insert into lines(id, lane, run, path, n, size, created, attempt, status, batch)"
            " select 'old' || i, 1, 1, '', 0, 0, 0, 1, 2, 1 from n"
        )
        cx.commit()
    assert await look_at_job(path) <= young + 100


async def wait(path: Path, since: int, upto: int) -> None:
    """Runs that are ready."""
    store = SqliteStore(str(path))
    await store.open()
    try:
        await create(store, *(f"ready{n:04}" for n in range(since, upto)))
    finally:
        await store.close()


@pytest.mark.parametrize("but", [(), ("another",)])
async def test_a_claim_does_not_look_at_all_that_are_ready(path: Path, but: tuple[str, ...]) -> None:
    claim = runs.Claim("w", 8, HOUR, 0.0, but)
    await wait(path, 0, 20)
    few = work(path, looked, claim)
    await wait(path, 20, 2020)
    assert work(path, looked, claim) <= few + 100


def looked(cx: sqlite3.Connection, claim: runs.Claim) -> object:
    ledger = Ledger(cx, "sqlite:")
    return runs.has_claimable(ledger, claim) and runs._candidates(ledger, claim, claim.limit, ())


async def starve(path: Path, since: int, upto: int) -> None:
    """Calls that wait, each for a budget of its own."""
    store = SqliteStore(str(path))
    await store.open()
    try:
        await create(store, "r")
        wanted = [
            Reservation(f"call{n:04}", "r", (Account(f"run:run{n:04}", Limit(1)),), Amount(2))
            for n in range(since, upto)
        ]
        assert set(await store.reserve(wanted, now=0.0)) == {"short"}
    finally:
        await store.close()


async def test_to_list_all_budgets_costs_as_much_as_they_and_the_calls_that_wait_are(path: Path) -> None:
    await starve(path, 0, 100)
    few = work(path, budgets.standings, ())
    await starve(path, 100, 400)
    assert work(path, budgets.standings, ()) < 8 * few


async def sweep(store: SqliteStore) -> int:
    """How many steps SQLite takes for one."""
    steps = Steps()
    await store._write(lambda ledger, _: [ledger.cx.set_progress_handler(steps, STEP)], [0])
    await store.sweep(now=0.0, limit=16)
    await store._write(lambda ledger, _: [ledger.cx.set_progress_handler(None, STEP)], [0])
    return steps.taken


async def test_a_sweep_goes_over_a_part_of_the_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "LOOK", 100)
    await wait(path, 0, 200)
    store = SqliteStore(str(path))
    await store.open()
    few = await sweep(store)
    await store.close()
    await wait(path, 200, 1999)
    ends = [f"end{n}" for n in range(2)]
    store = SqliteStore(str(path))
    await store.open()
    await start(store, *ends)
    for end in ends:
        await commit(store, end, 1, entries=b"row")
        await commit(store, end, 1, checkpoint=b"state")
    await store.close()
    store = SqliteStore(str(path))  # that knows of none
    await store.open()
    assert await sweep(store) <= few + 100
    while await store.sweep(now=0.0, limit=1):
        pass
    with contextlib.closing(sqlite3.connect(path)) as cx:
        assert cx.execute("select count(*) from sealed").fetchone() == (2,)
    await store.close()


async def test_who_waited_for_another_process_remembers_what_there_is_to_sweep(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "LOOK", 100)
    await wait(path, 0, 300)
    store = SqliteStore(str(path))
    await store.open()
    while await store.sweep(now=0.0, limit=16):
        pass
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        writing = asyncio.ensure_future(create(store, "another"))
        await asyncio.sleep(3 * BUSY)
        other.execute("rollback")
        await writing
    assert await store.sweep(now=0.0, limit=16) == 0  # not all runs are gone over once more
    await store.close()


async def test_answers_are_dropped_in_portions_between_which_others_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PORTION", 100)
    store = SqliteStore(str(path))
    await store.open()
    await start(store, "r")
    with contextlib.closing(sqlite3.connect(path)) as cx:
        many = ((str(n), float(n), b"1") for n in range(3 * answers.PORTION))
        cx.executemany("insert into answers(same, at, value) values(?, ?, ?)", many)
        cx.commit()
    older = 2 * answers.PORTION + 50
    forgetting = asyncio.ensure_future(store.forget(before=float(older)))
    await asyncio.sleep(0)
    for _ in range(3):
        assert await commit(store, "r", 1, entries=b"1") == "committed"
    assert not forgetting.done()
    assert await forgetting == older
    kept = Answer(str(older), b"1", float(older))
    assert await store.answers(["0", str(older - 1), str(older)]) == {kept.same: kept}
    await store.close()


async def test_the_newest_of_jobs_are_read(path: Path) -> None:
    await age(path, 0, 5)
    cx = connect(str(path), busy=1.0, write=False)

    def ids(found: list[BatchJob]) -> list[str]:
        return [job.id for job in found]

    assert ids(batches.jobs(cx, "", False, 2)) == ["batch0003", "batch0004"]
    assert len(batches.jobs(cx, "", False, 0)) == 5
    cx.close()
