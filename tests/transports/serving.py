"""A small server whose answers a test writes itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Listens on a free port; `handler` answers everything.

    What came is in `requests` and `bodies`; `peers` are the connections that it came by.
    """

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.peers: set[tuple[str, int]] = set()
        self.url = ""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        assert self.handler is not None
        return await self.handler(request)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        await self._runner.cleanup()

    def answers(self, body: Any = b"", status: int = 200, **headers: str) -> None:
        """Give this answer to every request; what isn't bytes or text is sent as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def handler(request: web.Request) -> web.StreamResponse:
            self.bodies.append(await request.read())
            if isinstance(body, bytes | str):
                raw = body if isinstance(body, bytes) else body.encode()
                return web.Response(body=raw, status=status, headers=named)
            return web.json_response(body, status=status, headers=named)

        self.handler = handler

    def streams(self, *chunks: bytes, cut: bool = False, **headers: str) -> None:
        """Send these pieces one by one; `cut` breaks the connection after the last."""
        named = {"Content-Type": "text/event-stream"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }

        async def handler(request: web.Request) -> web.StreamResponse:
            self.bodies.append(await request.read())
            response = web.StreamResponse(headers=named)
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
                await asyncio.sleep(0)
            if cut:
                hang_up(request)
            return response

        self.handler = handler


def hang_up(request: web.Request) -> None:
    """Break the connection, mid-sentence."""
    assert request.transport is not None
    request.transport.abort()
