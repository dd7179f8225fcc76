"""Ctrl-C: the first one parks, the second one leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager

from . import exit
from .screen import note

#: One Ctrl-C may arrive twice, at a process and at its group, within so many seconds.
ONE_STROKE = 0.2


@contextmanager
def interruption() -> Generator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets. A second one ends the process; what was acknowledged is durable."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    first = 0.0

    def strike() -> None:
        nonlocal first
        if event.is_set() and loop.time() - first < ONE_STROKE:
            return
        first = first or loop.time()
        if event.is_set():
            note("left at once; what was recorded is kept")
            os._exit(exit.INTERRUPTED)
        event.set()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, strike)
    except NotImplementedError:  # Windows: Ctrl-C is a KeyboardInterrupt
        yield event
        return
    try:
        yield event
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
