"""A thread that reads, beside the one that writes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from asyncio import Future
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ...model.errors import StoreError
from .cache import Cache
from .schema import connect, trouble

T = TypeVar("T")
Look = tuple[Callable[..., Any], tuple[Any, ...], "Future[Any]"]

#: So many looks share a transaction, and their answers a call of the loop; more would keep the first ones waiting.
TOGETHER = 32


class Reader:
    """Looks at the file as it is at that moment: each look sees all that was acknowledged before it."""

    def __init__(self, path: str, address: str, *, patience: float) -> None:
        self._path, self._address, self._patience = path, address, patience
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Look | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="segue-sqlite-reader", daemon=True)
        self._closed: Future[None] = self._loop.create_future()
        self._stopped = False
        self._thread.start()

    async def look(self, look: Callable[..., T], *args: Any) -> T:
        """What `look(connection, *args)` returns."""
        return await self.put(look, *args)

    def put(self, look: Callable[..., T], *args: Any) -> Future[T]:
        """The same, for those who need no task."""
        future: Future[T] = self._loop.create_future()
        if self._stopped:
            future.set_exception(StoreError(self._address, "it is closed", "open it again"))
        else:
            self._queue.put((look, args, future))
        return future

    async def close(self) -> None:
        """End the thread once all looks are done."""
        if not self._stopped:
            self._stopped = True
            self._queue.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    def _run(self) -> None:
        cx: sqlite3.Connection | None = None
        cache: Cache | None = None
        while looks := self._wait(cache):
            seen: list[tuple[Future[Any], Any, BaseException | None]] = []
            try:
                if cx is None:
                    cx = connect(self._path, busy=self._patience, write=False)
                    cache = Cache(cx)
                if cache is not None:
                    cache.uses(len(looks))
                cx.execute("begin")
                try:
                    seen += [self._look(cx, *look) for look in looks]
                finally:
                    cx.execute("rollback")
            except Exception as problem:
                error = trouble(self._address, self._path, problem)
                seen += [(future, None, error) for _, _, future in looks[len(seen) :]]
            self._post(_settle_all, seen)
        if cx is not None:
            cx.close()
        self._post(_settle, self._closed, None, None)

    def _wait(self, cache: Cache | None) -> list[Look]:
        """What is asked for now, to be looked at in one transaction; none at the end."""
        looks: list[Look] = []
        look = self._queue.get() if cache is None else cache.wait(self._queue)
        while look is not None:
            looks.append(look)
            if len(looks) == TOGETHER:
                return looks
            try:
                look = self._queue.get_nowait()
            except Empty:
                return looks
        if looks:
            self._queue.put(None)
        return looks

    def _look(
        self, cx: sqlite3.Connection, look: Callable[..., Any], args: tuple[Any, ...], future: Future[Any]
    ) -> tuple[Future[Any], Any, BaseException | None]:
        try:
            return future, look(cx, *args), None
        except Exception as problem:
            return future, None, trouble(self._address, self._path, problem)

    def _post(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it all who could be told
            self._loop.call_soon_threadsafe(call, *args)


def _settle_all(seen: list[tuple[Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in seen:
        _settle(future, result, error)


def _settle(future: Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
