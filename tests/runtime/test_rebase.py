"""Going on under changed code: what is paid again and what isn't; forks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.core.export import read, write
from segue.model.errors import Conflict, RunCancelled, UnknownName
from segue.model.run import Head
from segue.testing import Simulator
from tests.runtime.lives import Desk, until

S: list[str] = []
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()


@segue.step
async def do(name: str) -> str:
    S.append(name)
    return name


@segue.step(effect="keyed")
async def keyed(name: str) -> str:
    S.append(name)
    return name


@segue.step(effect="at-most-once")
async def charge(name: str) -> str:
    S.append(name)
    return name


def named(fn: Any) -> Any:
    return segue.flow(name="code", version="1")(fn)


async def held_under(desk: Desk, before: Any, after: Any) -> Head:
    """Run one code until it asks, answer, go on under another one."""
    async with desk.engine() as engine:
        await engine.start(named(before)(), id="it")
        while not any(entry.kind == "receive" for entry in await desk.entries()):
            await asyncio.sleep(0.001)
        await desk.parked()
    async with desk.engine() as engine:
        engine.worker.register(named(after).__segue__)
        await engine.tell("it", "str", b'"go"')
        head = await engine.wait("it")
        assert head.status == "held", head
        S.append("--")
        return head


async def resumed(desk: Desk, after: Any, **how: Any) -> Head:
    async with desk.engine() as engine:
        engine.worker.register(named(after).__segue__)
        await engine.resume("it", **how)
        return await engine.wait("it")


async def three() -> str:
    out = await do("a") + await do("b") + await do("c")
    return out + await segue.receive(str) + await do("d")


async def test_rerun_pays_what_changed() -> None:
    async def changed() -> str:
        out = await do("a") + await do("B") + await do("c")
        return out + await segue.receive(str) + await do("d")

    desk = Desk()
    await held_under(desk, three, changed)
    head = await resumed(desk, changed)
    assert head.value == b'"aBcgod"'
    assert S == ["a", "b", "c", "--", "B", "d"]


async def test_keep_accepts_what_was_paid() -> None:
    async def changed() -> str:
        out = await do("a") + await do("B") + await do("c")
        return out + await segue.receive(str) + await do("D")

    desk = Desk()
    await held_under(desk, three, changed)
    head = await resumed(desk, changed, keep=True)
    assert head.value == b'"abcgoD"'
    assert S == ["a", "b", "c", "--", "D"]


async def test_rerun_with_a_call_more() -> None:
    async def changed() -> str:
        await do("new")
        out = await do("a") + await do("b") + await do("c") + await do("a")
        return out + await segue.receive(str)

    desk = Desk()
    await held_under(desk, three, changed)
    head = await resumed(desk, changed)
    assert head.value == b'"abcago"'
    assert S == ["a", "b", "c", "--", "new", "a"]


async def test_an_entry_is_used_once_over_lives_too() -> None:
    async def changed() -> str:
        out = await do("a")
        await segue.sleep(DAY)
        out += await do("a") + await do("b")
        return out + await segue.receive(str)

    desk = Desk()
    await held_under(desk, three, changed)
    await resumed(desk, changed)
    assert S == ["a", "b", "c", "--", "a"]


async def test_held_twice_nothing_is_lost() -> None:
    async def first() -> str:
        out = await do("a") + await charge("x") + await do("b") + await do("c")
        return out + await segue.receive(str)

    async def changed() -> str:
        out = await do("A") + await charge("y") + await do("b") + await do("c")
        return out + await segue.receive(str)

    desk = Desk()
    await held_under(desk, first, changed)
    head = await resumed(desk, changed)
    assert head.status == "held"
    assert head.cause == (
        "the at-most-once step 'charge' was done before, with other arguments or on another way, and would be "
        "done again."
    )
    assert "`segue resume it --rerun --repeat`" in head.reason
    assert S == ["a", "x", "b", "c", "--", "A"]
    head = await resumed(desk, changed, repeat=True)
    assert head.value == b'"Aybcgo"', head
    assert S == ["a", "x", "b", "c", "--", "A", "y"]


async def test_keyed_steps_want_consent_too() -> None:
    async def first() -> str:
        return await do("a") + await keyed("x") + await segue.receive(str)

    async def changed() -> str:
        return await do("A") + await keyed("x") + await segue.receive(str)  # the same arguments: not repeated

    async def more() -> str:
        return await do("A") + await keyed("y") + await segue.receive(str)

    desk = Desk()
    await held_under(desk, first, changed)
    assert (await resumed(desk, changed)).value == b'"Axgo"'

    desk = Desk()
    await held_under(desk, first, more)
    assert "the keyed step 'keyed' was done before" in (await resumed(desk, more)).reason


async def test_now_is_told_again_by_what_is_taken_over() -> None:
    async def first() -> str:
        await do("a")
        await segue.sleep(DAY)
        await do(f"b {segue.now()}")
        await asyncio.gather(do("c"), do("d"))
        await do(f"e {segue.now()}")
        return await segue.receive(str)

    async def changed() -> str:
        await do("a")
        await segue.sleep(DAY)
        await do(f"b {segue.now()}")
        await asyncio.gather(do("c"), do("d"))
        await do(f"e {segue.now()}")
        await do("new")
        return await segue.receive(str)

    desk = Desk()
    await held_under(desk, first, changed)
    await resumed(desk, changed)
    assert S[S.index("--") + 1 :] == ["new"]


async def test_races_come_out_as_they_did() -> None:
    async def first() -> str:
        tasks = [asyncio.create_task(segue.sleep(timedelta(hours=9 - n))) for n in range(4)]
        order = ""
        for n, done in enumerate(asyncio.as_completed(tasks)):
            await done
            order += str(next(i for i, task in enumerate(tasks) if task.done() and str(i) not in order))
            await do(f"{n} {order}")
        return await segue.receive(str)

    async def changed() -> str:
        await do("new")
        return await first()

    desk = Desk()
    await held_under(desk, first, changed)
    await resumed(desk, changed)
    assert S[S.index("--") + 1 :] == ["new"]


# ---------------------------------------------------------------- what was open
async def asks(question: str, more: str = "") -> str:
    if more:
        await do(more)
    out = await do("a")
    return out + await segue.ask(question) + await segue.receive(str)


@pytest.mark.parametrize("more", ["", "new"])
async def test_an_open_question_stays_or_is_asked_anew(more: str) -> None:
    async def first() -> str:
        return await asks("Old?")

    async def same() -> str:
        await do("new")
        return await asks("Old?", more)

    async def changed() -> str:
        return await asks("New?", more)

    for code, question in ((same, "Old?"), (changed, "New?")):
        desk = Desk()
        async with desk.engine() as engine:
            await engine.start(named(first)(), id="it")
            await desk.parked()
        async with desk.engine(worker=False) as engine:
            await engine.tell("it", "str", b'"go"')
            if code is changed:
                await engine.answer("it:1", "to the old one")
        async with desk.engine() as engine:
            engine.worker.register(named(code).__segue__)
            await engine.wait("it")
            await engine.resume("it")
            await desk.until("it", "parked")
            (ask,) = await engine.open_asks()
            assert ask.question == question
            await ask.answer("!")
            assert await (await engine.get("it")) == "a!go"


async def test_a_batch_line_that_was_out_is_taken() -> None:
    async def first() -> str:
        one, two = await asyncio.gather(segue.generate("one", mode="batch"), segue.ask("Sure?"))
        return one + two + await segue.receive(str)

    async def changed() -> str:
        await do("new")
        await do("newer")
        return await first()

    desk = Desk()
    desk.fake.when("one").reply("1")
    async with desk.engine() as engine:
        await engine.start(named(first)(), id="it")
        await desk.parked()
    async with desk.engine(worker=False) as engine:
        await engine.tell("it", "str", b'"go"')
    async with desk.engine() as engine:
        engine.worker.register(named(changed).__segue__)
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        await desk.until("it", "parked")
        for ask in await engine.open_asks():
            await ask.answer("!")
        assert await (await engine.get("it")) == "1!go"
    assert sum(desk.fake.remote.sent.values()) == 1


async def test_a_changed_batch_line_doesnt_get_the_old_outcome() -> None:
    async def first() -> str:
        return await segue.generate("one", mode="batch") + await segue.receive(str)

    async def changed() -> str:
        return await segue.generate("two", mode="batch") + await segue.receive(str)

    desk = Desk()
    desk.fake.when("one").reply("1")
    desk.fake.when("two").reply("2")
    async with desk.engine() as engine:
        await engine.start(named(first)(), id="it")
        await desk.parked()
    async with desk.engine(worker=False) as engine:
        await engine.tell("it", "str", b'"go"')
    async with desk.engine() as engine:
        engine.worker.register(named(changed).__segue__)
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it")
        assert await (await engine.get("it")) == "2go"


# ---------------------------------------------------------------- failed runs, refusals
async def test_a_failed_run_is_tried_again() -> None:
    @segue.step(effect="keyed")
    async def flaky() -> str:
        S.append("flaky")
        if S.count("flaky") == 1:
            raise OSError("down")
        return "up"

    @segue.flow
    async def flow() -> str:
        return await do("a") + await flaky()

    desk = Desk()
    with pytest.raises(OSError, match="down"):
        await desk.run(flow())
    async with desk.engine() as engine:
        await engine.resume("it")
        assert await (await engine.get("it")) == "aup"
        with pytest.raises(Conflict, match="is done"):
            await engine.resume("it")
    assert S == ["a", "flaky", "flaky"]


async def test_a_cancelled_run_goes_on() -> None:
    @segue.flow
    async def flow() -> str:
        return await do("a") + await segue.receive(str)

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        await run.cancel()
        await desk.until("it", "cancelled")
        await engine.resume("it")
        await desk.parked()
        await run.tell("go")
        assert await run == "ago"
    assert S == ["a"]


# ---------------------------------------------------------------- forks
@segue.flow
async def story(topic: str) -> str:
    plot = await segue.generate(f"plot {topic}")
    name = await do("name")
    text = await segue.generate(f"text {plot} {name}")
    return text + await keyed("publish")


async def told() -> Desk:
    desk = Desk()
    desk.fake.when("plot sea").reply("plot0")
    desk.fake.when("text").reply(lambda call: f"<{call.text}>")
    await desk.run(story("sea"))
    desk.fake.calls.clear()
    S.clear()
    return desk


async def test_fork_with_an_edited_value() -> None:
    desk = await told()
    async with desk.engine() as engine:
        fork = await engine.fork("it", edit={"#1": "other"}, id="fork")
        assert (await fork).startswith("<text plot0 other>")
    assert [call.text for call in desk.fake.calls] == ["text plot0 other"]
    assert S == []
    assert (await desk.head("fork")).spec.origin == "it"
    assert (await desk.head("it")).status == "done"


async def test_fork_before_a_call() -> None:
    desk = await told()
    async with desk.engine() as engine:
        fork = await engine.fork("it", before="#2", id="fork")
        head = await engine.wait(fork.id)
        assert head.status == "held"
        assert "'keyed' was done before" in head.reason
        await engine.resume("fork", repeat=True)
        assert await fork == "<text plot0 name>publish"
        again = await engine.fork("it", before="#2", id="again", repeat=True)
        assert await again == "<text plot0 name>publish"
    assert [call.text for call in desk.fake.calls] == ["text plot0 name"] * 2
    assert S == ["publish"] * 2


async def test_fork_with_another_model() -> None:
    desk = await told()
    desk.fake.when("plot sea", model="fake:big").reply("big plot")
    async with desk.engine() as engine:
        fork = await engine.fork("it", id="fork", model="fake:big", before="#0", repeat=True)
        assert (await fork).startswith("<text big plot name>")
    assert [call.model for call in desk.fake.calls] == ["fake:big"] * 2


async def test_a_fork_draws_what_its_origin_drew() -> None:
    """An id or a chance in a prompt is no reason to pay for it anew."""

    @segue.flow
    async def drawing() -> str:
        told = await segue.generate(f"lot {segue.uuid()} {segue.random.randint(0, 10**12)}")
        return told + await do("last")

    desk = Desk()
    desk.fake.when("lot").reply(lambda call: call.text)
    first = await desk.run(drawing())
    async with desk.engine() as engine:
        assert await (await engine.fork("it", id="fork", before="#3")) == first
        assert await (await engine.fork("fork", id="fork of a fork", before="#3")) == first
    assert len(desk.fake.calls) == 1
    assert S == ["last"] * 3
    fork = await desk.head("fork")
    exported = read(write(fork, await desk.entries("fork")))
    assert exported.head.spec.seed == fork.spec.seed == (await desk.head("it")).mark


async def test_a_fork_repeats_its_origins_pauses() -> None:
    """The pause before a step's next attempt has a chance in it too."""
    attempts: list[int] = []

    @segue.step(retry=3)
    async def at_the_second() -> str:
        attempts.append(1)
        if len(attempts) < 2:
            raise OSError("not yet")
        return "done"

    @segue.flow
    async def retrying() -> str:
        return await at_the_second() + await do("last")

    desk = Desk()
    await desk.run(retrying())
    async with desk.engine() as engine:
        await (await engine.fork("it", id="fork", before="#3"))
    pauses = [[e.args for e in await desk.entries(id) if e.kind == "sleep"] for id in ("it", "fork")]
    assert pauses[0] == pauses[1] != []
    assert len(attempts) == 2


async def test_fork_of_what_isnt_there() -> None:
    desk = await told()
    async with desk.engine() as engine:
        with pytest.raises(UnknownName, match=r"no call '#9'; the run's calls are #0, #1, #2, #3"):
            await engine.fork("it", before="#9")
        with pytest.raises(UnknownName, match="no run 'nobody'"):
            await engine.fork("nobody")
        await engine.fork("it", id="fork")
        with pytest.raises(Conflict, match="there already"):
            await engine.fork("it", id="fork")


class Unbooked(segue.Note):
    what: str


@segue.flow
async def books(what: str) -> str:
    try:
        return await segue.ask(f"Pay for {what}?")
    except asyncio.CancelledError:
        await segue.tell("office", Unbooked(what))
        raise


@segue.flow
async def office() -> str:
    return (await segue.receive(Unbooked)).what


async def test_a_cancelled_run_that_told_somebody_as_it_ended_goes_on() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        told = await engine.start(office(), id="office")
        run = await engine.start(books("a room"), id="it")
        while not await engine.open_asks():
            await asyncio.sleep(0.001)
        await run.cancel()
        assert await told == "a room"
        with pytest.raises(RunCancelled):
            await run
        await engine.resume("it")
        while not (asks := await engine.open_asks()):
            await asyncio.sleep(0.001)
        await asks[0].answer("paid")
        assert await (await engine.get("it")) == "paid"


FAILS = ["once"]


@segue.step
async def fails() -> None:
    if FAILS:
        raise ValueError(FAILS.pop())


@segue.flow
async def charged_then_broken() -> bool:
    first, second = [await segue.generate("Hi", returns=segue.Reply[str]) for _ in range(2)]
    await charge("a")
    await segue.tell("it", "a note to itself")
    await fails()
    return second.reused and not first.reused


async def test_what_is_taken_over_is_taken_over_again_by_the_lives_to_come() -> None:
    """That an at-most-once step was made is written with what it gave; and an answer says where it came from."""
    FAILS[:] = ["once"]
    desk = Desk(reuse=True, verify=True)
    desk.fake.when("Hi").reply("there")
    async with desk.engine() as engine:
        await engine.start(charged_then_broken(), id="it")
        assert (await engine.wait("it")).status == "failed"
    async with desk.engine() as engine:
        await engine.resume("it")
        head = await engine.wait("it")
        assert (head.status, head.value) == ("done", b"true"), head.reason
        lines = (await (await engine.get("it")).receipt()).lines
        assert sorted((line.lane, line.calls) for line in lines) == [("live", 1), ("reused", 1)]
    assert S == ["a"]


@segue.step(effect="at-most-once")
async def slow_charge() -> str:
    S.append("charged")
    await asyncio.sleep(0.02)
    return "paid"


@segue.flow
async def beside_what_fails() -> str:
    async with asyncio.TaskGroup() as group:
        charging = group.create_task(slow_charge())
        group.create_task(fails())
    return charging.result()


@segue.flow
async def alone() -> str:
    return await slow_charge()


async def ended_in_a_charge(desk: Desk, flow: Any, status: str) -> None:
    """A run that a sibling's error, or a person, ended while something that mustn't be done twice was under way."""
    FAILS[:] = ["once"]
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        if status == "cancelled":
            await until(lambda: S)
            await run.cancel()
        assert (await engine.wait("it")).status == status


@pytest.mark.parametrize(("flow", "status"), [(beside_what_fails, "failed"), (alone, "cancelled")])
async def test_what_may_have_happened_when_a_run_ended_isnt_done_again_unasked(
    flow: Any, status: str
) -> None:
    desk = Desk(verify=True)
    await ended_in_a_charge(desk, flow, status)
    with pytest.raises(Conflict, match="was cut off, so nothing of it can be kept"):
        async with desk.engine() as engine:
            await engine.resume("it", keep=True)
    for _ in range(2):  # the second one is asked by who was told
        async with desk.engine() as engine:
            await engine.resume("it")
            head = await engine.wait("it")
            S.append(head.status)
    assert "was cut off: it may have happened" not in head.reason
    assert S == ["charged", "held", "charged", "done"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"value": "so be it"}, ["charged", '"so be it"']),
        ({"repeat": True}, ["charged", "charged", '"paid"']),
    ],
)
async def test_who_knows_what_happened_when_a_run_ended_says_so_at_once(how: Any, said: list[str]) -> None:
    desk = Desk(verify=True)
    await ended_in_a_charge(desk, alone, "cancelled")
    async with desk.engine() as engine:
        await engine.resume("it", **how)
        S.append(((await engine.wait("it")).value or b"").decode())
    assert said == S


async def test_an_error_that_was_dealt_with_is_told_again_to_changed_code() -> None:
    FAILS[:] = ["once"]

    async def dealt_with() -> str:
        try:
            await fails()
        except ValueError:
            await do("a")
        return await segue.receive(str)

    async def changed() -> str:
        out = "fine"
        try:
            await fails()
        except ValueError:
            out = await do("A")
        return out + await segue.receive(str)

    desk = Desk(verify=True)
    await held_under(desk, dealt_with, changed)
    assert (await resumed(desk, changed)).value == b'"Ago"'
    assert S == ["a", "--", "A"]


@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("other", ["openai:n@{0}/v1", "anthropic:claude@{0}"])
async def test_what_a_model_answered_is_kept_for_another_one_that_can_read_it(
    other: str, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as the first one's; for a model of another provider the run is held, and what was paid stays."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "key")
    add = False

    async def branch() -> str:
        if add:
            await segue.step(str, name="new")(1)
        return await segue.generate("one", mode=mode)

    @segue.flow(version="1")
    async def code() -> list[str]:
        return list(await asyncio.gather(branch(), segue.receive(str)))

    async with Simulator(batch_time=timedelta(seconds=0.1)) as sim, segue.Engine(linger=0.02) as engine:
        model = f"openai:m@{sim.base_url}"
        await engine.start(code(), id="it", model=model)
        while (await engine.head("it")).status != "parked":
            await asyncio.sleep(0.001)
        add = True
        await engine.tell("it", "str", b'"go"')
        assert (await engine.wait("it")).status == "held"
        await engine.resume("it", keep=True, model=other.format(sim.url))
        head = await engine.wait("it")
        if "anthropic" in other:
            assert head.status == "held"
            assert "answered by a model of another provider" in head.cause
            await engine.resume("it", keep=True, model=model)
        assert await (await engine.get("it")) == ["You said: one", "go"]
        assert [(use.model, use.lane) for use in (await engine.head("it")).usage] == [("openai:m", mode)]
        assert sum(entry.paid for entry in sim.ledger.lines()) == 1
