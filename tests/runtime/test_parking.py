"""Leaving memory: what users write around a wait comes out right, or the author is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import anyio
import httpx2
import pytest

import segue
from segue.model.errors import NotInRun, RunHeld, WrongPlace
from segue.model.run import Head
from segue.stores.memory import MemoryStore
from tests.runtime.lives import Desk, everywhere

S: list[str] = []


def say(text: str) -> None:
    S.append(text)


@segue.step
async def do(name: str) -> str:
    say(f"do {name}")
    return name


async def drive(call: Any, **options: Any) -> Any:
    """Run a flow whose questions are all answered `ans:…`, one life for each park."""
    S.clear()
    desk = Desk(**options)
    async with desk.engine() as engine:
        run = await engine.start(call, id="it")

        async def answer() -> None:
            async for ask in engine.asks():
                await desk.parked()
                await ask.answer(f"ans:{ask.question}")

        answering = asyncio.create_task(answer())
        try:
            return await run
        finally:
            answering.cancel()


# ---------------------------------------------------------------- clean-up at each park
async def test_a_context_is_entered_in_each_life() -> None:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        say("open")
        try:
            yield
        finally:
            say("close")

    @segue.flow
    async def flow() -> str:
        async with opened():
            a = await segue.ask("q1")
            await do("use")
        return a

    assert await drive(flow()) == "ans:q1"
    assert S == ["open", "close", "open", "do use", "close"]


async def test_a_finally_runs_at_each_park_and_its_steps_once() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            return await segue.ask("q1")
        finally:
            say("finally")
            await do("cleanup")

    assert await drive(flow()) == "ans:q1"
    assert S == ["finally", "finally", "do cleanup"]


async def test_exceptions_of_any_kind_arent_parks() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            return await segue.ask("q1")
        except Exception as error:
            say(f"swallowed {error!r}")
            return "?"

    assert await drive(flow()) == "ans:q1"
    assert S == []


async def test_a_bare_except_is_told_or_harmless() -> None:
    @segue.flow
    async def flow() -> str:
        for _ in range(20):
            try:
                return await segue.ask("q1")
            except:  # noqa: E722  # what this test is about
                say("bare")
        return "gave up"

    assert await drive(flow()) == "ans:q1"
    assert S == ["bare"] * 20


async def test_a_bare_except_that_never_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    @segue.flow
    async def flow() -> str:
        while True:
            try:
                return await segue.ask("q1")
            except asyncio.CancelledError:
                pass

    assert await drive(flow()) == "ans:q1"
    (record,) = [
        record for record in caplog.records if record.levelno == logging.ERROR and record.name == "segue"
    ]
    assert "refuses to be cancelled" in record.getMessage()
    assert "let asyncio.CancelledError pass" in record.getMessage()


async def test_compensation_isnt_done_at_a_park() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            await do("reserve")
            return await segue.ask("q1")
        except asyncio.CancelledError:
            say("compensating")
            await do("refund")
            raise

    assert await drive(flow()) == "ans:q1"
    assert "do refund" not in S


async def test_suppressed_cancellation() -> None:
    @segue.flow
    async def flow() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            say(await segue.ask("q1"))
        say("went on")
        return await do("next")

    assert await drive(flow()) == "next"
    assert S == ["went on", "ans:q1", "went on", "do next"]


# ---------------------------------------------------------------- asyncio's own constructs
async def test_shield(caplog: pytest.LogCaptureFixture) -> None:
    @segue.flow
    async def flow() -> str:
        async def inner() -> str:
            try:
                return await segue.ask("q1")
            finally:
                say("inner")

        return await asyncio.shield(inner())

    assert await drive(flow()) == "ans:q1"
    assert S == ["inner", "inner"]


async def test_task_group() -> None:
    @segue.flow
    async def flow() -> list[str]:
        async def one(i: int) -> str:
            try:
                await do(f"s{i}")
                return await segue.ask(f"q{i}")
            finally:
                say(f"fin{i}")

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(i)) for i in range(3)]
        return [task.result() for task in tasks]

    assert await drive(flow()) == ["ans:q0", "ans:q1", "ans:q2"]
    assert sum(text.startswith("do") for text in S) == 3


async def test_gather_that_returns_exceptions() -> None:
    @segue.flow
    async def flow() -> list[Any]:
        got = await asyncio.gather(*(segue.ask(f"q{i}") for i in range(3)), return_exceptions=True)
        say("after gather")
        return got

    assert await drive(flow()) == ["ans:q0", "ans:q1", "ans:q2"]
    assert S[-1] == "after gather"


async def test_semaphore() -> None:
    @segue.flow
    async def flow() -> list[str]:
        semaphore = asyncio.Semaphore(2)

        async def one(i: int) -> str:
            async with semaphore:
                return await segue.ask(f"q{i}")

        return await asyncio.gather(*(one(i) for i in range(5)))

    assert await drive(flow()) == [f"ans:q{i}" for i in range(5)]


async def test_async_generator() -> None:
    @segue.flow
    async def flow() -> list[str]:
        async def source() -> AsyncIterator[str]:
            try:
                for i in range(2):
                    yield await segue.ask(f"q{i}")
            finally:
                say("gen")

        return [x async for x in source()]

    assert await drive(flow()) == ["ans:q0", "ans:q1"]
    assert S == ["gen"] * 3


async def test_queue_and_event_and_condition() -> None:
    @segue.flow
    async def flow() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        ready = asyncio.Event()
        condition = asyncio.Condition()

        async def produce() -> None:
            await ready.wait()
            await queue.put(await segue.ask("q1"))
            async with condition:
                condition.notify_all()

        async def watch() -> str:
            async with condition:
                await condition.wait()
            return "notified"

        tasks = [asyncio.create_task(produce()), asyncio.create_task(watch())]
        ready.set()
        first = await queue.get()
        return [first, await tasks[1]]

    assert await drive(flow()) == ["ans:q1", "notified"]


# ---------------------------------------------------------------- waits outside segue
async def test_a_raw_sleep_is_waited_for() -> None:
    @segue.flow
    async def flow() -> list[str]:
        async def raw() -> str:
            await asyncio.sleep(0.02)
            say("slept")
            return "raw"

        return await asyncio.gather(segue.ask("q1"), raw())

    assert await drive(flow(), linger=5.0) == ["ans:q1", "raw"]
    assert S == ["slept"] or S == ["slept"] * 2


async def test_a_long_raw_sleep_is_evicted_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    @segue.flow
    async def flow() -> str:
        async def raw() -> None:
            await asyncio.sleep(30)  # the line

        task = asyncio.create_task(raw())
        answer = await segue.ask("q1")
        task.cancel()
        return answer

    assert await drive(flow(), linger=0.02) == "ans:q1"
    (warning,) = [record.getMessage() for record in caplog.records if "parks although" in record.getMessage()]
    assert "outside segue" in warning
    assert "segue.sleep()" in warning
    line = raw_line("# the line\n")
    assert f"test_parking.py:{line}" in warning


def raw_line(mark: str) -> int:
    with open(__file__) as file:
        return next(n for n, text in enumerate(file, 1) if text.endswith(mark))


async def test_a_heartbeat() -> None:
    @segue.flow
    async def flow() -> str:
        async def beat() -> None:
            while True:
                await asyncio.sleep(0.002)
                say(".")

        task = asyncio.create_task(beat())
        try:
            first = await segue.ask("q1")
            return first + await do("!") + await segue.ask("q2")
        finally:
            task.cancel()

    assert await drive(flow(), linger=0.02) == "ans:q1!ans:q2"


@pytest.mark.parametrize("how", ["to_thread", "executor", "gathered", "waited"])
async def test_a_raw_thread_is_lingered_for(how: str, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> str:
        time.sleep(0.03)
        say("worked")
        return "w"

    @segue.flow
    async def flow() -> list[str]:
        loop = asyncio.get_running_loop()

        async def raw() -> str:
            if how == "executor":
                return await loop.run_in_executor(None, work)
            return await asyncio.to_thread(work)

        if how == "gathered":
            return list(await asyncio.gather(segue.ask("q1"), loop.run_in_executor(None, work)))
        if how == "waited":
            asking = asyncio.create_task(segue.ask("q1"))
            await asyncio.wait({asking, loop.run_in_executor(None, work)})
            return [asking.result(), "w"]
        return list(await asyncio.gather(segue.ask("q1"), raw()))

    desk = Desk(linger=5.0)
    S.clear()
    async with desk.engine() as engine:
        run = await engine.start(flow(), id="it")
        await desk.parked()
        assert S == ["worked"]  # it wasn't left alone
        await engine.answer((await engine.open_asks())[0].id, "a")
        assert await run == ["a", "w"]
    assert not [record for record in caplog.records if "parks although" in record.getMessage()]


async def test_a_raw_request_over_http_is_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    @segue.flow
    async def flow() -> str:
        async with httpx2.AsyncClient() as client:
            return await do((await client.get(url)).text)

    async with server:
        assert await drive(flow()) == "hello"


@pytest.mark.parametrize("how", ["group", "lock"])
async def test_groups_and_locks_of_anyio_arent_lingered_for(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    @segue.flow
    async def flow() -> list[str]:
        out, lock = list[str](), anyio.Lock()

        async def one(name: str) -> None:
            if how == "group":
                out.append(await segue.ask(name))
                return
            async with lock:
                out.append(await segue.ask(name))

        if how == "lock":
            await asyncio.gather(one("a"), one("b"))
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(one, "a")
                group.start_soon(one, "b")
        return sorted(out)

    async with asyncio.timeout(10):
        assert await drive(flow(), linger=60.0) == ["ans:a", "ans:b"]
    assert not [record for record in caplog.records if "parks although" in record.getMessage()]


async def test_a_finally_that_waits_outside_segue() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            return await segue.ask("q1")
        finally:
            await asyncio.sleep(0.05)
            say("cleaned")

    assert await drive(flow()) == "ans:q1"
    assert S == ["cleaned", "cleaned"]


async def test_tasks_left_behind_dont_outlive_the_run() -> None:
    left: list[Any] = []

    @segue.flow
    async def flow() -> str:
        left.append(asyncio.create_task(segue.ask("Never?")))
        left.append(asyncio.create_task(asyncio.sleep(100)))
        return await do("x")

    assert await drive(flow()) == "x"
    assert all(task.done() for task in left)


# ---------------------------------------------------------------- what is told to the author
async def test_a_lock_nobody_releases() -> None:
    @segue.flow
    async def flow() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        await do("x")
        await lock.acquire()

    with pytest.raises(RunHeld, match=r"nobody releases\. Wait in a step for one that a thread"):
        await drive(flow())


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("how", ["callback", "thread", "executor"])
async def test_a_lock_that_a_callback_or_a_thread_releases_isnt_held(how: str, verify: bool) -> None:
    """Nothing tells it from one that nobody does, but time: in a replay, too."""

    async def released() -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        if how == "callback":
            loop.call_later(0.1, event.set)
        elif how == "thread":
            threading.Timer(0.1, loop.call_soon_threadsafe, (event.set,)).start()
        else:
            for done in asyncio.as_completed([loop.run_in_executor(None, time.sleep, 0.1)]):
                await done
            return
        await event.wait()

    @segue.flow
    async def flow() -> str:
        await do("a")
        await released()
        await do("b")
        return await segue.ask("q1")

    assert await drive(flow(), linger=0.5, verify=verify, park="always") == "ans:q1"
    assert S == ["do a", "do b"]


async def test_each_wait_for_a_callback_has_its_time_the_last_one_too() -> None:
    async def released() -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, event.set)
        await event.wait()

    @segue.flow
    async def flow() -> str:
        await released()
        await do("a")
        await released()
        return "x"

    assert await drive(flow(), linger=0.5, verify=True) == "x"
    assert S == ["do a"]


async def test_a_bounded_wait_for_a_lock_isnt_held() -> None:
    @segue.flow
    async def flow() -> str:
        lock = asyncio.Lock()
        await lock.acquire()
        try:
            await asyncio.wait_for(lock.acquire(), 0.03)
        except TimeoutError:
            return await do("x")
        return "?"

    assert await drive(flow()) == "x"


async def test_a_flow_call_that_nobody_awaits() -> None:
    @segue.flow
    async def inner() -> None:
        """Nothing."""

    @segue.flow
    async def flow() -> str:
        inner()
        return "x"

    with pytest.warns(RuntimeWarning, match=r"never awaited nor given to an engine; write `await .*inner"):
        assert await drive(flow()) == "x"


async def test_a_step_call_and_a_map_that_nobody_awaits() -> None:
    @segue.flow
    async def flow() -> str:
        do("y")
        return "x"

    @segue.flow
    async def maps() -> str:
        segue.map(do, ["y"])
        return "x"

    with pytest.warns(RuntimeWarning, match="'do' was never awaited"):
        assert await drive(flow()) == "x"
    with pytest.warns(RuntimeWarning, match=r"segue\.map\(do, …\) was never awaited"):
        assert await drive(maps()) == "x"


@pytest.mark.skipif(getattr(sys.flags, "thread_inherit_context", False), reason="there, threads know the run")
async def test_verbs_in_a_thread() -> None:
    @segue.flow
    async def flow() -> list[str]:
        with ThreadPoolExecutor(1) as pool:
            out = []
            for verb in (lambda: asyncio.run(segue.ask("q1")), lambda: str(segue.now())):
                try:
                    out.append(await asyncio.wrap_future(pool.submit(verb)))
                except NotInRun as error:
                    out.append(str(error))
            try:
                out.append(await asyncio.to_thread(lambda: asyncio.run(segue.ask("q1"))))
            except NotInRun as error:
                out.append(str(error))
            return out

    got = await drive(flow())
    assert all("outside a run" in text for text in got), got
    assert all("thread" in text for text in got), got


async def test_a_verb_in_a_step() -> None:
    @segue.step
    async def nosy() -> str:
        return await segue.ask("q1")

    @segue.step
    def nosy_thread() -> str:
        return str(segue.now())

    for step in (nosy, nosy_thread):

        @segue.flow
        async def flow(step: Any = step) -> str:
            return await step()

        with pytest.raises(WrongPlace, match=r"inside the step '.*nosy.*make .*nosy.*' a flow"):
            await drive(flow())


async def test_raw_tasks_in_a_step_are_its_own() -> None:
    @segue.step
    async def wide() -> int:
        return sum(await asyncio.gather(*(asyncio.sleep(0, n) for n in range(10))))

    @segue.flow
    async def flow() -> int:
        return sum(await asyncio.gather(wide(), wide()))

    assert await drive(flow()) == 90


# ---------------------------------------------------------------- memory
def tasks_of_runs() -> list[object]:
    """All tasks but those in which a fake waits for questions that nobody answers."""
    return [task for task in asyncio.all_tasks() if "FakeModel._nobody" not in repr(task)]


async def test_a_parked_run_holds_no_task() -> None:
    @segue.flow
    async def flow(n: int) -> str:
        return await segue.ask(f"q{n}")

    desk = Desk()
    async with desk.engine() as engine:
        before = len(tasks_of_runs())
        threads = threading.active_count()
        for n in range(50):
            await engine.start(flow(n), id=f"it{n}")
        for n in range(50):
            await desk.parked(f"it{n}")
        assert not engine.worker.awake
        assert len(tasks_of_runs()) <= before
        assert threading.active_count() == threads


async def test_everything_at_once_survives_crashes() -> None:
    @segue.flow
    async def flow() -> list[str]:
        semaphore = asyncio.Semaphore(1)

        async def one(i: int) -> str:
            async with semaphore:
                first = await do(f"{i}")
            try:
                async with asyncio.timeout(60):
                    return first + await segue.ask(f"q{i}")
            finally:
                await do(f"fin{i}")

        return await asyncio.gather(*(one(i) for i in range(2)))

    def begin(desk: Desk) -> None:
        S.clear()
        desk.fake.answer("q", "a")

    def check(desk: Desk, head: Head) -> None:
        assert head.value == b'["0a","1a"]'
        assert all(S.count(text) <= 2 for text in S)

    await everywhere(flow, begin, check)


# ---------------------------------------------------------------- the engine closes
class Hello(segue.Request[str]): ...


class Host(segue.Actor[None]):
    @segue.on
    async def hello(self, _: Hello) -> str:
        return "hello"

    @segue.on
    async def none(self, _: int) -> None:
        await asyncio.sleep(0.02)


async def test_what_only_waits_when_the_engine_closes_isnt_woken_for_that() -> None:
    @segue.flow
    async def naps() -> None:
        await segue.sleep(timedelta(seconds=0.9))  # less than `linger`, so it stays for that

    store = MemoryStore()
    async with segue.Engine(store) as engine:
        await engine.start(naps(), id="naps")
        while "naps" not in engine.worker.awake or engine.worker.awake["naps"].nap is None:
            await asyncio.sleep(0)
        host = await engine.start(Host(), id="host")
        assert await host.request(Hello()) == "hello"
        busy = await engine.start(Host(), id="busy")
        for n in range(3):
            await busy.tell(n)
    heads = {id: await head_of(store, id) for id in ("naps", "host", "busy")}
    assert (heads["naps"].status, heads["host"].status) == ("parked", "parked")
    assert heads["naps"].wake == pytest.approx(heads["naps"].spec.begun + 0.9, abs=0.2)
    assert heads["busy"].status == "ready"  # there is mail left
    async with segue.Engine(store) as engine, asyncio.timeout(4):
        await (await engine.get("naps"))
        assert await (await engine.get("busy")).request(Hello()) == "hello"


async def head_of(store: MemoryStore, id: str) -> Head:
    head = await store.get(id)
    assert head is not None
    return head


@segue.flow(name="parking.asks")
async def asks(n: int) -> int:
    return await segue.ask(f"{n}?", returns=int)


@segue.flow(name="parking.have_many_ask")
async def have_many_ask(many: int) -> int:
    say("replayed")
    return sum(await segue.map(asks, range(many)))


async def test_a_parent_isnt_replayed_for_each_child_that_ends() -> None:
    S.clear()
    many = answered = 100
    async with segue.Engine("memory:") as engine:
        run = await engine.start(have_many_ask(many), id="parent")
        async for ask in engine.asks():
            await ask.answer(1)
            await asyncio.sleep(0.005)
            answered -= 1
            if not answered:
                break
        assert await run == many
    assert len(S) < many / 4
