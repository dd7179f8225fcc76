"""The receiving end of a subscription: in a run, its events are mail; outside, a small actor hands them on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Generic, NewType, Self, TypeVar
from uuid import uuid4

import msgspec

from ...authoring.actor.actor import Actor
from ...authoring.actor.marks import on
from ...authoring.actor.nexts import Done, Listen
from ...authoring.actor.subscription import (
    Subscription,
    event_type,
    next_event,
    subscribe,
    unsubscribe,
)
from ...authoring.context import Branch, current, find_branch
from ...authoring.failures import to_exception
from ...authoring.mail import make_spec, request
from ...authoring.message import Note, message_name, response_type
from ...core.codec import decoder, encode
from ...model.entry import Failure
from ...model.errors import RunCancelled, RunEnded, WrongPlace
from ...model.message import Mail
from ...ports.store import NewRun

if TYPE_CHECKING:
    from ..engine import Engine
    from ..handles import Run

S = TypeVar("S")
E = TypeVar("E")


class Feed(Generic[S, E]):
    """A subscription: `async with run.subscribe(Progress()) as feed` gives `feed.snapshot`, and iterates the events.

    Leaving the block calls it off; so does the end of this process. Iteration ends when the publisher is done, and
    raises `RunEnded` when it ended otherwise. Events that aren't read yet are kept. An actor may also
    `await run.subscribe(Progress())`, outside of `async with`: then events come as mail of their type, to its `@on`
    handlers, until `close`.
    """

    def __init__(self, run: Run[Any], message: Subscription[S, E]) -> None:
        self._run, self._message = run, message
        self._event = event_type(type(message))
        self._key = ""
        self._watch: _Watch | None = None
        self.snapshot: S

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._stay().__await__()

    async def _stay(self) -> Self:
        branch = current("subscribe")
        self._key = _key_at(branch)
        self.snapshot = await subscribe(branch, self._run.id, self._message, self._key, "")
        return self

    async def close(self) -> None:
        """Call it off."""
        branch = find_branch()
        if branch is not None:
            await unsubscribe(branch, self._run.id, self._key)
        elif self._watch is not None:
            await self._watch.close()

    async def __aenter__(self) -> Self:
        branch = find_branch()
        if branch is not None:
            self._key = _key_at(branch)
            self.snapshot = await subscribe(branch, self._run.id, self._message, self._key, self._key)
            return self
        self._watch = _Watch(self._run.engine)
        snapshot = await self._watch.begin(self._run.id, self._message)
        self.snapshot = decoder(response_type(type(self._message)))(snapshot)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[E]:
        read = decoder(self._event)
        while True:
            branch = find_branch()
            try:
                if branch is not None:
                    event: E = await next_event(branch, self._key, self._event)
                else:
                    assert self._watch is not None  # it was entered
                    event = read(await self._watch.next())
            except RunEnded as error:
                if error.status == "done":
                    return
                raise
            yield event


def _key_at(branch: Branch) -> str:
    """What names the subscription that the branch's next call makes; the same in every life."""
    return f"~{branch.run.id}{branch.path}:{branch.n}"


# ---------------------------------------------------------------- outside
#: Watches of this process, by the id of the run that has their events.
_WATCHES: dict[str, _Watch] = {}
#: How its events are called.
EVENT = "segue.event"
if TYPE_CHECKING:
    _Event = object
    _End = object
else:  # their names are those of the mail
    _Event = NewType(EVENT, object)
    _End = NewType(f"{EVENT}.end", object)


class _Leave(Note):
    """The watcher is done."""


class Watcher(Actor[None]):
    """Hands a subscription's events to the process that it was made in, stays in its memory, and ends with it."""

    __qualname__ = "segue.watch"  # a name that no author's class has

    to: str
    name: str
    message: object

    async def begin(self) -> object:
        """Subscribe."""
        branch = current("watch")
        value = encode(self.message)
        watch = _WATCHES.get(branch.run.id)
        key = f"~{branch.run.id}"
        try:
            snapshot = await request(
                branch, self.to, self.name, value, decoder(object), None, kind="subscribe", key=key, tag=EVENT
            )
        except Exception as error:  # whoever waits for the snapshot gets it
            if watch is not None:
                watch.fail(error)
            return Done()
        if watch is not None:
            watch.started.set_result(encode(snapshot))
        return Listen()

    @on
    async def happened(self, event: _Event) -> None:
        """One event."""
        watch = _WATCHES.get(current("watch").run.id)
        if watch is not None:
            watch.put(encode(event))

    @on
    async def ended(self, end: _End) -> Done[None]:
        """The publisher has ended."""
        watch = _WATCHES.get(current("watch").run.id)
        if watch is not None:
            watch.put(to_exception(msgspec.convert(end, Failure)))
        return Done()

    @on
    async def leave(self, note: _Leave) -> Done[None]:
        """Enough."""
        return Done()

    async def teardown(self) -> None:
        """Unsubscribe, also where the process is gone and another one has taken this run over."""
        branch = current("watch")
        await unsubscribe(branch, self.to, f"~{branch.run.id}")


WATCHER: Any = Watcher.__segue__  # type: ignore[attr-defined]  # made with the class


class _Watch:
    """This process's side of a subscription."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._id = f"watch-{uuid4().hex[:12]}"
        self._events: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.started: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[Any] | None = None

    def put(self, event: bytes | Exception) -> None:
        """An event, or how it ended."""
        self._events.put_nowait(event)

    def fail(self, error: Exception) -> None:
        """It couldn't begin."""
        if not self.started.done():
            self.started.set_exception(error)

    async def begin(self, to: str, message: Subscription[Any, Any]) -> bytes:
        """Subscribe; the snapshot."""
        worker = self._engine.worker
        if not worker.working:
            raise WrongPlace("this engine doesn't work (worker=False), so no events reach it: leave that out")
        plain = msgspec.json.decode(encode(message, where="the subscription"))
        args = WATCHER.take(Watcher(to, message_name(type(message)), plain))
        spec = make_spec(WATCHER, args, self._engine.config, self._engine.clock.now(), home=worker.name)
        _WATCHES[self._id] = self
        try:
            await worker.create([NewRun(self._id, spec)])
            self._ending = asyncio.ensure_future(self._wait())
            return await self.started
        except BaseException:
            await self.close()
            raise

    async def _wait(self) -> None:
        """The run that has the events must not end before."""
        head = await self._engine.wait(self._id)
        error = RunCancelled(head.id) if head.status == "cancelled" else RunEnded(head.id, head.status)
        self.fail(error)
        self.put(error)

    async def next(self) -> bytes:
        """The next event. Raises how it ended."""
        event = await self._events.get()
        if isinstance(event, Exception):
            self.put(event)  # it stays so
            raise event
        return event

    async def close(self) -> None:
        """Call it off."""
        if _WATCHES.pop(self._id, None) is None:
            return
        if self._ending is not None:
            self._ending.cancel()
        name = message_name(_Leave)
        await self._engine.store.deliver(
            [Mail(self._id, "watcher", 1, "tell", name, b"{}")], now=self._engine.clock.now()
        )
