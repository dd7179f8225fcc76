"""Runs that are over, removed with all that only they have."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from ...model.errors import UNREADABLE
from . import blobs, past
from .bulk import Query, as_json
from .heads import decode_spec
from .ledger import Ledger
from .schema import CANCELLED, DONE, FOLLOWING, GONE, TAKEN, WAITING

_AMONG: Final = "in (select value from json_each(?))"
_THERE = Query(("id", "k"), f"from runs where id {_AMONG}")
_OVER = Query(("id", "k"), f"from runs where id {_AMONG} and status between {DONE} and {CANCELLED}")
_IS_OPEN = f"status in ({WAITING}, {TAKEN}, {FOLLOWING}) or hedged is not null"
_LINES = Query(("k", "run", _IS_OPEN), f"from lines where run {_AMONG}")

#: Budgets of runs, and of blocks in their code: what stands behind the run's id has no space.
_OF_RUNS = Query(
    ("b.k", "b.id"),
    """from json_each(:runs) as q cross join budgets b on b.id = 'run:' || q.value union all
    select b.k, b.id from json_each(:runs) as q cross join budgets b
    on b.id > 'block:' || q.value || ' ' and b.id < 'block:' || q.value || '!'
    and instr(substr(b.id, length(q.value) + 8), ' ') = 0""",
)
_GOING_ON = Query(
    ("#s.spec",),
    f"from runs r cross join specs s on s.run = r.k where r.status < {DONE} and r.status < {GONE}",
)

#: What has rows of a run, by its key, besides the journal, whose keys are never used again.
_TABLES: Final = (
    "specs", "states", "results", "asks", "inbox", "marks", "deltas", "sealed", "dropped", "unclaimed", "waiting",
    "reservations", "wanting",
)  # fmt: skip


def remove(ledger: Ledger, items: Sequence[Sequence[str]]) -> list[list[bool]]:
    """Forget runs that are over; whether each is gone."""
    return [_remove(ledger, ids) for ids in items]


def removable(cx: sqlite3.Connection, ids: Sequence[str]) -> list[bool]:
    """Which of these that would forget, or has."""
    runs, _ = _over(cx, ids)
    there = dict(_THERE.rows(cx, (as_json(ids),)))
    return [id in runs or id not in there for id in ids]


def _remove(ledger: Ledger, ids: Sequence[str]) -> list[bool]:
    cx = ledger.cx
    runs, lines = _over(cx, ids)
    if runs:
        _forget_lines(cx, lines)
        _forget(ledger, runs)
    there = dict(_THERE.rows(cx, (as_json(ids),)))
    return [id not in there for id in ids]


def _over(cx: sqlite3.Connection, ids: Sequence[str]) -> tuple[dict[str, int], list[int]]:
    """Those of which nothing more is to come, with their keys; the keys of their lines."""
    runs = dict(_OVER.rows(cx, (as_json(ids),)))
    lines = _LINES.rows(cx, (as_json(runs.values()),)) if runs else []
    more = {run for _, run, is_open in lines if is_open}
    return {id: k for id, k in runs.items() if k not in more}, [k for k, run, _ in lines if run not in more]


def _forget_lines(cx: sqlite3.Connection, lines: Iterable[int]) -> None:
    keys = as_json(lines)
    cx.execute(f"delete from bodies where line {_AMONG}", (keys,))
    cx.execute(f"delete from lines where k {_AMONG}", (keys,))


def _forget(ledger: Ledger, runs: Mapping[str, int]) -> None:
    cx, keys = ledger.cx, as_json(runs.values())
    (fence,) = cx.execute(f"select max(fence) from runs where k {_AMONG}", (keys,)).fetchone()
    (newest,) = cx.execute("select coalesce(max(k), 0) from journal").fetchone()
    for id, k in runs.items():
        blobs.let_go(cx, k, 0, (1 << 63) - 1)
        ledger.claimed.pop(id, None)
    for table in ("journal", *_TABLES):
        cx.execute(f"delete from {table} where run {_AMONG}", (keys,))
    past.keep_number(cx, newest)
    cx.execute(f"delete from dead where recipient {_AMONG}", (as_json(runs),))
    _forget_accounts(cx, _OF_RUNS.rows(cx, {"runs": as_json(runs)}))
    cx.execute(
        f"update runs set job = 0 where job {_AMONG} and job <= 0",
        (as_json(-k for k in runs.values()),),
    )
    ledger.archived.difference_update(runs.values())
    ledger.raise_floor(fence or 0)
    _delete(cx, set(runs.values()))


def _forget_accounts(cx: sqlite3.Connection, accounts: Sequence[tuple[int, str]]) -> None:
    """Those of budgets, each with its key, unless a run that isn't over draws on one, or has a call on it."""
    if not accounts:
        return
    drawn: set[str] = set()
    for (spec,) in _GOING_ON.rows(cx):
        with suppress(*UNREADABLE):
            drawn.update(account.id for account in decode_spec(spec).config.accounts)
    cx.execute(
        f"delete from budgets where k {_AMONG} and k not in (select budget from reservations)"
        " and k not in (select budget from wanting)",
        (as_json(k for k, id in accounts if id not in drawn),),
    )


def _delete(cx: sqlite3.Connection, keys: set[int]) -> None:
    """The rows of runs. No key is used again, for other processes may remember it: the last row stays, of no run."""
    (last,) = cx.execute("select max(k) from runs").fetchone()
    if last in keys:
        keys.remove(last)
        cx.execute("delete from runs where id = ''")
        cx.execute(
            f"update runs set id = '', status = {GONE}, worker = null, reason = '', job = 0, finished = 0, base = 0,"
            " swept = 0, usage = null, bound = 0, target = 0 where k = ?",
            (last,),
        )
    cx.execute(f"delete from runs where k {_AMONG}", (as_json(keys),))


def remove_job(ledger: Ledger, items: Sequence[str]) -> list[bool]:
    """Forget jobs without runs; their keys stay, for other processes may remember them."""
    return [_remove_job(ledger.cx, job) for job in items]


def _remove_job(cx: sqlite3.Connection, job: str) -> bool:
    row = cx.execute("select k from jobs where id = ?", (job,)).fetchone()
    if row is not None:
        if cx.execute("select 1 from runs where job = ? and job > 0 limit 1", row).fetchone() is not None:
            return False
        cx.execute("update jobs set target = null, created = null, total = null where k = ?", row)
    _forget_accounts(cx, cx.execute("select k, id from budgets where id = 'job:' || ?", (job,)).fetchall())
    return True
