"""How long other processes that hold the file are waited for, and room on a full disk."""

from __future__ import annotations

import logging
import random
import shlex
import time
from typing import Final

from .schema import is_busy

log = logging.getLogger("segue")

#: So long SQLite itself waits for a lock, in seconds.
BUSY: Final = 0.2
#: How often it is looked whether there is room again, in seconds.
LOOK: Final = 0.2
#: So long nothing is said, in seconds: of a file that is opened, when somebody may look on, and of a write.
OPENING, WRITING = 1.0, 5.0


class Room:
    """What is waited since a write found no room on the disk, until one does.

    Answers that are paid wait to be written, and given up they would be paid again.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self._address, self._seconds = address, seconds
        self._until, self._told = time.monotonic() + seconds, False

    def waits(self) -> bool:
        """Wait a moment, if there is time: whether it is worth another try."""
        if time.monotonic() >= self._until:
            return False
        if not self._told:
            self._told = True
            log.warning(
                "%s: the disk or its quota is full: make room; what is to be written waits for it, up to %.3g s",
                self._address,
                self._seconds,
            )
        time.sleep(LOOK)
        return True


class Patience:
    """What is waited from the first time that another process was in the way."""

    def __init__(self, path: str, address: str, seconds: float, *, silent: float) -> None:
        now = time.monotonic()
        self._path, self._address, self._seconds = path, address, seconds
        self._until, self._silent = now + seconds, now + silent - BUSY

    def waits(self, error: BaseException) -> bool:
        """Wait a moment, if that is what failed, and there is time: whether it is worth another try."""
        now = time.monotonic()
        if not is_busy(error) or now >= self._until:
            return False
        if now >= self._silent:
            self._silent = self._until
            log.warning(
                "%s: another process keeps it locked; end that process (`fuser %s` names it), or wait, up to %.3g s",
                self._address,
                shlex.quote(self._path),
                self._seconds,
            )
        time.sleep(random.uniform(0.001, 0.02))
        return True
