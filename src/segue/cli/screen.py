"""What people read: results on standard output, notes on standard error; plain where there is no terminal."""

from __future__ import annotations

import os
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


def note(text: str, *, faint: bool = False) -> None:
    """A line for people."""
    print(dim(text, sys.stderr) if faint else text, file=sys.stderr, flush=True)


def put_json(value: Any, stream: IO[str] | None = None) -> None:
    """One line of JSON, on standard output if nothing else is said."""
    print(msgspec.json.encode(value).decode(), file=stream, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = "") -> None:
    """Rows under headings; the last column is cut where the terminal ends. `right`: headings that are flush right."""
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(each) for each in column) for column in zip(columns, *text, strict=True)]
    room = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 10_000
    aligned = [(">" if name in right.split(",") else "<") for name in columns]
    for number, row in enumerate([list(columns), *text]):
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)]
        line = short("  ".join(cells).rstrip(), room)
        print(line if number else bold(line, sys.stdout))


def _cell(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def short(text: str, width: int = 60) -> str:
    """One line of at most that many characters."""
    line = " ".join(text.split()) if "\n" in text else text
    return line if len(line) <= width else f"{line[: max(width - 1, 1)]}…"


def shown(value: bytes | None, width: int = 60) -> str:
    """A JSON value for people: a text as it is."""
    if value is None:
        return ""
    try:
        plain = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return short(repr(value), width)
    return short(plain if isinstance(plain, str) else value.decode(), width)


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
