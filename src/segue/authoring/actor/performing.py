"""How an actor's methods are carried out: handlers as they were marked, hooks, retries and fall-backs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from inspect import iscoroutine
from typing import Any

from ...model.errors import AuthorError
from ..config import using
from ..context import Branch
from ..failures import own_error
from ..pooled import side_by_side
from ..time import timeout
from ..trace import log_error
from . import elsewhere
from .handlers import Handler
from .life import Life
from .standing import Standing

log = logging.getLogger("segue")


class Performer:
    """Carries out the methods of the actor that stands `here`, one at a time."""

    def __init__(self, here: Standing, life: Life, branch: Branch) -> None:
        self._here, self._life, self.branch = here, life, branch
        self.at_work = ""  #: the handler that is carried out
        self._recorded = False  # something, of an earlier method of this turn
        self._left: dict[str, tuple[int, int, dict[str, int] | None]] = {}  # how far those came, by path

    def enter(self, method: str) -> None:
        """From here on, calls are recorded as of that method in this turn."""
        branch, path = self.branch, f"/{method}.{self._here.turns}"
        if branch.n or branch.kids is not None:
            self._recorded = True
            self._left[branch.path] = branch.n, branch.timeouts, branch.kids
        branch.restart(path)
        if path in self._left:  # a hook that was cut off is called again: it goes on to number
            branch.n, branch.timeouts, branch.kids = self._left[path]

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was recorded or begun in this turn."""
        branch = self.branch
        return not (self._recorded or branch.n or branch.timeouts or branch.kids is not None)

    def over(self) -> bool:
        """The turn is over: whether nothing was recorded or begun in it."""
        branch, quiet = self.branch, self.is_quiet
        if not quiet:
            self._recorded, branch.n, branch.timeouts, branch.kids = False, 0, 0, None
            self._left.clear()
        return quiet

    def path(self, handler: Handler) -> str:
        """Where its calls will be recorded."""
        return f"/{handler.method}.{self._here.turns}"

    def call(self, handler: Handler, *arguments: Any) -> Awaitable[Any]:
        """A handler at work. `leave` it when it is done."""
        branch, method, here = self.branch, handler.method, self._here
        if branch.n or branch.timeouts or branch.kids is not None:
            self.enter(method)
        else:
            branch.path = f"/{method}.{here.turns}"
        self.at_work = method
        if handler.plain and here.definition.simple:
            result: Awaitable[Any] = getattr(here.actor, method)(*arguments)
            return result
        return self.carry_out(handler, *arguments)

    async def carry_out(self, handler: Handler, *arguments: Any) -> Any:
        """A method, called as it was marked."""
        work = HandlerWork(self._here, self._life, handler, arguments)
        call: Callable[[], Awaitable[Any]] = work
        if not self._here.definition.simple:
            call = _performed(self._here.actor, work)
        with ExitStack() as stack:
            if handler.mode is not None:
                stack.enter_context(using(mode=handler.mode))
            if handler.timeout is None:
                return await call()
            async with timeout(handler.timeout):
                return await call()

    async def hook(self, name: str, *arguments: Any) -> Any:
        """One of the methods that a class may have of its own; None if it hasn't."""
        if name not in self._here.definition.own:
            return None
        self.enter(name)
        try:
            result = getattr(self._here.actor, name)(*arguments)
            return await result if iscoroutine(result) else result
        except Exception:
            raise
        except BaseException as error:
            raise own_error(error) from error

    async def roll_back(self) -> None:
        """The hook of that name: an error in it doesn't keep the actor from what it was cut off for."""
        try:
            await self.hook("rollback")
        except Exception as error:
            log_error(log, error, "run %s: rollback() failed", self._life.id)

    # ------------------------------------------------------------ failures
    def fallback(self, handler: Handler, error: Exception) -> Handler | None:
        """What is to be done about an error, if there is no other attempt."""
        fallbacks = self._here.definition.handlers.fallbacks.get(handler.name)
        if not fallbacks or self.tries_again(handler, error):
            return None
        return next((one for one in fallbacks if isinstance(error, one.catches)), None)

    def tries_again(self, handler: Handler, error: Exception) -> bool:
        """Whether there is another attempt after that error."""
        retry = handler.retry
        if self._here.attempt + 1 >= retry.attempts or isinstance(error, AuthorError):
            return False
        return retry.wants(error)

    def put_off(self, handler: Handler) -> None:
        """Another attempt, after a pause."""
        here, life = self._here, self._life
        here.attempt += 1
        pause = handler.retry.wait_after(here.attempt, f"{life.id}/{handler.method}.{here.turns}")
        here.due = life.clock() + pause


class HandlerWork:
    """A handler that is about to be carried out: await `work()` for what it returns."""

    def __init__(self, here: Standing, life: Life, handler: Handler, arguments: tuple[Any, ...]) -> None:
        self._here, self._life, self._handler, self._arguments = here, life, handler, arguments
        self.kind, self.name, self.value = handler.kind, handler.method, arguments[0]

    async def __call__(self) -> Any:
        handler, here = self._handler, self._here
        actor = here.actor
        if handler.elsewhere and not side_by_side():
            definition, (state,) = here.definition, self._arguments
            back = await self._life.away.in_process(elsewhere.pack(definition, handler, actor, state))
            result, here.state = elsewhere.unpack(definition, handler, actor, back)
            self.value = here.state
            return result
        method = getattr(actor, handler.method)
        if handler.is_async:
            return await method(*self._arguments)
        label = f"{here.definition.name}.{handler.method}"
        return await self._life.away.on_thread(lambda: method(*self._arguments), label)


def _performed(actor: Any, work: HandlerWork) -> Callable[[], Awaitable[Any]]:
    return lambda: actor.perform(work)
