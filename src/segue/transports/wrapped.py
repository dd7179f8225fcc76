"""An author's own httpx or httpx2 transport, as the transport contract has it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from ..ports.provider import CallFault
from ..ports.transport import Spool
from .lines import split_lines


class Wrapped:
    """Sends requests through `inner`, an `AsyncBaseTransport` of `library`, with its proxies and certificates."""

    def __init__(self, library: Any, inner: Any) -> None:
        self._library, self._inner = library, inner

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | Spool | None = None
    ) -> AsyncGenerator[_Response]:
        """See `Transport.request`."""
        assert body is None or isinstance(body, bytes)  # spools are of batch jobs
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        timeout = self._library.Timeout(15.0, read=600.0, write=600.0).as_dict()
        request = self._library.Request(
            method, url, headers=dict(headers), content=body, extensions={"timeout": timeout}
        )
        raw: Any = None
        fault: CallFault | None = None
        try:
            raw = await self._inner.handle_async_request(request)
        except (self._library.TransportError, OSError) as error:
            fault = _fault(error, url, "before it answered")
        if fault is not None:  # raised out here: an httpx error holds the request, its headers too
            raise fault
        raw.request = request
        try:
            yield _Response(self._library, raw, url)
        finally:
            await raw.aclose()

    def spool(self, content: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Spool]:
        """Jobs don't go this way."""
        raise NotImplementedError("an author's transport carries no batch jobs")

    def upload(self, url: str, **form: Any) -> AbstractAsyncContextManager[_Response]:
        """Jobs don't go this way."""
        raise NotImplementedError("an author's transport carries no batch jobs")

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._inner.aclose()


class _Response:
    """An httpx response, as the contract has it."""

    def __init__(self, library: Any, raw: Any, url: str) -> None:
        self.status: int = raw.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in raw.headers.items()}
        self._library, self._raw, self._url = library, raw, url

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self._chunks()])

    def lines(self) -> AsyncIterator[bytes]:
        return split_lines(self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        fault: CallFault | None = None
        chunks = self._raw.aiter_bytes()
        while True:
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except (self._library.TransportError, self._library.DecodingError, OSError) as error:
                fault = _fault(error, self._url, "in the middle of its answer")
                break
            yield chunk
        raise fault


def _fault(error: Exception, url: str, when: str) -> CallFault:
    """What kept a response from coming, without what the request held."""
    host, kind = urlsplit(url).netloc.rpartition("@")[2], type(error).__name__
    if "Connect" in kind or kind == "PoolTimeout":
        return CallFault(0, f"no connection to {host} ({kind})", again=True, code="unreachable")
    if "Timeout" in kind:
        return CallFault(0, f"{host} fell silent", again=True, code="timeout")
    return CallFault(0, f"the connection to {host} was lost {when} ({kind})", again=True, code="lost")
