"""Everything else that is kept: jobs, questions, blobs; and lists of runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from ...model.errors import StoreError
from ...model.message import PORT, Mail, Question
from ...model.run import CallRef, Head
from ...ports.store import AnswerResult, JobHead
from .bulk import Query, as_json
from .damage import read_question
from .heads import as_head, head_query
from .ledger import Ledger
from .post import Post, post
from .schema import ASK_STATES, READY, STATUS_NUMBER, STATUSES, STRANGE

#: Of a question: what is read, and what is said of one that can't be.
_QUESTION = ("#question", "asks.id", "(select r.id from runs r where r.k = asks.run)", "recipient")

# ---------------------------------------------------------------- lists of runs
_OF_JOB = head_query(
    "where r.job = (select k from jobs where id = ?) and r.status = ? and r.id > ? order by r.id limit ?"
)
_OF_ALL = head_query("where r.id > ? order by r.id limit ?")
_OF_STATUS = head_query(
    "where r.id > ? and r.status in (select value from json_each(?)) order by r.id limit ?"
)
_RARE = head_query(
    "where r.status = ? and r.status in (2, 4, 5) and r.id > ? order by r.id limit ?"
)  # says it as the index does, which is used only then
_FINISHED = head_query(
    "where r.job = (select k from jobs where id = ?) and r.finished > ? and r.finished > 0"
    " order by r.finished limit ?"
)


def list_runs(cx: sqlite3.Connection, job: str, status: Sequence[str], after: str, limit: int) -> list[Head]:
    """Runs in order of id."""
    numbers = [STATUS_NUMBER[name] for name in dict.fromkeys(status or STATUSES)]
    rows: list[list[object]] = []
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
    return [as_head(row) for row in rows[:limit]]


def _id(row: Sequence[object]) -> str:
    return str(row[0])


def finished(cx: sqlite3.Connection, job: str, after: int, limit: int) -> list[Head]:
    """Runs of a job in order of their ends."""
    return [as_head(row) for row in _FINISHED.rows(cx, (job, after, limit))]


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


# ---------------------------------------------------------------- jobs
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


# ---------------------------------------------------------------- questions
_ASKS = Query(_QUESTION, "from asks where state = 0 order by k")
_ASKS_TO = Query(_QUESTION, "from asks where state = 0 and recipient = ? order by k")
_ASKS_OF = Query(
    _QUESTION,
    "from asks where state = 0 and run = (select k from runs where id = :run)"
    " and (:to = '' or recipient = :to) order by k",
)


_ASKED = Query(
    ("k", *_QUESTION),
    "from asks where state = 0 and k > :after and (:to = '' or recipient = :to) order by k limit :limit",
)
_TO_ANSWER = Query(("id", "k", "state", *_QUESTION), "from asks where id in (select value from json_each(?))")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A person's answer."""

    ask: str
    value: bytes
    now: float


def asks(cx: sqlite3.Connection, to: str, run: str) -> list[Question]:
    """Open questions, oldest first."""
    if run:
        rows = _ASKS_OF.rows(cx, {"run": run, "to": to})
    elif to:
        rows = _ASKS_TO.rows(cx, (to,))
    else:
        rows = _ASKS.rows(cx)
    return [read_question(*row) for row in rows]


def asked(cx: sqlite3.Connection, after: int, to: str, limit: int) -> tuple[list[Question], int]:
    """Those that were asked later than that, and from where to go on."""
    rows = list(_ASKED.rows(cx, {"after": after, "to": to, "limit": limit}))
    if len(rows) < limit:  # none is open beyond
        (newest,) = cx.execute("select max(k) from asks").fetchone()
        after = max(newest or 0, after)
    else:
        after = rows[-1][0]
    return [read_question(*row[1:]) for row in rows], after


def get_ask(cx: sqlite3.Connection, ask: str) -> tuple[Question, str] | None:
    """A question and its state."""
    row = _TO_ANSWER.rows(cx, (as_json([ask]),))
    return (read_question(*row[0][3:]), ASK_STATES[row[0][2]]) if row else None


def answer(ledger: Ledger, items: Sequence[Reply]) -> list[AnswerResult]:
    """Close questions and send their answers: a bounded number of statements a few hundred of them."""
    found = {id: row for id, *row in _TO_ANSWER.rows(ledger.cx, (as_json(item.ask for item in items),))}
    out: list[AnswerResult] = []
    answered: list[int] = []
    letters: list[Post] = []
    for item in items:
        row = found.get(item.ask)
        if row is None:
            out.append("unknown")
            continue
        k, state, *data = row
        if state != 0:
            out.append("closed")
            continue
        question = read_question(*data)
        if question.n < 0:
            raise StoreError(ledger.address, f"question {item.ask!r} can't be answered", question.question)
        row[1] = 1  # for those that come after it
        out.append("answered")
        answered.append(k)
        call = CallRef(question.run, question.path, question.n)
        mail = Mail(question.run, f"ask:{item.ask}", 1, "result", value=item.value, call=call, at=item.now)
        letters.append(Post(mail, item.now, marked=False))
    if answered:
        ledger.cx.execute(
            "update asks set state = 1 where k in (select value from json_each(?))", (as_json(answered),)
        )
        post(ledger, letters)
    return out


# ---------------------------------------------------------------- blobs
def get_blobs(cx: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    """Contents by digest."""
    out: dict[bytes, bytes] = {}
    for start in range(0, len(digests), 500):
        part = list(digests[start : start + 500])
        marks = ",".join("?" * len(part))
        out.update(
            cx.execute(f"select digest, content from blobs where digest in ({marks})", part).fetchall()
        )
    return out
