"""Doing the same to many items, inside a run: a map over a map is a pipeline."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any, Generic, Literal, TypeVar, overload

from .config import config_of
from .context import Branch, Slot, current
from .flow import FlowDef, definition
from .mail import child

In = TypeVar("In")
Out = TypeVar("Out")
Coro = Coroutine[Any, Any, Out]


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


class _Items:
    """How many items are at work. Items that wait for a batch, a person, a timer or a child don't count."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.at_work = 0
        self.room = asyncio.Event()
        self.room.set()

    def change(self, by: int) -> None:
        self.at_work += by
        if self.at_work < self.limit:
            self.room.set()
        else:
            self.room.clear()


class _Place(Slot):
    """One item's place among those at work."""

    def __init__(self, items: _Items) -> None:
        self.items = items
        self.waits = 0
        items.change(+1)

    def leave(self) -> None:
        self.waits += 1
        if self.waits == 1:
            self.items.change(-1)

    def enter(self) -> None:
        self.waits -= 1
        if self.waits == 0:
            self.items.change(+1)

    def close(self) -> None:
        if self.waits <= 0:
            self.items.change(-1)


class Mapped(Awaitable[list[Out]], AsyncIterable[Out], Generic[Out]):
    """A map under way: await it for a list, or iterate and have each result as soon as it is there."""

    def __init__(
        self,
        fn: Callable[[Any], Coro[Out]],
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
        return [item async for item in self]

    def __aiter__(self) -> AsyncIterator[Out]:
        self._begun = True
        return self._results()

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

    async def _results(self) -> AsyncIterator[Out]:
        stream = _Stream(self._fn, self._items, self._limit)
        try:
            async for outcome in stream.outcomes(self._ordered):
                if self._errors == "return":
                    yield outcome  # type: ignore[misc]  # the overloads of map() say so
                elif outcome.ok:
                    yield outcome.value
                elif self._errors == "raise":
                    raise outcome.error  # type: ignore[misc]  # not ok, so there is one
        finally:
            await stream.stop()


class _Stream:
    """The tasks behind a map: one that feeds, one an item."""

    def __init__(self, fn: Callable[[Any], Any], items: Any, limit: int) -> None:
        self.fn = fn
        self.items = items
        self.places = _Items(limit)
        self.ready: asyncio.Queue[Outcome[Any, Any] | Exception | int] = asyncio.Queue()
        self.drained = asyncio.Event()
        self.buffer = max(limit, 64)
        self.tasks: set[asyncio.Task[None]] = set()

    async def outcomes(self, ordered: bool) -> AsyncIterator[Outcome[Any, Any]]:
        feeder = asyncio.create_task(self._feed())
        self.tasks.add(feeder)
        total: int | None = None
        given, early = 0, dict[int, Outcome[Any, Any]]()
        while total is None or given < total:
            if given in early:
                given += 1
                yield early.pop(given - 1)
                continue
            got = await self.ready.get()
            self.drained.set()
            if isinstance(got, Outcome):
                early[got.index if ordered else given + len(early)] = got
            elif isinstance(got, int):
                total = got
            else:
                raise got

    async def _feed(self) -> None:
        count = 0
        try:
            async for item in _each(self.items):
                while self.ready.qsize() > self.buffer:
                    self.drained.clear()
                    await self.drained.wait()
                await self.places.room.wait()
                task = asyncio.create_task(self._item(count, item, _Place(self.places)))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
                count += 1
        except Exception as error:  # of the source: the consumer gets it
            self.ready.put_nowait(error)
        else:
            self.ready.put_nowait(count)

    async def _item(self, index: int, item: Any, place: _Place) -> None:
        branch = current("map")
        branch.slot = place
        try:
            value = await self._call(branch, item)
        except Exception as error:
            self.ready.put_nowait(Outcome(index, item, None, error))
        else:
            self.ready.put_nowait(Outcome(index, item, value, None))
        finally:
            place.close()

    def _call(self, branch: Branch, item: Any) -> Awaitable[Any]:
        flow = definition(self.fn)
        if isinstance(flow, FlowDef):
            return child(branch, flow, flow.shape.encode_call((item,), {}), config_of(branch))  # type: ignore[no-any-return]  # a future
        result: Awaitable[Any] = self.fn(item)
        return result

    async def stop(self) -> None:
        """Cancel what still runs, as when the consumer breaks off or an item failed."""
        left = [task for task in self.tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.gather(*left, return_exceptions=True)


async def _each(items: Any) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


@overload
def map(
    fn: Callable[[In], Coro[Out]],
    items: Iterable[In] | AsyncIterable[In],
    /,
    *,
    limit: int = ...,
    ordered: bool = ...,
    errors: Literal["raise", "skip"] = ...,
) -> Mapped[Out]: ...
@overload
def map(
    fn: Callable[[In], Coro[Out]],
    items: Iterable[In] | AsyncIterable[In],
    /,
    *,
    errors: Literal["return"],
    limit: int = ...,
    ordered: bool = ...,
) -> Mapped[Outcome[In, Out]]: ...
def map(fn: Any, items: Any, /, *, limit: int = 100, ordered: bool = True, errors: str = "raise") -> Any:
    """Do the same to many items, from a plain or async iterable, such as another map.

    A flow becomes a run of its own for each item; a step or an async function runs in a branch of this run.
    `limit` counts the items that are at work, not those that wait for a batch, a person or a timer.
    Results come in the order of the items, or, with `ordered=False`, as they are done. `errors`: the first
    one is raised and the rest cancelled, or failed items are skipped, or every item gives an `Outcome`.
    """
    current("map")
    known = definition(fn)
    if known is None and not inspect.iscoroutinefunction(fn):
        name = getattr(fn, "__qualname__", repr(fn))
        raise TypeError(
            f"segue.map() takes a flow, a step or an async function; make {name} a step: segue.step({name})"
        )
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    return Mapped(fn, items, limit, ordered, errors)
