"""What becomes of mail that its recipient doesn't take, alike in every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from ..model.entry import Failure
from ..model.errors import CallerError, MailboxFull, RunEnded, UnknownName
from ..model.message import ASKED_TO_END, CAUGHT_UP, MESSAGES, DeadLetter, Mail, answer_to, is_answer
from ..model.run import Spec

#: Ways of a full mailbox.
FULL: Final = ("wait", "drop", "fail")


class Refused(NamedTuple):
    """Dead letters to be stored, and mail to be sent, each once."""

    dead: list[DeadLetter]
    back: list[Mail]


def ended(mail: Sequence[Mail], run: str, status: str, now: float) -> Refused:
    """Mail that came after a run had ended."""
    later = status != "done"  # what may go on is to find its timers again
    failure = _failure(RunEnded(run, status), [run, status])
    return _refuse(mail, failure, f"the run had ended ({status})", now, later=later)


def left(mail: Sequence[Mail], run: str, status: str, now: float) -> Refused:
    """Mail that a run left when it ended, in order. Who only asks whether it has taken all is told so, where it has."""
    if status != "done":
        return ended(mail, run, status, now)
    others, answers, untaken = list[Mail](), list[Mail](), set[str]()
    for one in mail:
        if one.name == CAUGHT_UP and one.sender not in untaken:
            answer = answer_to(one, f"run:{run}", 0, b"null", None, now)
            answers.extend([answer] if answer is not None else [])
        else:
            others.append(one)
            if one.reply is None and one.due <= now:
                untaken.add(one.sender)
    refused = ended(others, run, status, now)
    return Refused(refused.dead, answers + refused.back)


def is_kept(mail: Mail, status: str) -> bool:
    """Whether a run that is over keeps mail: what it has asked others, it doesn't ask again when it goes on."""
    return status in ("failed", "cancelled") and is_answer(mail)


def unknown(mail: Sequence[Mail], run: str, now: float) -> Refused:
    """Mail to a run that isn't there."""
    cure = "`segue runs` lists those that are there"
    failure = _failure(UnknownName("run", run, cure), ["run", run, cure])
    return _refuse(mail, failure, "there is no such run", now)


def full(mail: Mail, size: int, now: float) -> Refused:
    """A message that a full mailbox has no room for."""
    failure = _failure(MailboxFull(mail.to, size), [mail.to, size])
    return _refuse([mail], failure, f"the mailbox was full ({size} messages)", now, later=True)


def takes_room(mail: Mail, full: str) -> bool:
    """Whether a bounded mailbox of that way counts it. What a run sends itself, its timers too, it always gets.

    Who asks how far a mailbox has been taken waits behind what waits for room; where nothing does, it always gets that.
    """
    if mail.name == CAUGHT_UP and full != "wait":
        return False
    return mail.kind in MESSAGES and mail.sender != mail.to


def wakes_at(mail: Mail, now: float) -> float:
    """When mail wakes a parked run whose mailbox has no bound: 0 for at once."""
    return mail.due if mail.due > now and mail.kind in ("tell", "urgent") else 0.0


def bound_of(spec: Spec) -> int:
    """A mailbox's size and way as one number; 0 where it has no bound."""
    return spec.mailbox * 4 + FULL.index(spec.full) if spec.mailbox > 0 else 0


def _refuse(
    mail: Sequence[Mail], failure: Failure, reason: str, now: float, *, later: bool = False
) -> Refused:
    """`later`: of messages, what is scheduled is a dead letter too, as it is."""
    refused = Refused([], [])
    for one in mail:
        source = f"run:{one.to}"
        if one.kind == "event":  # its subscriber is gone
            refused.back.append(Mail(one.sender, source, 0, "unsubscribe", key=one.key, at=now))
        elif one.name == ASKED_TO_END:  # it has
            continue
        elif one.kind == "tell" and (later or (not one.every and one.due <= now)):
            alone = msgspec.structs.replace(one, since=0) if one.since else one  # sent again, it is told anew
            refused.dead.append(DeadLetter(alone, reason, failure, now))
        elif one.reply is not None:
            answer = answer_to(one, source, 0, None, failure, now)
            refused.back.extend([answer] if answer is not None else [])
            if one.kind == "subscribe" and one.tag:  # in force or not yet: its events end
                how = msgspec.json.encode(failure)
                end = Mail(one.reply.run, source, 0, "event", f"{one.tag}.end", how, at=now, key=one.key)
                refused.back.append(end)
    return refused


def _failure(error: CallerError, args: list[object]) -> Failure:
    cls = type(error)
    return Failure(f"{cls.__module__}:{cls.__qualname__}", str(error), msgspec.json.encode(args))
