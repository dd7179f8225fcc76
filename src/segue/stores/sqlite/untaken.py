"""Mail that isn't taken: what waits for room in a bounded mailbox, and dead letters."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from ...model.errors import UNREADABLE
from ...model.message import DeadLetter, Mail
from ...model.run import Status
from ...ports.store import Delivery
from .. import refusal
from . import damage
from .bulk import Query, Values, as_json
from .damage import Unread
from .heads import decode_mail, encode
from .ledger import Ledger

_decode_dead = msgspec.msgpack.Decoder(DeadLetter).decode

_USED = Query(
    ("q.value", "(select count(*) from inbox where run = q.value and state = 1)"), "from json_each(?) as q"
)
_QUEUED = Query(
    ("run", "count(*)"), "from waiting where run in (select value from json_each(?)) group by run"
)
_OLDEST = Query(("k", "run", "#mail"), "from waiting where run = ? order by k limit ?")
_WAIT = Values("run, mail", "insert into waiting(run, mail) select run, mail from {v}")
_DEAD = Values("recipient, letter", "insert into dead(recipient, letter) select recipient, letter from {v}")
_LISTED = Query(("k", "recipient", "#letter"), "from dead where k > ? order by k limit ?")
_LISTED_OF = Query(
    ("k", "recipient", "#letter"), "from dead where recipient = ? and k > ? order by k limit ?"
)


# ---------------------------------------------------------------- bounded mailboxes
class Boxes:
    """Bounded mailboxes that one transaction brings mail to; `bounds` by the key of the run."""

    def __init__(self, ledger: Ledger, bounds: dict[int, int], refused: list[refusal.Refused]) -> None:
        self._ledger, self._bounds, self._refused = ledger, bounds, refused
        keys = as_json(bounds)
        self._used: dict[int, int] = dict(_USED.rows(ledger.cx, (keys,)))
        self._queued: dict[int, int] = dict(_QUEUED.rows(ledger.cx, (keys,)))
        self._waiting: list[tuple[int, bytes]] = []

    def take(self, run: int, mail: Mail, now: float, *, stays: bool) -> Delivery | None:
        """Count a message in, None; or what becomes of it because there is no room."""
        size, way = divmod(self._bounds[run], 4)
        if self._used[run] < size and not self._queued.get(run):
            self._used[run] += 1
            return None
        if refusal.FULL[way] != "drop" and not stays:
            return "full"
        if refusal.FULL[way] == "wait":
            self._queued[run] = self._queued.get(run, 0) + 1
            self._waiting.append((run, encode(mail)))
            return "delivered"
        self._refused.append(refusal.full(mail, size, now))
        return "dropped"

    def write(self) -> None:
        """Write down what waits."""
        if self._waiting:
            _WAIT.run(self._ledger.cx, self._waiting)


def admit(ledger: Ledger, bounds: dict[int, int], now: float) -> list[Mail]:
    """Take out of the queue what has room by now."""
    cx = ledger.cx
    queued = dict(_QUEUED.rows(cx, (as_json(bounds),)))
    if not queued:
        return []
    used = dict(_USED.rows(cx, (as_json(queued),)))
    admitted: list[Mail] = []
    for run in queued:
        room = bounds[run] // 4 - used[run]
        while room > 0 and (rows := _OLDEST.rows(cx, (run, room))):
            keys = as_json(k for k, _, _ in rows)
            cx.execute("delete from waiting where k in (select value from json_each(?))", (keys,))
            some = [mail for _, _, mail in _readable(ledger, rows, now)]
            room -= len(some)
            admitted += some
    return admitted


def empty(ledger: Ledger, runs: Mapping[int, Status], now: float) -> list[Mail]:
    """What lies before runs that have ended, taken out: of each, its inbox first. What they keep stays."""
    cx, mine = ledger.cx, "run in (select value from json_each(?))"
    keys = (as_json(runs),)
    lying = cx.execute(f"select k, run, mail from inbox where {mine} order by k", keys).fetchall()
    read = _readable(ledger, lying, now)
    kept = {k for k, run, mail in read if refusal.is_kept(mail, runs[run])}
    gone = as_json(k for k, _, _ in lying if k not in kept)
    cx.execute("delete from inbox where k in (select value from json_each(?))", (gone,))
    waiting = sorted(cx.execute(f"delete from waiting where {mine} returning k, run, mail", keys).fetchall())
    left = [mail for k, _, mail in read if k not in kept]
    return left + [mail for _, _, mail in _readable(ledger, waiting, now)]


def _readable(
    ledger: Ledger, rows: Sequence[tuple[int, int, bytes]], now: float
) -> list[tuple[int, int, Mail]]:
    """Mail, with its key and its run's; what can't be read of it is a dead letter."""
    out: list[tuple[int, int, Mail]] = []
    for k, run, mail in rows:
        try:
            out.append((k, run, decode_mail(mail)))
        except UNREADABLE as problem:
            (id,) = ledger.one("select id from runs where k = ?", run)
            put_dead(ledger, [damage.dead_letter(id, Unread(k, mail, str(problem)), now)])
    return out


# ---------------------------------------------------------------- dead letters
def put_dead(ledger: Ledger, letters: Sequence[DeadLetter]) -> None:
    """Keep mail that nobody took."""
    if letters:
        _DEAD.run(ledger.cx, [(letter.mail.to, encode(letter)) for letter in letters])


def listed(cx: sqlite3.Connection, run: str, after: int, limit: int) -> list[DeadLetter]:
    """Dead letters in order."""
    rows = _LISTED_OF.rows(cx, (run, after, limit)) if run else _LISTED.rows(cx, (after, limit))
    return [msgspec.structs.replace(_read(k, run, letter), id=k) for k, run, letter in rows]


def _read(k: int, run: str, letter: bytes) -> DeadLetter:
    try:
        return _decode_dead(letter)
    except UNREADABLE as problem:
        return damage.dead_letter(run, Unread(k, letter, str(problem)), 0.0)


def dead_letter(cx: sqlite3.Connection, k: int) -> DeadLetter | None:
    """One of them."""
    row = cx.execute("select recipient, letter from dead where k = ?", (k,)).fetchone()
    return _read(k, *row) if row is not None else None


def drop(ledger: Ledger, items: Sequence[Sequence[int]]) -> list[int]:
    """Forget dead letters."""
    among = "k in (select value from json_each(?))"
    return [ledger.cx.execute(f"delete from dead where {among}", (as_json(keys),)).rowcount for keys in items]
