"""Which turns may give room in a budget back, alike in every store."""

from __future__ import annotations

from ..ports.store import Turn


def may_give_back(turn: Turn) -> bool:
    """Whether a call may have less reserved after a turn: then those that wait for room are looked at."""
    leaves = turn.release or turn.status != "ready"
    return bool(leaves or turn.settled or turn.withdrawn or turn.answers or turn.lines)
