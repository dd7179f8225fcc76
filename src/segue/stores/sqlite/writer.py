"""The one thread that writes: whatever is queued when it looks goes into one transaction."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from asyncio import Future
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from ...ports.store import Hint, Landed
from .batches import drive
from .cache import Cache
from .elsewhere import GLANCE, Elsewhere
from .ledger import Ledger
from .patience import BUSY, OPENING, WRITING, Patience, Room
from .place import Place
from .runs import Claim, claim, create, has_claimable
from .schema import connect, is_trouble, lacks_room, look_again, prepare, trouble
from .turns import ALONE, append, append_each, commit

#: Writes many items of one kind, and says of each what came of it.
Apply = Callable[[Ledger, Sequence[Any]], Sequence[Any]]


class Order:
    """Something to be written, and whom to tell: a future, or who is called. `many`: a list, not one result."""

    __slots__ = ("apply", "items", "many", "tell")

    def __init__(self, apply: Apply, items: Sequence[Any], tell: Future[Any] | Landed, many: bool) -> None:
        self.apply, self.items, self.tell, self.many = apply, items, tell, many


_RANKS: dict[Apply, int] = {create: 0, commit: 1}

#: So many pages gather in the log before they are moved into the file: where few write at once, and where many do.
#: A log that is filled anew costs half the sync of one that grows; but to move it costs syncs too, which hold many up.
_FEW, _MANY = 1000, 4000
#: Orders in a group, on the average, from which on they are many.
_CROWD = 8

#: A journal row, its run and fence, and whom to tell.
Row = tuple[str, int, bytes, Landed]
#: What one turn of the loop has ordered: rows to append, and all else.
Load = tuple[list[Row], list[Order]]
#: What came of them.
Done = tuple[list[tuple[Row, Any]], list[tuple[Order, Any]]]


class Writer:
    """Group commit. Each order is atomic by itself; a group shares a transaction as long as all goes well."""

    def __init__(self, path: str, address: str, *, patience: float, tell: Callable[[Hint], None]) -> None:
        self._path, self._address, self._patience, self._tell = path, address, patience, tell
        self._loop = asyncio.get_running_loop()
        self._rows: list[Row] = []  #: what this turn of the loop has ordered so far
        self._next: list[Order] = []
        self._size = 0.0  #: of groups, of late
        self._room: Room | None = None  #: while the disk has none
        self._place: Place  #: of the file
        self._log = 0  #: how many pages may gather in the log
        self._queue: SimpleQueue[Load | None] = SimpleQueue()
        self._ledger: Ledger
        self._elsewhere: Elsewhere
        self._begun = False  #: a transaction, which SQLite may have undone by itself
        self._hints: list[Hint] = []  #: of what is durable, to be told with it
        self._thread = threading.Thread(target=self._run, name="segue-sqlite-writer", daemon=True)
        self.opened: Future[None] = self._loop.create_future()
        self._closed: Future[None] = self._loop.create_future()
        self._thread.start()

    # ------------------------------------------------------------ on the loop
    def put(self, apply: Apply, items: Sequence[Any], *, many: bool) -> Future[Any]:
        """Order something. Orders of one turn of the loop go to the thread together."""
        future: Future[Any] = self._loop.create_future()
        self._order(Order(apply, items, future, many))
        return future

    def land(self, apply: Apply, item: Any, then: Landed) -> None:
        """Order one thing, without a future."""
        self._order(Order(apply, (item,), then, False))

    def _order(self, order: Order) -> None:
        self._hand_over_soon()
        self._next.append(order)

    def _hand_over_soon(self) -> None:
        """What is ordered first in a turn of the loop has all of that turn handed over."""
        if not self._next and not self._rows:
            self._loop.call_soon(self._hand_over)

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> None:
        """Order a journal row: what is written most often, and so without a future."""
        if not self._rows:
            self._hand_over_soon()
        self._rows.append((run, fence, entries, then))

    def put_from_thread(self, apply: Apply, items: Sequence[Any]) -> None:
        """Order something from another thread than the loop's; nobody hears what came of it."""
        self._queue.put(([], [Order(apply, items, _nobody, False)]))

    def _hand_over(self) -> None:
        if self._next or self._rows:
            load = self._rows, self._next
            self._rows, self._next = [], []
            self._queue.put(load)

    async def close(self) -> None:
        """Write what was ordered, and end the thread. Nothing is ordered any more."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    def _settle(self, done: Done, hints: Sequence[Hint]) -> None:
        """Tell of a group, in order. Ctrl-C that comes out of who was told doesn't keep it from the others."""
        rows, orders = iter(done[0]), iter(done[1])
        try:
            for (*_, then), result in rows:
                self._call(then, result)
            for order, result in orders:
                self._answer(order.tell, result)
        except BaseException:
            self._loop.call_soon(self._settle, (list(rows), list(orders)), hints)
            raise
        for hint in hints:
            self._tell(hint)

    def _answer(self, tell: Future[Any] | Landed, result: Any) -> None:
        if not isinstance(tell, Future):
            self._call(tell, result)
        elif tell.done():
            pass
        elif isinstance(result, BaseException):
            tell.set_exception(result)
        else:
            tell.set_result(result)

    def _call(self, then: Landed, result: Any) -> None:
        try:
            then(result)
        except Exception as error:  # as of any callback; the others of its group mustn't suffer
            self._loop.call_exception_handler({"message": "after a commit", "exception": error})

    # ------------------------------------------------------------ in the thread
    def _run(self) -> None:
        try:
            cx = self._open()
        except BaseException as error:
            self._post(_finish, self.opened, trouble(self._address, self._path, error))
            self._post(_finish, self._closed, None)
            return
        self._post(_finish, self.opened, None)
        cache = Cache(cx)
        try:
            while self._write_next(cache):
                pass
        finally:
            cx.close()
            self._post(_finish, self._closed, None)

    def _write_next(self, cache: Cache) -> bool:
        """What was ordered next; False at the end. While it waits, nobody is kept in memory who was told before."""
        if (load := self._wait(cache)) is None:
            return False
        cache.uses(len(load[0]) + len(load[1]))
        done = self._write(*load)
        if self._elsewhere.is_due():
            self._hints += self._elsewhere.look()
        hints, self._hints = self._hints, []
        self._post(self._settle, done, hints)
        return True

    def _open(self) -> sqlite3.Connection:
        """The file, with its tables; if another process is in the way, all over again."""
        patience: Patience | None = None
        while True:
            cx: sqlite3.Connection | None = None
            try:
                cx = connect(self._path, busy=min(BUSY, self._patience), write=True)
                self._ledger = Ledger(cx, self._address)
                self._begin()
                prepare(cx, self._address)
                cx.execute("commit")
                self._begun = False
                self._place = Place(self._path, self._address)
                self._elsewhere = Elsewhere(cx)
                return cx
            except BaseException as error:
                if cx is not None:
                    cx.close()
                patience = patience or self._waiting(OPENING)
                if not patience.waits(error):
                    raise

    def _post(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it all who could be told
            self._loop.call_soon_threadsafe(call, *args)

    def _wait(self, cache: Cache) -> Load | None:
        """All that is queued; None at the end. Meanwhile it is looked whether other processes write."""
        while True:
            try:
                load = self._queue.get(timeout=GLANCE)
                break
            except Empty:
                cache.idles(GLANCE)
                for hint in self._elsewhere.look():
                    self._post(self._tell, hint)
        if load is None:
            return None
        while True:
            try:
                more = self._queue.get_nowait()
            except Empty:
                return load
            if more is None:
                self._queue.put(None)
                return load
            load[0].extend(more[0])
            load[1].extend(more[1])

    def _write(self, rows: list[Row], orders: list[Order]) -> Done:
        """Write a group; if that fails, each by itself."""
        try:
            return self._patiently(rows, orders)
        except Exception as error:
            problem = trouble(self._address, self._path, error)
            if len(rows) + len(orders) == 1 or is_trouble(error):
                return [(row, problem) for row in rows], [(order, problem) for order in orders]
        single = [self._write([row], []) for row in rows] + [self._write([], [order]) for order in orders]
        return [row for one, _ in single for row in one], [order for _, one in single for order in one]

    def _patiently(self, rows: list[Row], orders: list[Order]) -> Done:
        """Write a group; if another process is in the way, or there is no room, all over again."""
        patience: Patience | None = None
        while True:
            try:
                return self._together(rows, orders)
            except BaseException as error:
                self._undo()
                patience = patience or self._waiting(WRITING)
                if not (patience.waits(error) or self._waits_for_room(error)):
                    raise
                _spare_lapsed(orders)

    def _waits_for_room(self, error: BaseException) -> bool:
        """All that finds none waits together: what comes when that time is over fails at once."""
        if not lacks_room(error, self._path):
            return False
        self._room = self._room or Room(self._address, self._patience)
        return self._room.waits()

    def _waiting(self, silent: float) -> Patience:
        return Patience(self._path, self._address, self._patience, silent=silent)

    def _pace(self, size: int) -> None:
        """Look how much is written at once, and let the log be as long as suits that."""
        self._size += (size - self._size) / 8
        log = _MANY if self._size > _CROWD else _FEW
        if log != self._log:
            self._log = log
            self._ledger.cx.execute(f"pragma wal_autocheckpoint = {log}")

    def _together(self, rows: list[Row], orders: list[Order]) -> Done:
        """Write a group in one transaction; rows alone need none around their statement."""
        ledger = self._ledger
        self._place.check()
        self._pace(len(rows) + len(orders))
        writes = any(map(self._would_write, orders))
        if rows and not writes and len(rows) <= ALONE and (came := append(ledger, rows)) is not None:
            self._room = None
            return list(zip(rows, came, strict=True)), [(order, []) for order in orders]
        if not rows and not writes:
            return [], [(order, []) for order in orders]
        self._begin()
        landed = append_each(ledger, rows) if rows else []
        done: list[tuple[Order, Any]] = []
        for apply, alike in groupby(sorted(orders, key=_rank), key=_apply):
            group = list(alike)
            items = [item for order in group for item in order.items]
            results = apply(ledger, items)
            start = 0
            for order in group:
                end = start + len(order.items)
                done.append((order, list(results[start:end]) if order.many else results[start]))
                start = end
        ledger.cx.execute("commit")
        self._begun, self._room = False, None
        self._hints += ledger.take_hints()
        return landed, done

    def _would_write(self, order: Order) -> bool:
        item = order.items[0] if order.items else None
        if order.apply is claim and isinstance(item, Claim):
            return has_claimable(self._ledger, item)
        return item is not None

    def _begin(self) -> None:
        self._ledger.cx.execute("begin immediate")
        self._begun = True
        look_again(self._ledger.cx, self._address)

    def _undo(self) -> None:
        if not self._begun:  # another process was in the way: nothing was learned
            return
        self._begun = False
        self._ledger.forget()
        if self._ledger.cx.in_transaction:
            self._ledger.cx.execute("rollback")


def _spare_lapsed(orders: Sequence[Order]) -> None:
    """Claims that had to wait take nothing that lapsed: who holds it may wait as well, to keep it."""
    for order in orders:
        if order.apply in (claim, drive):
            order.items = [msgspec.structs.replace(item, lapsed=False) for item in order.items]


def _nobody(result: object) -> None:
    """Nobody hears of it."""


def _apply(order: Order) -> Apply:
    return order.apply


def _rank(order: Order) -> int:
    """New runs and turns, of which there are most, go together, each in few statements; the rest keeps its order."""
    return _RANKS.get(order.apply, 2)


def _finish(future: Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
