"""What it costs to see whether a run is at rest: it grows with the tasks that move, not with those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import segue
from segue.authoring.context import Wait, find_branch
from segue.runtime.calls.call import Call
from segue.runtime.ground import tasks
from segue.runtime.wake import strikes
from segue.runtime.wake.mailbox import Mailbox
from tests.runtime.lives import watched_rest


@segue.step
async def late(i: int, turns: int = 8) -> int:
    """A step that ends so many turns of the loop after the one before it: alone."""
    for _ in range(turns * i):
        await asyncio.sleep(0)
    return i


@segue.step
async def fails(i: int) -> None:
    for _ in range(i):
        await asyncio.sleep(0)
    raise ValueError(i)


class Idle(segue.Actor[None]): ...


async def move() -> None:
    """Run for some turns of the loop, in which nothing may be handed over."""
    for _ in range(5):
        await asyncio.sleep(0)


@segue.flow
async def gathered(n: int) -> list[int]:
    return await asyncio.gather(*(late(i) for i in range(n)))


@segue.flow
async def grouped(n: int) -> list[int]:
    async def inner(i: int) -> list[asyncio.Task[int]]:
        async with asyncio.TaskGroup() as group:
            return [group.create_task(late(i * 4 + k)) for k in range(4)]

    async with asyncio.TaskGroup() as group:
        groups = [group.create_task(inner(i)) for i in range(n // 4)]
    return [task.result() for group_ in groups for task in group_.result()]


@segue.flow
async def queued(n: int) -> list[int]:
    room = asyncio.Semaphore(2)

    async def one(i: int) -> int:
        async with room:
            return await late(1) - 1 + i

    return await asyncio.gather(*(one(i) for i in range(n)))


Flow = Callable[[int], Coroutine[Any, Any, list[int]]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a task was looked at, and how often what it waits for was made out."""
    counts = {"waiter": 0, "foreign": 0}

    def counted(name: str) -> Callable[..., Any]:
        inner = getattr(tasks, name)

        def count(*args: Any) -> Any:
            counts[name] += 1
            return inner(*args)

        return count

    for name in counts:
        monkeypatch.setattr(tasks, name, counted(name))
    return counts


@pytest.mark.parametrize("flow", [gathered, grouped, queued])
async def test_a_look_goes_over_what_moved(flow: Flow, looks: dict[str, int]) -> None:
    seen: list[int] = []
    for n in (40, 80):
        looks.update(waiter=0, foreign=0)
        async with segue.Engine("memory:", verify=False) as engine:
            assert await engine.run(flow(n)) == list(range(n))
        seen.append(sum(looks.values()))
    assert seen[1] < 2.6 * seen[0], seen
    assert seen[1] < 100 * 80, seen


async def test_a_call_that_fails_is_seen_to_move_its_task() -> None:
    @segue.flow
    async def flow() -> list[int]:
        async def one(i: int) -> int:
            try:
                await fails(i)
            except ValueError:
                await move()
            return await late(1)

        return await asyncio.gather(*(one(i) for i in range(10)))

    with watched_rest(few=0):
        async with segue.Engine("memory:", verify=False) as engine:
            assert await engine.run(flow()) == [1] * 10


async def test_a_call_that_is_given_up_is_seen_to_move_its_task() -> None:
    @segue.flow
    async def flow() -> int:
        async def asks() -> int:
            try:
                return await segue.ask("Never?", returns=int)
            except asyncio.CancelledError:
                await move()
                return await late(0)

        asking = asyncio.create_task(asks())
        others = asyncio.gather(late(1), late(3))
        await late(2)
        asking.cancel()
        return await asking + sum(await others)

    with watched_rest(few=0):
        async with segue.Engine("memory:") as engine:
            assert await engine.run(flow()) == 4


async def test_two_tasks_may_sleep_at_one_wait() -> None:
    @segue.flow
    async def flow() -> list[int]:
        branch = find_branch()
        assert branch is not None
        wait = branch.run.own_wait()

        async def one() -> int:
            value: int = await wait
            await move()
            return value + await late(1)

        async def other() -> int:
            wait.set_result(await late(3))
            return 0

        return await asyncio.gather(*(one() for _ in range(5)), other())

    with watched_rest(few=0):
        async with segue.Engine("memory:", verify=False) as engine:
            assert await engine.run(flow()) == [*[4] * 5, 0]


async def test_a_task_that_ends_with_its_run_has_nothing_left_to_tell() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with segue.Engine("memory:", verify=False) as engine:
        run = await engine.start(Idle(), id="it")
        await run.interrupt()
        assert (await engine.wait("it")).status == "cancelled"
        await asyncio.sleep(0)
    assert not said


async def test_timeouts_that_stand_are_looked_at_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strikes, "MANY", 10)
    looks, stands = 0, strikes._stands

    def counted(timeout: asyncio.Timeout) -> bool:
        nonlocal looks
        looks += 1
        return stands(timeout)

    monkeypatch.setattr(strikes, "_stands", counted)
    many = 300

    @segue.flow
    async def flow() -> int:
        async def one() -> int:
            async with asyncio.timeout(3600):
                return await late(1)

        return sum(await asyncio.gather(*(one() for _ in range(many))))

    async with segue.Engine("memory:", verify=False) as engine:
        assert await engine.run(flow()) == many
    assert looks < 20 * many  # it was the square; how often it rests depends on the machine


async def test_mail_is_given_without_asking_each_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait for other mail aren't gone over for each letter."""
    looks, many = 0, 100

    class Counted(frozenset[str]):
        def __contains__(self, name: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__contains__(name)

        def __iter__(self) -> Iterator[str]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    wait_for = Mailbox.wait_for

    def counting(box: Mailbox, call: Call, request: Wait, due: float) -> None:
        request.accepts = Counted(request.accepts)
        wait_for(box, call, request, due)

    monkeypatch.setattr(Mailbox, "wait_for", counting)

    @segue.flow
    async def flow() -> list[int]:
        others = [asyncio.ensure_future(segue.receive(str)) for _ in range(many)]
        got = [await segue.receive(int) for _ in range(many)]
        for other in others:
            other.cancel()
        await asyncio.wait(others)
        return got

    async with segue.Engine("memory:", verify=False) as engine:
        run = await engine.start(flow(), id="it")
        for i in range(many):
            await run.tell(i)
        assert await run == list(range(many))
    assert looks < 20 * many
