"""A handler's function that is carried out off the loop."""

from __future__ import annotations

from asyncio import Future, Task
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from ...authoring.context import BRANCH
from ...authoring.failures import own_error
from ...authoring.pooled import Named
from ...authoring.stopping import Stop
from ..calls.call import own_call

if TYPE_CHECKING:
    from .executor import Executor


class Away:
    """Those of one wake; see `authoring.actor.life.Away`."""

    __slots__ = ("_run", "_stop")

    def __init__(self, run: Executor) -> None:
        self._run = run
        self._stop: Stop | None = None  # of the one that was last on a thread

    def on_thread(self, fn: Callable[[], Any], label: str) -> Future[Any]:
        stop = self._stop = Stop()
        told = partial(self._run.host.waits, self._run.id, ("", -1), label)
        return self._work(lambda: self._run.host.in_thread(fn, stop, told=told), label)

    def in_process(self, work: Named) -> Future[bytes]:
        told = partial(self._run.host.waits, self._run.id, ("", -1), work.label)
        return self._work(lambda: self._run.host.in_process(work, None, told), work.label)

    def hurry(self) -> None:
        if self._stop is not None:
            self._stop.asked = self._run.hurried = True

    def _work(self, begin: Callable[[], Awaitable[Any]], label: str) -> Future[Any]:
        run = self._run
        call = own_call(run, ("!thread", 0))

        async def work() -> None:
            try:
                result = await begin()
            except BaseException as error:
                raised = own_error(error)
                if not call.done():
                    call.set_exception(raised)
            else:
                if not call.done():
                    call.set_result(result)
            if call.task is not None:  # it isn't at work any more when the handler goes on
                run.carrying.local.discard(call.task)
            run.kick()

        context = copy_context()
        context.run(BRANCH.set, label)
        call.task = Task(work(), loop=run.loop, context=context)
        run.carrying.keep(call.task)
        return call
