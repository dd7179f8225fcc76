"""Maps inside a run: over steps, functions and flows; limits, order, errors, streams of streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.model.run import Head
from tests.runtime.lives import Desk, everywhere

at_work: list[int] = []
most: list[int] = []


@segue.step
async def double(n: int) -> int:
    at_work.append(n)
    most.append(len(at_work))
    for _ in range(3):
        await asyncio.sleep(0)
    at_work.remove(n)
    if n == 13:
        raise ValueError("thirteen")
    return n * 2


@segue.flow
async def doubled(n: int) -> int:
    return await double(n)


async def function(n: int) -> int:
    return await double(await double(n)) // 2


@pytest.fixture(autouse=True)
def begin() -> None:
    at_work.clear()
    most.clear()


@pytest.mark.parametrize("fn", [double, doubled, function])
async def test_over_steps_flows_and_functions(fn: Any) -> None:
    @segue.flow
    async def flow() -> list[int]:
        return await segue.map(fn, range(5))

    desk = Desk(verify=True)
    assert await desk.run(flow()) == [0, 2, 4, 6, 8]
    runs = await desk.store.runs()
    assert len(runs) == (6 if fn is doubled else 1)  # a flow is a run for each item


async def test_the_limit() -> None:
    @segue.flow
    async def flow() -> int:
        return sum(await segue.map(double, range(50, 80), limit=4))

    await Desk().run(flow())
    assert max(most) <= 4


async def test_the_limit_doesnt_count_those_that_wait() -> None:
    @segue.flow
    async def flow() -> list[str]:
        async def one(n: int) -> str:
            first = await double(n)
            answer = await segue.ask(f"q{n}")
            return f"{first}{answer}{await double(n)}"

        return await segue.map(one, range(20, 30), limit=2)

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        for _ in range(500):
            if len(await engine.open_asks()) == 10:
                break
            await asyncio.sleep(0.001)
        assert len(await engine.open_asks()) == 10
        assert max(most) <= 2
        for ask in await engine.open_asks():
            await ask.answer("!")
        assert await run == [f"{2 * n}!{2 * n}" for n in range(20, 30)]


async def test_in_order_or_as_completed() -> None:
    @segue.flow
    async def flow(ordered: bool) -> list[int]:
        async def one(n: int) -> int:
            await segue.sleep(timedelta(hours=10 - n))
            return n

        return [n async for n in segue.map(one, range(5), ordered=ordered)]

    assert await Desk().run(flow(True)) == [0, 1, 2, 3, 4]
    assert await Desk().run(flow(False)) == [4, 3, 2, 1, 0]


async def test_errors() -> None:
    @segue.flow
    async def flow(errors: Any) -> list[Any]:
        got = await segue.map(double, [1, 13, 2], errors=errors)
        if errors != "return":
            return got
        return [
            outcome.value if outcome.ok else f"{outcome.index} {outcome.input} {outcome.error}"
            for outcome in got
        ]

    assert await Desk().run(flow("skip")) == [2, 4]
    assert await Desk().run(flow("return")) == [2, "1 13 thirteen", 4]
    with pytest.raises(ValueError, match="thirteen"):
        await Desk().run(flow("raise"))


async def test_the_first_error_cancels_the_rest() -> None:
    @segue.flow
    async def child(n: int) -> int:
        if n == 0:
            raise ValueError("zero")
        await segue.sleep(timedelta(days=n))
        return n

    @segue.flow
    async def flow() -> str:
        try:
            await segue.map(child, range(3))
        except ValueError as error:
            await segue.sleep(timedelta(hours=1))
            return str(error)
        return "?"

    desk = Desk()
    assert await desk.run(flow()) == "zero"
    states = sorted(head.status for head in await desk.store.runs())
    assert states == ["cancelled", "cancelled", "done", "failed"]


async def test_breaking_off() -> None:
    @segue.flow
    async def flow() -> list[int]:
        out = []
        async for n in segue.map(double, range(100), limit=3):
            out.append(n)
            if len(out) == 4:
                break
        out.append(await double(50))
        await segue.sleep(timedelta(days=1))
        return out

    desk = Desk(verify=True)
    assert await desk.run(flow()) == [0, 2, 4, 6, 100]
    assert len(await desk.entries()) < 50


async def test_sync_and_async_sources() -> None:
    @segue.flow
    async def flow() -> list[int]:
        def some() -> Iterator[int]:
            yield 1
            yield 2

        async def others() -> AsyncIterator[int]:
            for n in (3, 4):
                await segue.sleep(timedelta(hours=1))
                yield await double(n)

        return [
            *await segue.map(double, some()),
            *await segue.map(double, others()),
            *await segue.map(double, []),
        ]

    assert await Desk(verify=True).run(flow()) == [2, 4, 12, 16]


async def test_a_source_that_fails() -> None:
    @segue.flow
    async def flow() -> list[int]:
        def some() -> Iterator[int]:
            yield 1
            raise KeyError("source")

        return await segue.map(double, some())

    with pytest.raises(KeyError, match="source"):
        await Desk().run(flow())


async def test_a_map_over_a_map_streams() -> None:
    order: list[str] = []

    @segue.step
    async def first(n: int) -> int:
        order.append(f"first {n}")
        return n

    @segue.step
    async def second(n: int) -> int:
        order.append(f"second {n}")
        return n * 10

    @segue.flow
    async def flow() -> list[int]:
        return await segue.map(second, segue.map(first, range(20), limit=2))

    desk = Desk(verify=True)
    assert await desk.run(flow()) == [n * 10 for n in range(20)]
    assert order.index("second 0") < order.index("first 15")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("fn", [double, doubled])
async def test_crashes_in_the_middle(fn: Any, ordered: bool) -> None:
    @segue.flow
    async def flow() -> list[int]:
        async def more(n: int) -> int:
            await segue.sleep(timedelta(hours=n))
            return await double(n)

        return sorted(await segue.map(more, segue.map(fn, range(4), limit=2, ordered=ordered), limit=3))

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"[0,4,8,12]", head

    await everywhere(flow, lambda desk: None, check)


async def test_what_a_map_takes() -> None:
    @segue.flow
    async def flow(case: int) -> None:
        if case == 0:
            await segue.map(len, ["a"])  # type: ignore[type-var]  # on purpose
        elif case == 1:
            await segue.map(double, [1], limit=0)
        else:
            await segue.map(segue.step(len), ["a"])

    with pytest.raises(TypeError, match=r"make it|segue\.step\(len\)"):
        await Desk().run(flow(0))
    with pytest.raises(ValueError, match="limit"):
        await Desk().run(flow(1))
    await Desk().run(flow(2))


async def test_wide_maps_are_quick() -> None:
    @segue.flow
    async def flow() -> int:
        return sum(await segue.map(double, range(100, 600)))

    assert await Desk().run(flow()) == sum(2 * n for n in range(100, 600))
