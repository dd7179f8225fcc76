"""Who is told what is new in the store in memory: once a turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal

from ...ports.store import NOBODY, Awake, Came, Hint

HintKind = Literal["ready", "mail", "ended", "lines", "room"]


class Hints:
    """What is to be told, and who listens."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Hint], None], ...] = ()
        self._awake: tuple[Mapping[str, Awake], ...] = ()
        self._only: Mapping[str, Awake] = NOBODY  # if one alone has runs in memory
        self._named: dict[HintKind, dict[str, None]] = {}
        self.came: dict[str, Came] = {}  #: letters that aren't told of yet
        self.at_ports: dict[str, Came] = {}  #: those at ports, for which somebody waits
        self.telling = False  #: this turn of the loop
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell in this loop."""
        self._loop = loop

    def close(self) -> None:
        """Nobody listens any more."""
        self._listeners, self._awake, self._only = (), (), NOBODY

    def subscribe(self, listener: Callable[[Hint], None], awake: Mapping[str, Awake]) -> Callable[[], None]:
        """Tell this one too, until the end that is returned."""
        self._listeners = (*self._listeners, listener)
        if awake is not NOBODY:
            self._have_awake((*self._awake, awake))

        def end() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)
            self._have_awake(tuple(one for one in self._awake if one is not awake))

        return end

    def _have_awake(self, awake: tuple[Mapping[str, Awake], ...]) -> None:
        self._awake = awake
        self._only = awake[0] if len(awake) == 1 else NOBODY

    def awake(self, run: str, after: int) -> Awake | None:
        """Who is that run in memory, and has all its letters up to one; None where they have to be told of."""
        one = self._only.get(run)
        if one is None or one.seen < after or self.came:  # what came before comes first
            return None
        return one

    def hint(self, kind: HintKind, name: str) -> None:
        """Something is new, which is told soon."""
        names = self._named.get(kind)
        if names is None:
            self._named[kind] = {name: None}
        else:
            names[name] = None
        if not self.telling:
            self.tell_later()

    def tell_later(self) -> None:
        """Once what is going on just now is done."""
        if not self.telling:
            self.telling = True
            (self._loop or asyncio.get_running_loop()).call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self.telling = False
        self.tell()

    def tell_ports(self) -> None:
        """What came to ports, at once."""
        answers, self.at_ports = self.at_ports, {}
        hint = Hint("mail", answers, answers)
        for listener in self._listeners:
            listener(hint)

    def tell(self) -> None:
        """All that is new, at once."""
        came, hints = self.came, self._named
        if came:
            self.came = {}
            mail = Hint("mail", came, came)
            for listener in self._listeners:
                listener(mail)
        if hints:
            self._named = {}
            for kind, names in hints.items():
                hint = Hint(kind, list(names))
                for listener in self._listeners:
                    listener(hint)
