"""How lines of provider jobs end, and who gets what came of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ...model.budget import Settlement
from ...model.lane import LIVE, BatchJob, LineOutcome
from ...model.message import Mail
from ...model.run import CallRef
from . import answers, batches, budgets
from .bulk import Query, as_json
from .damage import read_job
from .ledger import Ledger
from .lines import unclaim
from .post import Result, bring
from .schema import DONE, LINE_NUMBER, TAKEN, WAITING

_CANCELLED = LINE_NUMBER["cancelled"]


class Outcomes(msgspec.Struct, frozen=True):
    """How lines of a job ended."""

    job: str
    fence: int
    chunk: Sequence[LineOutcome]
    now: float


class _Line(NamedTuple):
    """A line that an outcome is for, and its run."""

    id: str
    k: int
    run: str
    path: str
    n: int
    attempt: int
    run_status: int
    unwanted: int
    status: int
    batch: int
    hedged: int | None
    promoted: int
    owner: int
    same: str | None
    deserted: int


_LINES = Query(
    (
        "l.id",
        "l.k",
        "r.id",
        "l.path",
        "l.n",
        "l.attempt",
        "r.status",
        "l.unwanted",
        "l.status",
        "l.batch",
        "l.hedged",
        "l.promoted",
        "l.run",
        "l.same",
        "l.deserted",
    ),
    f"""from json_each(:ids) as q cross join lines l on l.id = q.value join runs r on r.k = l.run
    where (l.batch = :batch and l.status = {TAKEN}) or l.hedged = :batch""",
)


def outcomes(ledger: Ledger, items: Sequence[Outcomes]) -> list[list[str] | None]:
    """Store how lines ended: a bounded number of statements a few hundred lines."""
    return [_outcomes(ledger, item) for item in items]


def _outcomes(ledger: Ledger, item: Outcomes) -> list[str] | None:
    found = batches.find(ledger, item.job, item.fence)
    if found is None:
        return None
    batch, data, lane = found
    job = read_job(data, item.job, lane)
    chunk = _Chunk(ledger, batch, job, item)
    strange = chunk.sort()
    chunk.write(lane)
    if not batches.has_open_lines(ledger, batch):
        if job.state != "closed":
            over = item.now if job.sent else 0.0
            batches.keep(ledger, batch, msgspec.structs.replace(job, state="closed", over=over))
    return strange


class _Chunk:
    """Outcomes of one job's lines: sorted first, written down then."""

    def __init__(self, ledger: Ledger, batch: int, job: BatchJob, item: Outcomes) -> None:
        self._ledger, self._batch, self._outcomes, self._now = ledger, batch, item.chunk, item.now
        self._paid: list[Settlement] = []
        self._again: dict[bool, list[int]] = {}  #: lines, by whether that attempt is free
        self._ended: dict[int, list[int]] = {}  #: lines, by status
        self._results: list[Result] = []
        self._shared = answers.Sharing(ledger, job.remote == LIVE, item.now)
        self._owners: dict[int, int] = {}  #: the runs of lines that others may follow
        # Lines that went both ways, and from now on:
        self._dropped: list[int] = []  #: are in one job only
        self._returned: list[int] = []  #: are in the provider's only
        self._beside: list[int] = []  #: have their answer, though their live calls may be under way

    # ------------------------------------------------------------ sorting
    def sort(self) -> list[str]:
        """Say what becomes of each line; the ids of those that the job doesn't wait for."""
        ids = as_json(sorted({outcome.id for outcome in self._outcomes}))
        rows = _LINES.rows(self._ledger.cx, {"ids": ids, "batch": self._batch})
        lines = {row[0]: _Line._make(row) for row in rows}
        strange: list[str] = []
        for outcome in self._outcomes:
            line = lines.pop(outcome.id, None)
            if line is None:
                strange.append(outcome.id)
                continue
            if outcome.paid is not None:
                self._paid.append(Settlement(outcome.id, outcome.paid))
            if line.hedged is not None and self._leaves_to_other(line, outcome):
                continue
            goes_again = outcome.again and not 0 < outcome.most <= line.attempt
            if goes_again and line.run_status < DONE and not line.unwanted and not line.promoted:
                self._again.setdefault(outcome.free, []).append(line.k)
            else:
                self._end(line, outcome, quits=goes_again and not (line.promoted and not line.unwanted))
        return strange

    def _leaves_to_other(self, line: _Line, outcome: LineOutcome) -> bool:
        """Of a line that is in the provider's job and among live calls: whether the other way decides."""
        if line.status > TAKEN:  # the other way was faster
            _claims_nothing(self._ledger.cx, line.owner, outcome)
            self._dropped.append(line.k)
            return True
        if outcome.status == "error" and line.batch == self._batch:  # the provider's job may do better
            self._returned.append(line.k)
            return True
        if line.hedged == self._batch and outcome.status != "ok":
            self._dropped.append(line.k)
            return True
        if line.hedged == self._batch:  # its live call may be under way
            self._beside.append(line.k)
        return False

    def _end(self, line: _Line, outcome: LineOutcome, *, quits: bool) -> None:
        """A line ends with that outcome, or `quits`: it would go round again, and nobody waits for it."""
        run_ended = line.run_status >= DONE
        self._ended.setdefault(_CANCELLED if quits else LINE_NUMBER[outcome.status], []).append(line.k)
        if line.same is not None:
            self._owners[line.k] = line.owner
            claimed = not (run_ended or line.deserted)
            self._shared.ends(line.k, line.same, line.attempt, outcome, quits=quits, claimed=claimed)
            if not claimed:
                return
        if run_ended or line.unwanted:
            _claims_nothing(self._ledger.cx, line.owner, outcome)
        if not run_ended and not quits:
            mail = Mail(
                line.run,
                f"line:{outcome.id}",
                line.attempt,
                "result",
                outcome.lane,
                value=outcome.value,
                error=outcome.error,
                call=CallRef(line.run, line.path, line.n),
                at=self._now,
                used=None if line.unwanted else outcome.used,
            )
            self._results.append((line.owner, line.run_status, mail))

    # ------------------------------------------------------------ writing
    def write(self, lane: str) -> None:
        """Write down what was sorted, and bring the results."""
        ledger = self._ledger
        if self._paid:
            budgets.spend(ledger, self._paid)
        if self._again:
            self._put_back(lane)
        for end in self._shared.settle():
            _claims_nothing(ledger.cx, self._owners[end.k], end.outcome)
        answers.close(ledger.cx, self._ended)
        batches.unhedge(ledger.cx, self._dropped, self._returned)
        if self._beside:
            self._outrun()
        bring(ledger, self._results, self._now)
        budgets.wake(ledger, self._now)

    def _put_back(self, lane: str) -> None:
        """Lines that go round again."""
        for free, keys in self._again.items():
            self._ledger.cx.execute(
                f"update lines set status = {WAITING}, batch = null, attempt = attempt + ?"
                " where k in (select value from json_each(?))",
                (not free, as_json(keys)),
            )
        self._ledger.hint("lines", [lane])

    def _outrun(self) -> None:
        """The provider's job was faster than live calls, which may still be paid for, until their job ends."""
        self._ledger.cx.execute(
            "update lines set hedged = (select b.k from batches b where b.k = lines.batch and b.open)"
            " where k in (select value from json_each(?))",
            (as_json(self._beside),),
        )
        budgets.lines_over(self._ledger.cx, self._beside)


def _claims_nothing(cx: sqlite3.Connection, run: int, outcome: LineOutcome) -> None:
    """It was paid for, and nobody gets it."""
    if outcome.status == "ok":
        unclaim(cx, run, outcome.used)
