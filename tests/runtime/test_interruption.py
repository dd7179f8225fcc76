"""Ctrl-C in a program of one's own: real signals to a real process, and what is refused."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import segue
from segue.errors import RunInterrupted, WrongPlace
from segue.runtime.interruption import ONE_STROKE
from segue.testing import FakeModel

PROGRAM = """
import asyncio
import signal
import sys
import time
from enum import IntEnum

import segue
from segue.errors import RunInterrupted


class Floor(IntEnum):
    HALL = 1


class Work(segue.Note): ...


class Helper(segue.Actor[None]):
    @segue.on
    async def work(self, _: Work) -> None:
        await asyncio.sleep(60)

    def rollback(self) -> None:
        print("helper rolled back", flush=True)


class Worker(segue.Actor[str]):
    groups = Floor
    how: str

    async def setup(self) -> None:
        helper = await segue.spawn(Helper(), group=Floor.HALL)
        if self.how == "helper":
            await helper.tell(Work())

    @segue.on
    async def work(self, _: Work) -> segue.Done[str] | None:
        if self.how == "blocks":
            print("works", flush=True)
            time.sleep(1.2)  # the loop too: strokes are counted meanwhile
            await asyncio.sleep(60)
        elif self.how == "waits":
            print("works", flush=True)
            await asyncio.sleep(60)
        return None

    def interrupted(self) -> segue.Interrupted:
        print("interrupted", flush=True)
        return segue.Interrupted()

    def rollback(self) -> None:
        print("rolled back", flush=True)


def told(level: segue.Interrupt) -> None:
    print("asked", level.name, flush=True)


async def main(how: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with segue.Engine("memory:", grace=0) as engine:
        run = await engine.start(Worker(how), id="it")
        try:
            async with segue.interruptible(run, tell=told):
                await run.tell(Work())
                await run.ping()
                if how not in ("waits", "blocks"):
                    print("works", flush=True)
                await run
        except RunInterrupted:
            print("it ended", flush=True)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        if how == "after":
            print("after", flush=True)
            await asyncio.sleep(60)


signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
try:
    asyncio.run(main(sys.argv[1]))
except KeyboardInterrupt:
    print("left", flush=True)
    sys.exit(7)
"""


class Program:
    """A process that runs it."""

    def __init__(self, path: Path, how: str) -> None:
        file = path / "program.py"
        file.write_text(PROGRAM)
        self.process = subprocess.Popen(
            [sys.executable, str(file), how], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []

    def until(self, text: str) -> None:
        """Read until it says that."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.strip() == text:
                return
        raise AssertionError(f"it never said {text!r}: {self.lines}")

    def strike(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C, not so soon that it might be an echo."""
        time.sleep(ONE_STROKE + 0.05)
        self.process.send_signal(number)

    def finish(self) -> int:
        """Its exit code."""
        assert self.process.stdout is not None
        self.lines += [line.strip() for line in self.process.stdout]
        return self.process.wait(20)


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    made = Program(tmp_path, request.param)
    timer = threading.Timer(30, made.process.kill)
    timer.start()
    yield made
    timer.cancel()
    made.process.kill()
    made.process.communicate()


@pytest.mark.parametrize("program", ["idle"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_stroke_ends_it_after_its_mail(program: Program, number: signal.Signals) -> None:
    program.until("works")
    program.strike(number)
    assert program.finish() == 0, program.lines
    assert program.lines == ["works", "asked QUEUED", "interrupted", "it ended"]


@pytest.mark.parametrize("program", ["waits"], indirect=True)
def test_each_is_more_urgent(program: Program) -> None:
    program.until("works")
    for level in segue.Interrupt:
        program.strike()
        program.until(f"asked {level.name}")
    assert program.finish() == 0, program.lines
    assert program.lines[-3:] == [
        "rolled back",
        "interrupted",
        "it ended",
    ]  # what asked before it is answered now


@pytest.mark.parametrize("program", ["blocks"], indirect=True)
def test_strokes_that_come_while_the_loop_is_blocked_count_each(program: Program) -> None:
    program.until("works")
    for _ in segue.Interrupt:
        program.strike()
    assert program.finish() == 0, program.lines
    asked = [line for line in program.lines if line.startswith("asked")]
    assert asked == [f"asked {level.name}" for level in segue.Interrupt]
    assert "rolled back" in program.lines


@pytest.mark.parametrize("program", ["helper"], indirect=True)
def test_children_are_hurried_too(program: Program) -> None:
    program.until("works")
    program.strike()
    program.until("interrupted")
    for level in list(segue.Interrupt)[1:]:
        program.strike()
        program.until(f"asked {level.name}")
    assert program.finish() == 0, program.lines
    assert program.lines[-2:] == ["helper rolled back", "it ended"]


@pytest.mark.parametrize("program", ["waits"], indirect=True)
def test_two_at_once_are_one(program: Program) -> None:
    program.until("works")
    program.strike()
    program.process.send_signal(signal.SIGINT)
    program.until("asked QUEUED")
    program.strike()
    program.until("asked AFTER_HANDLER")
    assert program.lines[-2:] == ["asked QUEUED", "asked AFTER_HANDLER"]


@pytest.mark.parametrize("program", ["after"], indirect=True)
def test_afterwards_ctrl_c_is_the_programs_own(program: Program) -> None:
    program.until("works")
    program.strike()
    program.until("after")
    program.strike()
    assert program.finish() == 7
    assert program.lines[-1] == "left"


# ---------------------------------------------------------------- one more, in this process
class Stubborn(segue.Actor[None]):
    def interrupted(self) -> segue.Listen:
        return segue.Listen()


async def strike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real signal to this process, as if time had passed."""
    monkeypatch.setattr("segue.runtime.interruption.ONE_STROKE", -1.0)
    signal.raise_signal(signal.SIGINT)


async def test_one_more_is_what_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    struck: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: struck.append(number))
    mine = signal.getsignal(signal.SIGINT)
    levels: list[segue.Interrupt] = []
    try:
        async with segue.Engine() as engine:
            run = await engine.start(Stubborn(), id="it")
            with pytest.raises(RunInterrupted):
                async with segue.interruptible(run, tell=levels.append):
                    for _ in range(4):
                        await strike(monkeypatch)
                    await run
            assert signal.getsignal(signal.SIGINT) is mine
        assert (struck, levels) == ([signal.SIGINT], list(segue.Interrupt))
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------- what is refused
async def test_another_thread_is_told_the_cure() -> None:
    def elsewhere() -> str:
        async def use() -> None:
            async with segue.Engine() as engine:
                run = await engine.start(Stubborn(), id="it")
                async with segue.interruptible(run):
                    raise AssertionError("it was entered")

        with pytest.raises(WrongPlace, match=r"the main thread alone .*run\.interrupt\(level\)") as caught:
            asyncio.run(use())
        return str(caught.value)

    before = signal.getsignal(signal.SIGINT)
    assert "interruptible()" in await asyncio.to_thread(elsewhere)
    assert signal.getsignal(signal.SIGINT) is before


@segue.flow
async def sleeps() -> None:
    await segue.receive(str)


@segue.flow
async def uses(run: segue.Run[None]) -> None:
    async with segue.interruptible(run):
        pass


async def test_a_flow_is_told_the_cure() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(sleeps(), id="it")
        with pytest.raises(WrongPlace, match="is a flow, which isn't asked to end"):
            async with segue.interruptible(run):
                pass
        await run.cancel()


async def test_the_code_of_a_run_is_told_the_cure() -> None:
    async with FakeModel() as model:
        run = await model.engine.start(Stubborn(), id="it")
        with pytest.raises(WrongPlace, match="in the code of a run"):
            await uses(run)
