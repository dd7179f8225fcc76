"""OpenAI, and every server that speaks its protocol: chat, embeddings, files and batches."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ..model.chat import ChatReply, ChatRequest
from ..model.errors import InvalidValue, ProviderFault
from ..ports.provider import CallFault, LineResult, Rates, RemoteJob
from ..ports.transport import Response, Transport
from . import completions
from .batches import LABEL, Job, Page, Stored, job_line, line_result, remote_job
from .faults import event_fault, garbage, http_fault
from .masking import Mask
from .rates import rates

T = TypeVar("T")

_PATHS = {"chat": "/v1/chat/completions", "embed": "/v1/embeddings"}
_OWN_HOSTS = (".openai.com", ".openai.azure.com")
_PAGE = 100
_MOST_PAGES = 1_000
_SLACK = 3600.0  # of clocks that disagree, in seconds
_PIECE = 1 << 18
_LINGER = 0.05  # in seconds, for servers that don't end an answer that is over
_STREAMED = {"stream": msgspec.Raw(b"true"), "stream_options": msgspec.Raw(b'{"include_usage":true}')}

_job = msgspec.json.Decoder(Job)
_page = msgspec.json.Decoder(Page)
_stored = msgspec.json.Decoder(Stored)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class OpenAI:
    """Chat Completions, embeddings and batches under one base URL.

    `api_key` may be empty for servers that want none. `headers` go with every request. It has its transport
    for itself, and closes it. No text of an error, repr or log holds the key, nor what looks like one.
    """

    max_lines = 50_000
    at_once = 1
    max_bytes = 190_000_000  #: of bodies; 200 MB less what stands around them in a file

    def __init__(
        self,
        base_url: str,
        api_key: str,
        transport: Transport,
        name: str = "openai",
        *,
        batches: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        key = api_key.strip()
        self.name = name
        self.batches = batches
        self.base_url = _checked(base_url, key)
        self._transport = transport
        self._mask = Mask(key)
        self._headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        host = urllib.parse.urlsplit(self.base_url).hostname or ""
        self._limit = "max_completion_tokens" if f".{host}".endswith(_OWN_HOSTS) else "max_tokens"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, name={self.name!r})"

    # ------------------------------------------------------------ translation
    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """See `Provider.chat_body`."""
        return completions.chat_body(request, model, limit=self._limit)

    def chat_reply(self, body: bytes) -> ChatReply:
        """See `Provider.chat_reply`."""
        return self._read(completions.chat_reply, body, "isn't a chat completion")

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        """See `Provider.embed_body`."""
        return completions.embed_body(texts, model)

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """See `Provider.embed_reply`."""
        return self._read(completions.embed_reply, body, "isn't a list of embeddings")

    def _read(self, read: Callable[[bytes], T], body: bytes, what: str) -> T:
        try:
            return read(body)
        except ValueError as error:  # msgspec's are ValueErrors too
            problem = self._mask(str(error))
        shown = self._mask(body[:8192].decode("utf-8", "replace"))
        raise ProviderFault(self.name, f"an answer {what}: {problem}", shown)

    # ------------------------------------------------------------ live
    async def send(
        self,
        endpoint: str,
        body: bytes,
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> bytes:
        """See `Provider.send`. `endpoint` is `chat`, `embed` or a path such as `/v1/chat/completions`."""
        path = _path(endpoint)
        if on_text is not None and path == _PATHS["chat"]:
            body = msgspec.json.encode(_object.decode(body) | _STREAMED)
        async with self._transport.request(
            "POST", self._url(path), headers=self._headers, body=body
        ) as response:
            if on_rates is not None and (told := rates(response.headers)) is not None:
                on_rates(told)
            if not 200 <= response.status < 300:
                raise http_fault(response.status, response.headers, await response.read(), self._mask)
            if "text/event-stream" in response.headers.get("content-type", ""):
                return await self._streamed(response, on_text or _unheard)
            whole = await response.read()
        if not completions.is_reply(whole):
            raise self._unfit(whole)
        if on_text is not None:  # the server doesn't stream
            self._tell(whole, on_text)
        return whole

    async def _streamed(self, response: Response, on_text: Callable[[str], None]) -> bytes:
        """Read a stream to its end, in which the body is put together."""
        events, assembly, seen = completions.Events(), completions.Assembly(), b""
        lost: CallFault | None = None
        data: bytes | None = None
        lines = response.lines()
        try:
            async for line in lines:
                if len(seen) < 4096:
                    seen += line + b"\n"
                data = events.line(line)
                if data == b"[DONE]":
                    await _ended(lines)
                    break
                if data is not None and (text := assembly.add(data)):
                    on_text(text)
            else:
                if (data := events.end()) is not None and data != b"[DONE]" and (text := assembly.add(data)):
                    on_text(text)
        except CallFault as fault:
            lost = fault
        except completions.StreamError as error:
            lost = event_fault(error.body, self._mask)
        except msgspec.DecodeError:
            lost = garbage("a stream has an event that is no chunk", data or b"", self._mask)
        except UnicodeDecodeError:
            lost = garbage("a stream isn't UTF-8", data or b"", self._mask)
        if assembly.finished and (lost is None or lost.code == "lost"):
            return assembly.body()  # whole, even where the connection broke after the last word
        if lost is not None:
            raise lost
        if not assembly.started:
            raise garbage("a stream has no answer in it", seen, self._mask)
        raise CallFault(
            200, "the stream ended before the answer did: no finish_reason", again=True, code="truncated"
        )

    def _unfit(self, body: bytes) -> CallFault:
        """Status 200, and yet no reply."""
        fault = event_fault(body, self._mask)
        try:
            told = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            told = None
        if isinstance(told, dict) and told.get("error"):
            return fault
        return garbage("the answer isn't a reply of the API", body, self._mask)

    def _tell(self, body: bytes, on_text: Callable[[str], None]) -> None:
        try:
            text = completions.chat_reply(body).text
        except ValueError:
            return  # the caller will find out, and say it better
        if text:
            on_text(text)

    # ------------------------------------------------------------ batches
    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        """See `Provider.upload`."""
        async with self._transport.upload(
            self._url("/v1/files"),
            headers=self._headers,
            fields={"purpose": "batch"},
            name=f"{nonce}.jsonl",
            content=_pieces(lines, _path(endpoint)),
        ) as response:
            return (await self._decoded(response, _stored, "a file")).id

    async def submit(
        self, file: str, endpoint: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """See `Provider.submit`."""
        asked = {
            "input_file_id": file,
            "endpoint": _path(endpoint),
            "completion_window": "24h",
            "metadata": {LABEL: nonce},
        }
        return self._told(await self._call("POST", "/v1/batches", _job, "a batch", asked))

    async def find(
        self, nonce: str, file: str, since: float, *, lines: int = 0, others: Collection[str] = ()
    ) -> RemoteJob | None:
        """See `Provider.find`. Of several, one that wasn't refused; of those, the oldest."""
        found: list[Job] = []
        after = ""
        for _ in range(_MOST_PAGES):
            query = f"?limit={_PAGE}" + (f"&after={urllib.parse.quote(after, safe='')}" if after else "")
            page = await self._call("GET", f"/v1/batches{query}", _page, "a list of batches")
            found += [
                job
                for job in page.data
                if (nonce and job.nonce == nonce) or (file and job.input_file_id == file)
            ]
            more = page.has_more if page.has_more is not None else len(page.data) >= _PAGE
            if not page.data or not more or page.data[-1].id == after or _too_old(page.data, since - _SLACK):
                break
            after = page.data[-1].id
        if not found:
            return None
        return self._told(min(found, key=lambda job: (job.status.lower() == "failed", job.created_at or 0.0)))

    async def poll(self, job: str) -> RemoteJob:
        """See `Provider.poll`."""
        return self._told(await self._call("GET", f"/v1/batches/{_part(job)}", _job, "a batch"))

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """See `Provider.results`. A broken download raises `CallFault`; read again, from the start."""
        read = 0
        for file in job.files:
            url = self._url(f"/v1/files/{_part(file)}/content")
            async with self._transport.request("GET", url, headers=self._headers) as response:
                if not 200 <= response.status < 300:
                    raise http_fault(response.status, response.headers, await response.read(), self._mask)
                if "text/html" in response.headers.get("content-type", ""):
                    raise garbage("a file of results is a web page", await response.read(), self._mask)
                number = 0
                async for line in response.lines():
                    number += 1
                    if not line.strip():
                        continue
                    read += 1
                    result = line_result(line, self._mask)
                    yield f"{file}, line {number}: {result}" if isinstance(result, str) else result
        if job.files and not read and job.done + job.failed:
            text = f"the files of {job.id} are empty, though it tells of {job.done + job.failed} outcomes"
            raise CallFault(200, text, again=True, code="bad_body")

    async def cancel(self, job: str) -> None:
        """See `Provider.cancel`. A job that is over already is fine."""
        try:
            await self._call("POST", f"/v1/batches/{_part(job)}/cancel", _job, "a batch")
        except CallFault as fault:
            if fault.status not in (400, 409) or not (await self.poll(job)).over:
                raise

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._transport.close()

    # ------------------------------------------------------------ exchanges
    def _url(self, path: str) -> str:
        return self.base_url + path.removeprefix("/v1")

    def _told(self, job: Job) -> RemoteJob:
        return remote_job(job, self._mask)

    async def _call(
        self, method: str, path: str, decoder: msgspec.json.Decoder[T], what: str, asked: Any = None
    ) -> T:
        body = None if asked is None else msgspec.json.encode(asked)
        async with self._transport.request(
            method, self._url(path), headers=self._headers, body=body
        ) as response:
            return await self._decoded(response, decoder, what)

    async def _decoded(self, response: Response, decoder: msgspec.json.Decoder[T], what: str) -> T:
        body = await response.read()
        if not 200 <= response.status < 300:
            raise http_fault(response.status, response.headers, body, self._mask)
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        raise garbage(f"the answer isn't {what}", body, self._mask, response.status)


def _path(endpoint: str) -> str:
    path = _PATHS.get(endpoint, endpoint)
    if not path.startswith("/"):
        raise InvalidValue("endpoint", "'chat', 'embed' or a path", "it is neither", repr(endpoint))
    return path


def _part(ident: str) -> str:
    return urllib.parse.quote(ident, safe="")


def _too_old(page: list[Job], moment: float) -> bool:
    """Whether nothing younger than `moment` comes after this page. An unsorted list is read to its end."""
    times = [job.created_at for job in page if job.created_at is not None]
    newest_first = len(times) == len(page) and times == sorted(times, reverse=True)
    return newest_first and times[-1] < moment


async def _pieces(lines: AsyncIterator[tuple[str, bytes]], path: str) -> AsyncIterator[bytes]:
    held = bytearray()
    async for ident, body in lines:
        held += job_line(ident, path, body)
        if len(held) >= _PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _checked(base_url: str, key: str) -> str:
    parts = urllib.parse.urlsplit(base_url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidValue("base_url", "an http or https URL", "it is none", repr(base_url))
    if parts.username is not None:
        raise InvalidValue("base_url", "a URL without a password", f"{parts.hostname} needs its key apart")
    if not (key.isascii() and key.isprintable() and " " not in key) and key:
        raise InvalidValue("api_key", "a key of printable ASCII characters", "it holds others")
    return parts._replace(query="", fragment="").geturl().rstrip("/")


async def _ended(lines: AsyncIterator[bytes]) -> None:
    """Read what follows the last event: a connection whose answer wasn't read to its end can't be used again."""
    with contextlib.suppress(TimeoutError, CallFault):
        async with asyncio.timeout(_LINGER):
            async for _ in lines:
                pass


def _unheard(text: str) -> None:
    pass
