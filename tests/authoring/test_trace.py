"""Where a run's error was raised is in its record, whoever asks and whenever."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

import segue
from segue.authoring.failures import to_exception, to_failure
from segue.authoring.trace import MOST, trace_of
from segue.errors import RunFailed
from tests.runtime.lives import Desk

KEY = "sk-abcdefghijklmnop"


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


@segue.step
async def split(n: int) -> int:
    if n == 0:
        return 1 // n
    raise Odd(n, n)


@segue.flow
async def splitting(n: int) -> int:
    await asyncio.sleep(0)
    return await split(n)


async def note_of(desk: Desk, n: int, kind: type[Exception]) -> str:
    with pytest.raises(kind) as raised:
        await desk.run(splitting(n))
    (note,) = raised.value.__notes__
    return note


async def test_the_raised_error_tells_where() -> None:
    desk = Desk()
    note = await note_of(desk, 0, ZeroDivisionError)
    title, flow, call, step, line = note.splitlines()
    assert title == "It was raised in"
    here = os.path.relpath(__file__)
    assert flow.startswith(f"  {here}:")
    assert flow.endswith(", in splitting")
    assert call == "    return await split(n)"
    assert step.startswith(f"  {here}:")
    assert step.endswith(", in split")
    assert line == "    return 1 // n"
    head = await desk.head()
    assert head.error is not None
    assert note.endswith(head.error.trace)
    (entry,) = await desk.entries()
    assert entry.error is not None
    assert entry.error.trace == "\n".join([step, line])


async def test_of_an_error_whose_class_cant_be_built_too() -> None:
    note = await note_of(Desk(), 3, RunFailed)
    assert "    raise Odd(n, n)" in note


async def test_a_later_life_tells_the_same() -> None:
    """The flow ran again and met its step's error in the journal."""

    @segue.flow
    async def waiting_then_failing() -> None:
        try:
            await split(0)
        finally:
            await segue.receive(str)

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(waiting_then_failing(), id="it")
        await desk.parked()
        await engine.tell("it", "str", b'"go"')
        head = await engine.wait("it")
    assert head.error is not None
    assert [line for line in head.error.trace.splitlines() if line.startswith("    ")] == [
        "    await split(0)",
        "    return 1 // n",
    ]


def raised(depth: int) -> None:
    if depth:
        raised(depth - 1)
    else:
        key = "sk-abcdefghijklmnop" + "x" * 300  # noqa: F841
        raise ValueError("deep " + "sk-abcdefghijklmnop" + "x" * 300)


def caught(depth: int) -> BaseException:
    try:
        raised(depth)
    except ValueError as error:
        return error
    raise AssertionError


def test_a_trace_is_short_and_keeps_no_secret() -> None:
    error = caught(200)
    error.add_note(f"Authorization: Bearer {'a' * 40}")
    trace = trace_of(error, ())
    assert len(trace) <= MOST
    assert "…" in trace
    assert trace.splitlines()[-1] == "  Authorization: Bearer ***"
    assert KEY not in trace
    assert "***" in trace
    noted = caught(0)
    for n in range(100):
        noted.add_note(f"{n} {'word ' * 100}")
    assert len(trace_of(noted, ())) <= MOST
    assert "in caught" in trace_of(noted, ())


def test_causes_and_groups_are_told_of() -> None:
    try:
        try:
            raise KeyError("x")
        except KeyError as error:
            raise ExceptionGroup("some", [caught(0), LookupError("y")]) from error
    except ExceptionGroup as error:
        trace = trace_of(error, ())
    assert "  of which ValueError: deep ***" in trace
    assert "in raised" in trace
    assert "  of which LookupError: y" in trace
    assert "  because of KeyError: 'x'" in trace
    assert '      raise KeyError("x")' in trace


def test_a_cause_that_isnt_of_the_authors_code_says_nothing() -> None:
    error = ValueError("x")
    error.__cause__ = TypeError("inner")
    assert trace_of(error, ()) == ""


@segue.step
def read(text: str) -> int:
    number: int = json.loads(text)
    return number


@segue.flow
async def reading(text: str) -> int:
    return await read(text)


async def test_pythons_own_frames_arent_told_of() -> None:
    """A plain step runs on a thread, and what it calls raises in Python's own modules."""
    desk = Desk()
    with pytest.raises(json.JSONDecodeError) as raised:
        await desk.run(reading("{"))
    (note,) = raised.value.__notes__
    here = os.path.relpath(__file__)
    places = [line.strip() for line in note.splitlines()[1:] if ", in " in line]
    assert [place.partition(":")[0] for place in places] == [here, here]
    assert places[-1].endswith(", in read")


def test_notes_arent_doubled_over_lives() -> None:
    once = to_failure(caught(0))
    twice = to_failure(to_exception(once))
    assert twice.trace == once.trace


def test_without_a_traceback_there_is_nothing_to_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert to_failure(ValueError("x")).trace == ""
    assert not hasattr(to_exception(to_failure(ValueError("x"))), "__notes__")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "in caught" in to_failure(caught(0)).trace
