"""A pipeline with two sources, an error route and a sink, killed again and again: no row is lost or doubled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .stream import ITEMS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL"),
]


HALF = "half a row"


@pytest.mark.parametrize("seed", [1, 2])
def test_no_row_is_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sink = tmp_path / "rows.txt"
    words = [sys.executable, "-m", "tests.crash.stream", f"sqlite:{tmp_path / 'runs.db'}", str(sink)]
    lives, said = 0, ""
    while not said.strip().isdigit():
        lives += 1
        assert lives < 60
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as life:
            assert life.stdout is not None
            assert life.stdout.readline() == "begun\n"
            try:
                said, _ = life.communicate(timeout=chance.uniform(0.02, 0.4) if lives < 16 else 100)
            except subprocess.TimeoutExpired:
                life.send_signal(signal.SIGKILL)
                said = ""
        if not said and sink.exists() and chance.random() < 0.3:
            with sink.open("ab") as file:
                file.write(HALF.encode())  # as a write that was cut off leaves it
    written = sink.read_text()
    while written.endswith(HALF):  # nobody opens the sink any more once the run has ended
        written = written.removesuffix(HALF)
    rows = [int(row) for row in written.split()]
    wrong = [n for n in range(ITEMS + 300) if n % 50 == 7]
    assert sorted(rows) == [2 * n for n in range(ITEMS + 300) if n not in wrong]
    assert len(rows) == int(said)
    bad = (tmp_path / "rows.txt.bad").read_text().split()
    assert sorted(map(int, bad)) == [n for n in wrong if n < ITEMS]
    assert lives >= 4
