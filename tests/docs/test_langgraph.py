"""LangGraph's blocks in the page for those who come from it, run with LangGraph where the benchmarks installed it."""

from __future__ import annotations

import os
import subprocess

import pytest

from .blocks import ROOT, blocks_of

PYTHON = ROOT / "bench" / ".envs" / "langgraph" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(not PYTHON.exists(), reason="`make bench` makes the environment of LangGraph")
def test_its_blocks_do_what_the_page_says() -> None:
    blocks = [
        block.text
        for block in blocks_of(ROOT / "docs" / "from-langgraph.md")
        if block.how == "fragment langgraph"
    ]
    assert len(blocks) >= 6
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, "-c", "\n".join(blocks)], capture_output=True, text=True, timeout=100, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "graph TD" in done.stdout
