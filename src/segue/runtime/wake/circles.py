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
    asked = [call.request for call in asking if isinstance(call.request, Wait)]
    refused: list[Letter] = []
    for letter in posts:
        circle = next((found for wait in asked if (found := _circle(run.id, wait, letter))), ())
        if circle:
            refused.append(letter)
            _answer(run, letter, circle)
    return refused


def _circle(me: str, asked: Wait, letter: Letter) -> tuple[str, ...]:
    """Who waits for whom, if that request's caller waits for me and whom I asked waits for that caller's; else nobody.

    Where the caller itself was asked, it sees my request as I see its own: one of us refuses. That is who is only to
    say that mail was taken, which harms nobody; of two alike, the one whose id comes first.
    """
    mail, to = letter.mail, asked.to
    if mail.kind != "request" or not to or to not in mail.callers:
        return ()
    if mail.until or (asked.due and mail.name != CAUGHT_UP):  # whoever asked for a time has it
        return ()
    if mail.sender == to and (mail.name != CAUGHT_UP, me) > (asked.name != CAUGHT_UP, to):
        return ()
    circle = mail.callers[mail.callers.index(to) :]
    return circle if circle[-1] == mail.sender else (*circle, mail.sender)  # who forwards doesn't wait itself


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
