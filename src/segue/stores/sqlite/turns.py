"""Writing turns: many at once, each whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import reduce
from itertools import chain
from operator import or_
from typing import Any, Final

import msgspec

from ...model.errors import UNREADABLE
from ...model.message import Mail, Question
from ...model.run import ENDED, CallRef
from ...ports.store import CommitResult, Turn
from .. import refusal, room
from ..outcome import end_mail
from . import answers, blobs, budgets
from .bulk import Query, Values, as_json
from .heads import decode_call, decode_spec, encode
from .ledger import Ledger
from .lines import put_lines, unclaim, withdraw
from .post import Post, make_room, post, refuse
from .runs import Creation, create
from .schema import HELD, KEPT, PARKED, READY, STATUS_NUMBER
from .untaken import empty, put_dead

Live = list[tuple[Turn, int]]

#: Journal rows, of those runs that are held under the fence given.
_APPEND_HELD = Values(
    "entries, run, fence",
    "insert into journal(run, entries) select v.run, v.entries from {v}"
    " cross join runs r on r.k = v.run and r.fence = v.fence and r.lease is not null",
    one="insert into journal(run, entries) select k, ? from runs where k = ? and fence = ? and lease is not null",
)
_APPEND = Values("run, entries", "insert into journal(run, entries) select run, entries from {v}")
_HELD = "from runs r where r.k in (select value from json_each(?)) and r.lease is not null"
_LIVE = "(select max(k) from journal where run = r.k) > r.base"  #: whether it has a live journal
_FENCES = Query(("r.k", "r.fence", "r.bound", _LIVE, "r.lapses", "0"), _HELD)

#: What there may be of a run that leaves, and most have nothing of.
MAIL, ASKS, LINES, MONEY, PARENT = 1, 2, 4, 8, 16
ANYTHING: Final = 31
#: The same, of runs that leave: one look instead of a statement for each of these.
_LEAVING = Query(
    (
        "r.k", "r.fence", "r.bound", _LIVE, "r.lapses",
        f"exists (select 1 from inbox i where i.run = r.k) * {MAIL}"
        f" + exists (select 1 from asks a where a.run = r.k and a.state = 0) * {ASKS}"
        f" + exists (select 1 from lines l where l.run = r.k and l.status in (0, 7)) * {LINES}"
        f" + (exists (select 1 from reservations q where q.run = r.k) or exists (select 1 from wanting)) * {MONEY}"
        f" + exists (select 1 from specs s where s.run = r.k and s.parent is not null) * {PARENT}",
    ),
    _HELD,
)  # fmt: skip
_NEWEST = Query(
    ("i.run", "max(i.k)"),
    "from json_each(?) as q cross join inbox i on i.run = q.value group by i.run",
)
_STATES = Values(
    "run, checkpoint",
    "insert into states(run, checkpoint) select run, checkpoint from {v} where true"
    " on conflict do update set checkpoint = excluded.checkpoint",
)
#: Of those that one replaces, the newest is left, whose row it takes.
_LEAVE_DELTAS = (
    "delete from deltas where k in (select k from deltas where run = ? order by k desc limit ? offset 1)"
)
_PUT_DELTA = (
    "insert into deltas(k, run, delta)"
    " select iif(v.replaces, (select max(k) from deltas where run = v.run), null), v.run, v.delta from {v} where true"
    " on conflict(k) do update set delta = excluded.delta"
)
#: One that replaces another takes its row, so that a commit mostly writes a page of the table and none of its index.
_DELTAS = Values(
    "run, replaces, delta",
    _PUT_DELTA,
    one=_PUT_DELTA.replace("{v}", "(select ? as run, ? as replaces, ? as delta) as v"),
)
_KEPT = Values(
    "run, base, usage",
    "update runs set base = coalesce(v.base, runs.base), usage = coalesce(v.usage, runs.usage), lapses = 0"
    " from {v} where k = v.run",
)
_LEFT = Values(
    "status, wake, reason, finished, updated, base, usage, run",
    "update runs set status = v.status, worker = null, lease = null, wake = v.wake, reason = v.reason,"
    " finished = v.finished, updated = v.updated, base = coalesce(v.base, runs.base),"
    " usage = coalesce(v.usage, runs.usage), lapses = 0 from {v} where k = v.run",
    one="update runs set status = ?, worker = null, lease = null, wake = ?, reason = ?, finished = ?, updated = ?,"
    " base = coalesce(?, base), usage = coalesce(?, usage), lapses = 0 where k = ?",
)
_RESULTS = Values(
    "run, small, error, content",
    "insert or replace into results(run, small, error, content) select run, small, error, content from {v}",
    one="insert or replace into results(run, small, error, content) values(?, ?, ?, ?)",
)
_ASKS = Values(
    "id, run, recipient, question, shown",
    "insert or replace into asks(id, run, recipient, state, question, shown)"
    " select id, run, recipient, 0, question, shown from {v}",
)
#: Runs that ask, of these questions, such as show something large; and what a run shows.
_SHOWING = Query(
    ("run",),
    "from asks where id in (select value from json_each(?)) and shown is not null group by run",
)
_SHOWN = Query(("#shown",), "from asks where run = ? and shown is not null")
_PARENTS = Query(
    ("run", "#parent"),
    "from specs where run in (select value from json_each(?)) and parent is not null",
)


#: So many rows go into one statement.
ALONE: Final = 256


def append(ledger: Ledger, rows: Sequence[Any]) -> Sequence[CommitResult] | None:
    """Append journal rows, each with its run and fence, in one statement that needs no transaction around it; what came
    of each. None where that isn't possible, for lack of a key, say: then nothing was written.
    """
    claimed = ledger.claimed
    try:
        known = [(row[2], claimed[row[0]], row[1]) for row in rows]
    except KeyError:
        return None
    if len(known) > 1 and len({run for _, run, _ in known}) < len(known):
        return None  # of two lives of one run: each needs an answer of its own
    written, last = _APPEND_HELD.try_insert(ledger.cx, known)
    if written == len(rows):
        return _ALL_COMMITTED[: len(rows)]
    there = "select run from journal where k > ? and k <= ?"
    held = (
        {run for (run,) in ledger.cx.execute(there, (last - written, last)).fetchall()} if written else set()
    )
    return ["committed" if run in held else "fenced" for _, run, _ in known]


_ALL_COMMITTED: Final[list[CommitResult]] = ["committed"] * ALONE


def append_each(ledger: Ledger, rows: Sequence[Any]) -> list[tuple[Any, CommitResult]]:
    """Append journal rows, those of runs that are held under their fence, in a transaction; what came of each."""
    came: list[CommitResult] = []
    for start in range(0, len(rows), ALONE):
        part = rows[start : start + ALONE]
        results = append(ledger, part)
        if results is None:
            results = commit(ledger, [Turn(run=run, fence=fence, entries=row) for run, fence, row, _ in part])
        came += results
    return list(zip(rows, came, strict=True))


def commit(ledger: Ledger, turns: Sequence[Turn]) -> list[CommitResult]:
    """Write turns, a round at a time; in a round, each run has one."""
    out: list[CommitResult] = []
    round: list[Turn] = []
    there: set[str] = set()
    for turn in turns:
        if turn.run in there:
            out.extend(_write(ledger, round))
            round, there = [], set()
        round.append(turn)
        there.add(turn.run)
    out.extend(_write(ledger, round))
    return out


def _write(ledger: Ledger, turns: Sequence[Turn]) -> list[CommitResult]:
    """A bounded number of statements a few hundred turns."""
    keys = ledger.run_keys(turn.run for turn in turns)
    leaves = any(turn.release or turn.status != "ready" for turn in turns)
    held = (_LEAVING if leaves else _FENCES).rows(ledger.cx, (as_json(keys.values()),))
    fences = {k: fence for k, fence, *_ in held}
    bounds = {k: bound for k, _, bound, *_ in held if bound}
    journaled = {k for k, _, _, live, *_ in held if live}
    lapsed = {k for k, *_, lapses, _ in held if lapses}
    there = ANYTHING if any(map(_adds, turns)) else reduce(or_, (row[-1] for row in held), 0)
    results: dict[str, CommitResult] = {}
    live: Live = []
    for turn in turns:
        k = keys.get(turn.run)
        if k is not None and fences.get(k) == turn.fence:
            results[turn.run] = "committed"
            live.append((turn, k))
        else:
            results[turn.run] = "fenced"
    if live:
        bases = _write_journal(ledger, live, journaled)
        _write_effects(ledger, live)
        if bounds:
            there |= MAIL
        parents, left = _write_status(ledger, live, bases, results, lapsed, there)
        post(ledger, [letter for turn, k in live for letter in _letters(turn, parents.get(k))])
        if left:
            _leave_mail(ledger, left, live)
        if bounds:
            _make_room(ledger, bounds, live)
        if lapsed:  # it is no suspect any more, so the next one may be claimed
            ledger.hint("ready", (turn.run for turn, k in live if k in lapsed))
        if there & MONEY and any(room.may_give_back(turn) for turn, _ in live):
            budgets.wake(ledger, max(turn.now for turn, _ in live))
    return [results[turn.run] for turn in turns]


def _adds(turn: Turn) -> bool:
    """Whether it may add to what there is of a run that leaves, before it does."""
    return bool(turn.lines or turn.answers or turn.withdrawn or turn.settled or turn.asks)


def _write_journal(ledger: Ledger, live: Live, journaled: set[int]) -> dict[int, int]:
    """Journal rows, checkpoints and deltas, and who holds which contents; where the journals begin that had rows."""
    bases: dict[int, int] = {}
    states = [(k, turn.checkpoint) for turn, k in live if turn.checkpoint is not None]
    deltas = [
        (k, turn.replaces, turn.delta)
        for turn, k in live
        if turn.checkpoint is None and turn.delta is not None
    ]
    holds = [(digest, k) for turn, k in live for digest, _ in turn.blobs]
    past = [row[0] for row in chain(states, deltas) if row[0] in journaled]
    if past or holds:
        (last,) = ledger.one("select coalesce(max(k), 0) from journal")
        bases.update((k, last) for k in past)
        ledger.archives(past)
        if holds:
            blobs.hold(ledger.cx, [(*hold, last) for hold in holds])
    if states:
        _STATES.run(ledger.cx, states)
        older = "delete from deltas where run in (select value from json_each(?))"
        ledger.cx.execute(older, (as_json(k for k, _ in states),))
    for k, replaces, _ in deltas:
        if replaces > 1:
            ledger.cx.execute(_LEAVE_DELTAS, (k, replaces - 1))
    if deltas:
        _DELTAS.run(ledger.cx, deltas)
    rows = [(k, turn.entries) for turn, k in live if turn.entries is not None]
    if rows:
        _APPEND.run(ledger.cx, rows)
    return bases


def _write_effects(ledger: Ledger, live: Live) -> None:
    """What turns do besides."""
    cx = ledger.cx
    consumed = [letter for turn, _ in live for letter in turn.consumed]
    if consumed:
        cx.execute("delete from inbox where k in (select value from json_each(?))", (as_json(consumed),))
    kept = [letter for turn, _ in live for letter in turn.kept]
    if kept:
        keep = f"update inbox set state = {KEPT} where k in (select value from json_each(?))"
        cx.execute(keep, (as_json(kept),))
    dead = [msgspec.structs.replace(letter, at=turn.now) for turn, _ in live for letter in turn.dead]
    if dead:
        put_dead(ledger, dead)
    contents = [blob for turn, _ in live for blob in turn.blobs]
    if contents:
        blobs.put(cx, contents)
    spawn = [Creation(new, turn.now) for turn, _ in live for new in turn.spawn]
    if spawn:
        create(ledger, spawn)
    withdrawn = [line for turn, _ in live for line in turn.withdrawn]
    if withdrawn:
        withdraw(ledger, withdrawn)
    kept_answers = [answer for turn, _ in live for answer in turn.answers]
    if kept_answers:
        answers.keep(ledger, kept_answers)
    lines = [(line, k) for turn, k in live for line in turn.lines]
    if lines:
        put_lines(ledger, lines)
    settled = [one for turn, _ in live for one in turn.settled]
    if settled:
        budgets.settle(ledger, settled)
    asks = [(ask, k) for turn, k in live for ask in turn.asks]
    if asks:
        _put_asks(cx, asks)
    closed = [ask for turn, _ in live for ask in turn.closed_asks]
    if closed:
        cx.execute(
            "update asks set state = 2 where state = 0 and id in (select value from json_each(?))",
            (as_json(closed),),
        )


def _put_asks(cx: sqlite3.Connection, asks: Sequence[tuple[Question, int]]) -> None:
    """Questions, each with the key of its run. Of one that is asked anew, what it showed before goes."""
    anew = _SHOWING.rows(cx, (as_json(ask.id for ask, _ in asks),))
    large = blobs.Large(blobs.SHOWN)
    rows: list[tuple[str, int, str, bytes, bytes | None]] = []
    for ask, k in asks:
        shown = large.cut(k, ask.show)
        bare = ask if shown is None else msgspec.structs.replace(ask, show=b"")
        rows.append((ask.id, k, ask.to, encode(bare), shown))
    large.write(cx)
    _ASKS.run(cx, rows)
    for (k,) in anew:
        blobs.hold_only(cx, k, blobs.SHOWN, (shown for (shown,) in _SHOWN.rows(cx, (k,))))


def _write_status(
    ledger: Ledger,
    live: Live,
    bases: dict[int, int],
    results: dict[str, CommitResult],
    lapsed: set[int],
    there: int,
) -> tuple[dict[int, CallRef], list[Mail]]:
    """Who is kept, who leaves and who ends; the calls that await those ends, and the mail that these leave."""
    parking = [k for turn, k in live if turn.status in ("parked", "held")]
    newest: dict[int, int] = {}
    if parking:
        newest = dict(_NEWEST.rows(ledger.cx, (as_json(parking),)))
    ended = [(turn, k) for turn, k in live if turn.status in ENDED]
    numbers = _number(ledger, ended)
    kept: list[tuple[Any, ...]] = []
    left: list[tuple[Any, ...]] = []
    ready: list[str] = []
    for turn, k in live:
        usage = None if turn.usage is None else encode(turn.usage)
        base = bases.get(k)
        if turn.status == "ready" and not turn.release:
            if base is not None or usage is not None or k in lapsed:
                kept.append((k, base, usage))
            continue
        status, wake = STATUS_NUMBER[turn.status], None
        if status in (PARKED, HELD):
            wake = turn.wake if status == PARKED else None
            if newest.get(k, 0) > turn.seen or (turn.wants and budgets.missing(ledger, turn.wants)):
                status, wake = READY, None
                results[turn.run] = "ready"
        if status == READY:
            ready.append(turn.run)
        ledger.claimed.pop(turn.run, None)
        left.append((status, wake, turn.reason, numbers.get(k, 0), turn.now, base, usage, k))
    if kept:
        _KEPT.run(ledger.cx, kept)
    if left:
        _LEFT.run(ledger.cx, left)
    if ready:
        ledger.hint("ready", ready)
    parents, mail = _end(ledger, ended, there) if ended else ({}, [])
    if left and there & MONEY:
        wanted = [id for turn, _ in live if turn.status not in ENDED for id in turn.wants]
        budgets.give_back(ledger, [row[-1] for row in left], wanted)
    return parents, mail


def _number(ledger: Ledger, ended: Live) -> dict[int, int]:
    """Places in the order of ends."""
    if not ended:
        return {}
    count = "update counters set value = value + ? where name = 'finished' returning value"
    ((last,),) = ledger.cx.execute(count, (len(ended),)).fetchall()
    return {k: last - i for i, (_, k) in enumerate(reversed(ended))}


def _end(ledger: Ledger, ended: Live, there: int) -> tuple[dict[int, CallRef], list[Mail]]:
    """Store results and close what is open; the calls that await the ends, and the mail that is left."""
    cx = ledger.cx
    _put_results(cx, ended)
    ledger.hint("ended", (turn.run for turn, _ in ended))
    keys = as_json(k for _, k in ended)
    mine = "run in (select value from json_each(?))"
    if there & ASKS:
        cx.execute(f"update asks set state = 2 where state = 0 and {mine}", (keys,))
    if there & LINES:
        _withdraw_all(ledger, keys)
    now = max(turn.now for turn, _ in ended)
    left = empty(ledger, {k: turn.status for turn, k in ended}, now) if there & MAIL else []
    owners = {turn.run: k for turn, k in ended} if left else {}
    for mail in left:
        unclaim(cx, owners[mail.to], mail.used)
    parents = _PARENTS.rows(cx, (keys,)) if there & PARENT else []
    return {run: call for run, parent in parents if (call := _parent(cx, run, parent)) is not None}, left


def _put_results(cx: sqlite3.Connection, ended: Live) -> None:
    """What came of runs."""
    large = blobs.Large(blobs.RESULT)
    rows: list[tuple[int, bytes | None, bytes | None, bytes | None]] = []
    for turn, k in ended:
        if turn.value is not None or turn.error is not None:
            content = large.cut(k, turn.value)
            value = turn.value if content is None else None
            rows.append((k, value, None if turn.error is None else encode(turn.error), content))
    large.write(cx)
    if rows:
        _RESULTS.run(cx, rows)


def _parent(cx: Any, run: int, parent: bytes) -> CallRef | None:
    """The call that awaits an end; the record of the run has it too, should one be damaged."""
    try:
        return decode_call(parent)
    except UNREADABLE:
        (spec,) = cx.execute("select spec from specs where run = ?", (run,)).fetchone()
        return decode_spec(spec).parent


def _withdraw_all(ledger: Ledger, runs: str) -> None:
    """Lines of these runs that no job has."""
    cx, mine = ledger.cx, "run in (select value from json_each(?))"
    sharing = (
        f"select k, same, attempt, status from lines where same is not null and status in (0, 7) and {mine}"
    )
    if leaving := cx.execute(sharing, (runs,)).fetchall():
        answers.cancel(ledger, leaving)
    withdrawn = f"select k from lines where status = 0 and {mine}"
    if cx.execute(f"delete from bodies where line in ({withdrawn})", (runs,)).rowcount:
        cx.execute(f"update lines set status = 6 where status = 0 and {mine}", (runs,))


def _letters(turn: Turn, parent: CallRef | None) -> list[Post]:
    """What a turn sends, its end last."""
    letters = [Post(mail, turn.now, stays=True) for mail in turn.outbox]
    if parent is not None:
        letters.append(Post(end_mail(turn, parent), turn.now, marked=False))
    return letters


def _leave_mail(ledger: Ledger, left: Sequence[Mail], live: Live) -> None:
    """What ended runs leave before them."""
    for turn, _ in live:
        mine = [mail for mail in left if mail.to == turn.run]
        if mine:
            refuse(ledger, refusal.left(mine, turn.run, turn.status, turn.now), turn.now)


def _make_room(ledger: Ledger, bounds: dict[int, int], live: Live) -> None:
    """Tell of bounded mailboxes that were emptied a bit; those of runs that go on take what waits for room."""
    roomy = {k: turn for turn, k in live if k in bounds and (turn.consumed or turn.kept)}
    if not roomy:
        return
    ledger.hint("room", (turn.run for turn in roomy.values()))
    going_on = {k: bounds[k] for k, turn in roomy.items() if turn.status not in ENDED}
    make_room(ledger, going_on, max(turn.now for turn in roomy.values()))
