"""Time that a replay tells again: the clock, ids, chance, and waits that survive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import Any
from uuid import UUID

from ..core.codec import digest, encode
from ..model.checks import seconds
from ..model.entry import Failure
from .context import Branch, Wait, current


def now() -> datetime:
    """The time, in UTC: that at which the last outcomes were handed to the run, so a replay reads the same."""
    return datetime.fromtimestamp(current("now").run.now(), UTC)


def _draw(verb: str) -> bytes:
    """Sixteen bytes that belong to this place in this run, and in its forks."""
    branch = current(verb)
    place = f"{branch.run.seed}{branch.path}:{branch.n}"
    branch.n += 1
    return blake2b(place.encode(), digest_size=16).digest()


def uuid() -> UUID:
    """A random id that a replay gives again."""
    return UUID(bytes=_draw("uuid"), version=4)


class _Random(Random):
    """`random.Random`, seeded anew for each draw from where in the run it is made."""

    def random(self) -> float:
        return (int.from_bytes(_draw("random")[:7], "big") >> 3) / (1 << 53)

    def getrandbits(self, k: int, /) -> int:
        if k <= 0:
            return 0
        bits, place = b"", _draw("random")
        count = 0
        while len(bits) * 8 < k:
            bits += blake2b(place + count.to_bytes(4, "big")).digest()
            count += 1
        return int.from_bytes(bits, "big") >> (len(bits) * 8 - k)

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        """As `normalvariate`: the library's own keeps every second value for whoever asks next."""
        return self.normalvariate(mu, sigma)

    def seed(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to seed: the run is the seed."""


#: Chance that a replay draws again: `segue.random.choice(…)` and all else that `random.Random` has.
random = _Random()


async def sleep(until: timedelta | datetime, /) -> None:
    """Wait for that long or until then, durably: hours and days cost a row, and no process need live.

    A `datetime` must know its time zone.
    """
    branch = current("sleep")
    if not isinstance(until, datetime):
        await pause(branch, seconds("sleep()", until))
        return
    if until.tzinfo is None:
        raise ValueError(
            f"sleep() until {until!r}: say the time zone, as in datetime(…, tzinfo=timezone.utc)"
        )
    await _wait_until(branch, "sleep", until.timestamp(), encode(until))


async def pause(branch: Branch, length: float) -> None:
    """Wait durably on a branch, for so many seconds."""
    await timer(branch, length)


def timer(branch: Branch, length: float) -> asyncio.Future[None]:
    """A durable wait that is done after so many seconds; cancelling it gives it up."""
    when = branch.run.now() + length
    waits: asyncio.Future[None] = _wait_until(branch, "sleep", when, encode(round(length, 6)))
    return waits


def _wait_until(branch: Branch, kind: str, due: float, args: bytes) -> Any:
    wait = Wait(kind=kind, name=kind, args=args, digest=digest(args), decode=_nothing, due=max(due, 1e-9))
    return branch.run.record(branch, wait)


def _nothing(value: bytes) -> None:
    return None


def overdue(what: str) -> Failure:
    """The outcome of a wait that took too long and has no default."""
    text = f"{what} timed out"
    return Failure("builtins:TimeoutError", text, encode([text]))


@asynccontextmanager
async def timeout(after: timedelta, /) -> AsyncGenerator[None]:
    """`async with segue.timeout(…)`: raises `TimeoutError` if the block takes longer, parked time included."""
    branch = current("timeout")
    task = asyncio.current_task()
    assert task is not None  # a branch that is awaited has a task
    length = seconds("timeout()", after)
    timer = _wait_until(branch, "timeout", branch.run.now() + length, encode(length))
    cancels, fired, over = task.cancelling(), False, False

    def fire(timer: asyncio.Future[Any]) -> None:
        nonlocal fired
        if not over and not timer.cancelled() and timer.exception() is None:
            fired = True
            task.cancel(f"segue.timeout({after})")

    timer.add_done_callback(fire)
    try:
        yield
    except asyncio.CancelledError as error:
        if fired and task.uncancel() <= cancels:
            fired = False
            raise TimeoutError(f"the block took longer than {after}") from error
        fired = False
        raise
    finally:
        over = True  # it may be on its way already
        if fired:
            task.uncancel()
        timer.cancel()
