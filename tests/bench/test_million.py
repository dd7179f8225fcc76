"""The main job at its full size, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "bench" / "million.py"


@pytest.mark.slow
def test_every_row_once_and_every_line_paid_once() -> None:
    words = [sys.executable, str(PROGRAM), "600", "--kills", "2"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "each row is there once and in order; each line was paid once" in ended.stdout
    assert "2 of 3 lives killed" in ended.stdout
