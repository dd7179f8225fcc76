"""Which way a model call goes that has a deadline, and when those that are late are sent live.

How long each way takes is judged by the jobs that it had: a high percentile of the newest; before there are enough,
by what the provider promises. Pure: seconds in, seconds out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

#: So many of the newest jobs count.
NEWEST = 32
#: Fewer say nothing: the provider's word is taken.
ENOUGH = 3
#: Of ten jobs, so many were over by the time that is expected of the next.
TENTHS = 9
#: What a round of live calls takes as long as none was seen, in seconds.
LIVE_PRIOR = 30.0
#: So many lines are sent live at once at most; the limit of live calls may be narrower.
AT_ONCE = 256


class Way(msgspec.Struct, frozen=True):
    """A way that a call can go: its name (`batch`, or a window such as `2h`), the seconds that the provider promises,
    its jobs so far in seconds.
    """

    name: str
    promised: float
    took: tuple[float, ...] = ()

    @property
    def expected(self) -> float:
        """See `expected`."""
        return expected(self.took, self.promised)


def expected(took: Sequence[float], promised: float) -> float:
    """Seconds in which the next job is over, nine times in ten. `took` is infinite for those that weren't done."""
    newest = sorted(took[-NEWEST:])
    if len(newest) < ENOUGH:
        return promised
    seconds = newest[-(-len(newest) * TENTHS // 10) - 1]
    return seconds if seconds < math.inf else promised


def choose(ways: Sequence[Way], left: float, lead: float) -> Way | None:
    """The first of these, the cheapest first, that is over before a live call must begin; None for a live call."""
    return next((way for way in ways if way.expected <= left - lead), None)


def lead(took: Sequence[float], lines: int, at_once: int = AT_ONCE) -> float:
    """How long before their deadline so many late lines have to begin to be sent live, in seconds.

    `took`: what rounds of live calls took. They go in rounds of `at_once`, and one is to spare.
    """
    return expected(took, LIVE_PRIOR) * (1 + math.ceil(max(1, lines) / at_once))
