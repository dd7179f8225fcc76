"""How a job stands, read from the store; each run's end is looked at once."""

from __future__ import annotations

import math
import time
from collections import Counter

import msgspec

from ..model.budget import Standing as Budgeted
from ..model.lane import LIVE, BatchJob
from ..model.run import Usage
from ..ports.store import Store
from ..runtime import family
from ..runtime.receipt import total
from . import budgets
from .runs import cause_of
from .screen import count, duration, money, short, told

#: States of a provider's job that isn't there yet.
_UNSENT = frozenset({"intent", "uploaded"})
#: All runs of a job are gone over after so many seconds, since a command that has just begun has other things to do;
#: where no more than so many wait; and for one part in so many of the time.
FIRST, MOST, SHARE = 2.0, 10_000, 30


class Standing(msgspec.Struct):
    """A job at one moment. `total` is None while rows come in. `sent` lines are at the provider, `back` done there;
    `unsent` ones are on their way to it.

    `stuck`: of those that are parked, how many wait for a run that is held; looked at once nothing else is left.
    """

    total: int | None = None
    done: int = 0
    failed: int = 0
    held: int = 0
    working: int = 0
    parked: int = 0
    stuck: int = 0
    lines: int = 0
    waves: int = 0
    sent: int = 0
    back: int = 0
    unsent: int = 0

    @property
    def ended(self) -> int:
        return self.done + self.failed + self.held

    @property
    def runs(self) -> int:
        return self.ended + self.working + self.parked

    @property
    def settled(self) -> bool:
        """Whether nothing goes on by itself."""
        return self.total is not None and not self.working and self.parked == self.stuck

    @property
    def for_batch(self) -> int:
        return min(self.parked - self.stuck, self.lines)

    @property
    def for_others(self) -> int:
        return self.parked - self.stuck - self.for_batch


class Tally:
    """Counts, tokens and causes of failure of a job."""

    def __init__(self, store: Store, job: str) -> None:
        self.store, self.job = store, job
        self.usage: list[Usage] = []
        self.causes: Counter[str] = Counter()
        self.examples: dict[str, tuple[str, str]] = {}  #: of each cause a run, and what that says
        self.budgets: list[Budgeted] = []
        self._cursor = 0
        self._ended = 0.0  # when the last run that is over ended
        self._of_ended: list[Usage] = []
        self._seen: object = None  # how it stood when all of its runs were last gone over
        self._again = time.monotonic() + FIRST  # when that may be done once more

    async def look(self) -> Standing:
        """How it stands now."""
        head = await self.store.get_job(self.job)
        if head is None:
            return Standing()
        counts = head.counts
        standing = Standing(
            total=head.total,
            done=counts.get("done", 0),
            failed=counts.get("failed", 0) + counts.get("cancelled", 0),
            held=counts.get("held", 0),
            working=counts.get("ready", 0),
            parked=counts.get("parked", 0),
        )
        self.budgets = await budgets.known(self.store, self.job)
        await self._read_ends()
        await self._read_lanes(standing, head.created)
        await self._read_those_that_wait(standing)
        return standing

    async def _read_ends(self) -> None:
        while heads := await self.store.finished(self.job, self._cursor, 500):
            self._cursor = heads[-1].finished
            for head in heads:
                self._ended = max(self._ended, head.updated)
                if head.error is not None:
                    cause = cause_of(head)
                    self.causes[cause] += 1
                    self.examples.setdefault(cause, (head.id, short(told(head.error), 180)))
            self._of_ended = total([*self._of_ended, *(use for head in heads for use in head.usage)])
        if tokens_of(self._of_ended) >= self.tokens:
            self.usage = self._of_ended

    async def _read_those_that_wait(self, standing: Standing) -> None:
        """What rows have used that wait for their next batch. All runs are gone over, so seldom where it takes long."""
        now, stands = time.monotonic(), (standing.ended, standing.working, standing.lines, standing.waves)
        if stands == self._seen or now < self._again or not standing.waves or not 0 < standing.parked <= MOST:
            return
        self._seen = stands
        used = (await family.spent(self.store, job=self.job)).usage
        self._again = now + SHARE * (time.monotonic() - now)
        if tokens_of(used) > self.tokens:
            self.usage = used

    async def _read_lanes(self, standing: Standing, since: float) -> None:
        until = (
            self._ended if standing.settled and not standing.held else math.inf
        )  # later ones are of other jobs
        jobs = [
            job
            for job in await self._newest_jobs(since)
            if since <= job.created <= until and job.remote != LIVE
        ]
        standing.waves = len(jobs)
        open_jobs = [job for job in jobs if job.state != "closed"]
        standing.sent = sum(job.lines for job in open_jobs if job.state not in _UNSENT)
        standing.unsent = sum(job.lines for job in open_jobs if job.state in _UNSENT)
        standing.back = sum(job.progress for job in open_jobs)
        if standing.parked:
            lines = await self.store.line_counts(open_only=True)
            standing.lines = sum(lines.values())

    async def _newest_jobs(self, since: float) -> list[BatchJob]:
        """At least those that were made since: a store has those of years."""
        newest = 100
        while True:
            jobs = await self.store.batch_jobs(open_only=False, newest=newest)
            if len(jobs) < newest or jobs[0].created < since:
                return jobs
            newest *= 4

    @property
    def tokens(self) -> int:
        """Of the rows that have ended, and of those that wait for another batch; with what these started."""
        return tokens_of(self.usage)


def tokens_of(usage: list[Usage]) -> int:
    """In and out."""
    return sum(use.input_tokens + use.output_tokens for use in usage)


class Pace:
    """How long it may still take, by how fast it went since this process began."""

    def __init__(self, now: float) -> None:
        self._began, self._first = now, -1.0

    def left(self, standing: Standing, now: float) -> str:
        """Empty where nothing can be said yet."""
        if not standing.total or standing.for_others:  # nobody knows how long people take
            return ""
        share = (standing.ended + (standing.back if standing.sent else 0) * 0.5) / standing.total
        if self._first < 0:
            self._first, self._began = share, now
        gained = share - self._first
        if gained < 0.03 or share >= 1:
            return ""
        return f"about {duration((now - self._began) * (1 - share) / gained)} left"


def in_words(standing: Standing, tally: Tally, usd: float | None, left: str) -> str:
    """One line: what is done and what waits for what."""
    of = f"/{count(standing.total)}" if standing.total is not None else ""
    parts = [f"{count(standing.done)}{of} done"]
    for_room = min(standing.for_others, sum(one.waiting for one in tally.budgets))
    for number, word in (
        (standing.failed, "failed"),
        (standing.held, "held"),
        (standing.working, "at work"),
        (standing.for_batch, "waiting for batch"),
        (for_room, "waiting for room in the budget"),
        (standing.for_others - for_room, "waiting for people, time or other runs"),
        (standing.stuck, "waiting for held runs"),
    ):
        if number:
            parts.append(f"{count(number)} {word}")
    if standing.waves:
        told = [f"{count(standing.back)}/{count(standing.sent)} lines back"] if standing.sent else []
        told += [f"{count(standing.unsent)} lines not sent yet"] if standing.unsent else []
        parts.append(f"wave {standing.waves}" + (f" ({', '.join(told)})" if told else ""))
    if tally.tokens:
        parts.append(f"{count(tally.tokens)} tokens")
    if usd is not None:
        parts.append(money(usd))
    parts += [f"budget {budgets.words(one)}" for one in tally.budgets]
    return " · ".join([*parts, *([left] if left else [])])
