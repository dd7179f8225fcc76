"""Who watches what, in this process."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[object], None]


class Bus:
    """Hands events of runs to those who watch them. Nobody watching costs a look into a dictionary."""

    def __init__(self) -> None:
        self._of: dict[str, list[Listener]] = {}

    def wants(self, run: str) -> bool:
        """Whether anybody watches that run, or all of them."""
        return bool(self._of) and (run in self._of or "" in self._of)

    def publish(self, run: str, event: object) -> None:
        """Tell those who watch."""
        if self._of:
            for listener in (*self._of.get(run, ()), *self._of.get("", ())):
                listener(event)

    def watch(self, run: str, listener: Listener) -> Callable[[], None]:
        """Watch one run, or all of them with an empty id; the return value ends it."""
        self._of.setdefault(run, []).append(listener)

        def end() -> None:
            left = self._of.get(run, [])
            if listener in left:
                left.remove(listener)
            if not left:
                self._of.pop(run, None)

        return end
