"""A run that is alone begins where it is asked for: its first part is carried out there, in its own task's name."""

import asyncio
import time
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

import segue
from segue.authoring.context import find_branch
from segue.model.errors import RunCancelled, StoreError
from segue.runtime.ground.tasks import Begun, BranchTask
from segue.stores.memory import MemoryStore

TRACE: ContextVar[str] = ContextVar("trace", default="none")
SEEN: list[Any] = []


@segue.step
async def double(n: int) -> int:
    return 2 * n


@segue.step
async def slow(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


def look() -> None:
    SEEN.append((asyncio.current_task(), find_branch() is not None, TRACE.get()))


@segue.flow
async def at_once(n: int) -> int:
    look()
    TRACE.set("run")
    for _ in range(3):
        n = await double(n)
    look()
    return n


@segue.flow
async def waits(n: int) -> int:
    look()
    TRACE.set("run")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(slow(n))
        look()
    n = await slow(task.result())
    look()
    return n


@segue.flow
async def fails(how: str) -> int:
    if how == "waits":
        await asyncio.sleep(0)
    raise LookupError(how)


@segue.flow
async def leaves(n: int) -> int:
    asyncio.create_task(asyncio.sleep(60))  # noqa: RUF006
    return await double(n)


@segue.flow
async def gives_up(n: int) -> int:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return n


@segue.flow
async def works(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def turns_during(call: Any) -> int:
    """How many turns the loop makes until that is done."""
    loop, count, over = asyncio.get_running_loop(), 0, False

    def turn() -> None:
        nonlocal count
        count += 1
        if not over:
            loop.call_soon(turn)

    loop.call_soon(turn)
    await call
    over = True
    return count


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()
    TRACE.set("caller")


async def test_a_run_that_waits_for_nothing_needs_no_turn_of_the_loop() -> None:
    async with segue.Engine("memory:") as engine:
        assert await engine.run(at_once(1), id="a") == 8
        await asyncio.sleep(0)
        assert await turns_during(engine.run(at_once(1), id="b")) == 0
        assert (await engine.head("b")).status == "done"
        tasks = [task for task, *_ in SEEN]
        assert tasks[0] is tasks[1] is not tasks[2] is tasks[3]
        assert all(type(task) is BranchTask for task in tasks)
        assert [seen[1:] for seen in SEEN[:2]] == [(True, "caller"), (True, "run")]
        assert find_branch() is None
        assert TRACE.get() == "caller"
        await asyncio.sleep(0)
        assert all(task.done() for task in tasks)


@pytest.mark.parametrize("store", ["memory:", "sqlite:{}/runs.db"])
async def test_one_that_waits_goes_on_in_its_own_task(store: str, tmp_path: Any) -> None:
    async with segue.Engine(store.format(tmp_path), verify=True) as engine:
        assert await engine.run(waits(1)) == 4
    run, again = SEEN[:3], SEEN[3:]  # which is its replay
    assert len({task for task, *_ in run}) == 1
    assert [seen[1:] for seen in run] == [(True, "caller"), (True, "run"), (True, "run")]
    assert len(again) == 3


@pytest.mark.parametrize("how", ["at once", "waits"])
async def test_its_error_is_the_callers(how: str) -> None:
    async with segue.Engine("memory:") as engine:
        with pytest.raises(LookupError, match=how):
            await engine.run(fails(how), id="a")
        assert (await engine.head("a")).status == "failed"


async def test_a_task_that_it_leaves_behind_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async with segue.Engine("memory:", linger=0.01) as engine:
        assert await engine.run(leaves(1)) == 2
    assert any("unfinished" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("store", ["memory:", "sqlite:{}/runs.db"])
@pytest.mark.parametrize("alone", [True, False])
async def test_one_that_cancels_itself_and_returns_was_cancelled(
    store: str, alone: bool, tmp_path: Any
) -> None:
    async with segue.Engine(store.format(tmp_path)) as engine:
        begun = None if alone else await engine.start(waits(1))
        with pytest.raises(RunCancelled):
            await engine.run(gives_up(1))
        if begun is not None:
            assert await begun == 4


async def test_one_after_the_other_they_give_the_loop_its_turns() -> None:
    async with segue.Engine("memory:") as engine:
        await engine.run(works(0.0))

        async def many() -> None:
            for _ in range(20):
                await engine.run(works(0.001))

        assert await turns_during(many()) >= 5


async def test_in_a_crowd_they_begin_together() -> None:
    async with segue.Engine("memory:") as engine:
        parked = [asyncio.create_task(engine.run(waits(n))) for n in range(3)]
        await asyncio.sleep(0)
        assert len(SEEN) == 2  # the first was alone
        assert await asyncio.gather(*parked) == [0, 4, 8]


async def test_what_is_cancelled_before_its_task_took_it_up_is_cancelled_where_it_waits() -> None:
    loop = asyncio.get_running_loop()
    for shielded in (False, True):
        future = loop.create_future()
        ended: list[Any] = []

        async def code(future: Any = future, ended: list[Any] = ended, shielded: bool = shielded) -> str:
            token = TRACE.set("inside")
            try:
                await (asyncio.shield(future) if shielded else future)
            except asyncio.CancelledError as error:
                ended.append(error.args)
                return "ended"
            finally:
                TRACE.reset(token)  # only where it was set
            return "not cancelled"

        begun, context = Begun(code()), copy_context()
        task = BranchTask(begun, loop=loop, context=context)
        task.branch, task.within, task.outside = None, context, None
        begun.begin(loop, task)
        task.cancel("enough")
        assert await task == "ended"
        assert ended == [("enough",)]
        assert future.cancelled() is not shielded


@segue.flow
async def stays() -> str:
    SEEN.append(asyncio.current_task())
    if len(SEEN) == 1:
        await asyncio.sleep(30)
    return f"life {len(SEEN)}"


async def test_who_cancels_its_task_from_outside_has_it_leave_memory() -> None:
    async with segue.Engine("memory:") as engine:
        run = asyncio.create_task(engine.run(stays(), id="it"))
        await asyncio.sleep(0.02)
        SEEN[0].cancel()
        assert await run == "life 2"


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("fails", [True, False])
async def test_an_end_that_isnt_written_is_no_end(alone: bool, fails: bool) -> None:
    store = MemoryStore()

    @segue.flow(name="robbed")
    async def robbed() -> str:
        if fails:
            engine.worker.commit = lose  # type: ignore[assignment]
        else:
            (stolen,) = await store.claim("thief", 1, 1e9, now=time.time() + 1000)
            assert stolen.head.id == "it"
        return "not durable"

    def lose(turn: Any, then: Any) -> Any:
        raise StoreError("memory:", "it is gone", "get another one")

    async with segue.Engine(store) as engine:
        if alone:
            running = asyncio.ensure_future(engine.run(robbed(), id="it"))
        else:
            await engine.start(robbed(), id="it")
            running = asyncio.ensure_future(engine.wait("it"))
        with pytest.raises(StoreError if fails else TimeoutError):
            await asyncio.wait_for(running, 0.1)
        head = await store.get("it")
        assert head is not None
        assert head.status == "ready"


@segue.flow
async def stuck() -> None:
    lock = asyncio.Lock()
    async with lock, lock:
        pass


async def test_one_that_is_begun_for_later_is_looked_at_though_it_makes_no_call() -> None:
    """Nothing else tells that it waits for what nobody ends."""
    async with segue.Engine(linger=0.02) as engine, asyncio.timeout(5):
        for run in [await engine.start(stuck()) for _ in range(2)]:
            with pytest.raises(segue.errors.RunHeld, match="waits for another one"):
                await run
