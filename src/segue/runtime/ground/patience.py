"""Looks at a store that may fail for a moment, while what is looked for goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...model.errors import StoreError

T = TypeVar("T")
#: After so many looks in a row that failed, who waits is told. What is waited for goes on, or is done, and who is told
#: of what passes would begin it once more.
PATIENCE: Final = 10
#: What is waited after one, in seconds.
PAUSE = 0.5


async def patiently(look: Callable[[], Awaitable[T]], check: Callable[[], None]) -> T:
    """What a look gives. Raises `StoreError` if it fails for some seconds, or what `check` raises meanwhile."""
    for _ in range(PATIENCE - 1):
        try:
            return await look()
        except StoreError:
            check()
            await asyncio.sleep(PAUSE)
    return await look()
