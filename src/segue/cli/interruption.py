"""Ctrl-C: the first one parks, the second one leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from . import exit

#: One Ctrl-C may arrive twice, at a process and at its group, within so many seconds.
ONE_STROKE = 0.2


@contextmanager
def interruption() -> Generator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets. A second one ends the process; what was acknowledged is durable."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    first = 0.0

    def strike(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if not first:
            first = now
            loop.call_soon_threadsafe(event.set)
        elif now - first >= ONE_STROKE:
            os.write(
                2, b"left at once; what was recorded is kept\n"
            )  # `print` may be in the middle of a line
            os._exit(exit.INTERRUPTED)

    # Not loop.add_signal_handler: code that blocks the loop must be left by a second stroke too.
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, strike) for number in numbers]
    try:
        yield event
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
