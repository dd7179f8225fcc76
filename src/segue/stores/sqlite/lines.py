"""Model requests in lanes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ...model.errors import UNREADABLE
from ...model.lane import Line
from ...model.run import CallRef, Usage
from . import answers, budgets
from .bulk import Blobs, Query, Values, as_json
from .heads import encode
from .ledger import Ledger
from .schema import DONE, FOLLOWING, LATES, LINE_NUMBER, LINE_STATUSES, TAKEN, WAITING

_CANCELLED = LINE_NUMBER["cancelled"]
log = logging.getLogger("segue")

_decode_usage = msgspec.msgpack.Decoder(Usage).decode

#: Bodies are read in portions of about this many bytes.
_PORTION = 16_000_000


class Withdrawal(msgspec.Struct, frozen=True):
    """Lines that nobody waits for any more."""

    ids: Sequence[str]
    now: float


# ---------------------------------------------------------------- writing
_LINES = Values(
    "id, lane, run, path, n, size, created, attempt, due, late, same, status",
    f"""insert into lines(id, lane, run, path, n, size, created, attempt, due, late, same, status)
    select id, lane, run, path, n, size, created, attempt, due, late, same, status from {{v}} where true
    on conflict do update set lane = excluded.lane, run = excluded.run, path = excluded.path,
        n = excluded.n, size = excluded.size, created = excluded.created,
        attempt = lines.attempt + 1, status = excluded.status, batch = null, unwanted = 0,
        due = excluded.due, late = excluded.late, promoted = 0, hedged = null, same = excluded.same, deserted = 0
    where lines.status > {TAKEN} and lines.status <> {FOLLOWING}""",
)
_BODIES = Values(
    "id, body",
    f"""insert into bodies(line, body) select l.k, v.body from {{v}} cross join lines l on l.id = v.id
    where l.status = {WAITING} on conflict do nothing""",  # what is in a job has its own
)


_PLAIN = answers.Placed()


def put_lines(ledger: Ledger, lines: Sequence[tuple[Line, int]]) -> None:
    """Put lines of runs (by key) into their lanes.

    One that is on its way is left alone; one that has ended goes round again.
    """
    placed = answers.place(ledger, lines) if any(line.same for line, _ in lines) else _PLAIN
    lanes = ledger.lanes.keys(ledger.cx, {line.lane for line, _ in lines})
    _LINES.run(
        ledger.cx,
        [
            (
                line.id,
                lanes[line.lane],
                run,
                line.call.path,
                line.call.n,
                line.size or len(line.body),
                line.created,
                line.attempt,
                placed.dues.get(line.id, line.due),
                LATES.index("live" if line.id in placed.dues else line.late),
                line.same or None,
                placed.status.get(line.id, WAITING),
            )
            for line, run in lines
        ],
    )
    _BODIES.run(ledger.cx, [(line.id, line.body) for line, _ in lines if line.id not in placed.status])
    _wanted(ledger.cx, as_json(line.id for line, _ in lines))
    ledger.hint("lines", (line.lane for line, _ in lines))


def want(ledger: Ledger, ids: Sequence[str]) -> bool:
    """Have runs wait again for lines that are on their way; false, and nothing is changed, where one isn't."""
    if len(open_lines(ledger.cx, ids)) < len(ids):
        return False
    _wanted(ledger.cx, as_json(ids))
    return True


def _wanted(cx: sqlite3.Connection, ids: str) -> None:
    """Somebody waits for them, whatever was said before."""
    wanted = f"update lines set unwanted = 0, deserted = 0 where (unwanted or deserted) and status <= {TAKEN}"
    cx.execute(f"{wanted} and id in (select value from json_each(?))", (ids,))


def withdraw_all(ledger: Ledger, items: Sequence[Withdrawal]) -> list[list[bool]]:
    """Take lines out of their lanes, outside of turns."""
    out = [withdraw(ledger, item.ids) for item in items]
    budgets.wake(ledger, items[0].now)
    return out


def withdraw(ledger: Ledger, ids: Sequence[str]) -> list[bool]:
    """Take lines out of their lanes, or see to it that they don't come back."""
    cx, mine = ledger.cx, "id in (select value from json_each(?))"
    found = cx.execute(
        f"select id, k, same, attempt, status from lines where status in ({WAITING}, {FOLLOWING}) and {mine}",
        (as_json(ids),),
    ).fetchall()
    if any(same is not None for _, _, same, _, _ in found):
        answers.leave(ledger, [row[1:] for row in found if row[2] is not None])
    waiting = {id: k for id, k, _, _, _ in found}
    if waiting:
        answers.close(cx, {_CANCELLED: list(waiting.values())})
    cx.execute(f"update lines set unwanted = 1 where status = {TAKEN} and {mine}", (as_json(ids),))
    answers.desert(cx, ids)
    return [id in waiting for id in ids]


# ---------------------------------------------------------------- reading
def _page(only: str) -> str:
    """Keys of a job's lines without an outcome, some of them: job, line before, limit, whether those answered live
    too."""
    return f"""(
        select k from lines where batch = (select k from batches where id = :job) and status = {TAKEN}
        and k > coalesce((select k from lines where id = :after), 0) and {only}
        union all
        select k from lines where hedged = (select k from batches where id = :job)
        and k > coalesce((select k from lines where id = :after), 0) and (status = {TAKEN} or :live) and {only}
        order by k limit :limit
    )"""


#: Whether somebody waits for a line.
_IS_WANTED = (
    f"not unwanted and ((select r.status from runs r where r.k = lines.run) < {DONE} or {answers.FOLLOWED})"
)
_JOB_LINES = Query(
    (
        "l.k",
        "l.id",
        "a.name",
        "r.id",
        "l.path",
        "l.n",
        "l.size",
        "~l.created",
        "l.attempt",
        "~l.due",
        "l.late",
        "l.promoted",
        "coalesce(l.same, '')",
    ),
    f"""from {_page("true")} as q cross join lines l on l.k = q.k
    join lanes a on a.k = l.lane join runs r on r.k = l.run order by q.k""",
)
_SIZES = Query(
    ("l.k", "l.id", "l.size"), f"from {_page(_IS_WANTED)} as q cross join lines l on l.k = q.k order by q.k"
)
_BODIES_OF = Blobs("line", "line", "body", "from bodies where line in (select value from json_each(?))")


def job_lines(cx: sqlite3.Connection, job: str, after: str, limit: int, bodies: bool) -> list[Line]:
    """Lines of a job without an outcome."""
    rows = _JOB_LINES.rows(cx, {"job": job, "after": after, "limit": limit, "live": not bodies})
    contents = _bodies(cx, rows) if bodies else {}
    return [
        Line(
            id,
            lane,
            CallRef(run, path, n),
            contents.get(k, b""),
            size,
            created,
            attempt,
            due,
            LATES[late],
            bool(promoted),
            same,
        )
        for k, id, lane, run, path, n, size, created, attempt, due, late, promoted, same in rows
    ]


def job_bodies(cx: sqlite3.Connection, job: str, after: str, limit: int) -> list[tuple[str, bytes]]:
    """Ids and bodies of a job's lines without an outcome that somebody waits for, of some megabytes at most."""
    rows, size = [], 0
    for row in _SIZES.rows(cx, {"job": job, "after": after, "limit": limit, "live": False}):
        rows.append(row)
        size += row[2]
        if size >= _PORTION:
            break
    bodies = dict(_BODIES_OF.rows(cx, (as_json(k for k, _, _ in rows),)))
    return [(id, bodies.get(k, b"")) for k, id, _ in rows]


def unclaim(cx: sqlite3.Connection, run: int, used: Usage | None) -> None:
    """Keep what was paid for an outcome that nobody gets."""
    if used is not None:
        cx.execute("insert into unclaimed(run, usage) values(?, ?)", (run, encode(used)))


def unclaimed(cx: sqlite3.Connection, run: str, job: str) -> list[Usage]:
    """What was paid and nobody got."""
    mine = "where r.id = ?" if run else "where r.job = (select k from jobs where id = ?)" if job else ""
    of = [run or job] if run or job else []
    join = "join" if run else "cross join"  # these are few, and a job's runs many
    rows = cx.execute(f"select u.usage from unclaimed u {join} runs r on r.k = u.run {mine} order by u.k", of)
    out: list[Usage] = []
    for (usage,) in rows.fetchall():
        try:
            out.append(_decode_usage(usage))
        except UNREADABLE as problem:
            log.error("what was paid for a line of %s can't be read: %s", run or job or "some run", problem)
    return out


def _bodies(cx: sqlite3.Connection, rows: list[Any]) -> dict[int, bytes]:
    """What these lines send."""
    bodies: dict[int, bytes] = {}
    portion: list[int] = []
    size = 0
    for row in rows:
        portion.append(row[0])
        size += row[6]
        if size >= _PORTION:
            bodies.update(_BODIES_OF.rows(cx, (as_json(portion),)))
            portion, size = [], 0
    if portion:
        bodies.update(_BODIES_OF.rows(cx, (as_json(portion),)))
    return bodies


def open_lines(cx: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """Those that wait, are in a job or follow another one."""
    mine = f"status in ({WAITING}, {TAKEN}, {FOLLOWING}) and id in (select value from json_each(?))"
    return [id for (id,) in cx.execute(f"select id from lines where {mine}", (as_json(ids),))]


#: What is open, where it is counted or an index has it.
_OPEN_COUNTS = f"""select {WAITING}, (select coalesce(sum(waiting), 0) from lanes) union all
    select {TAKEN}, (select count(*) from batches b cross join lines l on l.batch = b.k and l.status = {TAKEN}
    where b.open) union all
    select {FOLLOWING}, (select count(*) from lines where same is not null
    and status in ({WAITING}, {TAKEN}, {FOLLOWING}) and status = {FOLLOWING})"""


def line_counts(cx: sqlite3.Connection, job: str, open_only: bool) -> dict[str, int]:
    """Lines by status."""
    if open_only and not job:
        rows = cx.execute(_OPEN_COUNTS).fetchall()
    else:
        where = "where batch = (select k from batches where id = ?)" if job else ""
        rows = cx.execute(
            f"select status, count(*) from lines {where} group by status", (job,) if job else ()
        ).fetchall()
    which = (WAITING, TAKEN, FOLLOWING) if open_only else range(len(LINE_STATUSES))
    return {LINE_STATUSES[status]: count for status, count in rows if count and status in which}
