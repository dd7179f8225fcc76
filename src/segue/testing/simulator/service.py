"""What every dialect stands on: the machinery behind the routes, and how requests are read and answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from aiohttp import web

from segue.ports.clock import Clock

from .chaos import Chaos
from .faults import Faults
from .files import Files
from .ledger import Entry, Ledger, digest
from .model import Model
from .processor import Limits, Processor
from .replies import Failure

__all__ = ["Service", "hang_up", "json_of", "json_response"]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The machinery behind every dialect."""

    clock: Clock
    faults: Faults
    chaos: Chaos
    files: Files
    ledger: Ledger
    model: Model
    processor: Processor
    limits: Limits
    ids: Iterator[str]
    latency: float
    tasks: set[asyncio.Task[None]]  #: what works on by itself, to the end of the simulator

    async def think(self) -> None:
        """The time before the first byte of an answer."""
        if self.latency:
            await self.clock.sleep(self.latency)

    def enter(
        self, path: str, body: Any, status: int, tokens: tuple[int, int] = (0, 0), *, model: str = ""
    ) -> None:
        """Write a live call into the ledger."""
        if not model and isinstance(body, dict):
            model = str(body.get("model", ""))
        self.ledger.add(
            Entry(
                time=self.clock.now(),
                kind="live",
                endpoint=path,
                status=status,
                sha256=digest(body),
                model=model,
                tokens_in=tokens[0],
                tokens_out=tokens[1],
            )
        )

    async def stream(
        self,
        request: web.Request,
        events: AsyncIterator[bytes],
        end: bytes = b"",
        *,
        error: Callable[[Failure], bytes],
        media: str = "text/event-stream",
    ) -> web.StreamResponse:
        """Send server-sent events, one a chunk, unless a fault has it otherwise.

        `end` follows a whole stream; `error` makes the event that breaks one off.
        """
        self.chaos.strike("stream", self.faults)
        cut = self.faults.take(request.path, "cut")
        slow = self.faults.take(request.path, "slow")
        response = web.StreamResponse(
            headers={"Cache-Control": "no-cache", "x-request-id": f"req_{next(self.ids)}"}
        )
        response.content_type = media
        await response.prepare(request)
        left = cut.amount if cut is not None else None
        try:
            async for event in events:
                if left is not None and (left := left - 1) < 0:
                    break
                if slow is not None:
                    await self.clock.sleep(slow.amount or 0.0)
                await response.write(event)
            if cut is None:
                await response.write(end)
            elif cut.status:
                await response.write(error(Failure(cut.status)))
            elif cut.aborts and request.transport is not None:
                request.transport.close()  # unlike a reset it lets what was sent arrive
        except ConnectionError:
            pass  # the client has gone; it is paid all the same
        return response


async def json_of(request: web.Request) -> Any:
    """A request's body. Raises `Failure` for what isn't JSON."""
    try:
        return msgspec.json.decode(await request.read())
    except msgspec.DecodeError as problem:
        message = f"We could not parse the JSON body of your request: {problem}."
        raise Failure(400, message, code="invalid_json") from problem


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer of JSON."""
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json"
    )


def hang_up(request: web.Request) -> None:
    """Break the connection."""
    if request.transport is not None:
        request.transport.abort()
