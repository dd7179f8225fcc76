"""Past turns: archived journal rows, packed together, and dropped in time with the contents that came with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ...model.errors import UNREADABLE
from ...ports.store import History
from .. import sealing
from . import blobs
from .bulk import Query, Values, as_json
from .heads import decode_spec
from .ledger import Ledger

_ROWS = Query(("#j.entries",), "from journal j where j.run = ? order by j.k")
_COUNTS = """select
    (select coalesce(sum(count), 0) from sealed where run = :run)
    + (select count(*) from journal where run = :run and k <= :base),
    (select coalesce(sum(count), 0) from dropped where run = :run)"""
_SEALED = Query(("#s.rows",), "from sealed s where s.run = ? order by s.k")
_OVER = Query(
    ("k", "run", "since", "upto", "count"),
    "from sealed where until is not null and until <= ? order by until limit ?",
)
_ARCHIVED = Query(
    ("r.k", "r.base", "r.swept", "#s.spec"),
    "from json_each(?) as q cross join runs r on r.k = q.value join specs s on s.run = r.k where r.base > r.swept",
)
_DROPPED = Values(
    "run, count",
    "insert into dropped(run, count) select run, count from {v} where true"
    " on conflict do update set count = count + excluded.count",
)


#: At so many runs a sweep looks for what other processes have archived.
LOOK: Final = 10_000


class Sweep(msgspec.Struct, frozen=True):
    """A look at what was archived."""

    now: float
    limit: int


def history(cx: sqlite3.Connection, run: str, whole: bool) -> History:
    """All journal rows of a run."""
    row = cx.execute("select k, base from runs where id = ?", (run,)).fetchone()
    if row is None:
        return History([])
    k, base = row
    archived, dropped = cx.execute(_COUNTS, {"run": k, "base": base}).fetchone()
    if not whole:
        return History([], archived, dropped)
    packed = [row for (rows,) in _SEALED.rows(cx, (k,)) for row in sealing.unpack(rows)]
    return History([*packed, *(entries for (entries,) in _ROWS.rows(cx, (k,)))], archived, dropped)


def sweep(ledger: Ledger, items: Sequence[Sweep]) -> list[int]:
    """Seal and drop."""
    return [_sweep(ledger, item) for item in items]


def _sweep(ledger: Ledger, item: Sweep) -> int:
    cx = ledger.cx
    archived = _archived(ledger, item.limit)
    (newest,) = ledger.one("select coalesce(max(k), 0) from journal")
    over = _OVER.rows(cx, (item.now, item.limit))
    _drop_sealed(cx, over)
    some = sorted(archived.pop() for _ in range(min(item.limit - len(over), len(archived))))
    for k, base, swept, spec in _ARCHIVED.rows(cx, (as_json(some),)):
        upto = _seal(cx, k, swept, base, _until(spec, item.now))
        if upto < base:
            archived.add(k)
    keep_number(cx, newest)
    return len(over) + len(some) or int(not ledger.whole)  # so it is called again


def _until(spec: bytes, now: float) -> float | None:
    """How long to keep what a run did; for ever, where its record can't be read."""
    try:
        return sealing.until(decode_spec(spec), now)
    except UNREADABLE:
        return None


def _archived(ledger: Ledger, enough: int) -> set[int]:
    """Keys of runs with rows to be sealed: those of this process and, where these aren't `enough`, bit by bit, those
    that were there before it, or that other processes have left."""
    cx = ledger.cx
    if len(ledger.archived) >= enough:
        return ledger.archived
    upto = ledger.looked + LOOK
    found = cx.execute("select k from runs where k > ? and k <= ? and base > swept", (ledger.looked, upto))
    ledger.archived.update(k for (k,) in found)
    (last,) = ledger.one("select coalesce(max(k), 0) from runs")
    ledger.looked = upto if upto < last else 0
    ledger.whole = ledger.whole or not ledger.looked
    return ledger.archived


def _seal(cx: sqlite3.Connection, run: int, since: int, base: int, until: float | None) -> int:
    """Pack what was archived of a run, or drop it; up to which row."""
    between = (run, since, base)
    if until == 0.0:
        gone = cx.execute("delete from journal where run = ? and k > ? and k <= ?", between).rowcount
        if gone:
            _DROPPED.run(cx, [(run, gone)])
        blobs.let_go(cx, run, since, base)
    else:
        found = cx.execute(
            "select k, entries from journal where run = ? and k > ? and k <= ? order by k", between
        )
        rows: list[tuple[int, bytes]] = []
        packed = sealing.some(_noting(found, rows))
        if len(packed) < len(rows):
            base = rows[len(packed) - 1][0]
        if packed:
            cx.execute(
                "insert into sealed(run, since, upto, until, count, rows) values(?, ?, ?, ?, ?, ?)",
                (run, since, base, until, len(packed), sealing.pack(packed)),
            )
            cx.execute("delete from journal where run = ? and k > ? and k <= ?", (run, since, base))
        elif blobs.holds_any(cx, *between):
            return base  # they go with the next rows
    cx.execute("update runs set swept = ? where k = ?", (base, run))
    return base


def _noting(found: Iterable[tuple[int, bytes]], rows: list[tuple[int, bytes]]) -> Iterable[bytes]:
    for row in found:
        rows.append(row)
        yield row[1]


def _drop_sealed(cx: sqlite3.Connection, over: Sequence[Sequence[int]]) -> None:
    """Forget what was kept for as long as it should be."""
    if not over:
        return
    cx.execute(
        "delete from sealed where k in (select value from json_each(?))", (as_json(row[0] for row in over),)
    )
    for _, run, since, upto, count in over:
        _DROPPED.run(cx, [(run, count)])
        blobs.let_go(cx, run, since, upto)


def keep_number(cx: sqlite3.Connection, newest: int) -> None:
    """No key of the journal is ever used again, for `base` remembers them: an empty row keeps the last one."""
    (left,) = cx.execute("select coalesce(max(k), 0) from journal").fetchone()
    if left < newest:
        cx.execute("delete from journal where run = 0")
        cx.execute("insert into journal(k, run, entries) values(?, 0, x'')", (newest,))
