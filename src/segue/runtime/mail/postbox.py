"""Mail from outside runs: numbered, and patient with full mailboxes."""

from __future__ import annotations

import asyncio
from asyncio import Future
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

    def done(self) -> bool: ...


class Postbox:
    """One process's way of sending mail."""

    def __init__(self, store: Store, clock: AlarmClock) -> None:
        self._store, self._clock = store, clock
        self._sender = f"client:{uuid4().hex}"
        self._sent = 0  # letters, to all: so nothing is kept of each recipient
        self._credit = CREDIT
        self._waiting: dict[str, list[Future[None]]] = {}

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
        self._sent = number = self._sent + 1
        now = self._clock.now()
        mail = Mail(to, self._sender, number, kind, name, value, None, None, reply, (), now)
        if more:
            mail = replace(mail, **more)
        delivered = self._store.deliver((mail,), now=now)
        self._credit -= 1
        if self._credit and delivered.done() and delivered.result()[0] not in REFUSED:
            return None
        return self._see_through(mail, delivered, unless)

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
        while delivery in REFUSED:
            await self._refused(mail, delivery)
            if unless is not None and unless.done():
                return
            self._sent = number = self._sent + 1
            now = self._clock.now()
            mail = replace(mail, number=number, at=now)
            (delivery,) = await self._store.deliver((mail,), now=now)

    async def _refused(self, mail: Mail, delivery: Delivery) -> None:
        """Until it is worth another try. Raises where it isn't."""
        head = await self._store.get(mail.to)
        if head is None:
            raise await unknown_run(self._store, mail.to)
        if delivery == "gone" and mail.reply is not None and not mail.forwarded:
            raise RunEnded(mail.to, head.status)
        if delivery == "gone":
            raise Conflict(f"run {mail.to!r} takes no more mail: it is {head.status}")
        if head.spec.full == "fail":
            raise MailboxFull(mail.to, head.spec.mailbox)
        await self._room(mail.to)

    async def _room(self, run: str) -> None:
        """Until there may be room in a mailbox."""
        loop = asyncio.get_running_loop()
        future: Future[None] = loop.create_future()
        self._waiting.setdefault(run, []).append(future)
        timer = loop.call_later(RETRY, _set, future)
        try:
            await future
        finally:
            timer.cancel()
            waiting = self._waiting.get(run, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(run, None)

    def hint(self, hint: Hint) -> None:
        """The store's word that mailboxes have room."""
        if hint.kind == "room" and self._waiting:
            for run in hint.runs:
                for future in self._waiting.get(run, ()):
                    _set(future)


def _set(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
