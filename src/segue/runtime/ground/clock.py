"""The real clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ...ports.clock import Timer


class SystemClock:
    """The machine's own time."""

    now = staticmethod(time.time)
    steady = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)
