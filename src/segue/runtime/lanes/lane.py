"""One lane's jobs at the provider: submitted once, and followed until they are over.

A job is submitted in two phases, each written before and after: intent (lines and a nonce) → file id → job
id. After a crash in between, the orphan is looked for by nonce and file; only when the provider doesn't know
it after a grace period is it sent again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec

from ...core import admission
from ...core.batching import poll_after
from ...model.lane import BatchJob
from ...model.mode import Batch
from ...ports.provider import CallFault, RemoteJob
from .delivery import CHUNK
from .desk import Desk, Held
from .ending import GONE, UNKNOWN, Ending

log = logging.getLogger("segue")

#: How long a job that the provider doesn't list may still turn up, in seconds.
GRACE = 20.0
#: What a server answers that has no list of its jobs.
NO_LIST = (404, 405, 410, 501)


class Lane:
    """A lane while this process holds its fence."""

    def __init__(self, desk: Desk, held: Held) -> None:
        self.desk, self.store, self.clock = desk, desk.store, desk.clock
        self.head, self.provider, self.to, self.fence = held
        self._held = held

    def _ending(self, job: BatchJob) -> Ending:
        return Ending(self.desk, self._held, job)

    async def submit(self, policy: Batch) -> BatchJob | None:
        """Take what waits into a job and send it."""
        ident = uuid4().hex
        room = await self.desk.room(self.head.lane)
        if room == 0:
            return None
        job = await self.store.take(
            self.head.lane,
            self.fence,
            max_lines=min(policy.max_lines, self.provider.max_lines),
            max_bytes=min(policy.max_bytes, self.provider.max_bytes, room or self.provider.max_bytes),
            job=ident,
            nonce=ident,
            now=self.clock.now(),
            late_by=self.desk.promotions.late_by(self.head),
        )
        return None if job is None else await self._send(job)

    async def _send(self, job: BatchJob) -> BatchJob | None:
        """From intent or file to a provider's job.

        That a submission is about to be tried, and when, is durable before it is: from then on the job may
        be there without our knowing.
        """
        earlier = job
        try:
            if not job.file:
                lines = _Counted(self._lines(job))
                file = await self.provider.upload(lines.each(), self.to, job.nonce)
                job = msgspec.structs.replace(
                    job, state="uploaded", file=file, lines=lines.count or job.lines
                )
            job = msgspec.structs.replace(job, uploaded=self.clock.now())
            if not await self.store.put_batch_job(job, self.fence):
                return None
            if self.clock.now() - job.uploaded > GRACE / 2:
                return None  # the disk was full, or the loop blocked: another process may be looking for it by now
            remote = await self.provider.submit(job.file, self.to, job.nonce, self._lines(job))
        except CallFault as fault:
            nonsense = fault.code == "bad_body" and self.desk.makes_no_sense(job)
            told = f"{fault} ({fault.code})"
            if (
                fault.status == 429
                and job.file
                and (admission.is_quota(told) or self.desk.refused_again(job))
            ):
                await self._ending(job).over_quota(told)
                return None
            if fault.again and (job.file or not nonsense):
                raise
            if earlier.file:  # it may be gone by now: Gemini's live for two days
                return await self._send(msgspec.structs.replace(earlier, state="intent", file=""))
            await self._ending(job).refused(fault)
            return None
        return await self._sent(job, remote)

    async def _sent(self, job: BatchJob, remote: RemoteJob) -> BatchJob | None:
        now = self.clock.now()
        job = msgspec.structs.replace(
            job, state="sent", remote=remote.id, seen=remote.status, sent=now, short=0
        )
        self.desk.look_in(job, poll_after(0.0))
        return job if await self.store.put_batch_job(job, self.fence) else None

    async def _lines(self, job: BatchJob) -> AsyncIterator[tuple[str, bytes]]:
        after = ""
        while chunk := await self.store.job_bodies(job.id, after, CHUNK):
            for line in chunk:
                yield line
            after = chunk[-1][0]

    # ------------------------------------------------------------ follow
    async def advance(self, job: BatchJob, poll_now: bool) -> float:
        """Do what is due for an open job; seconds until it is due again."""
        if job.state == "unread":
            await self._ending(job).lost()
            return 0.0
        wait = self.desk.due(job, poll_now)
        if wait:
            return wait
        if job.state != "sent":
            found = await self._adopt(job)
            if found is None:
                wait = max(2.0**job.short, poll_after(self.clock.now() - job.created))
                return self.desk.look_in(job, wait)
            job = found
        try:
            remote = await self.provider.poll(job.remote)
        except CallFault as fault:
            if fault.status != 404 or self.clock.now() - job.sent < GRACE:
                raise
            remote = RemoteJob(id=job.remote, status=UNKNOWN, over=True)
            log.warning("batch job %s isn't known to %s now: %s", job.id, self.provider.name, fault)
        if remote.over:
            await self._ending(job).collect(remote)
            return 0.0
        await self._spare(job)
        done = remote.done + remote.failed
        if (remote.status, done) != (job.seen, job.progress):
            await self.store.put_batch_job(
                msgspec.structs.replace(job, seen=remote.status, progress=done, short=0), self.fence
            )
        return self.desk.look_in(job, poll_after(self.clock.now() - job.sent))

    async def _spare(self, job: BatchJob) -> None:
        """End a job for which nobody waits, as its lines were answered live or their runs are over: what it hasn't done
        yet needn't be paid."""
        ended = self.desk.ended
        if ended.get(job.id) or await self.store.job_bodies(job.id, "", 1):
            return
        try:
            await self.provider.cancel(job.remote)
            ended[job.id] = True
        except CallFault as fault:
            if job.id not in ended:
                log.warning("batch job %s isn't needed any more, and can't be cancelled: %s", job.id, fault)
            ended[job.id] = False

    async def _adopt(self, job: BatchJob) -> BatchJob | None:
        """A job whose submission was cut off: the provider's, if it has it; else sent again after the grace period."""
        if job.state == "intent":  # it wasn't submitted
            return await self._send_again(job)
        try:
            orphan = await self.provider.find(
                job.nonce, job.file, job.created, lines=job.lines, others=await self._others(job)
            )
        except CallFault as fault:
            if fault.status not in NO_LIST:
                raise
            await self._unlisted(job, fault)
            return None
        if orphan is not None and not orphan.sure:  # the provider will tell when that job is over
            level = logging.WARNING if orphan.over else logging.INFO  # its results can't be read, then
            log.log(
                level,
                "batch job %s may be %s; it isn't sent again before that is known",
                job.id,
                orphan.id,
            )
            return None
        if orphan is not None:
            log.info("batch job %s was found again as %s", job.id, orphan.id)
            return await self._sent(job, orphan)
        return None if self.clock.now() - job.uploaded < GRACE else await self._send_again(job)

    async def _unlisted(self, job: BatchJob, fault: CallFault) -> None:
        """There is no list to find a job in: that is believed in time, for a gateway may say so for minutes."""
        if job.short + 1 >= GONE:
            await self._ending(job).unlisted(fault)
            return
        if not job.short:
            log.warning("batch job %s was cut off, and is looked for in vain: %s", job.id, fault)
        await self.store.put_batch_job(msgspec.structs.replace(job, short=job.short + 1), self.fence)

    async def _send_again(self, job: BatchJob) -> BatchJob | None:
        lines = 0  # fewer than it had, where some were answered live or given up; it is found again by that number
        async for _ in self._lines(job):
            lines += 1
        if not lines:
            await self._ending(job).unneeded()
            return None
        if self.desk.gave_up(job):
            text = (
                f"the answers of {self.provider.name} to a submission make no sense, and it has no such job"
            )
            await self._ending(job).refused(CallFault(200, text, again=False, code="bad_body"))
            return None
        if lines != job.lines:  # those of its file that nobody waits for would be paid
            job = msgspec.structs.replace(job, state="intent", file="", lines=lines)
        return await self._send(job)

    async def _others(self, job: BatchJob) -> set[str]:
        """Ids of every other open job of this store."""
        heads = await self.store.lanes()
        return {each.remote for head in heads for each in head.jobs if each.remote and each.id != job.id}


class _Counted:
    """Lines on their way into a file: fewer than their job took, where some were answered live meanwhile."""

    def __init__(self, lines: AsyncIterator[tuple[str, bytes]]) -> None:
        self._lines, self.count = lines, 0

    async def each(self) -> AsyncIterator[tuple[str, bytes]]:
        """Them."""
        async for line in self._lines:
            self.count += 1
            yield line
