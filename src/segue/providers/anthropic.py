"""Anthropic: Messages, and Message Batches."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from functools import partial
from typing import Any

import msgspec

from ..model.chat import ChatReply, ChatRequest
from ..model.errors import InvalidValue, ProviderFault
from ..ports.provider import CallFault, LineResult, Rates, RemoteJob
from ..ports.transport import Transport
from . import anthropic_batches as jobs
from . import anthropic_messages as messages
from .exchange import Exchange, pieces, quoted
from .faults import garbage
from .wire.messages import Messages

_MESSAGES = "/v1/messages"
_BATCHES = "/v1/messages/batches"
_PAGE = 1000
_MOST_PAGES = 100
_SLACK = 3600.0  # of clocks that disagree, in seconds
#: An answer that may be longer is streamed, whoever listens: no connection is silent for so long.
_LONG = 21_333

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_listen = partial(Messages().listen, None)


class Anthropic:
    """Anthropic's Messages and batches under one base URL, which ends in `/v1`.

    It has its transport for itself, and closes it. No text of an error, repr or log holds the key.
    """

    batches = True
    max_lines = 100_000
    max_bytes = 240_000_000  #: of bodies; 256 MB less what stands around them
    at_once = 1

    def __init__(self, base_url: str, api_key: str, transport: Transport, name: str = "anthropic") -> None:
        self.name = name
        self._exchange = Exchange(
            base_url, api_key, transport, header="x-api-key", headers={"anthropic-version": "2023-06-01"}
        )
        self.base_url = self._exchange.base_url
        self._mask = self._exchange.mask

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, name={self.name!r})"

    # ------------------------------------------------------------ translation
    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """See `Provider.chat_body`."""
        return messages.chat_body(request, model)

    def chat_reply(self, body: bytes) -> ChatReply:
        """See `Provider.chat_reply`."""
        return self._exchange.read(messages.chat_reply, body, self.name, "a message")

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        """Anthropic has no embeddings: raises `InvalidValue`."""
        raise InvalidValue(
            "the model of embed()",
            "one that makes embeddings",
            "Anthropic has none",
            repr(f"{self.name}:{model}"),
        )

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """Anthropic has no embeddings: raises `ProviderFault`."""
        raise ProviderFault(self.name, "it has no embeddings", "")

    # ------------------------------------------------------------ live
    async def send(
        self,
        endpoint: str,
        body: bytes,
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> bytes:
        """See `Provider.send`."""
        asked = _object.decode(body)
        streams = on_text is not None or "thinking" in asked or _most(asked) > _LONG
        if streams:
            body = msgspec.json.encode(asked | {"stream": msgspec.Raw(b"true")})
        whole, streamed = await self._exchange.send(_MESSAGES, body, _listen, on_text, on_rates)
        if not _is_message(whole):
            raise garbage("the answer isn't a message", whole, self._mask)
        if on_text is not None and not streamed and (text := _text(whole)):
            on_text(text)
        return whole

    # ------------------------------------------------------------ batches
    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        """See `BatchProvider.upload`. The lines go with the submission."""
        return "requests"

    async def submit(
        self, file: str, endpoint: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """See `BatchProvider.submit`. The ids of its lines bear the label."""
        if lines is None:
            raise InvalidValue("lines", "the requests of the batch", "Anthropic has no job files")
        transport = self._exchange.transport
        async with transport.spool(pieces(_requests(lines, jobs.label_of(nonce)))) as spool:
            place, headers = self._exchange.url(_BATCHES), self._exchange.headers
            async with transport.request("POST", place, headers=headers, body=spool) as response:
                return jobs.remote_job(await self._exchange.decoded(response, jobs.job, "a batch", place))

    async def find(
        self, nonce: str, file: str, since: float, *, lines: int = 0, others: Collection[str] = ()
    ) -> RemoteJob | None:
        """See `BatchProvider.find`.

        A batch of as many lines is ours where the ids of its results bear our label. That can be told only when it
        is over, and its results can be read: until then it isn't `sure`.
        """
        label = jobs.label_of(nonce)
        doubtful: jobs.Job | None = None
        async for job in self._listed(since - _SLACK):
            if job.id in others or (lines and job.total != lines):
                continue
            theirs = await self._label(job) if job.over else None
            if theirs is None:
                doubtful = job
            elif theirs == label:
                return jobs.remote_job(job)
        if doubtful is None:
            return None
        return msgspec.structs.replace(jobs.remote_job(doubtful), sure=False)

    async def _listed(self, since: float) -> AsyncIterator[jobs.Job]:
        """Batches made since then, the newest first."""
        after = ""
        for _ in range(_MOST_PAGES):
            query = f"?limit={_PAGE}" + (f"&after_id={quoted(after)}" if after else "")
            page = await self._exchange.call("GET", _BATCHES + query, jobs.job_page, "a list of batches")
            for job in page.data:
                if job.created < since:
                    return
                yield job
            if not page.has_more or not page.data or page.data[-1].id == after:
                return
            after = page.data[-1].id

    async def _label(self, job: jobs.Job) -> str | None:
        """The label of a batch that is over; empty where it has none or its results are gone, None where they can't be
        read: an answer that is empty or cut off says nothing, nor does one that there are none where there should be.
        """
        label: str | None = None
        try:
            async with contextlib.aclosing(self._lines(job.id)) as found:
                async for line in found:
                    label = jobs.labelled(msgspec.json.decode(line, type=_Named).custom_id)[1]
                    if label:
                        break
        except CallFault as fault:
            if fault.status not in (400, 404, 410):
                raise
            return None if fault.status == 404 and job.results_url else ""
        except msgspec.DecodeError:
            pass
        return label

    async def poll(self, job: str) -> RemoteJob:
        """See `BatchProvider.poll`."""
        found = await self._exchange.call("GET", f"{_BATCHES}/{quoted(job)}", jobs.job, "a batch")
        return jobs.remote_job(found)

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """See `BatchProvider.results`. A broken download raises `CallFault`; read again, from the start."""
        number = 0
        async for line in self._lines(job.id):
            number += 1
            result = jobs.line_result(line, self._mask)
            yield f"{job.id}, line {number}: {result}" if isinstance(result, str) else result
        if not number and job.done + job.failed:
            text = f"the results of {job.id} are empty, though it tells of {job.done + job.failed} outcomes"
            raise CallFault(200, text, again=True, code="bad_body")

    async def _lines(self, job: str) -> AsyncGenerator[bytes]:
        """The lines of a batch's results. They are asked for where they have to be, not where an answer says."""
        url = self._exchange.url(f"{_BATCHES}/{quoted(job)}/results")
        async with contextlib.aclosing(self._exchange.lines(url)) as lines:
            async for line in lines:
                if line.strip():
                    yield line

    async def cancel(self, job: str) -> None:
        """See `BatchProvider.cancel`. A batch that is over already is fine."""
        try:
            await self._exchange.call("POST", f"{_BATCHES}/{quoted(job)}/cancel", jobs.job, "a batch")
        except CallFault as fault:
            if fault.status not in (400, 409) or not (await self.poll(job)).over:
                raise

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._exchange.transport.close()


class _Named(msgspec.Struct):
    custom_id: str


class _Outline(msgspec.Struct):
    type: str = ""
    content: list[msgspec.Raw] | None = None


def _is_message(body: bytes) -> bool:
    try:
        outline = msgspec.json.decode(body, type=_Outline)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return outline.type == "message" and outline.content is not None


def _text(body: bytes) -> str:
    try:
        return messages.chat_reply(body).text
    except ValueError:
        return ""  # the caller will find out, and say it better


def _most(asked: dict[str, msgspec.Raw]) -> int:
    most = bytes(asked.get("max_tokens", msgspec.Raw(b"0")))
    return int(most) if most.isdigit() else 0


async def _requests(lines: AsyncIterator[tuple[str, bytes]], label: str) -> AsyncIterator[bytes]:
    before = b'{"requests":['
    async for ident, body in lines:
        yield before + jobs.request(ident, label, body)
        before = b","
    yield b"]}" if before == b"," else before + b"]}"
