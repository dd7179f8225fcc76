"""Urgent messages that come while a handler waits.

Each is an entry of the journal, as a cancellation is, and so strikes at the same place in a replay.
"""

from __future__ import annotations

from asyncio import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...authoring.context import Branch, BranchTask
from ...model.message import Mail
from ..calls.call import CANCEL, Call, Outcome, own_call
from ..ground import tasks

if TYPE_CHECKING:
    from ...authoring.actor.life import Beside
    from .executor import Executor

#: On what branch they stand in the journal.
URGENT: Final = "!urgent"
_read = msgspec.json.Decoder(Mail).decode


class Urgent:
    """Those of one wake; see `authoring.actor.life.Urgent`."""

    __slots__ = ("_begun", "_cancel", "_run", "_strikes", "beside", "count")

    def __init__(self, run: Executor) -> None:
        self._run = run
        self.beside: Beside
        self.count = 0  #: of those in the journal
        self._strikes: set[Call] = set()  # those that aren't begun with yet
        self._begun: Call | None = None  # who waits until they are
        self._cancel = run.open.get(CANCEL)  # that hasn't struck yet
        for (path, _), entry in list(run.replay.calls.items()):
            if path == URGENT:
                self._expect()
                mail = _read(entry.value or b"{}")
                self._keep(mail)
                run.mailbox.has_struck(mail)

    @property
    def is_struck(self) -> bool:
        return bool(self._strikes) and any(map(self._comes, self._strikes))

    @property
    def cancels(self) -> bool:
        """Whether a cancellation has come that hasn't struck yet."""
        return self._cancel is not None and self._comes(self._cancel)

    def _comes(self, call: Call) -> bool:
        # In a replay, those that are yet to be handed over strike later; where the run leaves, in a later life.
        return (call.entry is None or call.done()) and not self._run.leaving

    def cancel(self, call: Call | None) -> None:
        """A cancellation has come; None: it has struck."""
        self._cancel = call

    def begun(self) -> Future[Any]:
        self._begun = own_call(self._run, ("!wait", 0))
        return self._begun

    def strike(self, mail: Mail) -> None:
        """One has come; it is carried out once it is in the journal."""
        self._keep(mail)
        self._run.done.append(Outcome(self._call(), msgspec.json.encode(mail)))

    def begins(self, mail: Mail) -> None:
        if mail.kind == "subscribe":
            self._run.mailbox.keeping.begins(mail)

    def _keep(self, mail: Mail) -> None:
        """A subscription is in force from its snapshot on."""
        if mail.kind == "subscribe":
            self._run.mailbox.keeping.strikes(mail)

    def forget(self) -> None:
        """What was recorded is history."""
        self.count = 0
        self._strikes.clear()

    def part(self) -> None:
        """The wake is over."""
        if hasattr(self, "beside"):
            del self.beside

    def _expect(self) -> None:
        """One is in the journal."""
        run, call = self._run, self._call()
        call.entry = run.replay.made(*call.place, URGENT, URGENT, b"")
        run.open[call.place] = call

    def _call(self) -> Call:
        run = self._run
        call = own_call(run, (URGENT, self.count), URGENT)
        self.count += 1
        run.made.add(call.place)
        self._strikes.add(call)
        call.add_done_callback(self._begin, context=tasks.NO_CONTEXT)
        return call

    def _begin(self, call: Future[Any]) -> None:
        """Carry one out in a branch of its own."""
        run, root = self._run, self._run.root
        assert isinstance(call, Call)  # it was made here
        if call.cancelled() or run.leaving or not isinstance(root, BranchTask):
            return
        beneath = root.branch or run.carrying.alone
        assert beneath is not None  # the root has one, or carries out a call by itself
        mail = _read(call.result())

        async def carry_out() -> None:
            self._strikes.discard(call)
            begun, self._begun = self._begun, None
            if begun is not None and not begun.done():
                begun.set_result(None)
            keeping.comes_beside(branch.path, mail)
            try:
                await self.beside(mail)
            finally:
                keeping.goes_beside(branch.path)

        branch, keeping = Branch(run, f"{beneath.path}/{mail.name}.{call.place[1]}"), run.mailbox.keeping
        tasks.start(run.loop, carry_out(), branch, copy_context(), f"segue {run.id} {mail.name}")
        run.kick()
