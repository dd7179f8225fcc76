"""Live answers that the code reads as they come.

A replay gives an answer whole, when its batch is handed over. So that the code finds nothing else than it found
then, an answer begins to be read at a rest, one at a time, and until its outcome is handed over, no other is: what
the code does upon what it has read counts as done after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .call import Call, Outcome

if TYPE_CHECKING:
    from ..wake.executor import Executor


class Streaming:
    """The live answers of one wake."""

    __slots__ = ("_offers", "_run", "call", "moving")

    def __init__(self, run: Executor) -> None:
        self._run = run
        self._offers: list[tuple[Call, Callable[[], None]]] = []
        self.call: Call | None = None  #: whose answer is read
        #: The code moves by what it has read. A reader that it cancels now breaks off; one that a timer ends does not.
        self.moving = False

    def offer(self, call: Call, begins: Callable[[], None]) -> None:
        """An answer begins to come."""
        if not call.done():
            self._offers.append((call, begins))
            self._run.kick()

    def begin_next(self) -> bool:
        """Let the code read the next one, if there is one."""
        while self._offers:
            call, begins = self._offers.pop(0)
            if not call.done():
                self.call = call
                begins()
                return True
        return False

    def read_on(self) -> None:
        """The reader has what has come, and waits for more."""
        if self.call is not None:
            self.moving = True
            self._run.kick()

    def go_on(self, call: Call) -> None:
        """At a rest while one is read: its end is all that is waited for."""
        run = self._run
        if any(outcome.call is call for outcome in run.done):
            run.commit_soon()
        elif (run.stop_by is not None and not run.comes_in()) or (run.box is not None and run.box.cancelled):
            call.cancel()
            run.kick()

    def first(self, done: list[Outcome]) -> list[Outcome]:
        """Of what is to be handed over, what may be now; the rest is put back."""
        if self.call is None:
            return done
        self._run.done = [outcome for outcome in done if outcome.call is not self.call]
        return [outcome for outcome in done if outcome.call is self.call]

    def handed_over(self, call: Call) -> None:
        """A call's outcome was."""
        if call is self.call:
            self.call = None

    def dropped(self, call: Call) -> None:
        """A call was given up."""
        run = self._run
        if call is not self.call or any(outcome.call is call for outcome in run.landing):
            return
        acted = self.forget()
        if acted and any(entry.kind == "strike" for entry in run.commits.entries):
            run.leave("ready")  # the next life knows of the timeout, and has read nothing

    def forget(self) -> bool:
        """What is read won't be recorded; what the code did upon it neither: whether there was any."""
        if self.call is None:
            return False
        self.call = None
        run, handed, lost = self._run, self._run.replay.handed, list[Outcome]()
        entries, done, run.done = run.commits.entries, run.done, []
        for outcome in done:
            (lost if outcome.call.after > handed or outcome.call.done() else run.done).append(outcome)
        run.commits.forget()
        run.commits.entries = [entry for entry in entries if entry.after <= handed]  # such as the timeout
        run.commits.lose(lost)
        acted = len(run.commits.entries) < len(entries)
        return acted or any(call.after > handed for call in run.open.values())
