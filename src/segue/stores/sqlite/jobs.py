"""Jobs, with their counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ...ports.store import JobHead
from .bulk import Query
from .ledger import Ledger
from .schema import STATUSES

_JOBS = Query(
    ("id", "target", "~created", "total"), "from jobs where target is not null order by created, id"
)
_COUNTS = Query(
    ("j.id", "r.status", "count(*)"),
    "from jobs j cross join runs r on r.job = j.k where r.job > 0 group by j.k, r.status",
)


def put_job(ledger: Ledger, items: Sequence[JobHead]) -> list[JobHead]:
    """Create jobs, or set their totals."""
    return [_put_job(ledger, job) for job in items]


def _put_job(ledger: Ledger, job: JobHead) -> JobHead:
    k = ledger.jobs.keys(ledger.cx, [job.id])[job.id]
    ledger.cx.execute(
        "update jobs set total = coalesce(?, total), created = iif(target is null, ?, created),"
        " target = coalesce(target, ?) where k = ?",
        (job.total, job.created, job.target, k),
    )
    found = get_job(ledger.cx, job.id)
    assert found is not None
    return found


def get_job(cx: sqlite3.Connection, job: str) -> JobHead | None:
    """A job with its counts."""
    row = cx.execute(
        "select k, target, created, total from jobs where id = ? and target is not null", (job,)
    ).fetchone()
    if row is None:
        return None
    counts = cx.execute(
        "select status, count(*) from runs where job = ? and job > 0 group by status", (row[0],)
    ).fetchall()
    return JobHead(job, row[1], row[2], row[3], {STATUSES[status]: count for status, count in counts})


def list_jobs(cx: sqlite3.Connection) -> list[JobHead]:
    """All jobs with their counts."""
    counts: dict[str, dict[str, int]] = {}
    for id, status, count in _COUNTS.rows(cx):
        counts.setdefault(id, {})[STATUSES[status]] = count
    return [
        JobHead(id, target, created, total, counts.get(id, {}))
        for id, target, created, total in _JOBS.rows(cx)
    ]
