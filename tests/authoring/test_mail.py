"""Runs among runs: mail from outside and between runs, children that go on by themselves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import pytest

import segue
from segue.model.errors import Conflict, NotEncodable, RunFailed, StoreError, WrongPlace
from segue.model.run import Head
from segue.runtime.worker import Worker
from tests.runtime.lives import Desk, everywhere

DAY = timedelta(days=1)
Row = TypeVar("Row")


@dataclass
class Paid:
    amount: int


@dataclass
class Refused:
    why: str


@segue.step
async def double(n: int) -> int:
    return n * 2


@segue.flow
async def child(n: int) -> int:
    return await double(n)


@segue.flow
async def failing_child(n: int) -> int:
    await double(n)
    raise ValueError(f"child {n}")


# ---------------------------------------------------------------- receive and tell
async def test_mail_from_outside_in_order() -> None:
    @segue.flow
    async def flow() -> list[int]:
        return [(await segue.receive(Paid)).amount for _ in range(5)]

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        for n in range(5):
            await run.tell(Paid(n))
        assert await run == [0, 1, 2, 3, 4]


async def test_mail_of_other_types_waits() -> None:
    @segue.flow
    async def flow() -> list[Any]:
        first = await segue.receive(Refused)
        second = await segue.receive(Paid | Refused)
        third = await segue.receive(Paid | Refused)
        return [
            type(first).__name__,
            type(second).__name__,
            type(third).__name__,
            await segue.receive(str),
            await segue.receive(int),
        ]

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await run.tell(7)
        await run.tell(Paid(1))
        await run.tell("text")
        await run.tell(Refused("a"))
        await run.tell(Refused("b"))
        assert await run == ["Refused", "Paid", "Refused", "text", 7]


async def test_mail_before_the_run_waits_for_it() -> None:
    @segue.flow
    async def flow() -> int:
        await segue.sleep(DAY)
        return (await segue.receive(Paid)).amount

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await run.tell(Paid(3))
        assert await run == 3
        with pytest.raises(Conflict, match="done"):
            await run.tell(Paid(4))


async def test_receive_times_out() -> None:
    @segue.flow
    async def flow() -> list[Any]:
        out: list[Any] = []
        try:
            await segue.receive(Paid | Refused, timeout=DAY)
        except TimeoutError as error:
            out.append(str(error))
        out.append((await segue.receive(Paid)).amount)
        return out

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.fake.clock.sleep(2 * 86400)
        await run.tell(Paid(5))
        assert await run == ["waiting for Paid or Refused timed out", 5]


async def test_several_receivers_take_in_order() -> None:
    @segue.flow
    async def flow() -> list[int]:
        return [paid.amount for paid in await asyncio.gather(*(segue.receive(Paid) for _ in range(3)))]

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        for n in range(3):
            await run.tell(Paid(n))
        assert await run == [0, 1, 2]


async def test_a_receiver_that_gave_up_takes_nothing() -> None:
    @segue.flow
    async def flow() -> int:
        waiting = asyncio.create_task(segue.receive(Paid))
        await double(1)
        waiting.cancel()
        await double(2)
        return (await segue.receive(Paid)).amount

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        await run.tell(Paid(9))
        assert await run == 9


async def test_mail_that_cant_be_written() -> None:
    desk = Desk()

    @segue.flow
    async def flow() -> None:
        await segue.receive(Paid)

    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        with pytest.raises(NotEncodable, match="the message"):
            await run.tell(object())


class Sale(segue.Note, frozen=True):
    price: int


class Sold(segue.Request[int], frozen=True, kw_only=True):
    least: int = 0


class Sorted(segue.Request[list[Row]], Generic[Row]):
    rows: list[Row]


class AskedOfTill(segue.Envelope, segue.Request[int], frozen=True):
    least: int

    async def carry_out(self, actor: Any, turn: segue.Turn) -> object:
        return actor.sold(self.least)


class Till(segue.Actor[None]):
    sales: list[Sale] = segue.field(default_factory=list)

    def sold(self, least: int) -> int:
        return sum(sale.price for sale in self.sales if sale.price >= least)

    @segue.on
    async def sell(self, sale: Sale) -> None:
        self.sales.append(sale)

    @segue.on
    async def tell(self, sold: Sold) -> int:
        return self.sold(sold.least)

    @segue.on
    async def order(self, rows: Sorted[int]) -> list[int]:
        return sorted(rows.rows)


async def test_messages_may_be_frozen_and_generic() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        till = await engine.start(Till(), id="till")
        await till.feed([Sale(3), Sale(4)])
        assert await till.request(Sold(least=4)) == await till.request(AskedOfTill(4)) == 4
        assert await till.request(Sorted([3, 1, 2])) == [1, 2, 3]
    assert len({Sale(3), Sale(3)}) == 1
    with pytest.raises(AttributeError):
        Sale(3).price = 4  # type: ignore[misc]  # on purpose
    with pytest.raises(TypeError):
        Sold(4)  # type: ignore[misc]  # on purpose


async def test_runs_write_each_other() -> None:
    @segue.flow
    async def pong() -> int:
        total = 0
        for _ in range(4):
            paid = await segue.receive(Paid)
            total += paid.amount
            await segue.tell("ping", Paid(paid.amount + 1))
        return total

    @segue.flow
    async def ping() -> int:
        other = await segue.spawn(pong(), id="pong")
        amount = 1
        for _ in range(4):
            await other.tell(Paid(amount))
            amount = (await segue.receive(Paid)).amount
        return await other

    desk = Desk()
    assert await desk.run(ping(), id="ping") == 1 + 2 + 3 + 4


async def test_mail_is_told_once_whatever_crashes() -> None:
    @segue.flow
    async def reader() -> list[int]:
        return [(await segue.receive(Paid)).amount for _ in range(6)]

    @segue.flow
    async def flow() -> list[int]:
        other = await segue.spawn(reader(), id="reader")
        for n in range(6):
            await other.tell(Paid(n))
            if n % 2:
                await double(n)
            if n == 3:
                await segue.sleep(DAY)
        return await other

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"[0,1,2,3,4,5]"

    await everywhere(flow, lambda desk: None, check)


class Say(segue.Request[str]):
    text: str


class Box(segue.Actor[list[int]]):
    got: list[int] = segue.field(default_factory=list)

    @segue.on
    async def say(self, message: Say) -> str:
        return message.text

    @segue.on
    async def take(self, message: Paid) -> object:
        self.got.append(message.amount)
        return segue.Done(self.got) if message.amount == 0 else segue.Listen()


async def test_mail_and_a_request_to_one_run_beside_each_other() -> None:
    """After a wake both are made before either is sent; their numbers still grow as they are sent."""
    desk = Desk()
    async with desk.engine(park="always") as engine:
        box = await engine.start(Box(), id="box")

        @segue.flow
        async def flow() -> str:
            await double(1)
            answer, _ = await asyncio.gather(box.request(Say("x")), box.tell(Paid(1)))
            return answer

        assert await engine.run(flow(), id="it") == "x"
        await box.tell(Paid(0))
        assert await box == [1, 0]


# ---------------------------------------------------------------- spawn
async def test_spawn_and_await() -> None:
    @segue.flow
    async def flow() -> list[int]:
        runs = [await segue.spawn(child(n)) for n in range(3)]
        assert len({run.id for run in runs}) == 3
        return [await run for run in reversed(runs)]

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"[4,2,0]"

    await everywhere(flow, lambda desk: None, check)


async def test_spawn_is_idempotent_by_id() -> None:
    @segue.flow
    async def flow(n: int) -> int:
        return await (await segue.spawn(child(n), id="the-child"))

    desk = Desk()
    assert await desk.run(flow(4)) == 8
    assert await desk.run(flow(4), id="another") == 8
    assert [head.id for head in await desk.store.runs()] == ["another", "it", "the-child"]


async def test_a_handle_is_awaited_twice_and_at_once() -> None:
    @segue.flow
    async def flow() -> list[int]:
        run = await segue.spawn(child(2))

        async def wait() -> int:
            return await run

        out = list(await asyncio.gather(wait(), wait()))
        return [*out, await run]

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"[4,4,4]"

    await everywhere(flow, lambda desk: None, check)


async def test_a_child_that_ended_long_ago() -> None:
    @segue.flow
    async def flow() -> int:
        run = await segue.spawn(child(2))
        await segue.sleep(DAY)
        await segue.sleep(DAY)
        return await run

    assert await Desk().run(flow()) == 4


async def test_a_child_that_fails() -> None:
    @segue.flow
    async def flow() -> str:
        run = await segue.spawn(failing_child(3))
        try:
            await run
        except ValueError as error:
            return str(error)
        return "?"

    assert await Desk().run(flow()) == "child 3"


async def test_a_child_that_nobody_awaits_goes_on() -> None:
    @segue.flow
    async def flow() -> str:
        return (await segue.spawn(child(3))).id

    desk = Desk()
    async with desk.engine() as engine:
        id = await engine.run(flow(), id="it")
        assert await (await engine.get(id)) == 6


async def test_spawned_children_outlive_a_cancelled_parent() -> None:
    @segue.flow
    async def slow() -> str:
        await segue.sleep(DAY)
        return "done"

    @segue.flow
    async def flow() -> None:
        await segue.spawn(slow(), id="slow")
        await segue.ask("Go on?")

    desk = Desk()
    desk.fake.clock.busy = lambda sleeping: True
    async with desk.engine() as engine:
        desk.fake.clock.busy = lambda sleeping: True
        run = await engine.start(flow(), id="it")
        await desk.parked("slow")
        await desk.parked()
        await run.cancel()
        await desk.until("it", "cancelled")
        assert (await desk.head("slow")).status == "parked"


async def test_a_cancelled_child() -> None:
    @segue.flow
    async def flow() -> str:
        run = await segue.spawn(waiting(), id="waiting")
        try:
            return await run
        except Exception as error:
            return type(error).__name__

    @segue.flow
    async def waiting() -> str:
        return await segue.ask("Never?")

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked("waiting")
        await (await engine.get("waiting")).cancel()
        assert await run == "RunCancelled"


async def test_runs_of_others_arent_awaited() -> None:
    @segue.flow
    async def flow() -> int:
        return await started[0]

    desk = Desk()
    started: list[Any] = []
    async with desk.engine() as engine:
        started.append(await engine.start(child(1), id="child"))
        with pytest.raises(WrongPlace, match="wasn't spawned by this run"):
            await engine.run(flow(), id="it")


async def test_what_spawn_takes() -> None:
    async def plain() -> None:
        """No flow."""

    @segue.flow
    async def flow() -> None:
        await segue.spawn(plain())

    @segue.flow
    async def bad() -> None:
        await segue.spawn(child(object()))  # type: ignore[arg-type]  # on purpose

    with pytest.raises((RunFailed, Exception), match=r"@segue\.flow"):
        await Desk().run(flow())
    with pytest.raises(NotEncodable):
        await Desk().run(bad())


async def test_a_run_that_somebody_else_started() -> None:
    @segue.flow
    async def flow() -> int:
        return await (await segue.spawn(waiting(), id="waiting"))

    @segue.flow
    async def waiting() -> int:
        return await segue.ask("How many?", returns=int)

    desk = Desk()
    async with desk.engine() as engine:
        other = await engine.start(waiting(), id="waiting")
        await desk.parked("waiting")
        with pytest.raises(WrongPlace, match="started by somebody else"):
            await engine.run(flow(), id="it")
        await engine.answer("waiting:0", 3)
        assert await other == 3
        assert await engine.run(flow(), id="later") == 3


async def test_a_look_at_such_a_run_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that waited for it was parked for ever."""

    @segue.flow
    async def flow() -> int:
        return await (await segue.spawn(three(), id="three"))

    @segue.flow
    async def three() -> int:
        return 3

    find, looks = Worker.find, list[str]()

    async def fails(worker: Worker, run: str) -> Head | None:
        looks.append(run)
        if len(looks) == 1:
            raise StoreError("here", "the disk reports an error", "look at it")
        return await find(worker, run)

    monkeypatch.setattr(Worker, "find", fails)
    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(three(), id="three") == 3
        await engine.start(flow(), id="it")
        while not looks:
            await asyncio.sleep(0.001)
    async with desk.engine() as engine:
        await engine.wait("it")
    assert (await desk.head()).value == b"3"
