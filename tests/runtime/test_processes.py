"""Steps in other processes: what goes there and comes back, how they fail, who ends them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.authoring import step as steps
from segue.authoring.actor import performing
from segue.authoring.pooled import side_by_side
from segue.model.errors import BadSignature, NotEncodable, ProcessDied, StepFailed, WrongPlace
from tests.runtime import heavy
from tests.runtime.heavy import Odd, Point
from tests.runtime.lives import Desk, everywhere

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="looks at processes as POSIX does"),
    pytest.mark.skipif(side_by_side(), reason="threads do it on free-threaded builds"),
]


def lives(process: int) -> bool:
    """Whether it is there, and not only waiting to be told of."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until(check: Any) -> None:
    for _ in range(2000):
        if check():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it didn't come to that")


def begun(here: Path) -> list[int]:
    return [int(file.stem) for file in here.glob("*.begun")]


async def test_what_goes_there_and_comes_back() -> None:
    @segue.flow
    async def heavy_values() -> list[Any]:
        point, process = await heavy.mirror(Point(1, 2), by=3)
        return [
            await heavy.squares(4),
            [point.x, point.y, process == os.getpid()],
            await heavy.awaits(1),
            await heavy.away(5),
            await heavy.echo("x" * 3_000_000),
            "/key:" in await heavy.key(),
        ]

    desk = Desk(verify=True)
    assert await desk.run(heavy_values()) == [[0, 1, 4, 9], [6, 3, False], 2, -5, 3_000_000, True]
    assert len(await desk.entries()) == 6


async def test_outside_a_run_it_is_a_function() -> None:
    assert await heavy.squares(3) == [0, 1, 4]
    assert await heavy.number() == os.getpid()


async def test_errors_carry_their_type_and_text() -> None:
    @segue.flow
    async def heavy_errors() -> None:
        with pytest.raises(Odd, match="3 is odd") as caught:
            await heavy.halve(3)
        assert caught.value.n == 3
        with pytest.raises(StepFailed, match="no way back") as failed:
            await heavy.unbuildable()
        assert failed.value.type == "tests.runtime.heavy:Unbuildable"
        with pytest.raises(NotEncodable, match="the result of step 'not_json'"):
            await heavy.not_json()
        with pytest.raises(StepFailed, match=r"SystemExit: 3"):
            await heavy.leaves()
        with pytest.raises(WrongPlace, match="inside the step 'verb'"):
            await heavy.verb()

    await Desk(verify=True).run(heavy_errors())


async def test_the_traceback_of_the_other_process_is_told() -> None:
    @segue.flow
    async def heavy_trace() -> str:
        try:
            await heavy.halve(3)
        except Odd as error:
            return str(error.__cause__.__notes__)
        return ""

    said = await Desk().run(heavy_trace())
    assert "in halve" in said
    assert "raise Odd(n)" in said


async def test_a_crash_is_an_error_and_harms_nothing_else(tmp_path: Path) -> None:
    @segue.flow
    async def heavy_crash() -> list[str]:
        async def falls() -> str:
            with pytest.raises(ProcessDied, match="'dies' was ended by signal 9") as caught:
                await heavy.dies()
            return str(caught.value.code)

        return list(await asyncio.gather(falls(), heavy.busy(str(tmp_path), 0.3), falls()))

    assert await Desk().run(heavy_crash()) == ["-9", "done", "-9"]


async def test_a_crash_is_tried_again_as_retry_says(tmp_path: Path) -> None:
    @segue.flow
    async def heavy_again(case: str) -> int:
        if case == "once":
            await heavy.once(str(tmp_path))
        return await heavy.dies_once(str(tmp_path))

    assert await Desk().run(heavy_again("dies_once")) != os.getpid()
    with pytest.raises(ProcessDied, match="exit code 5"):
        await Desk().run(heavy_again("once"))
    assert (tmp_path / "begun").read_text() == "x"  # it may have happened


@pytest.mark.parametrize(("n", "error", "tries"), [(1, Odd, "xxx"), (2, KeyError, "x")])
async def test_a_policy_that_names_errors(tmp_path: Path, n: int, error: Any, tries: str) -> None:
    @segue.flow
    async def heavy_picky() -> int:
        return await heavy.picky(str(tmp_path), n)

    with pytest.raises(error):
        await Desk().run(heavy_picky())
    assert (tmp_path / "tries").read_text() == tries


async def test_a_timeout_ends_the_process_and_no_other(tmp_path: Path) -> None:
    @segue.flow
    async def heavy_bounded() -> int:
        before = await heavy.number()
        with pytest.raises(TimeoutError, match=r"step 'bounded' took longer than 0:00:00\.3"):
            await heavy.bounded(str(tmp_path))
        return before

    desk = Desk()
    async with desk.engine() as engine:
        await engine.run(heavy_bounded())
        (process,) = begun(tmp_path)
        await until(lambda: not lives(process))


async def test_a_lost_race_ends_its_process_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    @segue.flow
    async def heavy_race() -> str:
        lost = asyncio.create_task(heavy.busy(str(tmp_path / "a"), 60))
        won = asyncio.create_task(heavy.busy(str(tmp_path / "b"), 0.5))
        done = await won
        lost.cancel()
        return done

    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(heavy_race()) == "done"
        await until(lambda: begun(tmp_path / "a") == [] or not lives(*begun(tmp_path / "a")))
        assert all(lives(process) for process in begun(tmp_path / "b"))


async def test_processes_are_kept_and_are_as_many_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.calls.processes.cores", lambda: 2)

    @segue.flow
    async def heavy_many() -> list[int]:
        async def one(_: int) -> int:
            return await heavy.number()

        return await segue.map(one, range(30))

    used = set(await Desk().run(heavy_many()))
    assert 1 <= len(used) <= 2
    assert os.getpid() not in used


async def test_closing_the_engine_ends_them(tmp_path: Path) -> None:
    @segue.flow
    async def heavy_close() -> str:
        await heavy.number()
        return await heavy.busy(str(tmp_path), 60)

    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(heavy_close(), id="it")
        await until(lambda: begun(tmp_path))
        (process,) = begun(tmp_path)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not lives(process)
    assert (await desk.head()).status == "ready"


async def test_killed_at_every_commit() -> None:
    @segue.flow
    async def heavy_everywhere() -> int:
        a = await heavy.squares(3)
        return sum(await segue.map(heavy.away, a))

    def check(desk: Desk, head: Any) -> None:
        assert head.value == b"-5"

    await everywhere(heavy_everywhere, lambda desk: None, check)


# ---------------------------------------------------------------- states of actors
async def test_a_state_in_another_process(tmp_path: Path) -> None:
    """Fields and state change there and come back; a crash in the middle is another attempt, from before it."""
    assert await Desk().run(heavy.Cruncher(str(tmp_path), 4)) == "10 in 4, here 0"


async def test_a_state_in_another_process_killed_at_every_commit(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()

    def check(desk: Desk, head: Any) -> None:
        assert head.value == b'"6 in 3, here 0"'

    await everywhere(lambda: heavy.Cruncher(str(tmp_path), 3), lambda desk: None, check)


@pytest.mark.parametrize("first", ["frozen", "slotted", "dict", "list"])
async def test_such_a_state_may_be_of_any_type(first: str) -> None:
    """It comes back as it is there: nothing is put into the one that is here, which may be frozen, or have slots."""
    assert await Desk().run(heavy.Rounds(first)) == 3


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("fail", Odd, "3 is odd"),
        ("raise", Odd, "5 is odd"),
        ("verb", WrongPlace, "Ender.go"),
        ("wrong", BadSignature, "no state of the actor"),
    ],
)
async def test_how_such_a_state_fails(how: str, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        await Desk().run(heavy.Ender(how))


async def test_how_such_a_state_ends() -> None:
    assert await Desk().run(heavy.Ender("done")) == Point(1, 2)
    desk = Desk()
    async with desk.engine() as engine:
        await engine.start(heavy.Ender("listen"), id="it")
        await desk.parked()


def test_what_no_state_can_be_in_another_process() -> None:
    class Local(segue.Actor[None]):
        @segue.state(pool="process")
        def go(self, _: str) -> None: ...

    class Waits(segue.Actor[None]):
        @segue.state(pool="process")
        async def go(self, _: str) -> None: ...

    with pytest.raises(BadSignature, match="top of a module"):
        Local.__segue__.check()
    with pytest.raises(BadSignature, match="waits for nothing"):
        Waits.__segue__.check()


PROGRAM = """
import asyncio, os, pathlib, sys, time, segue
pathlib.Path("loaded").open("a").write("x")
@segue.step(pool="process")
def hang():
    pathlib.Path(f"{os.getpid()}.begun").touch()
    while True: sum(range(1000))
@segue.step(pool="process")
def where(n: int) -> int:
    return os.getpid()
@segue.flow
async def program(hangs: bool) -> int:
    return await hang() if hangs else await where(1)
async def main():
    async with segue.Engine() as engine:
        print(await engine.run(program(len(sys.argv) > 1)) != os.getpid())
if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.slow
def test_a_program_that_is_started_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert (tmp_path / "loaded").read_text() == "xx"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pack.program", "pack"])
def test_a_program_that_is_started_as_a_module_of_a_package(tmp_path: Path, name: str) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__init__.py").touch()
    (pack / "beside.py").write_text("WORD = 1\n")
    file = pack / ("program.py" if name == "pack.program" else "__main__.py")
    file.write_text(PROGRAM.replace("import asyncio", "from .beside import WORD\nimport asyncio", 1))
    done = subprocess.run(
        [sys.executable, "-m", name], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert (tmp_path / "loaded").read_text() == "xx"


@pytest.mark.slow
def test_no_process_outlives_a_program_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen([sys.executable, "program.py", "hang"], cwd=tmp_path) as program:
        deadline = time.monotonic() + 30
        while not begun(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        (process,) = begun(tmp_path)
        program.kill()
    while lives(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not lives(process)


def test_what_no_other_process_can_import_is_refused() -> None:
    with pytest.raises(BadSignature, match="top of a module"):

        @segue.step(pool="process")
        def nested() -> None: ...

    with pytest.raises(BadSignature, match="lambda"):
        segue.step(lambda: 1, pool="process")


async def test_where_threads_run_side_by_side_it_is_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "side_by_side", lambda: True)

    @segue.flow
    async def heavy_thread() -> int:
        return await heavy.number()

    assert await Desk(verify=True).run(heavy_thread()) == os.getpid()


async def test_and_so_is_a_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(performing, "side_by_side", lambda: True)
    (tmp_path / "mark").touch()
    assert await Desk().run(heavy.Cruncher(str(tmp_path), 3)) == "6 in 3, here 3"


_UNGUARDED = """
import asyncio, pathlib, segue

@segue.step(pool="process")
def heavy() -> int:
    return 1

@segue.flow
async def works() -> int:
    return await heavy()

async def main() -> None:
    with pathlib.Path(__file__).with_suffix(".begun").open("a") as begun:
        begun.write("x")
    async with segue.Engine("memory:") as engine:
        await engine.run(works())

asyncio.run(main())
"""


async def test_a_program_that_begins_its_work_on_import_is_told_so(tmp_path: Path) -> None:
    """And doesn't begin it in the process of its step, which would do so, and so on."""
    file = tmp_path / "unguarded.py"
    file.write_text(_UNGUARDED)
    program = await asyncio.create_subprocess_exec(sys.executable, file, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(20):
            _, said = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
    assert f"{file} opens an engine when it is imported" in said.decode()
    assert 'put what begins work under `if __name__ == "__main__":`' in said.decode()
    assert file.with_suffix(".begun").read_text() == "xx"
