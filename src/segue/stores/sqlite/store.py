"""The store: what is asked of it, handed to the thread that does it."""

from __future__ import annotations

import asyncio
import os
from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from ...model.budget import Amount, Limit, Reservation, Reserved, Standing
from ...model.entry import Pool
from ...model.errors import StoreError
from ...model.lane import Answer, BatchJob, LaneHead, Line, LineOutcome
from ...model.message import DeadLetter, Letter, Mail, Question
from ...model.mode import Config
from ...model.run import Head, Status, Usage
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
from . import (
    answers,
    batches,
    blobs,
    budgets,
    heads,
    jobs,
    lines,
    lists,
    outcomes,
    past,
    questions,
    removal,
    untaken,
)
from . import post as post_orders
from . import runs as run_orders
from . import turns as turn_orders
from .patience import BUSY
from .reader import Reader
from .schema import UNWRITABLE, VERSION, is_full, refuse_strange
from .unwritable import Unwritable, is_unwritable
from .writer import Writer


class SqliteStore:
    """Runs in a SQLite file (WAL, `synchronous=FULL`). Several processes of one machine may share it.

    `patience`: how long to wait for other processes that hold the file, or for room on its disk, before giving up.
    `look`: it is only looked at, so that a file which can't be written will do; what would write then raises
    `StoreError`.
    """

    def __init__(self, path: str, *, patience: timedelta = timedelta(seconds=60), look: bool = False) -> None:
        self.address, self.at_once = f"sqlite:{path}", False
        self._path, self._patience, self._looks = path, patience.total_seconds(), look
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._listeners: list[Callable[[Hint], None]] = []

    async def open(self) -> None:
        if self._reader is not None:
            return
        if not self._path or self._path == ":memory:":
            raise StoreError(self.address, "that isn't a path", "use 'memory:', or give the path of a file")
        self._stay()
        # Else SQLite would make files beside it, and find out at the first write.
        if is_unwritable(self._path) or (self._looks and is_full(self._path)):
            if not self._looks:
                raise StoreError(self.address, *UNWRITABLE)
            await self._open_unwritable()
            return
        if self._looks and await self._open_to_look():
            return
        writer = Writer(self._path, self.address, patience=self._patience, tell=self._tell)
        try:
            await writer.opened
        except BaseException:
            await writer.close()
            raise
        self._writer = writer
        self._reader = Reader(self._path, self.address, patience=self._patience)

    def _stay(self) -> None:
        """Mean this file from now on: each thread connects for itself, and a program may change its folder."""
        self._path = os.path.abspath(self._path)

    async def _open_to_look(self) -> bool:
        """Without the lock of who writes: whether that will do, or tables are to be made first."""
        reader = Reader(self._path, self.address, patience=self._patience)
        version = 0
        try:
            version = await reader.look(refuse_strange, self.address)
        finally:
            if version != VERSION:
                await reader.close()
        if version == VERSION:
            self._reader = reader
        return version == VERSION

    async def _open_unwritable(self) -> None:
        file = Unwritable(self._path, self.address, busy=min(BUSY, self._patience))
        reader = Reader(self._path, self.address, patience=self._patience, unwritable=file)
        try:
            await reader.look(lambda cx: None)  # it is refused here, or not at all
        except BaseException:
            await reader.close()
            raise
        self._reader = reader

    async def close(self) -> None:
        self._listeners.clear()
        reader, writer = self._reader, self._writer
        self._reader = self._writer = None
        if reader is not None:
            await reader.close()
        if writer is not None:
            await writer.close()

    def subscribe(
        self, listener: Callable[[Hint], None], awake: Mapping[str, Awake] = NOBODY
    ) -> Callable[[], None]:
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def _tell(self, hint: Hint) -> None:
        for listener in list(self._listeners):
            listener(hint)

    def _not_open(self) -> StoreError:
        if self._reader is not None:
            if not is_unwritable(self._path):
                return StoreError(self.address, "it was opened to be looked at", "open it to write")
            return StoreError(self.address, *UNWRITABLE)
        return StoreError(self.address, "it isn't open", "await its open() first")

    def _write(self, apply: Callable[..., Any], items: Sequence[Any], *, many: bool = False) -> Future[Any]:
        if self._writer is None:
            failed: Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(self._not_open())
            return failed
        return self._writer.put(apply, items, many=many)

    async def _look(self, look: Callable[..., Any], *args: Any) -> Any:
        if self._reader is None:
            raise self._not_open()
        return await self._reader.look(look, *args)

    # ------------------------------------------------------------ runs
    async def create(
        self, runs: Sequence[NewRun], *, now: float, worker: str = "", ttl: float = 0.0
    ) -> list[Created]:
        items = [run_orders.Creation(one, now, worker, ttl) for one in runs]
        return cast(list[Created], await self._write(run_orders.create, items, many=True))

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
        item = run_orders.Claim(worker, limit, ttl, now, tuple(but), lapsed)
        return cast(list[Claimed], await self._write(run_orders.claim, [item]))

    async def renew(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> list[bool]:
        return cast(
            list[bool],
            await self._write(run_orders.renew, [run_orders.Renewal(worker, tuple(leases), ttl, now)]),
        )

    def renew_from_thread(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> None:
        if (writer := self._writer) is not None:
            writer.put_from_thread(run_orders.renew, [run_orders.Renewal(worker, tuple(leases), ttl, now)])

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        return self._write(turn_orders.commit, turns, many=True)

    def land(self, turn: Turn, then: Landed) -> CommitResult | None:
        if self._writer is None:
            raise self._not_open()
        self._writer.land(turn_orders.commit, turn, then)
        return None

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        if self._writer is None:
            raise self._not_open()
        self._writer.append(run, fence, entries, then)
        return False

    async def inbox(self, run: str, after: int) -> list[Letter]:
        return cast(list[Letter], await self._look(heads.letters, run, after))

    def letters(self, after: Mapping[str, int]) -> Future[dict[str, list[Letter]]]:
        if self._reader is None:
            failed: Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(self._not_open())
            return failed
        return self._reader.put(heads.newer_letters, list(after.items()))

    def clear(self, port: str, upto: int) -> Future[None]:
        return self._write(post_orders.clear, [(port, upto)])

    def deliver(self, mail: Sequence[Mail], *, now: float) -> Future[list[Delivery]]:
        return self._write(post_orders.post, [post_orders.Post(one, now) for one in mail], many=True)

    async def dead_letters(self, *, run: str = "", after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        return cast(list[DeadLetter], await self._look(untaken.listed, run, after, limit))

    async def resend_dead(self, dead: int, *, now: float) -> Delivery | None:
        order = post_orders.Resending(dead, now)
        return cast("Delivery | None", await self._write(post_orders.resend, [order]))

    async def drop_dead(self, dead: Sequence[int]) -> int:
        return cast(int, await self._write(untaken.drop, [list(dead)]))

    async def get(self, run: str) -> Head | None:
        return cast(Head | None, await self._look(heads.get, run))

    async def load(self, run: str) -> Claimed | None:
        return cast(Claimed | None, await self._look(heads.load, run))

    async def runs(self, *, after: str = "", limit: int = 1000) -> list[Head]:
        return cast(list[Head], await self._look(lists.list_runs, after, limit))

    async def ids(self, *, after: str = "", limit: int = 1000) -> list[str]:
        return cast(list[str], await self._look(lists.ids, after, limit))

    async def newest(
        self,
        *,
        job: str | None = None,
        parent: str = "",
        status: Sequence[str] = (),
        before: int = 0,
        limit: int = 1000,
    ) -> tuple[list[Head], int]:
        found = await self._look(lists.newest, job, parent, tuple(status), before, limit)
        return cast(tuple[list[Head], int], found)

    async def run_counts(self) -> dict[str, int]:
        return cast(dict[str, int], await self._look(lists.run_counts))

    async def finished(self, job: str, after: int, limit: int) -> list[Head]:
        return cast(list[Head], await self._look(lists.finished, job, after, limit))

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
        revival = run_orders.Revival(run, pool, now, tuple(status), config, along or {}, lines)
        return bool(await self._write(run_orders.revive, [revival]))

    async def history(self, run: str, *, rows: bool = True) -> History:
        return cast(History, await self._look(past.history, run, rows))

    async def sweep(self, *, now: float, limit: int) -> int:
        return cast(int, await self._write(past.sweep, [past.Sweep(now, limit)]))

    async def remove(self, runs: Sequence[str]) -> list[bool]:
        return cast(list[bool], await self._write(removal.remove, [tuple(runs)]))

    async def removable(self, runs: Sequence[str]) -> list[bool]:
        return cast(list[bool], await self._look(removal.removable, runs))

    async def workers(self) -> list[str]:
        return cast(list[str], await self._look(lists.workers))

    async def bury(self, workers: Sequence[str]) -> None:
        if self._looks and self._writer is None:
            return  # whoever opens it to write does that as well
        await self._write(run_orders.bury, list(workers), many=True)

    async def backlog(self, *, now: float, but: Collection[str] = ()) -> tuple[int, float | None]:
        return cast(tuple[int, float | None], await self._look(lists.backlog, now, tuple(but)))

    # ------------------------------------------------------------ jobs
    async def put_job(self, job: JobHead) -> JobHead:
        return cast(JobHead, await self._write(jobs.put_job, [job]))

    async def get_job(self, job: str) -> JobHead | None:
        return cast(JobHead | None, await self._look(jobs.get_job, job))

    async def list_jobs(self) -> list[JobHead]:
        return cast(list[JobHead], await self._look(jobs.list_jobs))

    async def remove_job(self, job: str) -> bool:
        return cast(bool, await self._write(removal.remove_job, [job]))

    # ------------------------------------------------------------ questions
    async def asks(self, *, to: str = "", run: str = "") -> list[Question]:
        return cast(list[Question], await self._look(questions.asks, to, run))

    async def asked(self, after: int, *, to: str = "", limit: int = 1000) -> tuple[list[Question], int]:
        found = await self._look(questions.asked, after, to, limit)
        return cast(tuple[list[Question], int], found)

    async def get_ask(self, ask: str) -> tuple[Question, str] | None:
        return cast("tuple[Question, str] | None", await self._look(questions.get_ask, ask))

    async def answer(self, ask: str, value: bytes, *, now: float) -> AnswerResult:
        return cast(AnswerResult, await self._write(questions.answer, [questions.Reply(ask, value, now)]))

    # ------------------------------------------------------------ blobs
    async def get_blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        return cast(dict[bytes, bytes], await self._look(blobs.get_blobs, tuple(digests)))

    # ------------------------------------------------------------ answers
    async def answers(self, same: Sequence[str]) -> dict[str, Answer]:
        return cast(dict[str, Answer], await self._look(answers.find, tuple(same)))

    async def forget(self, *, before: float) -> int:
        dropped = 0
        while some := cast(int, await self._write(answers.forget, [before])):  # others write meanwhile
            dropped += some
        return dropped

    # ------------------------------------------------------------ lanes
    async def lanes(self) -> list[LaneHead]:
        return cast(list[LaneHead], await self._look(batches.lanes))

    async def claim_lane(self, lane: str, worker: str, ttl: float, *, now: float) -> int | None:
        return cast(int | None, await self._write(batches.drive, [batches.Driving(lane, worker, ttl, now)]))

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
        item = batches.Taking(lane, fence, max_lines, max_bytes, job, nonce, now, late_by)
        return cast(BatchJob | None, await self._write(batches.take, [item]))

    async def promote(
        self, lane: str, fence: int, *, by: float, max_lines: int, job: str, now: float
    ) -> BatchJob | None:
        item = batches.Promoting(lane, fence, by, max_lines, job, now)
        return cast(BatchJob | None, await self._write(batches.promote, [item]))

    async def unclaimed(self, *, run: str = "", job: str = "") -> list[Usage]:
        return cast(list[Usage], await self._look(lines.unclaimed, run, job))

    async def put_batch_job(self, job: BatchJob, fence: int) -> bool:
        return bool(await self._write(batches.put_progress, [batches.Progress(job, fence)]))

    async def batch_jobs(self, *, lane: str = "", open_only: bool = True, newest: int = 0) -> list[BatchJob]:
        return cast(list[BatchJob], await self._look(batches.jobs, lane, open_only, newest))

    async def job_lines(self, job: str, after: str, limit: int, *, bodies: bool = True) -> list[Line]:
        return cast(list[Line], await self._look(lines.job_lines, job, after, limit, bodies))

    async def job_bodies(self, job: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        return cast(list[tuple[str, bytes]], await self._look(lines.job_bodies, job, after, limit))

    async def outcomes(
        self, job: str, fence: int, chunk: Sequence[LineOutcome], *, now: float
    ) -> list[str] | None:
        item = outcomes.Outcomes(job, fence, chunk, now)
        return cast("list[str] | None", await self._write(outcomes.outcomes, [item]))

    async def withdraw(self, ids: Sequence[str], *, now: float) -> list[bool]:
        return cast(list[bool], await self._write(lines.withdraw_all, [lines.Withdrawal(ids, now)]))

    async def open_lines(self, ids: Sequence[str]) -> list[str]:
        return cast(list[str], await self._look(lines.open_lines, list(ids)))

    async def line_counts(self, *, job: str = "", open_only: bool = False) -> dict[str, int]:
        return cast(dict[str, int], await self._look(lines.line_counts, job, open_only))

    # ------------------------------------------------------------ budgets
    async def reserve(self, wanted: Sequence[Reservation], *, now: float) -> list[Reserved]:
        items = [budgets.Wish(one, now) for one in wanted]
        return cast(list[Reserved], await self._write(budgets.reserve, items, many=True))

    async def fund(self, account: str, limit: Limit, *, raising: bool = False, now: float) -> Standing:
        item = budgets.Funding(account, limit, raising, now)
        return cast(Standing, await self._write(budgets.fund, [item]))

    async def budgets(self, accounts: Sequence[str] = ()) -> list[Standing]:
        return cast(list[Standing], await self._look(budgets.standings, tuple(accounts)))

    async def reserved(self, job: str) -> dict[str, Amount]:
        return cast(dict[str, Amount], await self._look(budgets.reserved, job))
