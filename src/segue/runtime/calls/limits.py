"""How many live calls go at once to one endpoint: as many as it bears.

The number grows with answers and is halved by a refusal (additive increase, multiplicative decrease); what the
endpoint says of its limits, by `retry-after` and in rate headers, is kept to. Nothing here knows a call's contents.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable

from ...ports.clock import AlarmClock, Timer
from ...ports.provider import CallFault, Rates
from .room import LONG

#: Calls at once at first; the number doubles with each round of answers until the first refusal.
FIRST = 32.0
#: A refused call is tried so often at most: it is the endpoint's pace that is to blame, not the call.
PATIENCE = 40
#: Where a reset is said to be further away than this, in seconds, a call is tried by then: a limit refills bit by bit.
LONGEST = 60.0
#: A trouble is logged once in so many seconds.
QUIET = 600.0

#: Who hears what a call waits for.
Told = Callable[[str], object]

_REFUSALS = frozenset({429, 498, 503, 529})
_OVERWHELMED = frozenset({"timeout", "unreachable"})


class Flight:
    """A call that is under way. `narrowed` is how often the limit had been narrowed when it began."""

    __slots__ = ("held_back", "narrowed")

    def __init__(self, narrowed: int, held_back: bool) -> None:
        self.narrowed, self.held_back = narrowed, held_back


class _Waiter:
    """A call that waits for its turn; `tokens` is what it may cost, `most` how many may be under way with it."""

    __slots__ = ("admitted", "most", "number", "tokens")

    def __init__(self, number: int, most: int, tokens: int, admitted: Future[None]) -> None:
        self.number, self.most, self.tokens, self.admitted = number, most, tokens, admitted


class _Place:
    """A call's place while its `async with` is open."""

    __slots__ = ("_limit", "_most", "_tokens", "_told")

    def __init__(self, limit: Limit, most: int, tokens: int, told: Told | None) -> None:
        self._limit, self._most, self._tokens, self._told = limit, most, tokens, told

    async def __aenter__(self) -> Flight:
        return await self._limit.enter(self._most, self._tokens, self._told)

    async def __aexit__(self, *_: object) -> None:
        self._limit.leave()


class Limit:
    """The limit of one endpoint and key, in one process."""

    def __init__(self, clock: AlarmClock, first: float = FIRST) -> None:
        self._clock = clock
        self.width = first  #: how many may be under way
        self.flying = 0
        self._spoke = False  # there is somebody
        self._told: dict[tuple[int, str], float] = {}  # when each trouble was logged
        self._slow = False  # it was narrowed once: from then on it grows by one a round
        self._narrowed = 0
        self._queues: dict[int, deque[_Waiter]] = {}
        self._number = 0
        self._landing = False  # nothing begins any more
        self._paused = 0.0  # nothing begins before
        self._alarm: Timer | None = None
        self._requests: int | None = None  # left, as far as was told
        self._tokens: int | None = None
        self._most_tokens = 0  # that were ever left
        self._resets = (0.0, 0.0)  # when they are all there again: requests, tokens

    def place(self, most: int, tokens: int = 0, told: Told | None = None) -> _Place:
        """A place for one call: waits until fewer than `most` are under way and the endpoint bears one more.

        `told` what it waits for, where that takes long.
        """
        return _Place(self, most, tokens, told)

    async def enter(self, most: int, tokens: int, told: Told | None = None) -> Flight:
        """Take a place; `leave` gives it back."""
        self._number += 1
        waiter = _Waiter(self._number, most, tokens, asyncio.get_running_loop().create_future())
        self._queues.setdefault(most, deque()).append(waiter)
        self._admit()
        held_back, alarm = not waiter.admitted.done(), None
        if held_back and told is not None:
            alarm = self._clock.call_later(LONG, lambda: told(self._why(waiter)))
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled():
                self.leave()  # it was let in the moment it was called off
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
        return Flight(self._narrowed, held_back or self.flying >= self.width - 1)

    def _why(self, waiter: _Waiter) -> str:
        """What keeps a call from being let in."""
        if self.flying >= waiter.most:
            return f"its turn: so many live calls as may be are under way, {waiter.most}"
        if self.flying >= max(1.0, self.width):
            return (
                f"its turn: {self.flying} live calls are under way, and the endpoint bears no more just now"
            )
        return "the endpoint, which takes no more calls for a while"

    # ------------------------------------------------------------ what calls tell
    def answered(self, flight: Flight) -> None:
        """A call was answered. The limit grows only where it was in the way."""
        self._spoke = True
        if flight.held_back and flight.narrowed == self._narrowed:
            self.width += 1.0 / self.width if self._slow else 1.0
            self._admit()

    def refused(self, flight: Flight, fault: CallFault) -> bool:
        """A call failed; whether because the endpoint was asked too much.

        An endpoint of which nothing was ever heard isn't reached because it isn't there.
        """
        code = fault.code if fault.status == 0 else ""
        self._spoke = self._spoke or fault.status != 0
        if code == "unreachable" and not self._spoke:
            return False
        if not fault.again or not (fault.status in _REFUSALS or code in _OVERWHELMED):
            return False
        if flight.narrowed == self._narrowed:  # once for all that were under way together
            self._narrowed += 1
            self._slow = True
            self.width = max(1.0, min(self.width, self.flying) / 2)
        if fault.after is not None:
            self._pause(fault.after)
        return True

    def is_news(self, fault: CallFault) -> bool:
        """Whether that trouble wasn't met for a while."""
        kind, now = (fault.status, fault.code), self._clock.steady()
        if now - self._told.get(kind, -QUIET) < QUIET:
            return False
        self._told[kind] = now
        return True

    def heard(self, rates: Rates) -> None:
        """What an answer's headers say."""
        now = self._clock.steady()
        self._requests, self._tokens = rates.requests, rates.tokens
        self._most_tokens = max(self._most_tokens, rates.tokens or 0)
        requests, tokens = rates.requests_reset or 0.0, rates.tokens_reset or 0.0
        self._resets = (now + min(requests, LONGEST), now + min(tokens, LONGEST))

    # ------------------------------------------------------------ who is let in
    def leave(self) -> None:
        """A call is over."""
        self.flying -= 1
        self._admit()

    def _pause(self, seconds: float) -> None:
        self._paused = max(self._paused, self._clock.steady() + seconds)

    def _admit(self) -> None:
        """Let in whom there is room for, the one that has waited longest first."""
        while self.flying < max(1.0, self.width) and not self._landing:
            waiter = self._first()
            if waiter is None or not self._spend(waiter):
                return
            self._queues[waiter.most].popleft()
            self.flying += 1
            waiter.admitted.set_result(None)

    def _first(self) -> _Waiter | None:
        found: _Waiter | None = None
        for most, queue in list(self._queues.items()):
            while queue and queue[0].admitted.done():  # called off
                queue.popleft()
            if not queue:
                del self._queues[most]
            elif self.flying < most and (found is None or queue[0].number < found.number):
                found = queue[0]
        return found

    def _spend(self, waiter: _Waiter) -> bool:
        """Take what a call needs of what is left; false, and a look later, where it isn't there."""
        now = self._clock.steady()
        wait = self._paused - now
        requests, tokens = self._resets
        if self._requests is not None and self._requests < 1:
            wait = max(wait, requests - now)  # no wait any more, once they are all there again
        needs = max(1, min(waiter.tokens, self._most_tokens))  # what is more than there ever is may go, then
        if self._tokens is not None and self._tokens < needs:
            wait = max(wait, tokens - now)
        if wait > 0:
            self._look_in(wait)
            return False
        if self._requests is not None:
            self._requests -= 1
        if self._tokens is not None:
            self._tokens -= waiter.tokens
        return True

    def _look_in(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._clock.call_later(seconds, self._look)

    def _look(self) -> None:
        self._alarm = None
        self._admit()

    def land(self) -> None:
        """Let nobody in any more."""
        self._landing = True

    def close(self) -> None:
        """Set no alarm any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
