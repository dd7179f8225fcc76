"""What comes to one address of this process: each letter once and in order, whoever sent it."""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Callable, Sequence

from ...model.message import Letter
from ...ports.store import Hint, Store

log = logging.getLogger("segue")


class Arrivals:
    """The letters of an address. `take` gets those that are new."""

    def __init__(self, store: Store, address: str, take: Callable[[Sequence[Letter]], None]) -> None:
        self._store, self.address, self._take = store, address, take
        self.seen = 0  #: the newest letter
        self.trouble: BaseException | None = None  #: why they couldn't be read when last looked for
        self._reading = self._again = False

    def hint(self, hint: Hint) -> None:
        """The store's word that mail has come here."""
        came = hint.came.get(self.address)
        if came is not None and came.after <= self.seen:
            self._new(came.letters)
        else:
            self.look()

    def look(self) -> None:
        """Look for what no hint has told of, such as what other processes sent."""
        if self._reading:
            self._again = True
            return
        found = self._store.letters({self.address: self.seen})
        if found.done():
            self._read(found)
        else:
            self._reading = True
            found.add_done_callback(self._read)

    def _read(self, found: Future[dict[str, list[Letter]]]) -> None:
        self._reading = False
        if found.cancelled():
            return
        before, self.trouble = self.trouble, found.exception()
        if self.trouble is not None:
            if before is None:
                log.error("what comes to this process can't be read, which is tried again: %s", self.trouble)
            return
        self._new(found.result().get(self.address, ()))
        if self._again:
            self._again = False
            self.look()

    def _new(self, letters: Sequence[Letter]) -> None:
        new = [letter for letter in letters if letter.id > self.seen]
        if new:
            self.seen = new[-1].id
            self._take(new)
