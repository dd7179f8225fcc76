"""A burst of changes is told once, when it has been quiet, whatever crashes."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segue import Interruption
from segue.model.run import Head
from segue.testing import FakeModel
from segue.testing.clock import START
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

from .folders import EXAMPLES, Folder

watcher = Folder("watcher").watcher


async def test_a_burst_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeModel() as model:
        run = await model.engine.start(watcher.Watcher(timedelta(seconds=10)), id="w")
        for name in ("b", "a", "b"):
            await run.tell(watcher.Changed(name, 1))
            await model.clock.sleep(6)
        assert capsys.readouterr().out == ""
        await model.clock.sleep(10)
        assert capsys.readouterr().out == "changed: a b\n"
        await run.tell(watcher.Changed("c", 1))
        await model.clock.sleep(11)
        assert capsys.readouterr().out == "changed: c\n"
        assert model.clock.now() >= START.timestamp() + 39


async def test_changes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    source: Any = watcher.changes(tmp_path, {"b": 1})
    change = await anext(source)
    assert (change.path, change.time) == ("a", (tmp_path / "a").stat().st_mtime_ns)
    assert await anext(source) == watcher.Changed("b", None)
    (tmp_path / "a").unlink()
    assert await anext(source) == watcher.Changed("a", None)
    await source.aclose()


async def test_a_burst_is_told_once_whatever_crashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def begin(engine: Any) -> None:
        run = await engine.start(watcher.Watcher(timedelta(seconds=10)), id="w")
        for name in ("b", "a", "b"):
            await run.tell(watcher.Changed(name, 1))
        await run.tell(Interruption(), after=timedelta(hours=1))
        capsys.readouterr()

    def check(desk: Desk, head: Head) -> None:
        assert head.status == "cancelled"
        told = capsys.readouterr().out.splitlines()
        assert told in (["changed: a b"], ["changed: a b"] * 2)  # again only where it died as it spoke

    assert await at_every_commit(begin, "w", check, kind="memory", path=tmp_path) > 5


def watching(where: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / "watcher" / "watcher.py"), str(folder)]
    return subprocess.Popen(command, cwd=where, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_and_started_again_it_tells_what_changed_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text("1")
    first, then = "changed: a b\n", "changed: b c\n"
    for told in (first, then):
        with watching(tmp_path, folder) as process:
            try:
                assert process.stdout is not None
                said = process.stdout.readline()
                if told == then and said == first:  # it was killed as it spoke
                    said = process.stdout.readline()
                assert said == told
            finally:
                process.kill()
        (folder / "b").unlink(missing_ok=True)
        (folder / "c").write_text("1")
