"""Actors that stay in memory for their next message, and hold no more for it than what they are.

A wake has a task, its coroutines and a dozen rooms around them. Of an actor that only listens nothing of that is
needed: its fields and its claim make another one when mail comes.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import AbstractEventLoop, Future, Task, TimerHandle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from ...model.message import Letter
from ...model.mode import Config
from ...model.run import Head, Status
from ...ports.store import CommitResult, Turn
from ..ground import tasks

if TYPE_CHECKING:
    from ...authoring.actor.life import Stays
    from .executor import Executor

log = logging.getLogger("segue")

#: So many turns of actors that leave share an order to the store.
TOGETHER: Final = 200


class Keeper(Protocol):
    """The worker, as resting actors see it."""

    loop: AbstractEventLoop

    def clock_now(self) -> float: ...
    def holds(self, run: Resting) -> bool: ...

    def lies_down(self, run: Resting) -> None:
        """It takes the place of its executor."""
        ...

    def gets_up(self, run: Resting, letters: Sequence[Letter]) -> None:
        """Make it an executor again, which has these letters."""
        ...

    def commit_all(self, turns: list[Turn]) -> Future[list[CommitResult]]: ...
    def ended(self, run: Resting) -> None: ...


class Idle:
    """Carries nothing out."""

    at_work: Final[frozenset[Task[object]]] = frozenset()

    @staticmethod
    def dear() -> int:
        return 0


class Resting:
    """An actor that only listens, in the place of its executor. Its claim is kept; nothing is read to wake it."""

    __slots__ = (
        "_rests",
        "config",
        "error",
        "gone",
        "head",
        "leaving",
        "seen",
        "sent",
        "stays",
        "until",
        "weight",
    )

    carrying: Final = Idle
    tasks: Final[frozenset[Task[object]]] = frozenset()
    stirring: Final = True  # it is about to leave
    nap: Final = None
    over: Final = False
    due: Final = False

    def __init__(self, rests: Rests, run: Executor, stays: Stays, weight: int, until: float) -> None:
        self._rests, self.stays, self.weight = rests, stays, weight
        usage = run.commits.usage
        self.head: Head = (
            run.head if usage == run.head.usage else msgspec.structs.replace(run.head, usage=usage)
        )
        self.config: Config = run.config
        self.seen, self.sent = run.seen, run.sent
        self.until = until  #: by the loop's clock
        self.leaving: Status | None = None  #: its last turn is on its way, or written: what became of it
        self.error: BaseException | None = None
        self.gone: Future[None] | None = None

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def fence(self) -> int:
        return self.head.fence

    @property
    def status(self) -> Status:
        return self.leaving or "ready"

    def mail(self, letters: Sequence[Letter]) -> None:
        """Wake for letters that it hasn't seen; while it leaves, its last turn must not count them."""
        new = [letter for letter in letters if letter.id > self.seen]
        if new and self.leaving is None:
            self._rests.wake(self, new)

    def make_room(self) -> None:
        """Leave memory rather than wait here."""
        self.stop()

    def stop(self, grace: float = 0.0, *, every: bool = False) -> None:
        """Give the claim up: no call is under way that could come in."""
        self._rests.park([self])

    def taken_over(self) -> None:
        """Another claim of it counts."""
        self._rests.lose(self)

    async def has_left(self) -> None:
        """Wait until it has left memory."""
        if self._rests.keeper.holds(self):
            if self.gone is None:
                self.gone = self._rests.keeper.loop.create_future()
            await asyncio.shield(self.gone)


class Rests:
    """The resting actors of one worker, in the order in which they leave."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._line: dict[str, Resting] = {}
        self._timer: TimerHandle | None = None

    def take(self, run: Executor, stays: Stays, weight: int, until: float) -> None:
        """An executor's actor rests from now on; of the executor nothing is left."""
        resting = Resting(self, run, stays, weight, until)
        self._line[resting.id] = resting
        run.vanish()
        self.keeper.lies_down(resting)
        self._wait()

    def wake(self, run: Resting, letters: Sequence[Letter]) -> None:
        """Mail has come."""
        self._line.pop(run.id, None)
        if self.keeper.holds(run):
            self.keeper.gets_up(run, letters)

    # ------------------------------------------------------------ they leave
    def lose(self, run: Resting) -> None:
        """Its claim is another's."""
        self._line.pop(run.id, None)
        self._left(run, "fenced")

    def _wait(self) -> None:
        if self._timer is None and self._line:
            first = next(iter(self._line.values()))
            self._timer = self.keeper.loop.call_at(first.until, self._look, context=tasks.NO_CONTEXT)

    def _look(self) -> None:
        self._timer = None
        now, tired = self.keeper.loop.time(), list[Resting]()
        for run in self._line.values():
            if run.until > now:
                break
            tired.append(run)
        for start in range(0, len(tired), TOGETHER):
            self.park(tired[start : start + TOGETHER])
        self._wait()

    def park(self, runs: Sequence[Resting]) -> None:
        """Give their claims up."""
        now, turns, leaving = self.keeper.clock_now(), list[Turn](), list[Resting]()
        for run in runs:
            self._line.pop(run.id, None)
            if run.leaving is None and self.keeper.holds(run):
                run.leaving = "parked"
                leaving.append(run)
                turns.append(
                    Turn(run=run.id, fence=run.fence, status="parked", release=True, seen=run.seen, now=now)
                )
        if not turns:
            return
        try:
            future = self.keeper.commit_all(turns)
        except Exception as error:  # the store is gone
            for run in leaving:
                self._left(run, error)
            return
        future.add_done_callback(lambda future: self._parked(leaving, future), context=tasks.NO_CONTEXT)

    def _parked(self, runs: list[Resting], future: Future[list[CommitResult]]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        results: Sequence[CommitResult | BaseException]
        results = future.result() if error is None else [error] * len(runs)
        for run, result in zip(runs, results, strict=True):
            self._left(run, result)

    def _left(self, run: Resting, result: CommitResult | BaseException) -> None:
        if isinstance(result, BaseException):
            run.error = result
        elif result == "fenced":
            log.warning("run %s was taken over by another worker; nothing is lost", run.id)
        elif result == "ready":
            run.leaving = "ready"  # mail came meanwhile
        self.keeper.ended(run)
        if run.gone is not None and not run.gone.done():
            run.gone.set_result(None)
