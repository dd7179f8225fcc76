"""The subscriptions of a process: their events come as mail to one run of its own, which nobody carries out.

That run is what publishers know of the process. It is claimed here as long as the process lives, and read here. When
its claim lapses, whoever takes it up brings it to its end; and an event that finds it ended calls its subscription off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import Future, TimerHandle
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from uuid import uuid4

from ...authoring.failures import to_exception
from ...authoring.flow import flow, take_call
from ...authoring.mail import make_spec
from ...core.codec import decoder
from ...model.entry import Failure
from ...model.errors import Conflict, StoreError, UnknownName, WrongPlace
from ...model.message import SENT_BITS, Letter, Mail
from ...model.mode import Config
from ...model.run import CallRef
from ...ports.clock import Clock
from ...ports.store import CommitResult, Hint, Lease, NewRun, Store, Turn
from ..ground.absent import Absent
from .arrivals import Arrivals
from .port import POLL, READ, raised
from .postbox import Postbox

log = logging.getLogger("segue")

#: How a subscription's events are called on their way here, and its end.
EVENT: Final = "segue.event"
END: Final = f"{EVENT}.end"
_read_failure = decoder(Failure)


@flow(name="segue.watch")
async def watched() -> None:
    """Carried out only where the process that watched is gone."""


#: What that run is of.
WATCHED: Any = watched.__segue__  # type: ignore[attr-defined]  # made with the flow


class Holder(Protocol):
    """The worker, who keeps claims."""

    working: bool
    absent: Absent

    async def hold(self, run: NewRun, lost: Callable[[], None]) -> Lease: ...
    def let_go(self, run: str) -> None: ...


class Heard:
    """What one subscription brings: its snapshot, its events, and how it ended."""

    __slots__ = ("_absent", "_events", "key", "snapshot", "to")

    def __init__(self, to: str, key: str, absent: Absent) -> None:
        self.to, self.key, self._absent = to, key, absent
        self.snapshot: Future[bytes] = asyncio.get_running_loop().create_future()
        self._events: asyncio.Queue[bytes | BaseException] = asyncio.Queue()

    def take(self, mail: Mail) -> bool:
        """A letter of it; whether it was the last."""
        if mail.kind == "event":
            over = mail.name == END
            self._events.put_nowait(
                to_exception(_read_failure(mail.value or b"{}")) if over else mail.value or b"null"
            )
            return over
        if self.snapshot.done():
            return False  # the publisher has ended, which comes as an event too
        if mail.error is not None:
            self.snapshot.set_exception(raised(mail, mail.error))
        else:
            self.snapshot.set_result(mail.value or b"null")
        return mail.error is not None

    def break_off(self, error: BaseException) -> None:
        """Nothing comes any more."""
        if self.snapshot.done():
            self._events.put_nowait(error)
        elif isinstance(error, asyncio.CancelledError):
            self.snapshot.cancel(*error.args)
        else:
            self.snapshot.set_exception(error)

    async def next(self) -> bytes:
        """The next event. Raises how it ended."""
        if self._events.empty():
            with self._absent.waiting():
                event = await self._events.get()
        else:
            event = self._events.get_nowait()
        if isinstance(event, BaseException):
            self._events.put_nowait(event)  # it stays so
            raise event
        return event


class Feeds:
    """The subscriptions of one process."""

    def __init__(self, store: Store, clock: Clock, postbox: Postbox, holder: Holder, config: Config) -> None:
        self._store, self._clock, self._postbox, self._holder = store, clock, postbox, holder
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.Lock()
        self._lease: Lease | None = None
        self.arrivals: Arrivals | None = None  #: what comes to its run, once there is one
        self._heard: dict[str, Heard] = {}
        self._count = 0
        self._read: list[int] = []  # letters that are still there
        self._timer: TimerHandle | None = None
        self._closed = False

    async def subscribe(self, to: str, name: str, value: bytes) -> Heard:
        """Subscribe to what a run publishes: once this returns, the snapshot is there. Raises what that raised."""
        if not self._holder.working:
            raise WrongPlace("this engine doesn't work (worker=False), so no events reach it: leave that out")
        if self._closed:
            raise _gone()
        async with self._opening:
            lease = self._lease or await self._open()
        self._count += 1
        heard = Heard(to, f"~{lease.run}:{self._count}", self._holder.absent)
        self._heard[heard.key] = heard
        self._keep_looking()
        reply = CallRef(lease.run, heard.key, 0)
        try:
            await self._postbox.send(to, "subscribe", name, value, reply, key=heard.key, tag=EVENT)
            with self._holder.absent.waiting():
                await heard.snapshot
        except Exception:  # it isn't in force
            self._heard.pop(heard.key, None)
            raise
        except BaseException:
            await self.call_off(heard)
            raise
        return heard

    async def call_off(self, heard: Heard) -> None:
        """Call a subscription off, unless it has ended."""
        if self._heard.pop(heard.key, None) is not None:
            with contextlib.suppress(Conflict, UnknownName):  # who published it is gone
                await self._postbox.send(heard.to, "unsubscribe", key=heard.key)

    async def close(self) -> None:
        """The process hears no more."""
        self._closed = True
        open_ones = self._all_ended()
        for heard in open_ones:
            heard.break_off(_gone())
        lease, read, now = self._lease, self._read, self._clock.now()
        self._lease, self._read = None, []
        if lease is None:
            return
        self._holder.let_go(lease.run)
        turn = Turn(run=lease.run, fence=lease.fence, consumed=read, now=now)
        turn.status, turn.release, turn.value = "done", True, b"null"
        turn.outbox = [
            Mail(heard.to, lease.run, lease.fence << SENT_BITS | number, "unsubscribe", key=heard.key, at=now)
            for number, heard in enumerate(open_ones, 1)
        ]
        try:
            await self._store.commit([turn])
        except StoreError as error:  # its claim lapses in time
            log.error("%d subscriptions can't be called off now: %s", len(open_ones), error)

    # ------------------------------------------------------------ the run that gets the events
    async def _open(self) -> Lease:
        target, args = take_call(watched())
        run = NewRun(f"watch-{uuid4().hex[:12]}", make_spec(target, args, self._config, self._clock.now()))
        lease = await self._holder.hold(run, self._lost)
        if self._closed:  # meanwhile; its claim lapses
            self._holder.let_go(run.id)
            raise _gone()
        self._lease = lease
        self.arrivals = Arrivals(self._store, run.id, self._take)
        return lease

    def _lost(self) -> None:
        """Others took this process for dead."""
        lease, self._lease, self.arrivals, self._read = self._lease, None, None, []
        if lease is None:
            return
        self._holder.let_go(lease.run)
        for heard in self._all_ended():
            heard.break_off(
                Conflict(
                    f"the subscription to run {heard.to!r} was called off by another process, since this one gave no "
                    f"sign of life for a minute: subscribe again"
                )
            )

    def _all_ended(self) -> list[Heard]:
        """All that were in force, which aren't any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._heard = [*self._heard.values()], {}
        return ended

    # ------------------------------------------------------------ what comes
    def hint(self, hint: Hint) -> None:
        """The store's word that mail has come."""
        if self.arrivals is not None and self.arrivals.address in hint.runs:
            self.arrivals.hint(hint)

    def _keep_looking(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(POLL, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._heard:
            self.look()
            self._keep_looking()
        self._forget()

    def look(self) -> None:
        """Look for events that other processes sent."""
        if self.arrivals is not None and self._heard:
            self.arrivals.look()

    def _take(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            mail = letter.mail
            key = mail.key if mail.call is None else mail.call.path
            heard = self._heard.get(key)
            if heard is not None and heard.take(mail):
                del self._heard[key]
            self._read.append(letter.id)
        if len(self._read) >= READ:
            self._forget()

    def _forget(self) -> None:
        """Take letters that were read out of the inbox."""
        if self._read and self._lease is not None:
            read, self._read = self._read, []
            run, fence = self._lease.run, self._lease.fence
            turn = Turn(run=run, fence=fence, consumed=read, seen=read[-1], now=self._clock.now())
            self._store.commit([turn]).add_done_callback(self._forgotten)

    def _forgotten(self, future: Future[list[CommitResult]]) -> None:
        if future.cancelled():
            return
        if (error := future.exception()) is not None:  # they stay until this process is gone
            log.error("events that were read can't be forgotten: %s", error)
        elif future.result() == ["fenced"]:
            self._lost()


def _gone() -> asyncio.CancelledError:
    return asyncio.CancelledError("the engine was closed: subscribe again with the next one")
