"""Requests that are the same: the answers that are kept, and lines that follow another one that asks the same."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ...model.entry import Failure
from ...model.lane import Answer, Line, LineOutcome
from ...model.message import Mail
from ...model.run import REUSED, CallRef, Usage
from .. import asking
from . import budgets
from .bulk import Query, Values, as_json
from .ledger import Ledger
from .post import Post, post
from .schema import FOLLOWING, LATES, LINE_NUMBER, TAKEN, WAITING

_OK, _CANCELLED = LINE_NUMBER["ok"], LINE_NUMBER["cancelled"]

#: So many answers are dropped in one transaction.
PORTION = 3000

#: Says it as the index does.
_ASKS = f"same is not null and status in ({WAITING}, {TAKEN}, {FOLLOWING})"
_AMONG = "in (select value from json_each(?))"
#: Whether others follow a line of `lines`.
FOLLOWED = (
    f"(same is not null and exists (select 1 from lines f where f.same = lines.same and f.status = {FOLLOWING}"
    f" and f.same is not null and f.status in ({WAITING}, {TAKEN}, {FOLLOWING})))"
)


class _Asker(NamedTuple):
    """A line without an outcome."""

    k: int
    same: str
    id: str
    run: str
    path: str
    n: int
    attempt: int
    status: int
    due: float
    late: int
    deserted: int


_ASKERS = Query(
    (
        "l.k",
        "l.same",
        "l.id",
        "r.id",
        "l.path",
        "l.n",
        "l.attempt",
        "l.status",
        "~l.due",
        "l.late",
        "l.deserted",
    ),
    f"""from json_each(?) as q cross join lines l on l.same = q.value and l.same is not null
    and l.status in ({WAITING}, {TAKEN}, {FOLLOWING}) cross join runs r on r.k = l.run order by l.k""",
)


# ---------------------------------------------------------------- answers
_FIND = Query(
    ("a.same", "~a.at", "#a.value"), "from json_each(?) as q cross join answers a on a.same = q.value"
)
_KEEP = Values(
    "same, at, value",
    """insert into answers(same, at, value) select same, at, value from {v} where true
    on conflict do update set at = excluded.at, value = excluded.value where excluded.at >= answers.at""",
)


def find(cx: sqlite3.Connection, same: Iterable[str]) -> dict[str, Answer]:
    """The answers that are kept."""
    return {key: Answer(key, value, at) for key, at, value in _FIND.rows(cx, (as_json(same),))}


def _keep(cx: sqlite3.Connection, answers: Sequence[Answer]) -> None:
    _KEEP.run(cx, [(each.same, each.at, each.value) for each in answers])


def keep(ledger: Ledger, answers: Sequence[Answer]) -> None:
    """Keep answers, and give them to the lines that wait for one."""
    _keep(ledger.cx, answers)
    by = {each.same: each for each in answers}
    askers = _askers(ledger.cx, by)
    takers = [asker for asker in askers if asker.status != TAKEN]
    if takers:
        close(ledger.cx, {_OK: [taker.k for taker in takers]})
        wanting = [taker for taker in takers if not taker.deserted]
        post(ledger, [_answered(taker, by[taker.same]) for taker in wanting])
    if any(asker.deserted for asker in askers):
        _abandon(ledger, by, ())


def forget(ledger: Ledger, items: Sequence[float]) -> list[int]:
    """Drop the oldest answers that came before then, `PORTION` at most."""
    some = f"select k from answers where at < ? order by at limit {PORTION}"
    return [
        ledger.cx.execute(f"delete from answers where k in ({some})", (before,)).rowcount for before in items
    ]


def _askers(cx: sqlite3.Connection, same: Iterable[str]) -> list[_Asker]:
    return [_Asker(*row) for row in _ASKERS.rows(cx, (as_json(same),))]


def _given(
    line: str,
    attempt: int,
    call: CallRef,
    value: bytes | None,
    error: Failure | None,
    at: float,
    *,
    lane: str = REUSED,
    used: Usage | None = None,
) -> Post:
    sender = f"line:{line}"
    mail = Mail(
        call.run, sender, attempt, "result", lane, value=value, error=error, call=call, at=at, used=used
    )
    return Post(mail, at, marked=False)


def _answered(to: _Asker, answer: Answer) -> Post:
    return _given(to.id, to.attempt, CallRef(to.run, to.path, to.n), answer.value, None, answer.at)


def close(cx: sqlite3.Connection, ended: dict[int, list[int]]) -> None:
    """End lines, by status."""
    for status, keys in ended.items():
        cx.execute(f"update lines set status = {status} where k {_AMONG}", (as_json(keys),))
        cx.execute(f"delete from bodies where line {_AMONG}", (as_json(keys),))
    budgets.lines_over(cx, [key for keys in ended.values() for key in keys])


# ---------------------------------------------------------------- lines that are put in
_GOING = f"select id from lines where id {_AMONG} and status in ({WAITING}, {TAKEN}, {FOLLOWING})"
_LEADERS = Query(
    ("l.same", "l.id", "~l.due", "l.unwanted"),
    f"""from json_each(?) as q cross join lines l on l.same = q.value and l.same is not null
    and l.status in ({WAITING}, {TAKEN}, {FOLLOWING}) and l.status in ({WAITING}, {TAKEN}) order by l.k""",
)


class _Leader(msgspec.Struct):
    """A line that will be answered; `pulled` if it has to be sooner than it was said."""

    id: str
    due: float
    unwanted: int
    pulled: bool = False


class Placed(msgspec.Struct, frozen=True):
    """What becomes of lines that are put in: the status of those that needn't be sent, and moments that others have to
    be answered by for the sake of their followers."""

    status: dict[str, int] = {}
    dues: dict[str, float] = {}


def place(ledger: Ledger, lines: Sequence[tuple[Line, int]]) -> Placed:
    """Find answers and leaders for lines that are about to be put in, and give the answers.

    One that is on its way already is left as it is, and its body too.
    """
    cx = ledger.cx
    asking_so = {line.id: line for line, _ in lines if line.same}
    going = {id for (id,) in cx.execute(_GOING, (as_json(asking_so),))}
    fresh = [line for id, line in asking_so.items() if id not in going]
    same = {line.same for line in fresh}
    known = find(cx, same)
    leaders: dict[str, list[_Leader]] = {}
    for key, *rest in _LEADERS.rows(cx, (as_json(same),)):
        leaders.setdefault(key, []).append(_Leader(*rest))
    status = dict.fromkeys(going, FOLLOWING)  # whatever it is: these rows aren't written
    posts: list[Post] = []
    joined: list[str] = []
    for line in fresh:
        answer = known.get(line.same)
        if answer is not None and answer.at >= line.since:
            status[line.id] = _OK
            posts.append(_given(line.id, line.attempt, line.call, answer.value, None, line.created))
            continue
        group = leaders.setdefault(line.same, [])
        leader = next((each for each in group if asking.follows(line, each.due)), None)
        if leader is None:
            group.append(_Leader(line.id, line.due, 0))
            continue
        status[line.id] = FOLLOWING
        if leader.unwanted:
            joined.append(leader.id)
        if asking.is_sooner(line, leader.due):
            leader.due, leader.pulled = line.due, True
    dues = {each.id: each.due for group in leaders.values() for each in group if each.pulled}
    if joined:
        cx.execute(f"update lines set unwanted = 0, deserted = 1 where id {_AMONG}", (as_json(joined),))
    for id, due in dues.items():
        if id in going or id not in asking_so:
            cx.execute("update lines set due = ?, late = ? where id = ?", (due, LATES.index("live"), id))
    if posts:
        post(ledger, posts)
        budgets.release(cx, (id for id, what in status.items() if what == _OK))
    return Placed(status, dues)


# ---------------------------------------------------------------- lines that leave
def leave(ledger: Ledger, rows: Sequence[tuple[int, str, int, int]]) -> None:
    """Of lines that are about to be cancelled (key, `same`, attempt, status): see to those that follow them, or that
    wait for the sake of them."""
    keys = [row[0] for row in rows]
    for k, same, attempt, status in rows:
        if status == WAITING:
            _succeed(ledger, k, same, attempt, as_json(keys))
    _abandon(ledger, {row[1] for row in rows}, keys)


def _abandon(ledger: Ledger, same: Iterable[str], gone: Iterable[int]) -> None:
    """Of lines that ask those, what only waited for the sake of others needn't where none but these is left."""
    alone = (
        f"select k, status from lines where same in (select value from json_each(:same)) and {_ASKS} and deserted"
        " and k not in (select value from json_each(:gone)) and not exists"
        f" (select 1 from lines f where f.same = lines.same and f.status = {FOLLOWING} and f.same is not null"
        f" and f.status in ({WAITING}, {TAKEN}, {FOLLOWING}) and f.k not in (select value from json_each(:gone)))"
    )
    left = ledger.cx.execute(alone, {"same": as_json(same), "gone": as_json(gone)}).fetchall()
    if left:
        taken = as_json(k for k, status in left if status == TAKEN)
        ledger.cx.execute(f"update lines set unwanted = 1, deserted = 0 where k {_AMONG}", (taken,))
        close(ledger.cx, {_CANCELLED: [k for k, status in left if status == WAITING]})


def cancel(ledger: Ledger, rows: Sequence[tuple[int, str, int, int]]) -> None:
    """As `leave`, and cancel them."""
    leave(ledger, rows)
    close(ledger.cx, {_CANCELLED: [row[0] for row in rows]})


def desert(cx: sqlite3.Connection, ids: Sequence[str]) -> None:
    """Lines in jobs that nobody waits for any more are wanted still where others follow them."""
    cx.execute(
        f"update lines set unwanted = 0, deserted = 1 where unwanted and status = {TAKEN} and id {_AMONG}"
        f" and {FOLLOWED}",
        (as_json(ids),),
    )


def _succeed(ledger: Ledger, k: int, same: str, attempt: int, gone: str) -> None:
    """A line ends without what others wait for: unless one like it goes on, the first follower takes its place."""
    cx, but = ledger.cx, "k not in (select value from json_each(?))"
    among = f"from lines where same = ? and {_ASKS} and {but}"
    if ledger.one(f"select 1 {among} and status in ({WAITING}, {TAKEN}) limit 1", same, gone) is not None:
        return
    heir = ledger.one(f"select k, lane {among} and status = {FOLLOWING} order by k limit 1", same, gone)
    if heir is None:
        return
    cx.execute(f"update lines set status = {WAITING}, attempt = ? where k = ?", (attempt, heir[0]))
    cx.execute("update bodies set line = ? where line = ?", (heir[0], k))
    (lane,) = ledger.one("select name from lanes where k = ?", heir[1])
    ledger.hint("lines", [lane])


# ---------------------------------------------------------------- lines that have outcomes
class _End(msgspec.Struct, frozen=True):
    """How a line ended that others may follow. `own`: that is nobody else's; `missed`: but for those late as well."""

    k: int
    same: str
    attempt: int
    outcome: LineOutcome
    own: bool
    missed: bool
    claimed: bool  #: by its own run


class Sharing:
    """What the outcomes of one chunk are to other lines that ask the same."""

    def __init__(self, ledger: Ledger, live: bool, now: float) -> None:
        """`live`: the job is one of live calls."""
        self._ledger, self._live, self._now = ledger, live, now
        self._ends: list[_End] = []
        self._deserted: set[str] = set()  #: what lines ask that only wait for the sake of others

    def ends(
        self, k: int, same: str, attempt: int, outcome: LineOutcome, *, quits: bool, claimed: bool
    ) -> None:
        """A line ends with that outcome, or quits. `claimed`: its run gets it."""
        missed = outcome.status == "expired" and not quits and self._live
        self._ends.append(_End(k, same, attempt, outcome, quits or missed, missed, claimed))

    def settle(self) -> list[_End]:
        """Give the outcomes on, keep the answers, and let others take the place of those that left; called before the
        lines themselves are closed. Gives the ends whose cost nobody has."""
        if not self._ends:
            return []
        ledger = self._ledger
        whole = [end for end in self._ends if end.outcome.whole and not end.own]
        if whole:
            _keep(ledger.cx, [Answer(end.same, end.outcome.value or b"null", self._now) for end in whole])
        ending = {end.k for end in self._ends}
        posts, unpaid = self._give_on(ending)
        gone = as_json(ending)
        for end in self._ends:
            if end.own:
                _succeed(ledger, end.k, end.same, end.attempt, gone)
        if self._deserted:
            _abandon(ledger, self._deserted, ending)
        post(ledger, posts)
        return unpaid

    def _give_on(self, ending: set[int]) -> tuple[list[Post], list[_End]]:
        """Close the lines that get an outcome too; what is sent to their runs, and the ends whose cost nobody has."""
        leaders: dict[str, set[int]] = {}
        followers: dict[str, list[_Asker]] = {}
        for asker in _askers(self._ledger.cx, {end.same for end in self._ends}):
            if asker.status == FOLLOWING or (asker.status == WAITING and asker.k not in ending):
                followers.setdefault(asker.same, []).append(asker)
            if asker.deserted and asker.k not in ending:
                self._deserted.add(asker.same)
            if asker.status != FOLLOWING and asker.k not in ending:
                leaders.setdefault(asker.same, set()).add(asker.k)
        posts: list[Post] = []
        unpaid: list[_End] = []
        closed: dict[int, list[int]] = {}
        left = Counter(end.same for end in self._ends)
        for end in self._ends:
            left[end.same] -= 1
            waits = followers.get(end.same, [])
            takers = self._takers(end, waits, lone=not leaders.get(end.same) and not left[end.same])
            if takers:
                taken = {taker.k for taker in takers}
                closed.setdefault(LINE_NUMBER[end.outcome.status], []).extend(taken)
                followers[end.same] = [each for each in waits if each.k not in taken]
            wanting = [taker for taker in takers if not taker.deserted]
            posts += self._shares(end, wanting)
            if not wanting and not end.claimed and not end.own:
                unpaid.append(end)
        close(self._ledger.cx, closed)
        return posts, unpaid

    def _shares(self, end: _End, takers: list[_Asker]) -> list[Post]:
        """An outcome for each of these; the first one bears the cost, unless the line's own run does."""
        return [
            _given(
                taker.id,
                taker.attempt,
                CallRef(taker.run, taker.path, taker.n),
                end.outcome.value,
                end.outcome.error,
                self._now,
                lane=REUSED if end.claimed or number else end.outcome.lane,
                used=None if end.claimed or number else end.outcome.used,
            )
            for number, taker in enumerate(takers)
        ]

    def _takers(self, end: _End, waits: list[_Asker], *, lone: bool) -> list[_Asker]:
        """Who of those that wait gets an outcome too. `lone`: no other line of theirs is to be answered."""
        if end.outcome.whole and not end.own:
            return waits
        following = [each for each in waits if each.status == FOLLOWING]
        if end.missed:
            return [
                each for each in following if each.late == LATES.index("fail") and 0 < each.due <= self._now
            ]
        return following if lone and not end.own else []
