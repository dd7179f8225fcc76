"""Requests of SDKs that are sent at once, with the SDK's own headers."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from ...authoring.context import KEY_HEADER, Answered, Branch, WireCall
from ...model.chat import Tokens
from ...model.errors import ProviderFault, StreamCut
from ...ports.clock import Clock
from ...ports.provider import CallFault
from ...ports.transport import Response, Transport
from ...providers.faults import event_fault, garbage, http_fault
from ...providers.listening import check_whole, taken
from ...providers.masking import Mask
from ...providers.rates import rates
from ...providers.wire import object_of
from ...providers.wire.dialect import Request
from .live import LiveCall
from .sameness import Shared
from .trying import LIVE_RETRY, Trouble, retrying

_KEYS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
#: Headers that are of a connection, not of a request.
_HOP = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "content-type"}
)


def key_of(headers: Mapping[str, str]) -> str:
    """The key that a request carries, if it carries one."""
    for name in _KEYS:
        if name in headers:
            return headers[name].removeprefix("Bearer ").strip()
    return ""


class ModelRequest:
    """A model call. `asked` gives the digest of what it asks, `open_pool` connections for an SDK without its own."""

    def __init__(
        self,
        live: LiveCall,
        branch: Branch,
        call: WireCall,
        request: Request,
        asked: Callable[[], str],
        open_pool: Callable[[], Transport],
    ) -> None:
        self._live, self._run = live, branch.run
        self._call, self._request, self._asked, self._open_pool = call, request, asked, open_pool
        self._mask = Mask(key_of(call.headers))
        self._headers = _sent(call, branch)
        self._attempt = 1

    async def run(self) -> bytes:
        """Its answer."""
        return await self._live.answer(self._try, len(self._call.body))

    async def shared(self, shared: Shared) -> bytes:
        """As `run`, where the answer may be another call's: it comes whole then."""
        answer, reused = await shared.answer(self._asked(), self.run)
        if reused:
            self._tell(self._request.dialect.text(object_of(answer)))
        return answer

    async def _try(self, attempt: int) -> bytes:
        """One attempt. Nothing is tried again once the code has read of an answer."""
        self._attempt = attempt
        passing = self._call.passing
        try:
            if passing is not None:
                return await self._exchange(stream=True)
            if not self._request.dialect.streams or not self._live.watched:
                return await self._exchange(stream=False)
            return await self._watched()
        except CallFault as fault:
            if passing is not None and passing.began:
                came = [frame.decode() for frame in passing.came]
                raise StreamCut(self._live.model, fault.status, fault.message, came) from None
            if passing is not None:
                passing.forget()
            raise

    async def _watched(self) -> bytes:
        """Somebody wants to see the answer come, though the SDK didn't ask for a stream, which may not be allowed."""
        try:
            return await self._exchange(stream=True)
        except CallFault as fault:
            if fault.again or not 400 <= fault.status < 500:
                raise
        return await self._exchange(stream=False)

    async def _exchange(self, stream: bool) -> bytes:
        request, mask = self._request, self._mask
        tail, body = request.dialect.sent(request.tail, request.body, stream=stream)
        url = request.root + tail
        if request.query:
            url += f"{'&' if '?' in url else '?'}{request.query}"
        transport = self._call.transport or self._open_pool()
        data = msgspec.json.encode(body)
        async with transport.request("POST", url, headers=self._headers, body=data) as response:
            if (told := rates(response.headers)) is not None:
                self._live.limit.heard(told)
            if not 200 <= response.status < 300:
                raise http_fault(response.status, response.headers, await response.read(), mask)
            if "text/event-stream" in response.headers.get("content-type", ""):
                return await self._listen(response)
            whole = await response.read()
        answer = _answer(whole, request, mask)
        self._tell(request.dialect.text(answer))
        passing = self._call.passing
        if passing is not None:  # the server doesn't stream
            passing.end(list(request.dialect.frames(answer, request.asked)))
        return whole

    async def _listen(self, response: Response) -> bytes:
        """Give a stream on as it comes, and put it together."""
        listener = self._request.dialect.listen(self._request.asked)
        passing, offered, lost = self._call.passing, False, None
        try:
            async with contextlib.aclosing(taken(response, listener, self._mask)) as pieces:
                async for frames, text in pieces:
                    self._tell(text)
                    if passing is None or not frames:
                        continue
                    passing.take(frames)
                    if not offered and passing.call is not None:
                        offered = True
                        self._run.offer(passing.call, passing.begin)
        except CallFault as fault:
            lost = fault
        check_whole(listener, lost)
        if passing is not None:
            passing.end(listener.rest())
        return listener.answer()

    def _tell(self, text: str) -> None:
        self._live.tell(text, self._attempt)


class OtherRequest:
    """A request that asks no model: sent at once in every mode, and recorded whole."""

    def __init__(
        self, branch: Branch, call: WireCall, clock: Clock, open_pool: Callable[[], Transport]
    ) -> None:
        self._call, self._clock, self._open_pool = call, clock, open_pool
        self._run, self._place = branch.run, (branch.path, branch.n)
        self._seed = f"{branch.run.id}{branch.path}:{branch.n}"
        self._headers = _sent(call, branch)
        self._mask = Mask(key_of(call.headers))

    async def run(self) -> bytes:
        """Its answer, an `Answered` as JSON. Raises `ProviderFault` where there is none."""
        attempt = 1
        while True:
            try:
                return await self._exchange()
            except CallFault as fault:
                failure = fault
            host = urllib.parse.urlsplit(self._call.url).hostname or ""
            if not failure.again or attempt >= LIVE_RETRY.attempts:
                raise ProviderFault(host, failure.message, status=failure.status)
            wait = LIVE_RETRY.wait_after(attempt, self._seed) if failure.after is None else failure.after
            told = Trouble(failure, attempt, wait)
            self._run.emit(retrying(self._run.id, self._place, host, told))
            await self._clock.sleep(wait)
            attempt += 1

    async def _exchange(self) -> bytes:
        call = self._call
        transport = call.transport or self._open_pool()
        headers = dict(self._headers)
        if kind := call.headers.get("content-type"):
            headers["Content-Type"] = kind
        body = call.body or None
        async with transport.request(call.method, _bare(call.url), headers=headers, body=body) as response:
            content = await response.read()
            if response.status in (408, 429) or response.status >= 500:
                fault = http_fault(response.status, response.headers, content, self._mask)
                if fault.again and (call.method in ("GET", "HEAD") or response.status in (429, 503)):
                    raise fault
            media = response.headers.get("content-type", "application/octet-stream")
            return msgspec.json.encode(Answered(content, Tokens(), response.status, media))


def _answer(body: bytes, request: Request, mask: Mask) -> dict[str, Any]:
    try:
        answer = object_of(body)
    except (ValueError, UnicodeDecodeError):
        answer = {}
    if not request.dialect.is_answer(answer):
        if answer.get("error"):
            raise event_fault(body, mask)
        raise garbage("the answer isn't a reply of the API", body, mask)
    return answer


def _bare(url: str) -> str:
    """Without a password, which the client has put into a header."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def _sent(call: WireCall, branch: Branch) -> dict[str, str]:
    """What goes out of an SDK's headers. A key against doubles is the same in every life of the run."""
    out = {name: value for name, value in call.headers.items() if name not in _HOP}
    if KEY_HEADER in out:
        place = f"{branch.run.mark}\0{branch.path}\0{call.nth}".encode()
        out[KEY_HEADER] = blake2b(place + call.digest, digest_size=16).hexdigest()
    return out
