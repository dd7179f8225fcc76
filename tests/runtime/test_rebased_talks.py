"""A conversation of several turns, once code around it or its beginning has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.testing import Simulator, ToolCall

DEGREES = {"Oslo": "21", "Bergen": "12"}


def rule(body: dict[str, Any]) -> str:
    """The first answer about a place is no use, the second one is."""
    said = [str(message["content"]) for message in body["messages"]]
    city = next((city for city in DEGREES if city in said[0]), "")
    if not city:
        return f"about {said[0]}"
    return "999" if len(said) == 1 else DEGREES[city]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(rule=rule) as sim:
        yield sim


def plausible(degrees: int) -> None:
    if degrees > 60:
        raise ValueError("no place on earth has more than 60 degrees")


async def degrees(prompt: str) -> int:
    return await segue.generate(prompt, returns=int, check=plausible)


@segue.step
async def known(city: str) -> bool:
    return False


def named(fn: Any) -> Any:
    return segue.flow(name="talks", version="1")(fn)


async def before() -> str:
    found = await degrees("Degrees in Oslo?")
    return f"{found} {await segue.receive(str)}, {await segue.generate('Oh')}"


async def changed(
    sim: Simulator, tmp_path: Path, after: Any, before: Any = before, at: int = 1, **how: Any
) -> tuple[str, int]:
    """What a run gives that waited when its code changed, and how often it asked the model since."""
    store, model = f"sqlite:{tmp_path}/runs.db", f"openai:any@{sim.base_url}"
    async with segue.Engine(store, model=model) as engine:
        run = await engine.start(named(before)(), id="it")
        async for event in run:
            if isinstance(event, segue.Recorded) and event.path == "" and event.n == at:
                break
    asked = len(sim.ledger.lines())
    async with segue.Engine(store, model=model) as engine:
        engine.worker.register(named(after).__segue__)
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it", **how)
        return await (await engine.get("it")), len(sim.ledger.lines()) - asked


@pytest.mark.parametrize("keep", [False, True])
async def test_a_step_before_it_changes_nothing_of_it(sim: Simulator, tmp_path: Path, keep: bool) -> None:
    async def after() -> str:
        await known("Oslo")
        return await before()

    assert await changed(sim, tmp_path, after, keep=keep) == ("21 go, about Oh", 1)


async def test_where_its_beginning_changed_its_later_turns_are_asked_anew(
    sim: Simulator, tmp_path: Path
) -> None:
    """What was said to the old question, word for word the same complaint, is no answer to the new one."""

    async def after() -> str:
        found = await degrees("Degrees in Bergen?")
        return f"{found} {await segue.receive(str)}, {await segue.generate('Oh')}"

    assert await changed(sim, tmp_path, after) == ("12 go, about Oh", 3)


async def test_what_was_asked_elsewhere_is_no_answer_to_be_kept(sim: Simulator, tmp_path: Path) -> None:
    async def after() -> str:
        await known("Oslo")
        found = await degrees("How warm is Oslo?")
        return f"{found} {await segue.receive(str)}, {await segue.generate('Oh')}"

    assert await changed(sim, tmp_path, after, keep=True) == ("21 go, about Oh", 1)


async def test_a_call_that_is_left_out_answers_no_later_one(sim: Simulator, tmp_path: Path) -> None:
    async def after() -> str:
        return f"{await segue.receive(str)}, {await segue.generate('Oh')}"

    assert await changed(sim, tmp_path, after, keep=True) == ("go, about Oh", 1)


async def test_after_an_edited_answer_later_turns_are_asked_anew(sim: Simulator, tmp_path: Path) -> None:
    flow = named(before)
    async with segue.Engine(model=f"openai:any@{sim.base_url}") as engine:
        run = await engine.start(flow(), id="it")
        await run.tell("go")
        await run
        asked = len(sim.ledger.lines())
        fork = await engine.fork("it", edit={"#0": "888"})
        assert await fork == "21 go, about Oh"
        assert len(sim.ledger.lines()) == asked + 1


async def rewritten(sim: Simulator, tmp_path: Path, *codes: Any) -> list[tuple[str, int]]:
    """How a run ends under each version of its code, one after the other, and how often that asked the model."""
    out: list[tuple[str, int]] = []
    for code in codes:
        asked = len(sim.ledger.lines())
        async with segue.Engine(f"sqlite:{tmp_path}/runs.db", model=f"openai:any@{sim.base_url}") as engine:
            flow = named(code)
            if out:
                engine.worker.register(flow.__segue__)
                await engine.resume("it")
            else:
                await engine.start(flow(), id="it")
            head = await engine.wait("it")
            said = (head.value or b"").decode() if head.error is None else head.error.message
            out.append((said, len(sim.ledger.lines()) - asked))
    return out


def failing(*prompts: str) -> Any:
    async def code() -> str:
        for prompt in prompts:
            await (degrees(prompt) if prompt.startswith("Degrees") else segue.generate(prompt))
        raise ValueError("not so")

    return code


async def test_what_was_paid_is_found_again_after_any_number_of_versions(
    sim: Simulator, tmp_path: Path
) -> None:
    versions = [failing(prompt) for prompt in ("a", "b", "c", "d")]
    ends = await rewritten(sim, tmp_path, *versions, *versions)
    assert [paid for _, paid in ends] == [1, 1, 1, 1, 0, 0, 0, 0]


async def test_a_conversation_that_is_taken_up_again_goes_on_as_it_did(
    sim: Simulator, tmp_path: Path
) -> None:
    """What was said to another beginning meanwhile, word for word the same complaint, isn't of this one."""

    async def again() -> int:
        return await degrees("Degrees in Oslo?")

    ends = await rewritten(sim, tmp_path, failing("Degrees in Oslo?"), failing("Degrees in Bergen?"), again)
    assert ends == [("not so", 2), ("not so", 2), ("21", 0)]


async def test_so_does_one_that_a_version_broke_off_behind_another_call(
    sim: Simulator, tmp_path: Path
) -> None:
    async def broken_off() -> None:
        await segue.generate("Oh")
        await segue.generate("Degrees in Oslo?", returns=int)
        raise ValueError("not so")

    async def again() -> int:
        await segue.generate("Oh")
        return await degrees("Degrees in Oslo?")

    ends = await rewritten(sim, tmp_path, failing("Degrees in Oslo?"), broken_off, again)
    assert ends == [("not so", 2), ("not so", 1), ("21", 0)]


async def test_a_tool_loop_with_large_results(sim: Simulator, tmp_path: Path) -> None:
    async def look_up(name: str) -> str:
        "Look it up."
        return name * 10_000

    sim.when("Anna").reply(ToolCall("look_up", {"name": "a"}), ToolCall("look_up", {"name": "b"}), "found")

    async def talk() -> str:
        said = await segue.generate("Who is Anna?", tools=[look_up])
        return f"{said} {await segue.receive(str)}"

    async def after() -> str:
        await known("Oslo")
        return await talk()

    assert await changed(sim, tmp_path, after, before=talk, at=2) == ("found go", 0)


@pytest.mark.parametrize("keep", [False, True])
async def test_an_answer_that_came_as_the_code_had_changed_goes_to_its_call(
    tmp_path: Path, keep: bool
) -> None:
    """It is what woke the run, and so there, paid, whenever the code has changed: known by the place of its call."""

    async def talk() -> str:
        await known("Oslo")
        return str(await degrees("Degrees in Oslo?"))

    async def after() -> str:
        await known("Bergen")
        return await talk()

    store = f"sqlite:{tmp_path}/runs.db"
    async with Simulator(rule=rule, batch_time=timedelta(seconds=0.3)) as sim:
        model = f"openai:any@{sim.base_url}"
        async with segue.Engine(store, model=model) as engine:
            run = await engine.start(named(talk)(), id="it", mode="batch")
            while len(sim.batches()) < 2:
                await asyncio.sleep(0.01)
        async with segue.Engine(store, model=model) as engine:
            engine.worker.register(named(after).__segue__)
            assert (await engine.wait("it")).status == "held"
            await engine.resume("it", keep=keep)
            run = await engine.get("it")
            assert await run == "21"
            assert sum(entry.paid for entry in sim.ledger.lines()) == 2
            assert sum(line.calls for line in (await run.receipt()).lines) == 2


@pytest.mark.parametrize("keep", [False, True])
async def test_so_does_what_a_person_said(tmp_path: Path, keep: bool) -> None:
    async def before() -> str:
        return await segue.ask("Where?")

    async def after() -> str:
        await known("Oslo")
        return await segue.ask("Where?")

    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store) as engine:
        run = await engine.start(named(before)(), id="it")
        ask = await anext(aiter(engine.asks()))
    async with segue.Engine(store) as engine:
        engine.worker.register(named(after).__segue__)
        await engine.answer(ask.id, "Oslo")
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it", keep=keep)
        run = await engine.get("it")
        async with asyncio.timeout(5):
            assert await run == "Oslo"
