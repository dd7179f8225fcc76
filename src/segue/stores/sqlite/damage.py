"""Records that can't be read: what is set aside, so that all others go on, and what is said of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import msgspec

from ...model.entry import Failure
from ...model.errors import UNREADABLE, Damaged
from ...model.lane import BatchJob
from ...model.message import DeadLetter, Mail, Question
from ...model.run import Spec
from .blobs import read_content

_decode_job = msgspec.msgpack.Decoder(BatchJob).decode
_decode_question = msgspec.msgpack.Decoder(Question).decode


class Unread(msgspec.Struct, frozen=True, gc=False):
    """A letter that can't be read, by its key, and why."""

    k: int
    data: bytes
    problem: str


def stand_in(run: str, updated: float) -> Spec:
    """For a record that can't be read: all that its id tells, and when it was there."""
    job, _, name = run.rpartition("/")
    row = int(name) if job and name.isdecimal() else -1
    return Spec("flow", "?", b"[[],{}]", job=job, key=name if job else "", index=row, created=updated)


def lost_result(run: str) -> Failure:
    """Instead of a result that is missing: what a run that is done gave isn't known, so it counts as failed."""
    what = f"the result of run {run!r}", "it is missing"
    return Failure(
        f"{Damaged.__module__}:{Damaged.__qualname__}", str(Damaged(*what)), msgspec.json.encode(what)
    )


def dead_letter(run: str, letter: Unread, now: float) -> DeadLetter:
    """A letter that can't be read, as mail that nobody took; its bytes are kept, in base64."""
    mail = Mail(run, "?", 0, "tell", "?", msgspec.json.encode(letter.data), at=now)
    return DeadLetter(mail, f"it can't be read ({letter.problem}): the file is damaged", at=now)


def read_job(data: bytes, id: str, lane: str) -> BatchJob:
    """A provider's job; of one that can't be read, what is known of it, `unread`."""
    try:
        return _decode_job(data)
    except UNREADABLE as problem:
        return BatchJob(id, lane, id, "unread", 0, 0.0, seen="unread", error=str(problem))


def read_question(
    data: bytes, shown: bytes | None, id: str, run: str, to: str, *, there: Mapping[bytes, bytes]
) -> Question:
    """A question; one that can't be read says so. `shown`: what stands for what it shows, if that is large."""
    try:
        question = _decode_question(data)
        return (
            question if shown is None else msgspec.structs.replace(question, show=read_content(shown, there))
        )
    except UNREADABLE as problem:
        return Question(
            id,
            run,
            "",
            -1,
            f"this question can't be read ({problem}): the file is damaged there; restore a backup, or cancel the run",
            to=to,
        )


def reason(run: str, damage: str, unread: Sequence[Unread]) -> str:
    """Why a run is held of which something can't be read, and the cure."""
    resume = f"`segue resume {shlex.quote(run)}`"
    if damage:
        return (
            f"{damage}: a newer segue wrote it, or the store is damaged there\n"
            f"upgrade segue here, or restore a backup; then {resume}"
        )
    return (
        f"mail to it can't be read ({unread[0].problem}): the store is damaged there\n"
        f"{resume} goes on without it (`segue dead {shlex.quote(run)}` lists it); if a call waits for what it said, "
        f"`segue fork {shlex.quote(run)}` makes that call anew"
    )
