"""What a run waited for when it was cancelled was closed: it is opened again when a person has the run go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue.model.chat import ChatReply
from segue.model.errors import Conflict, RunCancelled, UnknownName
from segue.model.lane import LineOutcome
from segue.ports.store import Store
from segue.runtime.handles import Ask
from segue.stores import open_store
from tests.runtime.lives import Desk

DONE: list[str] = []
broken: set[str] = set()  #: steps that fail


@pytest.fixture(autouse=True)
def begin() -> None:
    DONE.clear()
    broken.clear()


@segue.step
async def work(name: str) -> None:
    DONE.append(name)


@segue.flow
async def asks(name: str) -> str:
    await work(name)
    return f"{name}: {await segue.ask(f'{name}?')}"


@dataclass
class Asking: ...


class Asks(segue.Actor[str]):
    name: str

    def begin(self) -> Asking:
        return Asking()

    @segue.state
    async def ask(self, _: Asking) -> segue.Done[str]:
        return segue.Done(await asks(self.name))


class Above(segue.Actor[str]):
    def begin(self) -> Asking:
        return Asking()

    @segue.state
    async def ask(self, _: Asking) -> segue.Done[str]:
        return segue.Done(await Asks("a"))


@segue.flow
async def awaits() -> str:
    return await Above()


@segue.flow
async def maps() -> list[str]:
    return await segue.map(asks, ["a", "b", "c"])


async def questions(engine: segue.Engine, *texts: str) -> list[Ask]:
    async with asyncio.timeout(5):
        while True:
            found = await engine.open_asks()
            if sorted(ask.question for ask in found) == sorted(texts):
                return found
            await asyncio.sleep(0.001)


async def cancel(engine: segue.Engine) -> None:
    run = await engine.get("it")
    await run.cancel()
    with pytest.raises(RunCancelled):
        await run
    await questions(engine)  # none is left


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(
    ("make", "names", "runs", "result"),
    [
        (lambda: asks("a"), "a", 1, "a: yes"),
        (lambda: Asks("a"), "a", 1, "a: yes"),
        (Above, "a", 2, "a: yes"),
        (awaits, "a", 3, "a: yes"),
        (maps, "abc", 4, ["a: yes", "b: yes", "c: yes"]),
    ],
)
async def test_a_cancelled_run_goes_on(
    make: Callable[[], Any], names: str, runs: int, result: Any, kind: str, tmp_path: Path
) -> None:
    desk = Desk(open_store(f"sqlite:{tmp_path}/runs.db") if kind == "sqlite" else None)
    texts = [f"{name}?" for name in names]
    async with segue.Engine(desk.store) as engine:
        await engine.start(make(), id="it")
        await questions(engine, *texts)
        await cancel(engine)
    for _ in range(2):  # each time
        async with segue.Engine(desk.store) as engine:
            resumed = await engine.resume("it")
            assert (resumed[0], len(resumed)) == ("it", runs)
            await questions(engine, *texts)
            await cancel(engine)
    async with segue.Engine(desk.store) as engine:
        await engine.resume("it")
        for ask in await questions(engine, *texts):
            await ask.answer("yes")
        assert await (await engine.get("it")) == result
    assert sorted(DONE) == list(names)  # whatever was done stays done
    await desk.store.close()


@segue.flow
async def tidies_up() -> str:
    try:
        await work("paid")
        return await segue.ask("go on?")
    finally:
        await segue.ask("tidy?")


@segue.flow
async def above_one_that_tidies_up() -> list[str]:
    return await segue.map(tidied, [1])


@segue.flow
async def tidied(_: int) -> str:
    return await tidies_up()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_it_isnt_resumed_before_what_it_waited_for_has_ended(kind: str, tmp_path: Path) -> None:
    """It would get that this was cancelled, and pay for another one."""
    desk = Desk(open_store(f"sqlite:{tmp_path}/runs.db") if kind == "sqlite" else None)
    async with segue.Engine(desk.store) as engine:
        run = await engine.start(above_one_that_tidies_up(), id="it")
        await questions(engine, "go on?")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run
        (ask,) = await questions(engine, "tidy?")
        with pytest.raises(
            Conflict, match=f"waits for '{ask.run}', which was cancelled with it and hasn't ended"
        ):
            await engine.resume("it")
        await ask.answer("yes")
        while (await engine.head(ask.run)).status != "cancelled":
            await asyncio.sleep(0.001)
        assert await engine.resume("it") == ["it", ask.run]
        (ask,) = await questions(engine, "go on?")
        await ask.answer("on")
        assert await run == ["on"]
    assert DONE == ["paid"]
    await desk.store.close()


async def test_nor_before_that_was_told_to_end() -> None:
    """As where no process was alive since somebody cancelled it."""
    desk = Desk()
    async with segue.Engine(desk.store) as engine:
        await engine.start(above_one_that_tidies_up(), id="it")
        (ask,) = await questions(engine, "go on?")
        await (await engine.get("it")).cancel()
        await (await questions(engine, "tidy?"))[0].answer("yes")
        while (await engine.head(ask.run)).status != "cancelled":
            await asyncio.sleep(0.001)
        await engine.resume(ask.run)
        await questions(engine, "go on?")
    async with segue.Engine(desk.store, worker=False) as engine:
        await engine.cancel(ask.run)
        with pytest.raises(Conflict, match="hasn't ended"):
            await engine.resume("it")


async def test_one_that_ended_otherwise_meanwhile_isnt_begun_again() -> None:
    desk = Desk()
    async with segue.Engine(desk.store) as engine:
        await engine.start(maps(), id="it")
        await questions(engine, "a?", "b?", "c?")
        await cancel(engine)
        children = [head.id for head in await engine.store.runs() if head.id != "it"]
        for child in children:
            await engine.resume(child)
        for ask in await questions(engine, "a?", "b?", "c?"):
            if ask.question == "b?":
                await ask.answer("alone")
                await engine.wait(ask.run)
        assert await engine.resume("it") == ["it"]  # two go on already, one is done
        for ask in await questions(engine, "a?", "c?"):
            await ask.answer("yes")
        assert await (await engine.get("it")) == ["a: yes", "b: alone", "c: yes"]
    assert sorted(DONE) == ["a", "b", "c"]


# ---------------------------------------------------------------- runs that it spawned
@segue.step
async def fragile(name: str) -> str:
    if name in broken:
        raise RuntimeError(name)
    return name


@segue.flow
async def below() -> str:
    return await fragile("below")


@segue.flow
async def spawns() -> str:
    return await (await segue.spawn(below(), id="below"))


@segue.flow
async def catches() -> str:
    try:
        return await spawns()
    except RuntimeError:
        return await fragile("above")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_one_that_failed_of_a_run_that_it_spawned(kind: str, tmp_path: Path) -> None:
    broken.add("below")
    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        run = await engine.start(spawns(), id="it")
        async with asyncio.timeout(5):
            for _ in range(2):
                with pytest.raises(RuntimeError):
                    await run
                await engine.resume("it")  # fails of it again
            with pytest.raises(RuntimeError):
                await run
            broken.discard("below")
            await engine.resume("below")
            await engine.wait("below")
            await engine.resume("it")
            assert await run == "below"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_one_that_bore_the_failure_of_a_run_that_it_spawned(kind: str, tmp_path: Path) -> None:
    broken.update(("below", "above"))
    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        run = await engine.start(catches(), id="it")
        with pytest.raises(RuntimeError, match="above"):
            await run
        broken.discard("above")
        await engine.resume("it")
        async with asyncio.timeout(5):
            assert await run == "above"


@segue.flow
async def waits_late() -> str:
    run = await segue.spawn(below())
    with suppress(RuntimeError):
        await fragile("below")  # it is over meanwhile
    await fragile("above")
    return await run


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("how", [(), ("below",)])
async def test_one_that_failed_before_it_awaited_a_run_that_it_spawned(
    how: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    broken.update(how, ("above",))
    async with segue.Engine("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db") as engine:
        run = await engine.start(waits_late(), id="it")
        with pytest.raises(RuntimeError, match="above"):
            await run
        (child,) = [head.id for head in await engine.store.runs() if head.id != "it"]
        await engine.wait(child)
        broken.clear()
        await engine.resume("it")
        async with asyncio.timeout(5):
            if not how:
                assert await run == "below"
                return
            with pytest.raises(RuntimeError, match="below"):
                await run
            await engine.resume(child)
            await engine.wait(child)
            await engine.resume("it")
            assert await run == "below"


@segue.flow
async def spawns_one_that_asks() -> str:
    return await (await segue.spawn(asks("a"), id="below"))


async def test_a_run_that_it_spawned_is_done_since() -> None:
    async with segue.Engine(Desk().store) as engine:
        run = await engine.start(spawns_one_that_asks(), id="it")
        (ask,) = await questions(engine, "a?")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run
        await ask.answer("yes")
        await engine.wait("below")
        await engine.resume("it")
        async with asyncio.timeout(5):
            assert await run == "a: yes"


# ---------------------------------------------------------------- batch lines
LANE = "fake||chat|model|"


@segue.flow
async def says(name: str) -> str:
    return await segue.generate(f"say {name}", mode="batch")


async def out_with(store: Store, engine: segue.Engine, call: Any, sent: bool) -> int | None:
    """A run that waits for a line, which lies in its lane or was `sent`, is cancelled; who drives the lane."""
    fence = await store.claim_lane(LANE, "w", 10**12, now=0.0)
    await engine.start(call, id="it")
    while not (await store.line_counts()).get("waiting"):
        await asyncio.sleep(0.001)
    if sent:
        assert fence is not None
        taken = {"max_lines": 9, "max_bytes": 10**6, "job": "B", "nonce": "n", "now": 0.0}
        assert await store.take(LANE, fence, **taken) is not None  # type: ignore[arg-type]  # as it says
    await cancel(engine)
    return fence


async def goes_on(desk: Desk, engine: segue.Engine, paid: int) -> None:
    """The lane is driven again, by the engine."""
    await desk.store.claim_lane(LANE, "w", 0.0, now=0.0)
    async with asyncio.timeout(10):
        assert await (await engine.get("it")) == "said"
    assert sum(desk.fake.remote.sent.values()) == paid


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_line_that_was_withdrawn_is_sent(kind: str, tmp_path: Path) -> None:
    desk = Desk(open_store("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db"))
    desk.fake.when("say").reply("said")
    async with desk.engine() as engine:
        await out_with(desk.store, engine, says("a"), sent=False)
        assert await desk.store.line_counts() == {"cancelled": 1}
        await engine.resume("it")
        await goes_on(desk, engine, 1)
    await desk.store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_line_whose_answer_came_meanwhile_is_sent_again(kind: str, tmp_path: Path) -> None:
    desk = Desk(open_store("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db"))
    desk.fake.when("say").reply("said")
    async with desk.engine() as engine:
        fence = await out_with(desk.store, engine, says("a"), sent=True)
        (line,) = await desk.store.job_lines("B", "", 9)
        assert await desk.store.outcomes("B", fence or 0, [LineOutcome(line.id, "ok", b"1")], now=0.0) == []
        await engine.resume("it")
        await goes_on(desk, engine, 1)
    await desk.store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("status", ["ok", "expired"])
async def test_a_line_that_is_in_a_job_is_waited_for(kind: str, status: Any, tmp_path: Path) -> None:
    """Nothing is paid twice. If its job comes to nothing it goes round again, as if nothing had been."""
    desk = Desk(open_store("memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db"))
    desk.fake.when("say").reply("said")
    async with desk.engine() as engine:
        fence = await out_with(desk.store, engine, says("a"), sent=True)
        await engine.resume("it")
        await desk.parked()
        (line,) = await desk.store.job_lines("B", "", 9)
        reply = msgspec.json.encode(ChatReply("said"))
        outcome = LineOutcome(line.id, status, reply if status == "ok" else None, again=status != "ok")
        assert await desk.store.outcomes("B", fence or 0, [outcome], now=0.0) == []
        await goes_on(desk, engine, int(status != "ok"))
    await desk.store.close()


async def test_it_isnt_resumed_where_an_answer_comes_that_moment() -> None:
    """Else it would wait for what was lost: who resumes looks again."""
    desk = Desk()
    desk.fake.when("say").reply("said")
    async with desk.engine() as engine:
        fence = await out_with(desk.store, engine, says("a"), sent=True)
        (line,) = await desk.store.job_lines("B", "", 9)
        looks = desk.store.open_lines

        async def open_lines(ids: Any) -> list[str]:
            found = await looks(ids)
            await desk.store.outcomes("B", fence or 0, [LineOutcome(line.id, "ok", b"1")], now=0.0)
            return found

        desk.store.open_lines = open_lines  # type: ignore[method-assign]  # for once
        with pytest.raises(Conflict, match="changed meanwhile"):
            await engine.resume("it")
        desk.store.open_lines = looks  # type: ignore[method-assign]  # as it was
        await engine.resume("it")
        await goes_on(desk, engine, 1)


@segue.step(effect="at-most-once")
async def shaky() -> None: ...


@segue.flow
async def short() -> str:
    return "it"


@segue.flow
async def with_a_child() -> str:
    await asyncio.gather(work("a"), work("b"))
    child = await segue.spawn(short())
    await shaky()
    return await child


async def test_a_child_that_ended_before_its_spawn_is_replayed_is_not_forgotten() -> None:
    """It came while the run was held, and is read at the first rest, before the code came to the spawn again."""
    desk = Desk()
    assert await desk.life(with_a_child, 2, after=True) is None
    async with desk.engine() as engine:
        assert (await engine.wait("it")).status == "held"
        (child,) = [head.id for head in await desk.store.runs() if head.id != "it"]
        await engine.wait(child)
        await engine.resume("it", repeat=True)
        async with asyncio.timeout(5):
            assert (await engine.wait("it")).status == "done"


@segue.flow
async def asked_before() -> str:
    await asyncio.gather(work("a"), work("b"))
    answer, _ = await asyncio.gather(segue.ask("Well?"), work("c"))
    await shaky()
    return answer


async def cut_off() -> Desk:
    """A desk whose run is held at its at-most-once step, all before it being done."""
    for die_at in range(3, 9):
        DONE.clear()
        desk = Desk()
        desk.fake.answer("Well?", "yes")
        assert await desk.life(asked_before, die_at, after=True) is None
        async with desk.engine() as engine:
            if (await engine.wait("it")).status == "held":
                return desk
    raise AssertionError("it never was cut off there")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("die_at", [1, 2, 3])
async def test_what_is_taken_over_survives_a_crash_of_the_resumed_run(die_at: int, after: bool) -> None:
    desk = await cut_off()
    async with desk.engine(die_at, after=after) as engine:
        await engine.resume("it", repeat=True)
        assert desk.killed is not None
        async with asyncio.timeout(5):
            await desk.killed
    async with desk.engine() as engine:
        async with asyncio.timeout(5):
            head = await engine.wait("it")
        if head.status == "held":  # cut off once more
            await engine.resume("it", repeat=True)
            async with asyncio.timeout(5):
                head = await engine.wait("it")
        assert head.status == "done"
    assert DONE == ["a", "b", "c"]


@segue.flow
async def asks_beside() -> str:
    asking = asyncio.ensure_future(segue.ask("Well?"))
    await work("a")
    await shaky()
    answer = await asking
    await segue.sleep(timedelta(seconds=1))
    return answer


@pytest.mark.parametrize("after", [False, True])
async def test_a_question_that_stayed_open_is_in_the_journal_of_the_resumed_run(after: bool) -> None:
    """Its answer is the second entry of it; a life that finds it without the first can't tell what it is of."""
    for die_at in range(1, 9):
        desk = Desk(verify=True)
        if await desk.life(asks_beside, 2, after=True) is None and (await desk.head()).status != "held":
            async with desk.engine() as engine:
                await engine.wait("it")
        assert (await desk.head()).status == "held"
        async with desk.engine(die_at, after=after) as engine:
            await engine.resume("it", repeat=True)
            (asked,) = await questions(engine, "Well?")
            await asked.answer("yes")
            ending = asyncio.ensure_future(engine.wait("it"))
            assert desk.killed is not None
            await asyncio.wait({ending, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
        async with desk.engine() as engine:
            while (head := await engine.wait("it")).status == "held":
                assert "at-most-once" in head.reason
                await engine.resume("it", repeat=True)
        assert (head.status, head.value) == ("done", b'"yes"')


# ---------------------------------------------------------------- from a call on
@segue.step(effect="at-most-once")
async def charge(what: str) -> str:
    DONE.append(what)
    return what


@segue.flow
async def judged() -> str:
    await work("before")
    talk = segue.generate("say it", check=is_short)
    _, said = await asyncio.gather(segue.ask("Well?"), talk, return_exceptions=True)
    if isinstance(said, BaseException):
        raise said
    await charge("after")
    return said


def is_short(text: str) -> None:
    if len(text) > 3:
        raise ValueError("it is too long")


async def judged_badly(desk: Desk, answers: list[str]) -> None:
    desk.fake.when("say it").reply(*answers)
    async with desk.engine() as engine:
        await engine.start(judged(), id="it")
        (ask,) = await questions(engine, "Well?")
        await ask.answer("yes")
        assert (await engine.wait("it")).status == "failed"


async def test_a_bad_answer_is_asked_for_again() -> None:
    """A plain resume takes it as it was paid for, and fails of it again."""
    desk = Desk()
    await judged_badly(desk, ["long", "long", "long", "ok"])
    (first,) = [call for call in await desk.calls() if "generate" in call][:1]
    async with desk.engine() as engine:
        await engine.resume("it")
        assert (await engine.wait("it")).status == "failed"
        await engine.resume("it", before=first.split()[0])
        assert (await engine.wait("it")).value == b'"ok"'
    assert DONE == ["before", "after"]


async def test_a_call_that_isnt_there_and_a_run_that_is_held() -> None:
    desk = Desk()
    await judged_badly(desk, ["long", "long", "long"])
    async with desk.engine() as engine:
        with pytest.raises(UnknownName, match="the run's calls are"):
            await engine.resume("it", before="#77")
        assert (await desk.head()).status == "failed"
        assert await desk.life(shakes, 2, after=True, id="held") is None
    async with desk.engine() as engine:
        assert (await engine.wait("held")).status == "held"
        with pytest.raises(Conflict, match="`segue fork held --before '#0'`"):
            await engine.resume("held", before="#0")


@segue.flow
async def shakes() -> None:
    await work("a")
    await shaky()
    await work("b")


async def test_what_was_done_at_most_once_isnt_done_again_unasked() -> None:
    desk = Desk()

    @segue.flow
    async def charges() -> str:
        await charge("once")
        return await fragile("later")

    broken.add("later")
    async with desk.engine() as engine:
        run = await engine.start(charges(), id="it")
        with pytest.raises(RuntimeError):
            await run
        broken.clear()
        await engine.resume("it", before="#0")
        assert (await engine.wait("it")).status == "held"
        assert DONE == ["once"]
        await engine.resume("it", repeat=True)
        assert await run == "later"
        assert DONE == ["once", "once"]


async def test_a_line_that_is_out_beside_it_is_waited_for() -> None:
    desk = Desk()
    desk.fake.when("say").reply("said")

    @segue.flow
    async def both() -> str:
        async def other() -> None:
            await work("x")
            await fragile("other")

        _, said = await asyncio.gather(other(), segue.generate("say it", mode="batch"))
        return said

    broken.add("other")
    async with desk.engine() as engine:
        fence = await desk.store.claim_lane(LANE, "w", 10**12, now=0.0)
        run = await engine.start(both(), id="it")
        assert fence is not None
        with pytest.raises(RuntimeError):
            await run
        before = await desk.store.line_counts()
        broken.clear()
        await engine.resume("it", before="/other.0#0")
        await goes_on(desk, engine, 1)
    assert before == {"cancelled": 1}
    assert DONE == ["x", "x"]
