"""What strikes with an outcome has begun before the code calls anything else, in a life as in a replay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import segue
from segue.model.entry import decode_entries
from segue.ports.store import CommitResult, Landed, Store, Turn
from segue.stores.memory import MemoryStore
from segue.testing.crash import Mortal
from tests.authoring.killed import through
from tests.runtime.delayed import Delayed
from tests.runtime.lives import Desk, until


@segue.step
async def quick(n: int) -> int:
    return n


@segue.step
async def seen(by: str) -> str:
    return by


class Go(segue.Note):
    pass


class Turned(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        actor.volume += 1
        return None


class Player(segue.Actor[str]):
    volume: int = 0

    @segue.on
    async def go(self, note: Go) -> segue.Done[str]:
        await segue.ask("Go on?")
        await quick(1)
        said = await seen(f"volume {self.volume}")
        await segue.ask("Enough?")
        return segue.Done(said)


async def together(desk: Desk, call: Any, told: Any) -> None:
    """An actor whose question is answered and which is told something, both while nobody is at work."""
    clock = desk.fake.clock
    async with segue.Engine(Mortal(desk.store, None), clock=clock, linger=0.02) as engine:
        run = await engine.start(call, id="it")
        await run.tell(Go())
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
    async with segue.Engine(Mortal(desk.store, None), clock=clock, worker=False) as engine:
        (ask,) = await engine.open_asks()
        await ask.answer("yes")
        await told(await engine.get("it"))


@pytest.mark.parametrize("after", [False, True])
async def test_an_urgent_message(after: bool) -> None:
    for die_at in range(1, 12):
        desk = Desk(verify=True)
        desk.fake.answer("Enough?", "yes")
        await together(desk, Player(), lambda run: run.tell(Turned()))
        died = await through(desk, "it", die_at, after)
        while (head := await desk.head()).status in ("ready", "parked"):
            await through(desk, "it", None, False)
        assert (head.status, head.value) == ("done", b'"volume 1"'), head.reason
        if not died:
            return
    raise AssertionError("it commits for ever")


class Leaver(segue.Actor[None]):
    @segue.on
    async def go(self, note: Go) -> None:
        await segue.ask("Go on?")

    async def teardown(self) -> None:
        await quick(1)
        await segue.ask("Enough?")


async def again_and_cancelled(run: segue.Run[Any]) -> None:
    await run.tell(Go())
    await run.cancel()


@pytest.mark.parametrize("after", [False, True])
async def test_a_cancellation_as_a_handler_ends(after: bool) -> None:
    """It is that handler's, and none of the next turn's."""
    for die_at in range(1, 12):
        desk = Desk()
        desk.fake.answer("Enough?", "yes").answer("Go on?", "yes")
        await together(desk, Leaver(), again_and_cancelled)
        died = await through(desk, "it", die_at, after)
        while (head := await desk.head()).status in ("ready", "parked"):
            await through(desk, "it", None, False)
        assert head.status == "cancelled", head.reason
        if not died:
            return
    raise AssertionError("it commits for ever")


@segue.flow
async def asks() -> str:
    return await segue.ask("Go on?")


async def test_a_cancellation_as_the_code_ends(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        await engine.start(asks(), id="it")
    async with desk.engine():
        await desk.parked()
    async with desk.engine(worker=False) as engine:
        (ask,) = await engine.open_asks()
        await ask.answer("yes")
        await engine.postbox.send("it", "cancel")
    async with desk.engine():
        head = await desk.until("it", "done", "cancelled")
    assert (head.status, caplog.records) == ("done", [])


LOOKS: list[asyncio.Future[None]] = []


@segue.step
async def look() -> None:
    LOOKS.append(asyncio.get_running_loop().create_future())
    await LOOKS[-1]


class Meanwhile(Delayed):
    """A store that takes no time, or some; while it tells what it wrote, the step `look` ends."""

    def __init__(self, inner: Store, at_once: bool) -> None:
        super().__init__(inner, lambda: 0.0)
        self.at_once = at_once

    def land(self, turn: Turn, then: Landed) -> Any:
        def told(result: CommitResult | BaseException) -> None:
            _end_look()
            then(result)

        if not self.at_once:
            return super().land(turn, told)
        _end_look()
        return self.inner.land(turn, then)


def _end_look() -> None:
    for looks in LOOKS:
        if not looks.done():
            looks.set_result(None)


class Looker(segue.Actor[str]):
    volume: int = 0

    @segue.on
    async def go(self, note: Go) -> segue.Done[str]:
        await look()
        await segue.ask(f"Is it {self.volume}?")
        return segue.Done("done")


@segue.flow
async def looks() -> None:
    try:
        await look()
        await quick(1)
    except asyncio.CancelledError:
        await quick(2)
        await segue.ask("Sure?")
        raise


async def goes_on(desk: Desk, engine: Any) -> str:
    """What becomes of a run that asks something, once that is answered."""
    while not (asks := await engine.open_asks()):
        await asyncio.sleep(0.001)
    await desk.parked()
    await asks[0].answer("yes")
    head = await desk.until("it", "done", "cancelled", "held", "failed")
    return head.reason or head.status


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_urgent_message_as_the_only_step_ends(at_once: bool) -> None:
    desk = Desk(Meanwhile(MemoryStore(), at_once))
    LOOKS.clear()
    async with desk.engine() as engine:
        run = await engine.start(Looker(), id="it")
        await run.tell(Go())
        await until(lambda: LOOKS)
        await run.tell(Turned())
        assert await goes_on(desk, engine) == "done"


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_cancellation_as_the_only_step_ends(at_once: bool) -> None:
    desk = Desk(Meanwhile(MemoryStore(), at_once))
    LOOKS.clear()
    async with desk.engine() as engine:
        running = asyncio.ensure_future(engine.run(looks(), id="it"))
        await until(lambda: LOOKS)
        cancelling = asyncio.ensure_future(segue.Run(engine, "it").cancel())
        assert await goes_on(desk, engine) == "cancelled"
        await asyncio.gather(running, cancelling, return_exceptions=True)


class Level(segue.Subscription[int, int]):
    pass


class Published(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        await segue.publish(Level, actor.volume)
        actor.volume += 1
        return None


class Stirred(Delayed):
    """While the word of something urgent is written, the step `look` ends; as it was, its run is stirred."""

    def __init__(self, inner: Store, delay: float = 0.002) -> None:
        super().__init__(inner, lambda: delay)
        self.stir: Callable[[], None] = lambda: None

    def land(self, turn: Turn, then: Landed) -> Any:
        def told(result: CommitResult | BaseException) -> None:
            self.stir()
            then(result)

        entries = [] if turn.entries is None else decode_entries(turn.entries)
        if any(entry.path == "!urgent" for entry in entries):
            _end_look()
        return super().land(turn, told)


async def all_looks_end() -> None:
    while True:
        _end_look()
        await asyncio.sleep(0.001)


async def stirred(store: Stirred, desk: Desk, die_at: int, after: bool) -> bool:
    """A life in which something urgent strikes as the only step ends; whether it was cut off."""
    async with desk.engine(die_at, after=after) as engine:
        mortal: Any = engine.store
        run = await engine.start(Looker(), id="it")
        await run.tell(Go())
        await until(lambda: LOOKS or mortal.dead)
        if not mortal.dead:
            at_work: Any = engine.worker.awake["it"]
            store.stir = at_work.kick
            await run.tell(Published())
            await until(lambda: mortal.dead or at_work.over)
        store.stir = lambda: None
        return bool(mortal.dead)


@pytest.mark.parametrize("after", [False, True])
async def test_what_struck_and_had_not_begun_goes_on_in_a_replay_as_far_as_in_a_life(after: bool) -> None:
    for die_at in range(1, 20):
        desk = Desk(store := Stirred(MemoryStore()))
        LOOKS.clear()
        died = await stirred(store, desk, die_at, after)
        async with desk.engine() as engine:
            ending = asyncio.ensure_future(all_looks_end())
            assert await goes_on(desk, engine) == "done"
            ending.cancel()
        if not died:
            return
    raise AssertionError("it commits for ever")


@segue.flow
async def bounded() -> None:
    try:
        async with asyncio.timeout(0.01):
            await look()
    except asyncio.CancelledError:
        await quick(2)
        await segue.ask("Sure?")
        raise


async def test_a_cancellation_as_a_timeout_goes_off() -> None:
    desk = Desk(store := Stirred(MemoryStore(), delay=0.03))
    LOOKS.clear()
    async with desk.engine() as engine:
        running = asyncio.ensure_future(engine.run(bounded(), id="it"))
        await until(lambda: LOOKS)
        at_work: Any = engine.worker.awake["it"]
        store.stir = at_work.kick
        await engine.postbox.send("it", "cancel")
        assert await goes_on(desk, engine) == "cancelled"
        await asyncio.gather(running, return_exceptions=True)
