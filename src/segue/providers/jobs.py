"""Files and batches over the wire, in whichever format a provider has them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from ..ports.provider import CallFault, LineResult, RemoteJob
from .batches import PAGE, Format, Job, Stored, line_result, remote_job
from .exchange import Exchange, pieces, quoted

_MOST_PAGES = 1_000
_SLACK = 3600.0  # of clocks that disagree, in seconds
_SETTLING = 2.0  # between looks at a file that isn't processed, in seconds
_MOST_LOOKS = 150
_SETTLED = frozenset({None, "processed", "uploaded", "error", "deleted"})

_stored = msgspec.json.Decoder(Stored)
_model = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Jobs:
    """The batch half of a provider; see `BatchProvider`. `path` is that of the endpoint whose requests are carried."""

    def __init__(
        self,
        exchange: Exchange,
        format: Format,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._exchange, self._format, self._pause = exchange, format, pause

    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], path: str, nonce: str) -> str:
        """See `BatchProvider.upload`."""
        name = f"{nonce}.jsonl"
        url = self._exchange.url(self._format.uploads)
        async with self._exchange.transport.upload(
            url,
            headers=self._exchange.headers,
            fields=self._format.fields(name),
            name=name,
            content=pieces(self._lines(lines, path)),
        ) as response:
            stored = await self._exchange.decoded(response, _stored.decode, "a file", url)
        if self._format.settles:
            await self._settled(stored)
        return stored.id

    async def _settled(self, stored: Stored) -> None:
        """Wait until a file is processed."""
        for _ in range(_MOST_LOOKS):
            if stored.status in _SETTLED:
                return
            await self._pause(_SETTLING)
            where = f"{self._format.files}/{quoted(stored.id)}"
            stored = await self._exchange.call("GET", where, _stored.decode, "a file")
        text = f"the file {stored.id} is still {stored.status!r} after {_MOST_LOOKS * _SETTLING:g} s"
        raise CallFault(200, text, again=True, code="file_pending")

    async def submit(
        self, file: str, path: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """See `BatchProvider.submit`. Of the lines only the first is looked at, for its model."""
        model = ""
        if lines is not None:
            async for _, body in lines:
                model = str(msgspec.json.decode(_model.decode(body).get("model", b'""')))
                break
        asked = self._format.asked(file, path, nonce, model)
        return self._told(
            await self._exchange.call("POST", self._format.jobs, self._format.job, "a batch", asked)
        )

    async def find(self, nonce: str, file: str, since: float) -> RemoteJob | None:
        """See `BatchProvider.find`. Of several, one that wasn't refused; of those, the oldest."""
        found: list[Job] = []
        after = ""
        for number in range(_MOST_PAGES):
            where = self._format.list(number, after)
            page = await self._exchange.call("GET", where, self._format.page, "a list of batches")
            found += [
                job
                for job in page.data
                if (nonce and job.nonce == nonce) or (file and job.input_file_id == file)
            ]
            if not page.more(PAGE) or page.cursor == after or _too_old(page.data, since - _SLACK):
                break
            after = page.cursor
        if not found:
            return None
        return self._told(min(found, key=lambda job: (job.status.lower() == "failed", job.created_at or 0.0)))

    async def poll(self, job: str) -> RemoteJob:
        """See `BatchProvider.poll`."""
        where = f"{self._format.jobs}/{quoted(job)}"
        return self._told(await self._exchange.call("GET", where, self._format.job, "a batch"))

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """See `BatchProvider.results`. A broken download raises `CallFault`; read again, from the start."""
        read = 0
        mask = self._exchange.mask
        for file in job.files:
            number = 0
            async for line in self._outcomes(file):
                number += 1
                if not line.strip():
                    continue
                read += 1
                result = line_result(line, mask)
                yield f"{file}, line {number}: {result}" if isinstance(result, str) else result
        if job.files and not read and job.done + job.failed:
            text = f"the files of {job.id} are empty, though it tells of {job.done + job.failed} outcomes"
            raise CallFault(200, text, again=True, code="bad_body")

    async def _outcomes(self, file: str) -> AsyncIterator[bytes]:
        """The lines of a file of outcomes."""
        if self._format.paged:
            async for line in self._pages(file):
                yield line
            return
        url = self._exchange.url(self._format.outcomes(quoted(file), ""))
        async with contextlib.aclosing(self._exchange.lines(url)) as lines:
            async for line in lines:
                yield line

    async def _pages(self, file: str) -> AsyncIterator[bytes]:
        after, following = None, ""
        while following != after:
            after = following
            where = self._format.outcomes(quoted(file), after)
            lines, following = await self._exchange.call("GET", where, self._format.rows, "a page of results")
            for line in lines:
                yield line
            if not following:
                return

    async def cancel(self, job: str) -> None:
        """See `BatchProvider.cancel`. A job that is over already is fine."""
        where = self._format.cancel(quoted(job))
        try:
            await self._exchange.call("POST", where, self._format.job, "a batch")
        except CallFault as fault:
            if fault.status not in (400, 409) or not (await self.poll(job)).over:
                raise

    def _told(self, job: Job) -> RemoteJob:
        return remote_job(job, self._exchange.mask)

    async def _lines(self, lines: AsyncIterator[tuple[str, bytes]], path: str) -> AsyncIterator[bytes]:
        async for ident, body in lines:
            yield self._format.line(ident, path, body)


def _too_old(page: list[Job], moment: float) -> bool:
    """Whether nothing younger than `moment` comes after this page. An unsorted list is read to its end."""
    times = [job.created_at for job in page if job.created_at is not None]
    newest_first = len(times) == len(page) and times == sorted(times, reverse=True)
    return newest_first and times[-1] < moment
