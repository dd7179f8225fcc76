"""What people read: results on standard output, notes on standard error; plain where there is no terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate, takewhile
from typing import IO, Any

import msgspec

from ..authoring.failures import members_of
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
    """Rows under headings; a last column of text is cut where the terminal ends. `right`: headings flush right.

    Where there is no room for it, it stands below the others. Numbers are never cut: where the terminal is too narrow
    for all columns, those that are left come as a table of their own, below.
    """
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(breadth, column)) for column in zip(columns, *text, strict=True)]
    room = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 10_000
    aligned = [(">" if name in right.split(",") else "<") for name in columns]
    lines = [list(columns), *text]
    if aligned[-1] == ">":
        named = next(each for each, side in enumerate(aligned) if side == ">")
        for number, part in enumerate(_parts(widths, max(named, 1), room)):
            if number:
                print()
            _put(lines, [(each, aligned[each], widths[each]) for each in part])
        return
    before = [(each, aligned[each], widths[each]) for each in range(len(columns) - 1)]
    taken = sum(widths[:-1]) + 2 * len(before)
    if taken + min(widths[-1], LEAST) > room:
        for number, line in enumerate(lines):
            _put([line], before, heading=number == 0)
            if line[-1]:
                _show(short(f"    {line[-1]}", room), heading=number == 0)
    else:
        last = (len(columns) - 1, "<", widths[-1])
        _put([[*line[:-1], short(line[-1], room - taken)] for line in lines], [*before, last])


#: A column, the side on which it is flush, and how wide it is.
Column = tuple[int, str, int]


def _put(lines: Iterable[Sequence[str]], columns: Sequence[Column], *, heading: bool = True) -> None:
    """Some columns of some lines, the first of which may be the headings."""
    for number, line in enumerate(lines):
        text = "  ".join(_padded(line[each], side, width) for each, side, width in columns)
        _show(text.rstrip(), heading=heading and number == 0)


def _padded(text: str, side: str, width: int) -> str:
    return f"{text:{side}{width - breadth(text) + len(text)}}"


def _show(text: str, *, heading: bool) -> None:
    print(bold(text, sys.stdout) if heading else text)


def _parts(widths: Sequence[int], named: int, room: int) -> list[list[int]]:
    """Columns that have room beside each other; the first ones, which name the row, are in each part."""
    names = list(range(named))
    before = sum(widths[:named]) + 2 * (named - 1)
    parts, taken = [names[:]], before
    for each, width in enumerate(widths[named:], named):
        if taken + 2 + width > room and len(parts[-1]) > named:
            parts.append(names[:])
            taken = before
        parts[-1].append(each)
        taken += 2 + width
    return parts


def _cell(value: object) -> str:
    return visible(value) if isinstance(value, str) else "" if value is None else str(value)


def breadth(text: str) -> int:
    """The places that a text takes on a terminal: letters of East Asia and pictures two, what joins another none."""
    return len(text) if text.isascii() else sum(map(_places, text))


def _places(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def short(text: str, width: int = 60) -> str:
    """One line of at most that many places."""
    line = " ".join(text.split()) if "\n" in text else text
    if len(line) <= 8 * width and breadth(line) <= width:
        return line
    # Whoever writes more marks above letters than that is cut short.
    ends = accumulate(map(_places, line[: 8 * width]))
    return f"{line[: sum(1 for _ in takewhile(lambda end: end < max(width, 2), ends))]}…"


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


def told(failure: Failure) -> str:
    """A recorded error as people read it: its class and its text."""
    return f"{kind_of(failure.type)}: {text_of(failure)}"


def text_of(failure: Failure) -> str:
    """A recorded error's text; of a group with what is in it, for that is why it failed."""
    members = dict.fromkeys(told(member) for member in members_of(failure))
    return f"{failure.message}: {'; '.join(members)}" if members else failure.message


def kind_of(error_type: str) -> str:
    """The class of an error's recorded type `module:qualname`, as people know it."""
    return error_type.rpartition(":")[2]
