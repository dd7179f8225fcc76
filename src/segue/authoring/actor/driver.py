"""One wake of an actor: turn after turn.

What is next is carried out: `begin`, the state that is next, or a message. Then the fields are written down, and
what was done goes with the next commit: at once after a state, for short messages together. A handler that waits is
replayed like a flow; what came before it is committed no later than its first call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...core.codec import encode
from ...model.entry import Failure
from ...model.errors import RunInterrupted
from ...model.message import Letter, Mail
from ...ports.store import Claimed
from ..context import current
from ..failures import own_error, to_failure
from ..mail import message_name
from ..trace import log_error
from .ending import Ending, uncancel
from .interlude import Aborted, Interlude
from .life import Life
from .nexts import Again, Answer, Cancelled, Done, Fail, Interrupted, Listen
from .performing import Performer
from .quick import GROUP, MOMENT, Odd, Quick
from .standing import Standing

if TYPE_CHECKING:
    from .handlers import Handler

log = logging.getLogger("segue")


class Driver:
    """One wake of an actor."""

    def __init__(self, here: Standing, claimed: Claimed, life: Life) -> None:
        self.life, self.here, self._write = life, here, here.write
        self.performer = Performer(self.here, life, current("an actor"))
        self.ending = Ending(
            self.here,
            life,
            self.performer,
            claimed.head.spec,
            self._letter,
            lambda: self._save(seal=True),
            lambda status: self.interlude.close(status),
        )
        life.supervisor = self.ending.supervisor
        self.interlude = Interlude(self.here, life, self.performer, self.ending.supervisor)
        self._quick = Quick(self.here, life, self.performer, self._serve)
        life.urgent.beside = self.interlude.beside
        self._began = 0.0  # the round
        # Messages since the last commit, and when they have to be committed.
        self._group, self._until = 0, 0.0

    # ------------------------------------------------------------ the loop
    async def run(self) -> bytes:
        """The actor's result; raises what it ended with."""
        here = self.here
        self.life.set_time(here.at)
        while True:
            try:
                await self._live()
                if not await self.ending.begins_anew():
                    return await self.ending.finish()
            except asyncio.CancelledError:
                if self.life.leaving or isinstance(here.end, Cancelled):
                    raise
                here.restore()
                await self.performer.roll_back()
                await self.interlude.close("cancelled")
                if not here.children:
                    await self.performer.hook("teardown")
                    await self.interlude.close("cancelled")
                    raise
                uncancel()
                here.end, here.ending = Cancelled(), False

    def part(self) -> None:
        """The wake is over: its parts let each other go, so that nothing waits for the garbage collector."""
        self._quick.let_go()
        del self.ending, self.interlude, self.performer, self._quick

    async def _live(self) -> None:
        """States and messages, until the end."""
        here = self.here
        try:
            while here.end is None:
                try:
                    await self._next()
                except Aborted:  # before it began
                    here.go(self.interlude.take_next() or Listen())
                    await self._save(seal=True)  # what is next is another turn: its calls have other places
        except BaseException as error:
            here.end = Fail(own_error(error))

    async def _next(self) -> None:
        here, life = self.here, self.life
        if here.fresh and not here.due:
            await self._begin()
        elif self.interlude.next is not None:
            here.go(self.interlude.take_next())
        elif here.due:  # between two rounds or attempts
            letter = await life.next_mail(ends=here.repeats, due=here.due)
            if letter is not None:
                await self._letter(letter)
                return
            here.at = max(here.at, here.due)
            self._began, here.due = here.due, 0.0
        elif here.state is None:
            await self._messages()
        elif (letter := life.take(urgent=True, ends=here.repeats)) is not None:
            await self._letter(letter)
        else:
            await self._round()

    async def _begin(self) -> None:
        here = self.here
        await self._hook("setup")
        first = await self._hook("begin")
        here.fresh = False
        here.go(Listen() if first is None else first)
        here.take(here.look())
        await self._save(seal=True)

    async def _round(self) -> None:
        """One turn of the state that is next."""
        here, life = self.here, self.life
        handler = here.definition.handlers.states[message_name(type(here.state))]
        life.set_time(here.at)
        began, self._began = self._began or life.clock(), 0.0
        result: object
        try:
            result = await self._handle(handler, bytes(here.data), here.state)
        except Aborted:
            result = self.interlude.take_next()
        except Exception as error:
            here.restore()
            if self.performer.tries_again(handler, error):
                self.performer.put_off(handler)
                await self._save(seal=True)
                return
            result = await self._failed(error)
            if result is None:
                result = Fail(error)
        here.attempt = 0
        if isinstance(result, Again) or result is Again:
            here.stay(next_round(began, handler.every, life.clock()) if handler.every else 0.0)
        else:
            here.go(Listen() if result is None else result)
        if not here.fresh:
            here.take(here.look())
        await self._save(seal=True)

    async def _messages(self) -> None:
        """Messages, until something else is next."""
        listens: bool | None = await self._serve()
        while listens:
            listens = await self.life.attend(self._quick, self.here)
            if listens is None:
                listens = await self._serve()

    async def _serve(self, odd: Odd | None = None) -> bool:
        """The messages that are there, first that which was `odd`; whether the actor still listens."""
        here, life, quick = self.here, self.life, self._quick
        self._group, self._until, quick.is_full = 0, monotonic() + MOMENT, False
        life.set_time(here.at)
        while self._listens:
            quick.let_go()
            if odd is not None and odd.work is not None:
                await self._message(odd.handler, odd.letter, odd.work)
            else:
                letter = life.take(again=here.again if here.attempt else 0)
                if letter is None:
                    return True
                await self._letter(letter)
            life.set_time(here.at)
            odd = life.carry_out(quick) if self._listens else None
            if quick.is_full:
                return True
        return False

    @property
    def _listens(self) -> bool:
        """Whether the next message is what is next."""
        return self.here.listens and self.interlude.next is None

    async def _letter(self, letter: Letter) -> None:
        """One message."""
        handler = self.here.definition.handlers.messages.get(letter.mail.name)
        if handler is None or handler.by_itself:
            await self._other(letter)
        else:
            await self._message(handler, letter)

    async def _message(self, handler: Handler, letter: Letter, begun: Awaitable[Any] | None = None) -> None:
        """One message that has a handler, which may have `begun`."""
        here, life, performer, mail = self.here, self.life, self.performer, letter.mail
        if here.attempt and here.again not in (0, letter.id):
            here.attempt = 0  # what failed isn't there any more
        self._set_time(mail)
        given: Any = None
        if begun is None:
            try:
                given = handler.read(mail.value or b"null")
            except Exception as error:
                where = f"{here.definition.name}.{handler.method}()"
                reply = self._reply(mail, None, self._refuse(mail, error, f"{where} can't read it"))
                life.close_letter(letter, reply)
                await self._save()
                return
        if mail.callers:
            life.callers = mail.callers
        reply = None
        try:
            try:  # as `_handle` has it, with a coroutine less
                if begun is None:
                    more: tuple[Any, ...] = ()
                    if handler.is_request:
                        more = life.takes(letter, performer.path(handler), keeps=handler.keeps)
                    begun = performer.call(handler, given, *more)
                result = await begun
            except BaseException as error:
                result = await self._instead(handler, mail.value or b"null", error)
            performer.at_work = ""
            if not self.interlude.quiet:
                result = await self._said_beside(handler, result)
            looked = here.look()
            if handler.is_request and not handler.keeps:
                reply = self._reply(mail, self._answer(handler, result), None)
            elif result is not None:
                here.go(result)
            if not here.fresh:
                here.take(looked)
        except Aborted:
            here.go(self.interlude.take_next() or Listen())
            failure = to_failure(RunInterrupted(life.id))
            if mail.reply is None:
                life.bury(mail, f"{here.definition.name}.{handler.method}() was cut off", failure)
            reply = self._reply(mail, None, failure)
        except Exception as error:
            here.restore()
            if performer.tries_again(handler, error):
                performer.put_off(handler)
                here.again = letter.id
                await self._save(seal=True)
                return
            reply = await self._fail(handler, mail, error)
        finally:
            if mail.callers:
                life.callers = ()
        here.attempt = 0
        life.close_letter(letter, reply)
        if self._keep():
            await self._seal()

    def _set_time(self, mail: Mail) -> None:
        here = self.here
        at = mail.at if mail.at > mail.due else mail.due
        if at > here.at:
            here.at = at
        self.life.set_time(here.at)

    # ------------------------------------------------------------ handlers
    async def _handle(self, handler: Handler, data: bytes, value: Any) -> Any:
        """What a handler, or its fall-back, returns."""
        try:
            result = await self.performer.call(handler, value)
        except BaseException as error:
            result = await self._instead(handler, data, error)
        self.performer.at_work = ""
        return result if self.interlude.quiet else await self._said_beside(handler, result)

    async def _instead(self, handler: Handler, data: bytes, raised: BaseException) -> Any:
        """What the fall-back of a handler that raised returns; raises the error if there is none."""
        performer = self.performer
        if isinstance(raised, asyncio.CancelledError) and self.interlude.is_cut_off:
            await self.interlude.undo()
            raise Aborted from None
        try:
            error = own_error(raised)
        finally:
            del raised  # whose traceback has this frame
        performer.at_work = ""
        await self.interlude.settle()
        fallback = performer.fallback(handler, error)
        if fallback is None:
            try:
                raise error
            finally:
                del error  # so here
        self.here.restore()
        return await performer.call(fallback, handler.read(data), error)

    async def _said_beside(self, handler: Handler, result: Any) -> Any:
        """What is next, once what is carried out beside a handler is done: it may have said so."""
        await self.interlude.settle()
        if self.interlude.is_undone:
            raise Aborted
        said = self.interlude.take_next()
        own = result.then if isinstance(result, Answer) else result
        if isinstance(said, Interrupted) and not said.anew:
            if not isinstance(own, Done | Fail):  # else it ends by itself, as it was asked to
                # What the handler did, and said, comes first.
                self.interlude.next, self.ending.after = said, True
            return result
        if said is not None and handler.is_request and not handler.keeps:
            return Answer(result.value if isinstance(result, Answer) else result, then=said)
        return result if said is None else said

    async def _hook(self, name: str, *arguments: Any) -> Any:
        if name not in self.here.definition.own:
            return None
        self.performer.at_work = name
        try:
            result = await self.performer.hook(name, *arguments)
        except asyncio.CancelledError:
            if not self.interlude.is_cut_off:
                raise
            await self.interlude.undo()
            raise Aborted from None
        finally:
            self.performer.at_work = ""
        await self.interlude.settle()
        return result

    async def _failed(self, error: Exception) -> Any:
        """What the hook says is next; where it is cut off, what is said in its place."""
        try:
            return await self._hook("failed", error)
        except Aborted:
            return self.interlude.take_next()

    async def _fail(self, handler: Handler, mail: Mail, error: Exception) -> Mail | None:
        """A message's handler failed for good: its caller gets the error, and the actor goes on as it was before."""
        definition = self.here.definition
        if not handler.is_request and "failed" not in definition.own:
            log_error(log, error, "run %s: %s.%s failed", self.life.id, definition.name, handler.method)
        result = await self._failed(error)
        self.here.take(self.here.look())
        if result is not None:
            self.here.go(result)
        failure = to_failure(error)
        if mail.reply is None:
            self.life.bury(mail, f"{definition.name}.{handler.method}() failed", failure)
        return self._reply(mail, None, failure)

    # ------------------------------------------------------------ answers
    def _answer(self, handler: Handler, result: Any) -> bytes:
        then: object = None
        if isinstance(result, Answer):
            result, then = result.value, result.then
        value = encode(result, where=handler.answers)
        if then is not None:
            self.here.go(then)
        return value

    def _reply(self, mail: Mail, value: bytes | None, error: Failure | None) -> Mail | None:
        return None if mail.reply is None else self.life.answer_to(mail, value, error)

    # ------------------------------------------------------------ other messages
    async def _other(self, letter: Letter) -> None:
        """A message that no handler takes, or that says itself what is done."""
        here, mail = self.here, letter.mail
        self._set_time(mail)
        value: bytes | None = None
        failure: Failure | None = None
        self.life.callers = mail.callers
        try:
            value, then = await self.interlude.carry_out(mail)
            looked = here.look()
            if then is not None:
                here.go(then)
            if not here.fresh:
                here.take(looked)
        except Aborted:
            failure = to_failure(RunInterrupted(self.life.id))
        except BaseException as raised:
            error = own_error(raised)
            here.restore()
            known = here.definition.handlers.envelope(mail.name) is not None
            failure = self._refuse(mail, error, f"{mail.name} failed" if known else "no handler took it")
        finally:
            self.life.callers = ()
        self.life.close_letter(letter, self._reply(mail, value, failure))
        await self._save()

    def _refuse(self, mail: Mail, error: Exception, reason: str) -> Failure:
        """Nothing came of a message: what its caller is told. If it has none, it is a dead letter."""
        failure = to_failure(error)
        log.warning("run %s: %s: %s", self.life.id, reason, failure.message)
        if mail.reply is None:
            self.life.bury(mail, reason, failure)
        return failure

    # ------------------------------------------------------------ the end of a turn
    async def _save(self, *, seal: bool = False) -> None:
        """The turn is over, and goes with the next commit. The last one goes with that which ends the run."""
        if self._keep(seal=seal):
            await self._seal()

    def _keep(self, *, seal: bool = False) -> bool:
        """The turn is over; whether it has to be committed before anything else."""
        here, life = self.here, self.life
        if self.interlude.next is not None:  # said beside: written down with what it followed from
            here.go(self.interlude.take_next())
        if here.end is not None and not here.closing:
            return False
        if (now := life.now()) > here.at:
            here.at = now
        self._group += 1
        late = seal or self._group >= GROUP or monotonic() > self._until
        if late:
            here.at = max(here.at, life.clock())
        here.keep()
        return not life.save(self._write, self.performer.over()) or late

    async def _seal(self) -> None:
        await self.life.seal()
        self.life.set_time(self.here.at)
        self._group, self._until = 0, monotonic() + MOMENT


def next_round(began: float, every: float, now: float) -> float:
    """When a round is due after one that began then. Rounds that were missed are left out."""
    return began + every * max(ceil((now - began) / every), 1)
