"""The store's contract, in this process's memory."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from ...model.budget import Amount, Limit, Reservation, Reserved, Standing
from ...model.entry import Pool
from ...model.lane import Answer, BatchJob, LaneHead, Line, LineOutcome
from ...model.message import DeadLetter, Letter, Mail, Question
from ...model.mode import Config
from ...model.run import ENDED, Head, Status, Usage
from ...ports.store import (
    NOBODY,
    AnswerResult,
    Awake,
    Claimed,
    CommitResult,
    Created,
    Delivery,
    Hint,
    History,
    JobHead,
    Landed,
    Lease,
    NewRun,
    Turn,
)
from .answers import Answers
from .archive import Archive
from .budgets import Budgets
from .driving import Driving
from .hints import Hints
from .jobs import Jobs
from .lines import Lines
from .past import Contents
from .post import Post
from .questions import Questions
from .removal import Removal
from .runs import Runs
from .sharing import Sharing
from .traffic import Traffic
from .turns import Turns

_T = TypeVar("_T")


class MemoryStore:
    """Everything in dicts. All methods act at once, so each is atomic; nothing outlives the process."""

    def __init__(self) -> None:
        self.address, self.at_once = "memory:", True
        hints = self._hints = Hints()
        jobs = self._jobs = Jobs()
        runs = self._runs = Runs(jobs, hints)
        post = self._post = Post(runs, hints)
        questions = self._questions = Questions(runs, post)
        self._contents = Contents()
        archive = self._archive = Archive(self._contents)
        budgets = self._budgets = Budgets(runs.has_room)
        lines = self._lines = Lines(runs, budgets)
        answers = self._answers = Answers()
        sharing = self._sharing = Sharing(lines, answers, post, hints)
        traffic = self._traffic = Traffic(runs, lines, answers, sharing, budgets, post, hints)
        self._driving = Driving(lines, budgets)
        self._turns = Turns(runs, post, questions, archive, lines, sharing, traffic, budgets, hints)
        runs.gives_back = self._turns.give_back
        self._removal = Removal(runs, jobs, archive, lines, budgets, questions, post.dead)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._delivered: Future[list[Delivery]] | None = None  #: the answer to most mail

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._hints.open(self._loop)
        self._delivered = self._done(["delivered"])

    async def close(self) -> None:
        self._hints.close()

    def subscribe(
        self, listener: Callable[[Hint], None], awake: Mapping[str, Awake] = NOBODY
    ) -> Callable[[], None]:
        return self._hints.subscribe(listener, awake)

    def _done(self, value: _T) -> Future[_T]:
        future: Future[_T] = (self._loop or asyncio.get_running_loop()).create_future()
        future.set_result(value)
        return future

    # ------------------------------------------------------------ runs
    async def create(
        self, runs: Sequence[NewRun], *, now: float, worker: str = "", ttl: float = 0.0
    ) -> list[Created]:
        return [self._runs.create(new, now, worker, ttl) for new in runs]

    async def claim(
        self,
        worker: str,
        limit: int,
        ttl: float,
        *,
        now: float,
        but: Collection[str] = (),
        lapsed: bool = True,
    ) -> list[Claimed]:
        lapse = now if lapsed else 0.0  # 0 is of those who were buried
        return self._runs.claim(worker, limit, ttl, now, but, lapse)

    async def renew(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> list[bool]:
        return self._runs.renew(worker, leases, ttl, now)

    def renew_from_thread(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> None:
        """Nothing to do: only this loop could take a lease over, and it is blocked."""

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        return self._done(self._turns.commit(turns))

    def land(self, turn: Turn, then: Landed) -> CommitResult | None:
        return self._turns.land(turn)

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        if self._turns.append(run, fence, entries):
            return True
        (self._loop or asyncio.get_running_loop()).call_soon(then, "fenced")
        return False

    async def get(self, run: str) -> Head | None:
        return self._runs.get(run)

    async def load(self, run: str) -> Claimed | None:
        return self._runs.load(run)

    async def runs(self, *, after: str = "", limit: int = 1000) -> list[Head]:
        return self._runs.listed(after, limit)

    async def ids(self, *, after: str = "", limit: int = 1000) -> list[str]:
        return self._runs.ids(after, limit)

    async def newest(
        self,
        *,
        job: str | None = None,
        parent: str = "",
        status: Sequence[str] = (),
        before: int = 0,
        limit: int = 1000,
    ) -> tuple[list[Head], int]:
        return self._runs.newest(job, parent, status, before, limit)

    async def run_counts(self) -> dict[str, int]:
        return self._runs.counts()

    async def finished(self, job: str, after: int, limit: int) -> list[Head]:
        return self._runs.finished(job, after, limit)

    async def revive(
        self,
        run: str,
        *,
        pool: Pool | None,
        now: float,
        status: Sequence[Status],
        config: Config | None = None,
        along: Mapping[str, Pool] | None = None,
        lines: Sequence[str] = (),
    ) -> bool:
        if len(self._lines.open(lines)) < len(lines):
            return False
        if not self._turns.revive(run, pool, now, status, config):
            return False
        for other, its in (along or {}).items():
            self._turns.revive(other, its, now, ("cancelled",), None)
        self._traffic.want(lines)
        return True

    async def history(self, run: str, *, rows: bool = True) -> History:
        known = self._runs.by_id.get(run)
        return History([]) if known is None else self._archive.history(known, rows)

    async def sweep(self, *, now: float, limit: int) -> int:
        return self._archive.sweep(now, limit)

    async def remove(self, runs: Sequence[str]) -> list[bool]:
        return self._removal.remove(runs)

    async def removable(self, runs: Sequence[str]) -> list[bool]:
        return self._removal.removable(runs)

    async def workers(self) -> list[str]:
        return sorted(self._post.workers() | self._runs.workers() | self._driving.workers())

    async def bury(self, workers: Sequence[str]) -> None:
        gone = set(workers)
        self._post.bury(gone)
        self._runs.bury(gone)
        self._driving.bury(gone)

    async def backlog(self, *, now: float, but: Collection[str] = ()) -> tuple[int, float | None]:
        return self._runs.backlog(now, but)

    # ------------------------------------------------------------ mail
    async def inbox(self, run: str, after: int) -> list[Letter]:
        return self._post.inbox(run, after)

    def letters(self, after: Mapping[str, int]) -> Future[dict[str, list[Letter]]]:
        return self._done(self._post.letters(after))

    def clear(self, port: str, upto: int) -> Future[None]:
        self._post.clear(port, upto)
        return self._done(None)

    def deliver(self, mail: Sequence[Mail], *, now: float) -> Future[list[Delivery]]:
        if len(mail) == 1 and self._delivered is not None:
            delivery = self._post.bring(mail[0], now)
            return self._delivered if delivery == "delivered" else self._done([delivery])
        return self._done(self._post.deliver(mail, now))

    async def dead_letters(self, *, run: str = "", after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        return self._post.dead.listed(run, after, limit)

    async def resend_dead(self, dead: int, *, now: float) -> Delivery | None:
        return self._post.resend(dead, now)

    async def drop_dead(self, dead: Sequence[int]) -> int:
        return self._post.dead.drop(dead)

    # ------------------------------------------------------------ jobs
    async def put_job(self, job: JobHead) -> JobHead:
        return self._jobs.put(job)

    async def get_job(self, job: str) -> JobHead | None:
        return self._jobs.get(job)

    async def list_jobs(self) -> list[JobHead]:
        return self._jobs.listed()

    async def remove_job(self, job: str) -> bool:
        return self._removal.remove_job(job)

    # ------------------------------------------------------------ questions
    async def asks(self, *, to: str = "", run: str = "") -> list[Question]:
        return self._questions.listed(to, run)

    async def asked(self, after: int, *, to: str = "", limit: int = 1000) -> tuple[list[Question], int]:
        return self._questions.asked(after, to, limit)

    async def get_ask(self, ask: str) -> tuple[Question, str] | None:
        return self._questions.get(ask)

    async def answer(self, ask: str, value: bytes, *, now: float) -> AnswerResult:
        return self._questions.answer(ask, value, now)

    # ------------------------------------------------------------ blobs
    async def get_blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        there = self._contents.by_digest
        return {digest: there[digest] for digest in digests if digest in there}

    # ------------------------------------------------------------ answers
    async def answers(self, same: Sequence[str]) -> dict[str, Answer]:
        found = ((key, self._answers.find(key)) for key in same)
        return {key: answer for key, answer in found if answer is not None}

    async def forget(self, *, before: float) -> int:
        return self._answers.forget(before)

    # ------------------------------------------------------------ lanes
    async def lanes(self) -> list[LaneHead]:
        return self._driving.heads()

    async def claim_lane(self, lane: str, worker: str, ttl: float, *, now: float) -> int | None:
        return self._driving.claim(lane, worker, ttl, now)

    async def take(
        self,
        lane: str,
        fence: int,
        *,
        max_lines: int,
        max_bytes: int,
        job: str,
        nonce: str,
        now: float,
        late_by: float = 0.0,
    ) -> BatchJob | None:
        return self._driving.take(
            lane,
            fence,
            max_lines=max_lines,
            max_bytes=max_bytes,
            job=job,
            nonce=nonce,
            now=now,
            late_by=late_by,
        )

    async def promote(
        self, lane: str, fence: int, *, by: float, max_lines: int, job: str, now: float
    ) -> BatchJob | None:
        return self._driving.promote(lane, fence, by=by, max_lines=max_lines, job=job, now=now)

    async def unclaimed(self, *, run: str = "", job: str = "") -> list[Usage]:
        return self._lines.unclaimed(run, job)

    async def put_batch_job(self, job: BatchJob, fence: int) -> bool:
        return self._driving.put_job(job, fence)

    async def batch_jobs(self, *, lane: str = "", open_only: bool = True, newest: int = 0) -> list[BatchJob]:
        return self._driving.jobs(lane, open_only)[-newest:]

    async def job_lines(self, job: str, after: str, limit: int, *, bodies: bool = True) -> list[Line]:
        return self._driving.lines_of(job, after, limit, bodies)

    async def job_bodies(self, job: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        lines = self._driving.lines_of(job, after, limit, True, self._traffic.is_wanted)
        return [(line.id, line.body) for line in lines]

    async def outcomes(
        self, job: str, fence: int, chunk: Sequence[LineOutcome], *, now: float
    ) -> list[str] | None:
        return self._traffic.end(job, fence, chunk, now)

    async def withdraw(self, ids: Sequence[str], *, now: float) -> list[bool]:
        out = self._traffic.withdraw(ids)
        self._budgets.wake(now)
        return out

    async def open_lines(self, ids: Sequence[str]) -> list[str]:
        return self._lines.open(ids)

    async def line_counts(self, *, job: str = "", open_only: bool = False) -> dict[str, int]:
        return self._lines.counts(job, open_only)

    # ------------------------------------------------------------ budgets
    async def reserve(self, wanted: Sequence[Reservation], *, now: float) -> list[Reserved]:
        return [self._reserve(one) for one in wanted]

    def _reserve(self, wanted: Reservation) -> Reserved:
        run = self._runs.by_id.get(wanted.run)
        return "gone" if run is None or run.status in ENDED else self._budgets.reserve(wanted)

    async def fund(self, account: str, limit: Limit, *, raising: bool = False, now: float) -> Standing:
        return self._budgets.fund(account, limit, raising, now)

    async def budgets(self, accounts: Sequence[str] = ()) -> list[Standing]:
        return self._budgets.standings(accounts)

    async def reserved(self, job: str) -> dict[str, Amount]:
        return self._lines.reserved(job)
