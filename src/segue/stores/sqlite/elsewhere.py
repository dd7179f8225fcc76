"""Whether other processes have written."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from ...ports.store import Hint

#: How often it is looked, in seconds.
GLANCE: Final = 0.03


class Elsewhere:
    """What a connection is told of others: each commit of theirs changes a number, its own ones don't."""

    __slots__ = ("_cx", "_looked", "_version")

    def __init__(self, cx: sqlite3.Connection) -> None:
        self._cx, self._looked = cx, time.monotonic()
        self._version = self._read()

    def is_due(self) -> bool:
        """Whether it is time to look, for whom has something to do all the time."""
        return time.monotonic() - self._looked >= GLANCE

    def look(self) -> list[Hint]:
        """A hint, if they have written since the last look."""
        self._looked = time.monotonic()
        try:
            version = self._read()
        except sqlite3.Error:  # who writes next says what it is
            return []
        if version == self._version:
            return []
        self._version = version
        return [Hint("elsewhere", ())]

    def _read(self) -> int:
        version: int = self._cx.execute("pragma data_version").fetchone()[0]
        return version
