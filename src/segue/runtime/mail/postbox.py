"""Mail from outside runs: numbered, and patient with full mailboxes."""

from __future__ import annotations

import asyncio
import itertools
from asyncio import FIRST_COMPLETED, Future, TimerHandle
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol
from uuid import uuid4

from msgspec.structs import replace

from ...model.errors import Conflict, MailboxFull, RunEnded
from ...model.message import Mail, MailKind
from ...model.run import CallRef
from ...ports.clock import AlarmClock
from ...ports.store import Delivery, Hint, Store
from ..ground.names import unknown_run

#: How often a full mailbox is tried again where no hint comes, since another process empties it, in seconds.
RETRY = 0.5
#: So many letters are sent in a row; then the loop gets a turn, and those who handle them.
CREDIT = 64
#: What `deliver` says of mail that may be tried again.
REFUSED = ("gone", "full")


class Waiting(Protocol):
    """Somebody, for an answer."""

    future: Future[bytes] | None


class Postbox:
    """One process's way of sending mail."""

    def __init__(self, store: Store, clock: AlarmClock) -> None:
        self._store, self._clock = store, clock
        self._sender = f"client:{uuid4().hex}"
        self._sent = 0  # letters, to all: so nothing is kept of each recipient
        self._credit = CREDIT
        self._there: Future[list[Delivery]] | None = None  # which said so last
        self._lines: dict[str, _Line] = {}  # before full mailboxes
        self._closed = False

    def post(
        self,
        to: str,
        kind: MailKind,
        name: str = "",
        value: bytes | None = None,
        reply: CallRef | None = None,
        unless: Waiting | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Awaitable[None] | None:
        """Deliver mail; None if it is durable already, else it is when what this gives was awaited.

        Its sender, number and time are filled in; `more` are fields of `Mail`. Waits while the mailbox is full, if that
        is its way, else raises `MailboxFull`. Raises `UnknownName` where there is no such run, and where it has ended
        `Conflict`, or `RunEnded` for a request. `unless`: stop waiting for room when that is done.
        """
        if self._closed:
            raise _refusal()
        self._sent = number = self._sent + 1
        now = self._clock.now()
        mail = Mail(to, self._sender, number, kind, name, value, None, None, reply, (), now)
        if more:
            mail = replace(mail, **more)
        delivered = self._store.deliver((mail,), now=now)
        self._credit -= 1
        if self._credit and (delivered is self._there or self._is_there(delivered)):
            return None
        return self._see_through(mail, delivered, unless)

    def _is_there(self, delivered: Future[list[Delivery]]) -> bool:
        """Whether mail was taken already. A store that takes it at once may say so by the same future each time."""
        if delivered.done() and delivered.result()[0] not in REFUSED:
            self._there = delivered
            return True
        return False

    async def send(
        self,
        to: str,
        kind: MailKind,
        name: str = "",
        value: bytes | None = None,
        reply: CallRef | None = None,
        **more: Any,
    ) -> None:
        """As `post`, for those who wait anyway."""
        if (sending := self.post(to, kind, name, value, reply, None, more)) is not None:
            await sending

    async def _see_through(
        self, mail: Mail, delivered: Future[list[Delivery]], unless: Waiting | None
    ) -> None:
        if self._credit <= 0:
            self._credit = CREDIT
            await asyncio.sleep(0)
        (delivery,) = await delivered
        if delivery not in REFUSED:
            return
        size = await self._refused(mail, delivery)
        line = self._lines.get(mail.to)
        if line is None:
            line = self._lines[mail.to] = _Line(size)
        place = line.join()
        try:
            while delivery in REFUSED:
                turn = line.turn(place)
                if unless is not None and unless.future is not None:
                    await asyncio.wait((turn, unless.future), return_when=FIRST_COMPLETED)
                    if unless.future.done() and not turn.cancelled():
                        return
                await turn
                if self._closed:
                    raise _refusal()
                self._sent = number = self._sent + 1
                now = self._clock.now()
                mail = replace(mail, number=number, at=now)
                (delivery,) = await self._store.deliver((mail,), now=now)
                if delivery in REFUSED:
                    await self._refused(mail, delivery)
        finally:
            line.leave(place, more=delivery != "full")
            if line.is_empty and self._lines.get(mail.to) is line:
                del self._lines[mail.to]

    async def _refused(self, mail: Mail, delivery: Delivery) -> int:
        """Raise where mail isn't worth another try; else the size of the mailbox that is full."""
        if self._closed:
            raise _refusal()
        head = await self._store.get(mail.to)
        if head is None:
            raise await unknown_run(self._store, mail.to)
        if delivery == "gone" and mail.reply is not None and not mail.forwarded:
            raise RunEnded(mail.to, head.status)
        if delivery == "gone":
            raise Conflict(f"run {mail.to!r} takes no more mail: it is {head.status}")
        if head.spec.full == "fail":
            raise MailboxFull(mail.to, head.spec.mailbox)
        return head.spec.mailbox

    def close(self) -> None:
        """The process sends no more; who waits for room is cancelled."""
        self._closed = True
        for line in self._lines.values():
            line.close()

    def hint(self, hint: Hint) -> None:
        """The store's word that mailboxes have room."""
        if hint.kind == "room" and self._lines:
            for run in hint.runs:
                if (line := self._lines.get(run)) is not None:
                    line.go_on()


def _refusal() -> asyncio.CancelledError:
    return asyncio.CancelledError("the engine was closed: send it with the next one")


class _Line:
    """Those who wait for room in one mailbox, in order: as many try at a time as it may have room for."""

    def __init__(self, size: int) -> None:
        self._most = min(size, CREDIT)
        self._loop = asyncio.get_running_loop()
        self._places = itertools.count()
        self._waiting: dict[int, Future[None] | None] = {}  # None: it is trying
        self._timer: TimerHandle | None = None

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def join(self) -> int:
        """A place at the end."""
        place = next(self._places)
        self._waiting[place] = None
        return place

    def turn(self, place: int) -> Future[None]:
        """Done once there may be room for whoever stands there."""
        future = self._waiting[place] = self._loop.create_future()
        if self._timer is None:
            self._timer = self._loop.call_later(RETRY, self._again)
        return future

    def leave(self, place: int, *, more: bool) -> None:
        """One is through, or waits no longer; if there was room for it, there may be for `more`."""
        del self._waiting[place]
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None
        elif more:
            self.go_on()

    def close(self) -> None:
        """Nobody gets a turn any more."""
        for future in self._waiting.values():
            if future is not None:
                future.cancel("the engine was closed before there was room: send it with the next one")

    def _again(self) -> None:
        self._timer = self._loop.call_later(RETRY, self._again)
        self.go_on()

    def go_on(self) -> None:
        """The first may try."""
        for place in list(itertools.islice(self._waiting, self._most)):
            future, self._waiting[place] = self._waiting[place], None
            if future is not None and not future.done():
                future.set_result(None)
