"""One wake of an actor: turn after turn.

What is next is carried out: `begin`, the state that is next, or a message. Then the fields are written down, and
what was done goes with the next commit: at once after a state, for short messages together. A handler that waits is
replayed like a flow; what came before it is committed no later than its first call.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ...core.codec import decoder, encode
from ...model.entry import Failure
from ...model.errors import AuthorError, BadSignature, RunInterrupted
from ...model.message import Letter, Mail
from ...ports.store import Claimed
from ..config import using
from ..context import current
from ..failures import to_exception, to_failure
from ..flow import target_named
from ..mail import message_name
from ..time import timeout
from .checkpoint import Checkpoint, End, read_checkpoint, write_checkpoint
from .envelope import ENVELOPES
from .nexts import Again, Answer, Done, Fail, Interrupted, Listen

if TYPE_CHECKING:
    from .definition import ActorDef
    from .handlers import Handler

log = logging.getLogger("segue")

#: So many messages share one commit at most, and for so long, in seconds.
GROUP, MOMENT = 128, 0.005
_NULL = msgspec.Raw(b"null")


class Life(Protocol):
    """What an actor's code needs of the wake that it runs in."""

    id: str
    callers: tuple[str, ...]
    #: Carries out an urgent message while a handler is at work, in a branch of its own.
    beside: Callable[[Mail], Coroutine[Any, Any, None]]

    @property
    def leaving(self) -> bool:
        """Whether the run leaves memory, and every task is cancelled."""
        ...

    def take(self, *, urgent: bool = False) -> Letter | None:
        """The next message that is there, an urgent one first, or only such; it stays in the inbox."""
        ...

    def next_mail(self, *, urgent: bool = False, due: float = 0.0) -> Future[Letter | None]:
        """The same, when there is one; None when it is `due`, in seconds since the epoch. All done is committed."""
        ...

    def close_letter(self, letter: Letter, reply: Mail | None) -> None:
        """Have the next commit consume a message and send its answer."""
        ...

    def save(self, checkpoint: Callable[[], bytes]) -> bool:
        """Have the next commit write a checkpoint: what was recorded so far is history.

        False where something of the handler is left, so that `seal` must follow.
        """
        ...

    def seal(self) -> Future[None]:
        """Commit. Tasks that the handler left behind don't outlive it."""
        ...

    def off_loop(self, fn: Callable[[], Any]) -> Future[Any]:
        """Run a function on a thread, as work of this wake."""
        ...

    def own_wait(self) -> Future[Any]:
        """A future that the actor's own code sets; nothing of it is recorded."""
        ...

    def reply_beside(self, mail: Mail, value: bytes | None, error: Failure | None) -> Awaitable[None]:
        """Answer a message that is carried out beside a handler: a recorded call."""
        ...

    def next_number(self) -> int: ...
    def now(self) -> float: ...
    def clock(self) -> float: ...
    def set_time(self, at: float) -> None: ...
    def target(self, name: str) -> Any: ...


class Aborted(Exception):
    """A handler was cut off."""


class Driver:
    """One wake of an actor."""

    def __init__(self, definition: ActorDef, claimed: Claimed, life: Life) -> None:
        self.life = life
        life.beside = self._beside
        spec = claimed.head.spec
        if claimed.checkpoint is not None:
            stored = read_checkpoint(claimed.checkpoint)
        else:
            stored = Checkpoint(msgspec.Raw(spec.args), fresh=True, at=spec.created)
        if stored.actor:
            definition = life.target(stored.actor) or target_named(stored.actor)
            if definition is None:
                raise BadSignature(
                    stored.actor,
                    "the run goes on as this actor, which isn't here",
                    "import the file that defines it",
                )
        self.molted = stored.actor
        self._become(definition, definition.load(stored.fields))
        self.fields = definition.dump(self.actor)  # as they were after the last turn
        self.turns, self.fresh, self.attempt = stored.turns, stored.fresh, stored.attempt
        self.due, self.at = stored.due, stored.at
        self.state: Any = None
        self.data = stored.data  # of the state
        if stored.state:
            self.state = self.states[stored.state].read(bytes(stored.data))
        self.end: Done[Any] | Fail | Interrupted | None = None
        self.result = b"null"
        self.ending = stored.end is not None
        if stored.end is not None:
            self._reach(stored.end)
        self.began = 0.0  # the round
        self.group, self.until = 0, 0.0  # messages since the last commit, and when they have to be committed
        self.kept: tuple[msgspec.Raw, Any, msgspec.Raw, int, int, float, float]
        self.branch: Any = None
        self.task: Task[Any] | None = None
        self.at_work = ""
        self.urgents: set[Task[Any]] = set()  # messages carried out beside the handler at work
        self.urged: object = None  # what they say is next
        self.aborting = False
        self.settling: list[Future[Any]] = []

    def _become(self, definition: ActorDef, actor: Any) -> None:
        self.definition, self.actor = definition, actor
        handlers = definition.handlers
        self.states, self.messages = handlers.states, handlers.messages
        self.simple = "perform" not in definition.own

    def _reach(self, end: End) -> None:
        """The end that is stored."""
        self.result = bytes(end.value)
        if end.interrupted:
            self.end = Interrupted()
        else:
            self.end = Done() if end.error is None else Fail(to_exception(end.error))

    # ------------------------------------------------------------ the loop
    async def run(self) -> bytes:
        """The actor's result; raises what it ended with."""
        self.branch, self.task = current("an actor"), asyncio.current_task()
        self.life.set_time(self.at)
        try:
            try:
                while self.end is None:
                    await self._next()
            except Exception as error:
                self.end = Fail(error)
            return await self._finish(self.end)
        except asyncio.CancelledError:
            if not self.life.leaving:
                self._restore()
                await self._hook("rollback")
                await self._hook("teardown")
            raise

    async def _next(self) -> None:
        life = self.life
        letter: Letter | None
        if self.fresh:
            await self._begin()
            return
        if self.urged is not None:
            self._go(self._take_urged())
            return
        if self.due:  # between two rounds or attempts
            letter = await life.next_mail(urgent=True, due=self.due)
            if letter is None:
                self.at = max(self.at, self.due)
                self.began, self.due = self.due, 0.0
                life.set_time(self.at)
                return
        elif self.state is not None:
            letter = life.take(urgent=True)
            if letter is None:
                await self._round()
                return
        else:
            letter = life.take()
            if letter is None:
                letter = await life.next_mail()
                assert letter is not None  # nothing is due
                self.group, self.until = 0, life.clock() + MOMENT
        await self._letter(letter)

    async def _begin(self) -> None:
        await self._hook("setup")
        self.fresh = False
        self._go(await self._hook("begin") or Listen())
        self.fields = self.definition.dump(self.actor)
        await self._save(seal=True)

    async def _round(self) -> None:
        """One turn of the state that is next."""
        handler = self.states.get(message_name(type(self.state)))
        assert handler is not None  # `_go` looked
        self.life.set_time(self.at)
        began, self.began = self.began or self.life.clock(), 0.0
        result: object
        try:
            result = await self._handle(handler, bytes(self.data), self.state)
        except Aborted:
            result = self._take_urged() or Listen()
        except Exception as error:
            self._restore()
            if self._try_again(handler, error):
                await self._save(seal=True)
                return
            result = await self._hook("failed", error)
            if result is None:
                result = Fail(error)
        self.attempt = 0
        if isinstance(result, Again) or result is Again:
            self.due = max(began + handler.every, self.life.clock()) if handler.every else 0.0
            self.data = msgspec.Raw(encode(self.state, where=f"a state of {self.definition.name}"))
        else:
            self._go(Listen() if result is None else result)
        self.fields = self.definition.dump(self.actor)
        await self._save(seal=True)

    async def _letter(self, letter: Letter) -> None:
        """One message."""
        mail = letter.mail
        life = self.life
        self.group += 1
        if mail.at > self.at or mail.due > self.at:
            self.at = max(mail.at, mail.due)
        life.set_time(self.at)
        handler = self.messages.get(mail.name)
        if handler is None:
            await self._other(letter)
            return
        if mail.callers:
            life.callers = mail.callers
        reply: Mail | None = None
        try:
            result = await self._handle(handler, mail.value or b"null")
            fields = self.definition.dump(self.actor)
            if handler.is_request:
                reply = self._answer(handler, mail, result)
            elif result is not None:
                self._go(result)
            self.fields = fields
        except Aborted:
            self._go(self._take_urged() or Listen())
            reply = self._reply(mail, None, to_failure(RunInterrupted(life.id)))
        except Exception as error:
            self._restore()
            if self._try_again(handler, error):
                await self._save(seal=True)
                return
            reply = await self._fail(handler, mail, error)
        finally:
            if mail.callers:
                life.callers = ()
        self.attempt = 0
        life.close_letter(letter, reply)
        await self._save()

    # ------------------------------------------------------------ handlers
    async def _handle(self, handler: Handler, data: bytes, value: Any = None) -> Any:
        """What a handler, or its fall-back, returns."""
        try:
            result = await self._carry_out(handler, handler.read(data) if value is None else value)
        except Exception as error:
            if self.urgents:
                await self._settle()
            fallbacks = self.definition.handlers.fallbacks.get(handler.name, ())
            fitting = next((one for one in fallbacks if isinstance(error, one.catches or ())), None)
            if fitting is None or self._wants(handler, error):
                raise
            self._restore()
            result = await self._carry_out(fitting, handler.read(data), error)
        except asyncio.CancelledError:
            if not self.aborting or self.life.leaving:
                raise
            await self._aborted()
            raise Aborted from None
        if self.urgents or self.urged is not None:
            await self._settle()
            result = self._take_urged(result)
        return result

    async def _carry_out(self, handler: Handler, *arguments: Any) -> Any:
        branch = self.branch
        branch.path, branch.n, branch.kids = f"/{handler.method}.{self.turns}", 0, None
        self.at_work = handler.method
        try:
            if handler.plain and self.simple:
                return await getattr(self.actor, handler.method)(*arguments)
            return await self.carried_out(handler, *arguments)
        finally:
            self.at_work = ""

    async def carried_out(self, handler: Handler, *arguments: Any) -> Any:
        """A handler's method, called as it was marked."""
        work = _Work(self, handler, arguments)
        with ExitStack() as stack:
            if handler.mode is not None:
                stack.enter_context(using(mode=handler.mode))
            call = work if self.simple else lambda: self.actor.perform(work)
            if handler.timeout is None:
                return await call()
            async with timeout(handler.timeout):
                return await call()

    def _wants(self, handler: Handler, error: Exception) -> bool:
        """Whether there is another attempt after that error."""
        retry = handler.retry
        return self.attempt + 1 < retry.attempts and retry.wants(error) and not isinstance(error, AuthorError)

    def _try_again(self, handler: Handler, error: Exception) -> bool:
        if not self._wants(handler, error):
            return False
        self.attempt += 1
        pause = handler.retry.wait_after(self.attempt, f"{self.life.id}/{handler.method}.{self.turns}")
        self.due = self.life.clock() + pause
        return True

    async def _fail(self, handler: Handler, mail: Mail, error: Exception) -> Mail | None:
        """A message's handler failed for good: its caller gets the error, and the actor goes on as it was before."""
        if not handler.is_request and "failed" not in self.definition.own:
            name = self.definition.name
            log.error("run %s: %s.%s failed", self.life.id, name, handler.method, exc_info=error)
        result = await self._hook("failed", error)
        if result is not None:
            self._go(result)
        return self._reply(mail, None, to_failure(error))

    async def _hook(self, name: str, *arguments: Any) -> Any:
        if name not in self.definition.own:
            return None
        branch = self.branch
        branch.path, branch.n, branch.kids = f"/{name}.{self.turns}", 0, None
        result = getattr(self.actor, name)(*arguments)
        if iscoroutine(result):
            result = await result
        if self.urgents:
            await self._settle()
        return result

    # ------------------------------------------------------------ answers
    def _answer(self, handler: Handler, mail: Mail, result: Any) -> Mail | None:
        then: object = None
        if isinstance(result, Answer):
            result, then = result.value, result.then
        value = encode(result, where=f"the answer of {self.definition.name}.{handler.method}")
        if then is not None:
            self._go(then)
        return self._reply(mail, value, None)

    def _reply(self, mail: Mail, value: bytes | None, error: Failure | None) -> Mail | None:
        to = mail.reply
        if to is None:
            return None
        life = self.life
        return Mail(to.run, life.id, life.next_number(), "result", "", value, error, call=to, at=life.now())

    # ------------------------------------------------------------ other messages
    async def _other(self, letter: Letter) -> None:
        """A message that no handler takes: it may say itself what is done."""
        mail = letter.mail
        value: bytes | None = None
        failure: Failure | None = None
        branch = self.branch
        branch.path, branch.n, branch.kids = f"/{mail.name}.{self.turns}", 0, None
        try:
            value, then = await self._open(mail, _Turn(self))
            fields = self.definition.dump(self.actor)
            if then is not None:
                self._go(then)
            self.fields = fields
        except Exception as error:
            self._restore()
            failure = to_failure(error)
            log.warning("run %s: %s", self.life.id, error)
        self.life.close_letter(letter, self._reply(mail, value, failure))
        await self._save()

    async def _open(self, mail: Mail, turn: _Turn) -> tuple[bytes | None, object]:
        """Carry out an envelope: its answer, where it wants one, and what is next."""
        cls = ENVELOPES.get(mail.name)
        if cls is None:
            known = ", ".join(sorted(self.messages)) or "none"
            raise TypeError(f"actor {self.definition.name!r} takes no {mail.name!r}; it takes {known}")
        result = await decoder(cls)(mail.value or b"null").carry_out(self.actor, turn)
        if mail.reply is None:
            return None, result
        then: object = None
        if isinstance(result, Answer):
            result, then = result.value, result.then
        return encode(result, where=f"the answer of {mail.name}"), then

    async def _beside(self, mail: Mail) -> None:
        """Carry out an urgent message while a handler waits."""
        task = asyncio.current_task()
        assert task is not None  # a branch's
        self.urgents.add(task)
        try:
            value, failure = None, None
            try:
                value, then = await self._open(mail, _Turn(self))
                if then is not None:
                    self.urged = then
            except Exception as error:
                failure = to_failure(error)
                log.warning("run %s: %s", self.life.id, error)
            if mail.reply is not None:
                await self.life.reply_beside(mail, value, failure)
        finally:
            self.urgents.discard(task)

    def _take_urged(self, result: object = None) -> object:
        """What an urgent message says is next comes before what the handler says."""
        urged, self.urged = self.urged, None
        if urged is None:
            return result
        return Answer(result.value, then=urged) if isinstance(result, Answer) else urged

    async def _settle(self) -> None:
        """The handler is done: those who wait for that go on, and come to their end before anything else begins."""
        settling, self.settling = self.settling, []
        for future in settling:
            if not future.done():
                future.set_result(None)
        while self.urgents:
            await asyncio.wait(list(self.urgents))

    async def _aborted(self) -> None:
        """The handler at work was cut off."""
        assert self.task is not None  # `run` set it
        self.task.uncancel()
        self.aborting = False
        self.actor = self.definition.load(
            self.fields
        )  # what it left on a thread may still change the old one
        self._restore()
        await self._hook("rollback")
        await self._settle()

    async def abort(self) -> None:
        """See `Turn.abort`."""
        if not self.at_work:
            self._restore()
            await self._hook("rollback")
            return
        assert self.task is not None  # a handler is at work
        self.aborting = True
        self.task.cancel("the handler is cut off")
        await self.settled()

    async def settled(self) -> None:
        """See `Turn.settled`."""
        if self.at_work:
            future = self.life.own_wait()
            self.settling.append(future)
            await future

    # ------------------------------------------------------------ what is next
    def _go(self, result: Any) -> None:
        """What a handler returned says what is next."""
        if result is Listen or isinstance(result, Listen):
            self.state, self.due = None, 0.0
        elif isinstance(result, Done):
            self.result = encode(result.value, where=f"the result of actor {self.definition.name!r}")
            self.end = result
        elif isinstance(result, Fail | Interrupted):
            self.end = result
        elif result is Interrupted:
            self.end = Interrupted()
        elif message_name(type(result)) in self.states:
            self.state, self.due = result, 0.0
            self.data = msgspec.Raw(encode(result, where=f"a state of {self.definition.name}"))
        elif hasattr(type(result), "__segue__"):
            self._molt(type(result).__segue__, result)
        elif result is not Again and not isinstance(result, Again):
            raise BadSignature(
                self.definition.name,
                f"a handler returned {result!r}, which is no state of it",
                "return a state, Listen(), Again(), Done(…) or Fail(…)",
            )

    def _molt(self, definition: ActorDef, actor: Any) -> None:
        """The run goes on as another actor."""
        definition.check()
        self._become(definition, actor)
        self.molted, self.fresh, self.state, self.due = definition.name, True, None, 0.0

    def _restore(self) -> None:
        """Give the fields, and the state that is next, the values that they had after the last turn."""
        self.definition.restore(self.actor, self.fields)
        if self.state is not None:
            self.state = self.states[message_name(type(self.state))].read(bytes(self.data))

    async def _save(self, *, seal: bool = False) -> None:
        """The turn is over, and goes with the next commit. The last one goes with that which ends the run."""
        if self.end is not None:
            return
        life = self.life
        now = life.clock()
        if now > self.at:
            self.at = now
        self.turns += 1
        self._keep()
        if not life.save(self._checkpoint) or seal or self.group >= GROUP or now > self.until:
            self.group, self.until = 0, 0.0
            await life.seal()
            self.until = life.clock() + MOMENT

    def _keep(self) -> None:
        """What the next checkpoint says, whatever the next handler does meanwhile."""
        self.kept = (self.fields, self.state, self.data, self.turns, self.attempt, self.due, self.at)

    def _checkpoint(self) -> bytes:
        fields, state, data, turns, attempt, due, at = self.kept
        end: End | None = None
        match self.end:
            case Fail(error=error):
                end = End(error=to_failure(error))
            case Done():
                end = End(msgspec.Raw(self.result))
            case Interrupted():
                end = End(interrupted=True)
            case None:
                pass
        named = "" if state is None else message_name(type(state))
        return write_checkpoint(
            Checkpoint(
                fields, named, data if named else _NULL, turns, self.molted, self.fresh, end, attempt, due, at
            )
        )

    async def _finish(self, end: Done[Any] | Fail | Interrupted) -> bytes:
        """The end. What `teardown` calls is recorded, so the handler before it must be history."""
        if "teardown" in self.definition.own:
            if not self.ending:
                self.turns += 1
                self._keep()
                if not self.life.save(self._checkpoint):
                    await self.life.seal()
            await self._hook("teardown")
        if isinstance(end, Fail):
            raise end.error
        if isinstance(end, Interrupted):
            raise RunInterrupted(self.life.id)
        return self.result


class _Work:
    """See `Work`."""

    def __init__(self, driver: Driver, handler: Handler, arguments: tuple[Any, ...]) -> None:
        self._driver, self._handler, self._arguments = driver, handler, arguments
        self.kind, self.name, self.value = handler.kind, handler.method, arguments[0]

    async def __call__(self) -> Any:
        method = getattr(self._driver.actor, self._handler.method)
        if self._handler.is_async:
            return await method(*self._arguments)
        return await self._driver.life.off_loop(lambda: method(*self._arguments))


class _Turn:
    """See `Turn`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def at_work(self) -> str:
        return self._driver.at_work

    def handler(self, kind: str, takes: type[Any], /) -> Callable[[Any], Awaitable[Any]]:
        definition = self._driver.definition
        name = message_name(takes)
        found = definition.handlers.others.get((kind, name))
        if found is None:
            raise TypeError(
                f"actor {definition.name!r} has no method that is marked {kind!r} and takes a {name}"
            )
        return lambda value: self._driver.carried_out(found, value)

    async def settled(self) -> None:
        await self._driver.settled()

    async def abort(self) -> None:
        await self._driver.abort()
