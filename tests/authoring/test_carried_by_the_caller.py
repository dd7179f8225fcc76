"""Messages that needn't wait are carried out by whoever brings them, in their actor's name."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

import segue
from segue.authoring.context import find_branch
from segue.runtime.ground import tasks

TRACE: ContextVar[str] = ContextVar("trace", default="none")
SEEN: list[Any] = []


class Tell(segue.Note):
    n: int


class Ask(segue.Request[str]):
    how: str


@segue.step
async def slow() -> str:
    await asyncio.sleep(0)
    return "slow"


class Clerk(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def tell(self, m: Tell) -> None:
        self.total += m.n

    @segue.on
    async def ask(self, m: Ask) -> str:
        SEEN.append((asyncio.current_task(), find_branch() is not None, TRACE.get()))
        if m.how == "at once":
            return str(self.total)
        TRACE.set("handler")
        if m.how == "raises":
            self.total = -1
            raise ValueError("no")
        if m.how == "step":
            return await slow()
        if m.how == "timeout":
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(1)
            except TimeoutError:
                SEEN.append(asyncio.current_task())
                return "too late"
        if m.how == "turn":
            await asyncio.sleep(0)
            SEEN.append(asyncio.current_task())
        return m.how


async def turns_during(call: Any) -> int:
    """How many turns the loop makes until that is done."""
    count, over = 0, False

    def turn() -> None:
        nonlocal count
        count += 1
        if not over:
            asyncio.get_running_loop().call_soon(turn)

    asyncio.get_running_loop().call_soon(turn)
    await call
    over = True
    return count


async def test_an_answer_that_needs_no_wait_takes_no_turn_of_the_loop() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))
        SEEN.clear()
        TRACE.set("caller")
        await clerk.tell(Tell(2))
        assert await turns_during(clerk.request(Ask("at once"))) == 0
        ((task, in_run, trace),) = SEEN
        assert task is not asyncio.current_task()
        assert (in_run, trace) == (True, "none")
        assert find_branch() is None
        assert await clerk.request(Ask("at once")) == "2"


async def test_a_handler_that_waits_goes_on_in_its_actors_task() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))
        for how, answer in (("turn", "turn"), ("timeout", "too late"), ("step", "slow")):
            SEEN.clear()
            assert await clerk.request(Ask(how)) == answer
            at_work = {one[0] if isinstance(one, tuple) else one for one in SEEN}
            assert len(at_work) == 1
            assert asyncio.current_task() not in at_work
        assert TRACE.get() == "none"


async def test_an_error_there_is_the_callers_and_undoes_that_message_alone() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.tell(Tell(3))
        with pytest.raises(ValueError, match="no"):
            await clerk.request(Ask("raises"))
        assert await clerk.request(Ask("at once")) == "3"


async def test_what_was_begun_for_a_task_is_cancelled_as_if_the_task_had_begun_it() -> None:
    future = asyncio.get_running_loop().create_future()
    seen: list[object] = []

    async def work() -> None:
        try:
            await future
        except asyncio.CancelledError as error:
            seen.extend(error.args)
            raise

    coro = work()
    waits = coro.send(None)

    async def task() -> None:
        await tasks.going_on(coro, waits, asyncio.CancelledError("enough"))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(task())
    assert future.cancelled()
    assert seen == ["enough"]


async def test_who_sends_on_and_on_gives_the_loop_a_turn() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))

        async def many() -> None:
            for _ in range(1000):
                await clerk.tell(Tell(1))

        assert 10 <= await turns_during(many()) <= 40
        assert await clerk.request(Ask("at once")) == "1000"
