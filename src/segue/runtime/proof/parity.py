"""A run's model requests as another mode would send them, byte for byte. Nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from ...authoring.context import Branch, Wait, WireCall, Work
from ...model.mode import Config, Mode
from ...ports.provider import Endpoint, Provider
from ...ports.store import Turn
from ...ports.transport import Response, Spool
from ..calls.models import Models
from ..ground.clock import SystemClock

Place = tuple[str, int]
#: How an answer is wanted, not what is asked: a batch has no streams.
_HOW = ("stream", "stream_options")


class Requests:
    """The bodies of the model calls that code makes under a mode, whatever modes the calls name themselves."""

    def __init__(self, models: Models, mode: Mode) -> None:
        self._mode = mode
        self._models = Models(
            lambda name, _: models.place(name),
            lambda endpoint, _: _silent(models, endpoint),
            SystemClock(),
            _nobody,
            Closed,
            models.sameness,
            models.budgets,
        )
        self._live: dict[Place, Work] = {}
        self.bodies: dict[Place, bytes] = {}
        self.names: dict[Place, str] = {}

    def model_call(
        self, branch: Branch, config: Config, model: str, request: Any, args: bytes, digest: bytes
    ) -> Work | Wait:
        """See `Services`."""
        return self._noted(
            branch, self._models.call(branch, self._under(config), model, request, args, digest)
        )

    def wire_call(self, branch: Branch, config: Config, call: WireCall) -> Work | Wait:
        """See `Services`."""
        call = msgspec.structs.replace(call, transport=Closed())
        return self._noted(branch, self._models.wire.call(branch, self._under(config), call, replays=True))

    def _under(self, config: Config) -> Config:
        return msgspec.structs.replace(config, mode=self._mode, reuse=False)

    def _noted(self, branch: Branch, call: Work | Wait) -> Work | Wait:
        place = (branch.path, branch.n)
        if not call.model:
            return call  # of no model
        self.names[place] = call.model
        if isinstance(call, Work):
            self._live[place] = call
        elif call.opens is not None:
            turn = Turn(run=branch.run.id, fence=0)
            call.opens(turn)
            self.bodies.update((place, line.body) for line in turn.lines)
        return call

    async def collect(self) -> dict[Place, bytes]:
        """All bodies, once the code has made its calls."""
        for place, work in self._live.items():
            try:
                await work.begin()
            except Seen as seen:
                self.bodies[place] = seen.body
        self._live.clear()
        await self._models.close()
        return self.bodies


class Seen(Exception):
    """In place of sending: what would have been sent."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        super().__init__(f"{len(body)} bytes")


def _nobody(run: str) -> bool:
    return False


def _silent(models: Models, endpoint: Endpoint) -> Provider:
    """A provider that sends nothing."""
    provider = models.anew(endpoint)

    async def send(to: str, body: bytes, *_: object) -> bytes:
        raise Seen(body)

    setattr(provider, "send", send)  # noqa: B010 - a proxy wouldn't have what it has besides
    return provider


class Closed:
    """A transport that sends nothing. A `Transport`."""

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | Spool | None = None
    ) -> AbstractAsyncContextManager[Response]:
        """Raises `Seen`."""
        raise Seen(body if isinstance(body, bytes) else b"")

    def spool(self, content: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Spool]:
        """Nothing is written."""
        raise Seen(b"")

    def upload(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        fields: Mapping[str, str],
        name: str,
        content: AsyncIterator[bytes],
    ) -> AbstractAsyncContextManager[Response]:
        """Nothing is sent."""
        raise Seen(b"")

    async def close(self) -> None:
        """There is nothing to close."""


class Difference(msgspec.Struct, frozen=True):
    """The first byte at which two requests of one call differ; `before`, `a` and `b` are what stands around it."""

    call: str
    model: str
    offset: int
    before: str
    a: str
    b: str


def first_difference(a: Requests, b: Requests, *, width: int = 60) -> Difference | None:
    """In the order of the calls' places. How an answer is wanted, as a stream or whole, isn't looked at."""
    for place in sorted({*a.bodies, *b.bodies}):
        one, other = (_what(side.bodies.get(place, b"")) for side in (a, b))
        if one == other:
            continue
        offset = next(
            (n for n, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other))
        )
        before, mine, its = one[max(0, offset - width) : offset], one[offset:], other[offset:]
        texts = (part[:width].decode("utf-8", "replace") for part in (before, mine, its))
        return Difference(f"{place[0]}#{place[1]}", (a.names | b.names)[place], offset, *texts)
    return None


def _what(body: bytes) -> bytes:
    try:
        plain = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    if not isinstance(plain, dict) or not any(name in plain for name in _HOW):
        return body
    return msgspec.json.encode({name: value for name, value in plain.items() if name not in _HOW})
