"""Which way is in time, and when late calls begin."""

from __future__ import annotations

from math import inf

import pytest

from segue.core.deadlines import AT_ONCE, LIVE_PRIOR, NEWEST, Way, choose, expected, lead

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("took", "seconds"),
    [
        ([], DAY),
        ([60.0, 60.0], DAY),  # too few to go by
        ([60.0, 120.0, 90.0], 120.0),
        ([60.0] * 9 + [HOUR], 60.0),  # one in ten may be late
        ([60.0] * 8 + [HOUR, HOUR], HOUR),
        ([60.0] * 4 + [inf], DAY),  # one that wasn't done
        ([HOUR] * 3 + [60.0] * NEWEST, 60.0),  # the newest count
    ],
)
def test_nine_in_ten_of_the_newest(took: list[float], seconds: float) -> None:
    assert expected(took, DAY) == seconds


def test_the_cheapest_that_leaves_time_for_a_live_call() -> None:
    batch, middle = Way("batch", DAY, (HOUR,) * 3), Way("2h", 2 * HOUR)
    unknown = Way("batch", DAY)
    assert choose([batch, middle], 6 * HOUR, 60.0) is batch
    assert choose([unknown, middle], 6 * HOUR, 60.0) is middle
    assert (
        choose([unknown, middle], 2 * HOUR, 60.0) is None
    )  # it would be over when a live call must have begun
    assert choose([unknown, middle], 2 * HOUR, 0.0) is middle
    assert choose([batch], -1.0, 0.0) is None
    assert choose([], DAY, 0.0) is None


def test_more_late_lines_begin_sooner() -> None:
    assert lead([], 1) == 2 * LIVE_PRIOR
    assert lead([], AT_ONCE) == 2 * LIVE_PRIOR
    assert lead([], AT_ONCE + 1) == 3 * LIVE_PRIOR
    assert lead([2.0, 2.0, 3.0], 50_000) == 3.0 * 197
