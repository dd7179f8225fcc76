"""Messages that needn't wait are carried out by whoever brings them, in their actor's name."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import msgspec
import pytest

import segue
from segue.authoring.actor import quick
from segue.authoring.actor.checkpoint import read_checkpoint
from segue.authoring.context import find_branch
from segue.model.errors import NotEncodable
from segue.ports.store import Turn
from segue.runtime.ground import tasks
from segue.runtime.wake import handling
from tests import commits

T = TypeVar("T")
TRACE: ContextVar[str] = ContextVar("trace", default="none")
SEEN: list[Any] = []


class Tell(segue.Note):
    n: int


class Ask(segue.Request[str]):
    how: str


@segue.step
async def slow() -> str:
    await asyncio.sleep(0)
    return "slow"


class Clerk(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def tell(self, m: Tell) -> None:
        self.total += m.n

    @segue.on
    async def ask(self, m: Ask) -> str:
        SEEN.append((asyncio.current_task(), find_branch() is not None, TRACE.get()))
        if m.how == "at once":
            return str(self.total)
        TRACE.set("handler")
        if m.how == "raises":
            self.total = -1
            raise ValueError("no")
        if m.how == "step":
            return await slow()
        if m.how == "timeout":
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(1)
            except TimeoutError:
                SEEN.append(asyncio.current_task())
                return "too late"
        if m.how == "turn":
            await asyncio.sleep(0)
            SEEN.append(asyncio.current_task())
        return m.how


async def turns_during(call: Any) -> int:
    """How many turns the loop makes until that is done."""
    count, over = 0, False

    def turn() -> None:
        nonlocal count
        count += 1
        if not over:
            asyncio.get_running_loop().call_soon(turn)

    asyncio.get_running_loop().call_soon(turn)
    await call
    over = True
    return count


async def test_an_answer_that_needs_no_wait_takes_no_turn_of_the_loop() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))
        SEEN.clear()
        TRACE.set("caller")
        await clerk.tell(Tell(2))
        assert await turns_during(clerk.request(Ask("at once"))) == 0
        ((task, in_run, trace),) = SEEN
        assert task is not asyncio.current_task()
        assert (in_run, trace) == (True, "none")
        assert find_branch() is None
        assert await clerk.request(Ask("at once")) == "2"


async def test_a_handler_that_waits_goes_on_in_its_actors_task() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))
        for how, answer in (("turn", "turn"), ("timeout", "too late"), ("step", "slow")):
            SEEN.clear()
            assert await clerk.request(Ask(how)) == answer
            at_work = {one[0] if isinstance(one, tuple) else one for one in SEEN}
            assert len(at_work) == 1
            assert asyncio.current_task() not in at_work
        assert TRACE.get() == "none"


async def test_an_error_there_is_the_callers_and_undoes_that_message_alone() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.tell(Tell(3))
        with pytest.raises(ValueError, match="no"):
            await clerk.request(Ask("raises"))
        assert await clerk.request(Ask("at once")) == "3"


async def test_what_was_begun_for_a_task_is_cancelled_as_if_the_task_had_begun_it() -> None:
    future = asyncio.get_running_loop().create_future()
    seen: list[object] = []

    async def work() -> None:
        try:
            await future
        except asyncio.CancelledError as error:
            seen.extend(error.args)
            raise

    coro = work()
    waits = coro.send(None)

    async def task() -> None:
        await tasks.going_on(coro, waits, asyncio.CancelledError("enough"))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(task())
    assert future.cancelled()
    assert seen == ["enough"]


async def test_who_sends_on_and_on_gives_the_loop_a_turn() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))

        async def many() -> None:
            for _ in range(1000):
                await clerk.tell(Tell(1))

        assert 10 <= await turns_during(many()) <= 40
        assert await clerk.request(Ask("at once")) == "1000"


class Next(segue.Request[str]):
    how: str


class Turned(segue.Actor[str]):
    """Each message comes out otherwise."""

    total: int = 0
    odd: Any = None

    @segue.on
    async def tell(self, m: Tell) -> None:
        self.total += m.n

    @segue.on
    async def next(self, m: Next) -> Any:
        self.total += 1
        match m.how:
            case "done":
                return segue.Answer("bye", then=segue.Done("over"))
            case "unwritable answer":
                return float("nan")
            case "unwritable field":
                self.odd = object()
            case "cancelled":
                raise asyncio.CancelledError
            case "task":
                spare = asyncio.create_task(slow())
                return await spare
        return f"{m.how} {self.total}"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_comes_out_otherwise_at_rest_comes_out_as_it_does_in_a_group(
    kind: str, tmp_path: Any
) -> None:
    address = "memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(address) as engine:
        run = await engine.start(Turned(), id="turned")
        assert await run.request(Next("a")) == "a 1"
        with pytest.raises(NotEncodable, match=r"the answer of Turned\.next"):
            await run.request(Next("unwritable answer"))
        with pytest.raises(NotEncodable, match=r"Turned\.odd"):
            await run.request(Next("unwritable field"))
        assert await run.request(Next("b")) == "b 2"
        assert await run.request(Next("task")) == "slow"
        assert await run.request(Next("c")) == "c 4"
        assert await run.request(Next("done")) == "bye"
        assert await run == "over"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_in_a_stretch_each_message_comes_out_by_itself(kind: str, tmp_path: Any) -> None:
    address = "memory:" if kind == "memory" else f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(address) as engine:
        run = await engine.start(Turned(), id="turned")
        assert await run.request(Next("a")) == "a 1"
        came = await asyncio.gather(
            run.tell(Tell(10)),
            run.request(Next("unwritable field")),
            run.tell(Tell(100)),
            run.request(Next("task")),
            run.tell(Tell(1000)),
            run.request(Next("cancelled")),
            run.request(Next("b")),
            return_exceptions=True,
        )
        assert isinstance(came[1], NotEncodable)
        assert isinstance(came[5], Exception)
        assert [came[3], came[6]] == ["slow", "b 1113"]


async def test_a_stretch_of_messages_is_one_commit_and_writes_its_fields_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quick, "MOMENT", 10.0)  # whatever else the machine does
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))
        turns: list[Turn] = []
        commits.tell(engine.worker, turns.append)
        for n in range(60):
            await clerk.tell(Tell(n))
        assert await clerk.request(Ask("at once")) == str(sum(range(60)))
        assert [(len(turn.consumed), turn.checkpoint is not None) for turn in turns] == [(61, True)]


async def test_an_answer_waits_for_its_commit_and_doesnt_go_by_the_store(tmp_path: Any) -> None:
    async with segue.Engine(f"sqlite:{tmp_path}/runs.db") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        turns: list[Turn] = []
        there: list[bool] = []
        answered: list[str] = []
        await clerk.request(Ask("at once"))

        def watch(turn: Turn) -> None:
            turns.append(turn)
            there.append(bool(answered))

        commits.tell(engine.worker, watch)
        answered.append(await clerk.request(Ask("at once")))
        assert there[0] is False
        assert [len(turn.consumed) for turn in turns if turn.consumed] == [1]  # it may have parked by now
        assert all(not turn.outbox for turn in turns)
        assert await engine.store.letters({engine.port.address: 0}) == {}


async def test_an_answer_whose_commit_fails_is_not_given() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.request(Ask("at once"))
        fails = [True]

        def hook(turn: Turn) -> None:
            if turn.run == "clerk" and fails.pop():
                fails.append(False)
                fence = engine.store._runs.held["clerk"].fence  # type: ignore[attr-defined]
                engine.store._runs.held["clerk"].fence = fence + 1  # type: ignore[attr-defined]  # taken over
                asyncio.get_running_loop().call_soon(free, fence)

        def free(fence: int) -> None:
            run = engine.store._runs.by_id["clerk"]  # type: ignore[attr-defined]
            run.lease = 0.0
            engine.worker.wake()

        commits.tell(engine.worker, hook)
        await clerk.tell(Tell(5))
        with pytest.raises(TimeoutError):
            await clerk.request(Ask("at once"), timeout=timedelta(milliseconds=20))


async def test_a_message_that_changes_nothing_writes_no_state_and_what_it_counts_is_not_lost(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handling, "CALM", 10.0)  # it doesn't lie down meanwhile
    monkeypatch.setattr(handling, "REST", 20.0)
    address = f"sqlite:{tmp_path}/runs.db"
    turns: list[Turn] = []
    async with segue.Engine(address) as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        await clerk.tell(Tell(1))
        assert await clerk.request(Ask("at once")) == "1"
        commits.tell(engine.worker, turns.append)
        assert [await clerk.request(Ask("at once")) for _ in range(3)] == ["1"] * 3
        assert [turn.checkpoint or turn.delta for turn in turns if turn.consumed] == [None] * 3
        turns.clear()
        assert await clerk.request(Ask("step")) == "slow"
        written = [turn for turn in turns if turn.checkpoint is not None]
        first = read_checkpoint(written[0].checkpoint or b"")
        assert (first.turns, written[0].entries is not None) == (6, True)  # before the one that waits
    async with segue.Engine(address) as engine:
        run: Any = await engine.get("clerk")
        assert await run.request(Ask("at once")) == "1"


async def test_a_request_is_awaited_once() -> None:
    async with segue.Engine("memory:") as engine:
        clerk = await engine.start(Clerk(), id="clerk")
        asked = clerk.request(Ask("at once"))
        assert await asked == "0"
        with pytest.raises(RuntimeError, match="the request Ask was awaited already: make another one"):
            await asked


class Alert(segue.Note):
    urgent: bool = True


class Case(msgspec.Struct):
    urgent: bool = True


@dataclass
class Kind(Generic[T]):
    of: T
    urgent: bool = True


class Listed(segue.Request[list[str]]):
    urgent: bool = True


class Desk(segue.Actor[None]):
    came: list[str] = segue.field(default_factory=list)

    @segue.on
    async def ask(self, m: Ask) -> str:
        self.came.append(await slow())
        return m.how

    @segue.on
    async def alert(self, m: Alert) -> None:
        self.came.append(f"alert {m.urgent}")

    @segue.on
    async def case(self, m: Case | Kind[str]) -> None:
        self.came.append(f"{type(m).__name__} {m.urgent}")

    @segue.on
    async def listed(self, m: Listed) -> list[str]:
        return self.came


async def test_a_field_that_is_called_urgent_hurries_nothing() -> None:
    async with segue.Engine("memory:") as engine:
        desk = await engine.start(Desk(), id="desk")
        asked = asyncio.ensure_future(desk.request(Ask("step")))
        await asyncio.sleep(0)
        await desk.tell(Alert())
        for message in (Alert(False), Case(), Kind("a")):
            await desk.tell(message)
        came = ["slow", "alert True", "alert False", "Case True", "Kind True"]
        assert await desk.request(Listed()) == came
        await asked
