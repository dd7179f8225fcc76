"""Held runs: what a person can do with them."""

from __future__ import annotations

import asyncio
import itertools

import pytest

import segue
from segue.model.errors import RunCancelled

from .lives import Desk

DONE: list[str] = []


@segue.step
async def book(what: str) -> None:
    DONE.append(f"booked {what}")


@segue.step
async def unbook(what: str) -> None:
    DONE.append(f"gave back {what}")


@segue.step(effect="at-most-once")
async def pay() -> None:
    DONE.append("paid")


@segue.flow
async def trip() -> None:
    await book("a flight")
    try:
        await pay()
    except asyncio.CancelledError:
        await unbook("a flight")
        raise


@segue.flow
async def stubborn() -> str:
    paying = asyncio.ensure_future(pay())
    try:
        await asyncio.shield(paying)
    except asyncio.CancelledError:
        await unbook("a flight")
    await paying
    return "paid"


async def test_a_held_run_is_cancelled_for_good(tmp_path: object) -> None:
    clock = itertools.count()

    @segue.step
    async def note(at: int) -> int:
        return at

    @segue.flow
    async def smuggler() -> str:
        await note(next(clock))
        return await segue.ask("go on?")

    async with segue.Engine() as engine:
        run = await engine.start(smuggler(), id="s")
        async for ask in engine.asks():
            await ask.answer("yes")
            break
        head = await engine.wait("s")
        assert head.status == "held"
        assert "segue.now()" in head.reason
        await run.cancel()
        with pytest.raises(RunCancelled):
            while (head := await engine.wait("s")).status == "held":
                await engine.ends.next()
            await run
        assert (await run.head()).status == "cancelled"


async def held_at_its_payment(flow: segue.Flow[[], object], **options: object) -> Desk:
    """A desk whose run was cut off where it paid."""
    for die_at in range(1, 9):
        DONE.clear()
        desk = Desk(**options)
        if await desk.life(flow, die_at, after=True) is None:
            async with desk.engine(verify=False) as engine:
                if (await engine.wait("it")).status == "held":
                    return desk
    raise AssertionError("it never was cut off there")


async def test_code_held_at_what_may_have_happened_hears_that_its_run_is_cancelled() -> None:
    """What was booked before is given back, in whatever life; and a replay finds no difference."""
    for die_at in (None, 1, 2):
        desk = await held_at_its_payment(trip, verify=True)
        DONE.clear()
        async with desk.engine() as engine:
            await engine.cancel("it")
        async with desk.engine(die_at) as engine:
            ending = asyncio.ensure_future(engine.wait("it"))
            assert desk.killed is not None
            await asyncio.wait({ending, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
        async with desk.engine() as engine:
            head = await engine.wait("it")
        assert head.status == "cancelled"
        assert set(DONE) == {"gave back a flight"}


async def test_code_that_is_cancelled_and_still_waits_for_what_may_have_happened_is_held_again() -> None:
    desk = await held_at_its_payment(stubborn, verify=True)
    async with desk.engine() as engine:
        await engine.cancel("it")
        head = await desk.until("it", "held")
        assert DONE[-1] == "gave back a flight"
        assert "at-most-once step 'pay' was cut off" in head.reason
        await engine.cancel("it")
        assert (await engine.wait("it")).status == "cancelled"


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ("raises", "raised KeyError: 'lamp' ("),
        ("returns", "ended without making this recorded call"),
        ("waits", "came to rest without making this recorded call"),
    ],
)
async def test_a_recorded_call_that_isnt_made_tells_what_the_code_came_to(now: str, told: str) -> None:
    does = "as before"

    @segue.flow
    async def changed() -> str:
        if does == "raises":
            raise KeyError("lamp")
        if does == "waits":
            await asyncio.get_running_loop().create_future()
        if does == "as before":
            await book("a hotel")
        return await segue.ask("Well?") if does != "returns" else ""

    async with segue.Engine(linger=0.001) as engine:
        run = await engine.start(changed())
        ask = await anext(aiter(engine.asks()))
        while (await run.head()).status != "parked":
            await asyncio.sleep(0)
        does = now
        await ask.answer("fine")
        with pytest.raises(segue.errors.RunHeld) as held:
            await run
        assert f"was step 'book' and is now not made. The code {told}" in str(held.value)


class Sign(segue.Request[str]): ...


class Clerk(segue.Actor[None]):
    careful = True

    @segue.on
    async def sign(self, asked: Sign) -> str:
        if Clerk.careful:
            await segue.ask("Sign?")
        return "signed"


@segue.flow
async def client(clerk: segue.Run[None]) -> str:
    return await clerk.request(Sign())


async def test_what_an_actors_changed_code_came_to_is_kept_from_the_world(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(client(await engine.start(Clerk(), id="clerk")), id="client")
        await desk.parked("clerk")
        (ask,) = await engine.open_asks()
        monkeypatch.setattr(Clerk, "careful", False)
        await ask.answer("yes")
        assert "no longer makes a recorded call" in (await desk.until("clerk", "held")).reason
        assert (await desk.parked("client")).value is None  # it has no answer
        monkeypatch.undo()
        await engine.resume("clerk")
        assert (await engine.wait("client")).value == b'"signed"'
