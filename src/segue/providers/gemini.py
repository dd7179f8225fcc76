"""Gemini: generateContent, embeddings, files and batches."""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from typing import Any

import msgspec

from ..model.chat import ChatReply, ChatRequest
from ..model.errors import InvalidValue
from ..ports.provider import OVERFLOW, CallFault, LineResult, Rates, RemoteJob
from ..ports.transport import Transport
from . import gemini_batches as jobs
from . import gemini_content as content
from .exchange import Exchange, pieces, quoted
from .faults import garbage
from .wire.gemini import Gemini as Wire

_VERSION = re.compile(r"/v1\w*$")
_PAGE = 100
_MOST_PAGES = 100
_SLACK = 3600.0  # of clocks that disagree, in seconds
_DELAY = re.compile(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"')

_listen = partial(Wire().listen, None)


class Gemini:
    """Gemini's models, files and batches under one base URL, which ends in its version.

    It has its transport for itself, and closes it. No text of an error, repr or log holds the key. A batch is made of
    a file, which says nothing of the model: what `upload` gives names both, as `MODEL files/ID`.
    """

    batches = True
    live_only = ("embed",)
    max_lines = 50_000
    max_bytes = 190_000_000  #: of bodies
    at_once = 1

    def __init__(self, base_url: str, api_key: str, transport: Transport, name: str = "gemini") -> None:
        self.name = name
        self._exchange = Exchange(
            base_url,
            api_key,
            transport,
            header="x-goog-api-key",
            headers={"x-goog-api-client": "segue"},
            version="/v1beta",
            refine=_refine,
        )
        self.base_url = self._exchange.base_url
        self._mask = self._exchange.mask

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, name={self.name!r})"

    # ------------------------------------------------------------ translation
    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """See `Provider.chat_body`."""
        return content.chat_body(request, model)

    def chat_reply(self, body: bytes) -> ChatReply:
        """See `Provider.chat_reply`."""
        return self._exchange.read(content.chat_reply, body, self.name, "one of generateContent")

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        """See `Provider.embed_body`."""
        return content.embed_body(texts, model)

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """See `Provider.embed_reply`."""
        return self._exchange.read(content.embed_reply, body, self.name, "one of batchEmbedContents")

    # ------------------------------------------------------------ live
    async def send(
        self,
        endpoint: str,
        body: bytes,
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> bytes:
        """See `Provider.send`."""
        model, asked = jobs.without_model(body)
        streams = on_text is not None and endpoint == "chat"
        verb = "generateContent" if endpoint == "chat" else "batchEmbedContents"
        path = f"/models/{quoted(model)}:{'streamGenerateContent?alt=sse' if streams else verb}"
        whole, _ = await self._exchange.send(path, asked, _listen, on_text, on_rates, last=False)
        if not _is_answer(whole):
            raise garbage("the answer isn't one of Gemini's", whole, self._mask)
        return whole

    # ------------------------------------------------------------ batches
    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        """See `BatchProvider.upload`."""
        if endpoint != "chat":
            raise InvalidValue(
                "a batch's endpoint", "'chat'", "Gemini's embeddings go live only", repr(endpoint)
            )
        transport, headers = self._exchange.transport, self._exchange.headers
        root = _VERSION.sub(r"/upload\g<0>", self.base_url)
        seen = _Seen()
        async with transport.spool(pieces(seen.lines(lines))) as spool:
            announced = {
                **headers,
                "X-Goog-Upload-Protocol": "resumable",
                "X-Goog-Upload-Command": "start",
                "X-Goog-Upload-Header-Content-Length": str(spool.size),
                "X-Goog-Upload-Header-Content-Type": "application/jsonl",
            }
            about = msgspec.json.encode({"file": {"displayName": nonce}})
            files = f"{root}/files"
            async with transport.request("POST", files, headers=announced, body=about) as response:
                await self._exchange.refuse(response, files)
                place = response.headers.get("x-goog-upload-url", "")
                told = await response.read()
            if _origin(place) != _origin(self.base_url) and not place.startswith("https://"):
                raise garbage(f"an upload is to go to {_origin(place) or 'nowhere'}", told, self._mask)
            sent = {
                "Content-Type": "application/octet-stream",
                "X-Goog-Upload-Offset": "0",
                "X-Goog-Upload-Command": "upload, finalize",
            }
            async with transport.request("POST", place, headers=sent, body=spool) as response:
                await self._exchange.refuse(response)
                name = await self._exchange.decoded(response, jobs.uploaded, "a file")
        return f"{seen.model} {name}"

    async def submit(
        self, file: str, endpoint: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """See `BatchProvider.submit`."""
        model, name = file.split(" ", 1)
        asked = {"batch": {"displayName": nonce, "inputConfig": {"fileName": name}}}
        return await self._job("POST", f"/models/{quoted(model)}:batchGenerateContent", asked)

    async def find(
        self, nonce: str, file: str, since: float, *, lines: int = 0, others: Collection[str] = ()
    ) -> RemoteJob | None:
        """See `BatchProvider.find`. Of several, one that wasn't refused; of those, the oldest."""
        name = file.rpartition(" ")[2]
        found: list[jobs.Operation] = []
        token = ""
        for _ in range(_MOST_PAGES):
            query = f"?pageSize={_PAGE}" + (f"&pageToken={quoted(token)}" if token else "")
            page = await self._exchange.call("GET", f"/batches{query}", jobs.page, "a list of batches")
            found += [
                each
                for each in page.operations
                if (nonce and each.metadata.display_name == nonce) or (name and each.file == name)
            ]
            token = page.next_page_token
            if (
                not token
                or not page.operations
                or all(each.created < since - _SLACK for each in page.operations)
            ):
                break
        if not found:
            return None
        best = min(found, key=lambda each: (each.metadata.state.upper().endswith("FAILED"), each.created))
        return jobs.remote_job(best, self._mask)

    async def poll(self, job: str) -> RemoteJob:
        """See `BatchProvider.poll`."""
        return await self._job("GET", f"/{_name(job)}")

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """See `BatchProvider.results`. A broken download raises `CallFault`; read again, from the start."""
        root = _VERSION.sub(r"/download\g<0>", self.base_url)
        for file in job.files:
            url = f"{root}/{_name(file)}:download?alt=media"
            number = 0
            async with contextlib.aclosing(self._exchange.lines(url)) as lines:
                async for line in lines:
                    if not line.strip():
                        continue
                    number += 1
                    result = jobs.line_result(line, self._mask)
                    yield f"{file}, line {number}: {result}" if isinstance(result, str) else result
            if not number and job.done + job.failed:
                text = f"the file of {job.id} is empty, though it tells of {job.done + job.failed} outcomes"
                raise CallFault(200, text, again=True, code="bad_body")

    async def cancel(self, job: str) -> None:
        """See `BatchProvider.cancel`. A batch that is over already is fine."""
        try:
            await self._exchange.call("POST", f"/{_name(job)}:cancel", bytes, "an answer", {})
        except CallFault as fault:
            if fault.status not in (400, 409) or not (await self.poll(job)).over:
                raise

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._exchange.transport.close()

    async def _job(self, method: str, path: str, asked: Any = None) -> RemoteJob:
        told = await self._exchange.call(method, path, jobs.operation, "a batch", asked)
        return jobs.remote_job(told, self._mask)


class _Seen:
    """The lines of a file as they go by; `model` is that of their requests."""

    def __init__(self) -> None:
        self.model = ""

    async def lines(self, lines: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[bytes]:
        async for ident, body in lines:
            model, request = jobs.without_model(body)
            self.model = self.model or model
            yield jobs.job_line(ident, request)


class _Outline(msgspec.Struct, rename="camel"):
    candidates: list[msgspec.Raw] | None = None
    prompt_feedback: msgspec.Raw | None = None
    embeddings: list[msgspec.Raw] | None = None


class _Word(msgspec.Struct):
    status: str | None = None


class _Told(msgspec.Struct):
    error: _Word | None = None


def _is_answer(body: bytes) -> bool:
    try:
        outline = msgspec.json.decode(body, type=_Outline)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return bool(outline.candidates or outline.embeddings) or outline.prompt_feedback is not None


def _refine(fault: CallFault, body: bytes) -> None:
    """Gemini's word for an error, and how long it asks to wait, which it says in the body."""
    if fault.code != OVERFLOW:
        fault.code = _status(body) or fault.code
    if fault.after is None and (delay := _DELAY.search(body.decode("utf-8", "replace"))) is not None:
        fault.after = float(delay[1])


def _status(body: bytes) -> str:
    """The name of an error, such as `RESOURCE_EXHAUSTED`."""
    try:
        error = msgspec.json.decode(body, type=_Told).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return (error.status if error is not None else None) or ""


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""


def _name(resource: str) -> str:
    """A resource's name, fit for a path: `batches/ID`, `files/ID`."""
    return urllib.parse.quote(resource, safe="/")
