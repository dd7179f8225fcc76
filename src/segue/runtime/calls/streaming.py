"""Live answers that the code reads as they come.

A replay gives an answer whole, when its batch is handed over. So that the code finds nothing else than it found
then, an answer begins to be read at a rest, one at a time, and until its outcome is handed over, no other is: what
the code does upon what it has read counts as done after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .call import Call, Outcome, strike_entry

if TYPE_CHECKING:
    from ...authoring.context import Reader
    from ..wake.executor import Executor


class Streaming:
    """The live answers of one wake."""

    __slots__ = ("_before", "_offers", "_readers", "_run", "call", "given", "moving")

    def __init__(self, run: Executor) -> None:
        self._run = run
        self._offers: list[tuple[Call, Callable[[], None]]] = []
        self._readers: dict[Reader, None] = {}  # those that wait, in order
        self.call: Call | None = None  #: whose answer is read
        #: The code moves by what it has read. A reader that it cancels now breaks off; one that a timer ends does not.
        self.moving = False
        self.given = 0  #: pieces, since the batch that a replay hands over before them
        self._before = 0  # `call` began to be read

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
                self.call, self._before, self.given = call, self.given, 0
                begins()
                return True
        return False

    def reads(self, reader: Reader) -> None:
        """A reader waits, or a piece has come for it."""
        self._readers[reader] = None
        self._run.kick()

    def give(self) -> bool:
        """At a rest: give the reader that waits longest of those for whom a piece is there the next one, if any."""
        reader = self.ready
        self.moving = reader is not None
        if reader is not None:
            del self._readers[reader]
            self.given += 1
            reader.give()
            self._run.kick()
        return self.moving

    @property
    def ready(self) -> Reader | None:
        """The reader that is next."""
        self._readers = {reader: None for reader in self._readers if reader.waits}
        return next((reader for reader in self._readers if reader.ready), None)

    @property
    def is_over(self) -> bool:
        """Whether nothing is read."""
        return self.call is None and not self._offers and not self._readers

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

    def handed_over(self, landed: list[Outcome]) -> None:
        """A batch was."""
        if self.call is not None and any(outcome.call is self.call for outcome in landed):
            self.call = None  # a replay hands it over before its pieces
        else:
            self.given = 0

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
        self.call, self.given = None, self._before
        run, handed, lost = self._run, self._run.replay.handed, list[Outcome]()
        entries, done, run.done = run.commits.entries, run.done, []
        for outcome in done:
            (lost if outcome.call.after > handed or outcome.call.done() else run.done).append(outcome)
        run.commits.forget()
        for entry in entries:
            if entry.after <= handed:
                run.commits.entries.append(entry)
            elif run.timeouts is not None and run.timeouts.stood(entry, handed):  # it ended the reading
                run.commits.entries.append(strike_entry(entry.n, entry.name, handed, self.given))
        run.commits.lose(lost)
        acted = len(run.commits.entries) < len(entries)
        return acted or any(call.after > handed for call in run.open.values())
