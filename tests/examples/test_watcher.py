"""A burst of changes is told once, when it has been quiet, whatever crashes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segue.testing import FakeModel
from segue.testing.clock import START

from .folders import Folder

watcher = Folder("watcher").watcher


async def test_a_burst_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeModel() as model:
        run = await model.engine.start(watcher.Watcher(timedelta(seconds=10)), id="w")
        for name in ("b", "a", "b"):
            await run.tell(watcher.Changed(name))
            await model.clock.sleep(6)
        assert capsys.readouterr().out == ""
        await model.clock.sleep(10)
        assert capsys.readouterr().out == "changed: a b\n"
        await run.tell(watcher.Changed("c"))
        await model.clock.sleep(11)
        assert capsys.readouterr().out == "changed: c\n"
        assert model.clock.now() >= START.timestamp() + 39


async def test_changes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    source: Any = watcher.changes(tmp_path)
    assert (await anext(source)).path == "a"
    (tmp_path / "a").unlink()
    assert (await anext(source)).path == "a"
    await source.aclose()
