"""Flows: calling each other, options around calls, resources, events, cancellation."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.model.errors import Conflict, InvalidValue, NotEncodable, RunCancelled, UnknownName
from segue.model.run import Head
from segue.runtime.ground.events import Emitted
from tests.runtime.lives import Desk, everywhere

DAY = timedelta(days=1)
S: list[str] = []


@segue.step
async def do(name: str) -> str:
    S.append(name)
    return name


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()


@segue.flow
async def inner(n: int) -> str:
    return await do(f"{n}") + await do(f"{n}!")


async def test_flows_call_flows_in_branches() -> None:
    @segue.flow
    async def outer() -> list[str]:
        one = await inner(1)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(inner(4))
        return [one, *await asyncio.gather(inner(2), inner(3)), task.result()]

    desk = Desk(verify=True)
    assert await desk.run(outer()) == ["11!", "22!", "33!", "44!"]
    assert len(await desk.store.runs()) == 1
    assert (await desk.calls())[:3] == ["#0 step do", "#1 step do", "/inner.0#0 step do"]


async def test_a_flow_is_a_coroutine_function_to_frameworks() -> None:
    if sys.version_info >= (3, 12):  # before, only asyncio can be told
        assert inspect.iscoroutinefunction(inner)
    else:
        assert asyncio.iscoroutinefunction(inner)
    call = inner(1)
    assert asyncio.iscoroutine(call)
    call.close()


async def test_a_call_is_used_once() -> None:
    desk = Desk()
    call = inner(1)
    assert await desk.run(call) == "11!"
    with pytest.raises(RuntimeError, match="given to an engine already"):
        await call


async def test_arguments_by_name_and_default() -> None:
    @segue.flow
    async def flow(a: int, *, b: str = "x", c: tuple[int, ...] = ()) -> list[Any]:
        await segue.sleep(DAY)
        return [a, b, c]

    assert await Desk().run(flow(1, c=(1, 2))) == [1, "x", [1, 2]]


async def test_what_an_engine_runs() -> None:
    async def plain() -> None:
        """No flow."""

    @segue.flow
    async def odd(thing: Any) -> Any:
        return object()

    desk = Desk()
    with pytest.raises(UnknownName, match=r"@segue\.flow"):
        await desk.run(plain())
    with pytest.raises(TypeError, match="the call of a flow"):
        await desk.run(inner)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(NotEncodable):
        await desk.run(odd(object()))
    with pytest.raises(NotEncodable, match="the result of flow"):
        await desk.run(odd(1))
    with pytest.raises(TypeError, match="async function"):
        segue.flow(lambda: None)  # type: ignore[arg-type]  # on purpose


async def test_an_id_makes_it_idempotent() -> None:
    desk = Desk()
    assert await desk.run(inner(1)) == "11!"
    assert await desk.run(inner(1)) == "11!"
    assert S == ["1", "1!"]
    with pytest.raises(Conflict, match=r"other arguments \(1, now 2\); .* await engine.get\("):
        await desk.run(inner(2))


async def test_input_that_doesnt_fit() -> None:
    desk = Desk()
    with pytest.raises(InvalidValue):
        await desk.run(inner("no number"))  # type: ignore[arg-type]  # on purpose


# ---------------------------------------------------------------- options
async def test_using_nests() -> None:
    @segue.flow
    async def flow() -> list[str]:
        async def said() -> str:
            return (await segue.generate("hi", returns=segue.Reply[str])).model

        out = [await said()]
        with segue.using(model="fake:a"):
            out.append(await said())
            with segue.using(mode="batch"):
                out.append(await said())
                with segue.using(models={"judge": "fake:j"}, model="judge"):
                    out += await asyncio.gather(said(), said())
            out.append(await said())
        out.append((await segue.generate("hi", model="fake:call", returns=segue.Reply[str])).model)
        out.append(await said())
        return out

    desk = Desk(verify=True)
    desk.fake.when("hi").reply("ho")
    a, b, j, call = "fake:model", "fake:a", "fake:j", "fake:call"
    assert await desk.run(flow()) == [a, b, b, j, j, b, call, a]
    usage = {(use.model, use.lane): use.calls for use in (await desk.head()).usage}
    assert usage == {
        ("fake:model", "live"): 2,
        ("fake:a", "live"): 2,
        ("fake:a", "batch"): 1,
        ("fake:j", "batch"): 2,
        ("fake:call", "live"): 1,
    }


# ---------------------------------------------------------------- resources, events
async def test_resources_are_one_a_process() -> None:
    @segue.resource
    async def client() -> AsyncIterator[list[str]]:
        S.append("open")
        yield ["client"]
        S.append("close")

    @segue.step
    async def use() -> str:
        return (await client())[0]

    @segue.flow
    async def flow() -> list[str]:
        got = [*await asyncio.gather(*(use() for _ in range(3))), (await client())[0]]
        await segue.sleep(DAY)
        return [*got, (await client())[0]]

    desk = Desk()
    assert await desk.run(flow()) == ["client"] * 5
    assert S == ["open", "close"]
    await desk.run(flow(), id="other")
    assert S == ["open", "close"] * 2


async def test_a_resource_that_fails_is_made_anew() -> None:
    @segue.resource
    async def client() -> AsyncIterator[int]:
        S.append("open")
        if len(S) == 1:
            raise OSError("down")
        yield 1

    @segue.step(retry=2)
    async def use() -> int:
        return await client()

    @segue.flow
    async def flow() -> int:
        return await use()

    assert await Desk().run(flow()) == 1


async def test_a_resource_whose_close_fails_harms_no_other() -> None:
    @segue.resource
    async def bad() -> AsyncIterator[int]:
        yield 1
        raise OSError("won't close")

    @segue.resource
    async def good() -> AsyncIterator[int]:
        yield 1
        S.append("closed")

    @segue.flow
    async def flow() -> int:
        return await good() + await bad()

    assert await Desk().run(flow()) == 2
    assert S == ["closed"]


async def test_events() -> None:
    @segue.flow
    async def flow() -> None:
        await segue.emit({"at": 1})
        await segue.sleep(DAY)
        await segue.emit({"at": 2})
        with pytest.raises(NotEncodable, match=r"what emit\(\) tells can't be recorded"):
            await segue.emit(object())

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        seen = [event.value async for event in run if isinstance(event, Emitted)]
    assert seen == [{"at": 1}, {"at": 2}]


# ---------------------------------------------------------------- cancellation
async def test_cancellation_compensates_durably() -> None:
    @segue.flow
    async def flow() -> None:
        await do("reserve")
        try:
            await segue.receive(str)
        except asyncio.CancelledError:
            await do("refund")
            await segue.sleep(DAY)
            await do("mail")
            raise

    async def cancelled_once(die_at: int | None, after: bool) -> bool:
        S.clear()
        desk = Desk()
        whole = True
        async with desk.engine() as engine:
            run = await engine.start(flow(), id="it")
            await desk.parked()
            await run.cancel()
        for life in range(20):
            head = await desk.life(flow, die_at if life == 0 else None, after=after)
            if head is not None:
                break
            whole = False
        assert head is not None
        assert head.status == "cancelled"
        assert S[0] == "reserve"
        assert [text for i, text in enumerate(S) if text not in S[:i]] == ["reserve", "refund", "mail"]
        assert len(S) <= 4
        with pytest.raises(RunCancelled, match="'it' was cancelled"):
            await desk.run(flow())
        return whole

    for after in (False, True):
        for die_at in range(1, 20):
            if await cancelled_once(die_at, after):
                break


async def test_cancellation_may_be_refused() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            await segue.ask("Sure?")
        except asyncio.CancelledError:
            return await do("no")
        return "?"

    desk = Desk(verify=True)
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        await run.cancel()
        await run.cancel()
        assert await run == "no"


async def test_cancellation_of_branches_and_children() -> None:
    @segue.flow
    async def child(n: int) -> None:
        try:
            await segue.sleep(9 * DAY)
        finally:
            S.append(f"child {n}")

    @segue.flow
    async def flow() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(segue.ask("A?"))
            group.create_task(segue.receive(str))
            await segue.map(child, range(2))

    desk = Desk()
    desk.fake.clock.busy = lambda sleeping: True
    async with desk.engine() as engine:
        desk.fake.clock.busy = lambda sleeping: True
        run = await engine.start(flow(), id="it")
        await desk.parked()
        await run.cancel()
        await desk.until("it", "cancelled")
        for head in await desk.store.runs():
            await desk.until(head.id, "cancelled")
        assert not await engine.open_asks()
    assert len(await desk.store.runs()) == 3


async def test_cancelled_before_it_began_and_when_it_is_over() -> None:
    desk = Desk()
    async with desk.engine(worker=False) as engine:
        run = await engine.start(inner(1), id="it")
        await run.cancel()
    head = await desk.life(lambda: inner(1), None)
    assert head is not None
    assert head.status == "cancelled"
    async with desk.engine() as engine:
        with pytest.raises(Conflict, match="it is cancelled"):
            await (await engine.get("it")).cancel()


async def test_a_step_at_work_is_stopped_by_cancellation() -> None:
    began = asyncio.Event()

    @segue.step
    async def long() -> None:
        began.set()
        await asyncio.sleep(60)

    @segue.flow
    async def flow() -> str:
        try:
            await long()
        except asyncio.CancelledError:
            return await do("stopped")
        return "?"

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await began.wait()
        await run.cancel()
        assert await run == "stopped"


async def test_a_run_in_the_middle_of_everything_survives_crashes() -> None:
    @segue.flow
    async def child(n: int) -> str:
        return await inner(n)

    @segue.flow
    async def flow() -> list[str]:
        with segue.using(mode="batch"):
            said = asyncio.create_task(segue.generate("hi"))
        out = await segue.map(child, [1, 2])
        with segue.using(mode="batch"):
            out.append(await said + await segue.generate("hi"))
        return out

    def set_up(desk: Desk) -> None:
        S.clear()
        desk.fake.when("hi").reply("ho")

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'["11!","22!","hoho"]', head
        assert all(count <= 1 for count in desk.fake.remote.sent.values())

    await everywhere(flow, set_up, check)
