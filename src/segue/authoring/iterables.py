"""Async iterables between the stages of a pipeline: several as one, many as batches, many as windows."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import timedelta
from typing import Any, Generic, TypeVar

from ..model.checks import seconds
from .context import current
from .failures import own_error
from .stream import Branches, Each, Stream
from .time import timer

T = TypeVar("T")


def batched(
    items: Iterable[T] | AsyncIterable[T], n: int = 0, /, *, within: timedelta | None = None
) -> AsyncIterator[list[T]]:
    """Lists of `n` items; the last one may be shorter.

    `within`: a list is given when that long has passed since its first item came, however short it is; inside a run
    only, and durable. Without `n`, lists are as long as that makes them. While a list isn't asked for, at most the
    next one is collected (without `n`: one of 1,000).
    """
    if n < 0 or (n == 0 and within is None):
        raise ValueError("batched() takes a number of items, at least 1, or within=timedelta(…), or both")
    if within is not None:
        current("batched")
    return Stream(_Batches(items, n, within))


def merged(*sources: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """The items of several iterables as they come, each source in its own order. One that fails ends the others.

    While an item isn't asked for, each source is at most one item ahead.
    """
    return Stream(_Merged(sources))


def windowed(items: Iterable[T] | AsyncIterable[T], n: int, /, step: int = 1) -> AsyncIterator[tuple[T, ...]]:
    """Windows of `n` items that begin `step` items after one another. What is left at the end is no window."""
    if n < 1 or step < 1:
        raise ValueError(f"windowed() takes a size and a step of at least 1, not {n} and {step}")
    return Stream(_Windows(Each(items), n, step))


class _Fetched(Generic[T]):
    """What branches have fetched and nobody has taken yet."""

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.open = 0  # sources that may give more
        self.error: Exception | None = None
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    def changed(self, _: object = None) -> None:
        self._changed.set()

    async def change(self) -> None:
        """Wait until there is something new."""
        await self._changed.wait()
        self._changed.clear()

    def take(self) -> T:
        self._taken.set()
        return self.items.popleft()

    async def fetch(self, source: Iterable[T] | AsyncIterable[T], most: int) -> None:
        """Fetch all items, at most so many ahead."""
        each = Each(source)
        try:
            async for item in each:
                self.items.append(item)
                self.changed()
                while len(self.items) >= most:
                    self._taken.clear()
                    await self._taken.wait()
        except BaseException as error:  # the consumer gets it
            self.error = self.error or own_error(error)
        finally:
            self.open -= 1
            self.changed()
            await each.aclose()


class _Merged(Generic[T]):
    def __init__(self, sources: tuple[Iterable[T] | AsyncIterable[T], ...]) -> None:
        self.branches = Branches()
        self._fetched: _Fetched[T] = _Fetched()
        self._fetched.open = len(sources)
        for source in sources:
            self.branches.start(self._fetched.fetch(source, len(sources)))

    async def next(self) -> T:
        fetched = self._fetched
        while not fetched.items:
            if fetched.error is not None:
                raise fetched.error
            if not fetched.open:
                raise StopAsyncIteration
            await fetched.change()
        return fetched.take()


class _Batches(Generic[T]):
    """One branch fetches. It begins at the first batch, so that `batched` may be called anywhere."""

    def __init__(self, source: Iterable[T] | AsyncIterable[T], n: int, within: timedelta | None) -> None:
        self.branches = Branches()
        self._source, self._n, self._within = source, n, within
        self._fetched: _Fetched[T] = _Fetched()
        self._begun = False

    async def next(self) -> list[T]:
        fetched = self._fetched
        if not self._begun:
            self._begun, fetched.open = True, 1
            self.branches.start(fetched.fetch(self._source, self._n or 1000))
        batch: list[T] = []
        over: Future[Any] | None = None
        try:
            while not self._n or len(batch) < self._n:
                if over is not None and over.done():  # what came since is for the next one
                    break
                if fetched.items:
                    batch.append(fetched.take())
                    if self._within is not None and over is None:
                        over = timer(current("batched"), seconds("within of batched()", self._within))
                        over.add_done_callback(fetched.changed)
                elif not fetched.open:
                    break
                else:
                    await fetched.change()
        finally:
            if over is not None:
                over.cancel()
        if batch:
            return batch
        raise fetched.error or StopAsyncIteration


class _Windows(Generic[T]):
    def __init__(self, each: Each[T], n: int, step: int) -> None:
        self.branches = Branches(each)
        self._each, self._n, self._step = each, n, step
        self._window: deque[T] = deque(maxlen=n)
        self._missing = n

    async def next(self) -> tuple[T, ...]:
        while self._missing:
            self._window.append(await anext(self._each))
            self._missing -= 1
        self._missing = self._step
        return tuple(self._window)
