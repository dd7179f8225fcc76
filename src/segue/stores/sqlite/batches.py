"""Lanes, and the provider jobs that their lines travel in."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ...model.lane import LIVE, BatchJob, LaneHead
from . import budgets
from .bulk import Query, as_json
from .damage import read_job
from .heads import encode
from .ledger import Ledger
from .schema import LATES, TAKEN, WAITING

_LIVE, _FAIL = LATES.index("live"), LATES.index("fail")


class Taking(msgspec.Struct, frozen=True):
    """A driver's wish for a new job."""

    lane: str
    fence: int
    max_lines: int
    max_bytes: int
    job: str
    nonce: str
    now: float
    late_by: float


class Promoting(msgspec.Struct, frozen=True):
    """A driver's wish to send late lines live."""

    lane: str
    fence: int
    by: float
    max_lines: int
    job: str
    now: float


class Driving(msgspec.Struct, frozen=True):
    """A worker's wish to drive a lane. `lapsed`: also one that another drove, and didn't keep."""

    lane: str
    worker: str
    ttl: float
    now: float
    lapsed: bool = True


class Progress(msgspec.Struct, frozen=True):
    """A provider job's new state."""

    job: BatchJob
    fence: int


# ---------------------------------------------------------------- writing
def drive(ledger: Ledger, items: Sequence[Driving]) -> list[int | None]:
    """Give lanes to workers."""
    return [_drive(ledger, item) for item in items]


def _drive(ledger: Ledger, item: Driving) -> int | None:
    k = ledger.lanes.keys(ledger.cx, [item.lane])[item.lane]
    worker, fence, lease = ledger.one("select worker, fence, lease from lanes where k = ?", k)
    if worker != item.worker:
        if worker and lease > (item.now if item.lapsed else 0.0):
            return None
        fence += 1
    ledger.cx.execute(
        "update lanes set worker = ?, fence = ?, lease = ? where k = ?",
        (item.worker, fence, item.now + item.ttl, k),
    )
    return int(fence)


def _lane_of(ledger: Ledger, item: Taking | Promoting) -> tuple[int | None, BatchJob | None]:
    """The key of the lane in which a job is to be made, if that fence holds for it; the job, if it was made before."""
    lane = ledger.one("select k from lanes where name = ? and fence = ?", item.lane, item.fence)
    if lane is None:
        return None, None
    known = ledger.one("select data from batches where id = ?", item.job)
    return lane[0], None if known is None else read_job(known[0], item.job, item.lane)


def take(ledger: Ledger, items: Sequence[Taking]) -> list[BatchJob | None]:
    """Make jobs of what waits."""
    return [_take(ledger, item) for item in items]


def _take(ledger: Ledger, item: Taking) -> BatchJob | None:
    cx = ledger.cx
    lane, known = _lane_of(ledger, item)
    if lane is None or known is not None:
        return known
    batch = cx.execute(
        "insert into batches(id, lane, open, data) values(?, ?, 1, x'')", (item.job, lane)
    ).lastrowid
    taken = cx.execute(
        f"""update lines set status = {TAKEN}, batch = ? where k in (
            select k from (
                select k, row_number() over (order by k) as place,
                    sum(size) over (order by k rows unbounded preceding) as total
                from (select k, size from lines where lane = ? and status = {WAITING}
                    and (due = 0 or promoted or due > iif(late = {_FAIL}, ?, ?)) order by k limit ?)
            ) where total <= ? or place = 1)""",
        (batch, lane, min(item.now, item.late_by), item.late_by, item.max_lines, item.max_bytes),
    ).rowcount
    if not taken:
        cx.execute("delete from batches where k = ?", (batch,))
        return None
    mine = f"from lines where batch = ? and status = {TAKEN}"
    size, shared = ledger.one(f"select sum(size), count(same) > 0 {mine}", batch)
    job = BatchJob(
        item.job,
        item.lane,
        item.nonce,
        "intent",
        taken,
        item.now,
        size=size,
        shared=bool(shared),
    )
    cx.execute("update batches set data = ? where k = ?", (encode(job), batch))
    return job


def promote(ledger: Ledger, items: Sequence[Promoting]) -> list[BatchJob | None]:
    """Make jobs of live calls of what is late."""
    return [_promote(ledger, item) for item in items]


def _promote(ledger: Ledger, item: Promoting) -> BatchJob | None:
    cx = ledger.cx
    lane, known = _lane_of(ledger, item)
    if lane is None or known is not None:
        return known
    late = cx.execute(
        f"""select k from lines where lane = ? and due > 0 and due <= ? and promoted = 0 and status <= {TAKEN}
        and unwanted = 0 and (due <= ? or late = {_LIVE}) order by due limit ?""",
        (lane, item.by, item.now, item.max_lines),
    ).fetchall()
    if not late:
        return None
    job = BatchJob(item.job, item.lane, item.job, "live", len(late), item.now, remote=LIVE, sent=item.now)
    batch = cx.execute(
        "insert into batches(id, lane, open, data) values(?, ?, 1, ?)", (item.job, lane, encode(job))
    ).lastrowid
    cx.execute(
        f"""update lines set promoted = 1, hedged = iif(status = {TAKEN}, batch, null), status = {TAKEN}, batch = ?
        where k in (select value from json_each(?))""",
        (batch, as_json(k for (k,) in late)),
    )
    return job


def put_progress(ledger: Ledger, items: Sequence[Progress]) -> list[bool]:
    """Write jobs' states."""
    return [_put_progress(ledger, item.job, item.fence) for item in items]


def find(ledger: Ledger, job: str, fence: int) -> Any:
    """Key and data of a job and its lane's name, if that fence holds for the lane."""
    return ledger.one(
        "select b.k, b.data, l.name from batches b join lanes l on l.k = b.lane where b.id = ? and l.fence = ?",
        job,
        fence,
    )


def _put_progress(ledger: Ledger, job: BatchJob, fence: int) -> bool:
    row = find(ledger, job.id, fence)
    if row is None:
        return False
    if job.state == "closed":
        hedged = [k for (k,) in ledger.cx.execute("select k from lines where hedged = ?", (row[0],))]
        unhedge(ledger.cx, hedged, [])
        budgets.wake(ledger, job.over)
    elif not has_open_lines(ledger, row[0]):
        job = msgspec.structs.replace(job, state="closed")
    keep(ledger, row[0], job)
    return True


def has_open_lines(ledger: Ledger, batch: int) -> bool:
    """Whether anything is to come of a job: an outcome, or the second one of a line that was promoted."""
    taken = f"select 1 from lines where batch = ? and status = {TAKEN} limit 1"
    hedged = "select 1 from lines where hedged = ? limit 1"
    return ledger.one(taken, batch) is not None or ledger.one(hedged, batch) is not None


def keep(ledger: Ledger, batch: int, job: BatchJob) -> None:
    ledger.cx.execute(
        "update batches set data = ?, open = ? where k = ?", (encode(job), job.state != "closed", batch)
    )


def unhedge(cx: sqlite3.Connection, dropped: list[int], returned: list[int]) -> None:
    """Lines that are in one job only from now on; those returned are in the provider's."""
    among = "in (select value from json_each(?))"
    if dropped:
        cx.execute(f"update lines set hedged = null where k {among}", (as_json(dropped),))
    if returned:
        cx.execute(f"update lines set batch = hedged, hedged = null where k {among}", (as_json(returned),))
    budgets.lines_over(cx, [*dropped, *returned])


# ---------------------------------------------------------------- reading
_LANES = Query(
    ("name", "waiting", "size", "~oldest", "~due"),
    f"""from (select name, waiting, size, (select l.created from lines l where l.lane = lanes.k
        and l.status = {WAITING} order by l.k limit 1) as oldest,
        (select l.due from lines l where l.lane = lanes.k and l.due > 0 and l.promoted = 0
        and l.status <= {TAKEN} and l.unwanted = 0 order by l.due limit 1) as due from lanes
        where waiting > 0 or exists (select 1 from batches b where b.lane = lanes.k and b.open))
    order by name""",
)
_JOB = ("#b.data", "b.id", "a.name")
_OF_LANE = "from batches b join lanes a on a.k = b.lane where (:lane = '' or a.name = :lane)"
#: Newest first, so that some of them are all that is read.
_JOBS = Query(_JOB, f"{_OF_LANE} order by b.k desc limit :newest")
#: Sorted, not found in order: they are few among all that ever were, which would be gone over.
_OPEN_JOBS = Query(_JOB, f"{_OF_LANE} and b.open order by +b.k desc limit :newest")


def jobs(cx: sqlite3.Connection, lane: str, open_only: bool, newest: int) -> list[BatchJob]:
    """Provider jobs, oldest first."""
    query = _OPEN_JOBS if open_only else _JOBS
    found = query.rows(cx, {"lane": lane, "newest": newest or -1})
    return [read_job(data, id, name) for data, id, name in reversed(found)]


def lanes(cx: sqlite3.Connection) -> list[LaneHead]:
    """Lanes in which something goes on."""
    of: dict[str, list[BatchJob]] = {}
    for job in jobs(cx, "", True, 0):
        of.setdefault(job.lane, []).append(job)
    return [
        LaneHead(name, waiting, size, oldest or 0.0, of.get(name, []), due or 0.0)
        for name, waiting, size, oldest, due in _LANES.rows(cx)
    ]
