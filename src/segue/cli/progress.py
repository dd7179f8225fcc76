"""How far a job is, on a terminal as a bar, else as a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import Any

from .screen import dim, is_terminal, note

#: Seconds between plain lines.
EVERY = 5.0


class Progress:
    """A job's progress on standard error."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._bar: Any = None
        self._task: Any = None
        self._said = ""
        self._when = time.monotonic()
        if is_terminal(sys.stderr):
            self._bar = _bar()
            if self._bar is not None:
                self._task = self._bar.add_task("", total=None, words="")
                self._bar.start()

    def show(self, ended: int, total: int | None, words: str) -> None:
        """Where it stands now."""
        if self._bar is not None:
            self._bar.update(self._task, completed=ended, total=total, words=words)
        elif time.monotonic() - self._when >= EVERY:
            self.say(words)

    def say(self, words: str) -> None:
        """A line that stays, unless it was the last one already."""
        if words != self._said:
            self._said, self._when = words, time.monotonic()
            note(f"{self.what}: {words}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        note(dim("(with `pip install 'segue[cli]'` there is a progress bar here)", sys.stderr))
        return None
    return Progress(
        BarColumn(bar_width=16),
        TextColumn("{task.fields[words]}"),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=5,
    )
