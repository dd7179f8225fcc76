"""Runs at work whose steps wait for other runs: while they do they take no room from those they wait for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ...authoring.context import BRANCH, Work

#: What waits in no run: an engine's caller, mostly.
_NO_RUN = nullcontext()


class Absent:
    """How many runs of one worker wait so. `more` is told when there is one more."""

    def __init__(self, more: Callable[[], None]) -> None:
        self._more = more
        self._waits: dict[str, int] = {}  # by run
        self.count = 0  #: of runs

    def waiting(self) -> AbstractContextManager[None]:
        """Around a wait for another run, whoever waits; only that of a step counts."""
        work = BRANCH.get()
        if not isinstance(work, Work) or work.caller is None:
            return _NO_RUN
        return self._counted(work.caller.run.id)

    @contextmanager
    def _counted(self, run: str) -> Generator[None]:
        waits = self._waits
        waits[run] = waits.get(run, 0) + 1
        self.count = len(waits)
        self._more()
        try:
            yield
        finally:
            waits[run] -= 1
            if not waits[run]:
                del waits[run]
                self.count = len(waits)
