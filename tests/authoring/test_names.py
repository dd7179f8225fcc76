"""Names by which stored runs find their code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import segue
from segue.authoring.flow import TARGETS, definition, target_named


@pytest.fixture(autouse=True)
def names() -> Iterator[None]:
    known = dict(TARGETS)
    yield
    TARGETS.clear()
    TARGETS.update(known)


def load(file: Path, result: int) -> object:
    source = f"import segue\n@segue.flow\nasync def same_name() -> int:\n    return {result}\n"
    space: dict[str, object] = {}
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
        await engine.start(first(), id="it")  # type: ignore[operator]  # a flow
    async with segue.Engine(store) as engine:
        while (head := await engine.head("it")).status == "ready":
            await engine.next_end()
        assert head.status == "parked"
        assert "a.py" in head.reason
        assert "b.py" in head.reason
    async with segue.Engine(store) as engine:  # one that is started is meant
        assert await engine.run(first()) == 1  # type: ignore[operator]


async def test_a_run_waits_a_moment_for_its_flow_to_be_named(tmp_path: Path) -> None:
    """A restarted program claims its runs before it comes to start the flow that they are of."""
    first, _ = load(tmp_path / "a.py", 1), load(tmp_path / "b.py", 2)
    store = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(store, worker=False) as engine:
        await engine.start(first(), id="it")  # type: ignore[operator]  # a flow
    async with segue.Engine(store) as engine:
        while (await engine.store.backlog(now=engine.clock.now()))[0] and not engine.worker._aside:
            await engine.next_end()
        run = await engine.start(first(), id="it")  # type: ignore[operator]
        assert await run == 1
        assert not engine.worker._aside
