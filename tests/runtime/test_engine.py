"""Engines: closed in the middle, killed at every commit, several on one store."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import segue
from segue.model.errors import RunCancelled, RunHeld, StoreError
from segue.model.run import Head
from segue.runtime.ground import names
from segue.runtime.lanes.lanes import Lanes
from segue.stores import open_store
from segue.stores.memory import MemoryStore
from tests import commits
from tests.runtime.lives import Desk, everywhere

S: list[str] = []
GATE: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()
    GATE.clear()


@segue.step
async def do(name: str) -> str:
    S.append(name)
    await asyncio.sleep(0)
    return name


@segue.step
async def long(name: str) -> str:
    S.append(f"begin {name}")
    GATE.setdefault("begun", asyncio.Event()).set()
    await GATE.setdefault(name, asyncio.Event()).wait()
    S.append(f"end {name}")
    return name


class Add(segue.Note):
    n: int


class Total(segue.Request[int]):
    pass


class Sum(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def add(self, note: Add) -> None:
        self.total += note.n

    @segue.on
    async def show(self, request: Total) -> int:
        return self.total


# ---------------------------------------------------------------- closing
async def test_an_engine_that_isnt_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await segue.Engine().run(asking())


async def test_a_run_never_gets_the_id_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    @segue.flow
    async def count() -> int:
        S.append("counted")
        return len(S)

    drawn = iter([1, 1, 1, 2])
    monkeypatch.setattr(names, "_numbers", SimpleNamespace(getrandbits=lambda _: next(drawn)))
    async with segue.Engine("memory:") as engine:
        assert await engine.run(count()) == 1
        assert await (run := await engine.start(count())) == 2
        assert run.id.endswith("-00000002")


async def test_a_run_that_would_have_gotten_the_id_of_another_leaves_its_budget_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @segue.flow
    async def count() -> int:
        return 1

    drawn = iter([1, 1, 2])
    monkeypatch.setattr(names, "_numbers", SimpleNamespace(getrandbits=lambda _: next(drawn)))
    async with segue.Engine("memory:") as engine:
        first = await engine.start(count(), budget=segue.Budget(tokens=10))
        second = await engine.start(count(), budget=segue.Budget(tokens=1000))
        standings = await engine.store.budgets([f"run:{run.id}" for run in (first, second)])
        assert [one.limit.tokens for one in standings] == [10, 1000]


async def test_what_was_done_is_kept_when_an_engine_closes() -> None:
    @segue.flow
    async def flow() -> list[str]:
        return await asyncio.gather(do("a"), do("b"), long("x"))

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(flow(), id="it")
        await GATE.setdefault("begun", asyncio.Event()).wait()
        await asyncio.sleep(0.005)
    head = await desk.head()
    assert head.status == "ready"
    GATE["x"].set()
    assert await desk.run(flow()) == ["a", "b", "x"]
    assert S == ["a", "b", "begin x", "begin x", "end x"]


async def test_calls_under_way_get_their_grace() -> None:
    @segue.flow
    async def flow() -> list[str]:
        return [*await asyncio.gather(long("x"), long("y")), await do("z")]

    desk = Desk()
    async with desk.engine(grace=5.0) as engine:
        await engine.start(flow(), id="it")
        await GATE.setdefault("begun", asyncio.Event()).wait()
        asyncio.get_running_loop().call_later(0.02, GATE.setdefault("x", asyncio.Event()).set)
        asyncio.get_running_loop().call_later(0.03, GATE.setdefault("y", asyncio.Event()).set)
    assert await desk.run(flow()) == ["x", "y", "z"]
    assert S.count("begin x") == S.count("begin y") == S.count("z") == 1


async def test_a_call_that_is_alone_gets_its_grace() -> None:
    @segue.flow
    async def flow() -> str:
        return await long("x")

    desk = Desk()
    async with desk.engine(grace=5.0) as engine:
        await engine.start(flow(), id="it")
        await GATE.setdefault("begun", asyncio.Event()).wait()
        asyncio.get_running_loop().call_later(0.02, GATE.setdefault("x", asyncio.Event()).set)
    assert await desk.run(flow()) == "x"
    assert S == ["begin x", "end x"]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_step_cleans_up_before_its_engine_is_closed(alone: bool) -> None:
    @segue.resource
    async def connection() -> AsyncIterator[str]:
        yield "open"
        S.append("closed")

    @segue.step
    async def cleaning() -> None:
        await connection()
        try:
            GATE.setdefault("begun", asyncio.Event()).set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            S.append("cleaned up")

    @segue.flow
    async def flow() -> None:
        await (cleaning() if alone else asyncio.gather(cleaning(), do("a")))

    async with segue.Engine() as engine:
        await engine.start(flow())
        await GATE.setdefault("begun", asyncio.Event()).wait()
    assert S[-2:] == ["cleaned up", "closed"]


async def test_a_store_that_fails_while_nothing_is_to_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.ground.patience.PAUSE", 0.1)
    desk = Desk()
    async with desk.engine() as engine:

        async def failing(*, now: float, but: Any = ()) -> Any:
            raise StoreError("here", "the disk is gone", "bring it back")

        monkeypatch.setattr(engine.store, "backlog", failing)
        engine.worker.wake()
        with pytest.raises(StoreError, match="the disk is gone"):
            await asyncio.wait_for(engine.run(asking(), id="it"), 5)


async def test_claims_are_renewed_though_the_store_failed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.worker.RENEW", 0.01)
    renewed: list[str] = []
    async with segue.Engine() as engine:
        whole = engine.store.renew

        async def failing(worker: str, leases: Any, ttl: float, *, now: float) -> list[bool]:
            renewed.extend(lease.run for lease in leases)
            if len(renewed) == 1:
                raise StoreError("here", "the disk is slow", "wait")
            return await whole(worker, leases, ttl, now=now)

        monkeypatch.setattr(engine.store, "renew", failing)
        run = await engine.start(waiting_for_x(), id="it")
        while len(renewed) < 3:
            await asyncio.sleep(0.005)
        GATE.setdefault("x", asyncio.Event()).set()
        assert await run == "x"


@segue.flow
async def asking() -> str:
    return await segue.ask("Never?")


@segue.flow
async def waiting_for_x() -> str:
    return await long("x")


async def test_who_stops_watching_a_run_leaves_no_task() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(asking(), id="it")
        while (await run.head()).status != "parked":
            await asyncio.sleep(0.005)

        async def watch() -> None:
            async for _ in run:
                pass

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.02)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await asyncio.sleep(0)
        assert "Queue.get" not in [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]


@segue.flow
async def telling() -> bool:
    await segue.generate("say it")
    await segue.emit("said")
    return await segue.ask("Enough?", returns=bool)


async def test_what_happens_before_a_run_is_looked_at_is_kept() -> None:
    desk = Desk()
    desk.fake.when("say it").reply("one two three").answer("Enough?", True)
    async with desk.engine() as engine:
        run = await engine.start(telling(), id="it")
        await engine.wait("it")  # all is over
        events = [event async for event in run]
        kinds = [type(event).__name__ for event in events if not isinstance(event, segue.Token)]
        assert kinds == ["Started", "Recorded", "Emitted", "Asked", "Recorded", "Finished"]
        assert "".join(event.text for event in events if isinstance(event, segue.Token)) == "one two three"
        assert [type(event) async for event in run] == [segue.Finished]  # told once
        assert not engine.bus.wants("it")


async def test_a_question_is_told_once() -> None:
    desk = Desk()
    desk.fake.when("say it").reply("it").answer("Enough?", True)
    async with desk.engine() as engine:
        run = await engine.start(telling(), id="it")
        assert [type(event) async for event in run].count(segue.Asked) == 1


async def test_what_nobody_can_look_at_isnt_kept() -> None:
    desk = Desk()
    desk.fake.when("say it").reply("it").answer("Enough?", True)
    async with desk.engine() as engine:
        await engine.start(telling(), id="it")  # its handle is let go
        gc.collect()
        assert not engine.bus.wants("it")
        await engine.wait("it")
        waiting = asyncio.ensure_future(engine.run(telling(), id="other"))
        await desk.until("other", "ready", "parked", "done")
        assert not engine.bus.wants("other")
        assert await waiting
        awaited = await engine.start(telling(), id="awaited")
        assert await awaited
        assert not engine.bus.wants("awaited")
        assert [type(event) async for event in awaited] == [segue.Finished]


async def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.handles.KEPT", 3)
    desk = Desk()
    desk.fake.when("say it").reply("one two three").answer("Enough?", True)
    async with desk.engine() as engine:
        run = await engine.start(telling(), id="it")
        await engine.wait("it")
        kinds = [type(event).__name__ async for event in run]
        assert kinds == ["Asked", "Recorded", "Finished"]  # the newest


async def test_an_engine_closes_whatever_its_runs_do() -> None:
    @segue.flow
    async def busy() -> None:
        await do("a")
        while True:
            await asyncio.sleep(0)

    @segue.flow
    async def foreign() -> None:
        await do("b")
        await asyncio.sleep(60)

    @segue.flow
    async def parks() -> None:
        await segue.ask("Never?")

    desk = Desk()
    async with asyncio.timeout(5):
        async with desk.engine() as engine:
            for call, id in ((busy(), "busy"), (foreign(), "foreign"), (parks(), "parks")):
                await engine.start(call, id=id)
            await desk.parked("parks")
    assert (await desk.head("busy")).status == "ready"
    assert (await desk.head("foreign")).status == "ready"
    assert sorted(S) == ["a", "b"]
    async with desk.engine():
        await asyncio.sleep(0.05)
    assert sorted(S) == ["a", "b"]  # replayed, not done again


async def test_an_actor_closed_between_handler_and_commit_handles_once() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Sum(), id="sum")
        await desk.parked("sum")
    for n in range(12):
        async with desk.engine() as engine:
            run = await engine.get("sum")
            await run.tell(Add(1))
            for _ in range(n):
                await asyncio.sleep(0)
    async with desk.engine() as engine:
        assert await (await engine.get("sum")).request(Total()) == 12


async def test_nobody_waits_for_ever_for_a_run_of_a_closed_engine() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.ask("Never?")

    desk = Desk()
    async with desk.engine() as engine:
        waiting = asyncio.ensure_future(engine.run(flow(), id="it"))
        await desk.parked()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 2)


# ---------------------------------------------------------------- crashes
async def test_effects_over_crashes_everywhere() -> None:
    @segue.flow
    async def child(n: int) -> str:
        return await do(f"child {n}")

    @segue.flow
    async def flow() -> list[str]:
        run = await segue.spawn(child(1))
        async with asyncio.TaskGroup() as group:
            one = group.create_task(do("one"))
            two = group.create_task(segue.generate("hi", mode="batch"))
            three = group.create_task(segue.ask("Who?"))
        await run.tell("mail")
        await segue.sleep(timedelta(days=1))
        return [await run, one.result(), two.result(), three.result(), *await segue.map(child, [2, 3])]

    def set_up(desk: Desk) -> None:
        S.clear()
        desk.fake.when("hi").reply("ho")
        desk.fake.answer("Who?", "me")

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'["child 1","one","ho","me","child 2","child 3"]', head
        assert all(count == 1 for count in desk.fake.remote.sent.values())
        assert len(S) <= 6  # a step may be cut off with others that are done at once

    assert await everywhere(flow, set_up, check) > 20


# ---------------------------------------------------------------- several engines
async def test_engines_share_a_store(tmp_path: Path) -> None:
    @segue.flow
    async def row(n: int) -> str:
        first = await do(f"{n}")
        await segue.sleep(timedelta(milliseconds=20))
        return first + await do(f"{n}!")

    path = f"sqlite:{tmp_path}/runs.db"
    async with (
        segue.Engine(path, linger=0.0, room=15) as one,
        segue.Engine(path, linger=0.0, room=15) as two,
        segue.Engine(path, linger=0.0, worker=False) as watcher,
    ):
        at_work = {id(engine): set[str]() for engine in (one, two)}
        for engine in (one, two):
            commits.tell(engine.worker, lambda turn, engine=engine: at_work[id(engine)].add(turn.run))

        async def wakes() -> None:
            while True:  # it looks every half second by itself
                two.worker.wake()
                await asyncio.sleep(0.001)

        waking = asyncio.create_task(wakes())
        for n in range(20):  # until both had a part: one that is quick enough leaves the other nothing
            S.clear()
            assert await one.map(row, range(60), id=f"job{n}" if n else "job") == [
                f"{n}{n}!" for n in range(60)
            ]
            assert len(S) == len(set(S)) == 120
            if all(at_work.values()):
                break
        waking.cancel()
        assert all(at_work.values())
        assert await (await watcher.get("job/7")) == "77!"


async def test_what_reaches_a_run_at_work_in_another_process(tmp_path: Path) -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.ask("Who?") + await segue.receive(str)

    path = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(path) as worker, segue.Engine(path, worker=False) as outside:
        run = await worker.start(flow(), id="it")
        while not await outside.open_asks():
            await asyncio.sleep(0.005)
        await (await outside.open_asks())[0].answer("me")
        other = await outside.get("it")
        await other.tell("!")
        assert await run == "me!"
        assert await other == "me!"


async def test_a_cancellation_from_another_process_reaches_a_run_in_its_step(tmp_path: Path) -> None:
    path = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(path) as worker, segue.Engine(path, worker=False) as outside:
        run = await worker.start(waiting_for_x(), id="it")
        await GATE.setdefault("begun", asyncio.Event()).wait()
        await (await outside.get("it")).cancel()
        with pytest.raises(RunCancelled):
            await asyncio.wait_for(run, 5)


async def test_a_taken_over_run_isnt_done_twice(tmp_path: Path) -> None:
    """A worker that was thought dead comes back: what it does then is dropped."""

    @segue.flow
    async def flow() -> str:
        return await long("x") + await do("after")

    store = open_store(f"sqlite:{tmp_path}/runs.db")
    desk = Desk(store)
    async with desk.engine() as one:
        run: Any = await one.start(flow(), id="it")
        await GATE.setdefault("begun", asyncio.Event()).wait()
        desk.fake.clock.advance(1000)  # its lease has lapsed
        async with segue.Engine(store=Borrowed(store), clock=desk.fake.clock) as two:
            while S.count("begin x") < 2:
                await asyncio.sleep(0.001)
            GATE["x"].set()
            assert await (await two.get("it")) == "xafter"
            assert await run == "xafter"
    assert S.count("after") == 1
    await store.close()


class Borrowed:
    """A store that somebody else opens and closes."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def open(self) -> None:
        """It is open."""

    async def close(self) -> None:
        """It stays so."""


# ---------------------------------------------------------------- opening and closing
@segue.flow
async def say_bye() -> str:
    return "bye"


async def test_what_fails_to_close_keeps_nothing_else_open(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = segue.Engine()
    closed: list[bool] = []

    async def stuck(self: Lanes) -> None:
        raise RuntimeError("the lanes are stuck")

    async def close() -> None:
        closed.append(True)

    monkeypatch.setattr(Lanes, "release", stuck)
    monkeypatch.setattr(engine.store, "close", close)
    with pytest.raises(RuntimeError, match="the lanes are stuck"):
        async with engine:
            pass
    assert closed
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_one_task_may_open_it_and_another_close_it() -> None:
    engine = segue.Engine()
    await asyncio.create_task(engine.__aenter__())
    assert await engine.run(say_bye()) == "bye"
    await asyncio.create_task(engine.__aexit__(None, None, None))
    async with segue.Engine() as other:
        assert await other.run(say_bye()) == "bye"


async def test_what_fails_to_open_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = segue.Engine()
    closed: list[bool] = []
    whole = engine.store.close

    async def failing() -> list[str]:
        raise StoreError("here", "the disk is gone", "bring it back")

    async def close() -> None:
        closed.append(True)
        await whole()

    monkeypatch.setattr(engine.store, "workers", failing)
    monkeypatch.setattr(engine.store, "close", close)
    with pytest.raises(StoreError, match="the disk is gone"):
        async with engine:
            raise AssertionError("it isn't open")
    assert closed
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_a_store_that_is_there_again_stops_nobody() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        whole = engine.store.backlog
        failed = asyncio.Event()

        async def failing(*, now: float, but: Any = ()) -> Any:
            engine.store.backlog = whole  # type: ignore[method-assign]
            failed.set()
            raise StoreError("here", "the disk is gone", "bring it back")

        engine.store.backlog = failing  # type: ignore[method-assign]
        engine.worker.wake()
        await failed.wait()
        while engine.worker.failure is None:
            await asyncio.sleep(0)
        desk.fake.clock.advance(2)
        while engine.worker.failure is not None:
            await asyncio.sleep(0.001)
        engine.check()


async def test_two_first_users_of_a_resource_that_fails_once_share_the_second_one() -> None:
    opened: list[int] = []

    @segue.resource
    async def shaky() -> Any:
        opened.append(len(opened))
        if len(opened) == 1:
            await asyncio.sleep(0)
            raise ConnectionError("not yet")
        yield opened[-1]

    async with segue.Engine() as engine:
        get = engine.worker.get_resource

        async def patiently() -> Any:
            try:
                return await get(shaky.__wrapped__)  # type: ignore[attr-defined]
            except ConnectionError:
                return await get(shaky.__wrapped__)  # type: ignore[attr-defined]

        assert await asyncio.gather(patiently(), patiently(), patiently()) == [1, 1, 1]
    assert opened == [0, 1]


@pytest.mark.parametrize(
    "damage",
    [
        "insert into journal(run, entries) select k, x'c1' from runs",
        "insert into states(run, pool) select k, x'c1' from runs",
        "insert into journal(run, entries) select k, x'91c1' from runs",
    ],
)
async def test_a_run_that_cant_be_read_is_held_and_harms_no_other(tmp_path: Path, damage: str) -> None:
    store = f"sqlite:{tmp_path}/runs.db"

    @segue.flow(name="unread")
    async def flow() -> str:
        return "done"

    async with segue.Engine(store, worker=False) as engine:
        await engine.start(flow(), id="bad")
    with closing(sqlite3.connect(tmp_path / "runs.db")) as file, file:
        file.execute(damage)
    async with segue.Engine(store) as engine, asyncio.timeout(10):
        assert await engine.run(flow(), id="good") == "done"
        with pytest.raises(RunHeld, match=r"newer segue wrote it.*\n.*segue resume bad"):
            await (await engine.get("bad"))


async def test_a_claim_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    store, file = f"sqlite:{tmp_path}/runs.db", tmp_path / "runs.db"

    @segue.flow(name="unclaimed")
    async def flow() -> str:
        return "done"

    async with segue.Engine(store, worker=False) as engine:
        await engine.start(flow(), id="bad")
    with closing(sqlite3.connect(file)) as cx, cx:
        cx.execute("alter table specs rename to elsewhere")
    async with segue.Engine(store) as engine, asyncio.timeout(10):
        while engine.worker.failure is None:
            await asyncio.sleep(0.01)
        with pytest.raises(StoreError, match=r"no such table"):
            engine.check(at_once=True)
        with closing(sqlite3.connect(file)) as cx, cx:
            cx.execute("alter table elsewhere rename to specs")
        while engine.worker.failure is not None:
            await asyncio.sleep(0.01)
        assert await engine.run(flow(), id="bad") == "done"


async def test_who_waits_for_ends_that_dont_come_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.ends.POLL", 0.001)
    async with segue.Engine() as engine:
        for _ in range(20):
            await engine.ends.next()
        await asyncio.sleep(0)
        assert not engine.ends._any


async def test_an_end_in_another_engine_is_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.ends.POLL", 60.0)

    @segue.flow
    async def flow() -> str:
        return await segue.receive(str)

    store = MemoryStore()
    async with segue.Engine(store) as engine, segue.Engine(store=Borrowed(store), worker=False) as other:
        run = await engine.start(flow(), id="it")
        waiting = asyncio.create_task(other.wait("it"))
        await asyncio.sleep(0.05)
        await run.tell("over")
        assert (await asyncio.wait_for(waiting, 10)).status == "done"


@segue.step
async def write_much(number: int) -> str:
    return "x" * 9000


@segue.flow(name="engine.row")
async def row(number: int) -> int:
    await write_much(number)
    await segue.sleep(timedelta(seconds=0.2))
    return number


@segue.flow(name="engine.rows")
async def rows() -> list[int]:
    return await segue.map(row, range(3), limit=1)


@pytest.mark.parametrize("failing", [1, 2, 3])
async def test_contents_that_cant_be_read_once_hold_up_no_group(failing: int) -> None:
    """What was claimed is given back, and those that wait behind it in their group go on."""
    async with segue.Engine(linger=0.01) as engine, asyncio.timeout(20):
        whole, calls = engine.store.get_blobs, 0

        async def get_blobs(digests: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise StoreError("here", "the disk is gone", "bring it back")
            return await whole(digests)

        engine.store.get_blobs = get_blobs  # type: ignore[method-assign]
        await engine.start(rows(), id="it")
        while (head := await engine.head("it")).status != "done":
            await asyncio.sleep(0.01)
        assert head.value == b"[0,1,2]"
        assert calls > failing
