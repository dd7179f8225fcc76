"""Async iterators with branches of their own behind them, which end when the iterator is closed or let go."""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from typing import Any, Final, Generic, Protocol, Self, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
#: The name of tasks that end with their iterator.
IN_HAND: Final = "segue: of an iterator"


class Source(Protocol[T_co]):
    """What a `Stream` gives, and the branches that fetch it."""

    branches: Branches

    async def next(self) -> T_co:
        """The next one. Raises `StopAsyncIteration` at the end."""
        ...


class Branches:
    """What works for one iterator: tasks of the run, and calls that wait by themselves; in the order begun.

    `inner`: a source that the iterator reads by itself, closed with it.
    """

    def __init__(self, inner: Each[Any] | None = None) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._left: dict[Future[Any], None] = {}
        self.closed = False

    def start(self, coro: Coroutine[Any, Any, None]) -> None:
        """Begin a task."""
        self.keep(asyncio.create_task(coro, name=IN_HAND))

    def keep(self, future: Future[Any]) -> None:
        """End that too."""
        self._left[future] = None
        future.add_done_callback(self._ended)

    def _ended(self, future: Future[Any]) -> None:
        self._left.pop(future, None)

    def __len__(self) -> int:
        return len(self._left)

    async def close(self) -> None:
        """Cancel what still runs, and wait until it has cleaned up."""
        if tasks := self.cancel():
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._inner is not None:
            await self._inner.aclose()

    def cancel(self) -> list[Task[Any]]:
        """Cancel what still runs; the tasks among it."""
        self.closed = True
        left = list(self._left)
        for future in left:
            future.cancel()
        return [future for future in left if isinstance(future, Task)]

    def let_go(self) -> None:
        """Nobody can ask for more. Called wherever the last reference went."""
        if self._left and not self._loop.is_closed():
            if asyncio._get_running_loop() is self._loop:
                self.cancel()
            else:
                self._loop.call_soon_threadsafe(self.cancel)


class Stream(AsyncIterator[T], Generic[T]):
    """A source as an async iterator. Breaking off a loop over it ends its branches at once.

    No async generator: of one that is broken off, the loop closes the rest at some later time, in a task of its own,
    and a replay would have to meet that time.
    """

    __slots__ = ("_source",)

    def __init__(self, source: Source[T]) -> None:
        self._source = source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._source.branches.closed:
            raise StopAsyncIteration
        try:
            return await self._source.next()
        except BaseException:
            await self._source.branches.close()
            raise

    async def aclose(self) -> None:
        """End it, and wait until its branches have cleaned up."""
        await self._source.branches.close()

    def __del__(self) -> None:
        self._source.branches.let_go()


class Each(AsyncIterator[T], Generic[T]):
    """The items of a plain or async iterable. Closing it closes the source, in the same task."""

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        is_async = isinstance(items, AsyncIterable)
        self._async = aiter(items) if isinstance(items, AsyncIterable) else None
        self._plain = None if is_async else iter(items)  # type: ignore[arg-type]  # not async, so plain

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._async is not None:
            return await anext(self._async)
        assert self._plain is not None  # one of both
        try:
            return next(self._plain)
        except StopIteration:
            raise StopAsyncIteration from None
        except StopAsyncIteration as error:  # it would pass for the end
            raise RuntimeError("an iterable that isn't async raised StopAsyncIteration") from error

    async def aclose(self) -> None:
        """Let the source clean up, if it is one that can."""
        if (close := getattr(self._async, "aclose", None)) is not None:
            await close()
        elif (close := getattr(self._plain, "close", None)) is not None:
            close()
