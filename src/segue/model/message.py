"""What runs are told: mail, requests and the outcomes of the calls they wait for."""

from __future__ import annotations

from typing import Literal

import msgspec

from .entry import Failure
from .run import CallRef

#: `result` closes a call (a batch line, an answer, a child's end); `cancel` and `resume` are for the engine.
MailKind = Literal["tell", "request", "result", "cancel", "resume"]


class Mail(msgspec.Struct, frozen=True):
    """A message to one run. Delivered once for each `(to, sender, number)`, in order per sender.

    Of a `result`, `call` is the waiting call and `value` or `error` its outcome. Of the rest, `name` is
    the message's type and `value` its JSON. `reply` is the call that waits for a request's answer;
    `callers` the runs that wait for one another up to this request.
    """

    to: str
    sender: str
    number: int
    kind: MailKind
    name: str = ""
    value: bytes | None = None
    error: Failure | None = None
    call: CallRef | None = None
    reply: CallRef | None = None
    callers: tuple[str, ...] = ()
    at: float = 0.0


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """Mail in an inbox. `id` grows with the order of arrival in this inbox."""

    id: int
    mail: Mail


class Question(msgspec.Struct, frozen=True):
    """An open ask, as the store lists it. `schema` is the JSON schema of the answer, `show` any JSON."""

    id: str
    run: str
    path: str
    n: int
    question: str
    show: bytes = b"null"
    schema: bytes = b"{}"
    to: str = ""
    created: float = 0.0
    deadline: float = 0.0
