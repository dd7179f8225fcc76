"""Who watches what, in this process."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import Any, cast

from .events import Event

Listener = Callable[[object], None]


class Bus:
    """Hands events of runs to those who watch them. Nobody watching costs a look into a dictionary."""

    def __init__(self) -> None:
        self.of: dict[str, list[Listener]] = {}  #: by run; empty if nobody watches any
        #: Who is told at which path a handler begins with a request, by what names that.
        self.followed: dict[str, Callable[[str], None]] = {}

    def wants(self, run: str) -> bool:
        """Whether anybody watches that run, or all of them."""
        return bool(self.of) and (run in self.of or "" in self.of)

    def publish(self, run: str, event: object) -> None:
        """Tell those who watch."""
        if self.of:
            for listener in (*self.of.get(run, ()), *self.of.get("", ())):
                listener(event)

    def watch(self, run: str, listener: Listener) -> Callable[[], None]:
        """Watch one run, or all of them with an empty id; the return value ends it."""
        self.of.setdefault(run, []).append(listener)

        def end() -> None:
            left = self.of.get(run, [])
            if listener in left:
                left.remove(listener)
            if not left:
                self.of.pop(run, None)

        return end


class Watching:
    """What a watcher has not taken yet of a run's events, in order. For one task; it waits without one of its own."""

    def __init__(self, bus: Bus, run: str) -> None:
        self._events: list[Event] = []
        self._awaited: Future[None] | None = None
        self.end = bus.watch(run, self._put)

    def _put(self, event: object) -> None:
        self._events.append(cast(Event, event))
        self._wake()

    def _wake(self, _: object = None) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)

    async def until(self, ending: Future[Any]) -> list[Event]:
        """The events that came since, at least one; none once `ending` is done and all were taken."""
        if not self._events and not ending.done():
            self._awaited = asyncio.get_running_loop().create_future()
            ending.add_done_callback(self._wake)
            try:
                await self._awaited
            finally:
                ending.remove_done_callback(self._wake)
        events, self._events = self._events, []
        return events
