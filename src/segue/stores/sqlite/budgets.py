"""Budgets: what is reserved of them and spent, and who waits for room."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...model.budget import Account, Amount, Limit, Reservation, Reserved, Settlement, Standing
from .bulk import Query, as_json
from .ledger import Ledger
from .schema import DONE, HELD, LINE_NUMBER, PARKED, READY, TAKEN

_FINAL = f"between {TAKEN + 1} and {LINE_NUMBER['cancelled']}"

#: So many calls that wait are looked at together.
_SOME = 64


class Wish(msgspec.Struct, frozen=True):
    """A call that wants room."""

    reservation: Reservation
    now: float


class Funding(msgspec.Struct, frozen=True):
    """A limit to be set."""

    account: str
    limit: Limit
    raising: bool
    now: float


_COLUMNS = "nano_limit, token_limit, nano_spent, token_spent, nano_reserved, token_reserved"
_STANDING = ("id", *_COLUMNS.split(", "), "coalesce(waiting, 0)")
_ALL = (
    "from budgets left join (select budget, count(*) as waiting from wanting group by budget) on budget = k"
)
_STANDINGS = Query(_STANDING, f"{_ALL} where id in (select value from json_each(?)) order by id")
_ALL_STANDINGS = Query(_STANDING, f"{_ALL} order by id")
_SETTLED = Query(("id", "budget"), "from reservations where id in (select value from json_each(?))")


# ---------------------------------------------------------------- reserving
def reserve(ledger: Ledger, items: Sequence[Wish]) -> list[Reserved]:
    """Reserve room, each wish in all its accounts or in none."""
    keys = ledger.run_keys({item.reservation.run for item in items})
    return [_reserve(ledger, item, keys.get(item.reservation.run)) for item in items]


def _reserve(ledger: Ledger, item: Wish, run: int | None) -> Reserved:
    cx, wanted = ledger.cx, item.reservation
    status = None if run is None else ledger.one("select status from runs where k = ?", run)
    if status is None or status[0] >= DONE:
        return "gone"
    if ledger.one("select 1 from reservations where id = ?", wanted.id) is not None:
        return "reserved"
    result: Reserved = "reserved"
    lacking, budgets = 0, []
    for account in wanted.accounts:
        k, standing = _account(ledger, account)
        budgets.append(k)
        if not _has_room(standing, wanted.amount, reserved=False):
            result, lacking = "short", k
        elif result == "reserved" and not _has_room(standing, wanted.amount):
            result, lacking = "waits", k
    amount = (wanted.amount.nanos, wanted.amount.tokens)
    if result == "reserved":
        cx.executemany(
            "insert into reservations(id, budget, run, nanos, tokens) values(?, ?, ?, ?, ?)",
            [(wanted.id, k, run, *amount) for k in budgets],
        )
        cx.execute("delete from wanting where id = ?", (wanted.id,))
    else:
        cx.execute(
            "insert into wanting(id, budget, run, nanos, tokens, short) values(?, ?, ?, ?, ?, ?)"
            " on conflict(id) do update set budget = excluded.budget, run = excluded.run, nanos = excluded.nanos,"
            " tokens = excluded.tokens, short = excluded.short",
            (wanted.id, lacking, run, *amount, int(result == "short")),
        )
    return result


def _account(ledger: Ledger, account: Account) -> tuple[int, Standing]:
    """A budget and its key; made, where it isn't there."""
    ledger.cx.execute(
        "insert into budgets(id, nano_limit, token_limit) values(?, ?, ?) on conflict do nothing",
        (account.id, account.limit.nanos, account.limit.tokens),
    )
    row = ledger.one(f"select k, id, {_COLUMNS} from budgets where id = ?", account.id)
    return row[0], _standing([*row[1:], 0])


def _by_key(ledger: Ledger, k: int) -> Standing:
    return _standing([*ledger.one(f"select id, {_COLUMNS} from budgets where k = ?", k), 0])


def _standing(row: Sequence[Any]) -> Standing:
    id, nano_limit, token_limit, nanos, tokens, nanos_reserved, tokens_reserved, waiting = row
    return Standing(
        id,
        Limit(nano_limit, token_limit),
        Amount(nanos, tokens),
        Amount(nanos_reserved, tokens_reserved),
        waiting,
    )


def _has_room(standing: Standing, amount: Amount, *, reserved: bool = True) -> bool:
    used = standing.spent.plus(standing.reserved) if reserved else standing.spent
    return standing.limit.has_room(used.plus(amount))


# ---------------------------------------------------------------- spending
def settle(ledger: Ledger, settled: Sequence[Settlement]) -> None:
    """Take off what calls did cost; their reservations are over. Of what isn't reserved, nothing. None waits more."""
    spend(ledger, settled)
    release(ledger.cx, (one.id for one in settled))
    among = "id in (select value from json_each(?))"
    ledger.cx.execute(f"delete from wanting where {among}", (as_json(one.id for one in settled),))


def release(cx: sqlite3.Connection, ids: Iterable[str]) -> None:
    """These reservations are over."""
    cx.execute("delete from reservations where id in (select value from json_each(?))", (as_json(ids),))


def spend(ledger: Ledger, settled: Sequence[Settlement]) -> None:
    """Take off what calls did cost that have a reservation."""
    accounts: dict[str, list[int]] = {}
    for id, budget in _SETTLED.rows(ledger.cx, (as_json({one.id for one in settled}),)):
        accounts.setdefault(id, []).append(budget)
    sums: dict[int, Amount] = {}
    for one in settled:
        for budget in accounts.get(one.id, ()):
            sums[budget] = sums.get(budget, Amount()).plus(one.amount)
    ledger.cx.executemany(
        "update budgets set nano_spent = nano_spent + ?, token_spent = token_spent + ? where k = ?",
        [(amount.nanos, amount.tokens, budget) for budget, amount in sums.items() if amount != Amount()],
    )


def lines_over(cx: sqlite3.Connection, keys: Sequence[int]) -> None:
    """Those of these lines that nothing more is to come of give back."""
    if not keys or cx.execute("select 1 from reservations limit 1").fetchone() is None:
        return
    cx.execute(
        "delete from reservations where id in (select l.id from json_each(?) as q join lines l on l.k = q.value"
        f" where l.status {_FINAL} and l.hedged is null)",
        (as_json(keys),),
    )


def give_back(ledger: Ledger, runs: Iterable[int], but: Sequence[str] = ()) -> None:
    """These runs leave memory, so no call of theirs is under way but lines, and none waits `but` these."""
    mine = "run in (select value from json_each(?))"
    keys = as_json(runs)
    ledger.cx.execute(
        f"delete from reservations where {mine} and not exists (select 1 from lines l where l.id = reservations.id"
        f" and (not l.status {_FINAL} or l.hedged is not null))",
        (keys,),
    )
    others = f"delete from wanting where {mine} and id not in (select value from json_each(?))"
    ledger.cx.execute(others, (keys, as_json(but)))


# ---------------------------------------------------------------- waiting
def fund(ledger: Ledger, items: Sequence[Funding]) -> list[Standing]:
    """Set limits."""
    return [_fund(ledger, item) for item in items]


def _fund(ledger: Ledger, item: Funding) -> Standing:
    k, standing = _account(ledger, Account(item.account, item.limit))
    limit = standing.limit
    if item.raising:
        limit = limit.raised(item.limit)
    else:
        nanos = limit.nanos if item.limit.nanos is None else item.limit.nanos
        limit = Limit(nanos, limit.tokens if item.limit.tokens is None else item.limit.tokens)
    if limit != standing.limit:
        ledger.cx.execute(
            "update budgets set nano_limit = ?, token_limit = ? where k = ?", (limit.nanos, limit.tokens, k)
        )
        ledger.cx.execute(
            "update wanting set short = 0 where budget = :k and short and exists (select 1 from budgets b"
            " where b.k = :k and (b.nano_limit is null or b.nano_spent + wanting.nanos <= b.nano_limit)"
            " and (b.token_limit is null or b.token_spent + wanting.tokens <= b.token_limit))",
            {"k": k},
        )
    wake(ledger, item.now)
    return standings(ledger.cx, [item.account])[0]


_WANTING = Query(
    ("w.k", "w.nanos", "w.tokens", "w.run", "r.id", "r.status"),
    "from wanting w join runs r on r.k = w.run where w.budget = ? and w.short = 0 order by w.k limit ?",
)


#: The budgets that somebody waits for, found by steps over those who do.
_HUNGRY = """with recursive hungry(k) as (
    select min(budget) from wanting where short = 0
    union all select (select min(budget) from wanting where short = 0 and budget > hungry.k) from hungry
        where hungry.k is not null
) select k from hungry where k is not null"""


def wake(ledger: Ledger, now: float) -> None:
    """Make runs ready for which there is room by now, or can't be any more; those that have waited longest first."""
    for (budget,) in ledger.cx.execute(_HUNGRY).fetchall():
        standing = _by_key(ledger, budget)
        given: Amount | None = Amount()
        while given is not None:
            given = _wake_some(ledger, budget, standing, given, now)


def _wake_some(ledger: Ledger, budget: int, standing: Standing, given: Amount, now: float) -> Amount | None:
    """Give the next of them what room is left beside what is `given`; what is given then, None at the end."""
    rows = _WANTING.rows(ledger.cx, (budget, _SOME))
    over: list[int] = []
    ready: dict[str, int] = {}
    for k, nanos, tokens, run, id, status in rows:
        amount = Amount(nanos, tokens)
        if _has_room(standing, given.plus(amount)):
            given = given.plus(amount)
        elif _has_room(standing, amount, reserved=False):
            break
        over.append(k)
        if status in (PARKED, HELD):
            ready[id] = run
    ledger.cx.execute("delete from wanting where k in (select value from json_each(?))", (as_json(over),))
    if ready:
        ledger.cx.execute(
            f"update runs set status = {READY}, wake = null, reason = '', updated = ?"
            " where k in (select value from json_each(?))",
            (now, as_json(ready.values())),
        )
        ledger.hint("ready", ready)
    return given if len(over) == _SOME else None


def missing(ledger: Ledger, wanted: Sequence[str]) -> bool:
    """Whether one of these calls doesn't wait for room any more."""
    (there,) = ledger.one(
        "select count(*) from wanting where id in (select value from json_each(?))", as_json(wanted)
    )
    return bool(there < len(set(wanted)))


# ---------------------------------------------------------------- reading
def standings(cx: sqlite3.Connection, accounts: Sequence[str]) -> list[Standing]:
    """How budgets stand."""
    rows = _STANDINGS.rows(cx, (as_json(accounts),)) if accounts else _ALL_STANDINGS.rows(cx)
    return [_standing(row) for row in rows]


def reserved(cx: sqlite3.Connection, job: str) -> dict[str, Amount]:
    """Lines of a job that have a reservation."""
    if cx.execute("select 1 from reservations limit 1").fetchone() is None:
        return {}
    mine = "(select k from batches where id = :job)"
    rows = cx.execute(
        "select distinct r.id, r.nanos, r.tokens from reservations r join lines l on l.id = r.id"
        f" where l.batch = {mine} or l.hedged = {mine}",
        {"job": job},
    )
    return {id: Amount(nanos, tokens) for id, nanos, tokens in rows.fetchall()}
