"""How a wake ends: the code is unwound, then the last turn is written. So no two lives ever run at once.

The ways out of memory; `Executor.is_gone` is told when nothing of the run is left here.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Task
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...authoring.failures import to_failure
from ...authoring.flow import target_named
from ...authoring.stream import IN_HAND
from ...model.entry import Failure
from ...model.errors import RunInterrupted
from ...model.run import Head, Status
from ...ports.store import Turn
from ..calls.call import end_error
from ..calls.trying import key_refused
from ..ground import tasks
from ..ground.events import Finished

if TYPE_CHECKING:
    from .executor import Executor

log = logging.getLogger("segue")

#: Tasks of a run that leaves memory are waited for in so many rounds, each twice as long as the one before, from 5 ms.
#: They get that many of them to clean up, in their `finally` say, before they are cancelled once more.
ROUNDS, PATIENT = 8, 6
#: A run that waits for another one stays in memory for so many seconds at least, for most answers come soon.
ANSWER = 0.05
#: A run that has made so many calls stays in memory for the next end of a child, where others leave room and where they
#: don't, for so many seconds a call and at most so many times `linger`.
SOME, LONG, STAY, MOST_LINGERS = 16, 1000, 0.001, 5
#: An actor whose fields are so many bytes stays for its next message, for so many seconds a byte.
LARGE, STAY_BYTE = 8192, 1e-6
#: A run before which so many letters lie stays for the next one, for so many seconds a letter: each wake reads all.
HEAP, STAY_LETTER = 100, 2e-4
#: Of which flow and where was told already that it bounds a wait by what doesn't survive it.
_BOUNDED: set[tuple[str, str]] = set()
#: Of which flow, what and where was told already that it was left behind.
_LEFT: set[tuple[str, str, str]] = set()


def idle(run: Executor) -> None:
    """Nothing is under way: wait for a short timer, or park."""
    if run.purse is not None and run.purse.lacks:
        run.purse.rest()
        return
    if run.cut_off and run.hold_if_cut_off():
        return
    if not run.open:
        # What was done before that wait doesn't wait for it.
        if run.handling is not None and run.handling.unwritten:
            run.handling.flush()
            return
        if run.commits.owes:
            run.commit_soon()
            return
        if run.still.foreign_since is None and _next_bound(run) is None and run.still.stuck(run.tasks):
            run.hold(
                "every task of the run waits for another one and nothing outside can wake it: "
                "a lock, queue or future that nobody releases. "
                "Wait in a step for one that a thread or a callback releases"
            )
        return  # a foreign wait, or a lock or queue that is waited for a while only
    stay = _stay(run)
    if stay is not None and run.handling is not None and run.handling.unwritten:
        run.handling.flush()
        return
    if run.commits.owes and (run.handling is None or not run.handling.unwritten):
        run.commit_soon()
        return
    if stay is None and run.handling is not None and run.handling.rests():
        return
    if stay is None:
        stay = _stay_bounded(run)
    if stay is not None:
        if run.nap is not None:
            run.nap.cancel()
        later, left = stay
        run.nap = later(left, run.end_nap)
        return
    if run.still.foreign_since is not None:
        log.warning(
            "run %s parks although its code waits at %s, outside segue: that wait starts anew at the next "
            "wake. Make it a step, or use segue.sleep()",
            run.id,
            run.still.foreign_at,
        )
    run.leave("parked")


def _next_bound(run: Executor) -> tuple[float, Task[Any]] | None:
    """When the first of asyncio's own timeouts ends a wait of the code, by the loop's clock, and which task waits."""
    bounded = tasks.next_bounded(run.tasks)
    found = (
        None if run.timeouts is None else run.timeouts.next(),
        None if bounded is None else (bounded.timer.when(), bounded.task),
    )
    return min((one for one in found if one is not None), key=lambda one: one[0], default=None)


def _stay_bounded(run: Executor) -> tuple[Callable[..., Any], float] | None:
    """For how long a run stays for one of asyncio's own timeouts; one that is far off doesn't keep it."""
    bound = None if run.host.park_always or run.crowded else _next_bound(run)
    if bound is None:
        return None
    when, task = bound
    left = when - run.loop.time()
    if left <= run.host.linger:
        return run.loop.call_later, max(left, 0.0)
    target, place = run.head.spec.target, tasks.authors_line(task)
    if (target, place) not in _BOUNDED:
        _BOUNDED.add((target, place))
        log.warning(
            "run %s parks although its code bounds a wait by asyncio's own timeout, at %s: its time begins anew at "
            "each wake, and nothing wakes the run for it. Use segue.timeout(), or the call's own timeout=. Said once",
            run.id,
            place or "an unknown place",
        )
    return None


def _stay(run: Executor) -> tuple[Callable[..., Any], float] | None:
    """For how many seconds more a run that waits stays here, and by whose clock; None if it needn't."""
    if run.crowded:
        return None
    due = None if run.box is None else run.box.next_due
    if due is not None:
        left = due - run.host.clock_now()
        if left <= run.host.linger:
            return run.host.call_later, max(left, 0.0)
    longest, mark = _patience(run)
    if longest <= 0.0:
        return None
    now = run.loop.time()
    if run.stay is None or run.stay[0] != mark:
        run.stay = mark, now + min(longest, MOST_LINGERS * run.host.linger)
    left = run.stay[1] - now
    return (run.loop.call_later, left) if left > 0 else None


def _patience(run: Executor) -> tuple[float, int]:
    """For how many seconds a run stays that takes long to wake, and a number that says whether it has gone on.

    One with a long history waits so for children and for people's answers, which may come one by one, for answers of
    other runs and for mail, a large actor for messages, and one before which much mail lies, such as timers, for what
    comes next: each that finds it parked would have it replayed or loaded.
    It stays for as long as some of those would take, so that replays are a small part of the time, however many calls
    there are.
    """
    replay, actor = run.replay, run.handling
    calls = len(replay.calls) + replay.handed + len(run.open)
    if run.host.park_always:
        return 0.0, 0
    box = run.box
    if box is not None and calls >= (SOME if run.host.is_roomy else LONG) and box.waits("child", "ask"):
        return calls * STAY, replay.handed
    if box is not None and run.host.is_roomy:
        heap = box.lying * STAY_LETTER if box.lying >= HEAP else 0.0
        if box.waits("request"):
            return max(ANSWER, calls * STAY, heap), replay.handed + run.seen
        if box.waits("receive"):
            return max(calls * STAY, heap), replay.handed + run.seen
        if heap:
            return heap, run.seen
    if actor is not None and actor.weight >= LARGE:
        return actor.weight * STAY_BYTE, actor.saves
    return 0.0, 0


def _raised(root: Task[Any]) -> BaseException | None:
    """What the code ended with: a cancellation that nobody asked for is an error like another."""
    try:
        return root.exception()
    except asyncio.CancelledError as error:
        return error


# ------------------------------------------------------------ unwinding
def unwind(run: Executor, then: Callable[[], None]) -> None:
    """Cancel all tasks, and go on when they are gone; some may need several rounds.

    Where they are being cancelled already, say of a run that leaves and turns out to be another worker's, the last word
    counts.
    """
    if run.over:
        return
    if run.unwinding is not None:
        run.afterwards = then
        return
    for task in list(run.carrying.local):
        task.cancel()
    for task in list(run.tasks):
        if not task.done():
            task.cancel("the run leaves memory")
    if _alive(run):
        run.afterwards = then
        run.unwinding = Task(_unwound(run), loop=run.loop, context=tasks.NO_CONTEXT.copy())
    else:
        then()


def _alive(run: Executor) -> list[Task[Any]]:
    """The tasks of the code, and those that carry out its calls, which haven't ended."""
    return [task for task in (*run.tasks, *run.carrying.local) if not task.done()]


async def _unwound(run: Executor) -> None:
    for attempt in range(ROUNDS):
        left = _alive(run)
        if not left:
            break
        await asyncio.wait(left, timeout=0.005 * 2**attempt)
        if attempt >= PATIENT:
            for task in left:
                task.cancel("the run leaves memory")
    left = _alive(run)
    for task in left:
        tasks.let_go(task)
    if left:
        log.error(
            "run %s: a task refuses to be cancelled, at %s; let asyncio.CancelledError pass",
            run.id,
            tasks.where(left[0]),
        )
    then, run.unwinding = run.afterwards, None
    del run.afterwards
    then()


# ------------------------------------------------------------ giving the claim up
def leave(run: Executor, status: Status, *, awaited: bool) -> None:
    """The run goes on in a later life."""
    wake = None if run.box is None else run.box.wake_at()
    if run.handling is not None and not awaited:
        run.handling.close()
    unwind(run, lambda: run.commits.afterwards(lambda: _release(run, status, wake)))


def _release(run: Executor, status: Status, wake: float | None) -> None:
    turn = _take_all(run)
    turn.status, turn.release, turn.wake = status, True, wake if status == "parked" else None
    run.status, run.due = status, turn.wake is not None
    run.write(turn, run.is_gone)


def _take_all(run: Executor, *, last: bool = False) -> Turn:
    """All that was done. Of what was to start after this commit, not even that it was made is written."""
    if run.carrying.precommit:
        unstarted = {call.place for call in run.carrying.precommit}
        entries = run.commits.entries
        run.commits.entries = [entry for entry in entries if (entry.path, entry.n) not in unstarted]
    if last and run.pool is not None:
        run.mailbox.lose_results()
    done, run.done = run.done, []
    return run.commits.take(done, last=last)


# ------------------------------------------------------------ the run's end
def end(run: Executor, root: Task[Any]) -> None:
    """The code came to its end; its outcome is the run's."""
    status: Status = "done"
    value: bytes | None = None
    failure: Failure | None = None
    if root.cancelled() and (run.handling is not None or root.cancelling()):
        status = "cancelled"
        failure = end_error(run.id, status, None)
    elif (error := _raised(root)) is not None:
        if isinstance(error, KeyboardInterrupt):
            if run.commits.ahead:
                run.commits.catch_up(lambda: run.abandon(error))
            else:
                run.abandon(error)
            return
        if run.head.spec.job and (reason := key_refused(run.id, error)):
            unwind(run, lambda: run.commits.afterwards(lambda: _held(run, reason, False)))
            return
        status = "cancelled" if isinstance(error, RunInterrupted) else "failed"
        failure = to_failure(error)
    else:
        value = root.result()
        if len(run.tasks) > 1:
            _tell_left(run)
    ended(run, status, value, failure)


def ended(run: Executor, status: Status, value: bytes | None, failure: Failure | None = None) -> None:
    """Write what the code came to, when nothing of it is left."""
    if (run.tasks or run.carrying.local) and _alive(run):
        unwind(run, lambda: _finish(run, status, value, failure))
    else:
        _finish(run, status, value, failure)


def _tell_left(run: Executor) -> None:
    """Say which branches the code left behind when it returned: what they do is dropped."""
    head = run.head
    flow = target_named(head.spec.target, head.spec.module)
    code = getattr(getattr(flow, "fn", None), "__code__", None)
    for task in run.tasks:
        if task.done() or task.get_name() == IN_HAND:
            continue
        coro: Any = task.get_coro()
        what = getattr(coro, "__qualname__", type(coro).__name__).replace("<locals>.", "")
        place = tasks.authors_line(task) or (f"{code.co_filename}:{code.co_firstlineno}" if code else "")
        if (head.spec.target, what, place) not in _LEFT:
            _LEFT.add((head.spec.target, what, place))
            log.warning(
                "flow %s returned (run %s) while a task that it made was unfinished, %s() at %s: what it had yet "
                "to do is dropped. Await the task, or an asyncio.TaskGroup around it; cancel() it where it isn't "
                "wanted; segue.spawn() is for what goes on by itself",
                head.spec.target,
                head.id,
                what,
                place or "an unknown place",
            )


def _finish(run: Executor, status: Status, value: bytes | None, failure: Failure | None) -> None:
    turn = _take_all(run, last=True)
    turn.status, turn.release, turn.value, turn.error = status, True, value, failure
    _finish_with(run, turn)


def hold(run: Executor, reason: str, *, replaying: bool) -> None:
    """Stop here; a person decides how the run goes on. What was done stays done."""

    def write() -> None:
        run.commits.afterwards(lambda: _held(run, reason, replaying))

    run.loop.call_soon(lambda: unwind(run, write), context=tasks.NO_CONTEXT)


def _held(run: Executor, reason: str, replaying: bool) -> None:
    if replaying:
        turn = Turn(run=run.id, fence=run.fence, seen=run.seen, now=run.host.clock_now())
    else:
        turn = _take_all(run)
    turn.status, turn.release, turn.reason = "held", True, reason
    if run.box is not None and run.box.cancelled:
        turn.status = "cancelled"  # nobody wants to decide any more
        turn.error = end_error(run.id, turn.status, None)
    _finish_with(run, turn)


def _finish_with(run: Executor, turn: Turn) -> None:
    """Write the turn that ends or holds the run, and tell those who watch once it is durable."""
    run.status = turn.status
    head = run.head
    run.head = Head(
        head.id,
        head.spec,
        turn.status,
        head.fence,
        head.wake,
        turn.reason,
        turn.value,
        turn.error,
        run.commits.usage,
        head.finished,
        turn.now,
    )
    run.write(turn, lambda: _finished(run))


def _finished(run: Executor) -> None:
    head = run.head
    if run.host.watchers and run.status == head.status and run.host.wants_events(run.id):
        run.host.publish(
            run.id,
            Finished(run=run.id, status=head.status, value=head.value, error=head.error, reason=head.reason),
        )
    run.is_gone()


# ------------------------------------------------------------ without a word
def abandon(run: Executor) -> None:
    """Another worker has the run, or the store failed: nothing is written."""
    unwind(run, run.is_gone)
