"""How the lines of a lane's jobs end: each as exactly one of ok, error, expired, missing, cancelled.

Those fit to retry go round again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from ...authoring.failures import to_failure
from ...core import admission
from ...core.batching import ATTEMPTS, fit_to_retry
from ...core.encoding import is_json
from ...model.budget import Amount
from ...model.entry import Failure
from ...model.lane import BatchJob, Line, LineOutcome, LineStatus
from ...model.run import Usage
from ...ports.provider import CallFault, LineResult, RemoteJob
from ...providers.faults import told
from ..calls.answer import count_result, shared_outcome
from ..calls.naming import lane_endpoint, lane_name, usage_name
from ..calls.trying import model_failed
from .delivery import CHUNK, Delivery
from .desk import Desk, Held

log = logging.getLogger("segue")

#: Results that lack lines are read so often: always, and where the job tells of more outcomes than they hold.
LOOKS = (2, 5)
#: The same where the provider says that it has no such job, file or list: a gateway may say so for minutes.
GONE = 9
#: The status of a job that it doesn't have.
UNKNOWN = "unknown"
#: Seconds until they are read the second time.
LATER = 2.0
#: How a line ends that a job has no result for: outcome, code and message.
_MISSING: tuple[LineStatus, str, str] = (
    "missing",
    "batch_line_missing",
    "the job ended without a result for this line",
)
#: The same for jobs that ended before they were done, of providers that don't tell of each line then.
_LEFT: dict[str, tuple[LineStatus, str, str]] = {
    "expired": ("expired", "batch_expired", "batch_expired"),
    "cancelled": ("cancelled", "batch_cancelled", "batch_cancelled"),
}


class Ending:
    """The end of one job of a lane, while this process holds its fence."""

    def __init__(self, desk: Desk, held: Held, job: BatchJob) -> None:
        self.desk, self.store, self.clock, self.job = desk, desk.store, desk.clock, job
        self.provider, self.to, self.fence = held.provider, held.to, held.fence
        self.lane, self.name = held.head.lane, lane_name(held.to)
        self._nothing = Usage(usage_name(lane_endpoint(self.lane)[0]), self.name)
        self.reserved: dict[str, Amount] = {}  # by lines
        self._good = False  # some of its lines have answers
        self._answered = 0  # by the provider, lines of it
        self._gone = False  # a file of its results isn't there
        self._passing: Failure | None = None  # of one that goes round again

    async def collect(self, remote: RemoteJob) -> None:
        """Store how every line of a finished job ended, and close it."""
        if remote.rejected:
            await self._rejected(remote)
            return
        if not self.job.short and self.desk.quotas.known(self.job.lane):
            self.desk.quotas.accepted(self.job, await self.store.lanes())
        shared = (
            {line.id async for line in self._open_lines() if line.same} if self.job.shared else set[str]()
        )
        self.reserved = await self.store.reserved(self.job.id)
        read = 0
        async with self._delivery() as delivery:
            try:
                async for result in self.provider.results(remote):
                    if isinstance(result, str):
                        log.warning(
                            "batch job %s: a line of its results can't be read: %s", self.job.id, result
                        )
                        continue
                    read += 1
                    outcome = self._outcome(result)
                    self._answered += outcome.status in ("ok", "error")
                    if result.id in shared and outcome.status == "ok":
                        outcome = shared_outcome(outcome, self.lane, self.provider, self.name)
                    if delivery.add(outcome):
                        await delivery.send()
            except CallFault as fault:
                if fault.status not in (404, 410):
                    raise
                self._gone = True
                log.warning("batch job %s: a file of its results isn't there: %s", self.job.id, fault)
        strange = delivery.strange
        lacks = bool(await self.store.job_lines(self.job.id, "", 1, bodies=False))
        if strange and not self.job.short and read + lacks > self.job.lines:  # else they were stored before
            log.warning(
                "batch job %s: %d results are for lines that aren't open, such as %r",
                self.job.id,
                len(strange),
                strange[0],
            )
        if lacks:
            if await self._looks_again(remote, read - len(strange) + len(set(strange))):
                return
            await self._lack(remote)
        await self._close(remote.status, max(remote.done + remote.failed, self._answered))

    async def _lack(self, remote: RemoteJob) -> None:
        """The lines that a job has no result for end without one."""
        status, code, text = _LEFT.get(remote.status, _MISSING)
        error = _failure(self.lane, 0, code, text)
        again = fit_to_retry(0, code)
        await self._end(lambda line: LineOutcome(line.id, status, None, error, again, most=ATTEMPTS))

    async def _looks_again(self, remote: RemoteJob, read: int) -> bool:
        """Whether a job's results, which lack lines, are read once more: those may be late, or this was a bad copy."""
        lacking = read < remote.done + remote.failed
        if self._gone or remote.status == UNKNOWN:
            most = GONE
        else:
            most = 1 if remote.status in _LEFT and not lacking else LOOKS[lacking]
        if self.job.short + 1 >= most:
            return False
        looked = msgspec.structs.replace(self.job, seen=remote.status, short=self.job.short + 1)
        await self.store.put_batch_job(looked, self.fence)
        self.desk.look_in(self.job, LATER * 2.0**self.job.short)
        return True

    def _outcome(self, result: LineResult) -> LineOutcome:
        if result.status == 200:
            counted = count_result(self.provider, self.to, result.body)
            reserved = self.reserved.get(result.id)
            if not isinstance(counted, Exception):
                use = self._nothing.plus(counted)
                paid = None if reserved is None else self.desk.models.budgets.line_cost(use, reserved)
                return LineOutcome(result.id, "ok", result.body, used=use, lane=self.name, paid=paid)
            error = _failure(self.lane, 200, "bad_body", str(counted))
            again = fit_to_retry(0, "bad_body")
            return LineOutcome(  # it may be billed
                result.id, "error", None, error, again, most=ATTEMPTS, paid=reserved
            )
        expired = result.code in ("batch_expired", "batch_cancelled")
        status = {"batch_expired": "expired", "batch_cancelled": "cancelled"}.get(result.code, "error")
        message = result.code
        if result.body and not expired:
            message = told(result.body)[0] or result.body[:500].decode("utf-8", "replace")
        return LineOutcome(
            result.id,
            status,  # type: ignore[arg-type]  # one of LineStatus, from the table
            None,
            _failure(self.lane, result.status, result.code, message),
            fit_to_retry(result.status, result.code),
            most=ATTEMPTS,
        )

    async def _rejected(self, remote: RemoteJob) -> None:
        """The provider took none of the job: lines at fault fail, the others go round again."""
        if admission.is_quota(remote.rejected):
            await self.over_quota(remote.rejected)
            return
        log.warning("batch job %s was rejected: %s", self.job.id, remote.rejected)
        if await self._spares(remote.rejected):
            return
        lines = [line async for line in self._open_lines()]
        fewer = self.job.lines < len(
            lines
        )  # were in its file, for some had gone live: its numbers are of others
        bad = frozenset[int]() if fewer else admission.at_fault(self.job.lines, remote.bad_lines)
        again = not bad
        outcomes: list[LineOutcome] = []
        for number, line in enumerate(lines, 1):
            innocent = bool(bad) and number not in bad
            most = 0 if innocent else ATTEMPTS
            why = remote.faults.get(number, remote.rejected) if bad else remote.rejected
            error = _failure(self.lane, 400, "batch_rejected", why)
            outcomes.append(
                LineOutcome(line.id, "error", None, error, innocent or again, innocent, most=most)
            )
        async with self._delivery() as delivery:
            for outcome in reversed(outcomes):  # if this breaks off, what is left is numbered as it was
                if delivery.add(outcome):
                    await delivery.send()
        await self._close(remote.status, 0, remote.rejected)

    async def over_quota(self, told: str) -> None:
        """Too many tokens are enqueued: the lines wait again, for smaller jobs, and it wasn't an attempt of theirs."""
        quota = self.desk.quotas.refused(self.job, await self.store.lanes(), told)
        log.warning(
            "batch job %s is over the quota of enqueued tokens; from now on about %s at once: %s",
            self.job.id,
            f"{quota.limit:,}",
            told,
        )
        error = _failure(self.lane, 429, "token_limit_exceeded", told)

        def outcome(line: Line) -> LineOutcome:
            beyond = admission.is_beyond(quota, line.size)
            return LineOutcome(line.id, "error", None, error, not beyond, free=not beyond)

        await self._end(outcome)
        await self._close("over quota", 0, told)

    async def unneeded(self) -> None:
        """All its lines were answered live, or given up, before it could be submitted."""
        error = _failure(self.lane, 0, "batch_cancelled", "nobody waits for it any more")
        await self._end(lambda line: LineOutcome(line.id, "cancelled", None, error, again=True, free=True))
        await self._close("not needed", 0)

    async def refused(self, fault: CallFault) -> None:
        """The provider didn't even take the job's file, or the job, and won't: its lines fail."""
        log.warning("batch job %s was refused: %s", self.job.id, fault)
        if fault.status in (400, 422) and await self._spares(fault.message):
            return
        text = f"{self.provider.name} refused the batch job: {fault.message}"
        error = _failure(self.lane, fault.status, fault.code or "batch_refused", text)
        await self._end(lambda line: LineOutcome(line.id, "error", None, error))
        await self._close("refused", 0, fault.message)

    async def _spares(self, told: str) -> bool:
        """Whether some of a refused job's requests are damaged in the store: those fail, the others go round again.

        It is looked for only then: who builds a job doesn't read each body.
        """
        damaged: set[str] = set()
        after = ""
        while chunk := await self.store.job_bodies(self.job.id, after, CHUNK):
            damaged |= {id for id, body in chunk if not is_json(body)}
            after = chunk[-1][0]
        if not damaged:
            return False
        log.error("batch job %s: the store is damaged in %d of its requests", self.job.id, len(damaged))
        text = "the store is damaged where its request is; to ask anew: segue resume … --rerun"
        theirs, others = (
            _failure(self.lane, 0, "batch_line_damaged", text),
            _failure(self.lane, 400, "batch_rejected", told),
        )

        def outcome(line: Line) -> LineOutcome:
            if line.id in damaged:
                return LineOutcome(line.id, "error", None, theirs)
            return LineOutcome(line.id, "error", None, others, again=True, free=True)

        await self._end(outcome)
        await self._close("damaged", 0, told)
        return True

    async def lost(self) -> None:
        """The store's record of the job is damaged: nobody knows which it was."""
        await self._lost(
            f"the store's record of batch job {self.job.id} is damaged ({self.job.error}): its results can't be "
            f"fetched, though {self.provider.name} may bill them"
        )

    async def unlisted(self, fault: CallFault) -> None:
        """Its submission was cut off, and the provider has no list: nobody knows whether it has this job."""
        await self._lost(
            f"the submission of batch job {self.job.id} was cut off, and {self.provider.name} has no list of batches "
            f"to find it in ({fault}): it may be under way there, and billed"
        )

    async def _lost(self, told: str) -> None:
        """Whether to pay again, a person says."""
        text = f"{told}. To ask anew: segue resume … --rerun"
        log.error("%s", text)
        error = _failure(self.lane, 0, "batch_job_lost", text)
        await self._end(lambda line: LineOutcome(line.id, "error", None, error))
        await self._close("lost", 0, text)

    async def _end(self, outcome: Callable[[Line], LineOutcome]) -> None:
        """Store how all lines of a job end that have no outcome yet."""
        async with self._delivery() as delivery:
            async for line in self._open_lines():
                if delivery.add(outcome(line)):
                    await delivery.send()

    def _delivery(self) -> Delivery:
        async def put(chunk: list[LineOutcome]) -> list[str] | None:
            for outcome in chunk:
                if outcome.status == "ok":
                    self._good = True
                elif outcome.again and not outcome.free:
                    self._passing = outcome.error
            self.desk.promotions.answered(self.lane, chunk)
            return await self.store.outcomes(self.job.id, self.fence, chunk, now=self.clock.now())

        return Delivery(put)

    async def _close(self, seen: str, progress: int, error: str = "") -> None:
        passing = None if self.job.id in self.desk.ended else self._passing  # we ended it, then
        self.desk.forget(self.job)
        over = self.clock.now() if self.job.sent else 0.0
        closed = msgspec.structs.replace(
            self.job, state="closed", seen=seen, progress=progress, error=error, over=over
        )
        self.desk.promotions.closed(closed)
        pause = self.desk.came(self.lane, good=self._good, passing=passing is not None)
        if passing is not None and pause:
            log.warning(
                "lane %s: nothing came of batch job %s but what may pass (%s); what goes out again waits %.0f s",
                self.lane,
                self.job.id,
                passing.message,
                pause,
            )
        await self.store.put_batch_job(closed, self.fence)

    async def _open_lines(self) -> AsyncIterator[Line]:
        after = ""
        while chunk := await self.store.job_lines(self.job.id, after, CHUNK, bodies=False):
            for line in chunk:
                yield line
            after = chunk[-1].id


def _failure(lane: str, status: int, code: str, message: str) -> Failure:
    """A line's error, as its run will raise it."""
    endpoint, _ = lane_endpoint(lane)
    return to_failure(model_failed(usage_name(endpoint), status, message, code))
