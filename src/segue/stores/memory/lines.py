"""The lines of the store in memory, where they are, and how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from ...model.budget import Amount
from ...model.lane import Line, LineOutcome, LineStatus
from ...model.run import Usage
from ..outcome import OPEN_LINE
from .budgets import Budgets
from .lane import Batch, Lane, LineRecord
from .runs import Runs


class Lines:
    """All of them, in lanes and in provider jobs."""

    def __init__(self, runs: Runs, budgets: Budgets) -> None:
        self._runs = runs
        self._budgets = budgets
        self.by_id: dict[str, LineRecord] = {}
        self._made = 0
        self.lanes: dict[str, Lane] = {}
        self.batches: dict[str, Batch] = {}
        self._unclaimed: list[tuple[str, Usage]] = []

    def lane(self, name: str) -> Lane:
        """The lane of a name."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane()
        return lane

    def add(self, line: Line) -> LineRecord:
        """A new one."""
        known = self.by_id[line.id] = LineRecord(line, self._made)
        self._made += 1
        return known

    def drives(self, lane: str, fence: int) -> bool:
        """Whether that is who drives it."""
        return lane in self.lanes and self.lanes[lane].fence == fence

    def is_to_come(self, id: str) -> bool:
        """Whether a call is a line that is to have an outcome still."""
        line = self.by_id.get(id)
        return line is not None and (line.status in OPEN_LINE or bool(line.hedged))

    def open(self, ids: Sequence[str]) -> list[str]:
        """Those whose run is to be told of an outcome still."""
        return [id for id in ids if id in self.by_id and self.by_id[id].status in OPEN_LINE]

    def settle(self, line: LineRecord, status: LineStatus) -> None:
        """Nothing more will come: the body isn't needed any longer."""
        line.status = status
        line.line = msgspec.structs.replace(line.line, body=b"")
        if not line.hedged:
            self._budgets.release([line.line.id])

    def forget(self, line: LineRecord) -> None:
        """Its run has nothing to do with it any more."""
        run = self._runs.by_id[line.line.call.run]
        if run.lines is not None:
            run.lines.pop(line.line.id, None)
            run.lines = run.lines or None

    def with_more(self, runs: Collection[str]) -> set[str]:
        """Those of these runs of which a line is to have an outcome still."""
        return {
            run
            for id, line in self.by_id.items()
            if (run := line.line.call.run) in runs and self.is_to_come(id)
        }

    def lose(self, runs: Collection[str]) -> None:
        """These are removed."""
        self.by_id = {id: line for id, line in self.by_id.items() if line.line.call.run not in runs}
        for batch in self.batches.values():
            batch.ids = [id for id in batch.ids if id in self.by_id]
        self._unclaimed = [one for one in self._unclaimed if one[0] not in runs]

    def unhedge(self, line: LineRecord) -> None:
        """It is in one provider job only."""
        if line.hedged:
            self.batches[line.hedged].hedged.pop(line.line.id, None)
            line.hedged = ""
            if line.status not in OPEN_LINE:
                self._budgets.release([line.line.id])

    def outrun(self, line: LineRecord) -> None:
        """A provider's job was faster than its live call, which may be paid for as well until that job ends."""
        live = self.batches[line.batch]
        del live.lines[line.line.id]
        if live.job.state != "closed":
            line.hedged = line.batch
            live.hedged[line.line.id] = line

    def claims_nothing(self, run: str, outcome: LineOutcome) -> None:
        """It was paid for, and nobody gets it."""
        if outcome.status == "ok":
            self.unclaim(run, outcome.used)

    def unclaim(self, run: str, used: Usage | None) -> None:
        """The same of what that was."""
        if used is not None:
            self._unclaimed.append((run, used))

    def unclaimed(self, run: str, job: str) -> list[Usage]:
        """What was paid for nothing."""
        return [
            usage
            for owner, usage in self._unclaimed
            if run in ("", owner) and job in ("", self._runs.by_id[owner].spec.job)
        ]

    def counts(self, job: str, open_only: bool) -> dict[str, int]:
        """How many are in which status."""
        lines = (line for line in self.by_id.values() if not job or line.batch == job)
        counts: Mapping[str, int] = Counter(
            line.status for line in lines if not open_only or line.status in OPEN_LINE
        )
        return dict(counts)

    def reserved(self, job: str) -> dict[str, Amount]:
        """What the lines of a provider job have reserved."""
        ids = self.batches[job].ids if job in self.batches else ()
        mine = [id for id in ids if job in (self.by_id[id].batch, self.by_id[id].hedged)]
        return {id: amount for id in mine if (amount := self._budgets.reserved(id)) is not None}
