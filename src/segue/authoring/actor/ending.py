"""How an actor comes to its end: its children first, the last group before the others, then `teardown`.

One that is supervised may begin anew instead. The end is written down before anything of this begins, so that it is
gone through once, whatever crashes.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, cast

from ...core.restarts import END, Kind, Verdict, wanted
from ...model.entry import Failure
from ...model.errors import Restarted, RunInterrupted
from ...model.message import Letter
from ...model.run import Spec
from ..context import current
from ..failures import to_failure
from .nexts import Cancelled, Fail, Interrupted
from .supervisor import Supervisor, ask_verdict

if TYPE_CHECKING:
    from .life import Life
    from .performing import Performer
    from .standing import Standing


class Ending:
    """The last part of an actor's life, in one of its wakes.

    `letter` handles one; `save` commits what was done; `close` ends what is carried out beside.
    """

    def __init__(
        self,
        here: Standing,
        life: Life,
        performer: Performer,
        spec: Spec,
        letter: Callable[[Letter], Awaitable[None]],
        save: Callable[[], Awaitable[None]],
        close: Callable[[str], Awaitable[None]],
    ) -> None:
        self._here, self._life, self._performer, self._spec = here, life, performer, spec
        self._letter, self._save, self._part = letter, save, close
        self.supervisor = Supervisor(here, life)
        #: Whether it was asked to end after a handler, whose turn stands if it goes on some day.
        self.after = False

    async def begins_anew(self) -> bool:
        """Whether it does; then that is written down."""
        here, life = self._here, self._life
        verdict = here.verdict or await self._verdict()
        if verdict.what == "end":
            return False
        reason = "its supervisor gave it up"
        if isinstance(here.end, Fail):
            reason = f"it failed too often: {here.end.error}"
        await self._settle()
        await self._close()
        await self._performer.hook("teardown")
        life.refuse(here.responders(), to_failure(Restarted(life.id)))
        here.begin_anew()
        if verdict.after:
            here.due = life.now() + verdict.after
        if verdict.what == "aside":
            await self._write()
            await life.hold(f"{reason}\n`segue resume {shlex.quote(life.id)}` has it begin anew")
        await self._save()
        return True

    async def _verdict(self) -> Verdict:
        end, spec = self._here.end, self._spec
        if isinstance(end, Interrupted):
            return Verdict("anew") if end.anew else END
        how: Literal["done", "failed"] = "failed" if isinstance(end, Fail) else "done"
        kind = cast("Kind", spec.supervised)
        if spec.parent is None or not kind or isinstance(end, Cancelled) or not wanted(kind, how):
            return END
        error: Failure | None = to_failure(end.error) if isinstance(end, Fail) else None
        await self._settle()
        self._performer.enter("ending")
        verdict = await ask_verdict(current("the end of a child"), spec.parent.run, how, error)
        if self._takes_time:
            self._here.verdict = verdict
            await self._write()
        return verdict

    async def finish(self) -> bytes:
        """The result; raises what it ended with."""
        here = self._here
        if self._takes_time:
            await self._settle()
            await self._close()
            await self._performer.hook("teardown")
        elif self.after and isinstance(here.end, Interrupted):
            await self._settle()
        else:
            self._life.leaves(here.left)
        match here.end:
            case Fail(error=error):
                await self._part("failed")
                raise error
            case Interrupted():
                await self._part("cancelled")
                raise RunInterrupted(self._life.id)
            case Cancelled():
                await self._part("cancelled")
                raise asyncio.CancelledError
            case _:
                await self._part("done")
                return here.result

    async def _settle(self) -> None:
        """Write the end down. What is recorded from here on comes after it, so the handler before must be history."""
        if not self._here.ending:
            self._here.ending = True
            await self._write()

    async def _write(self) -> None:
        """Have the next commit store where the actor stands."""
        self._here.keep()
        if not self._life.save(self._here.write):
            await self._life.seal()

    @property
    def _takes_time(self) -> bool:
        """Whether something is done between the end and the commit that ends the run."""
        return "teardown" in self._here.definition.own or bool(self._here.children)

    async def _close(self) -> None:
        """End the children, and wait for each group to be empty."""
        here, life = self._here, self._life
        while here.children:
            here.closing = True
            self._performer.enter("closing")
            try:
                letter = life.take(urgent=True)  # what the life before had in hand comes before all else
                if letter is None:
                    letter = await self._ask()
                while letter is not None:  # those that are there share commits
                    await self._letter(letter)
                    letter = life.take(urgent=True)
            except asyncio.CancelledError:
                if life.leaving:
                    raise
                uncancel()
                self.supervisor.press()
        here.closing = False

    async def _ask(self) -> Letter | None:
        """Ask the children that are next to end; the first word of one, or None when it is time to ask again."""
        here = self._here
        due = await self.supervisor.ask_to_end()
        await self._save()
        letter = await self._life.next_mail(due=due) if here.children else None
        if letter is None:
            here.at = max(here.at, due)
        return letter


def uncancel() -> Any:
    """The cancellation of the running task was taken to heart."""
    task = asyncio.current_task()
    return None if task is None else task.uncancel()
