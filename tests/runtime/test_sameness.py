"""One live call for all who ask the same at the same time, and until its answer is durable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from segue.model.run import REUSED
from segue.ports.provider import Endpoint
from segue.ports.store import Turn
from segue.runtime.calls.sameness import Sameness, Shared, same_as
from segue.stores.memory import MemoryStore


class Clock:
    time = 100.0

    def now(self) -> float:
        return self.time


class Desk:
    """Calls of one engine, and the answers that a provider gives when it is let."""

    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), Clock()
        self.sameness = Sameness(self.store, self.clock)  # type: ignore[arg-type]  # a clock that only tells
        self.sent = 0
        self.goes = asyncio.Event()
        self.fails: Exception | None = None

    async def send(self) -> bytes:
        self.sent += 1
        number = self.sent
        await self.goes.wait()
        if self.fails is not None:
            raise self.fails
        return b"%d" % number

    def call(
        self, *, since: float = 0.0, whole: bool = True
    ) -> tuple[Shared, asyncio.Future[tuple[bytes, bool]]]:
        shared = self.sameness.sharing(since, lambda body: whole)
        return shared, asyncio.ensure_future(shared.answer("a", self.send))

    def settled(self, shared: Shared) -> tuple[Turn, str]:
        turn = Turn(run="r", fence=1)
        return turn, shared.settles(turn)

    def kept(self, turn: Turn) -> None:
        """The turn is durable."""
        for answer in turn.answers:
            self.store._answers.keep(answer)
            self.sameness.kept(answer.same)


async def soon(*futures: Any) -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_is_sent_and_the_first_that_is_written_has_paid() -> None:
    desk = Desk()
    calls = [desk.call() for _ in range(3)]
    await soon()
    desk.goes.set()
    assert [await asked for _, asked in calls] == [(b"1", False), (b"1", True), (b"1", True)]
    settled = [desk.settled(shared) for shared, _ in reversed(calls)]
    assert [lane for _, lane in settled] == ["", REUSED, REUSED]
    assert all(len(turn.answers) == 1 for turn, _ in settled)  # whichever is durable first


async def test_between_its_coming_and_its_being_durable_nobody_sends() -> None:
    desk = Desk()
    desk.goes.set()
    first, asked = desk.call()
    await asked
    second, again = desk.call()
    assert await again == (b"1", True)
    turn, lane = desk.settled(first)
    assert lane == ""
    desk.kept(turn)
    third, later = desk.call()
    assert await later == (b"1", True)
    assert [desk.settled(shared)[1] for shared in (second, third)] == [REUSED, REUSED]
    assert desk.settled(third)[0].answers == ()  # it is there
    assert desk.sent == 1


async def test_who_gives_up_leaves_it_to_the_next() -> None:
    desk = Desk()
    (_, first), (second, other) = desk.call(), desk.call()
    await soon()
    first.cancel()
    await soon()
    assert desk.sent == 2
    desk.goes.set()
    assert await other == (b"2", False)
    assert desk.settled(second)[1] == ""


async def test_who_waits_may_give_up() -> None:
    desk = Desk()
    (_, first), (_, other) = desk.call(), desk.call()
    await soon()
    other.cancel()
    await soon()
    desk.goes.set()
    assert await first == (b"1", False)


async def test_an_error_is_of_those_who_waited() -> None:
    desk = Desk()
    desk.fails = RuntimeError("no")
    calls = [desk.call() for _ in range(2)]
    await soon()
    desk.goes.set()
    for _, asked in calls:
        with pytest.raises(RuntimeError, match="no"):
            await asked
    desk.fails = None
    assert await desk.call()[1] == (b"2", False)


async def test_what_isnt_whole_is_of_those_who_waited() -> None:
    desk = Desk()
    calls = [desk.call(whole=False) for _ in range(2)]
    await soon()
    desk.goes.set()
    assert [await asked for _, asked in calls] == [(b"1", False), (b"1", True)]
    assert [desk.settled(shared)[0].answers for shared, _ in calls] == [(), ()]
    assert await desk.call(whole=False)[1] == (b"2", False)


async def test_one_that_is_too_old_is_asked_anew() -> None:
    desk = Desk()
    desk.goes.set()
    first, asked = desk.call()
    await asked
    desk.clock.time = 200.0
    assert await desk.call(since=150.0)[1] == (b"2", False)  # though nobody has written the first
    desk.kept(desk.settled(first)[0])
    assert await desk.call(since=250.0)[1] == (b"3", False)


def test_what_a_request_is_known_by() -> None:
    here = Endpoint("openai", "https://x/v1", "m", "KEY")
    known = same_as(here, "chat", b'{"a":1}')
    assert known == same_as(Endpoint("openai", "https://x", "m", "OTHER_KEY"), "chat", b'{"a":1}')
    others = {
        same_as(Endpoint("groq", "https://x/v1", "m"), "chat", b'{"a":1}'),
        same_as(Endpoint("openai", "https://y/v1", "m"), "chat", b'{"a":1}'),
        same_as(Endpoint("openai", "https://x/v1", "n"), "chat", b'{"a":1}'),
        same_as(here, "embed", b'{"a":1}'),
        same_as(here, "chat", b'{"a":2}'),
    }
    assert len(others | {known}) == 6
