"""Who waits in this process for the ends of runs, and how they hear of them."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Container, Coroutine, Iterable
from itertools import islice
from typing import Any, Final, Literal

from ..model.errors import StoreError
from ..model.message import Question
from ..model.run import Head, is_over
from ..ports.store import Store
from . import stuck
from .ground.names import unknown_run
from .ground.patience import patiently
from .mail.carrier import LOOKS, POLL
from .wake.executor import Executor
from .wake.resting import Resting

log = logging.getLogger("segue")

#: After so many looks at a run that isn't at work here, or at a job, it is said that it waits for an answer.
UNHEARD = 6
#: So many open questions are looked at then for one of a run beneath it.
FEW = 100

#: What who waits is told when the engine closes.
CLOSED: Final = "the engine was closed; the run goes on with the next one"


class Ends:
    """Runs `awake` here tell of their ends themselves; of others the store's hints do, or else a look now and then.

    `check` raises what keeps runs from ending. `spawn` starts a task of the engine's.
    """

    def __init__(
        self,
        store: Store,
        awake: Container[str],
        check: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._store, self._awake, self._check, self._spawn = store, awake, check, spawn
        self._waiting: dict[str, list[Future[Head | None]]] = {}
        self._any: set[Future[None]] = set()
        self._looking = False  # at what may have ended elsewhere
        self.heard = False  #: somebody in this process looks at questions, or was told of one

    async def of(self, id: str) -> Head:
        """A run's record when it has ended or is held. Raises `UnknownName`."""
        unheard = Unheard(self, "run", id)
        while True:
            future: Future[Head | None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(id, []).append(future)
            try:
                head = await future if id in self._awake else await self._known(id)
                if head is not None and is_over(head.status):
                    return head
                self._check()
                await asyncio.wait({future}, timeout=0 if future.done() else POLL)
                if future.cancelled():
                    self._check()
                await unheard.looked()
            finally:
                waiting = self._waiting.get(id, [])
                if future in waiting:
                    waiting.remove(future)
                if not waiting:
                    self._waiting.pop(id, None)

    async def say_unheard(self, what: Literal["run", "job"], id: str) -> None:
        """Say once that a question of that, or of a run beneath it, is open, if nobody in this process looks at any: to
        wait for it would be silent.
        """
        if self.heard:
            return
        try:
            asked = await self._asked_beneath(id)
        except StoreError:  # it is looked for again
            return
        if asked is None:
            return
        self.heard = True
        log.warning(
            "%s %s waits for an answer to %s, %r, and nothing here looks at questions: a loop over "
            "engine.asks() does, or another process's `segue answer %s VALUE`. Said once",
            what,
            id,
            asked.id,
            asked.question,
            asked.id,
        )

    async def _asked_beneath(self, id: str) -> Question | None:
        """The first open question of a run, or of one that it waits for, or of a job's."""
        for asked in await self._store.asks(run=id) or (await self._store.asked(0, limit=FEW))[0]:
            head = await self._store.get(asked.run)
            above = [] if head is None else [head.id, *await stuck.ancestors(self._store, head)]
            if any(run == id or run.startswith(f"{id}/") for run in above):
                return asked
        return None

    async def _known(self, id: str) -> Head:
        head = await patiently(lambda: self._store.get(id), self._check)
        if head is None:
            raise await unknown_run(self._store, id)
        return head

    def next(self) -> Future[None]:
        """A future that is done when some run ends here, or after a little while, in which others may have."""
        loop = asyncio.get_running_loop()
        future: Future[None] = loop.create_future()
        self._any.add(future)
        future.add_done_callback(self._any.discard)
        loop.call_later(POLL, _set, future)
        return future

    def close(self) -> None:
        """Nobody waits here any more."""
        for futures in self._waiting.values():
            for future in futures:
                future.cancel(CLOSED)
        for any_end in list(self._any):
            any_end.cancel(CLOSED)

    # ------------------------------------------------------------ news
    def left(self, run: Executor | Resting) -> None:
        """A run left memory."""
        if run.error is not None:
            for future in self._waiting.get(run.id, []):
                if not future.done():
                    future.set_exception(run.error)
        elif is_over(run.status):
            for future in self._waiting.pop(run.id, ()):
                if not future.done():
                    future.set_result(run.head)
            self.stir()
            if run.status == "held" and run.head.spec.parent is not None and self._waiting:
                self._spawn(self._tell_held(run.head))
        else:
            for future in self._waiting.get(run.id, ()):
                if not future.done():
                    future.set_result(None)  # look again: others may take it up

    def happened(self, runs: Iterable[str]) -> None:
        """These runs have ended, here or elsewhere."""
        waiting = [run for run in runs if run in self._waiting and run not in self._awake]
        if waiting:
            self._spawn(self._tell(waiting))
        self.stir()

    def look(self) -> None:
        """Some may have ended elsewhere. Where many are waited for, the others are looked at in time, by themselves."""
        if not self._looking:
            self._looking = True
            self._spawn(self._look())
        self.stir()

    def stir(self) -> None:
        """Something has come to pass that who waits for any end looks at."""
        if self._any:
            any_end, self._any = self._any, set()
            for future in any_end:
                _set(future)

    async def _tell(self, runs: list[str]) -> None:
        try:
            heads = await asyncio.gather(*map(self._store.get, runs))
        except StoreError:  # each that waits looks by itself, and hears of it
            return
        for head in heads:
            if head is None or not is_over(head.status):
                continue
            for future in self._waiting.pop(head.id, []):
                if not future.done():
                    future.set_result(head)

    async def _look(self) -> None:
        try:
            await self._tell([run for run in islice(self._waiting, LOOKS) if run not in self._awake])
        finally:
            self._looking = False

    async def _tell_held(self, head: Head) -> None:
        """A run is held: say so where somebody here waits for one that waits for it, for that would be silent."""
        for run in await stuck.ancestors(self._store, head):
            if run in self._waiting:
                log.warning("run %s waits for %s, which is held: %s", run, head.id, head.reason)


class Unheard:
    """Looks in vain whether something is over: after some, ever more seldom, open questions are looked for."""

    def __init__(self, ends: Ends, what: Literal["run", "job"], id: str) -> None:
        self._ends, self._id = ends, id
        self._what: Literal["run", "job"] = what
        self._looks, self._next = 0, UNHEARD

    async def looked(self) -> None:
        """Once more in vain."""
        self._looks += 1
        if self._looks >= self._next:
            self._next *= 2
            await self._ends.say_unheard(self._what, self._id)

    def came(self) -> None:
        """Something is over: count anew."""
        self._looks = 0


def _set(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
