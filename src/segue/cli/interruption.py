"""Ctrl-C: the first one parks, the second one leaves at once. An actor is asked to end, three times more urgently."""

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
def interruption(strokes: int = 1) -> Generator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets, so many times. One more ends the process; what is recorded is durable."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    last, struck = 0.0, 0

    def strike(number: int, frame: FrameType | None) -> None:
        nonlocal last, struck
        now = time.monotonic()
        if now - last < ONE_STROKE:
            return
        last, struck = now, struck + 1
        if struck <= strokes:
            loop.call_soon_threadsafe(event.set)
        else:
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
