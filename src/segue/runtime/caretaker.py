"""What an engine does by itself beside its runs: look after the lanes, free what the dead held, seal past turns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..model.errors import StoreError
from ..ports.clock import AlarmClock, Timer
from ..ports.store import Store
from .ground.patience import Trouble
from .lanes.lanes import Lanes
from .worker import Worker

log = logging.getLogger("segue")

#: How often workers of this machine are looked for that are gone, and lanes that others filled, in seconds.
BURY = 2.0
#: How often past turns are sealed, in seconds, and of how many runs at once.
SWEEP, SWEPT = 20.0, 16


class Caretaker:
    """One engine's. `busy`: whether it may still add lines to lanes; `told`: the lanes can't be driven."""

    def __init__(
        self, store: Store, clock: AlarmClock, busy: Callable[[], bool], told: Callable[[], None]
    ) -> None:
        self._store, self._clock, self._busy, self._told = store, clock, busy, told
        self._due = asyncio.Event()
        self._has_lines = True  # as far as is known here
        self.trouble = Trouble()  #: of driving the lanes

    def look(self) -> None:
        """Look at the lanes now."""
        self._due.set()

    def lines_came(self) -> None:
        """There is something in a lane."""
        self._has_lines = True
        self.look_if_quiet()

    def look_if_quiet(self) -> None:
        """Look at the lanes now, unless runs are at work: then they are looked at from time to time only."""
        if self._has_lines and not self._busy():
            self._due.set()

    async def drive(self, lanes: Lanes, worker: Worker) -> None:
        """Look at the lanes whenever something is due, for ever."""
        loop = asyncio.get_running_loop()
        buried = loop.time() - BURY
        while True:
            self._due.clear()
            try:
                if loop.time() >= buried + BURY:
                    buried = loop.time()
                    await worker.bury()
                wait = await lanes.sweep()
                self._has_lines = wait is not None
                self.trouble.passed()
            except Exception as error:
                log.error("the lanes can't be driven: %s", error)
                self.trouble.failed(error)
                wait = None
                self._told()
            timers: list[Timer] = [loop.call_later(BURY, self._due.set)]
            if wait is not None:
                timers.append(self._clock.call_later(max(wait, 0.02), self._due.set))
            await self._due.wait()
            for timer in timers:
                timer.cancel()

    async def seal(self) -> None:
        """Seal what became history, and drop what isn't to be kept, now and then, for ever."""
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await self.sweep()
            except StoreError as error:  # it is there the next time
                log.error("past turns can't be sealed: %s", error)

    async def sweep(self) -> None:
        """Seal and drop what there is."""
        swept = SWEPT
        while swept:
            swept = await self._store.sweep(now=self._clock.now(), limit=SWEPT)
            await asyncio.sleep(0)  # others write too
