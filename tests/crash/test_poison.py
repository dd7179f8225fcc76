"""A run that its workers die of, by real signals, is held; what was claimed with it comes to its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segue import Engine
from segue.stores.poison import LAPSES
from tests.crash.poison import harmless, poisonous

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="kills"),
    pytest.mark.slow,
]
APP = Path(__file__).parent / "poison.py"


def segue(store: str, *words: str) -> subprocess.CompletedProcess[str]:
    """One command, in a process of its own."""
    command = [sys.executable, "-m", "segue", *words, "--store", store]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


async def test_poison_is_held_and_may_be_resumed(tmp_path: Path) -> None:
    store, cure = f"sqlite:{tmp_path}/runs.db", tmp_path / "cure"
    async with Engine(store, worker=False) as engine:
        await engine.start(poisonous(str(cure)), id="bad")
        for n in range(20):
            await engine.start(harmless(n), id=f"good/{n}")
    deaths = 0
    while (came := segue(store, "advance", str(APP))).returncode == -signal.SIGKILL:
        deaths += 1
        assert deaths <= LAPSES
    assert deaths == LAPSES, came.stderr
    listed = segue(store, "runs").stdout
    assert "held" in listed
    assert f"its claim lapsed {LAPSES} times" in listed
    async with Engine(store, worker=False) as engine:
        assert (await engine.head("bad")).status == "held"
        for n in range(20):
            assert (await engine.head(f"good/{n}")).value == str(n).encode()
    assert "once more: segue resume --all-like bad" in segue(store, "runs", "--failed").stdout
    cure.touch()
    resumed = segue(store, "resume", "bad")
    assert resumed.returncode == 0, resumed.stderr
    assert segue(store, "advance", str(APP)).returncode == 0
    async with Engine(store, worker=False) as engine:
        assert (await engine.head("bad")).value == b'"cured"'
