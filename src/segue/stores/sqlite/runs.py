"""What changes runs from outside: creating, claiming, renewing and reviving them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ...model.entry import Pool
from ...model.message import PORT
from ...model.mode import Config
from ...model.run import Head, Spec
from ...ports.store import Claimed, Created, Lease, NewRun
from .. import poison, refusal
from . import blobs, budgets, damage
from .bulk import Query, Values, as_json
from .heads import HEADS_BY_ID, Woken, as_heads, decode_spec, encode, wakes
from .ledger import Ledger
from .lines import want
from .post import make_room
from .schema import HELD, READY, STATUS_NUMBER, STRANGE
from .untaken import put_dead

log = logging.getLogger("segue")


class Creation(msgspec.Struct, frozen=True, gc=False):
    """A run to be created, and by whom it is claimed at once."""

    new: NewRun
    now: float
    worker: str = ""
    ttl: float = 0.0


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A worker's wish for work."""

    worker: str
    limit: int
    ttl: float
    now: float
    but: Sequence[str] = ()
    lapsed: bool = True


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """A worker's wish to keep what it has."""

    worker: str
    leases: Sequence[Lease]
    ttl: float
    now: float


class Revival(msgspec.Struct, frozen=True):
    """A run to be made ready again."""

    run: str
    pool: Pool | None
    now: float
    status: Sequence[str]
    config: Config | None = None
    along: Mapping[str, Pool] = {}  #: others, each with its pool
    lines: Sequence[str] = ()  #: what they wait for again


# ---------------------------------------------------------------- create
_NEW = Values(
    "id, rank, fence, worker, lease, job, updated, bound, target",
    "insert into runs(id, status, rank, fence, worker, lease, reason, job, finished, base, updated, bound, target)"
    f" select id, {READY}, rank, fence, worker, lease, '', job, 0, 0, updated, bound, target from {{v}}"
    " where true on conflict do nothing",
    one="insert into runs(id, status, rank, fence, worker, lease, reason, job, finished, base, updated, bound, target)"
    f" values(?, {READY}, ?, ?, ?, ?, '', ?, 0, 0, ?, ?, ?) on conflict do nothing",
)
_FOUND = Query(("id", "k"), "from runs where id in (select value from json_each(?))")
_SPECS = Values(
    "run, spec, parent, args",
    "insert into specs(run, spec, parent, args) select run, spec, parent, args from {v}",
    one="insert into specs(run, spec, parent, args) values(?, ?, ?, ?)",
)
_POOLS = Values(
    "run, pool",
    "insert into states(run, pool) select run, pool from {v} where true"
    " on conflict(run) do update set pool = excluded.pool",
)


def create(ledger: Ledger, items: Sequence[Creation]) -> list[Created]:
    """Create those that aren't there."""
    fresh: dict[str, Creation] = {}
    for item in items:
        fresh.setdefault(item.new.id, item)
    floor = ledger.floor
    keys = _insert(ledger, fresh, floor)
    there = [id for id in fresh if id not in keys]
    for id in there:
        del fresh[id]
    if fresh:
        _describe(ledger, fresh, keys)
    heads: dict[str, Head] = {}
    if there:
        found = as_heads(ledger.cx, HEADS_BY_ID.rows(ledger.cx, (as_json(there),)))
        heads = {head.id: head for head in found}
    out: list[Created] = []
    for item in items:
        id = item.new.id
        first = fresh.get(id)
        if first is None:
            out.append(Created(False, heads[id]))
        else:
            fence = floor + bool(first.worker)
            head = Head(id, first.new.spec, "ready", fence, updated=first.now)
            out.append(Created(first is item, head))
    return out


def _insert(ledger: Ledger, fresh: dict[str, Creation], floor: int) -> dict[str, int]:
    """Give each a row that has none; the keys of these."""
    cx = ledger.cx
    names = {item.new.spec.job for item in fresh.values() if item.new.spec.job}
    jobs = ledger.jobs.keys(cx, names) if names else {}
    above = ledger.run_keys(
        {call.run for item in fresh.values() if (call := item.new.spec.parent) is not None}
    )
    codes = [item.new.spec.code for item in fresh.values()]
    targets = ledger.targets.keys(cx, set(codes))
    made, last = _NEW.try_insert(
        cx,
        [
            (
                id,
                -item.new.spec.config.priority,
                floor + bool(item.worker),
                item.worker or None,
                item.now + item.ttl if item.worker else None,
                _whose(item.new.spec, jobs, above),
                item.now,
                refusal.bound_of(item.new.spec),
                targets[code],
            )
            for (id, item), code in zip(fresh.items(), codes, strict=True)
        ],
    )
    first = last - made + 1  # keys are counted up
    if made == len(fresh):
        return {id: first + i for i, id in enumerate(fresh)}
    return {id: k for id, k in _FOUND.rows(cx, (as_json(fresh),)) if k >= first} if made else {}


def _whose(spec: Spec, jobs: Mapping[str, int], above: Mapping[str, int]) -> int:
    """As the column `job` has it."""
    if spec.job:
        return jobs[spec.job]
    return 0 if spec.parent is None else -above.get(spec.parent.run, 0)


def _describe(ledger: Ledger, fresh: dict[str, Creation], keys: dict[str, int]) -> None:
    """Write down what never changes of new runs."""
    cx = ledger.cx
    _put_specs(cx, [(keys[id], item.new.spec) for id, item in fresh.items()])
    pools = [(keys[id], item.new.pool) for id, item in fresh.items() if item.new.pool is not None]
    if pools:
        _put_pools(cx, pools)
    for id, item in fresh.items():
        if item.worker:
            ledger.claimed[id] = keys[id]
        call = item.new.spec.parent
        along = None if call is None or item.new.spec.job else keys.get(call.run)
        if along is not None and along < keys[id]:
            cx.execute("update runs set job = ? where k = ?", (-along, keys[id]))
    ready = [id for id, item in fresh.items() if not item.worker]
    if ready:
        ledger.hint("ready", ready)


def _put_specs(cx: sqlite3.Connection, specs: Sequence[tuple[int, Spec]]) -> None:
    """What runs were started with."""
    large = blobs.Large(blobs.INPUT)
    rows: list[tuple[int, bytes, bytes | None, bytes | None]] = []
    for k, spec in specs:
        args = large.cut(k, spec.args)
        bare = spec if args is None else msgspec.structs.replace(spec, args=b"")
        rows.append((k, encode(bare), None if spec.parent is None else encode(spec.parent), args))
    large.write(cx)
    _SPECS.run(cx, rows)


def _put_pools(cx: sqlite3.Connection, pools: Sequence[tuple[int, Pool]]) -> None:
    """What rebased runs may take over."""
    large = blobs.Large(blobs.POOL)
    rows = [
        (k, encode(msgspec.structs.replace(pool, entries=large.entries(k, pool.entries))))
        for k, pool in pools
    ]
    large.write(cx)
    _POOLS.run(cx, rows)


# ---------------------------------------------------------------- claim, renew, revive
#: Of runs that are due at most so many are put in order, those that were due first: there may be a million.
_DUE = 500


def _candidate_query(more: str) -> Query:
    return Query(
        ("k", "lapsed"),
        f"""from (
            select * from (select k, rank, 0 as lapsed from runs where status = {READY} and lease is null{more}
                           order by rank, k limit :limit)
            union all
            select * from (select * from (select k, rank, 0 from runs where wake is not null and wake <= :now{more}
                                          order by wake limit max(:limit, {_DUE})) order by rank, k limit :limit)
            union all
            select * from (select k, rank, 1 from runs where lease is not null and lease <= :lapse{more}
                           and k not in (select value from json_each(:skipped)) order by rank, k limit :limit)
        ) order by rank, k limit :limit""",
    )


_CANDIDATES = _candidate_query("")
_CANDIDATES_BUT = _candidate_query(f" and {STRANGE}")


def has_claimable(ledger: Ledger, claim: Claim) -> bool:
    """Whether a claim would get anything; a look without a lock, so that idle workers don't write."""
    return bool(_candidates(ledger, claim, min(1, claim.limit), ()))


def claim(ledger: Ledger, items: Sequence[Claim]) -> list[list[Claimed]]:
    """Take runs: eight statements at most, however many, and some for those that others have lost or rebased."""
    return [_claim(ledger, item) for item in items]


def _candidates(ledger: Ledger, item: Claim, limit: int, but: Iterable[int]) -> dict[int, bool]:
    """Keys of runs that may be claimed, in order, and whether another claim of them lapsed."""
    lapse = item.now if item.lapsed else 0.0  # 0 is of those who were buried
    given: dict[str, Any] = {"limit": limit, "now": item.now, "lapse": lapse, "skipped": as_json(but)}
    query = _CANDIDATES
    if item.but:
        query, given["but"] = _CANDIDATES_BUT, as_json(item.but)
    return {k: bool(lapsed) for k, lapsed in query.rows(ledger.cx, given)}


_LAPSED = Query(
    ("k", "id", "lapses", "newest"),
    """from (
        select r.k, r.id, newest, case when newest > r.progress then 1 else r.lapses + 1 end as lapses from (
            select q.value as k, coalesce((select max(j.k) from journal j where j.run = q.value), 0) as newest
            from json_each(?) as q
        ) as s join runs r on r.k = s.k
    )""",
)
_NOTE_LAPSES = Values(
    "run, lapses, progress",
    "update runs set lapses = v.lapses, progress = v.progress from {v} where k = v.run",
)
_SUSPECTS = Query(
    ("r.k",),
    f"""from runs r where r.lease is not null and r.lease > ? and r.worker = ? and r.lapses >= {poison.SUSPECT}
    and r.progress >= coalesce((select max(j.k) from journal j where j.run = r.k), 0) limit 1""",
)


def _claimable(ledger: Ledger, item: Claim) -> list[int]:
    """Candidates; poison is held instead, and of suspects a worker gets one at a time. See `poison`."""
    skipped: set[int] = set()
    while True:
        found = _candidates(ledger, item, item.limit, skipped)
        lapsed = [k for k, is_lapsed in found.items() if is_lapsed]
        if not lapsed:
            return list(found)
        rows = _LAPSED.rows(ledger.cx, (as_json(lapsed),))
        dead = {k: id for k, id, lapses, _ in rows if lapses >= poison.LAPSES}
        suspects = [k for k, _, lapses, _ in rows if poison.SUSPECT <= lapses < poison.LAPSES]
        if suspects and not _SUSPECTS.rows(ledger.cx, (item.now, item.worker)):
            first = next(k for k in found if k in suspects)
            suspects.remove(first)
        if not dead and not suspects:
            _NOTE_LAPSES.run(ledger.cx, [(k, lapses, newest) for k, _, lapses, newest in rows])
            return list(found)
        skipped |= set(suspects)
        _hold(ledger, {k: (id, poison.reason(id)) for k, id in dead.items()}, item.now)


def _hold(ledger: Ledger, runs: Mapping[int, tuple[str, str]], now: float) -> None:
    """Hold runs instead of giving them to a worker: each with its id and why."""
    for k, (id, reason) in runs.items():
        ledger.cx.execute(
            f"update runs set status = {HELD}, reason = ?, worker = null, lease = null, wake = null, lapses = 0,"
            " updated = ? where k = ?",
            (reason, now, k),
        )
        ledger.claimed.pop(id, None)
        ledger.hint("ended", [id])
    if runs:
        budgets.give_back(ledger, runs)
        budgets.wake(ledger, now)


def _claim(ledger: Ledger, item: Claim) -> list[Claimed]:
    """Runs of which all can be read; others are held, and there is more to look at."""
    cx = ledger.cx
    while keys := _claimable(ledger, item):
        cx.execute(
            f"update runs set status = {READY}, fence = fence + 1, worker = ?, lease = ?, wake = null, updated = ?,"
            " reason = '' where k in (select value from json_each(?))",
            (item.worker, item.now + item.ttl, item.now, as_json(keys)),
        )
        out: list[Claimed] = []
        damaged: dict[int, Woken] = {}
        for key, one in zip(keys, wakes(cx, keys), strict=True):
            if one.unread or one.claimed.head.damage:
                damaged[key] = one
            else:
                ledger.claimed[one.claimed.head.id] = key
                out.append(one.claimed)
        if damaged:
            _set_aside(ledger, damaged, item.now)
        if out:
            return out
    return []


def _set_aside(ledger: Ledger, damaged: Mapping[int, Woken], now: float) -> None:
    """Hold runs of which something can't be read. Letters that can't are dead letters, so that the rest may go on."""
    heads = {k: one.claimed.head for k, one in damaged.items()}
    letters = [(heads[k].id, letter) for k, one in damaged.items() for letter in one.unread]
    put_dead(ledger, [damage.dead_letter(id, letter, now) for id, letter in letters])
    ledger.cx.execute(
        "delete from inbox where k in (select value from json_each(?))",
        (as_json(letter.k for _, letter in letters),),
    )
    why = {k: damage.reason(head.id, head.damage, damaged[k].unread) for k, head in heads.items()}
    for k, reason in why.items():
        log.error("run %s is held: %s", heads[k].id, reason)
    _hold(ledger, {k: (heads[k].id, reason) for k, reason in why.items()}, now)
    bounds = "select k, bound from runs where bound > 0 and k in (select value from json_each(?))"
    make_room(ledger, dict(ledger.cx.execute(bounds, (as_json(damaged),)).fetchall()), now)


def renew(ledger: Ledger, items: Sequence[Renewal]) -> list[list[bool]]:
    """Keep claims."""
    return [_renew(ledger, item) for item in items]


_MINE = Query(
    ("r.id", "r.fence"),
    "from json_each(?) as q cross join runs r on r.id = q.value where r.worker = ? and r.lease is not null",
)


def _renew(ledger: Ledger, item: Renewal) -> list[bool]:
    fences = dict(_MINE.rows(ledger.cx, (as_json(lease.run for lease in item.leases), item.worker)))
    kept = [fences.get(lease.run) == lease.fence for lease in item.leases]
    ids = as_json(lease.run for lease, ok in zip(item.leases, kept, strict=True) if ok)
    ledger.cx.execute(
        "update runs set lease = ? where id in (select value from json_each(?))", (item.now + item.ttl, ids)
    )
    return kept


def bury(ledger: Ledger, items: Sequence[str]) -> list[None]:
    """Have claims of workers that are gone lapse."""
    gone = as_json(items)
    among = "worker in (select value from json_each(?))"
    ledger.cx.execute(f"update runs set lease = 0 where lease is not null and {among}", (gone,))
    ledger.cx.execute(f"update lanes set lease = 0 where {among}", (gone,))
    ports = as_json(PORT + worker for worker in items)
    ledger.cx.execute("delete from ports where port in (select value from json_each(?))", (ports,))
    return [None for _ in items]


def revive(ledger: Ledger, items: Sequence[Revival]) -> list[bool]:
    """Make runs ready again."""
    return [_revive(ledger, item) for item in items]


def _revive(ledger: Ledger, item: Revival) -> bool:
    cx = ledger.cx
    row = ledger.one("select k, status from runs where id = ?", item.run)
    if row is None or row[1] not in {STATUS_NUMBER[status] for status in item.status}:
        return False
    if item.lines and not want(ledger, item.lines):
        return False
    k = row[0]
    cx.execute(
        f"update runs set status = {READY}, worker = null, lease = null, wake = null, reason = '',"
        " finished = 0, lapses = 0, updated = ? where k = ?",
        (item.now, k),
    )
    cx.execute("delete from results where run = ?", (k,))
    blobs.let_go(cx, k, blobs.RESULT, blobs.RESULT + 1)
    budgets.give_back(ledger, [k])
    budgets.wake(ledger, item.now)
    if item.pool is not None:
        cx.execute("update runs set base = (select coalesce(max(k), 0) from journal) where k = ?", (k,))
        ledger.archives([k])
        blobs.let_go(cx, k, blobs.POOL, blobs.POOL + 1)
        _put_pools(cx, [(k, item.pool)])
    if item.config is not None:
        (spec,) = cx.execute("select spec from specs where run = ?", (k,)).fetchone()
        changed = msgspec.structs.replace(decode_spec(spec), config=item.config)
        cx.execute("update specs set spec = ? where run = ?", (encode(changed), k))
        cx.execute("update runs set rank = ? where k = ?", (-item.config.priority, k))
    ledger.claimed.pop(item.run, None)
    ledger.hint("ready", [item.run])
    for other, pool in item.along.items():
        _revive(ledger, Revival(other, pool, item.now, ("cancelled",)))
    return True
