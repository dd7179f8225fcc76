"""Whatever code raises is an error of that code, by its name: nothing hangs, nothing else suffers."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import segue
from segue import Actor, Done, Note, Request
from segue.testing import ToolUse
from tests.runtime.lives import Desk

#: Errors that aren't for code to handle, or that mean something to whoever drives it.
STRANGE: dict[str, Callable[[], BaseException]] = {
    "GeneratorExit": lambda: GeneratorExit("mine"),
    "SystemExit": lambda: SystemExit(3),
    "StopIteration": lambda: StopIteration("mine"),
    "StopAsyncIteration": lambda: StopAsyncIteration("mine"),
    "RecursionError": lambda: RecursionError("mine"),
    "MemoryError": lambda: MemoryError("mine"),
    "CancelledError": lambda: asyncio.CancelledError("mine"),
    "BaseException": lambda: BaseException("mine"),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("mine", [GeneratorExit()]),
}


@pytest.fixture(params=STRANGE)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def in_coroutine(name: str) -> str:
    """What Python itself makes of one that would end a coroutine."""
    return "RuntimeError" if name == "StopIteration" else name


def in_generator(name: str) -> str:
    """The same, of one that would end a generator or what takes its items."""
    return "RuntimeError" if name.startswith("Stop") else name


def make(name: str) -> BaseException:
    return STRANGE[name]()


async def raised(call: Coroutine[Any, Any, Any]) -> str:
    """The name of the error that whoever waits gets, whatever class it has."""
    try:
        async with asyncio.timeout(2):
            await call
    except TimeoutError:
        return "hangs"
    except Exception as error:
        return name_of(error)
    return "nothing"


def name_of(error: Exception) -> str:
    """Its name, or that of what it stands for."""
    return str(getattr(error, "type", type(error).__name__)).rpartition(":")[2]


# ---------------------------------------------------------------- steps
@segue.step
async def in_a_coroutine(name: str) -> None:
    raise make(name)


@segue.step
async def later(name: str) -> None:
    await asyncio.sleep(0)
    raise make(name)


@segue.step
def on_a_thread(name: str) -> None:
    raise make(name)


@segue.flow
async def catches(name: str) -> list[str]:
    async def other() -> str:
        return await raised(later(name))

    alone = [await raised(in_a_coroutine(name)), await raised(later(name)), await raised(on_a_thread(name))]
    return [*alone, *await asyncio.gather(other(), other())]


async def test_what_a_step_raises_is_an_error_that_code_can_catch(name: str) -> None:
    assert await Desk(verify=True).run(catches(name)) == [
        in_coroutine(name),
        in_coroutine(name),
        name,
        in_coroutine(name),
        in_coroutine(name),
    ]


# ---------------------------------------------------------------- flows
@segue.flow
async def raises(name: str) -> None:
    raise make(name)


@segue.flow
async def has_it_run(name: str) -> str:
    return await raised(_end(await segue.spawn(raises(name))))


async def _end(run: Any) -> None:
    await run


async def test_a_flow_fails_with_what_it_raises(name: str) -> None:
    desk = Desk(verify=True)
    assert await raised(desk.run(raises(name), id="it")) == in_coroutine(name)
    assert (await desk.head("it")).status == "failed"


async def test_a_child_fails_with_what_it_raises(name: str) -> None:
    assert await Desk(verify=True).run(has_it_run(name)) == in_coroutine(name)


async def test_a_row_fails_with_what_it_raises(name: str) -> None:
    async with Desk().engine() as engine:
        outcomes = [outcome async for outcome in engine.map(raises, [name, name])]
    assert [out.error is not None for out in outcomes] == [True, True]


# ---------------------------------------------------------------- actors
class Hit(Note):
    name: str


class Ask(Request[str]):
    name: str


class Ping(Request[str]):
    pass


class Blocking(Request[str]):
    name: str


class WithStep(Request[str]):
    name: str


class Fragile(Actor[str]):
    count: int = 0

    @segue.on
    async def hit(self, hit: Hit) -> None:
        self.count += 1
        raise make(hit.name)

    @segue.on
    async def ask(self, ask: Ask) -> str:
        self.count += 1
        raise make(ask.name)

    @segue.on
    async def with_step(self, ask: WithStep) -> str:
        self.count += 1
        await later(ask.name)
        return ""

    @segue.on
    def blocking(self, ask: Blocking) -> str:
        self.count += 1
        raise make(ask.name)

    @segue.on
    async def ping(self, ping: Ping) -> str:
        return f"still here, {self.count}"


@pytest.mark.parametrize("kind", [Ask, Blocking, WithStep])
async def test_a_request_fails_with_what_its_handler_raises(name: str, kind: Any) -> None:
    async with Desk().engine() as engine:
        actor = await engine.start(Fragile(), id="it")
        assert await raised(actor.request(kind(name))) == (name if kind is Blocking else in_coroutine(name))
        async with asyncio.timeout(2):
            assert await actor.request(Ping()) == "still here, 0"


async def test_a_message_fails_with_what_its_handler_raises(name: str) -> None:
    async with Desk().engine() as engine:
        actor = await engine.start(Fragile(), id="it")
        await actor.tell(Hit(name))
        async with asyncio.timeout(2):
            assert await actor.request(Ping()) == "still here, 0"
        (dead,) = await engine.dead_letters("it")
        assert dead.error is not None
        assert dead.error.type.endswith(f":{in_coroutine(name)}")


@dataclasses.dataclass
class Work:
    name: str


@dataclasses.dataclass
class Threaded:
    name: str


class Stateful(Actor[str]):
    where: str
    name: str

    def setup(self) -> None:
        if self.where == "setup":
            raise make(self.name)

    def begin(self) -> Work | Threaded:
        if self.where == "begin":
            raise make(self.name)
        return Threaded(self.name) if self.where == "thread" else Work(self.name)

    @segue.state
    async def work(self, work: Work) -> Done[str]:
        if self.where == "state":
            raise make(work.name)
        if self.where == "failed":
            raise ValueError
        return Done("done")

    @segue.state
    def threaded(self, work: Threaded) -> Done[str]:
        raise make(work.name)

    def failed(self, error: Exception) -> object:
        if self.where == "failed":
            raise make(self.name)
        return None

    def teardown(self) -> None:
        if self.where == "teardown":
            raise make(self.name)


async def _run(desk: Desk, actor: Stateful) -> None:
    async with desk.engine() as engine:
        await engine.run(actor, id="it")


@pytest.mark.parametrize("where", ["setup", "begin", "state", "thread", "failed", "teardown"])
async def test_an_actor_fails_with_what_its_methods_raise(name: str, where: str) -> None:
    desk = Desk()
    expected = name if where == "thread" else in_coroutine(name)
    assert await raised(_run(desk, Stateful(where, name))) == expected
    assert (await desk.head("it")).status == "failed"


# ---------------------------------------------------------------- beside a handler
class Strike(segue.Envelope, Request[str]):
    urgent = True
    name: str

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        raise make(self.name)


class Long(Note):
    pass


class Struck(Actor[str]):
    @segue.on
    async def long(self, long: Long) -> Done[str]:
        return Done(await segue.ask("go on?"))


@pytest.mark.parametrize("beside", [True, False])
async def test_an_urgent_request_fails_with_what_carries_it_out_raises(name: str, beside: bool) -> None:
    async with Desk().engine() as engine:
        actor = await engine.start(Struck(), id="it")
        if beside:
            await actor.tell(Long())
            while not await engine.open_asks():
                await asyncio.sleep(0.001)
        assert await raised(actor.request(Strike(name))) == in_coroutine(name)
        if not beside:
            await actor.tell(Long())
            while not await engine.open_asks():
                await asyncio.sleep(0.001)
        await (await engine.open_asks())[0].answer("yes")
        async with asyncio.timeout(2):
            assert await actor == "yes"


class Moved(Actor[str]):
    count: int = 0
    WHICH: ClassVar[str] = ""

    @classmethod
    def migrate(cls, old: Any) -> None:
        raise make(cls.WHICH)

    @segue.on
    async def ping(self, ping: Ping) -> str:
        return "here"


async def test_a_run_is_held_for_what_its_migration_raises(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    monkeypatch.setattr(Moved, "version", "1", raising=False)
    vars(vars(Moved)["__segue__"]).pop("declared", None)
    async with desk.engine() as engine:
        assert await (await engine.start(Moved(), id="it")).request(Ping()) == "here"
    monkeypatch.setattr(Moved, "version", "2")
    monkeypatch.setattr(Moved, "WHICH", name)
    vars(vars(Moved)["__segue__"]).pop("declared", None)
    async with desk.engine() as engine, asyncio.timeout(2):
        await (await engine.get("it")).tell(Long())
        head = await engine.wait("it")
    assert head.status == "held"
    assert f"migrate() raised {name}" in head.reason


# ---------------------------------------------------------------- maps and rows
@segue.flow
async def maps(name: str) -> list[str]:
    async def item(index: int) -> None:
        if index:
            await asyncio.sleep(0)
        raise make(name)

    def source() -> Iterator[str]:
        yield from ()
        raise make(name)

    outcomes = await segue.map(item, [0, 1], errors="return")
    items = [name_of(one.error) for one in outcomes if one.error is not None]
    return [*items, await raised(_wait(segue.map(in_a_coroutine, source())))]


async def _wait(mapped: Any) -> None:
    await mapped


async def test_an_item_of_a_map_fails_with_what_it_raises(name: str) -> None:
    expected = [in_coroutine(name)] * 2
    assert await Desk(verify=True).run(maps(name)) == [*expected, in_generator(name)]


async def test_a_job_fails_with_what_its_source_raises(name: str) -> None:
    def source() -> Iterator[str]:
        yield "MemoryError"
        raise make(name)

    async with Desk().engine() as engine:
        assert await raised(_wait(engine.map(raises, source()))) == in_generator(name)


# ---------------------------------------------------------------- tools
def exploding(name: str) -> str:
    """Explodes."""
    raise make(name)


@segue.flow
async def uses_tool(name: str) -> str:
    return await segue.generate("use it", tools=[exploding])


async def test_a_model_is_told_what_a_tool_raises(name: str) -> None:
    desk = Desk()
    desk.fake.when("use it").reply(ToolUse("exploding", name=name), lambda call: repr(call.messages[-1]))
    assert f"{name}: " in await desk.run(uses_tool(name))


# ---------------------------------------------------------------- resources
class Shared:
    """How it fares."""

    opens = closes = ""


@segue.resource
async def shared() -> AsyncIterator[str]:
    if Shared.opens:
        raise make(Shared.opens)
    yield "here"
    if Shared.closes:
        raise make(Shared.closes)


@segue.flow
async def uses_resource() -> list[str]:
    return [await raised(shared()), await raised(shared())]


async def test_a_resource_fails_with_what_its_function_raises(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shared, "opens", name)
    assert await Desk().run(uses_resource()) == [in_generator(name)] * 2


async def test_an_engine_closes_whatever_a_resource_raises(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Shared, "closes", name)
    assert await Desk().run(uses_resource()) == ["nothing"] * 2
    assert "the resource shared failed to close" in caplog.text


# ---------------------------------------------------------------- cancellation, Ctrl-C
@segue.flow
async def awaits_what_it_cancelled() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()
    await task


async def test_a_flow_that_nobody_cancelled_isnt_cancelled() -> None:
    desk = Desk()
    assert await raised(desk.run(awaits_what_it_cancelled())) == "CancelledError"
    assert (await desk.head()).status == "failed"


@segue.step
def interrupts_a_thread() -> None:
    raise KeyboardInterrupt


@segue.flow
async def threads() -> str:
    return await raised(interrupts_a_thread())


async def test_ctrl_c_never_comes_on_a_thread() -> None:
    async with asyncio.timeout(2):
        assert await Desk().run(threads()) == "KeyboardInterrupt"


PROGRAM = """
import asyncio, sys
import segue

INTERRUPTS = sys.argv[1] == "interrupt"

@segue.step
async def slow() -> str:
    await asyncio.sleep(30 if INTERRUPTS else 0)
    return "slow"

@segue.flow
async def other() -> str:
    return await slow()

class Worker(segue.Actor[str]):
    async def begin(self) -> segue.Done[str]:
        return segue.Done(await slow())

    async def teardown(self) -> None:
        print("torn down")

@segue.step
async def once() -> None:
    with open("done", "a") as file:
        file.write("x")

@segue.flow
async def flow() -> str:
    await asyncio.sleep(0.05)
    await once()
    if INTERRUPTS:
        raise KeyboardInterrupt
    return "it"

async def main() -> None:
    async with segue.Engine("sqlite:runs.db") as engine:
        beside = [await engine.start(other(), id="other"), await engine.start(Worker(), id="worker")]
        print(await engine.run(flow(), id="it"), *[await run for run in beside])

asyncio.run(main())
"""


def test_ctrl_c_in_a_flow_ends_the_program_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    def life(how: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "program.py", how], cwd=tmp_path, capture_output=True, text=True, timeout=30
        )

    first = life("interrupt")
    assert "KeyboardInterrupt" in first.stderr
    assert first.stdout == ""
    assert life("go on").stdout == "torn down\nit slow slow\n"
    assert (tmp_path / "done").read_text() == "x"  # it had been before the interrupt
