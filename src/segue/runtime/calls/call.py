"""A call in one life of a run: waiting, turning out, being journaled and handed back."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Task, current_task
from collections.abc import Callable, Generator
from contextvars import Context
from types import CoroutineType, coroutine
from typing import Any, Final, Protocol

import msgspec

from ...authoring.context import BRANCH, Act, Wait, Work
from ...authoring.failures import to_exception, to_failure
from ...authoring.trace import tells_secrets
from ...core.replay import Place
from ...model.chat import ChatReply
from ...model.entry import GIVEN_UP, INSTANT, Entry, Failure
from ...model.errors import RunCancelled
from ...model.run import REUSED, Status, Usage
from ..ground.events import Recorded

#: Where cancellation stands in a journal.
CANCEL: Final[Place] = ("!cancel", 0)
#: Where strikes of asyncio's own timeouts stand in a journal: at this path, numbered.
STRIKE: Final = "!strike"
#: JSON of None.
NOTHING: Final = msgspec.json.encode(None)


class Owner(Protocol):
    """The run that a call belongs to."""

    def dropped(self, call: Call) -> None: ...

    @property
    def loop(self) -> AbstractEventLoop: ...


class Call(Future[Any]):
    """A recorded call in this life; its outcome is set when the journal holds it and the run is at rest."""

    __slots__ = (
        "after",
        "context",
        "entry",
        "executor",
        "given_up",
        "place",
        "request",
        "slot",
        "task",
        "wakes",
    )

    executor: Owner
    place: Place
    request: Work | Wait | Act
    after: int
    given_up: int  # how many batches had been handed over when its code gave it up; -1 if it didn't
    entry: Entry | None
    task: Task[Any] | None
    context: Context | None
    slot: Any
    wakes: tuple[set[Task[Any]], Task[Any]] | None  # where a task sleeps at it: whom, and among whom

    def cancel(self, msg: object = None) -> bool:
        """Given up by the code that waited for it."""
        if not super().cancel(msg):
            return False
        self.executor.dropped(self)
        return True


def new_call(run: Owner, place: Place, request: Work | Wait | Act, slot: Any, after: int) -> Call:
    """A call of the code."""
    call = Call(loop=run.loop)
    call.executor, call.place, call.request, call.slot, call.after = run, place, request, slot, after
    call.given_up, call.entry, call.task, call.context = -1, None, None, None
    return call


def own_call(run: Owner, place: Place, kind: str = "") -> Call:
    """A wait of the engine's own: nothing of it is recorded by itself."""
    return new_call(run, place, Wait(kind=kind, name=kind, args=b"", digest=b"", decode=raw), None, 0)


class Behind(Future[None]):
    """Where code waits until what it went ahead of is durable. It goes on right then, not in the loop's next turn: what
    the commit's return has touched of its run is touched once. One task waits at it.
    """

    __slots__ = ("_context", "_resume")

    _resume: Callable[[Behind], object] | None
    _context: Context | None

    @classmethod
    def on(cls, loop: AbstractEventLoop) -> Behind:
        """A new one."""
        behind = cls(loop=loop)
        behind._resume = None
        return behind

    def add_done_callback(self, fn: Callable[[Behind], object], /, *, context: Context | None = None) -> None:
        """By the task that waits, as any does at any future."""
        self._resume, self._context = fn, context

    def cancel(self, msg: object = None) -> bool:
        """Of its task, by code that may be another task's."""
        if not super().cancel(msg):
            return False
        if self._resume is not None:
            self.get_loop().call_soon(self._resume, self, context=self._context)
        return True

    def caught_up(self) -> None:
        """It is durable."""
        self.set_result(None)
        if self._resume is None:
            return
        if self._context is not None and current_task(self.get_loop()) is None:
            self._context.run(self._resume, self)
        else:  # a task can't be resumed in another one's turn
            self.get_loop().call_soon(self._resume, self, context=self._context)


class Outcome(msgspec.Struct):
    """How a call turned out, on its way into the journal and back to the code."""

    call: Call
    value: bytes | None = None
    error: Failure | None = None
    letter: int | None = None
    cause: BaseException | None = None
    result: Any = None
    raises: Exception | None = None
    at: float = 0.0  # when, if it isn't now
    paid: bool = False  # already, by the run that this one was rebased from
    lane: str = ""  # in which it was answered, if that isn't the one that the call asked for
    used: Usage | None = None  # what it did cost, where who sent it says so: it may have been another model's


def end_error(run: str, status: Status, error: Failure | None) -> Failure | None:
    """What those who wait for a run get to hear of an end that isn't good."""
    return to_failure(RunCancelled(run)) if status == "cancelled" and error is None else error


def raw(value: bytes) -> bytes:
    return value


def made_entry(call: Call, request: Work | Wait, due: float) -> Entry:
    """The entry of a call that outlives this life, written when it is made."""
    return Entry(
        *call.place,
        request.kind,
        request.name,
        request.digest,
        request.args,
        call.after,
        due=due,
        opened=_opened(call, request) if isinstance(request, Wait) else None,
    )


def instant_entry(call: Call, request: Act) -> Entry:
    return Entry(
        *call.place,
        request.kind,
        request.name,
        request.digest,
        request.args,
        call.after,
        INSTANT,
        request.value,
        opened=_opened(call, request),
    )


def _opened(call: Call, request: Wait | Act) -> Place | None:
    return None if request.opened == call.place else request.opened


def outcome_entry(outcome: Outcome, number: int, now: float) -> Entry:
    """The entry of an outcome in that batch. What was journaled when made is completed by it."""
    call, request = outcome.call, outcome.call.request
    journaled = isinstance(request, Wait) or (isinstance(request, Work) and request.effect == "at-most-once")
    if journaled and not call.place[0].startswith("!"):  # what strikes of itself wasn't made before
        return Entry(
            *call.place,
            "",
            "",
            b"",
            b"",
            call.after,
            number,
            outcome.value,
            outcome.error,
            now,
            reused=outcome.lane == REUSED,
        )
    return Entry(
        *call.place,
        request.kind,
        request.name,
        request.digest,
        request.args,
        call.after,
        number,
        outcome.value,
        outcome.error,
        now,
        reused=outcome.lane == REUSED,
    )


def strike_entry(number: int, place: str, after: int, pieces: int) -> Entry:
    """Says that the timeout entered at that place struck, once the code had had so many batches, and pieces since."""
    return Entry(
        STRIKE, number, "strike", place, b"", b"", after, INSTANT, msgspec.json.encode(pieces or None)
    )


def drop_entry(call: Call) -> Entry:
    """Says of an outcome that is in the journal that its code gave the call up before it was handed over."""
    return Entry(*call.place, "", "", b"", b"", call.after, GIVEN_UP - call.given_up)


def decode(outcome: Outcome) -> Outcome:
    """Make of a recorded outcome what the code gets. A live call gets the decoded copy too."""
    if outcome.error is not None:
        outcome.raises = to_exception(outcome.error)
        if outcome.cause is not None and not tells_secrets(outcome.cause):
            outcome.raises.__cause__ = outcome.cause
        if outcome.error.again:
            outcome.raises.__segue_again__ = True  # type: ignore[attr-defined]  # read by the step's retry
        return outcome
    try:
        outcome.result = outcome.call.request.decode(outcome.value if outcome.value is not None else NOTHING)
        if outcome.lane == REUSED and isinstance(outcome.result, ChatReply):
            outcome.result = msgspec.structs.replace(outcome.result, reused=True)
    except Exception as error:
        outcome.raises = error
    return outcome


def deliver(outcome: Outcome) -> None:
    call = outcome.call
    if call.done():
        return
    if call.slot is not None and isinstance(call.request, Wait):
        call.slot.enter()
    if outcome.raises is not None:
        call.set_exception(outcome.raises)
    else:
        call.set_result(outcome.result)


def begun(work: Work) -> Any:
    """Work as something to be sent to and thrown at."""
    coro: Any = work.begin()
    return coro if type(coro) is CoroutineType or hasattr(coro, "send") else coro.__await__()


def first_step(coro: Any, work: Work) -> Any:
    """Begin with work, in the context that is current; what it waits on."""
    BRANCH.set(work)
    return coro.send(None)


@coroutine
def within(context: Context, coro: Any, waits: Any) -> Generator[Any, Any, Any]:
    """Go on with work that waits, in its own context, as a task would, without being one."""
    while True:
        try:
            args = ((yield waits),)
            step: Callable[..., Any] = coro.send
        except BaseException as error:  # the task's own: thrown into the work
            step, args = coro.throw, (error,)
        try:
            waits = context.run(step, *args)
        except StopIteration as stop:
            return stop.value


def recorded_event(run: str, outcome: Outcome) -> Recorded:
    place, request = outcome.call.place, outcome.call.request
    return Recorded(
        run=run,
        path=place[0],
        n=place[1],
        kind=request.kind,
        name=request.name,
        value=outcome.value,
        error=outcome.error,
        reused=outcome.lane == REUSED,
    )
