"""What may fail for a moment, such as a look at a store, while what is waited for goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...model.errors import StoreError

T = TypeVar("T")
#: After so many looks in a row that failed, who waits is told. What is waited for goes on, or is done, and who is told
#: of what passes would begin it once more.
PATIENCE: Final = 10
#: What is waited after one, in seconds.
PAUSE = 0.5
#: What fails so soon after it has, in seconds, though something succeeded in between, goes on failing.
AGAIN: Final = 3.0


async def patiently(look: Callable[[], Awaitable[T]], check: Callable[[], None]) -> T:
    """What a look gives. Raises `StoreError` if it fails for some seconds, or what `check` raises meanwhile."""
    for _ in range(PATIENCE - 1):
        try:
            return await look()
        except StoreError:
            check()
            await asyncio.sleep(PAUSE)
    return await look()


class Trouble:
    """What is tried until it succeeds, and why it failed."""

    def __init__(self) -> None:
        self.error: BaseException | None = None  #: of the last attempt
        self._first = self._last = float("-inf")  # when it failed, again and again

    def failed(self, error: BaseException) -> None:
        """An attempt did."""
        now = time.monotonic()
        if self.error is None and now - self._last > AGAIN:
            self._first = now
        self.error, self._last = error, now

    def passed(self) -> None:
        """An attempt succeeded."""
        self.error = None

    @property
    def lasting(self) -> BaseException | None:
        """Why it failed, where no store did or one has for some seconds."""
        passes = isinstance(self.error, StoreError) and time.monotonic() - self._first < PATIENCE * PAUSE
        return None if passes else self.error
