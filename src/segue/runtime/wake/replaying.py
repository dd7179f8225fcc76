"""At rest with history left: what a wake does next, and how the code is told that it isn't the one recorded."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from ...authoring.context import Act, Wait, Work
from ...authoring.failures import to_failure
from ...core import journal
from ...model.entry import Entry
from ...model.errors import ReplayMismatch
from ...model.run import REUSED, Head
from ..calls.call import STRIKE, Outcome, decode, deliver
from ..ground import tasks
from ..ground.phase import LIVE

if TYPE_CHECKING:
    from .executor import Executor

#: A line of a trace that says where, as in `  app.py:7, in letter`.
_PLACE = re.compile(r"^  \S.*:\d+, in ")


def replay(run: Executor) -> None:
    """Hand over the next recorded batch, or see what is new start."""
    batch = run.replay.next_batch()
    if batch is not None:
        if run.streaming is not None:
            run.streaming.handed_over([])
        for entry in batch:
            call = run.open.pop((entry.path, entry.n), None)
            if call is None or call.done():
                continue
            if isinstance(call.request, Wait) and call.request.joins is not None:
                run.mailbox.has_ended(call.request.joins, entry.value, entry.error)
            deliver(decode(Outcome(call, entry.value, entry.error, lane=REUSED if entry.reused else "")))
        run.kick()
    elif run.stop_by is not None:
        run.leave("ready")
    elif run.still.foreign_since is None or run.replay.used_up or run.still.lingered(60):
        settle(run)


def settle(run: Executor) -> None:
    """The history is used up. What it demands must have been made; then what is new may start."""
    if not run.replay.used_up:
        lacking = run.replay.lacking(run.made)
        strike = next((entry for entry in lacking if entry.path == STRIKE), None)
        if strike is not None and strike.after <= run.replay.handed and run.strikes.strike_again(strike):
            return
        if lacking and (bounded := tasks.next_bounded(run.tasks)) is not None:
            bounded.strike()  # it went off in that life too, or the code had not come further
            run.kick()
            return
        if lacking:
            over = run.root is None or run.root.done()
            if over or run.still.stuck(run.tasks):  # else a callback or a thread may wake the code
                run.differs(mismatch(run.id, lacking[0], None, _end(run)))
            return
    if run.hold_if_cut_off():
        return
    run.phase, run.claimed = LIVE, None
    held, run.held = run.held, []
    for call in held:
        if not call.done():
            run.start(call)
    run.kick()


def _end(run: Executor) -> str:
    """What the code came to, in words: an error in front of a recorded call is what its author has to know."""
    root = run.root
    if root is None or not root.done() or root.cancelled():
        return "came to rest"
    error = root.exception()
    if error is None:
        return "ended"
    failure = to_failure(error)
    places = [line.strip() for line in failure.trace.splitlines() if _PLACE.match(line)]
    where = f" ({places[-1]})" if places else ""
    return f"raised {failure.type.rpartition(':')[2]}: {failure.message}{where}"


def mismatch(
    run: str, entry: Entry, request: Work | Wait | Act | None, end: str = "came to rest"
) -> ReplayMismatch:
    """A recorded call and what the code asks for in its place, if anything; else what it came to without."""
    recorded = f"{entry.kind} {entry.name!r}"
    if request is None:
        what = "making" if entry.given_up < 0 else "making, or giving up,"
        why = f"The code {end} without {what} this recorded call again."
        return ReplayMismatch(run, entry.path, entry.n, recorded, "not made", why)
    asked = f"{request.kind} {request.name!r}"
    why = journal.difference(entry.args, request.args) if recorded == asked else "It is another call."
    return ReplayMismatch(run, entry.path, entry.n, recorded, asked, why)


def cut_off(run: str, step: str) -> str:
    """Why a run is held whose code waits for an at-most-once step that was begun and has no outcome."""
    return (
        f"the at-most-once step {step!r} was cut off: it may have happened.\n"
        f"Look, then `segue resume {shlex.quote(run)} --rerun` to do it (again), or `--value JSON` in place of "
        f"`--rerun` to say what came of it."
    )


def is_cut_off(head: Head) -> bool:
    """Whether a run is held for that."""
    cause = head.cause
    return head.status == "held" and cause.startswith("the at-most-once step") and "was cut off" in cause
