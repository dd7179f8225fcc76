"""OpenAI, and every server that speaks its protocol: chat, embeddings, files and batches."""

from __future__ import annotations

import itertools
import urllib.parse
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from ..model.chat import ChatReply, ChatRequest
from ..model.errors import InvalidValue
from ..ports.provider import CallFault, LineResult, Rates, RemoteJob
from ..ports.transport import Transport
from . import completions
from .background import WINDOWS, Background
from .batches import Format
from .completions import Completions
from .exchange import Exchange
from .faults import event_fault, garbage
from .jobs import Jobs
from .speech import Speech

_EMBED = "/v1/embeddings"
_OWN_HOSTS = (".openai.com", ".openai.azure.com")
_CACHE_KEY = "prompt_cache_key"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class OpenAI:
    """A chat endpoint, embeddings and batches under one base URL.

    `speech` is the chat endpoint's wire format, Chat Completions without one; `format` that of files and jobs, if
    `batches`; `windows`: it also has ways between live and batch. `api_key` may be empty for servers that want
    none, `header` is where it goes; `headers` go with every request. It has its transport for itself, and closes
    it. No text of an error, repr or log holds the key, nor what looks like one.
    """

    at_once = 1

    def __init__(
        self,
        base_url: str,
        api_key: str,
        transport: Transport,
        name: str = "openai",
        *,
        speech: Speech | None = None,
        batches: bool = True,
        windows: bool = False,
        format: Format | None = None,
        header: str = "Authorization",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.batches = batches
        self._exchange = Exchange(base_url, api_key, transport, header=header, headers=headers)
        self._mask = self._exchange.mask
        self._transport = transport
        format = format or Format()
        self.max_lines, self.max_bytes, self.live_only = format.max_lines, format.max_bytes, format.live_only
        self._jobs = Jobs(self._exchange, format)
        self._speech = speech or Completions(_limit(self.base_url))
        self._has_keys = (
            urllib.parse.urlsplit(self.base_url).hostname == "api.openai.com"
        )  # others refuse the field
        self._paths = {"chat": self._speech.path, "embed": _EMBED}
        self.windows: dict[timedelta, Background] = {}
        if windows:
            self.windows = {
                within: Background(self, self._exchange, window) for within, window in WINDOWS.items()
            }

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self._exchange.base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, name={self.name!r})"

    # ------------------------------------------------------------ translation
    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """See `Provider.chat_body`. OpenAI itself is told by a key which requests begin alike."""
        body = self._speech.body(request, model)
        if self._has_keys and _CACHE_KEY not in body and (key := _beginning(request)):
            body[_CACHE_KEY] = key
        if body.get(_CACHE_KEY, ...) is None:
            del body[_CACHE_KEY]
        return body

    def chat_reply(self, body: bytes) -> ChatReply:
        """See `Provider.chat_reply`."""
        return self._exchange.read(self._speech.reply, body, self.name, self._speech.noun)

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        """See `Provider.embed_body`."""
        return completions.embed_body(texts, model)

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """See `Provider.embed_reply`."""
        return self._exchange.read(completions.embed_reply, body, self.name, "a list of embeddings")

    # ------------------------------------------------------------ live
    async def send(
        self,
        endpoint: str,
        body: bytes,
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> bytes:
        """See `Provider.send`. `endpoint` is `chat`, `embed` or a path such as `/v1/chat/completions`."""
        path = self._path(endpoint)
        chats = path == self._speech.path
        if on_text is not None and chats:
            body = msgspec.json.encode(_object.decode(body) | self._speech.streamed)
        listen = self._speech.listen
        whole, streamed = await self._exchange.send(path, body, listen, on_text, on_rates, last=False)
        if not (self._speech.is_reply if chats else completions.is_reply)(whole):
            raise self._unfit(whole)
        if on_text is not None and not streamed:
            self._tell(whole, on_text)
        return whole

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
            text = self._speech.reply(body).text
        except ValueError:
            return  # the caller will find out, and say it better
        if text:
            on_text(text)

    # ------------------------------------------------------------ batches
    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        """See `BatchProvider.upload`."""
        return await self._jobs.upload(lines, self._path(endpoint), nonce)

    async def submit(
        self, file: str, endpoint: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """See `BatchProvider.submit`."""
        return await self._jobs.submit(file, self._path(endpoint), nonce, lines)

    async def find(
        self, nonce: str, file: str, since: float, *, lines: int = 0, others: Collection[str] = ()
    ) -> RemoteJob | None:
        """See `BatchProvider.find`."""
        return await self._jobs.find(nonce, file, since)

    async def poll(self, job: str) -> RemoteJob:
        """See `BatchProvider.poll`."""
        return await self._jobs.poll(job)

    def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """See `BatchProvider.results`."""
        return self._jobs.results(job)

    async def cancel(self, job: str) -> None:
        """See `BatchProvider.cancel`."""
        await self._jobs.cancel(job)

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._transport.close()

    def _path(self, endpoint: str) -> str:
        path = self._paths.get(endpoint, endpoint)
        if not path.startswith("/"):
            raise InvalidValue("endpoint", "'chat', 'embed' or a path", "it is neither", repr(endpoint))
        return path


def _limit(base_url: str) -> str:
    """The name that a server has for `max_tokens`."""
    host = urllib.parse.urlsplit(base_url).hostname or ""
    return "max_completion_tokens" if f".{host}".endswith(_OWN_HOSTS) else "max_tokens"


def _beginning(request: ChatRequest) -> str:
    """What names the beginning that requests have in common: their tools and system messages; empty for none."""
    system = list(itertools.takewhile(lambda message: message.role == "system", request.messages))
    if not system and not request.tools:
        return ""
    return blake2b(msgspec.json.encode([request.tools, system]), digest_size=16).hexdigest()
