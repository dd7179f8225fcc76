"""An actor that only listens rests without a task, keeps its claim, and goes on as it was."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.model.errors import RunCancelled
from segue.ports.store import Turn
from segue.runtime.mail import timers
from segue.runtime.wake import handling
from segue.runtime.wake.executor import Executor
from segue.runtime.wake.resting import Resting, Rests
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.fake_model import FakeEngine
from tests.runtime.lives import until


class Add(segue.Note):
    n: int


class Total(segue.Request[int]): ...


class Later(segue.Request[int]): ...


class Remind(segue.Note): ...


class Pass(segue.Note): ...


class Counter(segue.Actor[None]):
    to: segue.Run[Any] | None = None
    total: int = 0
    calls: int = segue.field(default=0, durable=False)
    kept: segue.Responder[int] | None = None

    @segue.on
    async def add(self, note: Add) -> None:
        self.total += note.n
        self.calls += 1

    @segue.on
    async def tell_total(self, _: Total) -> int:
        return self.total

    @segue.on
    async def calls_so_far(self, _: Calls) -> int:
        return self.calls

    @segue.on
    async def later(self, _: Later, reply: segue.Responder[int]) -> None:
        self.kept = reply

    @segue.on
    async def remind(self, _: Remind) -> None:
        await segue.tell(self.me, Add(100), after=timedelta(seconds=0.15))

    @segue.on
    async def pass_on(self, _: Pass) -> None:
        assert self.to is not None
        await self.to.tell(Add(1))


class Calls(segue.Request[int]): ...


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors rest soon, and for long."""
    monkeypatch.setattr(handling, "CALM", 0.001)
    monkeypatch.setattr(handling, "REST", 60.0)


async def rested(engine: segue.Engine, id: str) -> Resting:
    """It rests, after it has handled what was told before."""
    await (await engine.get(id)).request(Total())
    await until(lambda: isinstance(engine.worker.awake.get(id), Resting))
    resting = engine.worker.awake[id]
    assert isinstance(resting, Resting)
    return resting


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_it_goes_on_as_it_was(kind: str, tmp_path: Any) -> None:
    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        run = await engine.start(Counter(), id="c")
        for n in range(1, 4):
            await run.tell(Add(n))
            await rested(engine, "c")
            assert not any("segue c" in task.get_name() for task in asyncio.all_tasks())
        claims = (await run.head()).fence
        assert await run.request(Total()) == 6
        assert await run.request(Calls()) == 3  # the same instance: nothing was read
        assert claims == (await run.head()).fence == 1


@pytest.mark.usefixtures("long")
async def test_what_it_tells_after_a_rest_is_told_once_each() -> None:
    async with segue.Engine("memory:") as engine:
        total = await engine.start(Counter(), id="total")
        run = await engine.start(Counter(total), id="c")
        for _ in range(3):
            await run.tell(Pass())
            await rested(engine, "c")
        assert await total.request(Total()) == 3


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_timer_that_is_far_doesnt_send_it_away(kind: str, tmp_path: Any) -> None:
    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Add(100), after=timedelta(hours=1))
        await run.request(Total())
        claims = (await run.head()).fence
        for n in range(1, 4):
            await run.tell(Add(n))
            await run.request(Total())
        assert await run.request(Total()) == 6
        assert (await run.head()).fence == claims


@pytest.mark.usefixtures("long")
async def test_a_timer_strikes_though_messages_never_cease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "SOON", 0.02)
    async with segue.Engine("memory:", linger=0.01) as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Add(100), after=timedelta(seconds=0.1))
        async with asyncio.timeout(10):
            while await run.request(Total()) < 100:
                await asyncio.sleep(0.001)


async def test_it_leaves_when_it_has_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling, "CALM", 0.001)
    monkeypatch.setattr(handling, "REST", 0.2)
    lay: list[str] = []
    take = Rests.take

    def seen(self: Rests, run: Executor, *how: Any) -> None:
        lay.append(run.id)
        take(self, run, *how)

    monkeypatch.setattr(Rests, "take", seen)
    async with segue.Engine("memory:") as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Add(2))
        assert await run.request(Total()) == 2
        await until(lambda: not engine.worker.awake)
        assert lay == ["c"]
        assert (await run.head()).status == "parked"
        assert await run.request(Total()) == 2
        assert (await run.head()).fence == 2


class Slow(MemoryStore):
    """Its commits that park take a while."""

    def __init__(self) -> None:
        super().__init__()
        self.parking = asyncio.Event()
        self.go = asyncio.Event()

    def commit(self, turns: Sequence[Turn]) -> Any:
        if not any(turn.status == "parked" for turn in turns):
            return super().commit(turns)
        self.parking.set()

        async def late() -> Any:
            await self.go.wait()
            return await MemoryStore.commit(self, turns)

        return asyncio.ensure_future(late())


@pytest.mark.usefixtures("long")
async def test_mail_that_comes_while_it_leaves_isnt_lost(caplog: pytest.LogCaptureFixture) -> None:
    store = Slow()
    async with segue.Engine(store) as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Add(2))
        (await rested(engine, "c")).stop()
        assert store.parking.is_set()
        await run.tell(Add(3))
        store.go.set()
        assert await run.request(Total()) == 5
        assert (await run.head()).fence == 2  # by the next wake
    assert not caplog.records


@pytest.mark.usefixtures("long")
async def test_an_engine_that_closes_gives_it_back() -> None:
    store = MemoryStore()
    await store.open()
    async with segue.Engine(store) as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Add(2))
        await rested(engine, "c")
    async with segue.Engine(store) as engine:
        again = await engine.get("c")
        assert (await again.head()).status == "parked"
        assert await again.request(Total()) == 2


@pytest.mark.usefixtures("long")
async def test_another_worker_that_has_it_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with segue.Engine(store) as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Add(2))
        resting = await rested(engine, "c")
        await store.bury([engine.worker.name])  # its lease lapses
        claimed = await store.claim("other", 10, 60.0, now=engine.clock.now())
        assert [one.head.id for one in claimed] == ["c"]
        with caplog.at_level(logging.WARNING):
            resting.stop()
            await until(lambda: "c" not in engine.worker.awake)
        assert "was taken over by another worker" in caplog.text


@pytest.mark.usefixtures("long")
async def test_what_another_worker_has_is_let_go_once_the_claim_is_to_be_renewed() -> None:
    store = MemoryStore()
    async with segue.Engine(store) as engine:
        run = await engine.start(Counter(), id="c")
        await run.tell(Add(2))
        await rested(engine, "c")
        await store.bury([engine.worker.name])
        (claimed,) = await store.claim("other", 10, 60.0, now=engine.clock.now())
        await engine.worker._renew()
        assert "c" not in engine.worker.awake
        turn = Turn(run="c", fence=claimed.head.fence, status="parked", release=True, now=engine.clock.now())
        assert await store.commit([turn]) == ["committed"]
        assert await run.request(Total()) == 2


@pytest.mark.usefixtures("long")
async def test_it_can_be_cancelled_and_pinged() -> None:
    async with segue.Engine("memory:") as engine:
        run = await engine.start(Counter(), id="c")
        await rested(engine, "c")
        await run.ping(timeout=timedelta(seconds=5))
        await rested(engine, "c")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run


@pytest.mark.usefixtures("long")
async def test_who_owes_an_answer_or_waits_for_a_time_stays_awake() -> None:
    async with segue.Engine("memory:") as engine:
        owes = await engine.start(Counter(), id="owes")
        asked = asyncio.ensure_future(owes.request(Later()))
        waits = await engine.start(Counter(), id="waits")
        await waits.tell(Remind())
        idle = await engine.start(Counter(), id="idle")
        await rested(engine, "idle")
        assert not isinstance(engine.worker.awake.get("owes"), Resting)
        assert not isinstance(engine.worker.awake.get("waits"), Resting)
        async with asyncio.timeout(5):
            while await waits.request(Total()) != 100:
                await asyncio.sleep(0.02)
        assert await idle.request(Total()) == 0
        asked.cancel()


class Asking(segue.Actor[None]):
    @segue.on
    async def ask(self, _: Pass) -> None:
        await segue.generate("Now?")

    @segue.on
    async def tell_total(self, _: Total) -> int:
        return 0


@pytest.mark.usefixtures("long")
async def test_what_its_calls_used_is_counted_on() -> None:
    fake = FakeModel().when("Now?").reply("yes")
    async with FakeEngine(fake, MemoryStore()) as engine:
        run = await engine.start(Asking(), id="c")
        for _ in range(3):
            await run.tell(Pass())
            await rested(engine, "c")
        assert (await run.head()).fence == 1
        (use,) = (await run.head()).usage
        assert use.calls == 3


async def test_a_wake_leaves_nothing_to_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be some seventy objects, in a circle; that was most of what many actors cost."""
    wakes: list[weakref.ref[Executor]] = []
    init = Executor.__init__

    def seen(self: Executor, *args: Any) -> None:
        wakes.append(weakref.ref(self))
        init(self, *args)

    monkeypatch.setattr(Executor, "__init__", seen)
    gc.collect()
    gc.disable()
    try:
        async with segue.Engine(
            "memory:", room=3
        ) as engine:  # they rest, or leave at once where there is no room
            runs = [await engine.start(Counter(), id=f"c{i}") for i in range(8)]
            for run in runs:
                await run.tell(Add(1))
                assert await run.request(Total()) == 1
            await until(lambda: not engine.worker.awake)
            await runs[0].interrupt()
            await engine.wait("c0")
            await until(lambda: not engine.worker.awake)
            await asyncio.sleep(0)
            assert len(wakes) >= 9
            assert sum(one() is not None for one in wakes) == 0
    finally:
        gc.enable()
