"""Iterables between stages: batches by number and by time, several sources as one, windows; crashes anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.model.errors import NotInRun
from segue.model.run import Head
from tests.runtime.lives import Desk, everywhere

H = timedelta(hours=1)


@segue.step
async def itself(n: int) -> int:
    return n


async def at_hours(*hours: float) -> AsyncIterator[float]:
    """Items that come at these hours."""
    begun = segue.now()
    for hour in hours:
        await segue.sleep(begun + hour * H)
        yield hour


async def as_list(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def fails(after: int) -> Iterator[int]:
    yield from range(after)
    raise KeyError("source")


# ---------------------------------------------------------------- batches
@pytest.mark.parametrize(
    ("count", "n", "batches"),
    [(7, 3, [[0, 1, 2], [3, 4, 5], [6]]), (6, 3, [[0, 1, 2], [3, 4, 5]]), (2, 1, [[0], [1]]), (0, 3, [])],
)
async def test_batches_by_number(count: int, n: int, batches: list[list[int]]) -> None:
    assert await as_list(segue.batched(range(count), n)) == batches  # outside a run, too


async def test_batches_by_time() -> None:
    @segue.flow
    async def flow_of_batches_by_time() -> list[Any]:
        by_both = await as_list(segue.batched(at_hours(0, 0.5, 1.5, 5, 5.1, 5.2, 5.3), 3, within=H))
        by_time = await as_list(segue.batched(at_hours(0, 0.5, 1.5, 5, 5.1, 5.2, 5.3), within=H))
        return [by_both, by_time]

    expected = [
        [[0, 0.5], [1.5], [5, 5.1, 5.2], [5.3]],
        [[0, 0.5], [1.5], [5, 5.1, 5.2, 5.3]],
    ]
    assert await Desk(verify=True).run(flow_of_batches_by_time()) == expected


async def test_a_batch_waits_durably() -> None:
    """The time goes on while nothing of the run is in memory."""

    @segue.flow
    async def flow_of_a_batch_that_waits() -> list[Any]:
        async def mail() -> AsyncIterator[str]:
            while (text := await segue.receive(str)) != "end":
                yield text

        return await as_list(segue.batched(mail(), 10, within=24 * H))

    desk = Desk(linger=0.0)
    async with desk.engine() as engine:
        desk.fake.clock.busy = lambda _: True  # it doesn't jump on
        run = await engine.start(flow_of_a_batch_that_waits(), id="it")
        await run.tell("a")
        await run.tell("b")
        while len(await desk.calls()) < 4:  # the timer, two letters, the wait for the third
            await desk.parked()
            await asyncio.sleep(0)
        assert (await desk.parked()).wake == desk.fake.clock.now() + 24 * 3600
    desk.fake.clock.advance(24 * 3600)
    async with desk.engine() as engine:
        run = await engine.get("it")
        await run.tell("c")  # with the time, or after it: too late for the first list either way
        await run.tell("end")
        assert await run == [["a", "b"], ["c"]]


async def test_what_came_before_an_error_is_given() -> None:
    @segue.flow
    async def flow_of_a_failing_source(how: str) -> list[Any]:
        got: list[Any] = []
        made: dict[str, Callable[[], AsyncIterator[Any]]] = {
            "batched": lambda: segue.batched(fails(3), 2),
            "merged": lambda: segue.merged(fails(3)),
            "windowed": lambda: segue.windowed(fails(3), 2),
        }
        with pytest.raises(KeyError, match="source"):
            async for one in made[how]():
                got.append(one)
        return got

    assert await Desk().run(flow_of_a_failing_source("batched")) == [[0, 1], [2]]
    assert await Desk().run(flow_of_a_failing_source("merged")) == [0, 1, 2]
    assert await Desk().run(flow_of_a_failing_source("windowed")) == [[0, 1], [1, 2]]


async def test_what_batched_and_windowed_take() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        segue.batched([1], -1)
    with pytest.raises(ValueError, match="within"):
        segue.batched([1])
    with pytest.raises(NotInRun):
        segue.batched([1], within=H)
    with pytest.raises(ValueError, match="size and a step"):
        segue.windowed([1], 0)


# ---------------------------------------------------------------- several as one, windows
async def test_merged_gives_items_as_they_come() -> None:
    @segue.flow
    async def flow_of_merged() -> list[Any]:
        return await as_list(segue.merged(at_hours(1, 4, 5), at_hours(2, 3), [0], []))

    assert await Desk(verify=True).run(flow_of_merged()) == [0, 1, 2, 3, 4, 5]
    assert await as_list(segue.merged()) == []


async def test_one_that_fails_ends_the_others() -> None:
    ended: list[str] = []

    @segue.flow
    async def flow_of_merged_failing() -> list[str]:
        async def endless() -> AsyncIterator[int]:
            try:
                while True:
                    yield await itself(1)
            finally:
                ended.append("endless")

        ended.clear()
        with pytest.raises(KeyError):
            async for _ in segue.merged(endless(), fails(2)):
                pass
        return ended

    assert await Desk(verify=True).run(flow_of_merged_failing()) == ["endless"]


@pytest.mark.parametrize(
    ("n", "step", "windows"),
    [
        (3, 1, [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]),
        (3, 2, [[0, 1, 2], [2, 3, 4]]),
        (2, 3, [[0, 1], [3, 4]]),
        (6, 1, [[0, 1, 2, 3, 4, 5]]),
        (7, 1, []),
    ],
)
async def test_windows(n: int, step: int, windows: list[list[int]]) -> None:
    assert [list(window) async for window in segue.windowed(range(6), n, step)] == windows


@pytest.mark.parametrize("how", ["batched", "merged", "windowed"])
async def test_a_slow_consumer_holds_sources_back(how: str) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    made: dict[str, Callable[[], AsyncIterator[Any]]] = {
        "batched": lambda: segue.batched(source(), 5),
        "merged": lambda: segue.merged(source(), []),
        "windowed": lambda: segue.windowed(source(), 5),
    }
    stream = made[how]()
    await anext(stream)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(taken) <= 11
    await stream.aclose()  # type: ignore[attr-defined]  # it has one, as generators have
    assert await as_list(stream) == []


async def test_breaking_off_closes_the_source() -> None:
    ended: list[str] = []

    @segue.flow
    async def flow_of_loops_broken_off() -> list[str]:
        async def source(name: str) -> AsyncIterator[int]:
            try:
                for n in range(1000):
                    yield n
            finally:
                ended.append(f"{name} {await itself(1)}")

        ended.clear()
        async for _ in segue.batched(source("batched"), 2):
            break
        await itself(2)
        async for _ in segue.merged(source("a"), source("b")):
            break
        await itself(3)
        async for _ in segue.windowed(segue.map(itself, source("windowed")), 2):
            break
        await segue.sleep(H)  # what cleans up is a branch like others: it ends with the run
        return sorted(ended)

    desk = Desk(verify=True)
    assert await desk.run(flow_of_loops_broken_off()) == ["a 1", "b 1", "batched 1", "windowed 1"]


async def test_crashes_anywhere() -> None:
    @segue.flow
    async def flow_of_all_of_them() -> list[Any]:
        both = segue.merged(segue.map(itself, range(3), ordered=False), at_hours(0.5, 1.75))
        out: list[Any] = []
        async for batch in segue.batched(both, 4, within=H):
            out += batch
            await itself(len(out))
        pairs = [list(pair) async for pair in segue.windowed(segue.map(itself, range(3)), 2)]
        return [sorted(out), pairs]

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"[[0,0.5,1,1.75,2],[[0,1],[1,2]]]", head

    assert await everywhere(flow_of_all_of_them, lambda desk: None, check) > 20
