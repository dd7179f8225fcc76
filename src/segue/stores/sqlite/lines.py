"""Model requests in lanes, and the provider jobs they travel in."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ...model.budget import Settlement
from ...model.lane import LIVE, BatchJob, LaneHead, Line, LineOutcome
from ...model.message import Mail
from ...model.run import CallRef, Usage
from . import answers, budgets
from .bulk import Query, Values, as_json, pieces
from .ledger import Ledger
from .post import Result, bring
from .schema import DONE, FOLLOWING, LATES, LINE_NUMBER, LINE_STATUSES, TAKEN, WAITING

_CANCELLED = LINE_NUMBER["cancelled"]
_encode = msgspec.msgpack.Encoder().encode
_decode_usage = msgspec.msgpack.Decoder(Usage).decode
_decode_job = msgspec.msgpack.Decoder(BatchJob).decode

#: Bodies are read in portions of about this many bytes.
_PORTION = 16_000_000


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
    """A worker's wish to drive a lane."""

    lane: str
    worker: str
    ttl: float
    now: float


class Progress(msgspec.Struct, frozen=True):
    """A provider job's new state."""

    job: BatchJob
    fence: int


class Withdrawal(msgspec.Struct, frozen=True):
    """Lines that nobody waits for any more."""

    ids: Sequence[str]
    now: float


class Outcomes(msgspec.Struct, frozen=True):
    """How lines of a job ended."""

    job: str
    fence: int
    chunk: Sequence[LineOutcome]
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
    """insert into bodies(line, body) select l.k, v.body from {v} cross join lines l on l.id = v.id
    where true on conflict do nothing""",  # what has ended has none any more
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
    ids = as_json(line.id for line, _ in lines)
    wanted = f"update lines set unwanted = 0, deserted = 0 where (unwanted or deserted) and status <= {TAKEN}"
    ledger.cx.execute(f"{wanted} and id in (select value from json_each(?))", (ids,))
    ledger.hint("lines", (line.lane for line, _ in lines))


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
    _close_lines(cx, {}, {_CANCELLED: list(waiting.values())} if waiting else {})
    cx.execute(f"update lines set unwanted = 1 where status = {TAKEN} and {mine}", (as_json(ids),))
    answers.desert(cx, ids)
    return [id in waiting for id in ids]


def drive(ledger: Ledger, items: Sequence[Driving]) -> list[int | None]:
    """Give lanes to workers."""
    return [_drive(ledger, item) for item in items]


def _drive(ledger: Ledger, item: Driving) -> int | None:
    k = ledger.lanes.keys(ledger.cx, [item.lane])[item.lane]
    worker, fence, lease = ledger.one("select worker, fence, lease from lanes where k = ?", k)
    if worker != item.worker:
        if worker and lease > item.now:
            return None
        fence += 1
    ledger.cx.execute(
        "update lanes set worker = ?, fence = ?, lease = ? where k = ?",
        (item.worker, fence, item.now + item.ttl, k),
    )
    return int(fence)


def take(ledger: Ledger, items: Sequence[Taking]) -> list[BatchJob | None]:
    """Make jobs of what waits."""
    return [_take(ledger, item) for item in items]


def _take(ledger: Ledger, item: Taking) -> BatchJob | None:
    cx = ledger.cx
    lane = ledger.one("select k from lanes where name = ? and fence = ?", item.lane, item.fence)
    if lane is None:
        return None
    known = ledger.one("select data from batches where id = ?", item.job)
    if known is not None:
        return _decode_job(known[0])
    batch = cx.execute(
        "insert into batches(id, lane, open, data) values(?, ?, 1, x'')", (item.job, lane[0])
    ).lastrowid
    taken = cx.execute(
        f"""update lines set status = {TAKEN}, batch = ? where k in (
            select k from (
                select k, row_number() over (order by k) as place,
                    sum(size) over (order by k rows unbounded preceding) as total
                from (select k, size from lines where lane = ? and status = {WAITING}
                    and (due = 0 or promoted or due > ?) order by k limit ?)
            ) where total <= ? or place = 1)""",
        (batch, lane[0], item.late_by, item.max_lines, item.max_bytes),
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
    cx.execute("update batches set data = ? where k = ?", (_encode(job), batch))
    return job


def promote(ledger: Ledger, items: Sequence[Promoting]) -> list[BatchJob | None]:
    """Make jobs of live calls of what is late."""
    return [_promote(ledger, item) for item in items]


def _promote(ledger: Ledger, item: Promoting) -> BatchJob | None:
    cx = ledger.cx
    lane = ledger.one("select k from lanes where name = ? and fence = ?", item.lane, item.fence)
    if lane is None:
        return None
    known = ledger.one("select data from batches where id = ?", item.job)
    if known is not None:
        return _decode_job(known[0])
    late = cx.execute(
        f"""select k from lines where lane = ? and due > 0 and due <= ? and promoted = 0 and status <= {TAKEN}
        and unwanted = 0 and (due <= ? or late = {LATES.index("live")}) order by due limit ?""",
        (lane[0], item.by, item.now, item.max_lines),
    ).fetchall()
    if not late:
        return None
    job = BatchJob(item.job, item.lane, item.job, "live", len(late), item.now, remote=LIVE, sent=item.now)
    batch = cx.execute(
        "insert into batches(id, lane, open, data) values(?, ?, 1, ?)", (item.job, lane[0], _encode(job))
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


def _batch(ledger: Ledger, job: str, fence: int) -> Any:
    """Key and data of a job and its lane's name, if that fence holds for the lane."""
    return ledger.one(
        "select b.k, b.data, l.name from batches b join lanes l on l.k = b.lane where b.id = ? and l.fence = ?",
        job,
        fence,
    )


def _put_progress(ledger: Ledger, job: BatchJob, fence: int) -> bool:
    row = _batch(ledger, job.id, fence)
    if row is None:
        return False
    if job.state == "closed":
        hedged = [k for (k,) in ledger.cx.execute("select k from lines where hedged = ?", (row[0],))]
        _unhedge(ledger.cx, hedged, [])
        budgets.wake(ledger, job.over)
    elif not _has_open_lines(ledger, row[0]):
        job = msgspec.structs.replace(job, state="closed")
    _store_batch(ledger, row[0], job)
    return True


def _has_open_lines(ledger: Ledger, batch: int) -> bool:
    """Whether anything is to come of a job: an outcome, or the second one of a line that was promoted."""
    taken = f"select 1 from lines where batch = ? and status = {TAKEN} limit 1"
    hedged = "select 1 from lines where hedged = ? limit 1"
    return ledger.one(taken, batch) is not None or ledger.one(hedged, batch) is not None


def _store_batch(ledger: Ledger, batch: int, job: BatchJob) -> None:
    ledger.cx.execute(
        "update batches set data = ?, open = ? where k = ?", (_encode(job), job.state != "closed", batch)
    )


_TAKEN = Query(
    (
        "l.id",
        "l.k",
        "r.id",
        "l.path",
        "l.n",
        "l.attempt",
        "r.status",
        "l.unwanted",
        "l.status",
        "l.batch",
        "l.hedged",
        "l.promoted",
        "l.run",
        "l.same",
        "l.deserted",
    ),
    f"""from json_each(?) as q cross join lines l on l.id = q.value join runs r on r.k = l.run
    where (l.batch = ?2 and (l.status = {TAKEN} or l.promoted)) or l.hedged = ?2""",
)


def outcomes(ledger: Ledger, items: Sequence[Outcomes]) -> list[list[str] | None]:
    """Store how lines ended: a bounded number of statements a few hundred lines."""
    return [_outcomes(ledger, item) for item in items]


def _outcomes(ledger: Ledger, item: Outcomes) -> list[str] | None:
    row = _batch(ledger, item.job, item.fence)
    if row is None:
        return None
    cx, batch = ledger.cx, row[0]
    ids = as_json(sorted({outcome.id for outcome in item.chunk}))
    taken = {line[0]: line[1:] for line in _TAKEN.rows(cx, (ids, batch))}
    strange: list[str] = []
    again: dict[bool, list[int]] = {}
    ended: dict[int, list[int]] = {}
    results: list[Result] = []
    paid: list[Settlement] = []
    dropped: list[int] = []
    returned: list[int] = []
    beside: list[int] = []
    shared = answers.Sharing(ledger, row[1], item.now)
    owners: dict[int, int] = {}
    for outcome in item.chunk:
        line = taken.pop(outcome.id, None)
        if line is None:
            strange.append(outcome.id)
            continue
        if outcome.paid is not None:
            paid.append(Settlement(outcome.id, outcome.paid))
        k, run, path, n, attempt, status, unwanted, stands, there, hedged, promoted, owner, same, deserted = (
            line
        )
        if stands > TAKEN:  # the other way was faster
            _claims_nothing(cx, owner, outcome)
            dropped.append(k)
            continue
        if (
            hedged is not None and outcome.status == "error" and there == batch
        ):  # the provider's job may do better
            returned.append(k)
            continue
        if hedged == batch and outcome.status != "ok":
            dropped.append(k)
            continue
        if hedged == batch:  # its live call may be under way
            beside.append(k)
        goes_again = outcome.again and not 0 < outcome.most <= attempt
        if goes_again and status < DONE and not unwanted and not promoted:
            again.setdefault(outcome.free, []).append(k)
            ledger.hint("lines", [row[2]])
            continue
        quits = goes_again and not (promoted and not unwanted)
        ended.setdefault(_CANCELLED if quits else LINE_NUMBER[outcome.status], []).append(k)
        if same is not None:
            owners[k] = owner
            shared.ends(k, same, attempt, outcome, quits=quits, claimed=status < DONE and not deserted)
        if same is not None and (status >= DONE or deserted):
            continue
        if status >= DONE or unwanted:
            _claims_nothing(cx, owner, outcome)
        if status < DONE and not quits:
            mail = Mail(
                run,
                f"line:{outcome.id}",
                attempt,
                "result",
                outcome.lane,
                value=outcome.value,
                error=outcome.error,
                call=CallRef(run, path, n),
                at=item.now,
            )
            results.append((owner, status, mail))
    if paid:
        budgets.spend(ledger, paid)
    _close_lines(cx, again, {})
    for end in shared.settle():
        _claims_nothing(cx, owners[end.k], end.outcome)
    _close_lines(cx, {}, ended)
    _unhedge(cx, dropped, returned)
    _outrun(cx, beside)
    bring(ledger, results, item.now)
    budgets.wake(ledger, item.now)
    if not _has_open_lines(ledger, batch):
        job = _decode_job(row[1])
        if job.state != "closed":
            over = item.now if job.sent else 0.0
            _store_batch(ledger, batch, msgspec.structs.replace(job, state="closed", over=over))
    return strange


def _claims_nothing(cx: sqlite3.Connection, run: int, outcome: LineOutcome) -> None:
    """Keep what was paid for an outcome that nobody gets."""
    if outcome.status == "ok" and outcome.used is not None:
        cx.execute("insert into unclaimed(run, usage) values(?, ?)", (run, _encode(outcome.used)))


def _unhedge(cx: sqlite3.Connection, dropped: list[int], returned: list[int]) -> None:
    """Lines that are in one job only from now on; those returned are in the provider's."""
    among = "in (select value from json_each(?))"
    if dropped:
        cx.execute(f"update lines set hedged = null where k {among}", (as_json(dropped),))
    if returned:
        cx.execute(f"update lines set batch = hedged, hedged = null where k {among}", (as_json(returned),))
    budgets.lines_over(cx, [*dropped, *returned])


def _outrun(cx: sqlite3.Connection, beside: list[int]) -> None:
    """A provider's job was faster than these lines' live calls, which may still be paid for, until their job ends."""
    if beside:
        cx.execute(
            "update lines set hedged = (select b.k from batches b where b.k = lines.batch and b.open)"
            " where k in (select value from json_each(?))",
            (as_json(beside),),
        )
        budgets.lines_over(cx, beside)


def _close_lines(cx: sqlite3.Connection, again: dict[bool, list[int]], ended: dict[int, list[int]]) -> None:
    among = "in (select value from json_each(?))"
    for free, keys in again.items():
        cx.execute(
            f"update lines set status = {WAITING}, batch = null, attempt = attempt + ? where k {among}",
            (not free, as_json(keys)),
        )
    for status, keys in ended.items():
        cx.execute(f"update lines set status = ? where k {among}", (status, as_json(keys)))
        cx.execute(f"delete from bodies where line {among}", (as_json(keys),))
    budgets.lines_over(cx, [key for keys in ended.values() for key in keys])


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
_JOBS = Query(
    ("#b.data",),
    """from batches b where (:lane = '' or b.lane = (select k from lanes where name = :lane)) order by b.k""",
)
_OPEN_JOBS = Query(
    ("#b.data",),
    """from batches b where b.open and (:lane = '' or b.lane = (select k from lanes where name = :lane))
    order by b.k""",
)
#: Keys of a job's lines without an outcome, some of them: job, line before, limit, whether those answered live too.
_PAGE = f"""(
    select k from lines where batch = (select k from batches where id = ?1) and status = {TAKEN}
    and k > coalesce((select k from lines where id = ?2), 0)
    union all
    select k from lines where hedged = (select k from batches where id = ?1)
    and k > coalesce((select k from lines where id = ?2), 0) and (status = {TAKEN} or ?4)
    order by k limit ?3
)"""
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
    f"""from {_PAGE} as q cross join lines l on l.k = q.k join lanes a on a.k = l.lane join runs r on r.k = l.run
    order by q.k""",
)
_SIZES = Query(("l.k", "l.id", "l.size"), f"from {_PAGE} as q cross join lines l on l.k = q.k order by q.k")
_BODIES_OF = Query(("line", "#body"), "from bodies where line in (select value from json_each(?))")


def jobs(cx: sqlite3.Connection, lane: str, open_only: bool) -> list[BatchJob]:
    """Provider jobs, oldest first."""
    query = _OPEN_JOBS if open_only else _JOBS
    return [_decode_job(data) for (data,) in query.rows(cx, {"lane": lane})]


def lanes(cx: sqlite3.Connection) -> list[LaneHead]:
    """Lanes in which something goes on."""
    of: dict[str, list[BatchJob]] = {}
    for job in jobs(cx, "", True):
        of.setdefault(job.lane, []).append(job)
    return [
        LaneHead(name, waiting, size, oldest or 0.0, of.get(name, []), due or 0.0)
        for name, waiting, size, oldest, due in _LANES.rows(cx)
    ]


def job_lines(cx: sqlite3.Connection, job: str, after: str, limit: int, bodies: bool) -> list[Line]:
    """Lines of a job without an outcome."""
    rows = _JOB_LINES.rows(cx, (job, after, limit, not bodies))
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
    """Ids and bodies of a job's lines without an outcome, of some megabytes at most."""
    rows, size = [], 0
    for row in _SIZES.rows(cx, (job, after, limit, False)):
        rows.append(row)
        size += row[2]
        if size >= _PORTION:
            break
    bodies = pieces(cx, "bodies", "line", "body", [k for k, _, _ in rows])
    return [(id, bodies[k]) for k, id, _ in rows]


def unclaimed(cx: sqlite3.Connection, run: str, job: str) -> list[Usage]:
    """What was paid and nobody got."""
    mine = "where r.id = ?" if run else "where r.job = (select k from jobs where id = ?)" if job else ""
    of = [run or job] if run or job else []
    rows = cx.execute(f"select u.usage from unclaimed u join runs r on r.k = u.run {mine} order by u.k", of)
    return [_decode_usage(usage) for (usage,) in rows.fetchall()]


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


def line_counts(cx: sqlite3.Connection, job: str) -> dict[str, int]:
    """Lines by status."""
    where = "where batch = (select k from batches where id = ?)" if job else ""
    rows = cx.execute(
        f"select status, count(*) from lines {where} group by status", (job,) if job else ()
    ).fetchall()
    return {LINE_STATUSES[status]: count for status, count in rows}
