"""Help that fits the terminal: paragraphs are filled, what stands in columns is put below one another."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from typing import Any

#: Lines of prose are no longer than this, however wide the terminal is.
WIDEST = 110


class Wrapped(argparse.HelpFormatter):
    """How `--help` is laid out."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        width = min(width, WIDEST)
        if all(len(line) <= width for line in text.splitlines()):
            return text
        return "\n".join(_fitted(text.splitlines(), width))

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None) -> str:
        """Options of which one at most may be given are never parted by argparse, however long they are."""
        width = self._width
        lines = super()._format_usage(usage, actions, groups, prefix).splitlines()
        return "\n".join(part for line in lines for part in _hung(line, width)) + "\n\n"


def _fitted(lines: Iterable[str], width: int) -> Iterable[str]:
    """Lines that begin at the margin are a paragraph, up to a colon at an end; others are parted where columns are."""
    prose: list[str] = []
    for line in [*lines, None]:
        if line and not line.startswith(" "):
            prose.append(line)
            if not line.endswith(":"):
                continue
            line = None
        yield from textwrap.wrap(" ".join(prose), width, break_on_hyphens=False)
        prose.clear()
        if line is not None:
            yield from _apart(line, width)


def _apart(line: str, width: int) -> Iterable[str]:
    """A line of two columns, the second below the first where both have no room."""
    if len(line) <= width:
        yield line
        return
    parts = re.split(r"(?<=\S) {2,}(?=\S)|^ {20,}", line)
    for number, part in enumerate(part for part in parts if part):
        yield from _hung(part if number == 0 and line.startswith(part) else f"      {part.strip()}", width)


def _hung(line: str, width: int) -> list[str]:
    """A line that is too long, its rest indented by a little more than it is."""
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=indent,
        drop_whitespace=True,
        break_on_hyphens=False,
        break_long_words=False,
    )
