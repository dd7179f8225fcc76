"""Trying a live call until it is answered, or fails for good."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

from ...authoring.context import BRANCH, Work
from ...core.retry import Retry
from ...model.errors import ContextOverflow, MissingKey, ModelFailed
from ...ports.clock import Clock
from ...ports.provider import OVERFLOW, CallFault
from ..ground.events import Retrying
from .limits import PATIENCE, QUIET, Limit

#: A record's `run` is the one that calls.
log = logging.getLogger("segue.retrying")

#: How a live call that failed for a passing reason is tried again.
LIVE_RETRY = Retry(6)
#: How long a call waits that was refused because there are too many.
REFUSED = Retry(PATIENCE, longest=timedelta(seconds=30))


def model_failed(model: str, status: int, message: str, code: str) -> ModelFailed:
    """A call's or a line's error, as its run will raise it."""
    kind = ContextOverflow if code == OVERFLOW else ModelFailed
    return kind(model, status, message, code)


#: How the reason begins for which a row is held whose model call was refused for its key.
KEY_REFUSED = "the key was refused"


def key_refused(run: str, error: BaseException) -> str:
    """Why a run is held that ended so, empty if it isn't: a wrong key, or none, is no fault of its row."""
    if isinstance(error, MissingKey):
        return f"{KEY_REFUSED}, for there is none: {error}\nThen `segue resume {shlex.quote(run)}`"
    if not isinstance(error, ModelFailed) or error.status not in (401, 403):
        return ""
    return f"{KEY_REFUSED}: {error}\nMend the key, then `segue resume {shlex.quote(run)}`"


class Trouble(NamedTuple):
    """A try of a live call that failed for a passing reason. `wait`: seconds until the next, about."""

    fault: CallFault
    attempt: int
    wait: float


def retrying(run: str, place: tuple[str, int], model: str, told: Trouble) -> Retrying:
    """What watchers of the run see of it."""
    return Retrying(
        run=run,
        path=place[0],
        n=place[1],
        model=model,
        attempt=told.attempt,
        status=told.fault.status,
        message=told.fault.message,
        wait=round(told.wait, 3),
    )


async def until_answered(
    limit: Limit,
    clock: Clock,
    send: Callable[[int], Awaitable[bytes]],
    *,
    most: int,
    tokens: int,
    seed: str,
    model: str,
    run: str = "",
    tell: Callable[[Trouble], None] | None = None,
    waits: Callable[[str], object] | None = None,
    spoil: Callable[[], None] | None = None,
) -> bytes:
    """What `send` gives; it is told the number of its attempt. Raises the last `CallFault`.

    `most` calls are under way at once, and as many as the endpoint bears; `tokens` is what this one may cost. `waits`
    is told what for, where that takes long. `spoil` is told of answers that came and were no use: they may be billed.
    """
    attempt, refusals = 1, 0
    while True:
        async with limit.place(most, tokens, waits) as flight:
            _sent(True)
            try:
                answer = await send(attempt + refusals)
                limit.answered(flight)
                return answer
            except CallFault as fault:
                failure = fault
                if fault.status == 200 and spoil is not None:
                    spoil()
            _sent(False)
            refused = limit.refused(flight, failure)
        if not failure.again or attempt >= LIVE_RETRY.attempts or refusals >= PATIENCE:
            raise failure
        key = f"{seed}{'refused' if refused else ''}"
        wait = REFUSED.wait_after(refusals + 1, key) if refused else LIVE_RETRY.wait_after(attempt, key)
        told = Trouble(failure, attempt + refusals, wait if failure.after is None else failure.after)
        if limit.is_news(failure):
            _log(model, run, told)
        if tell is not None:
            tell(told)
        if refused:
            refusals += 1
        else:
            attempt += 1
        if not refused or failure.after is None:  # otherwise the limit knows
            await clock.sleep(told.wait)


def _sent(sent: bool) -> None:
    """Note of the recorded call that this is, if it is one, whether a provider has it."""
    work = BRANCH.get()
    if isinstance(work, Work):
        work.sent = sent


def _log(model: str, run: str, told: Trouble) -> None:
    status = f"HTTP {told.fault.status}, " if told.fault.status else ""
    log.warning(
        "model %r: %s%s; it is tried again in %.1f s. Said once in %.0f min",
        model, status, told.fault.message, told.wait, QUIET / 60, extra={"run": run},
    )  # fmt: skip
