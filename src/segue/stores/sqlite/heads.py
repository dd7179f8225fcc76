"""Runs as they are read: heads, and all that a worker needs to wake them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ...core.journal import blobs_of, load_large
from ...model.entry import Failure, Pool
from ...model.errors import UNREADABLE, Damaged
from ...model.message import PORT, Letter, Mail
from ...model.run import CallRef, Head, Spec, Status, Usage
from ...ports.store import Claimed
from .blobs import contents_of, get_blobs, read_content
from .bulk import Blobs, Query, as_json
from .damage import Unread, lost_result, stand_in
from .schema import KEPT, STATUSES

T = TypeVar("T")

encode = msgspec.msgpack.Encoder().encode
decode_mail = msgspec.msgpack.Decoder(Mail).decode
decode_spec = msgspec.msgpack.Decoder(Spec).decode
decode_failure = msgspec.msgpack.Decoder(Failure).decode
decode_call = msgspec.msgpack.Decoder(CallRef).decode
decode_pool = msgspec.msgpack.Decoder(Pool).decode
decode_usage = msgspec.msgpack.Decoder(list[Usage]).decode

HEAD = (
    "r.id",
    "#coalesce(s.spec, x'')",  # one that is missing can't be read either
    "#s.args",
    "r.status",
    "r.fence",
    "~r.wake",
    "r.reason",
    "#x.small",
    "#x.content",
    "#x.error",
    "#r.usage",
    "r.finished",
    "~r.updated",
)
_ARGS, _CONTENT = HEAD.index("#s.args"), HEAD.index("#x.content")
FROM = "from runs r left join specs s on s.run = r.k left join results x on x.run = r.k"


def head_query(where: str) -> Query:
    """Heads of runs `r`."""
    return Query(HEAD, f"{FROM} {where}")


def as_heads(cx: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> list[Head]:
    """From rows of a head query. What can't be read of one is said, and stands empty, so that others are read."""
    there = contents_of(cx, (row[stand] for row in rows for stand in (_ARGS, _CONTENT)))
    return [_as_head(row, there) for row in rows]


def _as_head(row: Sequence[Any], there: Mapping[bytes, bytes]) -> Head:
    id, spec, args, status, fence, wake, reason, value, content, error, usage, finished, updated = row
    try:
        known = decode_spec(spec)
        if args is not None:
            known = msgspec.structs.replace(known, args=read_content(args, there))
        return Head(
            id,
            known,
            STATUSES[status],
            fence,
            wake,
            reason,
            value if content is None else read_content(content, there),
            decode_failure(error) if error is not None else None,
            decode_usage(usage) if usage is not None else [],
            finished,
            updated,
        )
    except UNREADABLE:
        return _damaged(row, there)


def _damaged(row: Sequence[Any], there: Mapping[bytes, bytes]) -> Head:
    id, spec, args, status, fence, wake, reason, value, content, error, usage, finished, updated = row
    damage: list[str] = []

    def read(what: str, decode: Callable[[bytes], T], data: bytes | None, instead: T) -> T:
        try:
            return instead if data is None else decode(data)
        except UNREADABLE as problem:
            damage.append(f"its {what} can't be read ({problem})")
            return instead

    def content_of(stand: bytes) -> bytes | None:
        return read_content(stand, there)

    instead = stand_in(id, updated)
    known = read("record", decode_spec, spec, instead)
    if args is not None:
        known = msgspec.structs.replace(known, args=read("input", content_of, args, None) or instead.args)
    failure = read("error", decode_failure, error, None)
    shown: Status = STATUSES[status]
    if content is not None:
        value = read("result", content_of, content, None)
        if value is None:
            shown, failure = "failed", lost_result(id)
    nothing: list[Usage] = []
    used = read("usage", decode_usage, usage, nothing)
    told = "; ".join(damage)
    return Head(id, known, shown, fence, wake, reason, value, failure, used, finished, updated, told)


HEADS_BY_ID = head_query("where r.id in (select value from json_each(?)) and r.id > ''")
HEAD_BY_ID = head_query("where r.id = ? and r.id > ''")

#: A longer checkpoint is read by itself, so that it needn't come as hex.
_SHORT = 4096
_WAKE = Query(
    (
        "r.k",
        "t.checkpoint is not null",
        f"#iif(length(t.checkpoint) > {_SHORT}, null, t.checkpoint)",
        "#t.pool",
        *HEAD,
    ),
    f"{FROM} left join states t on t.run = r.k where r.k in (select value from json_each(?))",
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


class Woken(msgspec.Struct, gc=False):
    """What is there of a run to wake it, and the letters of its inbox that can't be read."""

    claimed: Claimed
    unread: list[Unread]


def wakes(cx: sqlite3.Connection, keys: Iterable[int]) -> list[Woken]:
    """All that is needed to wake runs, in the order of `keys`: six statements at most, however many they are,
    and one for each that was rebased and has large contents."""
    keys = list(keys)
    if not keys:
        return []
    text = as_json(keys)
    journals: dict[int, list[bytes]] = {key: [] for key in keys}
    for run, entries in _JOURNAL.rows(cx, (text,)):
        journals[run].append(entries)
    inboxes: dict[int, list[Letter]] = {key: [] for key in keys}
    unread: dict[int, list[Unread]] = {key: [] for key in keys}
    for run, number, mail, state in _INBOX.rows(cx, (text,)):
        try:
            inboxes[run].append(Letter(number, decode_mail(mail), state == KEPT))
        except UNREADABLE as problem:
            unread[run].append(Unread(number, mail, str(problem)))
    deltas: dict[int, list[bytes]] = {key: [] for key in keys}
    for run, delta in _DELTAS.rows(cx, (text,)):
        deltas[run].append(delta)
    found = {row[0]: row for row in _WAKE.rows(cx, (text,))}
    long = [key for key, there, short, *_ in found.values() if there and short is None]
    checkpoints = dict(_LONG_CHECKPOINTS.rows(cx, (as_json(long),))) if long else {}
    keys = [key for key in keys if key in found]
    heads = as_heads(cx, [found[key][4:] for key in keys])
    out: list[Woken] = []
    for key, head in zip(keys, heads, strict=True):
        row, pool = found[key], None
        if row[3] is not None:
            head, pool = _with_pool(cx, head, row[3])
        checkpoint = checkpoints.get(key, row[2])
        claimed = Claimed(head, checkpoint, pool, journals[key], inboxes[key], deltas[key])
        out.append(Woken(claimed, unread[key]))
    return out


def _with_pool(cx: sqlite3.Connection, head: Head, data: bytes) -> tuple[Head, Pool | None]:
    """A rebased run, and what it may take over. Where that can't be read, the head says so."""
    try:
        pool = decode_pool(data)
        if digests := blobs_of(pool.entries):
            entries = load_large(pool.entries, get_blobs(cx, digests))
            pool = msgspec.structs.replace(pool, entries=entries)
    except UNREADABLE as problem:
        why = str(problem)
    except Damaged as error:
        why = error.problem
    else:
        return head, pool
    told = f"what it may take over can't be read ({why})"
    damage = f"{head.damage}; {told}" if head.damage else told
    return msgspec.structs.replace(head, damage=damage), None


def _readable(rows: Iterable[Sequence[Any]]) -> list[Letter]:
    """Letters up to the first that can't be read: whoever claims the run next finds that one."""
    out: list[Letter] = []
    for number, mail, state in rows:
        try:
            out.append(Letter(number, decode_mail(mail), state == KEPT))
        except UNREADABLE:
            break
    return out


def letters(cx: sqlite3.Connection, run: str, after: int) -> list[Letter]:
    """What lies in an inbox after a letter, up to the first that can't be read."""
    return _readable(_LETTERS.rows(cx, (run, after)))


def newer_letters(cx: sqlite3.Connection, after: Sequence[tuple[str, int]]) -> dict[str, list[Letter]]:
    """What lies in several inboxes and ports after a letter of each. A run's end with the first that can't be read:
    who claims it next finds that one. A port's are read without it, since nobody could do anything about it."""
    out: dict[str, list[Letter]] = {}
    runs = [pair for pair in after if not pair[0].startswith(PORT)]
    rows: dict[str, list[Sequence[Any]]] = {}
    for run, *row in _NEWER.rows(cx, (as_json(runs),)) if runs else ():
        rows.setdefault(run, []).append(row)
    for run, some in rows.items():
        if found := _readable(some):
            out[run] = found
    for port, newest in after:
        if port.startswith(PORT):
            some = [[number, mail, 0] for number, mail in _AT_PORT.rows(cx, (port, newest))]
            if found := [letter for row in some for letter in _readable([row])]:
                out[port] = found
    return out


def get(cx: sqlite3.Connection, run: str) -> Head | None:
    """A run's own record."""
    row = HEAD_BY_ID.row(cx, (run,))
    return as_heads(cx, [row])[0] if row is not None else None


def load(cx: sqlite3.Connection, run: str) -> Claimed | None:
    """A run as a worker would get it."""
    row = cx.execute("select k from runs where id = ? and id > ''", (run,)).fetchone()
    return wakes(cx, [row[0]])[0].claimed if row is not None else None
