"""Doing the same to many items, inside a run: a map over a map is a pipeline."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, Generic, Literal, TypeVar, cast, overload

from ..model import checks
from ..model.errors import InvalidValue
from .config import config_of
from .context import Branch, Slot, current
from .failures import own_error
from .flow import FlowCall, definition, take_call
from .mail import check_fits, child, next_child
from .step import StepDef
from .stream import Branches, Each, Stream
from .time import pause

In = TypeVar("In")
Out = TypeVar("Out")
Coro = Coroutine[Any, Any, Out]

#: So many finished items, or `limit`, wait for a slow consumer, or behind a slow item where order is kept.
AHEAD = 64
#: So many items may be begun and wait, for a batch, a person or a run of their own: as many as a provider's job takes.
OPEN = 50_000
#: So many runs are opened between two commits.
OPENS = 500
_ERRORS = ("raise", "skip", "return")


class Outcome(Generic[In, Out]):
    """How one item of a map came out. `value` raises the item's error where there is one."""

    __slots__ = ("_value", "error", "index", "input", "key", "run")

    def __init__(
        self,
        index: int,
        input: In,
        value: Out | None,
        error: Exception | None,
        key: str = "",
        run: Any = None,
    ) -> None:
        self.index, self.input, self.error, self.key, self.run = index, input, error, key or str(index), run
        self._value = value

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None

    @property
    def value(self) -> Out:
        """The result."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # None only where O is

    def __repr__(self) -> str:
        return (
            f"Outcome({self.index}, {self.error!r})"
            if self.error
            else f"Outcome({self.index}, {self._value!r})"
        )


class _Place(Slot):
    """One item's place among those at work; given up while the item waits."""

    def __init__(self, stream: _Items, outer: Slot | None) -> None:
        self._stream, self._outer = stream, outer
        self._waits = 0
        stream.at_work += 1

    def leave(self) -> None:
        self._waits += 1
        if self._waits == 1:
            self._stream.work(-1)
            if self._outer is not None:
                self._outer.leave()

    def enter(self) -> None:
        self._waits -= 1
        if self._waits == 0:
            self._stream.work(+1)
            if self._outer is not None:
                self._outer.enter()

    def close(self) -> None:
        if self._waits <= 0:
            self._stream.work(-1)


class Mapped(Awaitable[list[Out]], AsyncIterable[Out], Generic[Out]):
    """A map under way: await it for a list, or iterate and have each result as soon as it is there."""

    def __init__(
        self,
        fn: Callable[[Any], Any],
        items: Any,
        limit: int,
        ordered: bool,
        errors: str,
    ) -> None:
        self._fn, self._items, self._limit, self._ordered, self._errors = fn, items, limit, ordered, errors
        self._begun = False

    def __await__(self) -> Generator[Any, Any, list[Out]]:
        return self._list().__await__()

    async def _list(self) -> list[Out]:
        """All results. The first error is raised when it happens, whatever comes before it in order."""
        self._begun = True
        found: list[tuple[int, Any]] = []
        results = _Items(self._fn, self._items, self._limit, ordered=False, errors=self._errors, ahead=0)
        async for index, result in Stream(results):
            found.append((index, result))
        if self._ordered:
            found.sort(key=_index)
        return [result for _, result in found]

    def __aiter__(self) -> AsyncIterator[Out]:
        self._begun = True
        ahead = max(self._limit, AHEAD)
        results = _Items(
            self._fn, self._items, self._limit, ordered=self._ordered, errors=self._errors, ahead=ahead
        )
        return Stream(_Results(results))

    def __del__(self) -> None:
        if not self._begun:
            name = getattr(self._fn, "__qualname__", repr(self._fn))
            warnings.warn(
                f"segue.map({name}, …) was never awaited, so it did nothing; write `await segue.map(…)` "
                f"or `async for … in segue.map(…)`",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


def _index(result: tuple[int, Any]) -> int:
    return result[0]


class _Items:
    """What is behind a map: a branch that feeds, and for each item a branch, or the call of a run of its own.

    The feeder holds back while `limit` items are at work, `ahead` ones (unless 0) are finished and not yet taken, or
    `OPEN` are begun and wait.
    """

    def __init__(
        self, fn: Callable[[Any], Any], items: Any, limit: int, *, ordered: bool, errors: str, ahead: int
    ) -> None:
        self._fn, self._source, self._limit = fn, items, limit
        self._ordered, self._errors, self._ahead = ordered, errors, ahead
        known = definition(fn)
        self._in_branches = isinstance(known, StepDef) or (known is None and inspect.iscoroutinefunction(fn))
        self.branches = Branches()
        self.at_work = 0
        self._begun = self._taken = 0
        self._total: int | None = None
        self._failure: Exception | None = None
        self._came: deque[Outcome[Any, Any]] = deque()
        self._early: dict[int, Outcome[Any, Any]] = {}
        self._something, self._room = asyncio.Event(), asyncio.Event()
        self._finished = 0
        self.branches.start(self._feed())

    # ------------------------------------------------------------ for the consumer
    async def next(self) -> tuple[int, Any]:
        """The next result, with the number of its item."""
        while True:
            outcome = self._next_outcome()
            if outcome is None:
                if self._failure is not None:
                    raise self._failure
                if self._taken == self._total:
                    raise StopAsyncIteration
                self._something.clear()
                await self._something.wait()
                continue
            self._taken += 1
            self._room.set()
            if self._errors == "return":
                return outcome.index, outcome
            if outcome.error is None:
                return outcome.index, outcome.value
            if self._errors == "raise":
                raise outcome.error

    def _next_outcome(self) -> Outcome[Any, Any] | None:
        if not self._ordered:
            return self._came.popleft() if self._came else None
        while self._came:
            outcome = self._came.popleft()
            self._early[outcome.index] = outcome
        return self._early.pop(self._taken, None)

    # ------------------------------------------------------------ the feeder
    def work(self, by: int) -> None:
        self.at_work += by
        if by < 0:
            self._room.set()

    def _is_full(self) -> bool:
        return (
            self.at_work >= self._limit
            or 0 < self._ahead <= self._finished - self._taken
            or self._begun - self._finished >= OPEN
        )

    async def _feed(self) -> None:
        branch = current("map")
        each = Each(self._source)
        try:
            async for item in each:
                while self._is_full():
                    self._room.clear()
                    await self._room.wait()
                self._begin(branch, self._begun, item)
                self._begun += 1
                if self._begun % OPENS == 0 and self.at_work == 0:
                    await pause(branch, 0.0)  # at rest, so that the runs opened so far are created and begin
        except BaseException as error:  # of the source: the consumer gets it
            self._failure = own_error(error)
        else:
            self._total = self._begun
        finally:
            await each.aclose()
        self._something.set()

    def _begin(self, branch: Branch, index: int, item: Any) -> None:
        if self._in_branches:
            self.branches.start(self._item(index, item, _Place(self, branch.slot)))
            return
        try:
            call = self._fn(item)
        except BaseException as error:
            self._end(Outcome(index, item, None, own_error(error)))
            return
        if isinstance(call, FlowCall) or definition(type(call)) is not None:
            self._open(branch, index, item, call)
        elif inspect.isawaitable(call):
            self.branches.start(self._item(index, item, _Place(self, branch.slot), call))
        else:
            raise _cant_map(self._fn)

    def _open(self, branch: Branch, index: int, item: Any, call: Any) -> None:
        """Begin a run of its own for an item. It has no branch here: thousands may be under way."""
        try:
            target, args = take_call(call)
            check = check_fits(branch, "child", target, args)
            id, _ = next_child(branch, "child", target, check, args)
            group = f"{branch.run.id}{branch.path}"
            config = config_of(branch, flow=target.options)
            end = child(branch, target, args, config, check=check, group=group, limit=self._limit)
        except Exception as error:  # its arguments can't be written
            self._end(Outcome(index, item, None, error))
            return
        self.branches.keep(end)
        run = branch.run.services.handle(id, target, None)
        end.add_done_callback(partial(self._ended, index, item, run))

    async def _item(self, index: int, item: Any, place: _Place, call: Awaitable[Any] | None = None) -> None:
        current("map").slot = place
        try:
            value = await (self._fn(item) if call is None else call)
        except BaseException as error:
            self._end(Outcome(index, item, None, own_error(error)))
        else:
            self._end(Outcome(index, item, value, None))
        finally:
            place.close()

    def _ended(self, index: int, item: Any, run: Any, call: Future[Any]) -> None:
        if call.cancelled():
            return
        error = cast(
            "Exception | None", call.exception()
        )  # not raised: its trace would hold this frame, and that it
        value = call.result() if error is None else None
        self._end(Outcome(index, item, value, error, run=run))

    def _end(self, outcome: Outcome[Any, Any]) -> None:
        self._finished += 1
        self._came.append(outcome)
        self._something.set()
        self._room.set()


def _cant_map(fn: Any) -> TypeError:
    name = getattr(fn, "__qualname__", repr(fn))
    return TypeError(
        f"segue.map() takes a flow, an actor, a step or an async function, or a function that gives a call of one; "
        f"make {name} a step: segue.step({name})"
    )


class _Results(Generic[Out]):
    """The results without the numbers."""

    def __init__(self, items: _Items) -> None:
        self.branches, self._items = items.branches, items

    async def next(self) -> Out:
        result: Out = (await self._items.next())[1]
        return result


@overload
def map(
    fn: Callable[[In], Awaitable[Out]],
    items: Iterable[In] | AsyncIterable[In],
    /,
    *,
    limit: int = ...,
    ordered: bool = ...,
    errors: Literal["raise", "skip"] = ...,
) -> Mapped[Out]: ...
@overload
def map(
    fn: Callable[[In], Awaitable[Out]],
    items: Iterable[In] | AsyncIterable[In],
    /,
    *,
    errors: Literal["return"],
    limit: int = ...,
    ordered: bool = ...,
) -> Mapped[Outcome[In, Out]]: ...
def map(fn: Any, items: Any, /, *, limit: int = 100, ordered: bool = True, errors: str = "raise") -> Any:
    """Do the same to many items, from a plain or async iterable, such as another map.

    A flow or an actor becomes a run of its own for each item; a step or an async function runs in a branch of this
    run; `lambda item: review(item, lang="en")` gives the call to make. `limit` counts the items that are at work, not
    those that wait for a batch, a person or a timer. Results come in the order of the items, or, with
    `ordered=False`, as they are done. `errors`: the first one is raised and the rest cancelled, or failed items are
    skipped, or every item gives an `Outcome`.

    Iterated, it holds its source back while `limit` results (at least 64) wait to be taken. Break the loop off, and
    what is under way is cancelled. Awaited, it gives a list, and an error is raised as soon as it happens.
    """
    current("map")
    if not callable(fn):
        raise _cant_map(fn)
    if not isinstance(items, Iterable | AsyncIterable):
        raise InvalidValue("the items of map()", "an iterable, plain or async", "it is none", repr(items))
    checks.count("limit of map()", limit)
    checks.one_of("errors of map()", errors, _ERRORS)
    return Mapped(fn, items, limit, ordered, errors)
