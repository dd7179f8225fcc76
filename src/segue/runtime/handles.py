"""What callers hold: a run, a job, a question."""

from __future__ import annotations

import asyncio
import functools
import shlex
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

import msgspec

from ..authoring.context import find_branch
from ..authoring.failures import to_exception
from ..authoring.flow import target_named
from ..authoring.mail import When, cancel, caught_up, join, ping, send, unschedule
from ..authoring.message import Pong, Request, kind_of, read_pong, sent_as
from ..authoring.resource import SERVICES
from ..authoring.trace import attach
from ..core.codec import decoder, encode
from ..model import checks
from ..model.errors import (
    AskClosed,
    InvalidValue,
    RunCancelled,
    RunFailed,
    RunHeld,
    StepFailed,
    WrongPlace,
)
from ..model.message import MailKind, Question
from ..model.run import ENDED, Head
from .calls.wording import fitting
from .ground.bus import Watching
from .ground.events import Asked, Event, Finished, Token
from .ground.names import unknown_ask
from .ground.patience import patiently
from .mail.exchange import Exchange
from .receipt import Receipt

#: Inside a run, so many items of a source are sent before the recipient must have taken them.
WINDOW = 100

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from ..authoring.actor.interruption import Interrupt
    from ..authoring.actor.subscription import Subscription
    from .engine import Engine
    from .mail.feed import Feed

R = TypeVar("R")
In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
M = TypeVar("M")
S = TypeVar("S")
E = TypeVar("E")
#: So many events are kept of a run that was started and isn't iterated yet; then the oldest go.
KEPT = 10_000


class Run(Awaitable[R], AsyncIterable[Event], Generic[R]):
    """One durable execution, and its address. Awaiting it gives its result; iterating it, what happens in it.

    Awaiting raises as `Engine.run` does. A run is a value too: stored in fields, sent in messages and given to flows,
    it is its id, and good in another process and after a restart.

    What happens in this process between `engine.start` and the first iteration is kept, the newest 10,000 events of
    it, unless the run is awaited before.
    """

    _early: deque[Event] | None = None  # what happened before it was iterated
    _end_early: Callable[[], object] | None = None

    def __init__(
        self, engine: Engine | None, id: str, target: Any = None, place: tuple[str, int] | None = None
    ) -> None:
        self._home, self.id, self._target, self._place = engine, id, target, place

    def keep_early(self) -> None:
        """Keep what happens in it until it is iterated, or this handle is let go."""
        self._early = deque(maxlen=KEPT)
        end = self.engine.bus.watch(self.id, self._early.append)  # type: ignore[arg-type]  # events only
        self._end_early = weakref.finalize(self, end)

    def _take_early(self) -> list[Event]:
        """What was kept, once; the end is read from the run's record."""
        if self._end_early is not None:
            self._end_early()
        if self._early is None:
            return []
        events = [event for event in self._early if not isinstance(event, Finished)]
        self._early.clear()
        return events

    @property
    def engine(self) -> Engine:
        """The engine of this process. Raises `WrongPlace` outside of one, `RuntimeError` on another loop than its."""
        if self._home is not None:
            self._home.on_its_loop()
            return self._home
        branch = find_branch()
        services: Any = SERVICES.get() if branch is None else branch.run.services
        if services is None:
            raise WrongPlace(
                f"run {self.id!r} is used outside an engine: use it inside `async with Engine(…)`"
            )
        home: Engine = services.handle(self.id, None, None)._home
        self._home = home
        return home

    def __segue_text__(self) -> str:
        """As it is stored and sent."""
        return self.id

    @classmethod
    def __segue_read__(cls, text: str) -> Run[Any]:
        """From what was stored or sent."""
        return cls(None, text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} isn't pickled: hand on its id, and get it back by `await engine.get(id)`")

    def __await__(self) -> Generator[Any, Any, R]:
        branch = find_branch()
        if branch is None:
            self._take_early()
            return self._result().__await__()
        if self._place is None:
            raise WrongPlace(
                f"run {self.id!r} wasn't spawned by this run, which so can't wait for it; use messages"
            )
        waiting: Generator[Any, Any, R] = join(branch, self.id, self._place, self._read).__await__()
        return waiting

    async def _result(self) -> R:
        value: R = self.result_of(await self.engine.wait(self.id))
        return value

    def _read(self, value: bytes) -> Any:
        target = self._target or target_named(*self._code)
        return target.read_result(value) if target is not None else decoder(object)(value)

    _code = ("", "")  # its target's name and module

    def result_of(self, head: Head) -> Any:
        """What an ended run gives, or the error that it ended with."""
        self._code = head.spec.target, head.spec.module
        if head.status == "done":
            return self._read(head.value if head.value is not None else b"null")
        raise run_error(head)

    async def __aiter__(self) -> AsyncIterator[Event]:
        self.engine.ends.heard = True
        early, watching = self._take_early(), Watching(self.engine.bus, self.id)
        asked = {event.question.id for event in early if isinstance(event, Asked)}
        try:
            for event in early:
                yield event
            for question in await patiently(
                functools.partial(self.engine.store.asks, run=self.id), self.engine.check
            ):
                if question.id in asked:
                    continue
                asked.add(question.id)
                yield Asked.of(question)
            ending = asyncio.ensure_future(self.engine.wait(self.id))
            try:
                while events := await watching.until(ending):
                    for event in events:
                        if isinstance(event, Asked) and event.question.id in asked:
                            continue
                        yield event
                        if isinstance(event, Finished):
                            return
                head = ending.result()
                yield Finished(
                    run=self.id, status=head.status, value=head.value, error=head.error, reason=head.reason
                )
            finally:
                ending.cancel()
        finally:
            watching.end()

    async def text(self) -> AsyncIterator[str]:
        """The tokens of all its model calls, as they come."""
        async for event in self:
            if isinstance(event, Token):
                yield event.text
            elif isinstance(event, Finished):
                self.result_of(await self.engine.wait(self.id))

    async def tell(
        self,
        message: object,
        /,
        *,
        after: timedelta | None = None,
        every: timedelta | None = None,
        key: str = "",
    ) -> None:
        """Send it mail; durable on return. Inside a run it leaves with that run's next commit.

        `after`, `every` and `key`: as `segue.tell` has them. Outside, it waits while the run's mailbox is full, or
        raises `MailboxFull`, as the mailbox says.
        """
        branch = find_branch()
        if branch is not None:
            await send(branch, self.id, message, When.of(after, every, key))
            return
        more: dict[str, Any] | None = None
        if after is not None or every is not None or key:
            when = When.of(after, every, key)
            more = {"due": when.due(self.engine.clock.now()), "every": when.every, "key": when.key}
        name, may_hurry = sent_as(type(message))
        kind: MailKind = kind_of(message, "tell") if may_hurry else "tell"
        value = encode(message, where="the message")
        sending = self.engine.postbox.post(self.id, kind, name, value, None, None, more)
        if sending is not None:
            await sending

    async def unschedule(self, key: str, /) -> None:
        """Call off what was told with that key and hasn't been taken yet."""
        checks.text("key of unschedule()", key)
        branch = find_branch()
        if branch is not None:
            await unschedule(branch, self.id, key)
        else:
            await self.engine.postbox.send(self.id, "unschedule", key=key)

    async def feed(self, source: Iterable[object] | AsyncIterable[object], /) -> int:
        """Send each item of a source as a message, in order; how many.

        Its source is slowed down to what the run takes: inside a run, after each 100 items, until they were taken;
        outside, the next item is asked for when the one before is in the mailbox, which may be bounded.
        """
        count, branch = 0, find_branch()
        async for item in _each(source):
            await self.tell(item)
            count += 1
            if branch is not None and count % WINDOW == 0:
                await caught_up(branch, self.id)
        return count

    def request(self, message: Request[T], /, *, timeout: timedelta | None = None) -> Exchange[T]:
        """Ask it something; await what this gives for the answer, whose type the message says.

        It raises what its handler raised, `RunEnded` where it ended without an answer, `TimeoutError` after `timeout`,
        and inside a run `Deadlock` where it waits for that run. See `Exchange` for what else can be done with it.
        """
        return Exchange(self, message, timeout)

    def subscribe(self, message: Subscription[S, E], /) -> Feed[S, E]:
        """Have a snapshot, and what it publishes from then on; see `Feed`."""
        from .mail.feed import Feed

        return Feed(self, message)

    async def ping(self, *, timeout: timedelta | None = None) -> Pong:
        """Ask whether it is there: answered whatever its code waits for, also by a flow."""
        branch = find_branch()
        if branch is not None:
            pong: Pong = await ping(branch, self.id, timeout)
            return pong
        pinged = self.engine.port.ask(self.id, "ping", b"null", timeout, "ping")
        return read_pong(pinged if isinstance(pinged, bytes) else await pinged)

    def recipient(self, message: TypeForm[M], /) -> Recipient[M]:
        """Its address, narrowed to messages of one type, or of a union's; a value, as it is."""
        return Recipient(self)

    async def interrupt(self, level: Interrupt | None = None, /) -> None:
        """Ask an actor to end: after the mail that came before, or more urgently; its mail is kept until it ends."""
        from ..authoring.actor.interruption import Interrupt, Interruption

        await self.tell(Interruption(Interrupt.QUEUED if level is None else level))

    async def cancel(self) -> None:
        """Ask for its end: its code gets `asyncio.CancelledError` and may clean up, durably."""
        branch = find_branch()
        if branch is not None:
            await cancel(branch, self.id)
        else:
            await self.engine.cancel(self.id)

    async def head(self) -> Head:
        """Its record as it stands. Raises `WrongPlace` in the code of a run: a replay would read another one."""
        if find_branch() is not None:
            raise WrongPlace(
                f"the record of run {self.id!r} was read in the code of a run, where it can't be recorded: read it "
                f"in a step"
            )
        return await self.engine.head(self.id)

    async def receipt(self) -> Receipt:
        """What its model calls and those of the runs that it started cost, and what they would have cost live."""
        await self.head()
        return await self.engine.receipt(run=self.id)


async def _each(source: Iterable[object] | AsyncIterable[object]) -> AsyncIterator[object]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item


def run_error(head: Head) -> Exception:
    """The error for a run that didn't end well."""
    if head.status == "cancelled":
        asked = None if head.error is None else to_exception(head.error)
        return asked if isinstance(asked, RunCancelled) else RunCancelled(head.id)
    if head.status == "held":
        return RunHeld(head.id, head.reason)
    if head.error is None:
        return RunFailed(head.id, head.status, "it left no error")
    error = to_exception(head.error)
    if isinstance(error, StepFailed):
        error = RunFailed(head.id, head.error.type, head.error.message)
        attach(error, head.error.trace)
    return error


class Recipient(Generic[M]):
    """A run's address, narrowed to messages of one type: what code is given that shall tell it that and nothing else.

    A value, stored and sent as the run's id.
    """

    def __init__(self, run: Run[Any]) -> None:
        self._run = run

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    def __segue_text__(self) -> str:
        """As it is stored and sent."""
        return self._run.id

    @classmethod
    def __segue_read__(cls, text: str) -> Recipient[Any]:
        """From what was stored or sent."""
        return cls(Run(None, text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipient) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Recipient {self.id}>"

    async def tell(
        self, message: M, /, *, after: timedelta | None = None, every: timedelta | None = None, key: str = ""
    ) -> None:
        """As `Run.tell`."""
        await self._run.tell(message, after=after, every=every, key=key)

    def request(self, message: Request[T], /, *, timeout: timedelta | None = None) -> Exchange[T]:
        """As `Run.request`."""
        return self._run.request(message, timeout=timeout)


class Ask:
    """An open question."""

    def __init__(self, engine: Engine, question: Question) -> None:
        self._engine, self._asked = engine, question
        self.id, self.run, self.question, self.to = question.id, question.run, question.question, question.to
        #: When its time is up.
        self.deadline = datetime.fromtimestamp(question.deadline, UTC) if question.deadline else None

    @functools.cached_property
    def show(self) -> Any:
        """What goes with it."""
        return msgspec.json.decode(self._asked.show)

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """What an answer has to be, as JSON Schema."""
        schema: dict[str, Any] = msgspec.json.decode(self._asked.schema)
        return schema

    def __repr__(self) -> str:
        return f"<Ask {self.id}: {self.question}>"

    async def answer(self, value: object) -> None:
        """Answer it; the first answer counts. Raises `InvalidValue` for one of the wrong type, `AskClosed`."""
        self._engine.on_its_loop()
        await put_answer(self._engine, self._asked, value)


async def answer_by_id(engine: Engine, ask: str, value: object) -> None:
    """Answer a question of which only the id is known."""
    await put_answer(engine, await open_question(engine, ask), value)


async def open_question(engine: Engine, ask: str) -> Question:
    """A question that is open. Raises `AskClosed` and `UnknownName` for others."""
    found = await engine.store.get_ask(ask)
    if found is None:
        raise await unknown_ask(engine.store, ask)
    question, state = found
    if state == "answered":
        raise AskClosed(ask, "it was answered already")
    if state != "open":
        raise AskClosed(ask, gone_on(await engine.head(question.run)))
    return question


def gone_on(head: Head) -> str:
    """Why a run's question is closed that nobody answered, and what opens it."""
    if head.status not in ENDED:
        return "its run went on without it"
    again = f"; `segue resume {shlex.quote(head.id)}` has it go on, and ask again"
    return f"its run is {head.status}{'' if head.status == 'done' else again}"


async def put_answer(engine: Engine, question: Question, value: object) -> None:
    """Check an answer against its question and store it."""
    ask = question.id
    try:
        data = fitting(value, question.schema, f"the answer to {ask!r}")
    except InvalidValue:
        await open_question(engine, ask)  # that it is closed would be the first thing to say
        raise
    result = await engine.store.answer(ask, data, now=engine.clock.now())
    if result != "answered":
        await open_question(engine, ask)
        raise AskClosed(ask, "somebody else was quicker, or its run went on or ended")
    engine.worker.wake()
