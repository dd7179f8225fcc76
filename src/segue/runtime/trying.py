"""Trying a live call until it is answered, or fails for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from ..core.retry import Retry
from ..model.errors import ContextOverflow, ModelFailed
from ..ports.clock import Clock
from ..ports.provider import OVERFLOW, CallFault
from .limits import PATIENCE, Limit

#: How a live call that failed for a passing reason is tried again.
LIVE_RETRY = Retry(6)
#: How long a call waits that was refused because there are too many.
REFUSED = Retry(PATIENCE, longest=timedelta(seconds=30))


def model_failed(model: str, status: int, message: str, code: str) -> ModelFailed:
    """A call's or a line's error, as its run will raise it."""
    kind = ContextOverflow if code == OVERFLOW else ModelFailed
    return kind(model, status, message, code)


async def until_answered(
    limit: Limit, clock: Clock, send: Callable[[int], Awaitable[bytes]], *, most: int, tokens: int, seed: str
) -> bytes:
    """What `send` gives; it is told the number of its attempt. Raises the last `CallFault`.

    `most` calls are under way at once, and as many as the endpoint bears; `tokens` is what this one may cost.
    """
    attempt, refusals = 1, 0
    while True:
        async with limit.place(most, tokens) as flight:
            try:
                answer = await send(attempt + refusals)
                limit.answered(flight)
                return answer
            except CallFault as fault:
                failure = fault
            refused = limit.refused(flight, failure)
        if not failure.again or attempt >= LIVE_RETRY.attempts or refusals >= PATIENCE:
            raise failure
        key = f"{seed}{'refused' if refused else ''}"
        if refused:
            refusals += 1
            if failure.after is None:  # otherwise the limit knows
                await clock.sleep(REFUSED.wait_after(refusals, key))
        else:
            wait = LIVE_RETRY.wait_after(attempt, key)
            await clock.sleep(wait if failure.after is None else failure.after)
            attempt += 1
