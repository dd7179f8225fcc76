"""Requests of SDKs as recorded calls: sent live with the SDK's own headers, or put in a lane for a batch job."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from ...authoring.context import Answered, Branch, Need, Wait, WireCall, Work
from ...model.chat import Tokens
from ...model.errors import MissingKey, ModelFailed, ProviderFault, SegueError, WrongPlace
from ...model.mode import Config, Live
from ...ports.clock import Clock
from ...ports.provider import CallFault, Endpoint, Provider
from ...ports.transport import Response, Transport
from ...providers.compatible import COMPATIBLE
from ...providers.faults import event_fault, garbage, http_fault
from ...providers.masking import Mask
from ...providers.rates import rates
from ...providers.registry import KNOWN, resolve
from ...providers.wire import StreamError, dialect_of, object_of
from ...providers.wire.dialect import Request
from ...providers.wire.events import Events
from ..ground.events import Token
from .limits import Limit
from .sameness import Shared, same_as
from .trying import LIVE_RETRY, Trouble, model_failed, retrying, until_answered

if TYPE_CHECKING:
    from .models import Models

#: What marks an answer that broke off after its code had begun to read it.
CUT = "stream_cut"
_KEYS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
#: Headers that are of a connection, not of a request.
_HOP = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "content-type"}
)
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_plain = msgspec.json.Decoder(Answered).decode


class Wire:
    """Carries out the requests of SDKs for one engine."""

    def __init__(
        self,
        models: Models,
        clock: Clock,
        wants: Callable[[str], bool],
        open_pool: Callable[[], Transport],
    ) -> None:
        self._models, self._clock, self._wants, self._open_pool = models, clock, wants, open_pool
        self._pool: Transport | None = None
        self._homes: dict[tuple[str, str], tuple[str, str]] = {}

    @property
    def pool(self) -> Transport:
        """The connections for requests whose author has none of their own."""
        if self._pool is None:
            self._pool = self._open_pool()
        return self._pool

    async def close(self) -> None:
        """Close them."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def call(self, branch: Branch, config: Config, call: WireCall, *, replays: bool = False) -> Work | Wait:
        """See `Services.wire_call`. `replays`: nothing will be sent, and so no key is wanted."""
        request = call.request
        mode = config.mode or Live()
        name = f"{call.method} {urllib.parse.urlsplit(call.url).path if request is None else request.tail}"
        if request is None:
            other = _Other(self, branch, call)
            return Work(
                kind="http", name=name, args=call.args, digest=call.digest, decode=_plain, run=other.run
            )
        shared = self._shared(config, request)
        need: Need | None = None
        if config.pooled is not None and self._has_batches(request):
            try:
                endpoint = self._nobodys(request) if replays else self._endpoint(call, request)
                self._refuse_too_large(call, request, self._models.provider(endpoint))
                return self._line(branch, endpoint, config, name, call, request)
            except SegueError as error:  # it depends on this machine, so it is recorded
                run = _failing(error)
        else:
            if config.accounts:
                endpoint = self._nobodys(request)
                need = self._models.live_need(
                    branch, config, endpoint, request.dialect.to, lambda: call.body, call.digest
                )
            live = _Live(self, branch, mode if isinstance(mode, Live) else Live(), call, request, need)
            run = live.run if shared is None else partial(live.shared, shared)
        return Work(
            kind="http",
            name=name,
            args=call.args,
            digest=call.digest,
            decode=_reader(request),
            run=run,
            model=self.usage_name(request),
            settles=None if shared is None else shared.settles,
            need=need,
        )

    def _shared(self, config: Config, request: Request) -> Shared | None:
        """What a live call shares with those that ask the same, if it may."""
        since = config.answers_since(self._clock.now())
        if since is None:
            return None

        def whole(body: bytes) -> bool:
            return request.dialect.is_whole(object_of(body))

        return self._models.sameness.sharing(since, whole)

    def asked(self, request: Request, body: bytes = b"") -> str:
        """What a request asks, as a stream or whole, live or in a batch."""
        to = request.dialect.to + (f"?{request.query}" if request.query else "")
        return same_as(self._nobodys(request), to, body or _lined(request))

    def _line(
        self, branch: Branch, endpoint: Endpoint, config: Config, name: str, call: WireCall, request: Request
    ) -> Wait:
        def body() -> bytes:
            return _lined(request)

        return self._models.line(
            branch,
            endpoint,
            config,
            ("http", name),
            request.dialect.to,
            body,
            call.args,
            call.digest,
            _reader(request),
            partial(self.asked, request),
        )

    def _refuse_too_large(self, call: WireCall, request: Request, provider: Provider) -> None:
        """A body that no job could take isn't recorded, sent or paid."""
        size = len(call.body)
        if size > provider.max_bytes:
            raise ModelFailed(
                self.usage_name(request),
                413,
                f"the request has {size:,} bytes and {provider.name} takes {provider.max_bytes:,} in a batch; "
                f"shorten the prompt, or split it over several calls",
                "request_too_large",
            )

    def _endpoint(self, call: WireCall, request: Request) -> Endpoint:
        """Where the request goes in a batch, with the name of its key: other processes may have to speak for it."""
        key = key_of(call.headers)
        provider, own = self._home(request)
        variable = call.key or own
        if not variable and key:
            variable = next((name for name, value in sorted(os.environ.items()) if value.strip() == key), "")
        if variable:
            held = os.environ.get(variable, "").strip()
            if not held:
                raise _no_key(request.root, variable)
            if key and held != key:
                raise _other_key(request.root, variable)
        elif key and urllib.parse.urlsplit(request.root).hostname not in _LOCAL:
            raise _no_key(request.root, "")
        name = f"{provider}:{request.model}"
        if own and variable == own:
            return self._models.endpoint(name)
        return self._models.endpoint(f"{name}@{request.root}{f'#{variable}' if variable else ''}")

    def _has_batches(self, request: Request) -> bool:
        """Whether whoever is called there has a batch API; its calls go live otherwise, as `generate`'s do."""
        return self._models.provider(self._nobodys(request)).batches

    def _nobodys(self, request: Request) -> Endpoint:
        """Where a request goes, without a key."""
        return Endpoint(self._home(request)[0], request.root, request.model)

    def usage_name(self, request: Request) -> str:
        """The name under which a model's tokens are counted, the same in every mode."""
        return f"{self._home(request)[0]}:{request.model}"

    def _home(self, request: Request) -> tuple[str, str]:
        """The provider whose place a request goes to, by name, and the variable of its key there."""
        place = request.dialect.provider, request.root
        known = self._homes.get(place)
        if known is None:
            known = self._homes[place] = _home(*place)
        return known

    @property
    def clock(self) -> Clock:
        """Whose time it is."""
        return self._clock

    def limit(self, *key: str) -> Limit:
        """How many calls an endpoint bears at once."""
        return self._models.limit(*key)

    def wants(self, run: str) -> bool:
        """Whether somebody watches the run."""
        return self._wants(run)


class _Live:
    """A model call that is sent at once."""

    def __init__(
        self, wire: Wire, branch: Branch, live: Live, call: WireCall, request: Request, need: Need | None
    ) -> None:
        self._need = need
        self._wire, self._call, self._request = wire, call, request
        self._run, self._place = branch.run, (branch.path, branch.n)
        self._mask = Mask(key_of(call.headers))
        self._headers = _sent(call, branch)
        self._attempt = 1
        self._name = wire.usage_name(request)
        self._most = live.concurrency
        key = blake2b(key_of(call.headers).encode(), digest_size=8).hexdigest()
        self._limit = wire.limit(request.root, request.model, key)

    async def run(self) -> bytes:
        seed = f"{self._run.id}{self._place}"
        try:
            return await until_answered(
                self._limit,
                self._wire.clock,
                self._try,
                most=self._most,
                tokens=len(self._call.body) // 4,
                seed=seed,
                model=self._name,
                run=self._run.id,
                tell=self._trouble,
                spoil=None if self._need is None else self._need.spoil,
            )
        except CallFault as fault:
            failure = fault
        raise model_failed(self._name, failure.status, failure.message, failure.code)

    def _trouble(self, told: Trouble) -> None:
        self._run.emit(retrying(self._run.id, self._place, self._name, told))

    async def shared(self, shared: Shared) -> bytes:
        """As `run`, where the answer may be another call's: it comes whole then."""
        answer, reused = await shared.answer(self._wire.asked(self._request), self.run)
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
            if not self._request.dialect.streams or not self._wire.wants(self._run.id):
                return await self._exchange(stream=False)
            return await self._watched()
        except CallFault as fault:
            if passing is not None and passing.began:
                raise ModelFailed(self._name, fault.status, fault.message, CUT) from None
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
        transport = self._call.transport or self._wire.pool
        data = msgspec.json.encode(body)
        async with transport.request("POST", url, headers=self._headers, body=data) as response:
            if (told := rates(response.headers)) is not None:
                self._limit.heard(told)
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
        data = b""
        try:
            async for data in _events(response):
                frames, text = listener.take(data)
                self._tell(text)
                if passing is None or not frames:
                    continue
                passing.take(frames)
                if not offered and passing.call is not None:
                    offered = True
                    self._run.offer(passing.call, passing.begin)
        except CallFault as fault:
            lost = fault
        except StreamError as error:
            lost = event_fault(error.body, self._mask)
        except (ValueError, KeyError, TypeError, AttributeError):
            lost = garbage("a stream has an event that isn't of its protocol", data, self._mask)
        if not listener.over:
            cut = CallFault(200, "the stream ended before the answer did", again=True, code="truncated")
            raise lost or cut
        if (
            lost is not None and lost.code != "lost"
        ):  # whole, even where the connection broke after the last word
            raise lost
        if passing is not None:
            passing.end(listener.rest())
        return listener.answer()

    def _tell(self, text: str) -> None:
        if text:
            path, n = self._place
            self._run.emit(Token(run=self._run.id, path=path, n=n, text=text, attempt=self._attempt))


class _Other:
    """A request that asks no model: sent at once in every mode, and recorded whole."""

    def __init__(self, wire: Wire, branch: Branch, call: WireCall) -> None:
        self._wire, self._call = wire, call
        self._run, self._place = branch.run, (branch.path, branch.n)
        self._seed = f"{branch.run.id}{branch.path}:{branch.n}"
        self._headers = _sent(call, branch)
        self._mask = Mask(key_of(call.headers))

    async def run(self) -> bytes:
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
            await self._wire.clock.sleep(wait)
            attempt += 1

    async def _exchange(self) -> bytes:
        call = self._call
        transport = call.transport or self._wire.pool
        headers = dict(self._headers)
        if kind := call.headers.get("content-type"):
            headers["Content-Type"] = kind
        body = call.body or None
        async with transport.request(call.method, call.url, headers=headers, body=body) as response:
            content = await response.read()
            if response.status in (408, 429) or response.status >= 500:
                fault = http_fault(response.status, response.headers, content, self._mask)
                if fault.again and (call.method in ("GET", "HEAD") or response.status in (429, 503)):
                    raise fault
            media = response.headers.get("content-type", "application/octet-stream")
            return msgspec.json.encode(Answered(content, Tokens(), response.status, media))


async def _events(response: Response) -> AsyncIterator[bytes]:
    events = Events()
    async for line in response.lines():
        data = events.line(line)
        if data is not None:
            yield data
            if data == b"[DONE]":
                return
    data = events.end()
    if data is not None:
        yield data


def tokens_of(to: str, body: bytes) -> Tokens:
    """What an answer of that endpoint counts."""
    return dialect_of(to).tokens(object_of(body))


def check_answer(to: str, body: bytes) -> Tokens:
    """What a line's body counts. Raises `ValueError` where it is no answer of that endpoint."""
    dialect, answer = dialect_of(to), object_of(body)
    if not dialect.is_answer(answer):
        raise ValueError(f"it isn't an answer of {to}")
    return dialect.tokens(answer)


def _home(provider: str, root: str) -> tuple[str, str]:
    """See `Wire._home`; a place that nobody is known to have is of whoever's protocol is spoken there."""
    names = [provider, *(name for name in KNOWN if provider == "openai" and name in COMPATIBLE)]
    for name in names:
        known = KNOWN.get(name)
        if known is None:
            continue
        variable = known.key_variable
        try:
            endpoint = _at(name, variable)
        except SegueError:
            continue
        if _place(endpoint.base_url) == _place(root):
            return name, endpoint.credential
    return provider, ""


def _failing(error: SegueError) -> Callable[[], Awaitable[bytes]]:
    async def run() -> bytes:
        raise error

    return run


def _at(name: str, variable: str) -> Endpoint:
    """A provider's own place, whether there is a key for it or not."""
    try:
        return resolve(f"{name}:model", os.environ)
    except MissingKey:
        return resolve(f"{name}:model", {**os.environ, variable: "?"})


def key_of(headers: Mapping[str, str]) -> str:
    """The key that a request carries, if it carries one."""
    for name in _KEYS:
        if name in headers:
            return headers[name].removeprefix("Bearer ").strip()
    return ""


def _reader(request: Request) -> Callable[[bytes], Answered]:
    dialect = request.dialect

    def read(body: bytes) -> Answered:
        return Answered(body, dialect.tokens(object_of(body)))

    return read


def _lined(request: Request) -> bytes:
    """The body of a batch line."""
    return msgspec.json.encode(request.dialect.line(request.body, request.model))


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


def _sent(call: WireCall, branch: Branch) -> dict[str, str]:
    """What goes out of an SDK's headers. A key against doubles is the same in every life of the run."""
    out = {name: value for name, value in call.headers.items() if name not in _HOP}
    if "idempotency-key" in out:
        place = f"{branch.run.mark}\0{branch.path}\0{branch.n}".encode()
        out["idempotency-key"] = blake2b(place + call.digest, digest_size=16).hexdigest()
    return out


def _place(url: str) -> str:
    """A base URL in one form."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/').removesuffix('/v1')}"


def _no_key(root: str, variable: str) -> WrongPlace:
    cure = f"set {variable}" if variable else "put it in one, and name it: segue.http_client(key='VARIABLE')"
    return WrongPlace(
        f"in batch the key of {root} has to be in an environment variable, since another process may collect the "
        f"results, and the SDK's isn't in any; {cure}"
    )


def _other_key(root: str, variable: str) -> WrongPlace:
    return WrongPlace(
        f"in batch the key of {root} is taken from the environment, and {variable} holds another key than the SDK "
        f"uses; give both the same, or name the right variable: segue.http_client(key='VARIABLE')"
    )
