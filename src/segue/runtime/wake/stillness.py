"""Whether the tasks of a run are at rest.

At rest, every task waits for a recorded call, or for a lock, queue or task behind which another one waits.
A wait for anything else, such as a raw sleep, a socket or a thread, is foreign: it is lingered for.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Task, TimerHandle
from collections.abc import Callable, Iterable
from typing import Any, Literal

from ...authoring.context import BranchTask
from ..calls.call import Call
from ..ground import tasks

Rest = Literal["busy", "calming", "foreign", "rest"]

#: Joins and locks are looked at in so many turns of the loop: their callbacks may be on the way.
TURNS = 3
#: So many tasks are looked at each time. Where more have moved, those that wait again sleep until they are woken.
FEW = 8


class Alarm(Call):
    """A call at which a task sleeps. However it is over, the task is looked at again."""

    __slots__ = ()

    def cancel(self, msg: object = None) -> bool:
        if not super().cancel(msg):
            return False
        self._ring()
        return True

    def set_result(self, result: Any, /) -> None:
        super().set_result(result)
        self._ring()

    def set_exception(self, exception: type | BaseException, /) -> None:
        super().set_exception(exception)
        self._ring()

    def _ring(self) -> None:
        if self.wakes is not None:
            (moving, task), self.wakes = self.wakes, None
            moving.add(task)


class Stillness:
    """Looks at a run's tasks. `kick` is called when it is worth looking again."""

    def __init__(self, loop: AbstractEventLoop, linger: float, kick: Callable[[], None]) -> None:
        self._loop, self._linger, self._kick = loop, linger, kick
        self._moving: set[Task[Any]] = set()  # what is looked at: all but those that sleep
        self._joined: dict[Task[Any], Future[Any]] = {}  # those that sleep at a join or a lock
        #: Carries out a call of its own, and counts as waiting for it, but where it is about to go on.
        self.busy_by_itself: Task[Any] | None = None
        self.foreign_since: float | None = None
        self.foreign_at = ""
        self._stuck_at: set[Future[Any] | None] = set()  # what tasks waited for, and since when
        self._stuck_since = 0.0
        self._turns = 0
        self._watched: set[Future[Any]] = set()
        self._timer: TimerHandle | None = None

    def stirred(self) -> None:
        """Something happened: count the turns anew."""
        self._turns = 0

    def came(self, task: Task[Any]) -> None:
        """The run has one more task."""
        self._moving.add(task)

    def went(self, task: Task[Any]) -> None:
        """A task is over."""
        self._moving.discard(task)
        self._joined.pop(task, None)

    def look(self) -> Rest:
        """What the tasks do now; `calming` asks to look again in the next turn of the loop."""
        strange = None  # the last task that waits for something outside
        busy, composite, many = False, bool(self._joined), len(self._moving) > FEW
        waiting = list[tuple[Task[Any], Future[Any]]]()
        for task in self._moving:
            waits = tasks.waiter(task)
            if task is self.busy_by_itself and (waits is None or not waits.done()):
                continue
            if waits is None:
                if task.done():
                    continue
                busy = True
                break
            if waits.done():
                busy = True
                break
            kind = type(waits)
            if kind is not Call and kind is not Alarm:
                composite = True
                if kind is not BranchTask and (strangers := tasks.foreign(task, waits)):
                    strange = task
                    self._watch(strangers)
                    continue
            if many:
                waiting.append((task, waits))
        if waiting:
            self._put_to_sleep(waiting)
        if busy:
            return "busy"
        if composite and self._turns < TURNS:
            self._turns += 1
            return "calming"
        if self._joined and self._rouse():
            return "busy"  # it moved meanwhile, perhaps others too
        if strange is None:
            self.foreign_since = None
            return "rest"
        self.foreign_at = tasks.where(strange)
        return "foreign"

    def is_busy(self) -> bool:
        """Whether a task runs or is about to, because something outside moved it."""
        if self._joined:
            self._rouse()
        for task in self._moving:
            waits = tasks.waiter(task)
            if (waits is None or waits.done()) and not task.done() and task is not self.busy_by_itself:
                return True
        return False

    def _put_to_sleep(self, waiting: list[tuple[Task[Any], Future[Any]]]) -> None:
        """Tasks that wait aren't looked at until what they wait for is over; the calls among that say so themselves."""
        moving = self._moving
        moving.difference_update(task for task, _ in waiting)
        left = list(moving)
        moving.clear()  # a set from which much was taken takes as long to go over as before
        moving.update(left)
        for task, waits in waiting:
            if type(waits) is Call:
                waits.__class__ = Alarm
                waits.wakes = moving, task
            else:
                self._joined[task] = waits

    def _rouse(self) -> bool:
        """Whether a join or a lock is over at which a task sleeps: it is looked at again."""
        over = [task for task, waits in self._joined.items() if waits.done()]
        for task in over:
            del self._joined[task]
        self._moving.update(over)
        return bool(over)

    def lingered(self, times: int = 1) -> bool:
        """Whether a foreign wait has held the run up for long enough; if not, there is a kick when it has."""
        if self.foreign_since is None:
            self.foreign_since = self._loop.time()
        return self._is_over(self.foreign_since + self._linger * times)

    def stuck(self, all_tasks: Iterable[Task[Any]]) -> bool:
        """Whether they wait for the same for long enough to be told that nothing wakes them: a callback or a thread
        may end what looks like a lock that a task holds. If not, there is a kick when they do."""
        waits = {tasks.waiter(task) for task in all_tasks}
        if waits != self._stuck_at:
            self._stuck_at, self._stuck_since = waits, self._loop.time()
        return self._is_over(self._stuck_since + self._linger)

    def _is_over(self, until: float) -> bool:
        left = until - self._loop.time()
        if left > 0:
            self.kick_in(left)
        return left <= 0

    def kick_in(self, seconds: float) -> None:
        """Look again after that long, and no earlier one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._kick, context=tasks.NO_CONTEXT)

    def close(self) -> None:
        """No more kicks by time, and nothing of the code is held."""
        if self._timer is not None:
            self._timer.cancel()
        self._stuck_at = set()

    def _watch(self, futures: Iterable[Future[Any]]) -> None:
        for future in futures:
            if future not in self._watched:
                self._watched.add(future)
                future.add_done_callback(self._over, context=tasks.NO_CONTEXT)

    def _over(self, future: Future[Any]) -> None:
        self._watched.discard(future)
        self._kick()
