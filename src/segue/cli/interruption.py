"""Ctrl-C: the first one parks, the second one leaves at once. An actor is asked to end, three times more urgently."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from ..runtime.interruption import Handler, Strokes, strokes
from . import exit


@contextmanager
def interruption(most: int = 1) -> Generator[Strokes]:
    """How often SIGINT or SIGTERM came. One more than so often ends the process; what is recorded is durable.

    What is said after the terminal was closed goes nowhere, for to write there is an error.
    """
    terminals = [number for number in range(3) if os.isatty(number)]
    with strokes(most, _leave, lambda: _leave_out(terminals)) as came:
        yield came


def _leave_out(terminals: list[int]) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in terminals:
        os.dup2(nowhere, number)
    os.close(nowhere)


def _leave(number: int, frame: FrameType | None, before: Handler) -> None:
    os.write(2, b"left at once; what was recorded is kept\n")  # `print` may be in the middle of a line
    os._exit(exit.INTERRUPTED)
