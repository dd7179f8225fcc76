"""Names by which stored runs find their code."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.authoring.flow import TARGETS, definition, module_of, target_named
from segue.errors import Conflict
from segue.runtime import worker
from segue.testing.rehearse import rehearse
from tests.runtime.lives import until


@pytest.fixture(autouse=True)
def names() -> Iterator[None]:
    known = dict(TARGETS)
    yield
    TARGETS.clear()
    TARGETS.update(known)


def load(file: Path, result: int, module: str = "", how: str = "") -> Any:
    value = f"{result} + await segue.receive(int)" if module else f"{result}"
    source = f"import segue\n@segue.flow{how}\nasync def same_name() -> int:\n    return {value}\n"
    file.write_text(source)  # its version is read from there
    space: dict[str, object] = {"__name__": module} if module else {}
    exec(compile(source, str(file), "exec"), space)
    return space["same_name"]


def test_defined_anew_in_its_file_a_flow_takes_the_old_ones_place(tmp_path: Path) -> None:
    load(tmp_path / "a.py", 1)
    new = load(tmp_path / "a.py", 2)
    assert target_named("same_name") is definition(new)


async def test_of_two_files_none_is_run_by_a_name_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = load(tmp_path / "a.py", 1), load(tmp_path / "b.py", 2)
    assert target_named("same_name") is None
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store, worker=False) as engine:
        await engine.start(first(), id="it")
    async with segue.Engine(store) as engine:
        while not (head := await engine.head("it")).reason:
            await engine.ends.next()
        assert head.status == "ready"  # for whoever has it
        assert "a.py" in head.reason
        assert "b.py" in head.reason
    async with segue.Engine(store) as engine:  # one that is started is meant
        assert await engine.run(first()) == 1


async def test_a_run_waits_a_moment_for_its_flow_to_be_named(tmp_path: Path) -> None:
    """A restarted program claims its runs before it comes to start the flow that they are of."""
    first, _ = load(tmp_path / "a.py", 1), load(tmp_path / "b.py", 2)
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store, worker=False) as engine:
        await engine.start(first(), id="it")
    async with segue.Engine(store) as engine:
        await until(lambda: engine.worker._aside)
        run = await engine.start(first(), id="it")
        assert await run == 1
        assert not engine.worker._aside


async def test_a_run_that_was_left_to_others_is_taken_once_its_flow_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ASIDE", 0.01)
    first, _ = load(tmp_path / "a.py", 1), load(tmp_path / "b.py", 2)
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store, worker=False) as engine:
        await engine.start(first(), id="it")
    async with segue.Engine(store) as engine:
        await until(lambda: engine.worker.repertoire.left())
        async with asyncio.timeout(5):
            assert await (await engine.start(first(), id="it")) == 1


async def go_on(engine: segue.Engine, id: str) -> object:
    await (await engine.get(id)).tell(1)
    return await (await engine.get(id))


async def test_flows_of_one_name_are_told_apart_by_their_modules(tmp_path: Path) -> None:
    first, second = load(tmp_path / "a.py", 1, "names_a"), load(tmp_path / "b.py", 2, "names_b")
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store) as engine:
        await engine.start(first(), id="one")
        await engine.start(second(), id="two")
        assert await go_on(engine, "one") == 2  # although the other one was started last
        await engine.start(first(), id="three")
    async with segue.Engine(store) as engine:  # where nobody was started
        assert await go_on(engine, "two") == 3
        assert await go_on(engine, "three") == 2


async def started(first: Any, store: str) -> None:
    async with segue.Engine(store) as engine:
        await engine.start(first(), id="one")
        while (await engine.head("one")).status != "parked":
            await engine.ends.next()
    TARGETS.pop("same_name")


async def test_a_flow_that_moved_as_it_was_is_found_by_its_name(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    await started(load(tmp_path / "a.py", 1, "names_a"), store)
    load(tmp_path / "c.py", 1, "names_c")
    async with segue.Engine(store) as engine:
        assert await go_on(engine, "one") == 2


@pytest.mark.parametrize(
    ("was", "now"), [("names_a", "pkg.names_a"), ("pkg.names_a", "names_a"), ("a", "a")], ids=str
)
async def test_a_script_and_its_module_are_one(tmp_path: Path, was: str, now: str) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    await started(load(tmp_path / "a.py", 1, was), store)
    load(tmp_path / "c.py", 10, now)
    async with segue.Engine(store) as engine:
        assert await go_on(engine, "one") == 11


async def test_a_flow_that_moved_and_changed_says_that_it_is_the_same(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    await started(load(tmp_path / "a.py", 1, "names_a"), store)
    load(tmp_path / "c.py", 10, "names_c", "(name='same_name')")
    async with segue.Engine(store) as engine:
        assert await go_on(engine, "one") == 11


async def test_another_flow_of_that_name_leaves_the_run_alone_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    first = load(tmp_path / "a.py", 1, "names_a")
    await started(first, store)
    other = load(tmp_path / "c.py", 10, "names_c")
    async with segue.Engine(store) as engine:
        await (await engine.get("one")).tell(1)
        mine = await engine.start(other(), id="mine")  # neither does one that is started here
        while "run one: it was begun by the flow 'same_name' of module 'names_a'" not in caplog.text:
            await engine.ends.next()
        assert f"'names_c' ({tmp_path}/c.py)" in caplog.text
        assert "@segue.flow(name='same_name')" in caplog.text
        await mine.tell(1)
        assert await mine == 11  # its own go on
        (told,) = [one async for one in rehearse(engine)]
        assert (told.what, told.run) == ("held", "one")
    TARGETS.pop("same_name")
    definition(first).module = "names_a"
    load(tmp_path / "a.py", 1, "names_a")
    async with segue.Engine(store) as engine:  # where it is, it goes on
        assert await (await engine.get("one")) == 2


async def test_services_with_flows_of_one_name_dont_put_each_others_runs_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    first = load(tmp_path / "a.py", 1, "names_a")
    async with segue.Engine(store, worker=False) as engine:
        for n in range(5):
            await engine.start(first(), id=f"theirs{n}")
    TARGETS.pop("same_name")
    load(tmp_path / "c.py", 10, "names_c")
    async with segue.Engine(store) as engine:
        while (await engine.worker.backlog())[0]:  # until all are left to others
            await engine.ends.next()
        heads = [await engine.head(f"theirs{n}") for n in range(5)]
        assert {(head.status, head.wake) for head in heads} == {("ready", None)}
        assert "module 'names_a'" in caplog.text
        fences = [head.fence for head in heads]
        engine.worker.wake()
        await asyncio.sleep(0.05)
        assert [(await engine.head(head.id)).fence for head in heads] == fences  # nobody takes them again
        assert caplog.text.count("was begun by the flow 'same_name'") == 1
        TARGETS.pop("same_name")
        definition(first).module = "names_a"
        load(tmp_path / "a.py", 1, "names_a")
        async with segue.Engine(store) as other, asyncio.timeout(0.5):  # whose they are has them at once
            for head in heads:
                assert await go_on(other, head.id) == 2


async def test_a_run_of_an_older_file_is_put_off(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    first = load(tmp_path / "a.py", 1, "names_a")
    async with segue.Engine(f"sqlite:{path}", worker=False) as engine:
        await engine.start(first(), id="one")
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("update targets set name = 'same_name'")
    TARGETS.pop("same_name")
    load(tmp_path / "c.py", 10, "names_c")
    async with segue.Engine(f"sqlite:{path}") as engine:
        while (head := await engine.head("one")).status != "parked":
            await engine.ends.next()
        assert head.wake is not None
        assert "names_a" in head.reason


ACTOR = """
import segue

class Ping(segue.Request[int]):
    pass

class Same(segue.Actor[None]{how}):
    @segue.on
    async def ping(self, ping: Ping) -> int:
        return {result}
"""


def actor(file: Path, result: int, module: str, how: str = "") -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": module}
    exec(compile(ACTOR.format(how=how, result=result), str(file), "exec"), space)
    return space


@pytest.mark.parametrize("how", ["", ", name='Same'"])
async def test_actors_are_told_apart_likewise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    store = f"sqlite:{tmp_path}/runs.db"
    space = actor(tmp_path / "a.py", 1, "names_a")
    async with segue.Engine(store) as engine:
        run = await engine.start(space["Same"](), id="one")
        assert await run.request(space["Ping"]()) == 1
    TARGETS.pop("Same")
    space = actor(tmp_path / "c.py", 2, "names_c", how)
    async with segue.Engine(store) as engine:
        asked = asyncio.ensure_future((await engine.get("one")).request(space["Ping"]()))
        if how:
            assert await asked == 2
        else:
            while "class …(Actor, name='Same')" not in caplog.text:
                await engine.ends.next()
            asked.cancel()


async def test_a_step_alone_is_told_apart_likewise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(result: int, module: str) -> Any:
        source = f"import segue\n@segue.step\nasync def same_step() -> int:\n    return {result}\n"
        (tmp_path / f"{module}.py").write_text(source)
        space: dict[str, Any] = {"__name__": module}
        exec(compile(source, str(tmp_path / f"{module}.py"), "exec"), space)
        return space["same_step"]

    monkeypatch.setattr("segue.authoring.step.STEPS", {})
    monkeypatch.setattr("segue.authoring.flow.STEPS", STEPS := {})
    store = f"sqlite:{tmp_path}/runs.db"
    first = step(1, "names_a")
    async with segue.Engine(store, worker=False) as engine:
        await engine.start(first(), id="one")
    other = step(2, "names_c")
    STEPS["same_step"] = other.__segue__
    async with segue.Engine(store) as engine:
        while "run one: it was begun by the flow 'step:same_step' of module 'names_a'" not in caplog.text:
            await engine.ends.next()


async def test_a_run_of_before_modules_were_recorded_is_found_by_a_name_that_is_unique(
    tmp_path: Path,
) -> None:
    first = load(tmp_path / "a.py", 1, "names_a")
    definition(first).module = ""
    async with segue.Engine(f"sqlite:{tmp_path}/runs.db") as engine:
        await engine.start(first(), id="one")
        assert (await engine.head("one")).spec.module == ""
    definition(first).module = "names_a"
    async with segue.Engine(f"sqlite:{tmp_path}/runs.db") as engine:
        assert await go_on(engine, "one") == 2


def test_a_program_is_called_alike_however_it_is_run() -> None:
    assert module_of("pkg.app", "/x/pkg/app.py") == "pkg.app"
    assert module_of("_segue_json", "/x/json.py") == "json"
    assert module_of("__main__", "/x/app.py") == "app"


def side_by_side(file: Path, second: str) -> dict[str, Any]:
    source = (
        "import segue\n"
        "@segue.flow(name='n')\nasync def a() -> str:\n    return 'A'\n"
        f"@segue.flow(name='n')\nasync def {second}() -> str:\n    return 'B'\n"
    )
    space: dict[str, Any] = {"__name__": "side_by_side"}
    exec(compile(source, str(file), "exec"), space)
    return space


def test_a_file_with_two_flows_of_one_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Conflict) as refused:
        side_by_side(tmp_path / "a.py", "b")
    assert f"a ({tmp_path}/a.py:2) and b ({tmp_path}/a.py:5)" in str(refused.value)


def test_a_name_used_again_in_a_file_takes_the_old_ones_place(tmp_path: Path) -> None:
    both = side_by_side(tmp_path / "a.py", "a")
    assert target_named("n") is definition(both["a"])
