"""Lists of runs, and how many are ready."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from typing import Final

from ...model.message import PORT
from ...model.run import Head
from .bulk import Query, as_json
from .heads import FROM, HEAD, as_heads, head_query
from .schema import GONE, READY, STATUS_NUMBER, STATUSES, STRANGE

#: Above all keys.
_TOP: Final = (1 << 63) - 1

_BY_ID = head_query("where r.id > ? order by r.id limit ?")
_FINISHED = head_query(
    "where r.job = (select k from jobs where id = ?) and r.finished > ? and r.finished > 0"
    " order by r.finished limit ?"
)


def list_runs(cx: sqlite3.Connection, after: str, limit: int) -> list[Head]:
    """Runs in order of id."""
    return as_heads(cx, _BY_ID.rows(cx, (after, limit)))


def ids(cx: sqlite3.Connection, after: str, limit: int) -> list[str]:
    """Ids of runs, in order."""
    return [
        id for (id,) in cx.execute("select id from runs where id > ? order by id limit ?", (after, limit))
    ]


#: Whose runs are listed, in the words of the indexes. In two of these, each status is gone through by itself.
_OF_ALL = f"status < {GONE}"
_OF_JOB = "job = (select k from jobs where id = :of) and job > 0"
_OF_NONE = "job = 0 and job <= 0"
_OF_PARENT = "job = -(select k from runs where id = :of) and job <= 0"


@functools.cache
def _newest(whose: str, status: tuple[int, ...]) -> Query:
    """Runs below a key, as far as it takes."""
    if whose in (_OF_ALL, _OF_JOB):
        among = [f"status = {number}" for number in status]
    else:
        among = [f"status in ({', '.join(map(str, status))})"]
    each = " union all ".join(
        f"select k from runs where {whose} and {some} and k < :before" for some in among
    )
    keys = f"{each} order by k desc limit :limit"
    return Query(("r.k", *HEAD), f"{FROM} where r.k in ({keys}) order by r.k desc")


def newest(
    cx: sqlite3.Connection, job: str | None, parent: str, status: Sequence[str], before: int, limit: int
) -> tuple[list[Head], int]:
    """Runs, newest first, and from where to go on."""
    whose = _OF_PARENT if parent else _OF_JOB if job else _OF_ALL if job is None else _OF_NONE
    numbers = tuple(sorted({STATUS_NUMBER[name] for name in status or STATUSES}))
    given = {"of": parent or job, "before": before or _TOP, "limit": limit}
    rows = _newest(whose, numbers).rows(cx, given)
    return as_heads(cx, [row[1:] for row in rows]), rows[-1][0] if rows else before


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
