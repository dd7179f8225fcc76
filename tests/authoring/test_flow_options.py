"""A flow's own options: beneath what the caller and `using()` say, over what the parent run and the engine say."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.model.budget import Budget
from segue.model.mode import Batch
from segue.model.run import Head
from segue.testing import FakeModel, ToolUse
from tests.runtime.lives import Desk, everywhere


@segue.flow(name="options.own", model="fake:own", tags={"of": "flow"})
async def own(text: str) -> str:
    return await segue.generate(text)


@segue.flow(name="options.plain")
async def plain(text: str) -> str:
    return await segue.generate(text)


@segue.flow(name="options.batched", mode="batch")
async def batched(text: str) -> str:
    return await segue.generate(text)


@segue.flow(name="options.starts")
async def starts(how: str, said: str, around: str) -> str:
    explicit: Any = {"model": said} if said else {}
    with segue.using(model=around) if around else nullcontext():
        match how:
            case "spawn":
                return await (await segue.spawn(own("x"), **explicit))
            case "map":
                return (await segue.map(own, ["x"]))[0]
            case _:
                return await own("x")


@pytest.fixture
def desk() -> Desk:
    desk = Desk(verify=True, model="fake:engine")
    desk.fake.when("").reply(lambda call: call.model)
    return desk


@pytest.mark.parametrize(
    ("said", "around", "gives"),
    [
        ("", "", "own"),
        ("", "fake:around", "around"),
        ("fake:said", "fake:around", "said"),
        ("fake:said", "", "said"),
    ],
)
async def test_of_a_run_of_its_own(desk: Desk, said: str, around: str, gives: str) -> None:
    explicit: Any = {"model": said} if said else {}
    async with desk.engine() as engine:
        with segue.using(model=around) if around else nullcontext():
            assert await engine.run(own("x"), id="it", **explicit) == f"fake:{gives}"
            assert await engine.map(own, ["x"], id="job", **explicit) == [f"fake:{gives}"]
        spawned = await engine.run(starts("spawn", said, around), model="fake:parent")
        assert spawned == f"fake:{gives}"
        if not said:
            assert await engine.run(starts("map", "", around), model="fake:parent") == f"fake:{gives}"
    config = (await desk.head()).spec.config
    assert (config.model, config.tags) == (
        (f"fake:{gives}",),
        {"of": "flow"},
    )  # the record has what came of it


@pytest.mark.parametrize("around", ["", "fake:around"])
async def test_awaited_in_another_flow_they_hold_inside_it(desk: Desk, around: str) -> None:
    @segue.flow(name="options.outer", model="fake:outer")
    async def outer() -> list[str]:
        async def within() -> list[str]:
            both = asyncio.gather(own("b"), plain("c"))
            return [await own("a"), *await both, await segue.generate("d")]

        with segue.using(model=around) if around else nullcontext():
            return await within()

    rest = around or "fake:outer"
    assert await desk.run(outer()) == ["fake:own", "fake:own", rest, rest]


async def test_what_an_awaited_flow_starts_has_its_own_options_over_those() -> None:
    @segue.flow(name="options.middle", model="fake:middle", mode="live")
    async def middle() -> list[str]:
        with segue.using(model="fake:around"):
            inner = await segue.map(own, ["x"])
        return [*await segue.map(own, ["x"]), *await segue.map(plain, ["x"]), *inner]

    @segue.flow(name="options.top")
    async def top() -> list[str]:
        with segue.using(model="fake:top"):
            return await middle()

    desk = Desk(verify=True)
    desk.fake.when("").reply(lambda call: call.model)
    assert await desk.run(top()) == ["fake:own", "fake:middle", "fake:around"]


async def test_a_tool_that_is_a_flow_has_its_options(desk: Desk) -> None:
    @segue.flow(name="options.look", model="fake:tool")
    async def look(what: str) -> str:
        """Look it up."""
        return await segue.generate(f"about {what}")

    @segue.flow(name="options.agent")
    async def agent() -> str:
        return await segue.generate("Go", tools=[look])

    desk.fake.when("Go").reply(ToolUse("look", what="it"), lambda call: call.messages[-1].content)
    assert await desk.run(agent()) == "fake:tool"


async def test_they_are_the_same_in_every_life() -> None:
    @segue.flow(name="options.lives", priority=2)
    async def flow() -> list[str]:
        first = await own("a")
        await segue.sleep(timedelta(hours=1))
        return [first, *await segue.map(batched, ["b"]), await batched("c"), *await segue.map(own, ["d"])]

    def check(desk: Desk, head: Head) -> None:
        assert json.loads(head.value or b"") == ["fake:own", "fake:model", "fake:model", "fake:own"]
        assert head.spec.config.priority == 2
        assert {use.lane for use in head.usage} == {"live", "batch"}

    def answers(desk: Desk) -> None:
        desk.fake.when("").reply(lambda call: call.model)

    assert await everywhere(flow, answers, check) > 4


async def test_who_starts_a_run_under_using_has_it_in_the_record_not_in_the_code(desk: Desk) -> None:
    """The first life must not know more than the record, which is all that a later one has."""

    @segue.flow(name="options.under")
    async def under() -> list[str]:
        return [await segue.generate("a"), *await segue.map(own, ["b"])]

    async with desk.engine() as engine:
        with segue.using(model="fake:around"):
            assert await engine.run(under(), id="one") == ["fake:around", "fake:own"]
            assert await engine.run(under(), id="two", model="fake:said") == ["fake:said", "fake:own"]
    assert (await desk.head("one")).spec.config.model == ("fake:around",)


async def test_a_budget_of_a_flow_is_for_each_run_of_it() -> None:
    @segue.flow(name="options.frugal", budget=Budget(tokens=100_000))
    async def frugal(text: str) -> str:
        return await segue.generate(text)

    @segue.flow(name="options.frugal parent")
    async def parent() -> list[str]:
        return [*await segue.map(frugal, ["a", "b"]), await frugal("c")]

    desk = Desk()
    desk.fake.when("").reply("ok")
    assert await desk.run(parent()) == ["ok"] * 3
    async with desk.engine() as engine:
        assert await engine.map(frugal, ["a", "b"], id="job") == ["ok"] * 2
        assert await engine.run(frugal("x"), id="alone") == "ok"
    ids = {one.id for one in await desk.store.budgets()}
    heads = [head for head in await desk.store.runs() if head.spec.target == "options.frugal"]
    assert len(heads) == 5
    assert {f"run:{head.id}" for head in heads} <= ids
    assert not any(one.startswith("job:") for one in ids)
    assert any(one.startswith("block:") for one in ids)


async def test_what_cant_be_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"flow\(\) got an unexpected option 'modle'; did you mean 'mode"):
        segue.flow(modle="m")(own.__wrapped__)  # type: ignore[call-overload]  # that it is refused is tested
    with pytest.raises(ValueError, match="mode must be"):
        segue.flow(mode="bach")(own.__wrapped__)  # type: ignore[call-overload]  # so here


async def test_a_resumed_run_goes_on_with_its_record() -> None:
    @segue.flow(name="options.fails", model="fake:first", mode=segue.Batch(max_lines=7))
    async def fails() -> str:
        return await segue.generate("x")

    desk = Desk()
    desk.fake.when("").reply(lambda call: call.model)
    async with desk.engine() as engine:
        assert await engine.run(fails(), id="it") == "fake:first"
        fork = await engine.fork("it", id="fork", before="#0", model="fake:forked")
        assert await fork == "fake:forked"
    config = (await desk.head("fork")).spec.config
    assert config.mode == Batch(max_lines=7)


async def test_outside_a_run_it_is_a_plain_call() -> None:
    @segue.flow(name="options.pure", model="fake:own")
    async def pure() -> int:
        return 1

    assert await pure() == 1
    async with FakeModel():
        assert await pure() == 1
