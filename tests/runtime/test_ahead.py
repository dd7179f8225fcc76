"""Code goes ahead of the commit of a step's outcome, up to the next thing that it begins."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

import segue
from segue.model.entry import BLOB
from segue.model.run import Status
from segue.ports.store import Landed, Turn
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.testing.crash import Mortal
from tests.runtime.delayed import Delayed
from tests.runtime.lives import Desk, until

begun: list[object] = []
gone: list[str] = []


class Held(Delayed):
    """A store that takes what is written at once, and says so when it is let."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), lambda: 0.0)
        self.waiting: list[Callable[[], None]] = []
        self.quick = True

    def let(self) -> None:
        """What was written so far is durable."""
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            then()

    def land(self, turn: Turn, then: Landed) -> None:
        if self.quick or turn.entries is None:
            return super().land(turn, then)
        result = self.inner.land(turn, then)
        self.waiting.append(lambda: then(result or "committed"))
        return None

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        if self.quick:
            return super().append(run, fence, entries, then)
        assert self.inner.append(run, fence, entries, then)
        self.waiting.append(lambda: then("committed"))
        return False


@segue.step
async def one(n: int) -> int:
    begun.append(n)
    return n


@segue.step(effect="at-most-once")
async def once(n: int) -> int:
    begun.append(n)
    return n


@segue.flow
async def in_a_row() -> int:
    first = await one(1)
    gone.append("on")
    return first + await one(2)


@segue.flow
async def side_by_side() -> int:
    first = await one(1)
    gone.append("on")
    return first + sum(await asyncio.gather(one(2), one(3)))


@segue.flow
async def with_a_model() -> str:
    await one(1)
    gone.append("on")
    return await segue.generate("Say two.")


@segue.flow
async def with_one_at_most() -> int:
    first = await one(1)
    gone.append("on")
    return first + await once(2)


@segue.flow
async def with_a_clock() -> int:
    first = await one(1)
    segue.now()
    gone.append("on")
    return first + await one(2)


@pytest.mark.parametrize("flow", [in_a_row, side_by_side, with_a_model, with_one_at_most, with_a_clock])
async def test_nothing_begins_before_what_it_is_built_on_is_durable(flow: Any) -> None:
    begun.clear()
    gone.clear()
    store = Held()
    desk = Desk(store)
    desk.fake.when("Say").reply("two")
    async with desk.engine() as engine:
        store.quick = False
        running = asyncio.ensure_future(engine.run(flow(), id="it"))
        await until(lambda: store.waiting)
        await asyncio.sleep(0.01)
        assert gone == ["on"]
        assert begun == [1]
        assert not desk.fake.calls
        assert len(store.waiting) == 1
        while not running.done():
            store.let()
            await asyncio.sleep(0)
        assert await running in (3, 4, 6, "two")


async def test_the_end_takes_the_last_outcome_with_it(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "runs.db"))
    await store.open()
    mortal = Mortal(store, None)
    async with segue.Engine(mortal) as engine:
        assert await engine.run(in_a_row(), id="it") == 3
    assert mortal.commits == 2  # the first outcome, the second with the end
    assert len((await store.history("it")).rows) == 2
    await store.close()


@segue.flow
async def asks() -> str:
    await one(1)
    return await segue.ask("And now?")


@segue.flow
async def fails() -> int:
    raise ValueError(await one(1))


@pytest.mark.parametrize(("flow", "status"), [(asks, "parked"), (fails, "failed")])
async def test_so_does_a_wait_and_a_failure(flow: Any, status: Status) -> None:
    store = Delayed(MemoryStore(), lambda: 0.0)
    mortal = Mortal(store, None)
    async with segue.Engine(mortal) as engine:
        await engine.start(flow(), id="it")
        await until(lambda: mortal.commits)
        while (head := await store.get("it")) is None or head.status != status:
            await asyncio.sleep(0.001)
    assert mortal.commits == (2 if flow is asks else 1)  # a park is one of its own


async def test_an_outcome_whose_commit_is_lost_comes_anew() -> None:
    begun.clear()
    inner = MemoryStore()
    mortal = Mortal(Delayed(inner, lambda: 0.001), 1)
    died = asyncio.get_running_loop().create_future()
    mortal.died = lambda: died.done() or died.set_result(None)
    async with segue.Engine(mortal) as engine:
        await engine.start(in_a_row(), id="it")
        await died
    assert begun == [1]
    async with segue.Engine(inner) as engine:
        inner._runs.held["it"].lease = 0.0
        inner._runs.lapse = 0.0
        assert await (await engine.get("it")) == 3
    assert begun == [1, 1, 2]


class Refusing(Delayed):
    """A store that loses its disk."""

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        asyncio.get_running_loop().call_soon(then, segue.errors.StoreError("here", "it is full", "make room"))
        return False


async def test_where_the_disk_is_full_nothing_more_begins() -> None:
    begun.clear()
    store = Refusing(MemoryStore(), lambda: 0.0)
    async with segue.Engine(store) as engine:
        with pytest.raises(segue.errors.StoreError, match="it is full"):
            await engine.run(in_a_row(), id="it")
    assert begun == [1]


@segue.flow
async def cut_off() -> str:
    try:
        async with asyncio.timeout(0.005):
            first = await one(1)
            second = await one(2)
    except TimeoutError:
        return f"late: {await one(3)}"
    return f"{first} {second}"


async def test_a_timeout_may_strike_where_the_code_waits_for_what_it_is_ahead_of() -> None:
    begun.clear()
    store = Held()
    async with segue.Engine(store, verify=True) as engine:
        store.quick = False
        running = asyncio.ensure_future(engine.run(cut_off(), id="it"))
        await until(lambda: store.waiting)
        await asyncio.sleep(0.02)
        while not running.done():
            store.let()
            await asyncio.sleep(0)
        assert await running in ("late: 3", "1 2")
        head = await engine.head("it")
        assert await engine.verified(head) == head


@segue.step
async def slow() -> int:
    await asyncio.sleep(5)
    return 1


@segue.flow
async def gives_up() -> int:
    gone.append("from the start")
    try:
        async with asyncio.timeout(0.005):
            return await slow()
    except TimeoutError:
        return await one(2)


@segue.flow
async def gives_up_for_two() -> int:
    gone.append("from the start")
    try:
        async with asyncio.timeout(0.005):
            return await slow()
    except TimeoutError:
        return sum(await asyncio.gather(one(1), one(1)))


@pytest.mark.parametrize("flow", [gives_up, gives_up_for_two])
async def test_nothing_begins_before_it_is_durable_that_a_timeout_struck(flow: Any) -> None:
    begun.clear()
    gone.clear()
    store = Held()
    async with segue.Engine(store) as engine:
        store.quick = False
        running = asyncio.ensure_future(engine.run(flow(), id="it"))
        await until(lambda: store.waiting)
        await asyncio.sleep(0.01)
        assert begun == []
        while not running.done():
            store.let()
            await asyncio.sleep(0)
        assert await running == 2
        assert len(gone) == 1  # in one life
        head = await engine.head("it")
        assert await engine.verified(head) == head


class Go(segue.Note):
    """There is something to do."""


class Stop(segue.Note):
    """There is no more to do."""


class Hasty(segue.Actor[int]):
    given: int = 0

    @segue.on
    async def go(self, note: Go) -> None:
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.005):
                    await slow()
        self.given = await one(2)

    @segue.on
    async def stop(self, note: Stop) -> segue.Done[int]:
        return segue.Done(self.given)


@pytest.mark.parametrize("verify", [False, True])
async def test_so_in_an_actor(verify: bool) -> None:
    begun.clear()
    store = Held()
    async with segue.Engine(store, verify=verify) as engine:
        run = await engine.start(Hasty(), id="it")
        await until(lambda: engine.worker.awake)
        await run.tell(Go())
        await asyncio.sleep(0.002)
        store.quick = False
        await until(lambda: store.waiting or begun)
        await asyncio.sleep(0.01)
        early, store.quick = list(begun), True
        store.let()
        await run.tell(Stop())
        assert await run == 2
        head = await engine.head("it")
        assert await engine.verified(head) == head
    assert early == []


@segue.flow
async def with_a_service() -> int:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"data": []}))
    async with segue.http_client(base_url="http://there/v1", transport=transport) as client:
        answer = await client.post("/images", json={"prompt": "hi"})
    gone.append("on")
    return int(answer.status_code)


async def test_what_may_have_been_paid_is_durable_before_its_code_has_it() -> None:
    gone.clear()
    store = Held()
    async with segue.Engine(store) as engine:
        store.quick = False
        running = asyncio.ensure_future(engine.run(with_a_service(), id="it"))
        await until(lambda: store.waiting)
        await asyncio.sleep(0.01)
        assert not gone
        while not running.done():
            store.let()
            await asyncio.sleep(0)
        assert await running == 200


# ---------------------------------------------------------------- what isn't segue's, beside it
@segue.flow
async def beside_a_foreign_wait(seconds: float) -> int:
    first = await one(1)
    second = asyncio.create_task(one(2))
    while len(begun) < 2:
        await asyncio.sleep(seconds)
    return first + await second


@pytest.mark.parametrize("seconds", [0.001, 0.0])
async def test_what_begins_behind_doesnt_wait_for_what_is_foreign(seconds: float) -> None:
    begun.clear()
    async with segue.Engine(Delayed(MemoryStore(), lambda: 0.0), linger=60) as engine:
        async with asyncio.timeout(2):
            assert await engine.run(beside_a_foreign_wait(seconds), id="it") == 3


@segue.flow
async def asks_beside_a_foreign_wait() -> str:
    await one(1)
    asked = asyncio.create_task(segue.ask("And now?"))
    await asyncio.sleep(60)
    return await asked


async def test_a_foreign_wait_is_lingered_for_after_it(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(Delayed(MemoryStore(), lambda: 0.0))
    async with desk.engine() as engine:
        await engine.start(asks_beside_a_foreign_wait(), id="it")
        await desk.parked()
    assert "outside segue" in caplog.text


@segue.step
async def large() -> str:
    return "x" * BLOB


@segue.flow
async def with_something_large() -> int:
    return await one(1) + len(await large()) + await one(2)


async def test_what_is_written_is_written_once() -> None:
    mortal = Mortal(Delayed(MemoryStore(), lambda: 0.0), None)
    async with segue.Engine(mortal) as engine:
        assert await engine.run(with_something_large(), id="it") == BLOB + 3
    assert mortal.commits == 3  # the first outcome, the large one, the last with the end


done: list[bool] = []


@segue.flow
async def then_foreign() -> int:
    first = await one(1)
    while not done:
        await asyncio.sleep(0.001)
    return first


async def test_an_outcome_is_written_while_its_code_waits_for_what_is_foreign() -> None:
    done.clear()
    store = MemoryStore()
    async with segue.Engine(Delayed(store, lambda: 0.0), linger=60) as engine:
        await engine.start(then_foreign(), id="it")
        async with asyncio.timeout(2):
            while not (await store.history("it")).rows:
                await asyncio.sleep(0.001)
        done.append(True)
        assert await (await engine.get("it")) == 1


@segue.flow
async def joined_meanwhile() -> int:
    first = await one(1)
    others: list[asyncio.Task[int]] = []
    asyncio.get_running_loop().call_later(0.005, lambda: others.append(asyncio.create_task(one(3))))
    second = await one(2)
    return first + second + sum([await other for other in others])


@segue.flow
async def cut_off_meanwhile() -> int:
    first, task = await one(1), asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.005, task.cancel)
    try:
        return first + await one(2)
    except asyncio.CancelledError:
        task.uncancel()
        return first + await one(5)


@pytest.mark.parametrize("flow", [joined_meanwhile, cut_off_meanwhile])
async def test_what_moves_the_code_meanwhile_begins_nothing_either(flow: Any) -> None:
    begun.clear()
    store = Held()
    async with segue.Engine(store) as engine:
        store.quick = False
        running = asyncio.ensure_future(engine.run(flow(), id="it"))
        await until(lambda: store.waiting)
        await asyncio.sleep(0.02)
        assert begun == [1]
        store.let()
        while not running.done():
            store.let()
            await asyncio.sleep(0)
        assert await running == 6


@segue.flow
async def cut_off_for_one_at_most() -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.005, task.cancel)
    try:
        return sum(await asyncio.gather(one(1), one(2)))
    except asyncio.CancelledError:
        task.uncancel()
        return await once(3)


async def test_one_at_most_that_is_made_while_a_commit_is_on_its_way_waits_for_its_own() -> None:
    begun.clear()
    store = Held()
    async with segue.Engine(store) as engine:
        store.quick = False
        running = asyncio.ensure_future(engine.run(cut_off_for_one_at_most(), id="it"))
        await until(lambda: store.waiting)
        await asyncio.sleep(0.02)
        store.let()
        await until(lambda: store.waiting)
        assert begun == [1, 2]
        while not running.done():
            store.let()
            await asyncio.sleep(0)
        assert await running == 3
    assert begun == [1, 2, 3]


async def test_where_the_engine_closes_meanwhile_nothing_more_begins() -> None:
    begun.clear()
    store = Held()
    engine = segue.Engine(store)
    async with AsyncExitStack() as parts:
        await parts.enter_async_context(engine)
        store.quick = False
        await engine.start(in_a_row(), id="it")
        await until(lambda: store.waiting)
        closing = asyncio.ensure_future(parts.aclose())
        await asyncio.sleep(0.01)
        while not closing.done():
            store.let()
            await asyncio.sleep(0)
    assert begun == [1]


heard: list[object] = []


@segue.flow
async def tells_those_who_came_late() -> int:
    first = await one(1)
    while not gone:
        await asyncio.sleep(0)
    await segue.emit("told")
    return first + await one(1)


@segue.flow
async def tells_and_goes_on() -> int:
    first = await one(1)
    while not gone:
        await asyncio.sleep(0)
    await segue.emit("told")
    while "told" not in heard:
        await asyncio.sleep(0)
    return first + await one(1)


@segue.flow
async def tells_of_a_timeout() -> int:
    try:
        async with asyncio.timeout(0.005):
            return await slow()
    except TimeoutError:
        await segue.emit("told")
        return await one(2)


@pytest.mark.parametrize("flow", [tells_those_who_came_late, tells_and_goes_on, tells_of_a_timeout])
async def test_nobody_is_told_of_what_isnt_durable(flow: Any) -> None:
    gone.clear()
    heard.clear()
    store = Held()
    async with segue.Engine(store) as engine:
        store.quick = False
        await engine.start(flow(), id="it")
        await asyncio.sleep(0)
        engine.bus.watch("it", lambda event: heard.append(getattr(event, "value", "")))
        gone.append("somebody watches")
        await until(lambda: store.waiting)
        await asyncio.sleep(0.01)
        early = "told" in heard
        store.quick = True
        store.let()
        assert await (await engine.get("it")) == 2
    assert not early
    assert heard.count("told") == 1
