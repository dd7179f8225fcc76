"""What runs are told: mail, requests and the outcomes of the calls they wait for; what nobody took."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from .entry import Failure
from .run import CHILD, CallRef, Usage

#: `result` closes a call (a batch line, an answer, a child's end); `event` is a subscription's. What code takes one
#: by one is told or requested; `urgent` messages come before those. The rest is for the engine, which looks at it
#: whatever else waits.
MailKind = Literal[
    "tell",
    "request",
    "urgent",
    "result",
    "event",
    "subscribe",
    "unsubscribe",
    "unschedule",
    "settled",
    "ping",
    "cancel",
    "resume",
]
#: How the address of a process begins, which takes mail as a run does: a worker's name follows. See `Store.letters`.
PORT: Final = "segue@"
#: The name under which the end of a supervised run comes to its parent.
CHILD_ENDED: Final = "ChildEnded"
#: The name under which an actor is asked to end.
ASKED_TO_END: Final = "Interruption"
#: The name of a request that is answered, whatever the code, once what the same sender sent before it was taken.
CAUGHT_UP: Final = "segue.caught-up"
#: Mail of a run is numbered by its fence and, in so many bits, how many it has sent under that claim. An actor that is
#: never idle keeps its claim: some billions must fit, while the fence grows with each wake of it.
SENT_BITS: Final = 32
#: What takes room in a bounded mailbox.
MESSAGES: Final = frozenset({"tell", "request"})


class Mail(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A message to one run. Delivered once for each `(to, sender, number)`, in order per sender.

    Of a `result`, `call` is the waiting call and `value` or `error` its outcome. Of the rest, `name` is
    the message's type and `value` its JSON. `reply` is the call that waits for a request's answer; where it is
    `forwarded`, the answer goes to `reply.run` as a message, with `tag`. `callers` are the runs that wait for one
    another up to this request.

    `due`: not before then, in seconds since the epoch. `every`: again so many seconds after, until unscheduled.
    Of the mail of one `key` in an inbox, the latest counts. `since`: of a repetition, the letter up to which its run
    had read when it said so: what came after that is later, though its `id` be lower. `used`: what was paid for a
    result, which counts where nobody takes it. `until`: of a request, when its caller stops waiting, if it does.
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
    due: float = 0.0
    every: float = 0.0
    key: str = ""
    tag: str = ""
    forwarded: bool = False
    since: int = 0
    used: Usage | None = None
    until: float = 0.0


class Letter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Mail in an inbox. `id` grows with the order of arrival in this inbox.

    `kept`: it was handled, and stays until it is answered (a request) or called off (a subscription).
    """

    id: int
    mail: Mail
    kept: bool = False


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """Mail that no code took, and why; `id` is 0 until it is stored, `at` when that was, since the epoch."""

    mail: Mail
    reason: str
    error: Failure | None = None
    at: float = 0.0
    id: int = 0


class Answered(msgspec.Struct, frozen=True):
    """The answer to a forwarded request, as it travels."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None
    tag: str = ""


def answer_to(
    request: Mail, sender: str, number: int, value: bytes | None, error: Failure | None, at: float
) -> Mail | None:
    """What a request's caller gets; None for mail that wants no answer."""
    reply = request.reply
    if reply is None:
        return None
    if not request.forwarded:
        return Mail(reply.run, sender, number, "result", "", value, error, call=reply, at=at)
    wire = msgspec.json.encode(Answered(msgspec.Raw(value or b"null"), error, request.tag))
    name = response_name(request.name)
    return Mail(reply.run, sender, number, "tell", name, wire, callers=request.callers, at=at)


def is_answer(mail: Mail) -> bool:
    """Whether it answers a request that a run's code made."""
    return mail.kind == "result" and mail.call is not None and mail.call.digest not in (b"", CHILD)


def response_name(request: str) -> str:
    """The name of the message that carries the answer to a forwarded request."""
    return f"Response[{request}]"


class Question(msgspec.Struct, frozen=True, gc=False):
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
