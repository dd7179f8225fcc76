"""Who may follow whom among lines that ask the same, alike in every store."""

from __future__ import annotations

from ..model.lane import Line


def is_sooner(line: Line, due: float) -> bool:
    """Whether a line has to be answered before another one that is late at `due`, or never where that is 0."""
    return line.due > 0 and (due == 0 or line.due < due)


def follows(line: Line, due: float) -> bool:
    """Whether a line may wait for the outcome of one that is late at `due`: one that fails when it is late would fail
    itself, where one that goes live then makes the other go."""
    return not is_sooner(line, due) or line.late == "live"
