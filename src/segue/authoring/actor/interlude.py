"""Messages that say themselves how they are carried out, and what happens beside a handler that waits."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, Task
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...core.codec import decoder, encode
from ...model.message import Mail
from ..failures import own_error, to_failure
from ..mail import message_name
from .life import Life
from .nexts import Answer
from .performing import Performer
from .standing import Standing

if TYPE_CHECKING:
    from .supervisor import Supervisor

log = logging.getLogger("segue")


class Aborted(Exception):
    """The handler at work was cut off."""


class Interlude:
    """Carries out envelopes: as what is in hand, or, urgent ones, beside a handler that waits.

    Beside, each is in a branch of its own, one after the other. Those that wait for the handler's end let others pass.
    """

    def __init__(self, here: Standing, life: Life, performer: Performer, supervisor: Supervisor) -> None:
        self.here, self.life, self.performer, self.supervisor = here, life, performer, supervisor
        self.lock = asyncio.Lock()
        self.next: object = None  #: what those beside say is next, once the handler is done
        self.settling: list[Future[Any]] = []
        self._tasks: set[Task[Any]] = set()
        self._root: Task[Any] | None = asyncio.current_task()
        self._aborting = False

    @property
    def quiet(self) -> bool:
        """Whether nothing is carried out beside, or is about to, and nothing that was has said what is next."""
        return not self._tasks and self.next is None and not self.life.urgent.is_struck

    async def settle(self) -> None:
        """The handler is done: those who wait for that go on, and come to their end before anything else begins."""
        settling, self.settling = self.settling, []
        for future in settling:
            if not future.done():
                future.set_result(None)
        while self._tasks or self.life.urgent.is_struck:
            await (asyncio.wait(list(self._tasks)) if self._tasks else self.life.urgent.begun())

    def take_next(self) -> object:
        """What was said is next, once."""
        taken, self.next = self.next, None
        return taken

    # ------------------------------------------------------------ carrying out
    async def carry_out(self, mail: Mail) -> tuple[bytes | None, object]:
        """Carry out the message in hand: its answer, where it wants one, and what is next."""
        self.performer.enter(mail.name)
        self.performer.at_work = mail.name
        try:
            return await self._open(mail, _Turn(self, beside=False))
        except asyncio.CancelledError:
            if not self.is_cut_off:
                raise
            await self.undo()
            raise Aborted from None
        finally:
            self.performer.at_work = ""
            await self.settle()

    async def beside(self, mail: Mail) -> None:
        """Carry out an urgent message while a handler waits."""
        task = asyncio.current_task()
        assert task is not None  # a branch's
        self._tasks.add(task)
        value, failure = None, None
        turn = _Turn(self, beside=True)
        try:
            await turn.enter()
            self.life.urgent.begins(mail)
            try:
                value, then = await self._open(mail, turn)
                if then is not None:
                    self.next = then
            except BaseException as raised:
                error = own_error(raised)
                failure = to_failure(error)
                log.warning("run %s: %s", self.life.id, error)
            if mail.reply is not None:
                await self.life.reply_beside(mail, value, failure)
        finally:
            turn.leave()
            self._tasks.discard(task)

    async def _open(self, mail: Mail, turn: _Turn) -> tuple[bytes | None, object]:
        here = self.here
        cls = here.definition.handlers.envelope(mail.name)
        if cls is None:
            known = ", ".join(sorted(here.definition.handlers.messages)) or "none"
            raise TypeError(f"actor {here.definition.name!r} takes no {mail.name!r}; it takes {known}")
        result = await decoder(cls)(mail.value or b"null").carry_out(here.actor, turn)
        if mail.reply is None:
            return None, result
        then: object = None
        if isinstance(result, Answer):
            result, then = result.value, result.then
        return encode(result, where=f"the answer of {mail.name}"), then

    # ------------------------------------------------------------ cutting off
    def cut_off(self) -> None:
        """Cancel the handler at work."""
        assert self._root is not None  # it is at work in a task
        self._aborting = True
        self._root.cancel("the handler is cut off")

    @property
    def is_cut_off(self) -> bool:
        """Whether a cancellation is of the handler alone."""
        return self._aborting and not self.life.leaving

    async def undo(self) -> None:
        """The handler at work was cut off."""
        assert self._root is not None  # it was at work in a task
        self._root.uncancel()
        self._aborting = False
        self.here.restore(anew=True)  # what it left on a thread may still change the old one
        await self.performer.roll_back()
        self.performer.at_work = ""
        await self.settle()


class _Turn:
    """See `Turn`. Beside a handler, one is carried out at a time; those that wait for its end let others pass."""

    def __init__(self, interlude: Interlude, *, beside: bool) -> None:
        self._interlude, self._beside, self._inside = interlude, beside, False

    async def enter(self) -> None:
        """Wait until no other one is carried out."""
        await self._interlude.lock.acquire()
        self._inside = True

    def leave(self) -> None:
        """Let the next one begin."""
        if self._inside:
            self._inside = False
            self._interlude.lock.release()

    @property
    def supervisor(self) -> Supervisor:
        return self._interlude.supervisor

    @property
    def at_work(self) -> str:
        return self._interlude.performer.at_work if self._beside else ""

    def handler(self, kind: str, takes: type[Any], /) -> Callable[[Any], Awaitable[Any]]:
        definition = self._interlude.here.definition
        name = message_name(takes)
        on = definition.handlers.messages.get(name) if kind == "on" else None
        found = on or definition.handlers.others.get((kind, name))
        if found is None:
            raise TypeError(f"actor {definition.name!r} has no method marked {kind!r} that takes a {name}")
        return lambda value: self._interlude.performer.carry_out(found, value)

    def hurry(self) -> None:
        if self.at_work:
            self._interlude.life.away.hurry()

    async def settled(self) -> None:
        if self.at_work:
            future = self._interlude.life.own_wait()
            self._interlude.settling.append(future)
            self.leave()
            await future
            await self.enter()

    async def abort(self) -> None:
        interlude = self._interlude
        if self.at_work:
            interlude.cut_off()
            await self.settled()
        else:
            interlude.here.restore()
            await interlude.performer.roll_back()
