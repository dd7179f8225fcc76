"""Retry policies."""

from __future__ import annotations

from datetime import timedelta

from segue.core.retry import Retry


def test_waits_double_up_to_the_longest_less_some_jitter() -> None:
    retry = Retry(10, wait=timedelta(seconds=1), longest=timedelta(seconds=10))
    for attempt, full in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (9, 10.0)]:
        assert full / 2 <= retry.wait_after(attempt, "k") <= full


def test_the_jitter_is_the_same_in_a_replay_and_differs_between_calls() -> None:
    retry = Retry(3)
    assert retry.wait_after(1, "a") == retry.wait_after(1, "a")
    assert len({retry.wait_after(1, str(key)) for key in range(50)}) > 40


def test_only_the_errors_named_are_tried_again() -> None:
    retry = Retry(3, on=(KeyError, TimeoutError))
    assert retry.wants(TimeoutError())
    assert not retry.wants(ValueError())
    assert Retry().wants(ValueError())
    assert not Retry().wants(KeyboardInterrupt())
