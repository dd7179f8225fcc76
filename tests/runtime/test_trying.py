"""Live calls that are tried again say so. Time is virtual."""

from __future__ import annotations

import asyncio
import logging

import pytest

from segue.ports.provider import CallFault
from segue.runtime.calls.limits import PATIENCE, QUIET, Limit
from segue.runtime.calls.trying import LIVE_RETRY, Trouble, until_answered
from segue.testing.clock import VirtualClock

GONE = CallFault(0, "no connection to nowhere", again=True, code="unreachable")


class Calls:
    """Fails with one fault until it is told otherwise."""

    def __init__(self, fault: CallFault, answers_after: int = 10_000) -> None:
        self.clock, self.fault, self.left = VirtualClock(), fault, answers_after
        self.limit, self.tried, self.told = Limit(self.clock), 0, list[Trouble]()

    async def send(self, attempt: int) -> bytes:
        self.tried += 1
        if self.tried <= self.left:
            raise self.fault
        return b"{}"

    async def go(self) -> bytes:
        async with asyncio.timeout(10):
            return await until_answered(
                self.limit,
                self.clock,
                self.send,
                most=5,
                tokens=1,
                seed="s",
                model="m",
                tell=self.told.append,
            )


async def test_a_server_that_was_never_reached_is_given_up_soon():
    calls = Calls(GONE)
    with pytest.raises(CallFault):
        await calls.go()
    assert calls.tried == LIVE_RETRY.attempts
    assert [trouble.attempt for trouble in calls.told] == list(range(1, LIVE_RETRY.attempts))
    assert calls.told[-1].wait > calls.told[0].wait > 0


async def test_one_that_answered_before_is_waited_for():
    calls = Calls(GONE, answers_after=0)
    await calls.go()
    calls.tried, calls.left = 0, 12
    await calls.go()
    assert calls.tried == 13
    calls.tried, calls.left = 0, 1000
    with pytest.raises(CallFault):
        await calls.go()
    assert calls.tried == PATIENCE + 1


async def test_a_trouble_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture):
    calls = Calls(CallFault(500, "out of order", again=True), answers_after=3)
    await calls.go()
    with caplog.at_level(logging.WARNING, "segue.retrying"):
        assert [record.getMessage() for record in caplog.records] == [
            "model 'm': HTTP 500, out of order; it is tried again in "
            f"{calls.told[0].wait:.1f} s. Said once in 10 min"
        ]
        await calls.clock.sleep(QUIET)
        calls.tried = 0
        await calls.go()
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("fault", "spoilt"),
    [
        (CallFault(400, "no", again=False), 0),
        (CallFault(200, "it broke off", again=False, code="truncated"), 1),
    ],
)
async def test_what_wont_pass_is_tried_once(fault: CallFault, spoilt: int):
    calls, spoils = Calls(fault), list[int]()
    with pytest.raises(CallFault):
        await until_answered(
            calls.limit, calls.clock, calls.send, most=5, tokens=1, seed="s", model="m",
            spoil=lambda: spoils.append(calls.tried),
        )  # fmt: skip
    assert (calls.tried, len(spoils), calls.told) == (1, spoilt, [])


async def test_a_wait_that_the_endpoint_names_is_kept_once():
    for status in (429, 500):
        calls = Calls(CallFault(status, "wait", again=True, after=7.0), answers_after=2)
        began = calls.clock.steady()
        assert await calls.go() == b"{}"
        assert calls.clock.steady() - began == 14.0
        assert [trouble.wait for trouble in calls.told] == [7.0, 7.0]
