"""The virtual clock: it jumps when nothing else is left to do, in the order of what is due."""

from __future__ import annotations

import asyncio
import time

from segue.testing.clock import START, VirtualClock


async def test_it_jumps_from_wait_to_wait() -> None:
    clock, seen = VirtualClock(), list[tuple[str, float]]()
    start = clock.now()
    assert start == START.timestamp()

    async def nap(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.now() - start))

    begin = time.monotonic()
    await asyncio.gather(nap("c", 86400), nap("a", 1), nap("b", 60), nap("a too", 1), nap("at once", 0))
    assert seen == [("at once", 0), ("a", 1), ("a too", 1), ("b", 60), ("c", 86400)]
    assert time.monotonic() - begin < 1


async def test_timers_can_be_called_off() -> None:
    clock, rung = VirtualClock(), list[int]()
    first = clock.call_later(1, lambda: rung.append(1))
    clock.call_later(2, lambda: rung.append(2))
    first.cancel()
    await clock.sleep(3)
    assert rung == [2]
    sleeping = asyncio.create_task(clock.sleep(1000))
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert not clock.sleeping
    await asyncio.sleep(0.02)
    assert clock.now() == START.timestamp() + 3


async def test_it_stands_while_something_is_at_work() -> None:
    clock = VirtualClock()
    busy = True
    clock.busy = lambda sleeping: busy
    over = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0.03)
    assert not over.done()
    busy = False
    await over


async def test_what_can_be_done_is_done_before_it_jumps() -> None:
    clock, order = VirtualClock(), list[str]()
    clock.call_later(1, lambda: order.append("jumped"))
    for _ in range(50):
        await asyncio.sleep(0)
        order.append("turn")
    assert "jumped" not in order
    await clock.sleep(1)
    assert order[-1] == "jumped"


async def test_code_that_keeps_the_loop_turning_counts_as_waiting() -> None:
    clock = VirtualClock()
    over = asyncio.create_task(clock.sleep(5))
    while not over.done():
        await asyncio.sleep(0)


async def test_advance() -> None:
    clock, rung = VirtualClock(), list[float]()
    clock.busy = lambda sleeping: True
    for seconds in (5, 1, 3):
        clock.call_later(seconds, lambda: rung.append(clock.now() - START.timestamp()))
    clock.advance(4)
    assert rung == [1, 3]
    assert clock.now() == START.timestamp() + 4
    clock.busy = lambda sleeping: False
    await clock.sleep(2)
    assert rung == [1, 3, 5]
