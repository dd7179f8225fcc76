"""Runs on uvloop, which shows neither its timers nor what it is about to do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.authoring import test_iterables as iterables
from tests.authoring import test_time as time
from tests.authoring import test_timers as timers
from tests.runtime import test_parking as parking

uvloop = pytest.importorskip("uvloop")


@pytest.mark.parametrize(
    "make",
    [
        lambda: parking.test_a_bounded_wait_for_a_lock_isnt_held(),
        lambda: time.test_asyncios_timeout_strikes_again_in_a_replay("timeout"),
        lambda: time.test_asyncios_timeout_strikes_again_in_a_replay("wait_for"),
        lambda: time.test_asyncios_timeout_strikes_again_in_a_replay("wait"),
        lambda: timers.test_missed_times_count_as_one(),
        lambda: iterables.test_a_batch_waits_durably(),
    ],
)
def test_on_uvloop(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(make())
