"""What is over and removed, in the store in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ...model.run import ENDED
from .archive import Archive
from .budgets import Budgets
from .jobs import Jobs
from .lines import Lines
from .questions import Questions
from .runs import Runs
from .untaken import DeadLetters


class Removal:
    """Has all parts forget it."""

    def __init__(
        self,
        runs: Runs,
        jobs: Jobs,
        archive: Archive,
        lines: Lines,
        budgets: Budgets,
        questions: Questions,
        dead: DeadLetters,
    ) -> None:
        self._runs, self._jobs, self._archive, self._lines = runs, jobs, archive, lines
        self._budgets, self._questions, self._dead = budgets, questions, dead

    def remove(self, ids: Sequence[str]) -> list[bool]:
        """Runs that are over; whether each is gone."""
        known, over = self._runs.by_id, self._over(ids)
        self._lines.lose(over)
        self._questions.lose(over)
        self._dead.lose(over)
        self._lose_accounts(self._budgets.of_runs(over))
        for id in over:
            self._archive.lose(known[id])
        self._runs.remove([known[id] for id in over])
        return [id not in known for id in ids]

    def removable(self, ids: Sequence[str]) -> list[bool]:
        """Which of these that would remove, or has."""
        over = self._over(ids)
        return [id in over or id not in self._runs.by_id for id in ids]

    def _over(self, ids: Sequence[str]) -> set[str]:
        known = self._runs.by_id
        over = {id for id in ids if id in known and known[id].status in ENDED}
        return over - self._lines.with_more(over)

    def remove_job(self, job: str) -> bool:
        """A job without runs; whether it is gone."""
        gone = self._jobs.remove(job)
        if gone:
            self._lose_accounts([f"job:{job}"])
        return gone

    def _lose_accounts(self, accounts: Sequence[str]) -> None:
        """Unless a run that isn't over draws on one."""
        if accounts:
            specs = [run.spec for run in self._runs.by_id.values() if run.status not in ENDED]
            drawn = {account.id for spec in specs for account in spec.config.accounts}
            self._budgets.lose(id for id in accounts if id not in drawn)
