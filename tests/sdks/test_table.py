"""What docs/sdks.md says was tried is what is tried here, in these versions."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sdks.md"


def test_the_versions_are_those_that_were_tried() -> None:
    """Of the first table; of the second, where `instructor` is installed, in an environment of its own."""
    tables = re.split(r"^\| library .*\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    table = tables[1 if importlib.util.find_spec("instructor") else 0]
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+\.\d+) \|", table.partition("\n\n")[0], re.MULTILINE)
    assert len(rows) >= 2
    for name, tried in rows:
        assert version(name).startswith(f"{tried}."), name
