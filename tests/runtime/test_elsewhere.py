"""Two engines on one file hear of each other's writes, as two processes do, before they look by themselves."""

from __future__ import annotations

import asyncio
import gc
from asyncio import Future
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

import segue
from segue import Engine, flow, step
from segue.model.errors import StoreError
from segue.model.message import Letter, Mail
from segue.ports.store import Hint
from segue.runtime.mail.feeds import EVENT
from segue.stores.sqlite import SqliteStore
from segue.testing.store_contract import acts

LOOKS = ("worker", "ends", "mail.carrier", "mail.feeds", "mail.port")


@pytest.fixture(autouse=True)
def nobody_looks_by_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in LOOKS:
        monkeypatch.setattr(f"segue.runtime.{module}.POLL", 1e6)


class Add(segue.Note):
    n: int


class Total(segue.Request[int]): ...


class News(segue.Subscription[int, int]): ...


class Counter(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def add(self, add: Add) -> None:
        self.total += add.n
        await segue.publish(News, self.total)

    @segue.on
    async def total_of(self, _: Total) -> int:
        return self.total

    @segue.on
    async def news(self, _: News) -> int:
        return self.total


@flow
async def doubled(n: int) -> int:
    return 2 * n


@flow
async def told(n: int) -> int:
    for _ in range(n):
        await segue.receive(Add)
    return n


TOLD = asyncio.Event()


@step
async def until_told() -> None:
    await TOLD.wait()


@flow
async def busy() -> int:
    """It is in memory all the time: a step of its is under way."""
    works = asyncio.create_task(until_told())
    await segue.receive(Add)
    TOLD.set()
    await works
    return 1


async def test_what_another_process_does_is_heard_of(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path}/runs.db"
    async with Engine(address) as works, Engine(address, worker=False) as asks:
        await works.start(Counter(), id="counter")
        counter = await asks.get("counter")
        for n in (1, 2):
            await counter.tell(Add(1))
            assert await counter.request(Total()) == n
        assert await asks.run(doubled(4)) == 8
        assert [row.value async for row in asks.map(doubled, range(5), id="job")] == [0, 2, 4, 6, 8]
        waiting = await works.start(told(3))
        for _ in range(3):
            await (await asks.get(waiting.id)).tell(Add(1))
        assert await waiting == 3
        at_work = await works.start(busy())
        while at_work.id not in works.worker.awake:
            await asyncio.sleep(0.001)
        await (await asks.get(at_work.id)).tell(Add(1))
        assert await at_work == 1


async def test_mail_of_another_process_comes_before_what_was_told_here_after_it(tmp_path: Path) -> None:
    """What is told here is brought to a run at once, unless something lies before it that it hasn't seen."""
    told = asyncio.Event()

    @flow(name="elsewhere.both")
    async def both() -> list[int]:
        works = asyncio.create_task(step(told.wait, name="until_told")())
        numbers = [(await segue.receive(Add)).n, (await segue.receive(Add)).n]
        told.set()
        await works
        return numbers

    address = f"sqlite:{tmp_path}/runs.db"
    async with Engine(address) as here, Engine(address, worker=False) as elsewhere, asyncio.timeout(10):
        run = await here.start(both())
        while run.id not in here.worker.awake:
            await asyncio.sleep(0.001)
        await (await elsewhere.get(run.id)).tell(Add(1))
        await run.tell(Add(2))
        assert await run == [1, 2]


class Tick(segue.Note): ...


class Patient(segue.Actor[None]):
    """Its handlers of these two take as long as they are let."""

    added: list[int] = segue.field(default_factory=list)

    @segue.on
    async def begins(self, _: Total, reply: segue.Responder[int]) -> None:
        await self.me.tell(Tick(), after=timedelta(seconds=0.3))
        await reply.send(0)
        await step(FIRST.wait, name="first")()

    @segue.on
    async def add(self, add: Add) -> None:
        self.added.append(add.n)
        ADDED.append(add.n)

    @segue.on
    async def tick(self, _: Tick) -> None:
        TICKED.set()
        await step(SECOND.wait, name="second")()


FIRST, SECOND, TICKED, ADDED = asyncio.Event(), asyncio.Event(), asyncio.Event(), list[int]()


class SlowReads(SqliteStore):
    """What lies in inboxes is read, and comes when it is let."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.slow, self.late = False, list[Callable[[], None]]()

    def letters(self, after: Mapping[str, int]) -> Future[dict[str, list[Letter]]]:
        """Later."""
        found = super().letters(after)
        if not self.slow or not any(name == "patient" for name in after):
            return found
        late = asyncio.get_running_loop().create_future()
        self.late.append(lambda: late.set_result(found.result()))
        return late


async def test_mail_that_was_read_for_an_earlier_wake_isnt_handled_again(tmp_path: Path) -> None:
    """The disk was slow, and the next wake had handled it by then."""
    path = f"{tmp_path}/runs.db"
    store = SlowReads(path)
    async with Engine(store, linger=0.01) as works, Engine(f"sqlite:{path}", worker=False) as asks:
        async with asyncio.timeout(10):
            run = await works.start(Patient(), id="patient")
            await run.request(Total())
            store.slow = True
            await (await asks.get("patient")).tell(Add(1))
            while not store.late:
                await asyncio.sleep(0.001)
            FIRST.set()
            await TICKED.wait()
            assert ADDED == [1]
            for late in store.late:
                late()
            store.slow = False
            SECOND.set()
            await run.tell(Add(2))
            while ADDED[-1] != 2:
                await asyncio.sleep(0.001)
    assert ADDED == [1, 2]


async def test_events_of_another_process_are_heard(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path}/runs.db"
    async with Engine(address) as works, Engine(address) as hears:
        hears.worker.room = 0  # it takes up no runs
        counter = await works.start(Counter(), id="counter")
        async with (await hears.get("counter")).subscribe(News()) as feed:
            events = aiter(feed)
            for n in (1, 2):
                await counter.tell(Add(1))
                assert await anext(events) == n


async def test_an_event_of_another_process_isnt_passed_over_by_a_later_one_of_this(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path}/runs.db"
    async with Engine(address) as works, Engine(address) as hears, asyncio.timeout(10):
        hears.worker.room = 0  # it takes up no runs
        await works.start(Counter(), id="counter")
        async with (await hears.get("counter")).subscribe(News()) as feed:
            assert hears.feeds.arrivals is not None
            (subscription,) = await works.store.inbox("counter", 0)
            key, watch = subscription.mail.key, hears.feeds.arrivals.address
            for number, engine in enumerate((works, hears), 1):
                event = Mail(watch, f"x{number}", 1, "event", EVENT, b"%d" % number, key=key)
                await engine.store.deliver([event], now=0.0)
            events = aiter(feed)
            assert [await anext(events), await anext(events)] == [1, 2]


async def test_what_a_store_writes_itself_is_not_elsewhere(tmp_path: Path) -> None:
    one, other = SqliteStore(tmp_path / "runs.db"), SqliteStore(tmp_path / "runs.db")
    await one.open()
    await other.open()
    heard: list[Hint] = []
    await acts.start(one, "a")
    one.subscribe(heard.append)
    try:
        for n in range(30):  # a while with orders, and one without
            await one.deliver([Mail("a", "one", n, "tell")], now=0.0)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        assert "elsewhere" not in {hint.kind for hint in heard}
        await other.deliver([Mail("a", "other", 1, "tell")], now=0.0)
        while Hint("elsewhere", ()) not in heard:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        assert heard.count(Hint("elsewhere", ())) == 1
        heard.clear()
        await other.deliver([Mail("a", "other", 2, "tell")], now=0.0)
        for n in range(30, 10_000):  # nor does it have to rest
            await one.deliver([Mail("a", "one", n, "tell")], now=0.0)
            if Hint("elsewhere", ()) in heard:
                return
        raise AssertionError("it never said so")
    finally:
        await one.close()
        await other.close()


async def test_a_look_that_fails_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"sqlite:{tmp_path}/runs.db"
    async with Engine(address) as works, Engine(address, worker=False) as asks:
        run = await works.start(told(2))
        waiting = asyncio.ensure_future(asks.wait(run.id))
        await asyncio.sleep(0.1)
        failed = asyncio.Event()

        async def fails(_: str) -> None:
            failed.set()
            raise StoreError(address, "the disk reports an error", "look at it")

        with monkeypatch.context() as patch:
            patch.setattr(asks.store, "get", fails)
            await run.tell(Add(1))
            await failed.wait()
        await run.tell(Add(1))
        assert (await waiting).status == "done"
    gc.collect()
    assert not caplog.records
