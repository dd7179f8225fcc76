"""Runs at work whose steps wait for other runs: while they do they take no room from those they wait for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from ...authoring.context import BRANCH, Work


class Absent:
    """How many runs of one worker wait so. `more` is told when there is one more."""

    def __init__(self, more: Callable[[], None]) -> None:
        self._more = more
        self._waits: dict[str, int] = {}  # by run

    def __len__(self) -> int:
        return len(self._waits)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Around a wait for another run, whoever waits; only that of a step counts."""
        work = BRANCH.get()
        if not isinstance(work, Work) or work.caller is None:
            yield
            return
        run, waits = work.caller.run.id, self._waits
        waits[run] = waits.get(run, 0) + 1
        self._more()
        try:
            yield
        finally:
            waits[run] -= 1
            if not waits[run]:
                del waits[run]
