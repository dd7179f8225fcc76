"""Questions, and their answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ...model.errors import StoreError
from ...model.message import Mail, Question
from ...model.run import CallRef
from ...ports.store import AnswerResult
from .blobs import contents_of
from .bulk import Query, as_json
from .damage import read_question
from .ledger import Ledger
from .post import Post, post
from .schema import ASK_STATES

#: Of a question: what is read, and what is said of one that can't be.
_QUESTION = (
    "#question",
    "#shown",
    "asks.id",
    "(select r.id from runs r where r.k = asks.run)",
    "recipient",
)
#: Sorted, not found in order: they are few among all that ever were, which would be gone over.
_ASKS = Query(_QUESTION, "from asks where state = 0 order by +k")
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
    return _questions(cx, rows)


def _questions(cx: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> list[Question]:
    """As they were asked. One that can't be read says so."""
    there = contents_of(cx, (row[1] for row in rows))
    return [read_question(*row, there=there) for row in rows]


def asked(cx: sqlite3.Connection, after: int, to: str, limit: int) -> tuple[list[Question], int]:
    """Those that were asked later than that, and from where to go on."""
    rows = list(_ASKED.rows(cx, {"after": after, "to": to, "limit": limit}))
    if len(rows) < limit:  # none is open beyond
        (newest,) = cx.execute("select max(k) from asks").fetchone()
        after = max(newest or 0, after)
    else:
        after = rows[-1][0]
    return _questions(cx, [row[1:] for row in rows]), after


def get_ask(cx: sqlite3.Connection, ask: str) -> tuple[Question, str] | None:
    """A question and its state."""
    row = _TO_ANSWER.rows(cx, (as_json([ask]),))
    return (_questions(cx, [row[0][3:]])[0], ASK_STATES[row[0][2]]) if row else None


def answer(ledger: Ledger, items: Sequence[Reply]) -> list[AnswerResult]:
    """Close questions and send their answers: a bounded number of statements a few hundred of them."""
    rows = _TO_ANSWER.rows(ledger.cx, (as_json(item.ask for item in items),))
    asked = _questions(ledger.cx, [data for _, _, _, *data in rows])
    found = {row[0]: (row[1], question) for row, question in zip(rows, asked, strict=True)}
    closed = {row[0] for row in rows if row[2] != 0}
    out: list[AnswerResult] = []
    answered: list[int] = []
    letters: list[Post] = []
    for item in items:
        if item.ask not in found:
            out.append("unknown")
            continue
        if item.ask in closed:
            out.append("closed")
            continue
        k, question = found[item.ask]
        if question.n < 0:
            raise StoreError(ledger.address, f"question {item.ask!r} can't be answered", question.question)
        closed.add(item.ask)  # for those that come after it
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
