"""When a lane sends what waits in it, how often it looks at a job, and what becomes of a line's result."""

from __future__ import annotations

import msgspec

from ..model.lane import LaneHead
from ..model.mode import Batch

#: A line is sent at most this often before its error is its run's.
ATTEMPTS = 4

#: Codes of lines that failed for no fault of theirs.
_PASSING = frozenset(
    {"batch_expired", "batch_cancelled", "server_error", "internal_error", "rate_limit_exceeded"}
)


class Decision(msgspec.Struct, frozen=True):
    """Whether to send now, why, and if not, when to look again at the latest (seconds)."""

    send: bool
    why: str = ""
    again: float | None = None


def decide(
    lane: LaneHead, policy: Batch, *, max_lines: int, max_bytes: int, quiet: bool, now: float
) -> Decision:
    """Send what waits when it fills a job, when its oldest line is old, or when nothing more will come.

    `quiet`: no run is ready and no input is left to admit, so no line can join before an outcome is back.
    """
    if not lane.waiting:
        return Decision(False)
    if lane.waiting >= min(policy.max_lines, max_lines):
        return Decision(True, "a full job of lines")
    if lane.size >= min(policy.max_bytes, max_bytes):
        return Decision(True, "a full job of bytes")
    age = now - lane.oldest
    if age >= policy.max_age.total_seconds():
        return Decision(True, "the oldest line has waited long enough")
    if quiet:
        return Decision(True, "every run waits")
    return Decision(False, again=policy.max_age.total_seconds() - age)


def poll_after(elapsed: float) -> float:
    """Seconds to the next look at a job that was sent so long ago: often at first, at last once a minute."""
    return min(max(elapsed / 20, 0.25), 60.0)


def fit_to_retry(status: int, code: str) -> bool:
    """Whether a line that came back so should go round again, `ATTEMPTS` times in all."""
    return code in _PASSING or status in (0, 408, 409, 425, 429) or status >= 500
