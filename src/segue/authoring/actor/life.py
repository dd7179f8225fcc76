"""What an actor's code needs of the wake that it runs in."""

from __future__ import annotations

from asyncio import Future
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ...model.entry import Failure
from ...model.message import Letter, Mail
from ...ports.store import Claimed, Turn
from ..message import Responder
from ..pooled import Named

if TYPE_CHECKING:
    from .quick import Odd
    from .supervisor import Supervisor


class Stays(Protocol):
    """What an actor is between two messages, in memory."""

    def code(self, claimed: Claimed, life: Life, /) -> Coroutine[Any, Any, bytes]:
        """The coroutine of a wake that goes on from it; nothing of the claimed checkpoint is read."""
        ...


class Beside(Protocol):
    """What carries out a message beside a handler."""

    def __call__(self, mail: Mail) -> Coroutine[Any, Any, None]: ...


class Serving(Protocol):
    """How an actor's messages are carried out while it listens."""

    def carry_out(self, posts: OrderedDict[int, Letter], turn: Turn, /) -> Odd | None:
        """Carry out the first of these messages, in the actor's name, as far as that needs no more than their handlers.

        What was carried out is taken out and consumed by the turn, which is the next, and `saved`, so that a commit may
        follow at any time. The next one is given if it isn't plain: its handler waits, raised or said something, or it
        was not begun.
        """
        ...

    def serve(self, odd: Odd | None, /) -> Coroutine[Any, Any, bool]:
        """Carry out that one, and what else is there; whether the actor still listens."""
        ...

    @property
    def has_news(self) -> bool:
        """Whether more is to be stored than that messages were handled; that is for the next turn with more in it."""
        ...


class Urgent(Protocol):
    """Urgent messages that come while a handler is at work: each strikes with what the handler waited for, say."""

    beside: Beside  #: carries one out, in a branch of its own

    @property
    def is_struck(self) -> bool:
        """Whether one has struck that isn't begun with yet."""
        ...

    @property
    def cancels(self) -> bool:
        """Whether the run was cancelled, and its code hasn't heard of it yet."""
        ...

    def begun(self) -> Future[Any]:
        """When what has struck is begun with; who waits is cancelled where that was a cancellation."""
        ...

    def begins(self, mail: Mail) -> None:
        """That one has its turn: a subscription is in force from here on."""
        ...


class Away(Protocol):
    """Where a handler's function is carried out off the loop, as work of this wake."""

    def on_thread(self, fn: Callable[[], Any], label: str) -> Future[Any]:
        """A function of that name, on a thread."""
        ...

    def in_process(self, work: Named) -> Future[bytes]:
        """Work in another process; given up, it is ended."""
        ...

    def hurry(self) -> None:
        """Ask the function that is on a thread to stop: `segue.should_stop()` is true in it."""
        ...


class Life(Protocol):
    """One wake of an actor, as its code sees it."""

    id: str
    supervisor: Supervisor  #: of its children
    followed: Mapping[str, Any]  #: empty if nobody in this process follows how a request is carried out
    saved: Callable[[Turn], None] | None  #: what has the next commit write what was done since the last

    @property
    def urgent(self) -> Urgent: ...
    @property
    def away(self) -> Away: ...

    @property
    def callers(self) -> tuple[str, ...]:
        """Who made the run do what it does."""
        ...

    @callers.setter
    def callers(self, callers: tuple[str, ...]) -> None: ...

    @property
    def leaving(self) -> bool:
        """Whether the run leaves memory, and every task is cancelled."""
        ...

    def take(self, *, urgent: bool = False, ends: bool = False, again: int = 0) -> Letter | None:
        """The next message that is there, an urgent one first, or only such; it stays in the inbox.

        `ends`: of the others that which asks for the end too, whatever lies before it. `again`: that one before others.
        """
        ...

    def carry_out(self, serving: Serving, /) -> Odd | None:
        """Have it carry out what is there, if nothing else is to be looked at; by the actor's own code."""
        ...

    def next_mail(self, *, ends: bool = False, due: float) -> Future[Letter | None]:
        """The next such message, when there is one; None when it is `due`, in seconds since the epoch.

        All that was done is committed.
        """
        ...

    async def attend(self, serving: Serving, stays: Stays) -> bool | None:
        """Wait until there are messages; what `serve` gave, where it was begun meanwhile.

        All that was done is committed.

        Whoever brings mail has it served in the actor's name: as long as no handler waits, the actor's task isn't
        needed. Where none come for a while this wake may end here, closed as a coroutine is, and another one go on from
        what `stays`.
        """
        ...

    def takes(self, letter: Letter, path: str, *, keeps: bool) -> tuple[Responder[Any], ...]:
        """A handler begins with a request, its calls at that path; its `Responder`, if it `keeps` one."""
        ...

    def bury(self, mail: Mail, reason: str, error: Failure | None) -> None:
        """Have the next commit list mail as a dead letter."""
        ...

    def answer_to(self, mail: Mail, value: bytes | None, error: Failure | None) -> Mail | None:
        """What answers a request, once it was sent; None for mail that wants no answer."""
        ...

    def close_letter(self, letter: Letter, reply: Mail | None) -> None:
        """Have the next commit consume a message and send its answer."""
        ...

    def refuse(self, letters: Iterable[int], error: Failure) -> None:
        """Have the next commit answer those of these requests that are kept, and not answered."""
        ...

    def save(self, checkpoint: Callable[[Turn], None], quiet: bool = False, /) -> bool:
        """Have the next commit write a checkpoint: what was recorded so far is history. `quiet`: nothing was.

        False where something of the handler is left, so that `seal` must follow.
        """
        ...

    def going_on(self, work: Coroutine[Any, Any, Any], waits: Any) -> Awaitable[Any]:
        """A handler that was begun and waits on that: to be awaited by the actor's own code."""
        ...

    def leaves(self, left: Callable[[], bytes | None], /) -> None:
        """Have the commit that ends the run say what it `left`, for those who look at it; nothing goes on from that."""
        ...

    def seal(self) -> Future[None]:
        """Commit. Tasks that the handler left behind don't outlive it."""
        ...

    def hold(self, reason: str) -> Future[Any]:
        """Hold the run for a person, once what was done is committed."""
        ...

    def own_wait(self) -> Future[Any]:
        """A future that the actor's own code sets; nothing of it is recorded."""
        ...

    def reply_beside(self, mail: Mail, value: bytes | None, error: Failure | None) -> Awaitable[None]:
        """Answer a message that is carried out beside a handler: a recorded call."""
        ...

    def bury_beside(self, mail: Mail, reason: str, error: Failure) -> Awaitable[None]:
        """List a message that was carried out beside a handler as a dead letter: a recorded call."""
        ...

    def now(self) -> float: ...
    def clock(self) -> float: ...
    def set_time(self, at: float) -> None: ...
    def target(self, name: str, module: str = "") -> Any: ...
