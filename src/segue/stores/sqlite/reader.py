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

from .cache import Cache
from .patience import BUSY, OPENING, Patience
from .schema import connect, is_busy, trouble
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
        self._cx: sqlite3.Connection | None = None  # both are the thread's own
        self._cache: Cache | None = None
        self._thread.start()

    async def look(self, look: Callable[..., T], *args: Any) -> T:
        """What `look(connection, *args)` returns."""
        return await self.put(look, *args)

    def put(self, look: Callable[..., T], *args: Any) -> Future[T]:
        """The same, for those who need no task."""
        future: Future[T] = self._loop.create_future()
        self._queue.put((look, args, future))
        return future

    async def close(self) -> None:
        """End the thread once all looks are done. None is asked for any more."""
        self._queue.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    # ------------------------------------------------------------ in the thread
    def _run(self) -> None:
        while looks := self._wait():
            try:
                seen = self._patiently(looks)
            except Exception as problem:
                error = trouble(self._address, self._path, problem)
                seen = [(future, None, error) for _, _, future in looks]
            self._post(_settle_all, seen)
        self._disconnect()
        self._post(_settle, self._closed, None, None)

    def _patiently(self, looks: list[Look]) -> list[Seen]:
        """What they see; if another process is in the way, all over again."""
        patience: Patience | None = None
        while True:
            try:
                return self._see(looks)
            except sqlite3.OperationalError as error:
                patience = patience or Patience(self._path, self._address, self._patience, silent=OPENING)
                if not patience.waits(error):
                    raise

    def _see(self, looks: list[Look]) -> list[Seen]:
        seen = self._together(self._connected(), looks)
        while self._unwritable is not None and self._unwritable.has_changed():
            self._disconnect()
            seen = self._together(self._connected(), looks)
        return seen

    def _connected(self) -> sqlite3.Connection:
        if self._cx is None:
            file = self._unwritable
            busy = min(BUSY, self._patience)
            self._cx = connect(self._path, busy=busy, write=False) if file is None else file.connect()
            self._cache = Cache(self._cx)
        return self._cx

    def _disconnect(self) -> None:
        cx, self._cx, self._cache = self._cx, None, None
        if cx is not None:
            cx.close()

    def _together(self, cx: sqlite3.Connection, looks: list[Look]) -> list[Seen]:
        """What each of them sees, all at one time."""
        if self._cache is not None:
            self._cache.uses(len(looks))
        cx.execute("begin")
        try:
            return [self._look(cx, *look) for look in looks]
        finally:
            cx.execute("rollback")

    def _wait(self) -> list[Look]:
        """What is asked for now, to be looked at in one transaction; none at the end."""
        looks: list[Look] = []
        look = self._queue.get() if self._cache is None else self._cache.wait(self._queue)
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
            if is_busy(problem):
                raise
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
