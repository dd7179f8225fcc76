"""Maps inside a run: over steps, functions and flows; limits, order, errors, streams of streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.errors import InvalidValue
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
    with pytest.raises(InvalidValue, match="limit"):
        await Desk().run(flow(1))
    await Desk().run(flow(2))


async def test_wide_maps_are_quick() -> None:
    @segue.flow
    async def flow() -> int:
        return sum(await segue.map(double, range(100, 600)))

    assert await Desk().run(flow()) == sum(2 * n for n in range(100, 600))


# ---------------------------------------------------------------- back-pressure, order, errors, breaking off
async def test_the_limit_holds_for_runs_too() -> None:
    @segue.flow
    async def flow_of_limited_runs() -> int:
        return sum(await segue.map(doubled, range(50, 80), limit=4))

    desk = Desk()
    assert await desk.run(flow_of_limited_runs()) == sum(2 * n for n in range(50, 80))
    assert max(most) <= 4


async def test_an_item_with_a_map_inside_gives_up_its_place_when_that_waits() -> None:
    @segue.flow
    async def flow_of_nested_maps() -> int:
        async def nap(n: int) -> int:
            await segue.sleep(timedelta(hours=1))
            return n

        async def outer(n: int) -> int:
            return sum(await segue.map(nap, [n, n]))

        begun = segue.now()
        total = sum(await segue.map(outer, range(6), limit=2))
        assert segue.now() - begun < timedelta(hours=2)  # all six side by side
        return total

    assert await Desk().run(flow_of_nested_maps()) == 30


@pytest.mark.parametrize("fn", [double, doubled])
async def test_a_slow_consumer_holds_the_source_back(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.authoring.map.OPEN", 100)
    taken: list[int] = []

    def source() -> Iterator[int]:
        taken.clear()
        for n in range(20, 1000):
            taken.append(n)
            yield n

    @segue.flow
    async def flow_of_a_slow_consumer() -> int:
        count = 0
        async for _ in segue.map(fn, source(), limit=5):
            count += 1
            if count == 3:
                await segue.sleep(timedelta(days=1))
                break
        return count

    desk = Desk(linger=0.0)
    async with desk.engine() as engine:
        await engine.start(flow_of_a_slow_consumer(), id="it")
        await desk.until("it", "parked", "done")
    assert 3 <= len(taken) <= 3 + 64 + (100 if fn is doubled else 5) + 1


async def test_a_slow_item_holds_the_others_back_only_where_order_is_kept() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        taken.clear()
        for n in range(300):
            taken.append(n)
            yield n

    async def one(n: int) -> int:
        if n == 0:
            await segue.ask("go on?")
        return n

    @segue.flow
    async def flow_of_a_slow_item(how: str) -> int:
        if how == "awaited":
            return sum(await segue.map(one, source(), limit=5))
        return sum([n async for n in segue.map(one, source(), limit=5, ordered=how == "ordered")])

    for how in ("ordered", "unordered", "awaited"):
        desk = Desk(linger=0.0)
        async with desk.engine() as engine:
            run = await engine.start(flow_of_a_slow_item(how), id="it")
            await desk.parked()
            assert len(taken) == 300 if how != "ordered" else 64 <= len(taken) <= 64 + 5 + 1
            (ask,) = await engine.open_asks()
            await ask.answer("yes")
            assert await run == sum(range(300))


async def test_awaited_an_error_is_raised_when_it_happens() -> None:
    @segue.flow
    async def flow_that_fails_fast() -> str:
        async def one(n: int) -> int:
            if n == 1:
                raise ValueError("one")
            await segue.sleep(timedelta(days=n))
            return n

        begun = segue.now()
        try:
            await segue.map(one, [5, 1, 7])
        except ValueError as error:
            assert segue.now() - begun < timedelta(days=1)
            return str(error)
        return ""

    assert await Desk(verify=True).run(flow_that_fails_fast()) == "one"


@segue.step
async def fragile(n: int) -> int:
    if n % 3 == 0:
        raise ValueError(f"no {n}")
    return n


@segue.flow
async def fragile_run(n: int) -> int:
    await segue.sleep(timedelta(minutes=n))
    return await fragile(n)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("fn", [fragile, fragile_run])
async def test_errors_of_one_lose_no_other_wherever_it_crashes(fn: Any, ordered: bool) -> None:
    """An error route: what fails goes one way, the rest another."""

    @segue.flow
    async def flow_with_an_error_route() -> dict[str, list[Any]]:
        lost: list[str] = []

        async def good() -> AsyncIterator[int]:
            async for outcome in segue.map(fn, range(5), limit=2, ordered=ordered, errors="return"):
                if outcome.error is None:
                    yield outcome.value
                else:
                    lost.append(f"{outcome.input}: {outcome.error}")

        return {"good": sorted(await segue.map(double, good(), limit=2)), "lost": sorted(lost)}

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'{"good":[2,4,8],"lost":["0: no 0","3: no 3"]}', head

    await everywhere(flow_with_an_error_route, lambda desk: None, check)


async def test_breaking_off_ends_the_whole_pipeline_at_once() -> None:
    ended: list[str] = []

    @segue.flow
    async def flow_that_breaks_off() -> list[str]:
        async def source() -> AsyncIterator[int]:
            try:
                for n in range(1000):
                    yield n
            finally:
                await double(100)  # recorded, as all that a source does
                ended.append("source")

        async def forever(n: int) -> int:
            try:
                await segue.sleep(timedelta(days=n * n))
            except asyncio.CancelledError:
                ended.append("item")
                raise
            return n

        ended.clear()
        async for _ in segue.map(double, segue.map(forever, source(), limit=3), limit=3):
            if _:
                break
        await double(50)
        return sorted(set(ended))

    desk = Desk(verify=True)
    assert await desk.run(flow_that_breaks_off()) == ["item", "source"]


async def test_a_function_may_give_the_call() -> None:
    class Tripler(segue.Actor[int]):
        n: int

        def begin(self) -> str:
            return "go"

        @segue.state
        async def go(self, _: str) -> segue.Done[int]:
            return segue.Done(3 * self.n)

    @segue.flow
    async def flow_of_given_calls() -> list[int]:
        return [
            *await segue.map(lambda n: doubled(n), [1, 2]),
            *await segue.map(lambda n: Tripler(n), [1, 2]),
            *await segue.map(Tripler, [3]),
            *await segue.map(lambda n: double(n), [4]),
        ]

    desk = Desk(verify=True)
    assert await desk.run(flow_of_given_calls()) == [2, 4, 3, 6, 9, 8]
    assert len(await desk.store.runs()) == 1 + 5


async def test_an_outcome_knows_its_run() -> None:
    @segue.flow
    async def flow_of_runs_of_outcomes() -> list[str]:
        outcomes = await segue.map(doubled, [1, 13], errors="return")
        return [outcome.run.id for outcome in outcomes]

    desk = Desk(verify=True)
    for id in await desk.run(flow_of_runs_of_outcomes()):
        assert (await desk.head(id)).spec.target == "doubled"


async def test_items_that_cannot_be_written() -> None:
    @segue.flow
    async def flow_of_unfit_items() -> list[str]:
        outcomes = await segue.map(doubled, [1, object(), 2], errors="return")
        return [str(outcome.value) if outcome.ok else type(outcome.error).__name__ for outcome in outcomes]

    assert await Desk().run(flow_of_unfit_items()) == ["2", "NotEncodable", "4"]


@pytest.mark.slow
async def test_many_runs_dont_have_their_parent_replayed_for_each() -> None:
    lives: list[int] = []

    @segue.flow
    async def flow_of_many_runs(n: int) -> int:
        lives.append(n)
        return sum(await segue.map(doubled, range(100, 100 + n)))

    desk = Desk(linger=1.0)
    assert await desk.run(flow_of_many_runs(2500)) == sum(2 * n for n in range(100, 2600))
    assert len(lives) <= 3


@segue.flow(name="map.squared")
async def squared(n: int) -> int:
    return n * n


@dataclass
class Count:
    n: int


class Squarer(segue.Actor[int]):
    n: int

    def begin(self) -> Count:
        return Count(self.n)

    @segue.state
    async def count(self, count: Count) -> segue.Done[int]:
        return segue.Done(count.n)


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_what_a_child_couldnt_read_is_refused_where_it_is_made(park: Any) -> None:
    given: list[Any] = [2, "x", (1, 2), 3]

    @segue.flow(name="map.misfits")
    async def misfits() -> list[str]:
        told = [repr(each) for each in await segue.map(squared, given, errors="skip")]
        makers: list[Any] = [
            lambda: segue.map(squared, given),
            lambda: segue.spawn(squared(given[1])),
            lambda: Squarer(given[1]),
        ]
        for make in makers:
            try:
                await make()
            except InvalidValue as error:
                told.append(str(error))
        return told

    async with segue.Engine(park=park, verify=True) as engine:
        async with asyncio.timeout(5):
            assert await engine.run(misfits()) == [
                "4",
                "9",
                "argument 'n' of squared: expected int: it is a string; got \"x\"",
                "argument 'n' of squared: expected int: it is a string; got \"x\"",
                'Squarer.n: expected int: it is a string; got "x"',
            ]
