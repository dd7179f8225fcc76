"""Actors, steps and flows inside each other, and started, spawned and mapped alike."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

import segue
from segue import Actor, Done
from segue.authoring import mail
from segue.core.codec import digest
from segue.errors import InvalidValue, NotInRun, RunCancelled, UnknownName, WrongPlace
from segue.model.run import Head
from segue.testing import FakeModel, check
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

DID: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    DID.clear()


@dataclass
class Doubling:
    n: int


class Doubler(Actor[int]):
    n: int
    by: int = 2

    def begin(self) -> Doubling:
        return Doubling(self.n)

    @segue.state
    async def double(self, work: Doubling) -> Done[int]:
        await segue.sleep(timedelta(minutes=work.n))
        if work.n == 7:
            raise ValueError("seven")
        return Done(await times(work.n, self.by))


@segue.step
async def times(n: int, by: int = 3) -> int:
    DID.append(f"{n}*{by}")
    return n * by


@segue.step
async def doubles() -> int:
    return await Doubler(1)


@segue.flow
async def both() -> list[int]:
    one = await Doubler(1)
    spawned = await segue.spawn(Doubler(2, by=5))
    two, three = await asyncio.gather(Doubler(3), Doubler(by=10, n=4))
    return [one, await spawned, two, three, await (await segue.spawn(times(5)))]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_actors_are_children_whatever_crashes(kind: str, tmp_path: Path) -> None:
    async def begin(engine: Any) -> None:
        DID.clear()
        await engine.start(both(), id="both")

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b"[2,10,6,40,15]"
        assert len(set(DID)) == 5

    await at_every_commit(begin, "both", check, kind=kind, path=tmp_path)


async def test_a_child_that_fails_raises_in_its_parent() -> None:
    @segue.flow
    async def careful() -> str:
        try:
            await Doubler(7)
        except ValueError as error:
            return f"caught {error}"
        return ""

    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(careful(), id="c") == "caught seven"


async def test_maps_over_actors() -> None:
    @segue.flow
    async def mapped() -> list[list[int]]:
        made = await segue.map(lambda n: Doubler(n, by=100), [1, 2])
        return [await segue.map(Doubler, [1, 2, 3]), made]

    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(mapped(), id="m") == [[2, 4, 6], [100, 200]]
        assert await engine.map(Doubler, [5, 6], id="job") == [10, 12]
        outcomes = {}
        async for outcome in engine.map(Doubler, [5, 6, 7], id="again"):
            outcomes[outcome.input] = outcome.value if outcome.ok else repr(outcome.error)
        assert outcomes == {5: 10, 6: 12, 7: "ValueError('seven')"}


async def test_steps_are_runs_too(tmp_path: Path) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(times(4, by=4))
        assert run.id.startswith("times-")
        assert await run == 16
        assert await engine.run(times(2)) == 6
        assert await engine.map(times, [1, 2], id="job") == [3, 6]
        assert (await desk.head(run.id)).spec.target == "step:times"


async def test_a_run_of_a_step_is_found_again_by_its_name() -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        await engine.start(times(6), id="later")
    async with desk.engine() as engine:
        assert await (await engine.get("later")) == 18


async def test_what_no_run_is_of() -> None:
    async def plain() -> None: ...

    desk = Desk()
    async with desk.engine() as engine:
        with pytest.raises(UnknownName, match=r"decorate .*plain\(\) with @segue.flow or @segue.step"):
            await engine.run(plain())
        with pytest.raises(TypeError, match="a flow, a step or an actor"):
            await engine.run(17)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidValue, match=r"Doubler\.n"):
            await engine.start(Doubler("x"))  # type: ignore[arg-type]  # on purpose
        with pytest.raises(NotInRun, match=r"^`await Doubler\(…\)` was called outside a run"):
            await Doubler(1)
        with pytest.raises(WrongPlace, match=r"^`await Doubler\(…\)` was called inside the step 'doubles'"):
            await engine.run(doubles())


async def test_an_actor_is_awaited_in_a_test_as_a_flow_is() -> None:
    model = FakeModel()
    async with model:
        assert await Doubler(3) == 6


@segue.flow
async def runner(hours: int) -> int:
    try:
        await segue.sleep(timedelta(hours=hours))
    except asyncio.CancelledError:
        await note(f"{hours} gave up")
        raise
    return hours


@segue.step
async def note(text: str) -> None:
    DID.append(text)


@segue.flow
async def race(hours: list[int]) -> list[str]:
    runs = [await segue.spawn(runner(each)) for each in hours]
    waiting = [asyncio.ensure_future(_end(run)) for run in runs]
    for first in asyncio.as_completed(waiting):
        told = [await first]
        break
    for run in runs:
        await run.cancel()
    return told + sorted(await asyncio.gather(*waiting))


async def _end(run: segue.Run[int]) -> str:
    try:
        return f"{await run} won"
    except RunCancelled:
        return "cancelled"


async def test_a_run_cancels_the_children_that_lost() -> None:
    async with FakeModel():
        assert await race([3, 1, 2]) == ["1 won", "1 won", "cancelled", "cancelled"]
    assert sorted(DID) == ["2 gave up", "3 gave up"]
    await check(race, [[3, 1, 2]], model=FakeModel(), kills=5)


async def test_a_run_cancels_a_child_that_it_has_just_begun() -> None:
    @segue.flow
    async def at_once() -> str:
        run = await segue.spawn(runner(1))
        await run.cancel()
        return await _end(run)

    async with FakeModel():
        assert await at_once() == "cancelled"


async def test_a_runs_record_isnt_read_in_the_code_of_one() -> None:
    @segue.step
    async def status(run: segue.Run[int]) -> str:
        return (await run.head()).status

    @segue.flow
    async def reads(where: str) -> str:
        run = await segue.spawn(runner(1))
        await segue.sleep(timedelta(hours=2))
        return await status(run) if where == "step" else (await run.head()).status

    async with FakeModel():
        assert await reads("step") == "done"
        with pytest.raises(WrongPlace, match="read it in a step"):
            await reads("flow")


async def noted(text: str) -> str:
    await note(text)
    return text


@segue.flow
async def hasty(texts: list[str]) -> list[str]:
    loop, begin = asyncio.get_running_loop(), getattr(asyncio, "eager_task_factory")  # noqa: B009  # new in 3.12
    return list(await asyncio.gather(*(begin(loop, noted(text)) for text in texts)))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="has no eager tasks")
async def test_a_task_that_a_library_begins_eagerly_is_one_of_the_run() -> None:
    async with FakeModel():
        assert await hasty(["a", "b"]) == ["a", "b"]
    await check(hasty, [["a", "b"]], model=FakeModel())


# ---------------------------------------------------------------- results of what is mixed
Passed = TypeVar("Passed")


@dataclass
class Pair:
    one: int
    two: str


class Passing(Actor[Passed], kw_only=True):
    extra: int = 0


class PassingLists(Passing[list[Passed]], kw_only=True):
    pass


class Pairs(Passing[Pair]):
    def begin(self) -> Done[Pair]:
        return Done(Pair(1, "b"))


class Many(PassingLists[Pair]):
    def begin(self) -> Done[list[Pair]]:
        return Done([Pair(1, "b")])


class Plain(Actor, kw_only=True):
    pass


class Mixes(Plain, Pairs):
    pass


async def test_a_result_that_a_generic_base_was_given() -> None:
    desk = Desk()
    assert await desk.run(Pairs(), id="pair") == Pair(1, "b")
    assert await desk.run(Many(), id="many") == [Pair(1, "b")]
    assert await desk.run(Mixes(), id="mixes") == Pair(1, "b")


@segue.flow
async def takes_text(text: str) -> int:
    return len(text)


class TakesText(Actor[int]):
    text: str

    def begin(self) -> Done[int]:
        return Done(len(self.text))


async def test_the_digest_of_a_childs_arguments_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a mapped one", "a spawned one", "an awaited one"]
    taken: list[bytes] = []

    @segue.flow
    async def starts() -> int:
        DID.append("a life")
        mapped, *_ = await segue.map(takes_text, texts[:1])
        return mapped + await (await segue.spawn(takes_text(texts[1]))) + await TakesText(texts[2])

    def counted(data: bytes) -> bytes:
        taken.append(data)
        return digest(data)

    monkeypatch.setattr(mail, "digest", counted)
    async with segue.Engine("memory:") as engine:
        assert await engine.run(starts()) == sum(map(len, texts))
    for text in texts:
        assert 1 <= sum(text.encode() in data for data in taken) <= len(DID)  # once in each life
