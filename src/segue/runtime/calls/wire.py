"""Requests of SDKs as recorded calls: sent at once (`requests.py`), or put in a lane for a batch job."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from ...authoring.context import Answered, Branch, Need, Wait, WireCall, Work
from ...model.errors import MissingKey, ModelFailed, SegueError, WrongPlace
from ...model.mode import Config, Live
from ...ports.clock import AlarmClock
from ...ports.provider import Endpoint, Provider
from ...ports.transport import Transport
from ...providers.compatible import COMPATIBLE
from ...providers.registry import KNOWN, resolve
from ...providers.wire import object_of
from ...providers.wire.dialect import Request
from .live import LiveCall
from .requests import ModelRequest, OtherRequest, key_of
from .sameness import Shared, same_as

if TYPE_CHECKING:
    from .models import Models

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_plain = msgspec.json.Decoder(Answered).decode


class Wire:
    """Takes the requests of SDKs for one engine, and decides how each is carried out."""

    def __init__(
        self,
        models: Models,
        clock: AlarmClock,
        wants: Callable[[str], bool],
        open_pool: Callable[[], Transport],
    ) -> None:
        self._models, self._clock, self._wants, self._open_pool = models, clock, wants, open_pool
        self._opened: Transport | None = None
        self._homes: dict[tuple[str, str], tuple[str, str]] = {}

    def _pool(self) -> Transport:
        """The connections for requests whose author has none of their own."""
        if self._opened is None:
            self._opened = self._open_pool()
        return self._opened

    async def close(self) -> None:
        """Let go of connections."""
        pool, self._opened = self._opened, None
        if pool is not None:
            await pool.close()

    def call(self, branch: Branch, config: Config, call: WireCall, *, replays: bool = False) -> Work | Wait:
        """See `Services.wire_call`. `replays`: nothing will be sent, and so no key is wanted."""
        request = call.request
        mode = config.mode or Live()
        name = f"{call.method} {urllib.parse.urlsplit(call.url).path if request is None else request.tail}"
        if request is None:
            other = OtherRequest(branch, call, self._clock, self._pool)
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
                endpoint, called = self._nobodys(request), ("http", name, call.digest, call.args)
                need = self._models.live_need(
                    branch, config, endpoint, request.dialect.to, lambda: call.body, called
                )
            live = self._live(branch, mode if isinstance(mode, Live) else Live(), call, request, need)
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

    def _live(
        self, branch: Branch, live: Live, call: WireCall, request: Request, need: Need | None
    ) -> ModelRequest:
        key = blake2b(key_of(call.headers).encode(), digest_size=8).hexdigest()
        limit = self._models.limit(request.root, request.model, key)
        name = self.usage_name(request)
        made = LiveCall(branch, name, limit, live.concurrency, self._clock, self._wants, need)
        return ModelRequest(made, branch, call, request, partial(self.asked, request), self._pool)

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


def _reader(request: Request) -> Callable[[bytes], Answered]:
    dialect = request.dialect

    def read(body: bytes) -> Answered:
        return Answered(body, dialect.tokens(object_of(body)))

    return read


def _lined(request: Request) -> bytes:
    """The body of a batch line."""
    return msgspec.json.encode(request.dialect.line(request.body, request.model))


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
