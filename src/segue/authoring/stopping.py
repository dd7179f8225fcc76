"""A word to plain functions on threads: that they needn't go on."""

from __future__ import annotations

from contextvars import ContextVar


class Stop:
    """Of one function that runs on a thread: whether it was asked to stop."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked = False


#: Of the function that this context runs on a thread.
STOP: ContextVar[Stop | None] = ContextVar("segue_stop", default=None)


def should_stop() -> bool:
    """In a plain function on a thread: whether it needn't go on; a long loop looks now and then, and returns.

    It is true once nobody waits for the function any more, be it a step's or a handler's: its time is up, its race is
    lost, its run leaves memory. And in an actor's handler once the actor was asked to end after it. Never elsewhere.
    """
    stop = STOP.get()
    return stop is not None and stop.asked
