"""What a wake writes: the turn under way, the one on its way to the store, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...authoring.context import Act, Work
from ...core import journal
from ...core.replay import Place
from ...model.entry import BLOB, GIVEN_UP, Entry, encode_entries
from ...model.message import Mail
from ...model.run import REUSED, Usage
from ...ports.store import CommitResult, Turn
from ..calls.call import Outcome, decode, outcome_entry
from ..ground.phase import COMMITTING, OVER

if TYPE_CHECKING:
    from .executor import Executor


class Commits:
    """The turns of one wake, one on its way at a time."""

    __slots__ = (
        "_afterwards",
        "_answers",
        "_flight",
        "_given",
        "_run",
        "_turn",
        "_usage",
        "_used",
        "ahead",
        "batch_at",
        "entries",
        "untold",
        "waited",
    )

    def __init__(self, run: Executor, usage: Sequence[Usage]) -> None:
        self._run = run
        self._turn: Turn | None = None
        self.entries: list[Entry] = []  #: made since the last commit, not yet in a turn
        #: Whether the code has met with what isn't durable, among them or on its way: nothing may begin before.
        self.ahead = False
        self.untold: list[object] = []  #: what the code told since then, for those who watch
        self._usage: dict[tuple[str, str], Usage] = {}
        if usage:
            self._usage = {(use.model, use.lane): use for use in usage}
        self._used = False  # since the last turn
        self._given: tuple[int, str, bytes] | None = None  # what the last row of a call that was alone gave
        self._flight: tuple[Turn | None, Callable[[], None]] | None = None
        self._answers: Sequence[Mail] = ()  # to callers in this process, in the turn on its way
        self._afterwards: Callable[[], None] | None = None
        self.batch_at: float | None = None  #: the time of the batch in the last turn, if it has one
        self.waited = False  #: whether the last commit took time, in which the code may have moved

    @property
    def turn(self) -> Turn:
        """What the next commit tells the world."""
        if self._turn is None:
            self._turn = Turn(run=self._run.id, fence=self._run.fence)
        return self._turn

    @property
    def owes(self) -> bool:
        """Whether others wait for the next commit: for mail, such as the answer to a ping, or for room in a budget."""
        return self._turn is not None and bool(self._turn.outbox or self._turn.settled)

    @property
    def is_bare(self) -> bool:
        """Whether nothing is to be written, or on its way."""
        return self._turn is None and not self.entries and not self._used and self._flight is None

    def send(self, mail: Mail) -> None:
        """Have the next commit send mail."""
        self.turn.outbox.append(mail)

    @property
    def usage(self) -> list[Usage]:
        """Model use so far, of earlier wakes too."""
        return list(self._usage.values())

    def count(self, use: Usage) -> None:
        """Add a call that was paid."""
        key = use.model, use.lane
        self._used = True
        self._usage[key] = (self._usage.get(key) or Usage(*key)).joined(use)

    def take(self, done: Sequence[Outcome], *, last: bool = False) -> Turn:
        """The turn so far, with a batch of outcomes. `last`: the code has ended, and none of them is handed over."""
        run = self._run
        turn = self._turn or self.turn
        if run.handling is not None:
            if done and run.handling.unclean:
                self.lose(done)
                done = ()
            run.handling.put_saved(turn)
        now = turn.now = run.host.clock_now()
        entries = self.entries
        self.batch_at = None
        if done:
            at = max(outcome.at or now for outcome in done)
            for outcome in done:
                request = outcome.call.request
                self._account(outcome)
                given_up = outcome.call.given_up
                if last and given_up < 0:
                    given_up = run.replay.handed + 1
                if given_up >= 0:
                    entries.append(outcome_entry(outcome, GIVEN_UP - given_up, now))
                    continue
                self.batch_at = at
                entries.append(outcome_entry(outcome, run.replay.handed, at))
                if isinstance(request, Work):
                    request.args = b""  # the entry has them; a connection may keep this, see `Work.let_go`
        self._turn = None  # what an outcome did cost is in it
        if entries:
            self.entries = []
            blobs: list[tuple[bytes, bytes]] = []
            turn.entries = encode_entries([journal.store_large(entry, blobs) for entry in entries])
            turn.blobs = blobs
        if self._used:
            self._used = False
            turn.usage = self.usage
        turn.seen = run.seen
        return turn

    def lose(self, outcomes: Sequence[Outcome]) -> None:
        """Nobody takes these. What was paid for them counts all the same."""
        for outcome in outcomes:
            self._account(outcome)

    def forget(self) -> None:
        """What was made since the last commit isn't written."""
        self.entries, self._turn = [], None

    def append(self, place: Place, work: Work, value: bytes) -> bool:
        """Write the outcome of a call that is alone, or go ahead of it; false if that isn't all there is to write."""
        run = self._run
        host = run.host
        if self._turn is not None or self.entries or self._used or work.model or run.handling is not None:
            return False
        if len(value) > BLOB or len(work.args) > BLOB or (host.watchers and host.wants_events(run.id)):
            return False
        if work.kind == "http" and not host.at_once:
            return False  # who answers it may be paid for that
        handed, now = run.replay.handed, host.clock_now()
        path, n = place
        # The row has its arguments, or they are what the row before gave, so it needs no digest (`Work.sealed`).
        args, digest, given = work.args, work.digest, self._given
        if (
            given is not None
            and given[0] == n - 1
            and given[1] == path
            and not digest
            and work.kind == "step"
        ):
            args = b"" if args == journal.around(given[2]) else args
        self._given = n, path, value
        entry = Entry(path, n, work.kind, work.name, digest, args, handed, handed, value, None, now)
        work.args = b""  # as in `take`
        if not host.at_once:
            self.entries.append(entry)
            self.ahead = True
        elif not host.append(run.id, run.fence, encode_entries((entry,)), _nobody):
            return False
        run.replay.hand_over(now)
        return True

    def catch_up(self, then: Callable[[], None]) -> None:
        """Write what the code went ahead of."""
        run, entries = self._run, self.entries
        run.phase = COMMITTING
        if self._turn is not None or self._used or len(entries) > 1 or run.handling is not None:
            run.write(self.take(()), then)
            return
        self.entries = []
        try:
            run.host.append(run.id, run.fence, encode_entries(entries), self._landed)
        except Exception as error:  # the store is gone
            run.abandon(error)
            return
        self._flight = None, then

    def write(self, turn: Turn, then: Callable[[], None]) -> None:
        """Send a turn to the store; `then` is called when it is durable. If it isn't to be had, the run goes."""
        run = self._run
        if outbox := turn.outbox:
            if len(outbox) == 1 and outbox[0].to == run.host.port:
                self._answers, turn.outbox = outbox, []
            else:
                self._keep_here(turn, run.host.port)
        try:
            result = run.host.commit(turn, self._landed)
        except Exception as error:  # the store is gone
            run.abandon(error)
            return
        self.waited = result is None
        if result is None:
            self._flight = turn, then
        else:
            self._came(turn, then, result)

    def messages(self) -> Turn:
        """The turn so far, of messages by which nothing was recorded."""
        run = self._run
        turn, self._turn, self.batch_at = self._turn or self.turn, None, None
        turn.now, turn.seen = run.host.clock_now(), run.seen
        return turn

    def _keep_here(self, turn: Turn, port: str) -> None:
        """Answers to callers in this process needn't go by the store: who waits for them dies with it."""
        if here := [mail for mail in turn.outbox if mail.to == port]:
            self._answers, turn.outbox = here, [mail for mail in turn.outbox if mail.to != port]

    def _landed(self, result: CommitResult | BaseException) -> None:
        """What came of what was on its way."""
        assert self._flight is not None  # set before
        (turn, then), self._flight = self._flight, None
        afterwards, self._afterwards = self._afterwards, None
        if self._came(turn, then, result) and afterwards is not None:
            afterwards()

    def _came(
        self, turn: Turn | None, then: Callable[[], None], result: CommitResult | BaseException
    ) -> bool:
        """What came of a turn, or of a row alone; whether the run goes on."""
        run, good = self._run, result == "committed" or result == "ready"
        if self._answers:
            answers, self._answers = self._answers, ()
            if good:
                run.host.answer(answers)
        if run.phase is OVER:
            return False
        if not good:
            if result == "fenced":
                run.taken_over()
            else:
                run.abandon(result if isinstance(result, BaseException) else None)
            return False
        if turn is not None and (turn.release or turn.asks or turn.answers or turn.lines):
            self._tell(turn, result)
        self.ahead = False
        if self.untold:
            untold, self.untold = self.untold, []
            for event in untold:
                run.host.publish(run.id, event)
        then()
        return True

    def _tell(self, turn: Turn, result: CommitResult | BaseException) -> None:
        """Who waits for what is durable now."""
        run = self._run
        if turn.release and result == "ready":
            run.status = "ready"  # mail came meanwhile
        if turn.asks:
            run.host.asked(turn.asks)
        if turn.answers:
            run.host.kept(turn.answers)
        if turn.lines and not turn.release and any(line.same for line in turn.lines):
            run.carrying.look()

    def afterwards(self, then: Callable[[], None]) -> None:
        """Call it once nothing is on its way."""
        if self._flight is None:
            then()
        else:
            self._afterwards = then

    def _account(self, outcome: Outcome) -> None:
        """Decode it, have the turn keep its answer for those who ask the same, and count what it did cost."""
        request = outcome.call.request
        settles = request.settles if isinstance(request, Work) else None
        if settles is not None and outcome.value is not None and not outcome.paid:
            # What was taken over, and what came as a line's answer, says itself where it came from.
            outcome.lane = settles(self.turn) or outcome.lane
        decode(outcome)
        self._meter(outcome)

    def _meter(self, outcome: Outcome) -> None:
        """Count the tokens of a model call. What is sent from here, and is on a budget, is paid."""
        request = outcome.call.request
        if isinstance(request, Act) or not request.model or outcome.paid:
            return
        answered = outcome.raises is None
        if isinstance(request, Work) and request.need is not None and self._run.purse is not None:
            paid = answered and outcome.lane != REUSED
            self._run.purse.settle(request.need, outcome.result.tokens if paid else None)
        if not answered:
            return
        own = Usage(request.model, outcome.lane or request.lane)
        self.count(outcome.used or own.plus(outcome.result.tokens))


def _nobody(result: object) -> None:
    """Nobody waits for what is durable at once."""
