"""Large contents, by digest: each is there once, for as long as something holds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ...core.contents import cut, names_in, whole
from ...core.journal import store_large
from ...model.entry import BLOB, Entry
from ...model.errors import Damaged
from .bulk import Query, Values

#: What holds a content for as long as its run is there. No journal row is as late, so no sweep lets these go.
INPUT, RESULT, SHOWN, POOL, _MOVING = range(1 << 62, (1 << 62) + 5)

#: One that was damaged is mended by whoever has it again: else all new runs with that text would be harmed, too.
_BLOBS: Final = Values(
    "digest, content",
    "insert into blobs select digest, content from {v} where true"
    " on conflict do update set content = excluded.content where content <> excluded.content",
)
_HOLDS: Final = Values(
    "digest, run, at", "insert into holds(digest, run, at) select digest, run, at from {v}"
)
_HELD: Final = Query(("#digest",), "from holds where run = ? and at >= ? and at < ?")


class Large:
    """Contents that rows about to be written leave out, and what holds them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._blobs: list[tuple[bytes, bytes]] = []
        self._holds: list[tuple[bytes, int, int]] = []

    def cut(self, run: int, content: bytes | None) -> bytes | None:
        """What stands for a content, if it is large."""
        if content is None or len(content) <= BLOB:
            return None
        new: list[tuple[bytes, bytes]] = []
        stand = cut(content, new)
        self._hold(run, new)
        return stand

    def entries(self, run: int, entries: Iterable[Entry]) -> list[Entry]:
        """Entries of a journal without their large contents."""
        new: list[tuple[bytes, bytes]] = []
        bare = [store_large(entry, new) for entry in entries]
        self._hold(run, new)
        return bare

    def _hold(self, run: int, new: Sequence[tuple[bytes, bytes]]) -> None:
        self._blobs += new
        self._holds += [(digest, run, self._at) for digest, _ in new]

    def write(self, cx: sqlite3.Connection) -> None:
        """Put them where they are looked for."""
        if self._blobs:
            put(cx, self._blobs)
            hold(cx, self._holds)


def put(cx: sqlite3.Connection, contents: Sequence[tuple[bytes, bytes]]) -> None:
    """Contents by digest."""
    _BLOBS.run(cx, [*dict(contents).items()])


def hold(cx: sqlite3.Connection, holds: Sequence[tuple[bytes, int, int]]) -> None:
    """Digests, each with the run that holds it, and the journal row after which it came; once each."""
    _HOLDS.run(cx, [*dict.fromkeys(holds)])


def holds_any(cx: sqlite3.Connection, run: int, since: int, upto: int) -> bool:
    """Whether contents came with a run's rows after `since` and up to `upto`."""
    return _HELD.row(cx, (run, since, upto)) is not None


def let_go(cx: sqlite3.Connection, run: int, since: int, upto: int) -> None:
    """Contents that came with those rows go, unless something else holds them."""
    which = (run, since, upto)
    digests = {digest for (digest,) in _HELD.rows(cx, which)}
    if not digests:
        return
    cx.execute("delete from holds where run = ? and at >= ? and at < ?", which)
    for digest in digests:
        if cx.execute("select 1 from holds where digest = ? limit 1", (digest,)).fetchone() is None:
            cx.execute("delete from blobs where digest = ?", (digest,))


def hold_only(cx: sqlite3.Connection, run: int, at: int, stands: Iterable[bytes | None]) -> None:
    """Of all that a run holds there, only what was cut out of contents for which these stand is needed any more."""
    hold(cx, [(name, run, _MOVING) for name in _names(stands)])
    let_go(cx, run, at, at + 1)
    cx.execute("update holds set at = ? where run = ? and at = ?", (at, run, _MOVING))


def contents_of(cx: sqlite3.Connection, stands: Iterable[bytes | None]) -> dict[bytes, bytes]:
    """All pieces that were cut out of contents for which these stand."""
    names = _names(stands)
    return get_blobs(cx, names) if names else {}


def _names(stands: Iterable[bytes | None]) -> list[bytes]:
    names: list[bytes] = []
    for stand in stands:
        if stand is not None:
            with suppress(msgspec.DecodeError):  # told of where it is read
                names += names_in(stand)
    return names


def read_content(stand: bytes, there: Mapping[bytes, bytes]) -> bytes:
    """The content that this stands for. Raises `msgspec.DecodeError`."""
    try:
        return whole(stand, there)
    except Damaged as error:
        raise msgspec.DecodeError(error.problem) from error


def get_blobs(cx: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    """Contents by digest."""
    out: dict[bytes, bytes] = {}
    for start in range(0, len(digests), 500):
        part = list(digests[start : start + 500])
        marks = ",".join("?" * len(part))
        out.update(
            cx.execute(
                f"select digest, cast(content as blob) from blobs where digest in ({marks})", part
            ).fetchall()
        )
    return out
