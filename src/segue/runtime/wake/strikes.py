"""asyncio's own timeouts in a run's code strike at rest, and each is an entry: so they strike at the same place again.

A timeout is known by the task that entered it and a number, as a call is. One that goes off while the code moves, or
while a commit is on its way, is put off until the code is at rest; if its block has ended by then, it never struck.
`asyncio.wait` with a timeout, and `wait_for` before Python 3.12, have timers of their own and aren't seen here.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...authoring.context import BRANCH, find_branch
from ...model.entry import Entry
from ..calls.call import NOTHING, STRIKE, strike_entry
from ..ground.phase import LIVE, REPLAYING

if TYPE_CHECKING:
    from .executor import Executor

#: Timeouts that have been left are forgotten once there are more than so many.
MANY: Final = 100

_STATE: Any = asyncio.timeouts._State  # type: ignore[attr-defined]  # asyncio has no public word for whether a block has been left


class Strikes:
    """The timeouts of one wake."""

    __slots__ = ("_many", "_n", "_open", "_put_off", "_run", "_striking")

    def __init__(self, run: Executor) -> None:
        self._run = run
        self._n = max((n + 1 for path, n in run.replay.calls if path == STRIKE), default=0)
        self._open: dict[str, asyncio.Timeout] = {}  # entered and perhaps not left, by place
        self._many = MANY  # so many may be there before those that were left are looked for
        self._put_off: list[asyncio.Timeout] = []  # went off
        self._striking = False

    def entered(self, timeout: asyncio.Timeout, place: str) -> None:
        """The code has entered a timeout."""
        timeout.segue_place = place  # type: ignore[attr-defined]
        timeout.segue_after = self._run.after  # type: ignore[attr-defined]
        if len(self._open) > self._many:
            self._open = {place: each for place, each in self._open.items() if _stands(each)}
            self._many = max(MANY, 2 * len(self._open))
        self._open[place] = timeout

    def goes_off(self, timeout: asyncio.Timeout) -> bool:
        """A timeout's time is up; whether it strikes now."""
        if self._striking or self._run.leaving:
            return True
        self._put_off.append(timeout)
        self._run.kick()
        return False

    def next(self) -> tuple[float, Task[Any]] | None:
        """When the first of the timeouts that have been entered goes off, by the loop's clock, and whose it is."""
        times = ((timeout.when(), timeout) for timeout in self._open.values() if _stands(timeout))
        due = [(when, timeout._task) for when, timeout in times if when is not None]  # type: ignore[attr-defined]
        return min(due, key=lambda one: one[0], default=None)

    # ------------------------------------------------------------ at rest
    def strike_next(self) -> bool:
        """Have the timeout that went off first strike, now that the code is at rest; whether there was one."""
        run = self._run
        self._put_off = [timeout for timeout in self._put_off if _stands(timeout)]
        if run.phase is REPLAYING:
            strike = self._recorded()
            if strike is None or self._open.get(strike.name) not in self._put_off:
                return False
            return self.strike_again(strike)
        if run.phase is not LIVE or not self._put_off or run.stop_by is not None:
            return False
        timeout = self._put_off.pop(0)
        place: str = timeout.segue_place  # type: ignore[attr-defined]
        pieces = 0 if run.streaming is None else run.streaming.given
        run.commits.entries.append(strike_entry(self._n, place, run.after, pieces))
        if run.streaming is None or run.streaming.call is None:  # that writes what follows with its end
            run.commits.ahead = not run.host.at_once
        self._n += 1
        self._strike(timeout)
        return True

    def stood(self, entry: Entry, after: int) -> bool:
        """Whether an entry is a strike of a timeout that had been entered when so many batches were handed over."""
        timeout = self._open.get(entry.name) if entry.path == STRIKE else None
        return timeout is not None and timeout.segue_after <= after  # type: ignore[attr-defined]

    def strike_between(self) -> bool:
        """In a replay, have the timeout strike that did before the code had the piece that is next; whether so."""
        streaming = self._run.streaming
        strike = None if streaming is None or streaming.ready is None else self._recorded()
        return strike is not None and self.strike_again(strike)

    def _recorded(self) -> Entry | None:
        """The next strike of the history, if the code has come so far: batches, and pieces of what was in the last."""
        run = self._run
        entry = next((entry for entry in run.replay.lacking(run.made) if entry.path == STRIKE), None)
        if entry is None or entry.after > run.replay.handed:
            return None
        given = 0 if run.streaming is None else run.streaming.given
        pieces = msgspec.json.decode(entry.value or NOTHING) or 0
        return entry if entry.after < run.replay.handed or pieces <= given else None

    def strike_again(self, entry: Entry) -> bool:
        """Have a recorded strike happen, if its timeout stands."""
        timeout = self._open.get(entry.name)
        if timeout is None or not _stands(timeout):
            return False
        self._run.replay.made(entry.path, entry.n, entry.kind, entry.name, entry.digest)
        self._run.made.add((entry.path, entry.n))
        self._strike(timeout)
        return True

    def _strike(self, timeout: asyncio.Timeout) -> None:
        self._striking = True
        branch = timeout._task.branch or self._run.carrying.alone  # type: ignore[attr-defined]
        inside = BRANCH.set(branch)  # its own timer cancels, nobody outside
        try:
            timeout.reschedule(None)
            timeout._on_timeout()  # type: ignore[attr-defined]
        finally:
            BRANCH.reset(inside)
            self._striking = False
        self._run.kick()


def _stands(timeout: asyncio.Timeout) -> bool:
    return getattr(timeout, "_state", None) is _STATE.ENTERED


def install() -> Callable[[], None]:
    """Have timeouts that runs' code enters tell their runs; the return value takes it back."""
    cls: Any = asyncio.Timeout
    enter, go_off = cls.__aenter__, cls._on_timeout

    async def entered(timeout: Any) -> Any:
        branch = find_branch()
        if branch is not None:
            branch.timeouts += 1
            timeout.segue_run = branch.run
            branch.run.strikes.entered(timeout, f"{branch.path}#{branch.timeouts}")  # type: ignore[attr-defined]
        return await enter(timeout)

    def on_timeout(timeout: Any) -> None:
        run = getattr(timeout, "segue_run", None)
        if run is None or run.strikes.goes_off(timeout):
            go_off(timeout)

    cls.__aenter__, cls._on_timeout = entered, on_timeout

    def restore() -> None:
        if cls.__aenter__ is entered:
            cls.__aenter__, cls._on_timeout = enter, go_off

    return restore
