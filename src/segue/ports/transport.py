"""The transport contract: HTTP as far as providers need it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Response(Protocol):
    """A response whose body is still to come. Names in `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """All of the body. Raises `CallFault` where the connection ends before the body does."""
        ...

    def lines(self) -> AsyncIterator[bytes]:
        """The body line by line, without line ends; the last may lack its own. Raises as `read` does."""
        ...


class Spool(Protocol):
    """A body that was written down, so that its length is known before it is sent."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class Transport(Protocol):
    """A pool of connections. Never repeats a POST, keeps no cookies, logs nothing.

    A GET may be sent anew, once, where a connection that was kept open turns out to be dead.

    What keeps a response from coming is a `CallFault` with status 0 that is fit to be tried again; its code
    says how far it came: `unreachable` (nothing was sent), `timeout` and `lost` (the server may have acted).
    """

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | Spool | None = None
    ) -> AbstractAsyncContextManager[Response]:
        """Send, and be there when the headers have come. A body is JSON, unless `headers` say otherwise."""
        ...

    def spool(self, content: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Spool]:
        """Write a body down, to be sent by `request` as long as the context lasts. Memory stays flat.

        What `content` raises is raised here.
        """
        ...

    def upload(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        fields: Mapping[str, str],
        name: str,
        content: AsyncIterator[bytes],
    ) -> AbstractAsyncContextManager[Response]:
        """Post a form whose last field is `file`, called `name`. Memory stays flat however long it is.

        What `content` raises is raised here, and nothing has been sent then.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
