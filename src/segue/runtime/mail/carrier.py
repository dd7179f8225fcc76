"""Bringing runs at work the mail that came for them."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import deque
from collections.abc import Mapping
from typing import Final

from ...model.message import Letter
from ...ports.store import Awake, Hint, Store

log = logging.getLogger("segue")

#: How often it is looked for what other processes sent, in seconds.
POLL: Final = 0.5
#: So many runs at work are looked at each time for mail from other processes.
LOOKS: Final = 50


class Carrier:
    """Carries letters to the runs that are `awake`."""

    def __init__(self, store: Store, awake: Mapping[str, Awake]) -> None:
        self._store, self._awake = store, awake
        self._mailed: set[str] = set()  # runs that have new mail
        self._fetching = False  # some of it is being read
        # Who is looked at next, by id: who has left isn't kept in memory for it.
        self._turn: deque[str] = deque()

    def hint(self, hint: Hint) -> None:
        """The store's word that mail has come."""
        awake, letters = self._awake, hint.came
        for run in hint.runs:
            if (one := awake.get(run)) is None:
                continue
            came = letters.get(run)
            if came is not None and came.after <= one.seen:
                one.mail(came.letters)
            else:
                self._mailed.add(run)
        if self._mailed:
            self._fetch()

    def _fetch(self) -> None:
        """Read the mail of runs at work, of all that have some together."""
        if self._fetching or not self._mailed:
            return
        awake = [one for run in self._mailed if (one := self._awake.get(run)) is not None]
        mailed = [(one.id, one.fence) for one in awake]
        self._mailed.clear()
        found = self._store.letters({one.id: one.seen for one in awake})
        if found.done():
            self._fetched(mailed, found)
        else:
            self._fetching = True
            found.add_done_callback(lambda found: self._fetched(mailed, found))

    def _fetched(self, mailed: list[tuple[str, int]], found: Future[dict[str, list[Letter]]]) -> None:
        self._fetching = False
        if found.cancelled():
            return
        error = found.exception()
        if error is not None:  # it is looked for again, at the latest when the run parks
            log.error("the mail of %d runs can't be read: %s", len(mailed), error)
            return
        letters = found.result()
        for run, fence in mailed:
            if (one := self._awake.get(run)) is None or run not in letters:
                continue
            if one.fence == fence:
                one.mail(letters[run])
            else:  # a later wake, and another may have handled them
                self._mailed.add(run)
        self._fetch()

    async def look(self) -> None:
        """Look for mail that other processes sent, now and then."""
        while True:
            await asyncio.sleep(POLL)
            self.glance()

    def glance(self) -> None:
        """Look for mail that other processes sent to runs at work here, for some of the runs at a time."""
        turn = self._turn = self._turn or deque(self._awake)
        for _ in range(min(len(turn), LOOKS)):
            run = turn.popleft()
            if run in self._awake:
                self._mailed.add(run)
        self._fetch()
