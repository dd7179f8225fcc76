"""Questions to a person or a program outside."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import msgspec

from ..core.codec import decoder, digest, encode, encode_stable
from ..core.homes import ELSEWHERE
from ..core.memo import memoized
from ..core.replay import Place
from ..core.schema import schema
from ..model.checks import moment, text
from ..model.entry import Failure
from ..model.errors import InvalidValue
from ..model.message import Question
from ..ports.store import Turn, adding
from .context import Branch, RunContext, Wait, current, opening
from .time import overdue

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")
_UNSET: Any = object()


def ask_id(run: str, opened: Place) -> str:
    """The id of the question that a call asks: `run:2`, or `run:2.1` if that was after it had been resumed once."""
    path, number = opened
    life, n = divmod(number, ELSEWHERE)
    return f"{run}{path}:{n}.{life}" if life else f"{run}{path}:{n}"


@overload
async def ask(
    question: str, /, *, show: object = ..., to: str = ..., timeout: timedelta = ..., default: str = ...
) -> str: ...
@overload
async def ask(
    question: str,
    /,
    *,
    returns: TypeForm[T],
    show: object = ...,
    to: str = ...,
    timeout: timedelta = ...,
    default: T = ...,
) -> T: ...
async def ask(
    question: str,
    /,
    *,
    returns: Any = str,
    show: object = None,
    to: str = "",
    timeout: timedelta | None = None,
    default: Any = _UNSET,
) -> Any:
    """Ask a person or a program outside, and wait for as long as it takes: the run costs a row meanwhile.

    The answer is of the type `returns`. `show` goes with the question; `to` says who is asked. After
    `timeout` the answer is `default`, or `TimeoutError` is raised where there is none.
    """
    branch = current("ask")
    return await put(branch, question, returns, show=show, to=to, timeout=timeout, default=default)


@memoized
def form_of(returns: Any) -> dict[str, Any]:
    """The schema of an answer, made once for each type; not to be changed."""
    return schema(returns)


def put(
    branch: Branch,
    question: str,
    returns: Any,
    *,
    show: object = None,
    to: str = "",
    timeout: timedelta | None = None,
    default: Any = _UNSET,
    form: dict[str, Any] | None = None,
) -> Any:
    """The recorded call behind `ask`. `form`: the schema of the answer, where it is narrower than that of `returns`."""
    run = branch.run
    text("the question of ask()", question)
    text("to of ask()", to)
    form = form_of(returns) if form is None else form
    args = encode_stable(
        {"question": question, "show": show, "to": to, "schema": form}, where="what ask() shows"
    )
    late: bytes | Failure = overdue(f"the question {question!r}")
    if default is not _UNSET:
        if timeout is None:
            raise InvalidValue(
                "default of ask()",
                "a timeout beside it, after which it is the answer",
                "there is none",
                repr(default),
            )
        late = encode(default, where="the default answer")
    due = moment(timeout, "timeout of ask()", run.now())
    check = digest(args)
    opened = opening(branch, "ask", "ask", check, args)
    asked = _Asked(run, opened, question, encode(show), form, to, due)
    wait = Wait(
        kind="ask",
        name="ask",
        args=args,
        digest=check,
        decode=decoder(returns, "the answer to ask()"),
        opens=asked.opens,
        drops=asked.drops,
        opened=opened,
        due=due,
        late=late,
    )
    return run.record(branch, wait)


class _Asked(NamedTuple):
    """A question on its way into a turn."""

    run: RunContext
    opened: Place
    question: str
    show: bytes
    form: dict[str, Any]
    to: str
    due: float

    def opens(self, turn: Turn) -> None:
        asked = Question(
            id=ask_id(self.run.id, self.opened),
            run=self.run.id,
            path=self.opened[0],
            n=self.opened[1],
            question=self.question,
            show=self.show,
            schema=msgspec.json.encode(self.form),
            to=self.to,
            created=self.run.now(),
            deadline=self.due,
        )
        turn.asks = adding(turn.asks, asked)

    def drops(self, turn: Turn) -> None:
        turn.closed_asks = adding(turn.closed_asks, ask_id(self.run.id, self.opened))
