"""Whether an open file is still where it was opened."""

from __future__ import annotations

import os
import time
from typing import Final

from ...model.errors import StoreError

#: How often it is looked, in seconds.
LOOK: Final = 1.0


class Place:
    """Of a file that was opened there. What is written to one that was removed or replaced since is lost, or looked for
    elsewhere."""

    __slots__ = ("_address", "_file", "_next", "_path")

    def __init__(self, path: str, address: str) -> None:
        self._path, self._address, self._file = path, address, _file(path)
        self._next = time.monotonic() + LOOK

    def check(self) -> None:
        """Raises `StoreError` if it isn't there any more, once a second."""
        now = time.monotonic()
        if now < self._next:
            return
        try:
            there = _file(self._path) == self._file
        except FileNotFoundError:
            there = False
        except OSError:  # it can't be told
            there = True
        if not there:
            raise StoreError(
                self._address,
                "its file was moved, removed or replaced while this process had it open",
                f"end all processes that have it open, see to it that {self._path} is the file that is meant, and "
                "start them again",
            )
        self._next = now + LOOK


def _file(path: str) -> tuple[int, int]:
    """Which one is there."""
    found = os.stat(path)
    return found.st_dev, found.st_ino
