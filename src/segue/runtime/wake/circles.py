"""Actors that ask each other at the same moment, each in a handler of its own: one of the two is refused.

A request that is made when its handler knows who waits for it is refused where it is made. Here neither knew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...authoring.context import Wait
from ...authoring.failures import to_failure
from ...model.errors import Deadlock
from ...model.message import CAUGHT_UP, Letter, answer_to
from ..calls.call import Call

if TYPE_CHECKING:
    from .executor import Executor


def refuse(run: Executor, posts: Iterable[Letter], asking: Iterable[Call]) -> list[Letter]:
    """Answer the requests among an actor's mail that it can't come to before the answers that it waits for; which."""
    asked = [
        call.request.to
        for call in asking
        if isinstance(call.request, Wait) and call.request.to and not call.request.due
    ]
    refused: list[Letter] = []
    for letter in posts:
        circle = next((found for to in asked if (found := _circle(run.id, to, letter))), ())
        if circle:
            refused.append(letter)
            _answer(run, letter, circle)
    return refused


def _circle(me: str, asked: str, letter: Letter) -> tuple[str, ...]:
    """Who waits for whom, if that request's caller waits for me and whom I asked waits for that caller's; else nobody.

    Where the caller itself was asked, it sees my request as I see its own: the one whose id comes first refuses.
    """
    mail = letter.mail
    if mail.kind != "request" or asked not in mail.callers:
        return ()
    circle = mail.callers[mail.callers.index(asked) :]
    return circle if len(circle) > 1 or me < asked else ()


def _answer(run: Executor, letter: Letter, circle: tuple[str, ...]) -> None:
    """Its caller waits no longer. Who only wants to know that its mail was taken goes on."""
    mail, failure = letter.mail, None
    if mail.name != CAUGHT_UP:
        chain = " → ".join((run.id, *circle, run.id))
        failure = to_failure(
            Deadlock(f"run {circle[-1]!r} asks {run.id!r}, which waits for it: {chain}, each asked by itself")
        )
    answer = answer_to(mail, run.id, run.next_number(), b"null", failure, run.host.clock_now())
    if answer is not None:
        run.commits.send(answer)
