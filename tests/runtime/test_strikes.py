"""asyncio's own timeouts: each strike is an entry, and strikes again at the same place in whatever life."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.model.entry import decode_entries
from segue.model.run import Head
from segue.ports.store import CommitResult, Landed, Turn
from segue.runtime.calls.call import STRIKE
from segue.runtime.wake import rebase
from segue.stores.memory import MemoryStore
from tests.runtime.delayed import Delayed
from tests.runtime.lives import Desk, everywhere

DONE: list[int] = []


class Word(segue.Note):
    pass


@segue.step
async def work(n: int) -> int:
    DONE.append(n)
    return n


@segue.flow
async def often() -> list[int]:
    out: list[int] = []
    for n in range(3):
        try:
            async with asyncio.timeout(0.002):
                await segue.receive(Word)
        except TimeoutError:
            out.append(await work(n))
    return out


async def test_strikes_of_several_lives_are_told_apart() -> None:
    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b"[0,1,2]"), head.reason
        assert len(DONE) <= 4, "one may be cut off"
        DONE.clear()

    assert await everywhere(often, lambda desk: desk.options.update(verify=True), check) > 6


@segue.flow
async def cut_short() -> list[int]:
    """It is struck in a wait outside segue, which would be over in a replay as well."""
    out = [await work(0)]
    try:
        async with asyncio.timeout(0.01):
            out.append(await work(1))
            await asyncio.sleep(0.08)
            out.append(await work(9))
    except TimeoutError:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await asyncio.sleep(0.005)
                await segue.receive(Word)
        out.append(await work(2))
    return out


async def test_a_wait_outside_segue_is_struck_at_the_same_place_again() -> None:
    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b"[0,1,2]"), head.reason

    assert await everywhere(cut_short, lambda desk: desk.options.update(verify=True), check) > 6


async def test_each_strike_has_a_number_of_its_own() -> None:
    desk = Desk()
    assert await desk.run(often()) == [0, 1, 2]
    assert [entry.n for entry in await desk.entries() if entry.path == STRIKE] == [0, 1, 2]


@segue.flow
async def bounded() -> None:
    async with asyncio.timeout(60):
        await segue.receive(Word)


@segue.flow
async def waited_for() -> None:
    await asyncio.wait_for(segue.receive(Word), 60)


@segue.flow
async def looked_at() -> None:
    await asyncio.wait({asyncio.ensure_future(segue.receive(Word))}, timeout=60)


@pytest.mark.parametrize("flow", [bounded, waited_for, looked_at])
async def test_a_timeout_that_parking_loses_is_told_of_by_its_line_once(
    flow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    for id in ("a", "b"):
        async with desk.engine() as engine:
            await engine.start(flow(), id=id)
            await desk.parked(id)
    (said,) = caplog.messages
    assert said.startswith(
        f"run a parks although its code bounds a wait by asyncio's own timeout, at {__file__}:"
    )


async def test_where_runs_park_at_every_wait_none_stays_for_a_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As `check` does it, to see whether that can be: it is neither waited for nor told of."""
    desk = Desk(linger=100.0, park="always")
    async with desk.engine() as engine:
        await engine.start(bounded(), id="it")
        await desk.parked()
    assert not caplog.messages


async def test_a_wait_that_asyncio_ends_soon_is_stayed_for() -> None:
    @segue.flow
    async def short() -> list[str]:
        out = ["late"]
        try:
            await asyncio.wait_for(segue.receive(Word), 0.01)
        except TimeoutError:
            out.append("late")
        done, _ = await asyncio.wait({asyncio.ensure_future(segue.receive(Word))}, timeout=0.01)
        return out if not done else []

    async with asyncio.timeout(5):
        assert await Desk(verify=True).run(short()) == ["late", "late"]


class Meeting(Delayed):
    """A store that says that an outcome is durable just as a timeout of asyncio's goes off."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), lambda: 0.01)
        self.timeout: asyncio.Timeout | None = None

    def land(self, turn: Turn, then: Landed) -> None:
        """Later."""

        def met(result: CommitResult | BaseException) -> None:
            if self.timeout is not None and any(
                entry.batch >= 0 for entry in decode_entries(turn.entries or b"")
            ):
                self.timeout.reschedule(0.0)
            asyncio.get_running_loop().call_soon(then, result)

        super().land(turn, met)


async def test_one_that_goes_off_as_a_durable_one_is_handed_over_waits_for_what_that_does() -> None:
    """It struck before the durable one had cancelled what it bounds, and both did: no replay came to the same end."""
    store = Meeting()

    @segue.step
    async def endless() -> None:
        await asyncio.sleep(1000)

    @segue.flow(name="bounded_twice")
    async def bounded_twice() -> int:
        try:
            async with segue.timeout(timedelta(milliseconds=30)):
                async with asyncio.timeout(1000) as store.timeout:
                    await endless()
        except TimeoutError:
            store.timeout = None
        return await work(7)

    async with segue.Engine(store, verify=True) as engine, asyncio.timeout(10):  # type: ignore[arg-type]  # as good as one
        assert await engine.run(bounded_twice(), id="it") == 7
        assert not [entry for entry in await rebase.entries_of(store, "it") if entry.kind == "strike"]
