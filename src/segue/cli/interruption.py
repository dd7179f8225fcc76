"""Ctrl-C: the first one parks, the second one leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager

from . import exit
from .screen import note


@contextmanager
def interruption() -> Generator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets. A second one ends the process; what was acknowledged is durable."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def strike() -> None:
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
