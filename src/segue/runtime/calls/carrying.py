"""Carrying out calls in this process: steps, and model calls in live mode."""

from __future__ import annotations

import asyncio
from asyncio import Task
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ...authoring.context import BRANCH, Branch, BranchTask, Parked, Work
from ...authoring.failures import is_closed, to_failure
from ...core.replay import Place
from ...model.entry import Failure
from ..ground import tasks
from ..ground.events import Started
from ..ground.phase import LIVE
from .call import Behind, Call, Outcome, begun, first_step, new_call, within

if TYPE_CHECKING:
    from ..wake.executor import Executor

#: So long, in seconds, what an actor answered and told before waits for a call that may be over by then.
MOMENT = 0.005


class Carrying:
    """What of a run is carried out here and now."""

    __slots__ = ("_inline", "_run", "alone", "behind", "local", "precommit")

    def __init__(self, run: Executor) -> None:
        self._run = run
        self.local: set[Task[Any]] = set()  #: carry out calls, or look something up for them
        #: Begun once it is durable that they were made, if they are at-most-once ones, and what the code is ahead of.
        self.precommit: list[Call] = []
        self.behind: Behind | None = None  #: where its code waits until what it went ahead of is durable
        self.alone: Branch | None = None  #: whose task carries out a call by itself
        self._inline: Work | None = None  # that call

    @property
    def at_work(self) -> set[Task[Any]]:
        """The tasks that carry out calls."""
        alone = self._run.still.busy_by_itself
        return self.local if alone is None else {*self.local, alone}

    def dear(self) -> int:
        """How many calls are under way that cost more than time if they are cut off.

        That is a model call that its provider has, which is paid again, and an at-most-once step, which holds its run.
        """
        works = [call.request for call in self._run.open.values() if call.task in self.local]
        return sum(
            isinstance(work, Work) and (work.sent or work.effect == "at-most-once")
            for work in (*works, self._inline)
        )

    def keep(self, task: Task[Any]) -> None:
        """Keep a task of the engine's own that works for this run."""
        self.local.add(task)
        task.add_done_callback(self.local.discard, context=tasks.NO_CONTEXT)

    def look(self) -> None:
        """Its own commit may have brought it mail: it doesn't park before that is read."""
        run = self._run

        async def look() -> None:
            try:
                await run.host.look(run)
            finally:
                self.local.discard(task)
                run.kick()

        task = Task(look(), loop=run.loop, context=tasks.NO_CONTEXT.copy())
        self.keep(task)

    def begin_precommitted(self) -> None:
        """What was to be durable before them is, but for what was made since that commit was sent."""
        if not self.precommit:
            return
        start, self.precommit = self.precommit, []
        unwritten = {(entry.path, entry.n) for entry in self._run.commits.entries}
        for call in start:
            if call.place in unwritten:
                self.precommit.append(call)
            elif not call.done() and isinstance(call.request, Work):
                self.begin(call, call.request)

    def begin(self, call: Call, work: Work) -> None:
        """Carry a call out, in a task of its own. Where the engine closes, nothing begins that the journal hasn't."""
        if self._run.stop_by is not None and work.effect != "at-most-once":
            return
        context = call.context or copy_context()
        context.run(BRANCH.set, work)
        call.task = Task(self._carry_out(call, work), loop=self._run.loop, context=context)
        self.keep(call.task)
        if self._run.host.watchers:
            self._tell_started(call.place, work)

    async def _carry_out(self, call: Call, work: Work) -> None:
        run, outcome, turn = self._run, Outcome(call), self._run.replay
        try:
            outcome.value = work.written(await work.begin())
        except asyncio.CancelledError as cancelled:
            if call.done() or run.leaving:
                if work.need is not None and run.purse is not None and not run.leaving:
                    run.purse.release(work.need)
                raise
            outcome.error, outcome.cause = to_failure(cancelled), cancelled
        except KeyboardInterrupt as error:  # a person's, whatever the code is at
            if not run.leaving:
                run.abandon(error)
            raise
        except BaseException as error:
            if is_closed(error):
                raise
            again = work.again is not None and work.again(error)
            outcome.error, outcome.cause = to_failure(error, again=again), error
        finally:
            work.let_go()
        if call.task is not None:
            self.local.discard(call.task)
        if run.replay is turn:
            if outcome.value is not None or not call.done():
                run.done.append(outcome)
        elif outcome.value is not None and not run.over:  # its handler gave it up, and is done
            run.commits.lose([outcome])
        run.kick()

    async def inline(self, branch: Branch, work: Work) -> Any:
        """Nothing else is under way, so the run is at rest but for this call: do it in the caller's task."""
        run, place = self._run, (branch.path, branch.n)
        branch.n += 1
        if run.commits.ahead:
            await run.catch_up()
            if run.phase is not LIVE or run.open or len(run.tasks) > 1 or run.stop_by is not None:
                return await run.record(branch, work.sealed(), place)
        value: bytes | None = None
        error: Failure | None = None
        cause: BaseException | None = None
        handed = run.replay.handed
        (task,) = run.tasks  # the only one, and it calls
        assert isinstance(task, BranchTask)
        task.branch, run.still.busy_by_itself, self.alone, self._inline = None, task, branch, work
        if run.host.watchers:
            self._tell_started(place, work)
        try:
            context, coro = copy_context(), begun(work)
            try:
                waits = context.run(first_step, coro, work)
            except StopIteration as stop:  # it didn't wait for anything
                given = stop.value
            else:
                if run.handling is not None and run.handling.unwritten:
                    run.still.kick_in(MOMENT)
                given = await within(context, coro, waits)
            value = work.written(given)
        except asyncio.CancelledError as cancelled:
            if task.cancelling() or run.leaving:
                raise
            error, cause = to_failure(cancelled), cancelled  # raised by the step itself
        except BaseException as raised:
            if isinstance(raised, KeyboardInterrupt) or is_closed(raised):
                raise
            again = work.again is not None and work.again(raised)
            error, cause = to_failure(raised, again=again), raised
        finally:
            task.branch, run.still.busy_by_itself, self.alone, self._inline = branch, None, None, None
            work.let_go()
        struck = run.replay.handed != handed  # what it begins comes before the code goes on
        if value is not None and not struck and run.phase is LIVE and run.commits.append(place, work, value):
            if not run.kicked:
                run.pump_soon()
            return work.decode(value)
        if run.leaving:
            raise Parked(f"run {run.id} is leaving memory")
        call = run.open[place] = new_call(run, place, work, branch.slot, run.replay.handed)
        work.sealed()
        run.done.append(Outcome(call, value, error, cause=cause))
        if struck:
            run.kick()
        else:
            run.commit_soon()
        try:
            if call.done():
                return call.result()
            try:
                return await call
            finally:
                run.pump_soon()
        finally:
            del call, cause, task  # traces of what it raised have this frame

    def _tell_started(self, place: Place, work: Work) -> None:
        run = self._run
        if run.host.wants_events(run.id):
            run.host.publish(
                run.id, Started(run=run.id, path=place[0], n=place[1], kind=work.kind, name=work.name)
            )


#: Where in a stack a call is carried out, as its local `work`.
CARRY_OUT = frozenset({Carrying._carry_out.__code__, Carrying.inline.__code__})
