"""Between live and batch: Responses that run in the background and are there within a window, at a discount.

A job is one response: the provider has no list of them, so what is known of one is its id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from ..model.chat import ChatReply, ChatRequest
from ..model.errors import InvalidValue
from ..ports.provider import LineResult, Provider, Rates, RemoteJob
from .batches import LABEL
from .exchange import Exchange, quoted
from .faults import named, told

#: What OpenAI calls its windows.
WINDOWS = {timedelta(hours=2): "2h", timedelta(hours=8): "8h"}
_WAITING = frozenset({"queued", "in_progress"})
_PASSING = frozenset({"server_error", "rate_limit_exceeded", "vector_store_timeout"})


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Response(msgspec.Struct):
    id: str
    status: str
    metadata: dict[str, str] | None = None
    error: _Error | None = None


_response = msgspec.json.Decoder(_Response)
_object = msgspec.json.Decoder(dict[str, Any])


class Background:
    """A `BatchProvider` for one window. It uses another's connections, and leaves them open.

    No list tells of what was submitted: where a crash comes between the submission and its record, the response is
    asked for once more after the grace period, and may be paid twice.
    """

    batches = True
    max_lines = 1
    at_once = 16

    def __init__(self, provider: Provider, exchange: Exchange, window: str) -> None:
        self._provider, self._exchange, self._window = provider, exchange, window
        self.name, self.max_bytes = provider.name, provider.max_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._provider!r}, {self._window!r})"

    # ------------------------------------------------------------ what the other does
    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """See `Provider.chat_body`."""
        return self._provider.chat_body(request, model)

    def chat_reply(self, body: bytes) -> ChatReply:
        """See `Provider.chat_reply`."""
        return self._provider.chat_reply(body)

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        """See `Provider.embed_body`."""
        return self._provider.embed_body(texts, model)

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """See `Provider.embed_reply`."""
        return self._provider.embed_reply(body)

    async def send(
        self,
        endpoint: str,
        body: bytes,
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> bytes:
        """See `Provider.send`."""
        return await self._provider.send(endpoint, body, on_text, on_rates)

    async def close(self) -> None:
        """Nothing of its own is open."""

    # ------------------------------------------------------------ jobs
    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        """There are no files."""
        return "none"

    async def submit(
        self, file: str, endpoint: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """See `BatchProvider.submit`."""
        if lines is None:
            raise InvalidValue("lines", "the line of the job", "there is none")
        async for ident, body in lines:
            asked = _object.decode(body) | {
                "background": True,
                "background_options": {"completion_window": self._window},
                "store": True,
                "metadata": {LABEL: ident, f"{LABEL}-job": nonce},
            }
            made = await self._exchange.call("POST", "/v1/responses", _response.decode, "a response", asked)
            return self._told(made)
        raise InvalidValue("lines", "the line of the job", "there is none")

    async def find(
        self, nonce: str, file: str, since: float, *, lines: int = 0, others: Collection[str] = ()
    ) -> RemoteJob | None:
        """There is no list to look in."""
        return None

    async def poll(self, job: str) -> RemoteJob:
        """See `BatchProvider.poll`."""
        return self._told(await self._exchange.call("GET", _path(job), _response.decode, "a response"))

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """See `BatchProvider.results`."""
        body = await self._exchange.call("GET", _path(job.id), _whole, "a response")
        response = _response.decode(body)
        ident = (response.metadata or {}).get(LABEL, "")
        match response.status:
            case "completed" | "incomplete":
                yield LineResult(ident, 200, body)
            case "cancelled":
                yield LineResult(ident, 0, b"", "batch_cancelled")
            case _:
                yield self._failed(ident, response.error or _Error())

    def _failed(self, ident: str, error: _Error) -> LineResult:
        mask = self._exchange.mask
        body = mask(msgspec.json.encode({"error": error}).decode()).encode()
        message, code, kind = told(body)
        code = named(0, message, code, kind)
        return LineResult(ident, 500 if code in _PASSING or not code else 400, body, code)

    async def cancel(self, job: str) -> None:
        """See `BatchProvider.cancel`."""
        await self._exchange.call("POST", f"{_path(job)}/cancel", _response.decode, "a response")

    def _told(self, response: _Response) -> RemoteJob:
        over = response.status not in _WAITING
        well = response.status in ("completed", "incomplete")
        return RemoteJob(
            id=response.id,
            status=response.status,
            over=over,
            done=int(well),
            failed=int(over and not well),
            total=1,
            nonce=(response.metadata or {}).get(f"{LABEL}-job", ""),
            files=(response.id,) if over else (),
        )


def _path(ident: str) -> str:
    return f"/v1/responses/{quoted(ident)}"


def _whole(body: bytes) -> bytes:
    _response.decode(body)
    return body
