"""Runs and jobs that are removed: with all beneath, only what is over, and nothing of them is left."""

from __future__ import annotations

import asyncio
import itertools
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from enum import IntEnum
from pathlib import Path

import pytest

import segue
from segue import Actor, Budget, Done, Note, Request
from segue.model.errors import Conflict, UnknownName
from segue.ports.store import JobHead, Store
from segue.stores import open_store
from segue.testing import Simulator
from tests.runtime.lives import Desk

LARGE = "x" * 10_000


@segue.step
async def enlarged(word: str) -> str:
    return word + LARGE


@segue.flow
async def leaf(word: str) -> str:
    return (await segue.generate(f"say {word}"))[:10] + (await enlarged(word))[:5]


@segue.flow
async def tree(word: str) -> list[str]:
    await segue.spawn(leaf("of another"), id=f"mine of {word}")
    if await segue.ask("Go on?", show=LARGE, returns=bool):
        return await segue.map(leaf, [f"{word}{n}" for n in range(2)])
    raise ValueError(word)


@segue.flow
async def tree_of_another(word: str) -> str:
    return await (await segue.spawn(leaf(word), id=f"mine of {word}"))


class Add(Note):
    word: str


class Shelf(Actor[str]):
    words: list[str] = segue.field(default_factory=list)

    @segue.on
    async def add(self, note: Add) -> Done[str] | None:
        self.words.append(await enlarged(note.word))
        return Done("".join(self.words)) if len(self.words) == 3 else None


class Desks(IntEnum):
    FRONT = 1


class Talk(Request[str]):
    name: str
    own: bool = False
    waits: bool = False


class Bye(Note): ...


class Office(Actor[list[str]]):
    """Has a talk with each who comes, and is there for long."""

    groups = Desks
    ended: list[str] = segue.field(default_factory=list)

    @segue.on
    async def talk(self, talk: Talk) -> str:
        id = f"talk with {talk.name}" if talk.own else ""
        run = await segue.spawn(talked(talk.name), group=Desks.FRONT, id=id)
        if talk.waits:
            await segue.ask("And now?", to="office")
        return run.id

    @segue.on
    async def bye(self, _: Bye) -> Done[list[str]]:
        return Done(self.ended)

    def finished(self, one: segue.Ended) -> None:
        self.ended.append(one.run.id)


@segue.flow
async def talked(name: str) -> str:
    if name != "ada":
        await segue.ask(f"What does {name} want?", to=name)
    return await enlarged(name)


@pytest.fixture(params=["memory:", "sqlite:"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store("memory:" if request.param == "memory:" else f"sqlite:{tmp_path}/runs.db")
    yield store
    await store.close()


def left_in(path: Path) -> dict[str, int]:
    """How many rows each table has, but for names and what keeps numbers from being used again."""
    names = {"counters", "jobs", "lanes", "targets", "sqlite_sequence", "batches", "runs", "journal"}
    with closing(sqlite3.connect(path)) as cx:
        tables = [name for (name,) in cx.execute("select name from sqlite_master where type = 'table'")]
        counts = {name: cx.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}
        counts["runs"] = cx.execute("select count(*) from runs where id > ''").fetchone()[0]
        counts["journal"] = cx.execute("select count(*) from journal where run > 0").fetchone()[0]
    return {
        name: count for name, count in counts.items() if count and name not in names - {"runs", "journal"}
    }


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_of_what_is_removed_nothing_is_left(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with Simulator() as sim:
        how = {"model": f"openai:any@{sim.base_url}", "mode": mode}
        async with segue.Engine(f"sqlite:{path}", **how) as engine:  # type: ignore[arg-type]  # text
            run = await engine.start(tree("t"), id="t", budget=Budget(tokens=10**6))
            async for ask in engine.asks():
                await ask.answer(True)
                break
            await run
            await engine.wait("mine of t")
            rows = [f"{LARGE}{n}" for n in range(3)]
            outcomes = engine.map(leaf, rows, id="j", reuse=True, budget=Budget(tokens=10**6))
            assert [outcome.error async for outcome in outcomes] == [None] * 3
            shelf = await engine.start(Shelf(), id="s")
            for word in "abc":
                await shelf.tell(Add(word))
            await shelf
            await engine.store.sweep(now=engine.clock.now(), limit=100)
            assert left_in(path)["runs"] == 8
            assert await engine.remove(older_than=timedelta(0), dry_run=True) == 8
            assert await engine.remove(older_than=timedelta(0)) == 8
            await engine.forget()
        assert left_in(path) == {}


async def test_one_by_one() -> None:
    desk = Desk()
    desk.fake.when("say").reply("hello")
    async with desk.engine() as engine:
        run = await engine.start(tree("t"), id="t")
        await desk.parked("t")
        with pytest.raises(Conflict, match="'t' isn't over, it is parked"):
            await engine.remove("t")
        with pytest.raises(Conflict, match="'mine of t' was started by run 't', which isn't over"):
            await engine.remove("mine of t")
        (ask,) = await engine.open_asks(run="t")
        await ask.answer(True)
        await run
        with pytest.raises(Conflict, match=r"'t\.\w+' was started by run 't'"):
            await engine.remove(next(id for id in await engine.store.ids() if id.startswith("t.")))
        await engine.run(tree_of_another("u"), id="u")
        assert await engine.remove("mine of u") == 1
        assert await engine.remove("t") == 3
        assert await engine.store.ids() == ["mine of t", "u"]  # which has an id of its own
        assert await engine.remove("mine of t") == 1
        assert await engine.remove("u") == 1
        for wrong in ({}, {"job": "j", "older_than": timedelta(1)}):
            with pytest.raises(ValueError, match="one of these"):
                await engine.remove(**wrong)
        with pytest.raises(UnknownName, match="'t'"):
            await engine.remove("t")
        with pytest.raises(UnknownName, match="'j'"):
            await engine.remove(job="j")
    assert await desk.store.ids() == []


async def test_what_has_been_over_for_long() -> None:
    """With all beneath; what belongs to a run or a job of which not all has been over for so long stays."""
    desk = Desk()
    desk.fake.when("say").reply("hello")
    async with desk.engine() as engine:
        await engine.run(leaf("x"), id="old")
        async for _ in engine.map(leaf, ["a", "b"], id="old job", key=str):
            pass
        for id in ("asks", "old asks"):
            await engine.start(tree(id), id=id)
            await desk.until(f"mine of {id}", "done")
        (ask,) = await engine.open_asks(run="old asks")
        await ask.answer(False)
        with pytest.raises(ValueError, match="old asks"):
            await engine.run(tree("old asks"), id="old asks")
        async for _ in engine.map(leaf, ["a"], id="job", key=str):
            pass
        desk.fake.clock.advance(timedelta(days=30).total_seconds())
        await engine.run(leaf("x"), id="old.new")  # no child of it
        async for _ in engine.map(leaf, ["a", "b"], id="job", key=str):
            pass
        month = timedelta(days=29)
        assert await engine.remove(older_than=month, dry_run=True) == 5
        assert await engine.remove(older_than=month) == 5
        stays = ["asks", "job/a", "job/b", "mine of asks", "old.new"]
        assert await engine.store.ids() == stays
        assert [job.id for job in await engine.store.list_jobs()] == ["job"]
        assert await engine.remove(older_than=month) == 0
        (ask,) = await engine.open_asks(run="asks")
        await ask.answer(False)
        with pytest.raises(ValueError, match="asks"):
            await engine.run(tree("asks"), id="asks")
        assert await engine.remove(older_than=month) == 0  # what it started is needed should it go on
        assert await engine.store.ids() == stays


async def test_the_same_id_is_another_run(tmp_path: Path) -> None:
    """Also to a process that has known the first one, and its job."""
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store) as one, segue.Engine(store) as two:
        for n in range(3):
            for engine in (one, two):
                for id in ("a", "b", "a"):
                    assert await engine.run(enlarging(f"{n}{id}"), id=id) in (
                        f"{n}{id}{LARGE}",
                        f"{n}a{LARGE}",
                    )
                rows = [f"{n}{word}" for word in "xyz"]
                outcomes = [outcome async for outcome in engine.map(enlarging, rows, id="j")]
                assert sorted(str(outcome.value) for outcome in outcomes) == [row + LARGE for row in rows]
                assert await engine.remove("b") == 1
                assert await engine.remove(job="j") == 3
                assert await engine.remove("a") == 1
        assert await one.store.ids() == []


@segue.flow
async def within_a_block(word: str) -> str:
    with segue.using(budget=Budget(tokens=2000)):
        return await segue.generate(f"say {word}")


async def test_budgets_begin_anew_too(store: Store) -> None:
    desk = Desk(store)
    desk.fake.when("say").reply("word " * 1500)
    async with desk.engine() as engine:
        for _ in range(3):
            await engine.run(within_a_block("x"), id="a")
            assert await engine.remove("a") == 1
        assert await engine.store.budgets() == []


@segue.flow
async def goes_on(word: str) -> str:
    said = await segue.generate(f"say {word}")
    await segue.ask("Go on?")
    return said + await segue.generate(f"say {word}")


@segue.flow
async def leaves_one(word: str) -> None:
    await segue.spawn(goes_on(word), id="own")


async def test_what_was_spent_stays_so_where_a_run_that_goes_on_draws_on_it(store: Store) -> None:
    desk = Desk(store)
    desk.fake.when("say").reply("hello")
    async with desk.engine() as engine:
        await engine.run(leaves_one("x"), id="a", budget=Budget(tokens=10_000))
        await desk.parked("own")
        (before,) = await engine.store.budgets()
        assert await engine.remove("a") == 1
        (ask,) = await engine.open_asks(run="own")
        await ask.answer("yes")
        await engine.wait("own")
        (after,) = await engine.store.budgets()
        assert (after.id, after.spent.tokens) == ("run:a", 2 * before.spent.tokens)


class Look(Request[str]):
    word: str


class Slow(Actor[str]):
    @segue.on
    async def look(self, look: Look) -> str:
        return f"{look.word}: {await segue.ask(look.word)}"


@segue.flow
async def asking(slow: segue.Run[str], word: str) -> str:
    return await slow.request(Look(word=word))


async def test_what_another_run_of_that_id_had_asked_isnt_answered_to_this_one() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        slow = await engine.start(Slow(), id="slow")
        run = await engine.start(asking(slow, "one"), id="a")
        await desk.parked("slow")
        await run.cancel()
        await desk.until("a", "cancelled")
        assert await engine.remove("a") == 1
        run = await engine.start(asking(slow, "two"), id="a")
        await desk.parked("a")
        async for ask in engine.asks():
            await ask.answer("yes")
            if ask.question == "two":
                break
        assert await run == "two: yes"


@segue.flow
async def asked(word: str) -> str:
    return f"{word}: {await segue.ask(word)}"


@segue.flow
async def starts(word: str, then: str) -> str:
    if then == "asks":
        return await asked(word)
    run = await segue.spawn(asked(word), id=f"own of {word}")
    if then == "later":
        await segue.receive(Add)
    return await run


@pytest.mark.parametrize("then", ["awaits", "later", "asks"])
async def test_the_end_of_what_another_run_of_that_id_had_spawned_isnt_this_ones(
    store: Store, then: str
) -> None:
    """It went on by itself, under an id of its own."""
    desk = Desk(store)
    async with desk.engine() as engine:
        run = await engine.start(starts("old", "awaits"), id="a")
        await desk.parked("own of old")
        await desk.parked("a")
        await run.cancel()
        await desk.until("a", "cancelled")
        assert await engine.remove("a") == 1
        run = await engine.start(starts("new", then), id="a")
        await desk.parked("a")
        while len(asks := {ask.question: ask for ask in await engine.open_asks()}) < 2:
            await asyncio.sleep(0.001)
        await asks["old"].answer("yes")
        await engine.wait("own of old")
        await asyncio.sleep(0.02)
        await asks["new"].answer("yes")
        if then == "later":
            await run.tell(Add("x"))
        async with asyncio.timeout(5):
            assert await run == "new: yes"


@segue.flow
async def enlarging(word: str) -> str:
    return await enlarged(word)


@segue.flow
async def fickle(word: str) -> str:
    return await enlarged(str(next(CALLS)) if word == "fickle" else word)


CALLS = itertools.count()


async def test_the_next_run_of_that_id_is_verified_too() -> None:
    async with segue.Engine("memory:", verify=True) as engine:
        await engine.run(fickle("steady"), id="a")
        await engine.remove("a")
        with pytest.raises(segue.errors.ReplayMismatch):
            await engine.run(fickle("fickle"), id="a")


async def test_who_reads_a_job_that_is_removed_hears_of_it() -> None:
    async with segue.Engine("memory:") as engine:
        job = engine.map(enlarging, ["a", "b"], id="j")
        while job.total is None or await engine.store.run_counts() != {"done": 2}:
            await asyncio.sleep(0.01)
        assert await engine.remove(job="j") == 2
        with pytest.raises(UnknownName, match="'j'; it was removed while"):
            async with asyncio.timeout(5):
                await job


async def test_a_fork_goes_on_without_that_of_which_it_is(store: Store) -> None:
    DONE.clear()
    FAILS[:] = [True]
    async with segue.Engine(store) as engine:
        with pytest.raises(OSError):
            await engine.run(failing(), id="a")
        fork = await engine.fork("a")
        with pytest.raises(OSError):
            await fork
        assert await engine.remove("a") == 1
        FAILS.clear()
        await engine.resume(fork.id)
        assert await fork == "one" + LARGE
    assert DONE == ["one"]


DONE: list[str] = []
FAILS = [True]


@segue.step
async def once(word: str) -> str:
    DONE.append(word)
    return word + LARGE


@segue.flow
async def failing() -> str:
    done = await once("one")
    if FAILS:
        raise OSError
    return done


@segue.flow
async def above(word: str) -> list[str]:
    return await segue.map(leaf, [word])


async def test_one_stays_that_may_be_paid_yet(store: Store) -> None:
    """Its call is in a job at the provider. So do those above and beside it, whose replay would begin it anew."""
    async with Simulator(batch_time=timedelta(hours=1)) as sim:
        async with segue.Engine(
            store, model=f"openai:any@{sim.base_url}", mode="batch", linger=0.01
        ) as engine:
            await engine.start(above("x"), id="x")
            rows = engine.map(above, ["y"], id="j")
            ended = asyncio.ensure_future(rows)
            while len(await engine.store.ids()) < 4 or not await engine.store.batch_jobs():
                await asyncio.sleep(0.01)
            there = await engine.store.ids()
            for id in ("x", "j/0"):
                await engine.cancel(id)
            for id in there:
                assert (await engine.wait(id)).status == "cancelled"
            await asyncio.wait({ended})
            for dry in (True, False):
                with pytest.raises(Conflict, match=r"'x\.\w+' is in a job at its provider"):
                    await engine.remove("x", dry_run=dry)
                with pytest.raises(Conflict, match=r"'j/0\.\w+' is in a job at its provider"):
                    await engine.remove(job="j", dry_run=dry)
                assert await engine.remove(older_than=timedelta(0), dry_run=dry) == 0
                assert await engine.store.ids() == there
            assert [job.id for job in await engine.store.list_jobs()] == ["j"]


async def test_a_job_stays_that_is_just_begun() -> None:
    """Its first row is on its way."""
    async with segue.Engine("memory:") as engine:
        await engine.store.put_job(JobHead("j", "enlarging", engine.clock.now()))
        assert await engine.remove(older_than=timedelta(days=1)) == 0
        assert [job.id for job in await engine.store.list_jobs()] == ["j"]


async def test_keys_are_never_used_again(tmp_path: Path) -> None:
    """Other processes may remember them, and checkpoints remember those of the journal."""
    path = tmp_path / "runs.db"

    def newest() -> list[int]:
        with closing(sqlite3.connect(path)) as cx:
            return [cx.execute(f"select max(k) from {table}").fetchone()[0] for table in ("runs", "journal")]

    async with segue.Engine(f"sqlite:{path}") as engine:
        seen = [0, 0]
        for _ in range(3):
            await engine.run(enlarging("x"), id="a")
            assert all(now > before for now, before in zip(newest(), seen, strict=True))
            seen = newest()
            assert await engine.remove("a") == 1


async def test_children_of_a_supervisor_that_goes_on(store: Store) -> None:
    """They go once a turn is over in which it heard of their ends."""
    async with segue.Engine(store, verify=True) as engine, asyncio.timeout(20):
        office = await engine.start(Office(), id="office")
        short, bob, eve = [await office.request(Talk(name)) for name in ("ada", "bob", "eve")]
        mine = await office.request(Talk("ada", own=True))
        await engine.wait(mine)
        await office.ping()
        asking = asyncio.create_task(office.request(Talk("ada", waits=True)))
        now = await anext(engine.asks(to="office"))
        (new,) = {id for id in await store.ids() if re.fullmatch(r"office\.\w+", id)} - {short, bob, eve}
        await engine.wait(new)
        await (await anext(engine.asks(to="bob"))).answer("nothing")
        await engine.wait(bob)
        for stays in (eve, bob, new):  # whose turn, or that which hears of their ends, may be taken up again
            with pytest.raises(Conflict, match="'office', which isn't over"):
                await engine.remove(stays)
        assert await engine.remove(older_than=timedelta(0), dry_run=True) == 4  # that and the first
        assert await engine.remove(mine) == 2  # what is supervised of a flow is an actor that runs it
        await now.answer("go on")
        await asking
        await office.ping()
    async with segue.Engine(store, verify=True) as engine, asyncio.timeout(20):
        office = await engine.get("office")
        await office.ping()
        assert await engine.remove(older_than=timedelta(0), dry_run=True) == 6
        assert await engine.remove(older_than=timedelta(0)) == 6
        assert [id for id in await store.ids() if not id.startswith(eve)] == ["office"]
        assert await office.request(Talk("ada", own=True)) == mine
        await engine.wait(mine)
        await office.ping()
        await office.tell(Bye())
        assert sorted(await office) == sorted([short, mine, new, bob, mine])
        for id in await store.ids():
            await engine.wait(id)
        assert await engine.remove("office") == 3
        assert await engine.remove(mine) == 2
        assert await store.ids() == []


async def test_children_of_a_supervisor_that_is_over_go_with_it() -> None:
    """Though they have been over for longer."""
    desk = Desk()
    async with desk.engine() as engine:
        office = await engine.start(Office(), id="office")
        await engine.wait(await office.request(Talk("ada")))
        await office.ping()
        desk.fake.clock.advance(timedelta(days=30).total_seconds())
        await office.tell(Bye())
        await office
        assert await engine.remove(older_than=timedelta(days=29)) == 0
        assert await engine.remove(older_than=timedelta(0)) == 3
