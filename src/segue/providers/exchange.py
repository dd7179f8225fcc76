"""Requests to one base URL: the key goes with each, and out of whatever is said of the answers."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from ..model.errors import InvalidValue, ProviderFault
from ..ports.provider import CallFault, Rates
from ..ports.transport import Response, Transport
from .faults import garbage, http_fault
from .listening import heard
from .masking import Mask
from .rates import rates
from .wire.dialect import Listener

T = TypeVar("T")

_PIECE = 1 << 18
_VERSION = re.compile(r"/v\d\w*(?=/|$)")
_ENDPOINT = re.compile(r"/(chat/completions|completions|responses|messages|embeddings|models)$")


class Exchange:
    """A transport with a base URL and a key. `header` is where the key goes; paths may begin with `/v1`, as OpenAI's.

    `version` is how base URLs end, mostly. `refine` is told of each fault, with the answer's body, before it is raised.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        transport: Transport,
        *,
        header: str = "Authorization",
        headers: Mapping[str, str] | None = None,
        version: str = "/v1",
        refine: Callable[[CallFault, bytes], None] | None = None,
    ) -> None:
        key = api_key.strip()
        self.base_url = _checked(base_url, key)
        self.transport = transport
        self.mask = Mask(key)
        self._version, self._refine = version, refine
        value = f"Bearer {key}" if header == "Authorization" else key
        self.headers = {**({header: value} if key else {}), **(headers or {})}

    def url(self, path: str) -> str:
        """Where a path is."""
        return self.base_url + path.removeprefix("/v1")

    async def call(
        self, method: str, path: str, read: Callable[[bytes], T], what: str, asked: Any = None
    ) -> T:
        """Ask, and read the answer. Raises `CallFault`, also for what `read` raises a `ValueError` for."""
        body = None if asked is None else msgspec.json.encode(asked)
        async with self.transport.request(
            method, self.url(path), headers=self.headers, body=body
        ) as response:
            return await self.decoded(response, read, what)

    async def decoded(self, response: Response, read: Callable[[bytes], T], what: str, place: str = "") -> T:
        """Read an answer. `place` as `refuse` has it. Raises as `call` does."""
        await self.refuse(response, place)
        body = await response.read()
        try:
            return read(body)
        except ValueError:  # msgspec's are ValueErrors too
            pass
        raise garbage(f"the answer isn't {what}", body, self.mask, response.status)

    async def refuse(self, response: Response, place: str = "") -> None:
        """Raise what an answer with a status other than 2xx means.

        `place` is the URL, of a request that needs nothing to be there but the API: if it isn't, the base URL is wrong.
        """
        if 200 <= response.status < 300:
            return
        body = await response.read()
        nowhere = place and f"{place!r} was asked{_meant(self.base_url, self._version)}"
        fault = http_fault(response.status, response.headers, body, self.mask, nowhere=nowhere)
        if self._refine is not None:
            self._refine(fault, body)
        raise fault

    async def send(
        self,
        path: str,
        body: bytes,
        listen: Callable[[], Listener],
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None,
        *,
        last: bool = True,
    ) -> tuple[bytes, bool]:
        """The answer to a live call, and whether it came as a stream, which is put together; see `Provider.send`.

        `last` as `heard` has it.
        """
        url = self.url(path)
        async with self.transport.request("POST", url, headers=self.headers, body=body) as response:
            if on_rates is not None and (told := rates(response.headers)) is not None:
                on_rates(told)
            await self.refuse(response, url)
            if "text/event-stream" in response.headers.get("content-type", ""):
                return await heard(response, listen(), on_text, self.mask, last=last), True
            return await response.read(), False

    async def lines(self, url: str) -> AsyncGenerator[bytes]:
        """The lines of a file of results. Raises `CallFault`."""
        async with self.transport.request("GET", url, headers=self.headers) as response:
            await self.refuse(response)
            if "text/html" in response.headers.get("content-type", ""):
                raise garbage("the results are a web page", await response.read(), self.mask)
            async for line in response.lines():
                yield line

    def read(self, read: Callable[[bytes], T], body: bytes, name: str, what: str) -> T:
        """A recorded answer of the provider of that name. Raises `ProviderFault`, saying that it isn't `what`."""
        try:
            return read(body)
        except ValueError as error:
            problem = self.mask(str(error))
        shown = self.mask(body[:8192].decode("utf-8", "replace"))
        raise ProviderFault(name, f"an answer isn't {what}: {problem}", shown)


def quoted(ident: str) -> str:
    """An id as a part of a path, or of a query."""
    return urllib.parse.quote(ident, safe="")


async def pieces(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in fewer pieces, fit to be sent."""
    held = bytearray()
    async for line in lines:
        held += line
        if len(held) >= _PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _meant(base_url: str, usual: str) -> str:
    """The base URL that was probably meant, as a question; empty where it looks right."""
    parts = urllib.parse.urlsplit(base_url)
    version = _VERSION.search(parts.path)
    path = parts.path[: version.end()] if version else _ENDPOINT.sub("", parts.path) + usual
    likely = parts._replace(path=path).geturl()
    return "" if likely == base_url else f": should the base URL be {likely!r}?"


def _checked(base_url: str, key: str) -> str:
    parts = urllib.parse.urlsplit(base_url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidValue("base_url", "an http or https URL", "it is none", repr(base_url))
    if parts.username is not None:
        raise InvalidValue("base_url", "a URL without a password", f"{parts.hostname} needs its key apart")
    if not (key.isascii() and key.isprintable() and " " not in key) and key:
        raise InvalidValue("api_key", "a key of printable ASCII characters", "it holds others")
    return parts._replace(query="", fragment="").geturl().rstrip("/")
