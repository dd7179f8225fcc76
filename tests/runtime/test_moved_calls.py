"""Calls that wait as the code in front of them changes: what is out for them is waited for, and not begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import segue
from segue.cli.waits import Waits
from segue.ports.provider import RemoteJob
from segue.runtime.handles import Ask
from segue.testing.fake_provider import FakeProvider
from tests.runtime.lives import Desk, until

DONE: list[str] = []


HELD: set[str] = set()  #: batches that aren't done yet


@pytest.fixture(autouse=True)
def begin(monkeypatch: pytest.MonkeyPatch) -> None:
    DONE.clear()
    HELD.clear()
    poll = FakeProvider.poll

    async def held(self: FakeProvider, job: str) -> RemoteJob:
        seen = await poll(self, job)
        return msgspec.structs.replace(seen, status="in_progress", over=False) if job in HELD else seen

    monkeypatch.setattr(FakeProvider, "poll", held)


@segue.step
async def do(name: str) -> str:
    DONE.append(name)
    return name


class Say(segue.Request[str]):
    text: str


class Clerk(segue.Actor[None]):
    @segue.on
    async def say(self, message: Say) -> str:
        await do(message.text)
        return await segue.ask("Say what?")


@segue.flow
async def below(text: str) -> str:
    return await do(text) + await segue.ask("Below what?")


async def a_line() -> str:
    return await segue.generate("one", mode="batch")


async def a_question() -> str:
    return await segue.ask("What?")


@dataclass
class Asking: ...


class Below(segue.Actor[str]):
    text: str

    def begin(self) -> Asking:
        return Asking()

    @segue.state
    async def ask(self, _: Asking) -> segue.Done[str]:
        return segue.Done(await below(self.text))


async def a_child() -> str:
    return await Below("x")


async def mapped() -> str:
    (only,) = await segue.map(below, ["x"])
    return only


async def spawned() -> str:
    return await (await segue.spawn(Below("x")))


async def a_request() -> str:
    clerk: Any = await CLERK[-1].get("clerk")
    return await clerk.request(Say("x"))


CLERK: list[segue.Engine] = []


async def a_step_more() -> None:
    await do("new")


async def a_question_more() -> None:
    await segue.ask("New?")


async def a_wait_more() -> None:
    await segue.sleep(timedelta(seconds=1))


async def a_line_more() -> None:
    await segue.generate("new", mode="batch")


async def a_child_more() -> None:
    await Below("new")


def named(fn: Any) -> Any:
    return segue.flow(name="code", version="1")(fn)


async def questions(engine: segue.Engine, *texts: str) -> list[Ask]:
    async with asyncio.timeout(2):
        while True:
            found = await engine.open_asks()
            if {ask.question for ask in found} >= set(texts):
                return found
            await asyncio.sleep(0.001)


MORE = [a_step_more, a_question_more, a_wait_more, a_line_more, a_child_more]
KINDS: dict[Callable[[], Any], tuple[str, str]] = {
    a_line: ("", "1"),
    a_question: ("What?", "yes"),
    a_child: ("Below what?", "xyes"),
    mapped: ("Below what?", "xyes"),
    spawned: ("Below what?", "xyes"),
    a_request: ("Say what?", "yes"),
}


ALIKE = {a_line: a_line_more, a_question: a_question_more, a_child: a_child_more}


#: With `--keep` one that is called alike takes what is there by its name.
CASES = [
    (kind, more, keep)
    for kind in KINDS
    for more in MORE
    for keep in (False, True)
    if not keep or ALIKE.get(kind) is not more
]


@pytest.mark.parametrize("came", ["before", "after"])
@pytest.mark.parametrize(("kind", "more", "keep"), CASES)
async def test_what_a_call_waits_for_is_what_was_begun_for_it(
    kind: Callable[[], Any], more: Callable[[], Any], came: str, keep: bool
) -> None:
    """A call comes in front of it, while its outcome `came` already, or is out."""
    add = False

    async def branch() -> str:
        if add:
            await more()
        return await kind()

    async def code() -> str:
        one, two = await asyncio.gather(branch(), segue.receive(str))
        return one + two

    desk = Desk()
    question, result = KINDS[kind]
    desk.fake.when("one").reply("1")
    desk.fake.when("new").reply("2")
    HELD.add("batch-0")
    async with desk.engine() as engine:
        CLERK.append(engine)
        await engine.start(Clerk(), id="clerk")
        await engine.start(named(code)(), id="it")
        await desk.parked()
        old = await questions(engine, *filter(None, [question]))
        while kind is a_line and not desk.fake.remote.jobs:
            await asyncio.sleep(0.001)
    add = True
    async with desk.engine(worker=False) as engine:
        await engine.tell("it", "str", b'"go"')
    async with desk.engine() as engine:
        CLERK.append(engine)
        assert (await engine.wait("it")).status == "held"

        async def outcome() -> None:
            HELD.clear()
            for ask in await engine.open_asks():
                if ask.id in [one.id for one in old]:
                    await ask.answer("yes")

        if came == "before":
            await outcome()
            await settled(engine, kind)
        await engine.resume("it", keep=keep)
        answering = asyncio.ensure_future(answer(engine, "New?", "Below what?", but={ask.id for ask in old}))
        if came == "after":
            await until(lambda: DONE.count("new") == 1 or more not in (a_step_more, a_child_more))
            await asyncio.sleep(0.05)
            assert {ask.id for ask in await engine.open_asks()} == {ask.id for ask in old}
            await outcome()
        async with asyncio.timeout(2):
            assert await (await engine.get("it")) == f"{result}go"
        answering.cancel()
    assert DONE.count("x") <= 1
    assert set(desk.fake.remote.sent.values()) <= {1}
    assert len(desk.fake.remote.sent) == (kind is a_line) + (more is a_line_more)


async def settled(engine: segue.Engine, kind: Callable[[], Any]) -> None:
    """What the outcome comes from is over."""
    if kind is a_line:
        while await engine.store.line_counts(open_only=True):
            await asyncio.sleep(0.001)
    elif kind in (a_child, mapped, spawned):
        for head in await engine.store.runs(after="it.", limit=9):
            await engine.wait(head.id)
    await asyncio.sleep(0.02)


async def answer(engine: segue.Engine, *texts: str, but: set[str]) -> None:
    """Questions that weren't there before."""
    async for ask in engine.asks():
        if ask.question in texts and ask.id not in but:
            await ask.answer("new")


async def test_one_more_at_the_head_of_what_is_gathered_is_all_that_is_paid() -> None:
    names = ["a", "b", "c"]

    async def one(name: str) -> str:
        draft = await segue.generate(f"draft {name}")
        return await segue.generate(f"better {draft}")

    async def code() -> str:
        *found, _ = await asyncio.gather(*map(one, names), segue.receive(str))
        return ", ".join(found)

    desk = Desk()
    desk.fake.when("draft").reply(lambda call: call.text.removeprefix("draft "))
    desk.fake.when("better").reply(lambda call: call.text.removeprefix("better ").upper())
    async with desk.engine() as engine:
        await engine.start(named(code)(), id="it")
        await desk.parked()
    names = ["new", "c", "a", "b"]
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        before = len(desk.fake.calls)
        await engine.resume("it")
        assert await (await engine.get("it")) == "NEW, C, A, B"
    assert [call.text for call in desk.fake.calls[before:]] == ["draft new", "better new"]


async def test_branches_that_draw_from_one_queue_keep_what_each_drew() -> None:
    """What they ask is alike, so a call fits in each of them: who has begun as before goes on as before."""
    add = False

    async def draws(name: str, more: bool = False) -> str:
        found = [name, await do(name)]
        if more and add:
            found.append(await do("new"))
        for _ in range(2):
            found.append(str(await draw()))
        return " ".join(found)

    async def code() -> list[str]:
        *found, _ = await asyncio.gather(draws("a", True), draws("b"), segue.receive(str))
        return found

    @segue.step
    async def draw() -> int:
        DONE.append("draw")
        await asyncio.sleep(0.002)
        return DONE.count("draw")

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(named(code)(), id="it")
        await desk.parked()
        drawn = {entry.path: entry.value for entry in await desk.entries() if entry.name == "draw"}
    add = True
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        await engine.wait("it")
        assert {e.path: e.value for e in await desk.entries() if e.name == "draw"} == drawn
    assert DONE.count("draw") == 4


async def test_ids_of_runs_that_moved_are_theirs_in_a_proof_too() -> None:
    add = False

    async def code() -> list[str]:
        if add:
            await segue.map(do, ["new"])  # its branch has the number that the other one had
        ids = [str(outcome.run.id) for outcome in await segue.map(below, ["x", "y"], errors="return")]
        return [await do(id) for id in sorted(ids)] + [await segue.receive(str)]

    desk = Desk(verify=True)
    flow = named(code)
    async with desk.engine() as engine:
        await engine.start(flow(), id="it")
        old = await questions(engine, "Below what?")
        while len(old) < 2:
            old = await questions(engine, "Below what?")
        await old[0].answer("yes")
        await engine.wait(old[0].run)
        await desk.parked()
    add = True
    async with desk.engine(worker=False) as engine:
        await engine.answer(old[1].id, "yes")
    async with desk.engine() as engine:
        engine.worker.register(flow.__segue__)
        while (await desk.head()).status != "held":
            await asyncio.sleep(0.001)
        await engine.resume("it")
        await desk.until("it", "parked")
        await (await engine.get("it")).tell("go")
        assert await (await engine.get("it")) == [*sorted(ask.run for ask in old), "go"]


async def test_an_event_of_a_question_names_the_call_that_asks_it() -> None:
    desk = Desk()
    text = "First?"

    @segue.flow(name="code", version="1")
    async def code() -> str:
        return await do("x") + await segue.ask(text)

    async with desk.engine() as engine:
        await engine.start(code(), id="it")
        await questions(engine, "First?")
    text = "Second?"
    async with desk.engine() as engine:
        run = await engine.get("it")
        await run.cancel()
        await engine.wait("it")
        await engine.resume("it")
        async for event in run:
            if isinstance(event, segue.Asked):
                assert (event.question.id, event.path, event.n) == ("it:1.1", "", 1)
                await event.ask.answer("no")
        assert await run == "xno"


@pytest.mark.parametrize("gathers", [False, True])
async def test_a_renumbered_branch_is_known_after_a_second_resume(gathers: bool) -> None:
    """Its own calls come later: after one that is new, and in another life; but for what it gathers first."""
    names, add = ["a", "b"], False

    async def one(name: str) -> str:
        found = await asyncio.gather(do(f"1{name}"), do(f"2{name}")) if gathers else [name]
        if add:
            await do(f"new {name}")
            await segue.ask(f"Newer {name}?")
        return await do(" ".join(found))

    async def code() -> str:
        *found, _ = await asyncio.gather(*map(one, names), segue.receive(str))
        return ", ".join(found)

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(named(code)(), id="it")
        await desk.parked()
    names, add = ["c", "a", "b"], True
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        await desk.parked()
        await engine.cancel("it")
        await engine.wait("it")
        await engine.resume("it")
        for ask in await questions(engine, *(f"Newer {name}?" for name in names)):
            await ask.answer("yes")
        expected = "1c 2c, 1a 2a, 1b 2b" if gathers else "c, a, b"
        assert await (await engine.get("it")) == expected
    assert {name: DONE.count(name) for name in DONE} == dict.fromkeys(DONE, 1)


async def test_renumbered_branches_that_begin_alike_are_known_by_what_comes_then() -> None:
    names = ["a", "b"]

    async def one(name: str) -> str:
        await do("settings")
        return await do(name)

    async def code() -> str:
        *found, _ = await asyncio.gather(*map(one, names), segue.receive(str))
        return ", ".join(found)

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(named(code)(), id="it")
        await desk.parked()
    names = ["c", "a", "b"]
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        assert await (await engine.get("it")) == "c, a, b"
    assert {name: DONE.count(name) for name in DONE} == {"settings": 3, "a": 1, "b": 1, "c": 1}


async def test_a_new_branch_that_does_what_mustnt_be_done_twice_is_held_first() -> None:
    names = ["a", "b"]

    @segue.step(effect="at-most-once")
    async def charge(name: str) -> str:
        DONE.append(name)
        return name

    async def one(name: str) -> str:
        return await charge(name)

    async def code() -> list[str]:
        return [*await asyncio.gather(*map(one, names)), await segue.receive(str)]

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(named(code)(), id="it")
        await desk.parked()
    names = ["new", "a", "b"]
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        head = await engine.wait("it")
        assert (head.status, DONE) == ("held", ["a", "b"])
        assert "`segue resume it --rerun --repeat`" in head.reason
        await engine.resume("it", repeat=True)
        assert await (await engine.get("it")) == ["new", "a", "b", "go"]
    assert DONE == ["a", "b", "new"]


@pytest.mark.parametrize("when", ["with it", "by its resume", "later"])
async def test_a_line_of_a_call_that_moved_and_would_be_live_by_now_is_waited_for(when: str) -> None:
    """And is paid once, also of its budget."""
    add, mode = False, "batch"

    async def branch() -> str:
        if add:
            await do("new")
        with segue.using(mode=mode) if mode else nullcontext():
            return await segue.generate("one")

    async def code() -> list[str]:
        return await asyncio.gather(branch(), segue.receive(str), segue.receive(str))

    desk = Desk(budget=segue.Budget(tokens=10_000))
    desk.fake.when("one").reply("1")
    HELD.add("batch-0")
    flow = named(code)
    async with desk.engine() as engine:
        await engine.start(flow(), id="it")
        await desk.parked()
        await until(lambda: desk.fake.remote.jobs)
    add = True
    mode = {"with it": "live", "by its resume": "", "later": "batch"}[when]
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it", **({"mode": "live"} if when == "by its resume" else {}))
        await desk.parked()
    mode = mode and "live"
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"on"')
        await desk.parked()
        HELD.clear()
        async with asyncio.timeout(5):
            assert await (await engine.get("it")) == ["1", "go", "on"]
        (standing,) = await engine.store.budgets([])
    assert (standing.spent.tokens, standing.reserved.tokens) == (2, 0)
    assert len(desk.fake.calls) == 1


async def begin_in_a_branch(
    desk: Desk, engine: segue.Engine, kind: Callable[[], Any], front: list[str]
) -> None:
    """A run of which one branch waits for such a call; what is put in front of that later is done before."""

    async def branch() -> str:
        for name in front:
            await do(name)
        return await kind()

    async def code() -> list[str]:
        return await asyncio.gather(branch(), segue.receive(str))

    desk.fake.when("one").reply("1")
    HELD.add("batch-0")
    await engine.start(named(code)(), id="it")
    await desk.parked()
    await until(lambda: desk.fake.remote.jobs or kind is not a_line)


@pytest.mark.parametrize(
    ("kind", "says"), [(a_line, "batch-0"), (a_question, "What?"), (a_child, "of Below")]
)
async def test_what_a_moved_call_waits_for_is_told(kind: Callable[[], Any], says: str) -> None:
    front: list[str] = []
    desk = Desk()
    async with desk.engine() as engine:
        await begin_in_a_branch(desk, engine, kind, front)
        before = await Waits(desk.store).words(await desk.head())
    front.append("new")
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        words = await Waits(desk.store).words(await desk.parked())
    assert says in words
    if kind is not a_line:  # how far that is may have changed
        assert words.removeprefix("for ") in before


@segue.flow
async def short_of_money() -> str:
    return await segue.generate("two", mode="live")


async def test_a_row_that_waits_for_a_line_that_moved_and_for_a_held_run_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("segue.runtime.ends.POLL", 0.02)
    add = False

    async def line() -> str:
        if add:
            await do("new")
        return await segue.generate("one", mode="batch")

    async def child() -> str:
        return await (await segue.spawn(short_of_money(), budget=segue.Budget(tokens=10)))

    async def code(x: int) -> str:
        ways = {asyncio.ensure_future(way()) for way in (line, child)}
        await segue.receive(str)
        done, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()
        return done.pop().result()

    desk = Desk()
    desk.fake.when("one").reply("1")
    HELD.add("batch-0")
    flow = named(code)
    async with desk.engine() as engine:
        engine.map(flow, [0], id="job")
        await desk.parked("job/0")
        await until(lambda: desk.fake.remote.jobs)
    add = True
    async with desk.engine() as engine:
        await engine.tell("job/0", "str", b'"go"')
        with pytest.raises(segue.errors.RunHeld):
            await engine.map(flow, [0], id="job")
        await engine.resume("job/0")
        job = asyncio.ensure_future(_values(engine.map(flow, [0], id="job")))
        await desk.parked("job/0")
        assert (await engine.store.newest(status=("held",)))[0]
        await asyncio.sleep(0.1)
        assert not job.done()
        HELD.clear()
        async with asyncio.timeout(5):
            assert await job == ["1"]


async def _values(job: segue.Job[int, str]) -> list[Any]:
    return [outcome.error or outcome.value async for outcome in job]


@pytest.mark.parametrize(("kind", "result"), [(a_line, "1"), (a_child, "xyes")])
async def test_a_call_that_moved_and_was_cancelled_goes_on_with_what_it_had_begun(
    kind: Callable[[], Any], result: str
) -> None:
    front: list[str] = []
    desk = Desk()
    async with desk.engine() as engine:
        await begin_in_a_branch(desk, engine, kind, front)
        begun = {head.id for head in await engine.store.runs()}
    front.append("new")
    async with desk.engine() as engine:
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        await desk.parked()
        await engine.cancel("it")
        assert {(await engine.wait(id)).status for id in begun} == {"cancelled"}
        resumed = await engine.resume("it")
        assert set(resumed) == begun
        await desk.parked()
        HELD.clear()
        for ask in await questions(engine, *(["Below what?"] if kind is a_child else [])):
            await ask.answer("yes")
        async with asyncio.timeout(5):
            assert await (await engine.get("it")) == [result, "go"]
        assert {head.id for head in await engine.store.runs()} == begun
    assert DONE.count("x") <= 1
    assert set(desk.fake.remote.sent.values()) <= {1}
    assert len(desk.fake.remote.sent) == (kind is a_line)
