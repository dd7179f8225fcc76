"""Lines come and go in the store in memory: put and withdrawn by turns, ended by outcomes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...model.budget import Settlement
from ...model.lane import Line, LineOutcome
from ...model.message import Mail
from ...model.run import ENDED
from ..outcome import OPEN_LINE
from .answers import Answers
from .budgets import Budgets
from .hints import Hints
from .lane import LineRecord
from .lines import Lines
from .post import Post
from .run import Run
from .runs import Runs
from .sharing import Sharing


class Traffic:
    """How lines begin and how they end."""

    def __init__(
        self,
        runs: Runs,
        lines: Lines,
        answers: Answers,
        sharing: Sharing,
        budgets: Budgets,
        post: Post,
        hints: Hints,
    ) -> None:
        self._runs = runs
        self._lines = lines
        self._answers = answers
        self._sharing = sharing
        self._budgets = budgets
        self._post = post
        self._hints = hints

    # ------------------------------------------------------------ put and withdrawn
    def put(self, run: Run, line: Line) -> None:
        """A line that is on its way is left alone; one that has ended goes round again."""
        line = msgspec.structs.replace(line, size=line.size or len(line.body))
        known = self._lines.by_id.get(line.id)
        if known is None:
            known = self._lines.add(line)
        elif known.status in OPEN_LINE:
            self._want(known)
            return
        else:
            self._lines.unhedge(known)
            known.line = msgspec.structs.replace(line, attempt=known.line.attempt + 1)
            known.status, known.batch, known.unwanted, known.deserted = "waiting", "", False, False
        if run.lines is None:
            run.lines = {}
        run.lines[line.id] = known
        self._hints.hint("lines", line.lane)
        spared = bool(line.same) and self._sharing.is_spared(known, line)
        known.line = msgspec.structs.replace(known.line, since=0.0)  # it was of that moment only
        if not spared:
            self._lines.lane(line.lane).put(known)

    def _want(self, known: LineRecord) -> None:
        """Somebody waits for it, whatever was said before."""
        known.deserted = False
        if known.unwanted:
            known.unwanted = False
            self._lines.lane(known.line.lane).dues_again(known)

    def want(self, ids: Sequence[str]) -> None:
        """Runs that go on wait for those, which are on their way."""
        for id in ids:
            self._want(self._lines.by_id[id])

    def leave(self, run: Run) -> None:
        """The run has ended: what isn't on its way needn't go."""
        for line in sorted((run.lines or {}).values(), key=_is_last):
            if line.status == "waiting":
                self._lines.lanes[line.line.lane].leave(line)
                self._sharing.leave_others(line)
                self._lines.settle(line, "cancelled")
            elif line.status == "following":
                self._lines.settle(line, "cancelled")
                self._sharing.leave_others(line)
        taken = {id: line for id, line in (run.lines or {}).items() if line.status == "taken"}
        run.lines = taken or None

    def withdraw(self, ids: Sequence[str]) -> list[bool]:
        """Take lines out; which of them weren't on their way."""
        known = [self._lines.by_id[id] for id in ids if id in self._lines.by_id]
        waited = {line.line.id for line in known if line.status in ("waiting", "following")}
        for line in sorted(known, key=_is_last):
            self._take_out(line)
        return [id in waited for id in ids]

    def _take_out(self, line: LineRecord) -> None:
        if line.status == "waiting":
            self._lines.lanes[line.line.lane].leave(line)
            self._sharing.leave_others(line)
            self._lines.settle(line, "cancelled")
            self._lines.forget(line)
        elif line.status == "following":
            self._lines.settle(line, "cancelled")
            self._sharing.leave_others(line)
            self._lines.forget(line)
        elif line.status == "taken":
            line.deserted = self._answers.has_followers(line.line.same)
            line.unwanted = not line.deserted

    def is_wanted(self, line: LineRecord) -> bool:
        """Whether somebody waits for it."""
        ended = self._runs.by_id[line.line.call.run].status in ENDED
        return not line.unwanted and (not ended or self._answers.has_followers(line.line.same))

    # ------------------------------------------------------------ ended
    def end(self, job: str, fence: int, chunk: Sequence[LineOutcome], now: float) -> list[str] | None:
        """What came of lines in a provider job; those that aren't in it."""
        batch = self._lines.batches.get(job)
        if batch is None or not self._lines.drives(batch.job.lane, fence):
            return None
        strange: list[str] = []
        ends: dict[str, tuple[LineRecord, LineOutcome]] = {}
        for outcome in chunk:
            line = batch.lines.pop(outcome.id, None) or batch.hedged.get(outcome.id)
            if line is None or outcome.id in ends:
                strange.append(outcome.id)
                continue
            if outcome.paid is not None:
                self._budgets.spend([Settlement(outcome.id, outcome.paid)])
            if self._counts(line, job, outcome) and not self._goes_again(line, outcome):
                ends[outcome.id] = line, outcome
        for mail in [self._close(line, outcome, now) for line, outcome in ends.values()]:
            if mail is not None:
                self._post.send(mail, now, mark=False)
        for line, _ in ends.values():
            self._sharing.abandon(line.line.same)
        batch.close_if_done(now)
        self._budgets.wake(now)
        return strange

    def _counts(self, line: LineRecord, job: str, outcome: LineOutcome) -> bool:
        """Whether that is the end of a line that may be in two jobs."""
        owner = line.line.call.run
        if line.status != "taken":  # the other way was faster
            self._lines.claims_nothing(owner, outcome)
            self._lines.unhedge(line)
            return False
        if (
            line.hedged and line.batch == job and outcome.status == "error"
        ):  # the provider's job may do better
            line.batch = line.hedged
            self._lines.unhedge(line)
            self._lines.batches[line.batch].lines[outcome.id] = line
            return False
        if line.hedged == job:
            self._lines.unhedge(line)
            if outcome.status != "ok":
                return False
            self._lines.outrun(line)
        return True

    def _goes_again(self, line: LineRecord, outcome: LineOutcome) -> bool:
        ended = self._runs.by_id[line.line.call.run].status in ENDED
        again = outcome.again and not 0 < outcome.most <= line.line.attempt
        if not again or ended or line.unwanted or line.line.promoted:
            return False
        attempt = line.line.attempt + (not outcome.free)
        line.line = msgspec.structs.replace(line.line, attempt=attempt)
        line.status, line.batch = "waiting", ""
        self._lines.lane(line.line.lane).put(line)
        self._hints.hint("lines", line.line.lane)
        return True

    def _close(self, line: LineRecord, outcome: LineOutcome, now: float) -> Mail | None:
        """The end of a line; what its run gets."""
        call = line.line.call
        ended = self._runs.by_id[call.run].status in ENDED
        again = outcome.again and not 0 < outcome.most <= line.line.attempt
        quits = again and not (line.line.promoted and not line.unwanted)
        if line.line.same:
            self._sharing.share(line, outcome, now, quits=quits, claimed=not ended and not line.deserted)
        mail = Mail(
            call.run,
            f"line:{outcome.id}",
            line.line.attempt,
            "result",
            outcome.lane,
            value=outcome.value,
            error=outcome.error,
            call=call,
            at=now,
            used=None if line.unwanted else outcome.used,
        )
        self._lines.settle(line, "cancelled" if quits else outcome.status)
        self._lines.forget(line)
        shared = line.line.same and (ended or line.deserted)  # and counted by whoever got it
        if (ended or line.unwanted) and not shared:
            self._lines.claims_nothing(call.run, outcome)
        return None if ended or line.deserted or quits else mail


def _is_last(line: LineRecord) -> bool:
    """Of lines that leave together, none is to take the place of another."""
    return line.status == "waiting"
