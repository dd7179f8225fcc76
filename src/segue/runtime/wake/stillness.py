"""Whether the tasks of a run are at rest.

At rest, every task waits for a recorded call, or for a lock, queue or task behind which another one waits.
A wait for anything else, such as a raw sleep, a socket or a thread, is foreign: it is lingered for.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Task, TimerHandle
from collections.abc import Callable
from typing import Any, Literal

from ...authoring.context import BranchTask
from ..calls.call import Call
from ..ground import tasks

Rest = Literal["busy", "calming", "foreign", "rest"]

#: Joins and locks are looked at in so many turns of the loop: their callbacks may be on the way.
TURNS = 3


class Stillness:
    """Looks at a run's tasks. `kick` is called when it is worth looking again."""

    def __init__(
        self, loop: AbstractEventLoop, tasks: set[Task[Any]], linger: float, kick: Callable[[], None]
    ) -> None:
        self._loop, self._tasks, self._linger, self._kick = loop, tasks, linger, kick
        self.busy_by_itself: Task[Any] | None = (
            None  # carries out a call of its own, and counts as waiting for it
        )
        self.foreign_since: float | None = None
        self.foreign_at = ""
        self._turns = 0
        self._watched: set[Future[Any]] = set()
        self._timer: TimerHandle | None = None

    def stirred(self) -> None:
        """Something happened: count the turns anew."""
        self._turns = 0

    def look(self) -> Rest:
        """What the tasks do now; `calming` asks to look again in the next turn of the loop."""
        composite, strange = False, None  # the last task that waits for something outside
        for task in self._tasks:
            if task is self.busy_by_itself:
                continue
            waits = tasks.waiter(task)
            if waits is None:
                if task.done():
                    continue
                return "busy"
            if waits.done():
                return "busy"
            if type(waits) is Call:
                continue
            composite = True
            if type(waits) is not BranchTask:
                for future in tasks.foreign(task, waits):
                    strange = task
                    self._watch(future)
        if composite and self._turns < TURNS:
            self._turns += 1
            return "calming"
        if strange is None:
            self.foreign_since = None
            return "rest"
        self.foreign_at = tasks.where(strange)
        return "foreign"

    def is_busy(self) -> bool:
        """Whether a task runs or is about to, because something outside moved it."""
        for task in self._tasks:
            waits = tasks.waiter(task)
            if (waits is None or waits.done()) and not task.done() and task is not self.busy_by_itself:
                return True
        return False

    def lingered(self, times: int = 1) -> bool:
        """Whether a foreign wait has held the run up for long enough; if not, there is a kick when it has."""
        now = self._loop.time()
        if self.foreign_since is None:
            self.foreign_since = now
        left = self.foreign_since + self._linger * times - now
        if left > 0:
            self.kick_in(left)
        return left <= 0

    def kick_in(self, seconds: float) -> None:
        """Look again after that long, and no earlier one."""
        self.close()
        self._timer = self._loop.call_later(seconds, self._kick, context=tasks.NO_CONTEXT)

    def close(self) -> None:
        """No more kicks by time."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self, future: Future[Any]) -> None:
        if future not in self._watched:
            self._watched.add(future)
            future.add_done_callback(self._over, context=tasks.NO_CONTEXT)

    def _over(self, future: Future[Any]) -> None:
        self._watched.discard(future)
        self._kick()
