"""The receiving end of a subscription: in a run, its events are mail to that; outside, to this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from ...authoring.actor.subscription import (
    Subscription,
    event_type,
    next_event,
    subscribe,
    unsubscribe,
)
from ...authoring.context import Branch, current, find_branch
from ...authoring.message import message_name, response_type
from ...core.codec import decoder, encode
from ...model.errors import RunEnded, WrongPlace
from .feeds import Feeds, Heard

if TYPE_CHECKING:
    from ..handles import Run

S = TypeVar("S")
E = TypeVar("E")


class Feed(Generic[S, E]):
    """A subscription: `async with run.subscribe(Progress()) as feed` gives `feed.snapshot`, and iterates the events.

    Leaving the block calls it off; so does the end of this process. Iteration ends when the publisher is done, and
    raises `RunEnded` when it ended otherwise. Events that aren't read yet are kept. An actor may also
    `await run.subscribe(Progress())`, outside of `async with`: then events come as mail of their type, to its `@on`
    handlers, until `close`. Such a feed may be kept in a field, to be closed from there.
    """

    def __init__(self, run: Run[Any], message: Subscription[S, E] | None, key: str = "") -> None:
        self._run, self._message = run, message
        self._event = event_type(type(message))
        self._key = key
        self._heard: Heard | None = None  # outside of runs
        self._feeds: Feeds  # of the engine that it was entered in, which may be closed by now
        self._entered = False
        self.snapshot: S

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._stay().__await__()

    def __segue_text__(self) -> str:
        """As it is kept in a field."""
        if not self._key or self._entered:
            raise TypeError("a feed that nobody awaited, or a block's")
        return encode([self._run.id, self._key]).decode()

    @classmethod
    def __segue_read__(cls, text: str) -> Feed[Any, Any]:
        """From what was kept."""
        from ..handles import Run

        run, key = _read_kept(text)
        return cls(Run(None, run), None, key)

    async def _stay(self) -> Self:
        await self._begin(current("subscribe"))
        return self

    async def _begin(self, branch: Branch, *, tagged: bool = False) -> None:
        """Subscribe in a run. Who gives up waiting for the snapshot, or can't read it, is no subscriber."""
        message, self._key = self._asked(), _key_at(branch)
        key = self._key
        try:
            snapshot = await subscribe(branch, self._run.id, message, key, key if tagged else "")
        except asyncio.CancelledError:
            await self.close()
            raise
        await self._read(snapshot)

    def _asked(self) -> Subscription[S, E]:
        if self._message is None:
            raise WrongPlace("a feed that was kept in a field can be closed; for its events, subscribe again")
        return self._message

    async def _read(self, snapshot: bytes) -> None:
        kind = type(self._asked())
        try:
            self.snapshot = decoder(response_type(kind), f"the snapshot of {message_name(kind)}")(snapshot)
        except Exception:
            await self.close()
            raise

    async def close(self) -> None:
        """Call it off."""
        branch, self._entered = find_branch(), False
        if branch is not None:
            await unsubscribe(branch, self._run.id, self._key)
        elif self._heard is not None:
            self._heard.break_off(self._left())
            await self._feeds.call_off(self._heard)

    async def __aenter__(self) -> Self:
        branch = find_branch()
        if branch is not None:
            await self._begin(branch, tagged=True)
            self._entered = True
            return self
        message = self._asked()
        name, value = message_name(type(message)), encode(message, where="the subscription")
        self._feeds = self._run.engine.feeds
        heard = self._heard = await self._feeds.subscribe(self._run.id, name, value)
        await self._read(heard.snapshot.result())
        self._entered = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[E]:
        read = decoder(self._event)
        while True:
            if not self._entered:
                raise self._left()
            branch, heard = find_branch(), self._heard
            try:
                if branch is not None or heard is None:
                    event: E = await next_event(current("subscribe"), self._key, self._event)
                else:
                    event = read(await heard.next())
            except RunEnded as error:
                if error.status == "done":
                    return
                raise
            yield event

    def _left(self) -> WrongPlace:
        return WrongPlace(
            f"events of run {self._run.id!r} come only inside its block: iterate the feed there, "
            "`async with run.subscribe(…) as feed:`"
        )


_read_kept = msgspec.json.Decoder(tuple[str, str]).decode


def _key_at(branch: Branch) -> str:
    """What names the subscription that the branch's next call makes; the same in every life."""
    return f"~{branch.run.id}{branch.path}:{branch.n}"
