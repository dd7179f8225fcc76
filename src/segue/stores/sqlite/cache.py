"""The pages that a connection keeps in memory, given back while it has nothing to do."""

from __future__ import annotations

import sqlite3
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

#: A connection that was used for so many orders, and had none for so long, in seconds, gives its pages back.
USED: Final = 100
REST: Final = 0.2


class Cache:
    """Of one connection. Most pages of a burst belong to runs that only wait now, and are a read away."""

    __slots__ = ("_cx", "_idle", "_used")

    def __init__(self, cx: sqlite3.Connection) -> None:
        self._cx, self._used, self._idle = cx, 0, 0.0

    def uses(self, orders: int) -> None:
        """So many orders are carried out."""
        self._used, self._idle = self._used + orders, 0.0

    def wait(self, queue: SimpleQueue[T]) -> T:
        """What comes next. Where nothing comes for a while, pages are given back meanwhile."""
        if self._used >= USED:
            try:
                return queue.get(timeout=REST)
            except Empty:
                self.idles(REST)
        return queue.get()

    def idles(self, seconds: float) -> None:
        """Nothing has come for so long, or so much longer."""
        self._idle += seconds
        if self._used >= USED and self._idle >= REST:
            self._used = 0
            self._cx.execute("pragma shrink_memory")
