"""How large a job may be, as far as a quota of enqueued tokens is known."""

from __future__ import annotations

import pytest

from segue.core.admission import (
    BYTES_PER_TOKEN,
    Quota,
    accepted,
    at_fault,
    estimate,
    is_beyond,
    refused,
    room,
)


def test_nothing_is_known_at_first() -> None:
    assert room(Quota(), 10**9, 10**9) is None
    assert accepted(Quota(), 10**9) == Quota()


@pytest.mark.parametrize(
    ("queued", "waiting", "tokens"),
    [
        (0, 9000, 1000),
        (0, 3, 1000),
        (300, 9000, 900),
        (2700, 9000, 0),  # what is left is little, and much waits
        (2700, 300, 100),  # all that waits has room
        (3000, 3, 0),
        (9000, 3, 0),
    ],
)
def test_room(queued: int, waiting: int, tokens: int) -> None:
    assert room(Quota(limit=1000), queued, waiting) == tokens * BYTES_PER_TOKEN


def test_one_line_may_always_be_tried_alone() -> None:
    assert room(Quota(limit=1), 0, 10**6) == BYTES_PER_TOKEN  # a job has one line at least


def test_refusals_halve_what_is_tried_and_wait_longer_each_time() -> None:
    quota = refused(Quota(), 600, 2400, "Limit: 1,200 enqueued tokens", 10.0)
    assert quota == Quota(500, 1, 12.0, 1200)
    waits = []
    for _ in range(8):
        quota = refused(quota, 0, 1500, "no", 0.0)
        waits.append(quota.until)
    assert waits == [4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]
    assert (quota.limit, quota.stated) == (1, 1200)


def test_a_job_that_passes_near_the_top_raises_it() -> None:
    quota = Quota(limit=800, refusals=3, until=5.0, stated=7)
    assert accepted(quota, 300) == Quota(limit=800, stated=7)
    assert accepted(quota, 2400) == Quota(limit=901, stated=7)


def test_the_search_ends_near_the_quota() -> None:
    """Whatever the quota is, most jobs pass, and they are more than a third of it."""
    for real in (7, 100, 12_345, 2_000_000):
        quota, passed, failed = Quota(), [], 0
        for _ in range(200):
            size = room(quota, 0, 10**8) or 10**8
            if estimate(size) <= real:
                passed.append(estimate(size))
                quota = accepted(quota, size)
            else:
                failed += 1
                quota = refused(quota, 0, size, "", 0.0)
        assert failed < 100
        assert sum(passed) / len(passed) > real / 3


def test_what_can_never_fit() -> None:
    assert not is_beyond(Quota(limit=1), 10**9)
    assert is_beyond(Quota(limit=1, stated=100), 3 * 401)
    assert not is_beyond(Quota(limit=1, stated=100), 3 * 400)


def test_lines_at_fault() -> None:
    assert at_fault(3, (0, 1, 3, 4, 99)) == {1, 3}
    assert at_fault(3, (7,)) == set()
