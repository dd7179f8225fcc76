"""A journal's rows: reading them, naming what is in them, and showing where two calls differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import msgspec

from ..model.entry import BLOB, Entry, decode_entries
from ..model.errors import OUTSIDE, UNREADABLE, Damaged
from .encoding import digest
from .replay import Place, calls_of


def read(rows: Iterable[bytes]) -> list[Entry]:
    """All entries of a journal, in the order written, with what rows of single steps lack: see `Entry`.

    Raises `Damaged`.
    """
    out: list[Entry] = []
    given: dict[str, Entry] = {}  # the newest with a value, by path
    for row in rows:
        for entry in _decoded(row):
            if entry.kind == "step" and not entry.digest:
                args = entry.args or _passed_on(entry, given.get(entry.path))
                entry = msgspec.structs.replace(entry, args=args, digest=digest(args))
            if entry.value is not None:
                given[entry.path] = entry
            out.append(entry)
    return out


def _decoded(row: bytes) -> list[Entry]:
    try:
        return decode_entries(row)
    except UNREADABLE as problem:
        raise Damaged("its journal", problem) from problem


def _passed_on(entry: Entry, before: Entry | None) -> bytes:
    """What the call before gave, as arguments; if that was dropped with past turns, nobody knows."""
    value = None if before is None or before.n != entry.n - 1 else before.value
    return b"".join((_OPENING, b"null" if value is None else value, _CLOSING))


def passes_on(args: bytes, value: bytes) -> bool:
    """Whether arguments are nothing but that value."""
    return len(args) == len(value) + _AROUND and args == b"".join((_OPENING, value, _CLOSING))


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


def blobs_of(entries: Iterable[Entry]) -> list[bytes]:
    """The digests of all values and arguments that are stored by content."""
    out: list[bytes] = []
    for entry in entries:
        if entry.args_blob:
            out += _parts(entry.args)
        if entry.value_blob and entry.value is not None:
            out.append(entry.value)
    return out


#: So long is the name of a blob.
_SIZE = 16


def content_digest(content: bytes) -> bytes:
    """The name of a blob: 16 bytes."""
    return blake2b(content, digest_size=_SIZE).digest()


def store_large(entry: Entry, blobs: list[tuple[bytes, bytes]]) -> Entry:
    """The entry with large contents moved to `blobs`."""
    args, value = entry.args, entry.value
    args_blob, value_blob = len(args) > BLOB, value is not None and len(value) > BLOB
    if not args_blob and not value_blob:
        return entry
    if args_blob:
        parts = [(content_digest(part), part) for part in _around(args)]
        blobs += parts
        args = b"".join(name for name, _ in parts)
    if value_blob and value is not None:
        blobs.append((content_digest(value), value))
        value = blobs[-1][0]
    return msgspec.structs.replace(entry, args=args, value=value, args_blob=args_blob, value_blob=value_blob)


#: What stands around the one argument of a call.
_OPENING, _CLOSING = b"[[", b"],{}]"
_AROUND = len(_OPENING) + len(_CLOSING)


def _around(args: bytes) -> list[bytes]:
    """Arguments in parts, so that one alone is the same content as where it came from, or goes to, as a value."""
    if args.startswith(_OPENING) and args.endswith(_CLOSING):
        return [_OPENING, args[len(_OPENING) : -len(_CLOSING)], _CLOSING]
    return [args]


def _parts(names: bytes) -> list[bytes]:
    """The digests of contents that stand end to end."""
    return [names[at : at + _SIZE] for at in range(0, len(names), _SIZE)]


def load_large(entries: Iterable[Entry], contents: Mapping[bytes, bytes]) -> list[Entry]:
    """The entries with their large contents back in place. Raises `KeyError` for one that isn't there."""
    return [
        msgspec.structs.replace(
            entry,
            args=b"".join(_content(contents, part) for part in _parts(entry.args))
            if entry.args_blob
            else entry.args,
            value=_content(contents, entry.value)
            if entry.value_blob and entry.value is not None
            else entry.value,
            args_blob=False,
            value_blob=False,
        )
        if entry.args_blob or entry.value_blob
        else entry
        for entry in entries
    ]


def _content(contents: Mapping[bytes, bytes], name: bytes) -> bytes:
    content = contents[name]
    if content_digest(content) != name:
        raise Damaged("a large content of its journal", "it isn't what its digest says")
    return content


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
