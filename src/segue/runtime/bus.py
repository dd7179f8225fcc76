"""Who watches what, in this process."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[object], None]


class Bus:
    """Hands events of runs to those who watch them. Nobody watching costs a look into a dictionary."""

    def __init__(self) -> None:
        self.of: dict[str, list[Listener]] = {}  #: by run; empty if nobody watches any

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
