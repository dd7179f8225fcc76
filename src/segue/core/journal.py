"""A journal's rows: reading them, naming what is in them, and showing where two calls differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ..model.entry import BLOB, CUT, Entry, decode_entries
from ..model.errors import OUTSIDE, UNREADABLE, Damaged
from . import contents
from .encoding import digest
from .replay import Place, calls_of


def read(rows: Iterable[bytes]) -> list[Entry]:
    """All entries of a journal, in the order written, with what rows of single steps lack: see `Entry`.

    Raises `Damaged`.
    """
    out: list[Entry] = []
    gave: dict[Place, bytes] = {}
    for row in rows:
        for entry in _decoded(row):
            if entry.kind == "step" and not entry.digest:
                # What the call before it gave, unless that was dropped with past turns.
                args = entry.args or around(gave.get((entry.path, entry.n - 1), b"null"))
                entry = msgspec.structs.replace(entry, args=args, digest=digest(args))
            if entry.value is not None:
                gave[entry.path, entry.n] = entry.value
            out.append(entry)
    return out


def _decoded(row: bytes) -> list[Entry]:
    try:
        return decode_entries(row)
    except UNREADABLE as problem:
        raise Damaged("its journal", problem) from problem


def around(value: bytes) -> bytes:
    """A call's arguments that are nothing but that value."""
    return b"".join((contents.OPENING, value, contents.CLOSING))


def merged(entries: Iterable[Entry]) -> list[Entry]:
    """Each call once, with its outcome; in the order of the outcomes, which counts within a batch."""
    written = list(entries)
    calls = calls_of(written)
    out: dict[Place, Entry] = {}
    for entry in written:
        place = (entry.path, entry.n)
        if calls[place].made or not entry.made:
            out.setdefault(place, calls[place])
    return list(out.values())


def open_calls(entries: Iterable[Entry]) -> list[Entry]:
    """Calls that have no outcome yet, in the order in which they were made."""
    return sorted((entry for entry in merged(entries) if entry.made), key=lambda entry: entry.after)


def blobs_of(entries: Iterable[Entry]) -> list[bytes]:
    """The digests of all that was cut out of values and arguments. Raises `Damaged`."""
    out: list[bytes] = []
    for entry in entries:
        if entry.args_blob:
            out += _names(entry.args, entry.args_blob)
        if entry.value_blob and entry.value is not None:
            out += _names(entry.value, entry.value_blob)
    return out


def _names(stand: bytes, how: bool | int) -> list[bytes]:
    if how != CUT:
        return [stand[at : at + contents.SIZE] for at in range(0, len(stand), contents.SIZE)]
    try:
        return contents.names_in(stand)
    except UNREADABLE as problem:
        raise Damaged("its journal", problem) from problem


def store_large(entry: Entry, blobs: list[tuple[bytes, bytes]]) -> Entry:
    """The entry with large contents moved to `blobs`."""
    args, value = entry.args, entry.value
    large_args, large_value = len(args) > BLOB, value is not None and len(value) > BLOB
    if not large_args and not large_value:
        return entry
    return msgspec.structs.replace(
        entry,
        args=contents.cut(args, blobs) if large_args else args,
        value=contents.cut(value, blobs) if large_value and value is not None else value,
        args_blob=CUT if large_args else False,
        value_blob=CUT if large_value else False,
    )


def load_large(entries: Iterable[Entry], there: Mapping[bytes, bytes]) -> list[Entry]:
    """The entries with their large contents back in place. Raises `Damaged`."""
    return [
        msgspec.structs.replace(
            entry,
            args=_whole(entry.args, entry.args_blob, there),
            value=None if entry.value is None else _whole(entry.value, entry.value_blob, there),
            args_blob=False,
            value_blob=False,
        )
        if entry.args_blob or entry.value_blob
        else entry
        for entry in entries
    ]


def _whole(stand: bytes, how: bool | int, there: Mapping[bytes, bytes]) -> bytes:
    if not how:
        return stand
    if how == CUT:
        return contents.whole(stand, there)
    return b"".join(contents.checked(there, name) for name in _names(stand, how))


def difference(recorded: bytes, asked: bytes) -> str:
    """Where two calls' arguments differ, for a person, with the usual cures."""
    changed = _changed(recorded, asked)
    if not changed:
        return "The arguments look alike: the check covers their types too."
    shown = "\n".join(f"    {_shorten(line)}" for line in changed[:12])
    more = f"\n    … and {len(changed) - 12} more lines" if len(changed) > 12 else ""
    return f"The arguments differ (- recorded, + now):\n{shown}{more}\n{_cure(changed)}"


def first_difference(recorded: bytes, asked: bytes) -> str:
    """The same in a line, of the first place where they differ: what was recorded, and what is asked for."""
    changed = _changed(recorded, asked)
    shown = {line[0]: _shorten(line[1:].strip().rstrip(","), 80) for line in reversed(changed)}
    return ", now ".join(shown[sign] for sign in "-+" if sign in shown)


def _changed(recorded: bytes, asked: bytes) -> list[str]:
    import difflib  # few runs ever differ

    lines = difflib.unified_diff(_lines(recorded), _lines(asked), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _lines(args: bytes) -> list[str]:
    try:
        return msgspec.json.format(args, indent=1).decode().splitlines()
    except msgspec.DecodeError:
        return [repr(args)]


def _shorten(line: str, width: int = 160) -> str:
    return line if len(line) <= width else f"{line[: width - 20]} … {line[-15:]}"


def _cure(changed: Sequence[str]) -> str:
    """Digits that differ are mostly a clock, a random number or a count that another life began."""
    old = [line[1:] for line in changed if line.startswith("-")]
    new = [line[1:] for line in changed if line.startswith("+")]
    clocks = any(_same_but_digits(a, b) for a, b in zip(old, new, strict=False))
    if clocks:
        return OUTSIDE
    return "What a flow passes on must come from its arguments and from recorded calls alone."


def _same_but_digits(a: str, b: str) -> bool:
    def mask(text: str) -> str:
        return re.sub("[0-9a-f]+", "0", text)

    return a != b and mask(a) == mask(b)
