"""An engine that is closed: calls that cost come in, nothing begins any more, and nothing is waited for for ever."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import segue
from segue.ports.provider import CallFault
from segue.runtime import worker
from segue.runtime.calls.live import CALLING
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.fake_provider import FakeProvider
from tests.crash.remote import Death
from tests.crash.test_promotion import MODE, StuckFar, World, late
from tests.runtime.lives import until

DID: list[str] = []
OPEN: dict[str, asyncio.Event] = {}
REFUSED: list[CallFault] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    DID.clear()
    OPEN.clear()
    REFUSED.clear()


def gate(name: str) -> asyncio.Event:
    """What keeps the call of that name under way."""
    return OPEN.setdefault(name, asyncio.Event())


class Gated(FakeProvider):
    """Answers when it is let to."""

    async def send(self, endpoint: str, body: bytes, *how: Any) -> bytes:
        said = await super().send(endpoint, body, *how)
        name = self.chat_reply(said).text
        DID.append(name)
        await gate(name).wait()
        if REFUSED:
            raise REFUSED.pop()
        return said


class Place:
    """A store, and engines on it."""

    def __init__(self) -> None:
        self.store, self.fake = MemoryStore(), FakeModel()
        self.fake.when("").reply(lambda call: call.texts()[-1])

    def engine(self, **options: Any) -> segue.Engine:
        def provider(_: object) -> Any:
            return Gated("far", self.fake, self.fake.remote, CALLING.get)

        return segue.Engine(self.store, model="far:m", providers={"far": provider}, **options)

    async def closes(self, call: Any, *begun: str, opens: str = "", **options: Any) -> float:
        """Start a run, close once those calls are under way, let one come in; how long closing took."""
        async with self.engine(**options) as engine:
            await engine.start(call, id="it")
            await until(lambda: set(begun) <= set(DID))
            if opens:
                asyncio.get_running_loop().call_later(0.02, gate(opens).set)
            began = time.monotonic()
        return time.monotonic() - began

    async def goes_on(self) -> Any:
        """What the run gives in another life, in which every call is answered at once."""
        for name in ("a", "b", "c", "d"):
            gate(name).set()
        async with self.engine() as engine, asyncio.timeout(5):
            return await (await engine.get("it"))


@segue.step
async def effect(name: str) -> str:
    DID.append(name)
    await gate(name).wait()
    return name


@segue.step(effect="at-most-once")
async def once(name: str) -> str:
    DID.append(name)
    await gate(name).wait()
    return name


@segue.flow(name="closing.one_by_one")
async def one_by_one() -> list[str]:
    return [await segue.generate("a"), await effect("b"), await segue.generate("c")]


@segue.flow(name="closing.at_once")
async def at_once(*names: str) -> list[str]:
    return list(await asyncio.gather(*map(segue.generate, names)))


@segue.flow(name="closing.stepping")
async def stepping() -> str:
    return await effect("a")


@segue.flow(name="closing.together")
async def together() -> list[str]:
    return list(await asyncio.gather(segue.generate("a"), effect("b"), effect("c")))


@segue.flow(name="closing.only_once")
async def only_once() -> str:
    return await once("a")


async def test_a_model_call_under_way_comes_in_and_is_paid_once() -> None:
    place = Place()
    await place.closes(one_by_one(), "a", opens="a")
    assert DID == ["a"]  # and nothing after it began
    assert await place.goes_on() == ["a", "b", "c"]
    assert DID == ["a", "b", "c"]


async def test_all_calls_under_way_come_in() -> None:
    place = Place()
    gate("a").set()
    await place.closes(at_once("a", "b"), "a", "b", opens="b")
    assert await place.goes_on() == ["a", "b"]
    assert sorted(DID) == ["a", "b"]


async def test_calls_that_wait_for_their_turn_arent_sent() -> None:
    place = Place()
    await place.closes(at_once("a", "b", "c"), "a", opens="a", mode=segue.Live(concurrency=1))
    assert DID == ["a"]
    assert await place.goes_on() == ["a", "b", "c"]
    assert sorted(DID) == ["a", "b", "c"]


async def test_a_step_is_cut_off_as_it_costs_nothing_to_do_it_again() -> None:
    place = Place()
    assert await place.closes(stepping(), "a") < 1.0
    assert await place.goes_on() == "a"
    assert DID == ["a", "a"]


async def test_a_step_beside_a_model_call_is_given_as_long() -> None:
    place = Place()
    gate("b").set()
    await place.closes(together(), "a", "b", "c", opens="a")
    assert await place.goes_on() == ["a", "b", "c"]
    assert sorted(DID) == ["a", "b", "c", "c"]


async def test_an_at_most_once_step_comes_in_for_its_run_would_be_held() -> None:
    place = Place()
    await place.closes(only_once(), "a", opens="a")
    assert await place.goes_on() == "a"
    assert DID == ["a"]


async def test_what_doesnt_come_in_is_waited_for_so_long_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "PAID", 0.05)
    place = Place()
    assert await place.closes(one_by_one(), "a") < 1.0
    assert "calls under way get 0.05 s to come in (1), for cut off they would be paid again" in caplog.text
    assert await place.goes_on() == ["a", "b", "c"]
    assert DID == ["a", "a", "b", "c"]


async def test_one_that_is_refused_meanwhile_is_waited_for_no_more() -> None:
    """Between two attempts nobody has the call, and so nothing would be paid again."""
    place = Place()
    REFUSED.append(CallFault(0, "no connection", again=True, after=60.0))
    assert await place.closes(one_by_one(), "a", opens="a") < 5.0
    assert await place.goes_on() == ["a", "b", "c"]


async def test_an_at_most_once_step_that_was_yet_to_begin_holds_nobody() -> None:
    @segue.flow(name="closing.beside_a_raw_wait")
    async def beside_a_raw_wait() -> str:
        raw = asyncio.create_task(asyncio.sleep(0 if OPEN else 10))
        DID.append("made")
        value = await once("a")
        raw.cancel()
        return value

    place = Place()
    await place.closes(
        beside_a_raw_wait(), "made", linger=0.05
    )  # the code was never at rest, so it didn't begin
    assert DID == ["made"]
    assert await place.goes_on() == "a"


async def test_no_grace_is_none() -> None:
    place = Place()
    assert await place.closes(one_by_one(), "a", grace=0.0) < 1.0
    assert await place.goes_on() == ["a", "b", "c"]
    assert DID == ["a", "a", "b", "c"]


# ---------------------------------------------------------------- late lines that go live
class Slow(StuckFar):
    """Answers live calls when it is let to."""

    async def send(self, *how: Any) -> bytes:
        said = await super().send(*how)
        DID.append("sent")
        await gate("live").wait()
        return said


async def test_a_late_line_under_way_comes_in_and_is_paid_once() -> None:
    store, world = MemoryStore(), World()

    def engine() -> segue.Engine:
        provider = Slow(world, Death(0, False))
        return segue.Engine(
            store, clock=world.clock, mode=MODE, model="far:m", providers={"far": lambda _: provider}
        )

    async with engine() as first:
        await first.start(late("x"), id="it")
        await until(lambda: DID == ["sent"])
        asyncio.get_running_loop().call_later(0.02, gate("live").set)
    assert await store.line_counts() == {"ok": 1}
    world.clock.moved += 200
    async with engine() as second, asyncio.timeout(5):
        assert await (await second.get("it")) == "heard x"
    assert DID == ["sent"]
