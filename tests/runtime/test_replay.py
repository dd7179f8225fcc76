"""Replay: code that no longer does what its journal says is held, with a difference that can be read."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import segue
from segue.model.run import Head
from tests.runtime.lives import Desk


@segue.step
async def do(name: str) -> str:
    return name


@segue.step
async def other(name: str) -> str:
    return name


class Code:
    """A flow whose code may change between two lives."""

    def __init__(self) -> None:
        self.desk = Desk()

    async def before(self, fn: Callable[[int], Any], ids: tuple[str, ...] = ("it",)) -> None:
        """Run it until it waits for mail."""
        async with self.desk.engine() as engine:
            for n, id in enumerate(ids):
                await engine.start(segue.flow(name="code", version="1")(fn)(n), id=id)
                await self.desk.parked(id)
        async with self.desk.engine(worker=False) as engine:
            for id in ids:
                await engine.tell(id, "str", b'"go"')

    async def after(self, fn: Callable[[int], Any], id: str = "it") -> Head:
        """Run the changed code."""
        async with self.desk.engine() as engine:
            engine.worker.register(segue.flow(name="code", version="2")(fn).__segue__)  # type: ignore[attr-defined]
            return await engine.wait(id)


async def twice(n: int) -> str:
    text = await do("a") + await do("b")
    return text + await segue.receive(str) + await segue.receive(int | str)


async def held(before: Any, after: Any) -> str:
    code = Code()
    await code.before(before)
    head = await code.after(after)
    assert head.status == "held", head
    assert "--keep" in head.reason
    assert "--rerun" in head.reason
    return head.reason


async def test_other_arguments() -> None:
    async def changed(n: int) -> str:
        return await do("a") + await do("c") + await segue.receive(str) + await segue.receive(str)

    reason = await held(twice, changed)
    assert "call 1 of branch '/', step 'do', isn't as recorded. The arguments differ" in reason
    assert '-   "b"' in reason or '-  "b"' in reason, reason
    assert '"c"' in reason


async def test_another_call() -> None:
    async def changed(n: int) -> str:
        return await do("a") + await other("b") + await segue.receive(str) + await segue.receive(str)

    reason = await held(twice, changed)
    assert "was step 'do' and is now step 'other'" in reason


async def test_a_call_added_in_the_middle() -> None:
    async def changed(n: int) -> str:
        await other("new")
        return await twice(n)

    assert "call 0 of branch '/' was step 'do' and is now step 'other'" in await held(twice, changed)


async def test_a_call_gone() -> None:
    async def changed(n: int) -> str:
        return "done"

    reason = await held(twice, changed)
    assert "was step 'do' and is now not made" in reason

    async def waits(n: int) -> str:
        await asyncio.Event().wait()
        return "?"

    assert "not made" in await held(twice, waits)


async def test_a_clock_in_a_prompt() -> None:
    async def clocked(n: int) -> str:
        await do(f"At {time.time_ns()} it is late")
        return await segue.receive(str) + await segue.receive(str)

    reason = await held(clocked, clocked)
    assert "segue.now()" in reason

    async def lucky(n: int) -> str:
        await do(f"id {random.getrandbits(64):016x}")
        return await segue.receive(str) + await segue.receive(str)

    assert "segue.uuid()" in await held(lucky, lucky)


async def test_runs_held_for_one_reason_are_a_group() -> None:
    async def row(n: int) -> str:
        async def branch(i: int) -> str:
            return await do(f"row {n} {i}")

        await asyncio.gather(*(branch(i) for i in range(1 + n)))
        return await segue.receive(str) + await segue.receive(str)

    async def changed(n: int) -> str:
        async def branch(i: int) -> str:
            return await do(f"line {n} {i}")

        await asyncio.gather(*(branch(i) for i in range(1 + n)))
        return await segue.receive(str) + await segue.receive(str)

    code = Code()
    await code.before(row, ("first", "second", "third"))
    heads = [await code.after(changed, id) for id in ("first", "second", "third")]
    assert {head.cause for head in heads} == {"A recorded call has other arguments now: step 'do'."}
    assert len({head.reason for head in heads}) == 3


async def test_nothing_is_lost_or_paid_by_holding() -> None:
    async def changed(n: int) -> str:
        return await do("x") + await segue.receive(str) + await segue.receive(str)

    code = Code()
    await code.before(twice)
    assert (await code.after(changed)).status == "held"
    calls = await code.desk.calls()
    assert calls[:2] == ["#0 step do", "#1 step do"]
    async with code.desk.engine() as engine:  # as the code was: it goes on once told to
        engine.worker.register(segue.flow(name="code", version="1")(twice).__segue__)  # type: ignore[attr-defined]
        await engine.resume("it")
        await engine.tell("it", "str", b'"!"')
        assert await (await engine.get("it")) == "abgo!"


async def test_nothing_that_a_replay_did_is_written_where_its_engine_closes_in_the_middle() -> None:
    async def tells(n: int) -> str:
        async def beside() -> None:
            await segue.tell(segue.me(), "told")

        task = asyncio.create_task(beside())
        await asyncio.sleep(60)
        await task
        return await do("b")

    code = Code()
    await code.before(twice)
    async with code.desk.engine() as engine:
        engine.worker.register(segue.flow(name="code", version="2")(tells).__segue__)  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
    assert await code.desk.calls() == ["#0 step do", "#1 step do", "#2 receive receive"]
    assert [letter.mail.value for letter in await code.desk.store.inbox("it", 0)] == [b'"go"']
