"""An actor that begins anew refuses the requests that it had kept in its fields; what it has handed on is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Note, Request, Responder, Restart
from segue.errors import Restarted
from segue.model.run import Head
from tests.authoring.killed import at_every_commit
from tests.authoring.test_requests import kept
from tests.runtime.lives import Desk


class Order(Request[str]):
    item: str


class Job(Note):
    item: str
    reply: Responder[str]


class Ship(Note):
    item: str


class Break(Note):
    pass


@dataclass
class Waiting:
    """A state that has what it waits for."""

    reply: Responder[str]


class Carrier(Actor[None]):
    jobs: dict[str, Responder[str]] = segue.field(default_factory=dict)

    @segue.on
    async def job(self, job: Job) -> None:
        self.jobs[job.item] = job.reply

    @segue.on
    async def ship(self, ship: Ship) -> None:
        await self.jobs.pop(ship.item).send(f"shipped: {ship.item}")


class Shop(Actor[None]):
    carrier: segue.Run[Any]
    orders: dict[str, Responder[str]] = segue.field(default_factory=dict)

    @segue.on
    async def order(self, order: Order, reply: Responder[str]) -> None:
        if order.item.startswith("far"):
            await self.carrier.tell(Job(order.item, reply))
        else:
            self.orders[order.item] = reply

    @segue.on
    async def ship(self, ship: Ship) -> None:
        await self.orders.pop(ship.item).send(f"here: {ship.item}")

    @segue.on
    async def stumble(self, _: Break) -> segue.Fail:
        return segue.Fail(RuntimeError("broken"))

    async def teardown(self) -> None:
        if "last" in self.orders:
            await self.orders["last"].send("as it closes")
        if "handed" in self.orders:
            await self.carrier.tell(Job("handed", self.orders.pop("handed")))


class Floor(Enum):
    SHOPS = 1


class Owner(Actor[None]):
    groups = Floor
    restart = Restart(times=1)

    async def begin(self) -> None:
        carrier = await segue.spawn(Carrier(), group=Floor.SHOPS, id="carrier")
        await segue.spawn(Shop(carrier), group=Floor.SHOPS, id="shop")


async def opened(engine: Any) -> segue.Run[Any]:
    await engine.start(Owner(), id="owner")
    for _ in range(3000):
        try:
            return await engine.get("shop")
        except segue.errors.UnknownName:
            await asyncio.sleep(0.001)
    raise AssertionError("it doesn't open")


async def test_what_it_kept_is_refused_and_what_it_handed_on_is_answered() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        shop = await opened(engine)
        items = ("pen", "ink", "last", "handed", "far away")
        asking = {item: asyncio.ensure_future(shop.request(Order(item))) for item in items}
        await kept(desk, "shop", len(items))
        await shop.tell(Ship("ink"))
        assert await asking["ink"] == "here: ink"
        await shop.tell(Break())
        with pytest.raises(Restarted, match=r"run .shop. began anew before it answered.*ask again"):
            await asking["pen"]
        assert await asking["last"] == "as it closes"
        carrier = await engine.get("carrier")
        for item in ("far away", "handed"):
            await carrier.tell(Ship(item))
            assert await asking[item] == f"shipped: {item}"
        again = asyncio.ensure_future(shop.request(Order("pen")))
        await kept(desk, "shop", 1)
        await shop.tell(Ship("pen"))
        assert await again == "here: pen"
        await desk.parked("shop")
        assert await desk.store.inbox("shop", 0) == []


async def test_one_that_is_set_aside_refuses_too() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        shop = await opened(engine)
        await shop.tell(Break())
        asking = asyncio.ensure_future(shop.request(Order("pen")))
        await kept(desk, "shop", 1)
        await shop.tell(Break())
        with pytest.raises(Restarted):
            await asyncio.wait_for(asking, 10)
        assert (await desk.head("shop")).status == "held"


class Careless(Actor[None]):
    orders: list[Responder[str]] = segue.field(default_factory=list)
    left: Any = None

    @segue.on
    async def order(self, order: Order, reply: Responder[str]) -> segue.Fail | None:
        self.orders.append(reply)
        return segue.Fail(RuntimeError("broken")) if order.item == "ink" else None

    def teardown(self) -> None:
        self.left = object()


class Patron(Actor[None]):
    groups = Floor
    restart = Restart(times=5)

    async def begin(self) -> None:
        await segue.spawn(Careless(), group=Floor.SHOPS, id="shop")


async def test_what_teardown_leaves_that_cant_be_written_hides_nothing() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(Patron(), id="patron")
        await desk.parked("patron")
        shop = await engine.get("shop")
        asking = asyncio.ensure_future(shop.request(Order("pen")))
        await kept(desk, "shop", 1)
        said = await asyncio.gather(asking, shop.request(Order("ink")), return_exceptions=True)
        assert [type(each) for each in said] == [Restarted, Restarted]


class Sleeper(Actor[None]):
    """It waits in a state that has the responder, and fails there."""

    @segue.on
    async def order(self, order: Order, reply: Responder[str]) -> Waiting:
        return Waiting(reply)

    @segue.state
    async def waiting(self, state: Waiting) -> None:
        raise RuntimeError("broken")


class Host(Actor[None]):
    groups = Floor
    restart = Restart(times=5)

    async def begin(self) -> None:
        await segue.spawn(Sleeper(), group=Floor.SHOPS, id="shop")


async def test_what_lay_in_a_state_is_refused() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(Host(), id="host")
        await desk.parked("host")
        shop = await engine.get("shop")
        with pytest.raises(Restarted):
            await asyncio.wait_for(shop.request(Order("pen")), 10)


class Open(Request[segue.Run[Any]]):
    pass


class Landlord(Actor[None]):
    groups = Floor
    restart = Restart(times=3)

    @segue.on
    async def open(self, _: Open) -> segue.Run[Any]:
        return await segue.spawn(Shop(self.me), group=Floor.SHOPS, id="shop")


@segue.flow
async def buys(landlord: segue.Run[Any]) -> list[str]:
    shop = await landlord.request(Open())

    async def order(item: str) -> str:
        try:
            return await shop.request(Order(item))
        except Restarted:
            return f"{item}: ask again"

    await shop.request(Order("ink")).forward(tag="ink")
    said, _ = await asyncio.gather(order("pen"), shop.tell(Break()))
    forwarded = await segue.receive(segue.Response[Order])
    later, _ = await asyncio.gather(order("tea"), shop.tell(Ship("tea")))
    return [said, f"{forwarded.tag}: {type(forwarded.error).__name__}", later]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_killed_at_every_commit(kind: str, tmp_path: Path) -> None:
    async def begin(engine: segue.Engine) -> None:
        await engine.start(buys(await engine.start(Landlord(), id="landlord")), id="buys")

    def check(_: Desk, head: Head) -> None:
        assert head.value == b'["pen: ask again","ink: Restarted","here: tea"]', head

    await at_every_commit(begin, "buys", check, kind=kind, path=tmp_path)
