"""A request on its way: its answer, and what happens meanwhile in the handler that has it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine, Generator
from datetime import timedelta
from inspect import GEN_CLOSED, getgeneratorstate
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ...authoring.context import find_branch
from ...authoring.mail import forward, request
from ...authoring.message import Request, asked_as, kind_of
from ...core.codec import encode_stable
from ...model import checks
from ...model.errors import InvalidValue, WrongPlace
from ...model.message import MailKind
from ...model.run import CallRef
from ..ground.bus import Watching
from ..ground.events import Event, Token

if TYPE_CHECKING:
    from ..handles import Run

T = TypeVar("T")


class Exchange(Coroutine[Any, Any, T], AsyncIterable[Event], Generic[T]):
    """A request to a run: await it for the answer; iterate it for what its handler does, and await it then.

    Nothing is sent before it is awaited, iterated or forwarded. Events are those of its own handler alone, as long as
    that works in this process: tokens aren't durable, and don't travel.
    """

    __name__ = "request"  # as tasks show it, and number their branches
    _id = ""  # by which it is watched
    _task: asyncio.Task[T] | None = None
    _asking: Generator[Any, Any, T] | None = None
    _paths: list[str]  # of those who iterate it: where its handler works, one for each attempt
    _used = False  # iterated, forwarded, or closed before it began

    def __init__(self, run: Run[Any], message: Request[T], timeout: timedelta | None) -> None:
        self._run, self._timeout, self.__qualname__ = run, timeout, "request"
        self._value = encode_stable(message, where="the message")
        self._name, may_hurry, self._decode = asked_as(type(message))
        self._kind: MailKind = kind_of(message, "request") if may_hurry else "request"

    # ------------------------------------------------------------ the answer
    def __await__(self) -> Generator[Any, Any, T]:
        if self._task is not None:
            return _answer_of(self._task)
        self._check_is_new()
        self._asking = self._ask()
        return self._asking

    def _check_is_new(self) -> None:
        if self._asking is not None:
            raise RuntimeError(f"the request {self._name} was awaited already: make another one to ask again")

    def _begin(self) -> Generator[Any, Any, T]:
        if self._asking is None or getgeneratorstate(self._asking) == GEN_CLOSED:
            self._asking = self.__await__()
        return self._asking

    def _ask(self) -> Generator[Any, Any, T]:
        run, branch = self._run, find_branch()
        answer: T
        if branch is not None:
            recorded = request(
                branch, run.id, self._name, self._value, self._decode, self._timeout, kind=self._kind
            )
            answer = yield from recorded
            return answer
        asked = self._send()
        answer = self._decode(asked if isinstance(asked, bytes) else (yield from asked.__await__()))
        return answer

    async def _watched(self) -> T:
        """The same for the task of one that is iterated."""
        asked = self._send()
        answer: T = self._decode(asked if isinstance(asked, bytes) else await asked)
        return answer

    def _send(self) -> bytes | Awaitable[bytes]:
        run = self._run
        return run.engine.port.ask(run.id, self._name, self._value, self._timeout, self._kind, self._id)

    def send(self, value: Any) -> Any:
        """As a coroutine's."""
        return self._begin().send(value)

    def throw(self, *error: Any) -> Any:
        """As a coroutine's."""
        return self._begin().throw(*error)

    def close(self) -> None:
        """As a coroutine's."""
        self._used = True
        if self._asking is not None:
            self._asking.close()

    def __del__(self) -> None:
        if self._asking is None and self._task is None and not self._used and hasattr(self, "_kind"):
            warnings.warn(
                f"the request {self._name} to run {self._run.id!r} was never awaited, so it wasn't sent; write "
                f"`await run.request(…)`, or `await run.request(…).forward()` where nobody waits for its answer",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )

    # ------------------------------------------------------------ what happens meanwhile
    async def __aiter__(self) -> AsyncIterator[Event]:
        self._used = True
        if find_branch() is not None:
            raise WrongPlace(
                "what a request's handler does can be watched from outside runs only; await the answer"
            )
        if self._task is None:
            self._check_is_new()
        bus = self._run.engine.bus
        watching = Watching(bus, self._run.id)
        if self._task is None:
            id = self._id = self._run.engine.port.new_call()
            self._paths = []
            bus.followed[id] = self._paths.append
            self._task = asyncio.ensure_future(self._watched())
            self._task.add_done_callback(lambda _: bus.followed.pop(id, None))
        try:
            while events := await watching.until(self._task):
                for event in events:
                    if any(event.path == path or event.path.startswith(f"{path}/") for path in self._paths):
                        yield event
        finally:
            watching.end()
            if not self._task.done():  # perhaps nobody waits any more
                self._task.add_done_callback(_drop)

    async def text(self) -> AsyncIterator[str]:
        """The tokens of its handler's model calls, as they come. Where none came, an answer that is a text comes whole.

        Raises what the handler raised.
        """
        silent = True
        async for event in self:
            if isinstance(event, Token):
                silent = False
                yield event.text
        answer = await self
        if silent and isinstance(answer, str):
            yield answer

    # ------------------------------------------------------------ forwarding
    async def forward(self, to: Any = None, *, tag: str = "") -> None:
        """Have the answer sent as a `Response`, with the tag, to this run's own mailbox or to another's (`to`).

        Nobody waits for it. Errors come as `Response.error`.
        """
        branch, self._used = find_branch(), True
        checks.text("tag of forward()", tag)
        if self._timeout is not None:
            raise InvalidValue(
                f"timeout of the request {self._name}",
                "none where it is forwarded",
                "nobody waits for its answer, so no time is ever up; tell yourself something `after` that time",
                repr(self._timeout),
            )
        if branch is not None:
            target = branch.run.id if to is None else to.id
            await forward(branch, self._run.id, self._name, self._value, target, tag, self._kind)
            return
        if to is None:
            raise WrongPlace("forward() outside a run needs the run that gets the answer: forward(to=run)")
        reply = CallRef(to.id, "", 0)
        await self._run.engine.postbox.send(
            self._run.id, self._kind, self._name, self._value, reply, tag=tag, forwarded=True
        )


def _answer_of(task: asyncio.Task[T]) -> Generator[Any, Any, T]:
    answer = yield from asyncio.shield(task).__await__()
    return answer


def _drop(answer: asyncio.Task[Any]) -> None:
    """It may be an error that nobody hears of, which asyncio would report."""
    if not answer.cancelled():
        answer.exception()
