"""Names by which stored runs find their code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.authoring.flow import TARGETS, definition, module_of, target_named
from segue.errors import Conflict


@pytest.fixture(autouse=True)
def names() -> Iterator[None]:
    known = dict(TARGETS)
    yield
    TARGETS.clear()
    TARGETS.update(known)


def load(file: Path, result: int, module: str = "") -> Any:
    value = f"{result} + await segue.receive(int)" if module else f"{result}"
    source = f"import segue\n@segue.flow\nasync def same_name() -> int:\n    return {value}\n"
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
        while (head := await engine.head("it")).status == "ready":
            await engine.next_end()
        assert head.status == "parked"
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
        while (await engine.store.backlog(now=engine.clock.now()))[0] and not engine.worker._aside:
            await engine.next_end()
        run = await engine.start(first(), id="it")
        assert await run == 1
        assert not engine.worker._aside


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


async def test_a_flow_that_moved_to_another_module_is_found_by_its_name(tmp_path: Path) -> None:
    first = load(tmp_path / "a.py", 1, "names_a")
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store) as engine:
        await engine.start(first(), id="one")
    TARGETS.pop("same_name")
    load(tmp_path / "c.py", 10, "names_c")
    async with segue.Engine(store) as engine:
        assert await go_on(engine, "one") == 11


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
