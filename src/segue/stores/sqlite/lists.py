"""Lists of runs, and how many are ready."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from ...model.message import PORT
from ...model.run import Head
from .bulk import as_json
from .heads import as_heads, head_query
from .schema import GONE, READY, STATUS_NUMBER, STATUSES, STRANGE

_OF_JOB = head_query(
    "where r.job = (select k from jobs where id = ?) and r.job > 0 and r.status = ? and r.id > ?"
    " order by r.id limit ?"  # says it as the index does; without, all runs of the store were gone over
)
_OF_ALL = head_query("where r.id > ? order by r.id limit ?")
_OF_STATUS = head_query(
    "where r.id > ? and r.status in (select value from json_each(?)) order by r.id limit ?"
)
_RARE = head_query(
    "where r.status = ? and r.status in (2, 4, 5) and r.id > ? order by r.id limit ?"
)  # says it as the index does, which is used only then
_TOPS = head_query(
    "where r.k < coalesce((select k from runs where id = :before and id > ''), 9e18) and r.job = 0 and s.parent is null"
    " and r.id > ''"
    " order by r.k desc limit :limit"
)
_FINISHED = head_query(
    "where r.job = (select k from jobs where id = ?) and r.finished > ? and r.finished > 0"
    " order by r.finished limit ?"
)


def list_runs(cx: sqlite3.Connection, job: str, status: Sequence[str], after: str, limit: int) -> list[Head]:
    """Runs in order of id."""
    numbers = [STATUS_NUMBER[name] for name in dict.fromkeys(status or STATUSES)]
    rows: list[list[Any]] = []
    if job:
        for number in numbers:
            rows += _OF_JOB.rows(cx, (job, number, after, limit))
    elif not status:
        rows = _OF_ALL.rows(cx, (after, limit))
    elif set(numbers) <= {2, 4, 5}:
        for number in numbers:
            rows += _RARE.rows(cx, (number, after, limit))
    else:
        rows = _OF_STATUS.rows(cx, (after, as_json(numbers), limit))
    rows.sort(key=_id)
    return as_heads(cx, rows[:limit])


def ids(cx: sqlite3.Connection, after: str, limit: int) -> list[str]:
    """Ids of runs, in order."""
    return [
        id for (id,) in cx.execute("select id from runs where id > ? order by id limit ?", (after, limit))
    ]


def tops(cx: sqlite3.Connection, before: str, limit: int) -> list[Head]:
    """Runs of no job that no other one started, newest first."""
    return as_heads(cx, _TOPS.rows(cx, {"before": before, "limit": limit}))


def _id(row: Sequence[object]) -> str:
    return str(row[0])


def finished(cx: sqlite3.Connection, job: str, after: int, limit: int) -> list[Head]:
    """Runs of a job in order of their ends."""
    return as_heads(cx, _FINISHED.rows(cx, (job, after, limit)))


def run_counts(cx: sqlite3.Connection) -> dict[str, int]:
    """Runs by status."""
    found = cx.execute(f"select status, count(*) from runs where status < {GONE} group by status").fetchall()
    return {STATUSES[status]: count for status, count in found}


def backlog(cx: sqlite3.Connection, now: float, but: Sequence[str]) -> tuple[int, float | None]:
    """How many are ready or claimed, and when the next is due."""
    more = f" and {STRANGE}" if but else ""
    count, soonest = cx.execute(
        f"""select
        (select count(*) from runs where status = {READY} and lease is null{more})
        + (select count(*) from runs where lease is not null{more})
        + (select count(*) from runs where wake is not null and wake <= :now{more}),
        (select min(wake) from runs where wake is not null and wake > :now)""",
        {"now": now, "but": as_json(but)} if but else {"now": now},
    ).fetchone()
    return count, soonest


def workers(cx: sqlite3.Connection) -> list[str]:
    """Who holds something."""
    found = cx.execute(
        "select worker from runs where lease > 0 union select worker from lanes where lease > 0"
        " union select substr(port, ?) from ports",
        (len(PORT) + 1,),
    ).fetchall()
    return sorted(name for (name,) in found if name)
