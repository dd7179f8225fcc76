"""What people read: results on standard output, notes on standard error; plain where there is no terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

import msgspec

from ..model.entry import Failure


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person looks at it."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colours(stream: IO[str]) -> bool:
    return is_terminal(stream) and "NO_COLOR" not in os.environ


def dim(text: str, stream: IO[str]) -> str:
    """Text of less weight."""
    return f"\x1b[2m{text}\x1b[0m" if colours(stream) else text


def bold(text: str, stream: IO[str]) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colours(stream) else text


def visible(text: str) -> str:
    """Text of others as it may stand on a terminal: what would move the cursor, or turn letters round, is spelt out."""
    return text if text.isprintable() else _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


#: Controls but for tabs and ends of lines, and the marks that change the direction of what follows.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def note(text: str, *, faint: bool = False, strong: bool = False) -> None:
    """A line for people."""
    text = visible(text)
    text = dim(text, sys.stderr) if faint else bold(text, sys.stderr) if strong else text
    print(text, file=sys.stderr, flush=True)


def put_json(value: Any, stream: IO[str] | None = None) -> None:
    """One line of JSON, on standard output if nothing else is said."""
    print(msgspec.json.encode(value).decode(), file=stream, flush=True)


#: The least room, in letters, for a table's last column.
LEAST = 20


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = "") -> None:
    """Rows under headings; the last column is cut where the terminal ends. `right`: headings that are flush right.

    Where there is no room for it, it stands below the others.
    """
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(each) for each in column) for column in zip(columns, *text, strict=True)]
    room = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 10_000
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    below = before + min(widths[-1], LEAST) > room and columns[-1] not in right.split(",")
    aligned = [(">" if name in right.split(",") else "<") for name in columns]
    for number, row in enumerate([list(columns), *text]):
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)]
        parts = ["  ".join(cells[:-1]), f"    {row[-1]}" if row[-1] else ""] if below else ["  ".join(cells)]
        for line in [short(part.rstrip(), room) for part in parts if part.strip()]:
            print(line if number else bold(line, sys.stdout))


def _cell(value: object) -> str:
    return visible(value) if isinstance(value, str) else "" if value is None else str(value)


def short(text: str, width: int = 60) -> str:
    """One line of at most that many characters."""
    line = " ".join(text.split()) if "\n" in text else text
    return line if len(line) <= width else f"{line[: max(width - 1, 1)]}…"


def shown(value: bytes | None, width: int = 60) -> str:
    """A JSON value for people: a text as it is."""
    if value is None:
        return ""
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return short(repr(value), width)
    return short(visible(found if isinstance(found, str) else value.decode()), width)


def count(number: int) -> str:
    """12,345"""
    return f"{number:,}"


def money(usd: float | None) -> str:
    """Dollars: two figures that count."""
    if usd is None:
        return "?"
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def duration(seconds: float) -> str:
    """`350 ms`, `4.2 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`"""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def error_of(failure: Failure) -> dict[str, str]:
    """A recorded error as JSON for programs."""
    return {"type": failure.type, "message": failure.message, "trace": failure.trace}


def kind_of(error_type: str) -> str:
    """The class of an error's recorded type `module:qualname`, as people know it."""
    return error_type.rpartition(":")[2]
