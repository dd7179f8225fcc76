"""Messages that say themselves how they are carried out, and what happens beside a handler that waits."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, Task
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ...core.codec import decoder, encode
from ...model.entry import Failure
from ...model.errors import RunEnded, RunInterrupted
from ...model.message import Mail
from ..failures import own_error, to_failure
from ..mail import message_name
from .interruption import Interrupt, Interruption
from .life import Life
from .nexts import Answer
from .performing import Performer
from .standing import Standing
from .supervisor import ChildEnded, ChildStops, Supervisor

log = logging.getLogger("segue")


#: The kinds of mail that are carried out one after the other.
_URGENT: Final = frozenset({"urgent", "subscribe"})
#: What has a hook called, such as `finished`. In hand, that is as any handler: others are carried out while it waits.
_HOOKS: Final = (ChildEnded, ChildStops, Interruption)


def _passes(envelope: object) -> bool:
    """Whether it is carried out also while another one is.

    That one may wait for a child, and the child for this verdict; and what ends the actor at once waits for nobody.
    """
    return isinstance(envelope, ChildStops) or (
        isinstance(envelope, Interruption) and envelope.level is Interrupt.NOW
    )


class Aborted(Exception):
    """The handler at work was cut off."""


class Interlude:
    """Carries out envelopes: as what is in hand, or, urgent ones, beside a handler that waits.

    Beside, each is in a branch of its own, one after the other. Those that wait for the handler's end let others pass,
    and nobody is in the way of those that pass.
    """

    def __init__(self, here: Standing, life: Life, performer: Performer, supervisor: Supervisor) -> None:
        self.here, self.life, self.performer, self.supervisor = here, life, performer, supervisor
        self.lock = asyncio.Lock()
        self.next: object = None  #: what those beside say is next, once the handler is done
        self.settling: list[Future[Any]] = []
        self._tasks: set[Task[Any]] = set()
        self._root: Task[Any] | None = asyncio.current_task()
        self._aborting = False
        self.inside: Task[Any] | None = None  #: who is carried out, of those that wait for one another
        self._clears = False  # the actor ends at once: what waits its turn is cut off too
        self.cut: dict[Task[Any], Exception] = {}  #: those beside that are cut off, and what is said of it
        self._undone = False  # the handler was over; as one beside was cut off, it is undone

    @property
    def quiet(self) -> bool:
        """Whether nothing is carried out beside, or is about to, and nothing that was has said what is next."""
        return not self._tasks and self.next is None and not self._strikes

    @property
    def _strikes(self) -> bool:
        """Whether something has struck with what the handler waited for last: it is that handler's."""
        return self.life.urgent.is_struck or self.life.urgent.cancels

    async def settle(self) -> None:
        """The handler is done: those who wait for that go on, and come to their end before anything else begins."""
        settling, self.settling = self.settling, []
        for future in settling:
            if not future.done():
                future.set_result(None)
        while self._tasks or self._strikes:
            await (asyncio.wait(list(self._tasks)) if self._tasks else self.life.urgent.begun())

    def take_next(self) -> object:
        """What was said is next, once."""
        taken, self.next, self._clears = self.next, None, False
        return taken

    # ------------------------------------------------------------ carrying out
    async def carry_out(self, mail: Mail) -> tuple[bytes | None, object]:
        """Carry out the message in hand: its answer, where it wants one, and what is next."""
        self.performer.enter(mail.name)
        self.performer.at_work = mail.name
        turn = _Turn(self, beside=False)
        try:
            envelope = self._read(mail)
            if mail.kind in _URGENT and not isinstance(envelope, _HOOKS):
                await turn.enter()
            return await self._open(envelope, mail, turn)
        except asyncio.CancelledError:
            if not self.is_cut_off:
                raise
            turn.leave()
            await self.undo()
            raise Aborted from None
        finally:
            turn.leave()
            self.performer.at_work = ""
            await self.settle()

    async def beside(self, mail: Mail) -> None:
        """Carry out an urgent message while a handler waits."""
        task = asyncio.current_task()
        assert task is not None  # a branch's
        self._tasks.add(task)
        value: bytes | None = None
        failure: Failure | None = None
        turn, reason = _Turn(self, beside=True), f"{mail.name} failed"
        try:
            try:
                envelope = self._read(mail)
                if not _passes(envelope):
                    await turn.enter()
                self.life.urgent.begins(mail)
                if self._clears and not isinstance(envelope, _HOOKS):
                    self.cut[task] = RunInterrupted(self.life.id)
                    raise asyncio.CancelledError
                value, then = await self._open(envelope, mail, turn)
                if then is not None:
                    self.next = then
            except BaseException as raised:
                if task in self.cut and not self.life.leaving:
                    task.uncancel()
                    failure, reason = to_failure(self.cut[task]), f"{mail.name} was cut off"
                else:
                    error = own_error(raised)
                    failure = to_failure(error)
                    log.warning("run %s: %s", self.life.id, failure.message)
            if mail.reply is not None:
                await self.life.reply_beside(mail, value, failure)
            elif failure is not None:
                await self.life.bury_beside(mail, reason, failure)
        finally:
            turn.leave()
            self._tasks.discard(task)
            self.cut.pop(task, None)

    def _read(self, mail: Mail) -> Any:
        """The envelope. Raises `TypeError` for one that the actor doesn't know."""
        cls = self.here.definition.handlers.envelope(mail.name)
        if cls is None:
            known = ", ".join(sorted(self.here.definition.handlers.messages)) or "none"
            raise TypeError(f"actor {self.here.definition.name!r} takes no {mail.name!r}; it takes {known}")
        return decoder(cls)(mail.value or b"null")

    async def _open(self, envelope: Any, mail: Mail, turn: _Turn) -> tuple[bytes | None, object]:
        result = await envelope.carry_out(self.here.actor, turn)
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

    def clear(self) -> bool:
        """The actor ends at once: those beside are cut off; whether one was begun with."""
        self._clears = True
        if self.inside is None or self.inside is self._root:
            return False
        return self._cut_off(self.inside, RunInterrupted(self.life.id))

    def _cut_off(self, task: Task[Any], why: Exception) -> bool:
        self.cut[task] = why
        return task.cancel("it is cut off")

    async def close(self, status: str) -> None:
        """The actor is over: those who still wait for something beside hear of it, and what they say is next isn't."""
        while self._tasks or self.life.urgent.is_struck:
            for task in [task for task in self._tasks if task not in self.cut]:
                self._cut_off(task, RunEnded(self.life.id, status))
            await (asyncio.wait(list(self._tasks)) if self._tasks else self.life.urgent.begun())
        self.next = None

    @property
    def is_undone(self) -> bool:
        """Whether a handler that was over is undone, asked once."""
        undone, self._undone = self._undone, False
        return undone

    async def undo_all(self) -> None:
        """One beside was cut off, and no handler is at work: what was done since the last turn is undone."""
        self._undone = True
        self.here.restore()
        await self.performer.roll_back()

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
        self._interlude.inside = asyncio.current_task()

    def leave(self) -> None:
        """Let the next one begin."""
        if self._inside:
            self._inside = False
            self._interlude.inside = None
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
            future, was_inside = self._interlude.life.own_wait(), self._inside
            self._interlude.settling.append(future)
            self.leave()
            await future
            if was_inside:
                await self.enter()

    async def abort(self) -> None:
        interlude = self._interlude
        cleared = not self._inside and self._beside and interlude.clear()
        if self.at_work:
            interlude.cut_off()
            await self.settled()
        elif cleared:
            await interlude.undo_all()
        elif not self._beside:
            interlude.here.restore()
            await interlude.performer.roll_back()
