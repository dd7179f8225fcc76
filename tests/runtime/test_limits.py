"""How many calls go at once: as many as an endpoint bears. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from segue.ports.provider import CallFault, Rates
from segue.runtime.calls.limits import LONGEST, Limit
from segue.testing.clock import VirtualClock


class Server:
    """Bears so many calls at once, and refuses the others with 429; each takes a second."""

    def __init__(self, clock: VirtualClock, bears: int, after: float | None = None) -> None:
        self.clock, self.bears, self.after = clock, bears, after
        self.flying = self.most = self.answered = self.refused = 0
        self.begun: list[float] = []

    async def call(self) -> None:
        self.begun.append(self.clock.now())
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            if self.flying > self.bears:
                self.refused += 1
                raise CallFault(429, "too many", again=True, after=self.after)
            await self.clock.sleep(1)
            self.answered += 1
        finally:
            self.flying -= 1


async def through(limit: Limit, server: Server, most: int = 1000, tokens: int = 0) -> None:
    while True:
        async with limit.place(most, tokens) as flight:
            try:
                await server.call()
                limit.answered(flight)
                return
            except CallFault as fault:
                limit.refused(flight, fault)
        await server.clock.sleep(0.1)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def all_of(*calls: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.timeout(20):
        await asyncio.gather(*calls)


async def test_it_finds_what_an_endpoint_bears(clock: VirtualClock):
    server, limit = Server(clock, bears=20), Limit(clock, first=4)
    began = clock.now()
    await all_of(*(through(limit, server) for _ in range(1000)))
    assert server.answered == 1000
    assert clock.now() - began < 2 * 1000 / 20  # at least half of what would be possible
    assert server.refused < 200
    assert 10 <= limit.width <= 25


async def test_it_grows_fast_until_the_first_refusal(clock: VirtualClock):
    server, limit = Server(clock, bears=1000), Limit(clock, first=2)
    began = clock.now()
    await all_of(*(through(limit, server) for _ in range(510)))
    assert clock.now() - began == pytest.approx(8)  # 2 + 4 + … + 256
    assert server.refused == 0


async def test_it_doesnt_grow_where_it_isnt_in_the_way(clock: VirtualClock):
    server, limit = Server(clock, bears=1000), Limit(clock, first=8)
    for _ in range(50):
        await through(limit, server)
    assert limit.width == 8


async def test_calls_that_were_refused_together_narrow_it_once(clock: VirtualClock):
    limit = Limit(clock, first=16)
    fault = CallFault(529, "overloaded", again=True)
    async with asyncio.timeout(5):
        async with asyncio.TaskGroup() as group:

            async def one() -> None:
                async with limit.place(100) as flight:
                    await clock.sleep(1)
                    limit.refused(flight, fault)

            for _ in range(16):
                group.create_task(one())
    assert limit.width == 8


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (CallFault(429, "", again=True), True),
        (CallFault(498, "", again=True), True),
        (CallFault(529, "", again=True), True),
        (CallFault(0, "", again=True, code="timeout"), True),
        (CallFault(429, "no money", again=False, code="insufficient_quota"), False),
        (CallFault(500, "", again=True), False),
        (CallFault(400, "", again=False), False),
    ],
)
async def test_what_counts_as_a_refusal(clock: VirtualClock, fault: CallFault, told: bool):
    limit = Limit(clock, first=8)
    async with limit.place(10) as flight:
        assert limit.refused(flight, fault) is told
    assert limit.width == (1 if told else 8)  # one call was under way


async def test_retry_after_holds_everybody(clock: VirtualClock):
    server, limit = Server(clock, bears=2, after=30.0), Limit(clock, first=3)
    began = clock.now()
    await all_of(*(through(limit, server) for _ in range(4)))
    assert [begun - began for begun in server.begun[:3]] == [0, 0, 0]
    assert all(begun - began >= 30 for begun in server.begun[3:])


@pytest.mark.parametrize(
    "rates", [Rates(requests=2, requests_reset=10.0), Rates(tokens=250, tokens_reset=10.0)]
)
async def test_what_is_left_is_kept_to(clock: VirtualClock, rates: Rates):
    server, limit = Server(clock, bears=100), Limit(clock)
    limit.heard(rates)
    began = clock.now()
    await all_of(*(through(limit, server, tokens=100) for _ in range(4)))
    assert [begun - began for begun in server.begun] == [0, 0, 10, 10]
    assert server.refused == 0


async def test_a_reset_that_is_far_away_is_tried_before(clock: VirtualClock):
    server, limit = Server(clock, bears=100), Limit(clock)
    limit.heard(Rates(requests=0, requests_reset=86_400.0))
    began = clock.now()
    await through(limit, server)
    assert clock.now() - began == LONGEST + 1


async def test_a_prompt_larger_than_all_that_is_left_goes_alone(clock: VirtualClock):
    server, limit = Server(clock, bears=100), Limit(clock)
    limit.heard(Rates(tokens=50, tokens_reset=10.0))
    began = clock.now()
    await through(limit, server, tokens=100)
    assert clock.now() - began == 1


async def test_callers_with_other_numbers_share_it(clock: VirtualClock):
    server, limit = Server(clock, bears=1000), Limit(clock)
    await all_of(
        *(through(limit, server, most=5) for _ in range(50)),
        *(through(limit, server, most=6) for _ in range(50)),
    )
    assert server.most == 6


async def test_a_narrow_caller_doesnt_hold_up_a_wide_one(clock: VirtualClock):
    server, limit = Server(clock, bears=1000), Limit(clock)
    began = clock.now()
    await all_of(
        *(through(limit, server, most=1) for _ in range(3)),
        *(through(limit, server, most=100) for _ in range(20)),
    )
    assert server.begun.count(began) >= 20


async def test_those_who_give_up_leave_their_place(clock: VirtualClock):
    limit = Limit(clock, first=1)
    done: list[int] = []

    async def one(number: int) -> None:
        async with limit.place(10):
            await clock.sleep(1)
            done.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()  # it waits
    await clock.sleep(0.5)
    tasks[0].cancel()  # it is under way; the next is let in at that moment and called off too
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert (done, limit.flying) == ([3], 0)


async def test_an_alarm_is_called_off_at_the_end(clock: VirtualClock):
    limit = Limit(clock)
    limit.heard(Rates(requests=0, requests_reset=5.0))
    late: Callable[..., Any] = limit.place(5).__aenter__
    task = asyncio.create_task(late())
    await asyncio.sleep(0)
    limit.close()
    await clock.sleep(20)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert limit.flying == 0


async def test_who_waits_for_a_second_hears_what_for(clock: VirtualClock) -> None:
    limit, told = Limit(clock, first=2), list[str]()

    async def waits(most: int) -> None:
        waiting = asyncio.ensure_future(limit.enter(most, 0, told.append))
        await asyncio.sleep(0)
        clock.advance(0.9)
        assert not told
        clock.advance(0.2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    await limit.enter(9, 0, told.append)
    await waits(1)
    assert told.pop() == "its turn: so many live calls as may be are under way, 1"
    flight = await limit.enter(9, 0)
    await waits(9)
    assert told.pop() == "its turn: 2 live calls are under way, and the endpoint bears no more just now"
    limit.refused(flight, CallFault(429, "too many", again=True, after=60.0))
    limit.leave()
    limit.leave()
    await waits(9)
    assert told == ["the endpoint, which takes no more calls for a while"]
    limit.close()


async def test_who_is_let_in_soon_hears_nothing(clock: VirtualClock) -> None:
    limit, told = Limit(clock), list[str]()
    await limit.enter(1, 0, told.append)
    waiting = asyncio.ensure_future(limit.enter(1, 0, told.append))
    await asyncio.sleep(0)
    clock.advance(0.5)
    limit.leave()
    await waiting
    clock.advance(5)
    assert not told
