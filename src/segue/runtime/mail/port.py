"""Requests of callers that are no runs: the answers come to this process, at an address of its own.

The request itself is mail like other mail, and is carried out once, whatever becomes of the caller; if its process
dies, the answer is nobody's.
"""

from __future__ import annotations

import asyncio
import itertools
from asyncio import Future, TimerHandle
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec

from ...authoring.failures import to_exception
from ...authoring.time import overdue
from ...model.checks import seconds
from ...model.entry import Failure
from ...model.errors import RunFailed, StepFailed, StoreError
from ...model.message import Letter, Mail, MailKind
from ...model.run import CallRef
from ...ports.clock import AlarmClock
from ...ports.store import Store
from ..ground.absent import Absent
from ..ground.patience import PATIENCE
from .arrivals import Arrivals

if TYPE_CHECKING:
    from .postbox import Postbox

#: How often answers are looked for that other processes sent, in seconds.
POLL: Final = 0.5
#: So many answers that were read are forgotten together.
READ: Final = 256


class Asked(msgspec.Struct):
    """A request on its way. A future is made for it only if its answer isn't there by the time it was sent."""

    answer: Mail | None = None
    future: Future[bytes] | None = None


class Port:
    """Where answers come to one process. `check` raises what keeps them from coming now."""

    def __init__(
        self,
        store: Store,
        clock: AlarmClock,
        postbox: Postbox,
        address: str,
        check: Callable[[], None],
        absent: Absent,
    ) -> None:
        self._store, self._clock, self._postbox, self._check = store, clock, postbox, check
        self._absent = absent
        self._loop = asyncio.get_running_loop()
        self.address = address
        self._names = uuid4().hex[:12]
        self._numbers = itertools.count(1)
        self._calls: dict[str, Asked] = {}
        self._arrivals = Arrivals(store, address, self._take_all)
        self.hint = self._arrivals.hint
        self._uncleared = 0  # letters that were read and are still there
        self._timer: TimerHandle | None = None
        self._failed = 0  # looks in a row

    def new_call(self) -> str:
        """What names a request, to those who see it carried out too."""
        return f"{self._names}.{next(self._numbers)}"

    def ask(
        self, to: str, name: str, value: bytes, timeout: timedelta | None, kind: MailKind, call: str = ""
    ) -> bytes | Awaitable[bytes]:
        """Send a request; its answer if that is there at once, else what is awaited for it.

        Raises, now or then, what its handler raised, `RunEnded`, `TimeoutError`.
        """
        within = None if timeout is None else seconds(f"timeout of the request {name}", timeout)
        call = call or f"{self._names}.{next(self._numbers)}"
        asked = self._calls[call] = Asked()
        if self._timer is None:
            self._timer = self._loop.call_later(POLL, self._tick)
        try:
            sending = self._postbox.post(to, kind, name, value, CallRef(self.address, call, 0), asked)
        except BaseException:
            del self._calls[call]
            raise
        if sending is not None or asked.answer is None:
            late = f"the request {name} to {to!r}"
            return self._answer(call, asked, sending, within, late)
        del self._calls[call]
        answer = asked.answer
        return (answer.value or b"null") if answer.error is None else _outcome(answer)

    async def _answer(
        self, call: str, asked: Asked, sending: Awaitable[None] | None, within: float | None, late: str
    ) -> bytes:
        """What comes, once the request was sent."""
        timer = None
        answer, future = asked.answer, None
        try:
            if answer is None:
                future = asked.future = Future[bytes](loop=self._loop)
                if within is not None:
                    error = to_exception(overdue(late))
                    timer = self._clock.call_later(within, lambda: _fail(future, error))
            if sending is not None:
                await sending
            if answer is not None:
                return _outcome(answer)
            assert future is not None  # there was no answer
            if future.done():
                return future.result()
            with self._absent.waiting():
                return await future
        finally:
            del self._calls[call]
            if timer is not None:
                timer.cancel()
            if future is not None and future.done() and not future.cancelled():
                future.exception()  # else asyncio reports it where who asks was cancelled just then

    def close(self) -> None:
        """The process asks no more; who waits is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for asked in self._calls.values():
            if asked.future is not None:
                asked.future.cancel("the engine was closed; what was asked is carried out with the next one")

    # ------------------------------------------------------------ answers
    def _tick(self) -> None:
        self._timer = None
        if not self._calls and not self._uncleared:
            self._failed = 0
            return
        self._timer = self._loop.call_later(POLL, self._tick)
        trouble = self._arrivals.trouble
        try:
            self._check()
        except asyncio.CancelledError as closed:
            self._fail_all(closed)
            return
        except Exception as error:
            trouble = error
        self._failed = 0 if trouble is None else self._failed + 1
        if trouble is not None and self._failed >= PATIENCE:
            self._fail_all(trouble)
        self._clear()
        self.look()

    def look(self) -> None:
        """Look for answers that other processes sent."""
        if self._calls:
            self._arrivals.look()

    def take(self, answers: Iterable[Mail]) -> None:
        """Take answers in: those of runs at work in this process don't go by the store.

        The first one to a request counts, and one that nobody waits for is dropped.
        """
        for mail in answers:
            asked = None if mail.call is None else self._calls.get(mail.call.path)
            if asked is None:
                continue
            if (future := asked.future) is None:
                if asked.answer is None:
                    asked.answer = mail
            elif not future.done():
                if mail.error is None:
                    future.set_result(mail.value or b"null")
                else:
                    future.set_exception(raised(mail, mail.error))

    def _take_all(self, letters: Sequence[Letter]) -> None:
        self.take(letter.mail for letter in letters)
        self._uncleared += len(letters)
        if self._uncleared >= READ:
            self._clear()

    def _clear(self) -> None:
        if self._uncleared:
            self._uncleared = 0
            self._store.clear(self.address, self._arrivals.seen).add_done_callback(_cleared)

    def _fail_all(self, error: BaseException) -> None:
        for future in [asked.future for asked in self._calls.values() if asked.future is not None]:
            if isinstance(error, asyncio.CancelledError):
                future.cancel(*error.args)
            else:
                _fail(future, error)


def _outcome(answer: Mail) -> bytes:
    if answer.error is not None:
        raise raised(answer, answer.error)
    return answer.value or b"null"


def raised(answer: Mail, failure: Failure) -> Exception:
    """What an answer raises that is an error."""
    error = to_exception(failure)
    return RunFailed(answer.sender, failure.type, failure.message) if isinstance(error, StepFailed) else error


def _fail(future: Future[bytes], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _cleared(future: Future[None]) -> None:
    """What couldn't be cleared stays until this process is gone."""
    if not future.cancelled() and not isinstance(error := future.exception(), StoreError | None):
        raise error
