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
from .unwritable import Unwritable

T = TypeVar("T")
Look = tuple[Callable[..., Any], tuple[Any, ...], "Future[Any]"]
#: What came of one.
Seen = tuple["Future[Any]", Any, "BaseException | None"]

#: So many looks share a transaction, and their answers a call of the loop; more would keep the first ones waiting.
TOGETHER = 32


class Reader:
    """Looks at the file as it is at that moment: each look sees all that was acknowledged before it.

    `unwritable`: the file can only be read.
    """

    def __init__(
        self, path: str, address: str, *, patience: float, unwritable: Unwritable | None = None
    ) -> None:
        self._path, self._address, self._patience, self._unwritable = path, address, patience, unwritable
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
            seen: list[Seen] = []
            try:
                if cx is None:
                    cx = self._connect()
                    cache = Cache(cx)
                if cache is not None:
                    cache.uses(len(looks))
                seen = self._together(cx, looks)
                while self._unwritable is not None and self._unwritable.has_changed():
                    cx.close()
                    cx = cache = None
                    cx = self._connect()
                    cache = Cache(cx)
                    seen = self._together(cx, looks)
            except Exception as problem:
                error = trouble(self._address, self._path, problem)
                seen += [(future, None, error) for _, _, future in looks[len(seen) :]]
            self._post(_settle_all, seen)
        if cx is not None:
            cx.close()
        self._post(_settle, self._closed, None, None)

    def _connect(self) -> sqlite3.Connection:
        if self._unwritable is not None:
            return self._unwritable.connect()
        return connect(self._path, busy=self._patience, write=False)

    def _together(self, cx: sqlite3.Connection, looks: list[Look]) -> list[Seen]:
        """What each of them sees, all at one time."""
        cx.execute("begin")
        try:
            return [self._look(cx, *look) for look in looks]
        finally:
            cx.execute("rollback")

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
    ) -> Seen:
        try:
            return future, look(cx, *args), None
        except Exception as problem:
            return future, None, trouble(self._address, self._path, problem)

    def _post(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it all who could be told
            self._loop.call_soon_threadsafe(call, *args)


def _settle_all(seen: list[Seen]) -> None:
    for future, result, error in seen:
        _settle(future, result, error)


def _settle(future: Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
