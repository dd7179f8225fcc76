"""Runs as they are read: heads, and all that a worker needs to wake them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...model.entry import Failure
from ...model.message import PORT, Letter, Mail
from ...model.run import CallRef, Head, Spec, Usage
from ...ports.store import Claimed
from .bulk import Blobs, Query, as_json
from .schema import KEPT, STATUSES

encode = msgspec.msgpack.Encoder().encode
decode_mail = msgspec.msgpack.Decoder(Mail).decode
decode_spec = msgspec.msgpack.Decoder(Spec).decode
decode_failure = msgspec.msgpack.Decoder(Failure).decode
decode_call = msgspec.msgpack.Decoder(CallRef).decode
decode_usage = msgspec.msgpack.Decoder(list[Usage]).decode

_HEAD = (
    "r.id",
    "#s.spec",
    "r.status",
    "r.fence",
    "~r.wake",
    "r.reason",
    "#x.value",
    "#x.error",
    "#r.usage",
    "r.finished",
    "~r.updated",
)
_FROM = "from runs r join specs s on s.run = r.k left join results x on x.run = r.k"


def head_query(where: str) -> Query:
    """Heads of runs `r`."""
    return Query(_HEAD, f"{_FROM} {where}")


def as_head(row: Sequence[Any]) -> Head:
    """From a row of a head query."""
    id, spec, status, fence, wake, reason, value, error, usage, finished, updated = row
    return Head(
        id,
        decode_spec(spec),
        STATUSES[status],
        fence,
        wake,
        reason,
        value,
        decode_failure(error) if error is not None else None,
        decode_usage(usage) if usage is not None else [],
        finished,
        updated,
    )


HEADS_BY_ID = head_query("where r.id in (select value from json_each(?))")
HEAD_BY_ID = head_query("where r.id = ?")

#: A longer checkpoint is read by itself, so that it needn't come as hex.
_SHORT = 4096
_WAKE = Query(
    (
        "r.k",
        "t.checkpoint is not null",
        f"#iif(length(t.checkpoint) > {_SHORT}, null, t.checkpoint)",
        "#t.pool",
        *_HEAD,
    ),
    f"{_FROM} left join states t on t.run = r.k where r.k in (select value from json_each(?))",
)
_LONG_CHECKPOINTS = Blobs(
    "t.run",
    "t.run",
    "t.checkpoint",
    "from json_each(?) as q cross join states t on t.run = q.value",
)
_JOURNAL = Blobs(
    "j.run",
    "j.k",
    "j.entries",
    "from json_each(?) as q cross join runs r on r.k = q.value"
    " cross join journal j on j.run = r.k and j.k > r.base",
)
_DELTAS = Blobs(
    "d.run",
    "d.k",
    "d.delta",
    "from json_each(?) as q cross join deltas d on d.run = q.value",
)
_INBOX = Query(
    ("i.run", "i.k", "#i.mail", "i.state"),
    "from json_each(?) as q cross join inbox i on i.run = q.value order by i.k",
)
_LETTERS = Query(
    ("i.k", "#i.mail", "i.state"),
    "from runs r cross join inbox i on i.run = r.k where r.id = ? and i.k > ? order by i.k",
)
_NEWER = Query(
    ("r.id", "i.k", "#i.mail", "i.state"),
    "from json_each(?) as q cross join runs r on r.id = json_extract(q.value, '$[0]')"
    " cross join inbox i on i.run = r.k and i.k > json_extract(q.value, '$[1]') order by i.k",
)
_AT_PORT = Query(("k", "#mail"), "from ports where port = ? and k > ? order by k")


def wakes(cx: sqlite3.Connection, keys: Iterable[int]) -> list[Claimed]:
    """All that is needed to wake runs, in the order of `keys`: five statements at most, however many they are."""
    keys = list(keys)
    if not keys:
        return []
    text = as_json(keys)
    journals: dict[int, list[bytes]] = {key: [] for key in keys}
    for run, entries in _JOURNAL.rows(cx, (text,)):
        journals[run].append(entries)
    inboxes: dict[int, list[Letter]] = {key: [] for key in keys}
    for run, number, mail, state in _INBOX.rows(cx, (text,)):
        inboxes[run].append(Letter(number, decode_mail(mail), state == KEPT))
    deltas: dict[int, list[bytes]] = {key: [] for key in keys}
    for run, delta in _DELTAS.rows(cx, (text,)):
        deltas[run].append(delta)
    found = {row[0]: row for row in _WAKE.rows(cx, (text,))}
    long = [key for key, there, short, *_ in found.values() if there and short is None]
    checkpoints = dict(_LONG_CHECKPOINTS.rows(cx, (as_json(long),))) if long else {}
    return [
        Claimed(
            as_head(row[4:]), checkpoints.get(key, row[2]), row[3], journals[key], inboxes[key], deltas[key]
        )
        for key in keys
        if (row := found.get(key)) is not None
    ]


def letters(cx: sqlite3.Connection, run: str, after: int) -> list[Letter]:
    """What lies in an inbox after a letter."""
    return [
        Letter(number, decode_mail(mail), state == KEPT)
        for number, mail, state in _LETTERS.rows(cx, (run, after))
    ]


def newer_letters(cx: sqlite3.Connection, after: Sequence[tuple[str, int]]) -> dict[str, list[Letter]]:
    """What lies in several inboxes and ports after a letter of each."""
    out: dict[str, list[Letter]] = {}
    runs = [pair for pair in after if not pair[0].startswith(PORT)]
    for run, number, mail, state in _NEWER.rows(cx, (as_json(runs),)) if runs else ():
        out.setdefault(run, []).append(Letter(number, decode_mail(mail), state == KEPT))
    for port, newest in after:
        if port.startswith(PORT):
            found = _AT_PORT.rows(cx, (port, newest))
            if found:
                out[port] = [Letter(number, decode_mail(mail)) for number, mail in found]
    return out


def get(cx: sqlite3.Connection, run: str) -> Head | None:
    """A run's own record."""
    row = HEAD_BY_ID.row(cx, (run,))
    return as_head(row) if row is not None else None


def load(cx: sqlite3.Connection, run: str) -> Claimed | None:
    """A run as a worker would get it."""
    row = cx.execute("select k from runs where id = ?", (run,)).fetchone()
    return wakes(cx, [row[0]])[0] if row is not None else None
