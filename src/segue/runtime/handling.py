"""An actor's wake: what its code needs besides the calls that it records."""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..authoring.context import BRANCH, BranchTask
from ..core.replay import Replay
from ..model.message import Letter, Mail
from .call import Call, own_call
from .phase import Phase

if TYPE_CHECKING:
    from .executor import Executor


class Handling:
    """The life of an actor in memory; see `authoring.actor.Life`."""

    __slots__ = ("_run", "id", "sealing")

    def __init__(self, run: Executor) -> None:
        self._run, self.id = run, run.id
        self.sealing: tuple[bytes, Call] | None = None  #: a checkpoint to be written at the next rest

    @property
    def callers(self) -> tuple[str, ...]:
        return self._run.callers

    @callers.setter
    def callers(self, callers: tuple[str, ...]) -> None:
        self._run.callers = callers

    def now(self) -> float:
        return self._run.now()

    def next_number(self) -> int:
        return self._run.next_number()

    def next_mail(self) -> Future[Letter]:
        """The first message in the inbox, when there is one; it stays there."""
        run = self._run
        wanting = own_call(run, ("!mail", 0))
        if not run.mailbox.want(wanting):
            run.open[wanting.place] = wanting
            run.kick()
        return wanting

    def close_letter(self, letter: Letter, reply: Mail | None) -> None:
        """Have the next commit consume a message and send its answer."""
        self._run.mailbox.consume(letter.id)
        if reply is not None:
            turn = self._run.commits.turn
            turn.outbox = [*turn.outbox, reply]

    def seal(self, checkpoint: bytes) -> Future[None]:
        """Commit a transition. Tasks that the handler left behind don't outlive it."""
        run = self._run
        call = own_call(run, ("!seal", 0))
        self.sealing = (checkpoint, call)
        current = asyncio.current_task()
        for task in run.tasks:
            if task is not current:
                task.cancel("the handler that started it is done")
        run.kick()
        return call

    def off_loop(self, fn: Callable[[], Any]) -> Future[Any]:
        """Run a function on a thread, as work of this wake."""
        run = self._run
        call = own_call(run, ("!thread", 0))

        async def work() -> None:
            try:
                result = await run.host.in_thread(fn)
            except Exception as error:
                if not call.done():
                    call.set_exception(error)
            else:
                if not call.done():
                    call.set_result(result)
            run.kick()

        context = copy_context()
        context.run(BRANCH.set, "a handler that runs on a thread")
        run.carrying.keep(Task(work(), loop=run.loop, context=context))
        return call

    # ------------------------------------------------------------ at rest
    def write(self) -> None:
        """A transition: the state is written and the journal before it is history."""
        assert self.sealing is not None  # it was looked at
        run = self._run
        run.commits.entries.clear()
        run.done.clear()
        turn = run.commits.take([])
        turn.checkpoint = self.sealing[0]
        run.phase = Phase.COMMITTING
        run.write(turn, self._sealed)

    def _sealed(self) -> None:
        run = self._run
        if run.leaving or self.sealing is None:
            return
        call, self.sealing = self.sealing[1], None
        run.phase = Phase.LIVE
        run.replay = Replay([], run.host.clock_now())
        run.made.clear()
        run.open.clear()
        if run.box is not None:
            run.box.clear()
        if isinstance(run.root, BranchTask) and run.root.branch is not None:
            run.root.branch.n, run.root.branch.kids = 0, None
        if not call.done():
            call.set_result(None)
        run.kick()
