"""Requests that are the same: how they are known, and one of them sent where several are made at the same time.

What they are known by is what is sent: provider, place, endpoint and the body as it is. Nothing in it is renamed or
sorted, as a journal's check does: what a call is there, its place says; here an id in a prompt is part of the question.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable
from hashlib import blake2b

from ...model.lane import Answer
from ...model.run import REUSED
from ...ports.clock import Clock
from ...ports.provider import Endpoint, Provider, question_of
from ...ports.store import Store, Turn, adding
from ...providers.wire import dialect_of, object_of


def same_as(endpoint: Endpoint, to: str, body: bytes) -> str:
    """What a request asks, in 32 hex digits: not whose key pays for it, nor when its answer is wanted."""
    place = endpoint.base_url.rstrip("/").removesuffix("/v1")
    asked = "\0".join((endpoint.provider, place, to, endpoint.model))
    return blake2b(asked.encode() + b"\0" + body, digest_size=16).hexdigest()


def asked_of(provider: Provider, endpoint: Endpoint, to: str, body: bytes) -> str:
    """The same, of a request as a provider's body."""
    return same_as(endpoint, to, question_of(provider, body))


def is_whole(provider: Provider, to: str, body: bytes) -> bool:
    """Whether an answer will do for those who ask the same later: none that was cut off, declined or filtered."""
    if to.startswith("/"):
        return dialect_of(to).is_whole(object_of(body))
    return to != "chat" or provider.chat_reply(body).stop in ("end", "tool")


class Sameness:
    """The live calls of one engine whose answers may be another's."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._flights: dict[str, _Flight] = {}

    def sharing(self, since: float, whole: Callable[[bytes], bool]) -> Shared:
        """A call that takes an answer that came since then. `whole`: whether one may be kept."""
        return Shared(self, since, whole)

    def kept(self, same: str) -> None:
        """Its answer is durable: who asks now finds it."""
        self._flights.pop(same, None)

    async def given(self, same: str, since: float, whole: Callable[[bytes], bool], send: Send) -> _Flight:
        """The answer: one that is kept, or that of a call under way, or by sending it."""
        while (flight := self._flights.get(same)) is not None:
            answered = await asyncio.shield(flight.landing)
            if answered and (not flight.fresh or flight.at >= since):
                return flight
            if self._flights.get(same) is flight:  # who sent it gave up, or nobody wrote it down for long
                del self._flights[same]
        flight = self._flights[same] = _Flight(same, asyncio.get_running_loop().create_future())
        try:
            known = (await self._store.answers([same])).get(same)
            if known is not None and known.at >= since:
                flight.value, flight.paid = known.value, True
            else:
                flight.value = await send()
                flight.fresh, flight.at = whole(flight.value), self._clock.now()
        except Exception as error:
            flight.landing.set_exception(error)
            flight.landing.exception()  # nobody may wait for it
            raise
        except BaseException:  # given up
            flight.landing.set_result(False)
            raise
        else:
            flight.landing.set_result(True)
        finally:
            if not flight.fresh and self._flights.get(same) is flight:
                del self._flights[same]
        return flight


Send = Callable[[], Awaitable[bytes]]


class _Flight:
    """A request that is being answered, once for all who make it meanwhile, and until its answer is durable."""

    __slots__ = ("at", "fresh", "landing", "paid", "same", "value")

    def __init__(self, same: str, landing: Future[bool]) -> None:
        self.same, self.landing = same, landing
        self.value = b""
        self.at = 0.0
        self.fresh = False  #: it is to be kept
        self.paid = False  #: a run has it in its usage, or is about to


class Shared:
    """One call of those."""

    __slots__ = ("_flight", "_sameness", "_since", "_whole")

    def __init__(self, sameness: Sameness, since: float, whole: Callable[[bytes], bool]) -> None:
        self._sameness, self._since, self._whole = sameness, since, whole
        self._flight: _Flight | None = None

    async def answer(self, same: str, send: Send) -> tuple[bytes, bool]:
        """The answer, and whether somebody else made it come."""
        sent = False

        async def sends() -> bytes:
            nonlocal sent
            sent = True
            return await send()

        self._flight = await self._sameness.given(same, self._since, self._whole, sends)
        return self._flight.value, not sent

    def settles(self, turn: Turn) -> str:
        """With the turn that records the answer it is kept. The lane in which it counts, if that isn't the call's own:
        whose turn is the first has paid for it."""
        flight = self._flight
        if flight is None:
            return ""
        if flight.fresh:
            turn.answers = adding(turn.answers, Answer(flight.same, flight.value, flight.at))
        if flight.paid:
            return REUSED
        flight.paid = True
        return ""
