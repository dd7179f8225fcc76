"""HTTP over one pool of connections (aiohttp)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
import tempfile
import urllib.parse
import urllib.request
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..model.errors import MissingExtra
from ..ports.provider import CallFault
from ..ports.transport import Spool
from .lines import split_lines

if TYPE_CHECKING:
    import aiohttp

_PIECE = 1 << 20
_IN_MEMORY = 4 << 20


class Pooled:
    """The transport for live work and batches: connections without limit, kept open between requests.

    `connect` bounds the making of a connection, `idle` the time in which not a byte goes either way, whole
    answers have no bound: a long stream is no fault. Proxies are those of the environment (`HTTPS_PROXY`,
    `NO_PROXY`, …), as providers' own SDKs have it, for many machines reach a provider in no other way; they are
    looked up once a host. A netrc file isn't read: it would put credentials next to the key.
    """

    def __init__(
        self,
        *,
        connect: timedelta = timedelta(seconds=15),
        idle: timedelta = timedelta(minutes=10),
    ) -> None:
        if (
            importlib.util.find_spec("aiohttp") is None
        ):  # it is imported at the first request, for that takes a while
            raise MissingExtra("aiohttp", "http")
        self._connect = connect.total_seconds()
        self._idle = idle.total_seconds()
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._proxies: dict[tuple[str, str], str | None] = {}

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | Spool | None = None
    ) -> AbstractAsyncContextManager[_Response]:
        """See `Transport.request`. Redirects are followed by GET only."""
        if isinstance(body, _Spool):
            return self._spooled(method, url, headers, body)
        assert body is None or isinstance(body, bytes), "a spool of this transport"
        data: bytes | AsyncIterator[bytes] | None = body
        if body is not None:
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
            if len(body) > _PIECE // 2:  # aiohttp warns of larger ones, which hold up the loop
                data = _pieces(body)
        return self._exchange(method, url, headers, data)

    @asynccontextmanager
    async def upload(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        fields: Mapping[str, str],
        name: str,
        content: AsyncIterator[bytes],
    ) -> AsyncGenerator[_Response]:
        """See `Transport.upload`.

        The content is spooled first: not every server takes a body of unknown length, nor waits while a slow
        source is read.
        """
        boundary = uuid.uuid4().hex
        head = "".join(
            f"--{boundary}\r\nContent-Disposition: form-data; name={_quoted(key)}\r\n\r\n{value}\r\n"
            for key, value in fields.items()
        )
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename={_quoted(name)}\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        form = {"Content-Type": f"multipart/form-data; boundary={boundary}", **headers}
        async with self.spool(_around(head.encode(), content, tail.encode())) as spool:
            async with self._spooled("POST", url, form, spool) as response:
                yield response

    @asynccontextmanager
    async def spool(self, content: AsyncIterator[bytes]) -> AsyncGenerator[_Spool]:
        """See `Transport.spool`. A small body stays in memory, others go to a temporary file."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            await _fill(file, content)
            yield _Spool(file, file.tell())

    async def close(self) -> None:
        """Close every connection; a later request opens a new pool."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def _spooled(
        self, method: str, url: str, headers: Mapping[str, str], spool: _Spool
    ) -> AsyncGenerator[_Response]:
        sized = {"Content-Type": "application/json", "Content-Length": str(spool.size), **headers}
        guard = asyncio.timeout(None)
        try:
            async with guard:
                data = self._drain(spool.file, guard)
                async with self._exchange(method, url, sized, data) as response:
                    guard.reschedule(None)
                    yield response
        except TimeoutError:
            if not guard.expired():
                raise
            raise CallFault(0, f"{_host(url)} takes no more of a file", again=True, code="timeout") from None

    @asynccontextmanager
    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], data: Any
    ) -> AsyncGenerator[_Response]:
        session = self._session
        if session is None or session.closed:
            session = await self._opened()
        import aiohttp

        raw: aiohttp.ClientResponse | None = None
        fault: CallFault | None = None
        try:
            raw = await session.request(
                method,
                url,
                headers=headers,
                data=data,
                proxy=self._proxy(url),
                allow_redirects=method == "GET",
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            fault = _fault(error, url)
        if raw is None:  # raised out here: an aiohttp error holds the request, its headers too
            raise fault or CallFault(0, f"no answer of {_host(url)}", again=True, code="lost")
        async with raw:
            yield _Response(raw, url)

    async def _drain(self, spool: IO[bytes], guard: asyncio.Timeout) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(spool.seek, 0)
        while piece := await asyncio.to_thread(spool.read, _PIECE):
            with contextlib.suppress(RuntimeError):  # it's over already
                guard.reschedule(loop.time() + self._idle)
            yield piece
        with contextlib.suppress(RuntimeError):
            guard.reschedule(None)

    async def _opened(self) -> aiohttp.ClientSession:
        async with self._opening:
            if "aiohttp" not in sys.modules:
                await asyncio.to_thread(_import)  # it takes a while, in which the loop goes on
            library = _import()
            if self._session is not None and not self._session.closed:
                return self._session
            session: aiohttp.ClientSession = library.ClientSession(
                connector=library.TCPConnector(limit=0, ttl_dns_cache=60),
                cookie_jar=library.DummyCookieJar(),
                timeout=library.ClientTimeout(total=None, sock_connect=self._connect, sock_read=self._idle),
                headers={"User-Agent": "segue"},
                trust_env=False,  # it costs two trips to a thread a request, and reads netrc; see `_proxy`
            )
            self._session = session
            return session

    def _proxy(self, url: str) -> str | None:
        parts = urllib.parse.urlsplit(url)
        key = parts.scheme, parts.netloc
        if key not in self._proxies:
            found = urllib.request.getproxies().get(parts.scheme)
            bypassed = found is None or urllib.request.proxy_bypass(parts.netloc)
            self._proxies[key] = None if bypassed else found
        return self._proxies[key]


def _import() -> Any:
    try:
        import aiohttp
    except ImportError:
        raise MissingExtra("aiohttp", "http") from None
    return aiohttp


class _Spool(NamedTuple):
    """A body in a file."""

    file: IO[bytes]
    size: int


class _Response:
    """An aiohttp response, as the contract has it."""

    def __init__(self, raw: aiohttp.ClientResponse, url: str) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in raw.headers.items()}
        self._raw = raw
        self._url = url

    async def read(self) -> bytes:
        import aiohttp

        fault: CallFault | None = None
        try:
            return await self._raw.content.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            fault = _fault(error, self._url, midway=True)
        raise fault

    def lines(self) -> AsyncIterator[bytes]:
        return split_lines(self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        import aiohttp

        fault: CallFault | None = None
        chunks = self._raw.content.iter_any()
        while True:
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                fault = _fault(error, self._url, midway=True)
                break
            yield chunk
        raise fault


def _fault(error: Exception, url: str, *, midway: bool = False) -> CallFault:
    """What kept a response from coming, without what the request held."""
    import aiohttp

    parts = urllib.parse.urlsplit(url)
    host = _host(url)
    match error:
        case aiohttp.InvalidURL() | ValueError():
            return CallFault(
                0,
                f"{parts.scheme}://{host}{parts.path} can't be called: {type(error).__name__}",
                again=False,
                code="unreachable",
            )
        case aiohttp.ConnectionTimeoutError():
            return CallFault(0, f"no connection to {host} in time", again=True, code="unreachable")
        case aiohttp.ClientConnectorError() | aiohttp.ClientProxyConnectionError():
            reason = error.strerror or type(error).__name__
            return CallFault(0, f"no connection to {host}: {reason}", again=True, code="unreachable")
        case TimeoutError():
            return CallFault(0, f"{host} fell silent", again=True, code="timeout")
        case _:
            when = "in the middle of its answer" if midway else "before it answered"
            text = f"the connection to {host} was lost {when} ({type(error).__name__})"
            return CallFault(0, text, again=True, code="lost")


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


async def _around(head: bytes, content: AsyncIterator[bytes], tail: bytes) -> AsyncIterator[bytes]:
    yield head
    async for piece in content:
        yield piece
    yield tail


async def _fill(spool: IO[bytes], content: AsyncIterator[bytes]) -> None:
    pieces: list[bytes] = []
    size = 0
    async for piece in content:
        pieces.append(piece)
        size += len(piece)
        if size >= _PIECE:
            await asyncio.to_thread(_write, spool, pieces)
            pieces, size = [], 0
    await asyncio.to_thread(_write, spool, pieces)


def _write(spool: IO[bytes], pieces: list[bytes]) -> None:
    try:
        spool.writelines(pieces)
        spool.flush()
    except OSError as error:  # it doesn't say which disk is full
        with contextlib.suppress(OSError):  # what is left can't be written either
            spool.close()
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


def _quoted(text: str) -> str:
    return json.dumps(text.replace("\r", " ").replace("\n", " "), ensure_ascii=False)
