"""When a lane sends, and what goes round again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from segue.core.batching import decide, fit_to_retry, poll_after
from segue.model.lane import LaneHead
from segue.model.mode import Batch

POLICY = Batch(max_lines=100, max_bytes=1000, max_age=timedelta(seconds=60))


@pytest.mark.parametrize(
    ("waiting", "size", "age", "quiet", "sends"),
    [
        (0, 0, 999, True, False),
        (1, 10, 0, False, False),
        (1, 10, 0, True, True),
        (100, 10, 0, False, True),
        (50, 10, 0, False, True),
        (2, 1000, 0, False, True),
        (2, 500, 0, False, True),
        (1, 10, 60, False, True),
        (1, 10, 59, False, False),
    ],
)
def test_a_lane_sends_when_full_old_or_quiet(
    waiting: int, size: int, age: float, quiet: bool, sends: bool
) -> None:
    lane = LaneHead("l", waiting, size, 1000.0)
    decision = decide(lane, POLICY, max_lines=50, max_bytes=500, quiet=quiet, now=1000.0 + age)
    assert decision.send is sends
    assert bool(decision.why) is sends
    if waiting and not sends:
        assert decision.again == 60 - age


def test_polls_thin_out() -> None:
    waits = [poll_after(elapsed) for elapsed in (0, 1, 60, 600, 86_400)]
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == 60.0


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (0, "batch_expired", True),
        (500, "", True),
        (429, "", True),
        (400, "bad_request", False),
        (404, "", False),
    ],
)
def test_passing_failures_go_round_again_but_not_for_ever(status: int, code: str, again: bool) -> None:
    assert fit_to_retry(status, code) is again
