"""The models that an engine can reach, and calls of them: sent live from this process, or put in a lane."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import msgspec

from ...authoring.context import Branch, Need, Wait, Work, opening
from ...model.chat import ChatRequest
from ...model.entry import Entry
from ...model.errors import MissingKey, ModelFailed, UnknownName
from ...model.lane import LIVE
from ...model.mode import Config, Live
from ...model.run import CallRef
from ...ports.clock import AlarmClock
from ...ports.provider import BatchProvider, Endpoint, Environment, Provider, live_only, windows_of
from ...ports.transport import Transport
from ...providers.registry import without_keys
from .answer import reader
from .budgets import Budgets
from .limits import Limit
from .line import LineCall
from .live import LiveCall, ProviderCall
from .naming import in_window, line_id, usage_name
from .sameness import Sameness, asked_of, is_whole
from .ways import Ways
from .wire import Wire
from .wording import answered, retold, revectored, reworded


class Models:
    """The models that an engine can reach, by name. `resolve` says where one is, `make` who speaks for it there.

    What is recorded is read, and requests are built, without a key too; only who sends wants one.
    """

    def __init__(
        self,
        resolve: Callable[[str, Environment], Endpoint],
        make: Callable[[Endpoint, Environment], Provider],
        clock: AlarmClock,
        wants_events: Callable[[str], bool],
        open_pool: Callable[[], Transport],
        sameness: Sameness,
        budgets: Budgets,
    ) -> None:
        self.sameness = sameness
        self._resolve, self._make, self._clock, self._wants = resolve, make, clock, wants_events
        self._endpoints: dict[str, Endpoint] = {}
        self._providers: dict[tuple[str, str, str], Provider] = {}
        self._keyless: dict[tuple[str, str, str], Provider] = {}
        self._limits: dict[tuple[str, ...], Limit] = {}
        self.budgets = budgets
        self.wire = Wire(self, clock, wants_events, open_pool)
        self.ways = Ways(self.reader)

    def named(self, names: Sequence[str], config: Config) -> list[str]:
        """Names and roles as full model names. Raises `UnknownName` for one that can't be had."""
        if not names:
            raise UnknownName(
                "model", "", "say which: Engine(model='openai:gpt-5-mini'), model= on the call, or --model"
            )
        out: list[str] = []
        for name in names:
            for full in config.models.get(name, (name,)):
                try:
                    self.place(full)
                except UnknownName as error:
                    if not config.models or error.kind != "model":
                        raise
                    roles = ", ".join(sorted(config.models))
                    raise UnknownName("model or role", full, f"roles are {roles}; {error.cure}") from None
                out.append(full)
        return out

    def endpoint(self, model: str) -> Endpoint:
        """Where a model is. Raises `MissingKey`."""
        known = self._endpoints.get(model)
        if known is None:
            known = self._endpoints[model] = self._resolve(model, os.environ)
        return known

    def place(self, model: str) -> Endpoint:
        """Where a model is, whether there is a key for it or not."""
        try:
            return self.endpoint(model)
        except MissingKey:
            return without_keys(partial(self._resolve, model), os.environ)

    def provider(self, endpoint: Endpoint) -> Provider:
        """Who speaks for an endpoint; one for each base URL and credential. Raises `MissingKey`."""
        key = (endpoint.provider, endpoint.base_url, endpoint.credential)
        known = self._providers.get(key)
        if known is None:
            known = self._providers[key] = self._make(endpoint, os.environ)
        return known

    def reader(self, endpoint: Endpoint) -> Provider:
        """Who builds requests to an endpoint and reads its answers; without a key for it, it can send nothing."""
        try:
            return self.provider(endpoint)
        except MissingKey:
            key = (endpoint.provider, endpoint.base_url, endpoint.credential)
            known = self._keyless.get(key)
            if known is None:
                known = self._keyless[key] = self.anew(endpoint)
            return known

    def anew(self, endpoint: Endpoint) -> Provider:
        """Another one like `reader`, for who asks alone."""
        return without_keys(partial(self._make, endpoint), os.environ)

    def batches(self, endpoint: Endpoint, to: str) -> BatchProvider:
        """Who carries out the jobs of a lane. Raises `UnknownName` where nobody does."""
        provider = self.provider(endpoint)
        _, window = in_window(to)
        if window is not None:
            windows = windows_of(provider)
            if window not in windows:
                raise UnknownName("completion window", str(window), f"{provider.name} has none")
            return windows[window]
        if not provider.batches:
            raise UnknownName("batch API", provider.name, "its lines wait for a release that knows one")
        return cast(BatchProvider, provider)

    def call(
        self, branch: Branch, config: Config, model: str, request: Any, args: bytes, digest: bytes
    ) -> Work | Wait:
        """A recorded call of that model, carried out as the mode says.

        Without a key for it, a line waits in its lane for who has one; what would be sent from here raises `MissingKey`
        when it begins, and so not where it is recorded already.
        """
        endpoint, provider, lack = self._reached(model)
        kind, to = ("generate", "chat") if isinstance(request, ChatRequest) else ("embed", "embed")
        body = partial(_body, provider, endpoint, to, request)
        self._refuse_too_large(endpoint, provider, body, args)
        decode = reader(provider, to)
        if config.pooled is not None and _pools(provider, to) and (lack is None or lack.what == "key"):
            return self.line(branch, endpoint, config, (kind, kind), to, body, args, digest, decode)
        since = config.answers_since(self._clock.now())
        shared = None if since is None else self.sameness.sharing(since, partial(is_whole, provider, to))
        id = _line_id(branch, kind, kind, digest, args)
        need = self._need(id, config, endpoint, to, (LIVE,), body)
        mode = config.mode if isinstance(config.mode, Live) else Live()
        limit = self.limit(endpoint.base_url, endpoint.provider, endpoint.model, endpoint.credential)
        name = usage_name(endpoint)
        live = ProviderCall(
            LiveCall(branch, name, limit, mode.concurrency, self._clock, self._wants, need),
            id,
            provider,
            endpoint,
            to,
            body,
            lack,
        )
        return Work(
            kind=kind,
            name=kind,
            args=args,
            digest=digest,
            decode=decode,
            run=live.run if shared is None else partial(live.shared, shared),
            model=name,
            settles=None if shared is None else shared.settles,
            need=need,
        )

    def _reached(self, model: str) -> tuple[Endpoint, Provider, MissingKey | None]:
        """Where a model is and who speaks for it there, and what that one lacks to send anything."""
        try:
            endpoint = self.endpoint(model)
            return endpoint, self.provider(endpoint), None
        except MissingKey as error:
            endpoint = self.place(model)
            return endpoint, self.reader(endpoint), error

    def line(
        self,
        branch: Branch,
        endpoint: Endpoint,
        config: Config,
        called: tuple[str, str],
        to: str,
        body: Callable[[], bytes],
        args: bytes,
        digest: bytes,
        decode: Callable[[bytes], Any],
        ask: Callable[[bytes], str] | None = None,
    ) -> Wait:
        """A recorded call that goes out as a line of a batch job. `called` is its kind and name, `ask` tells what a
        body asks."""
        now = self._clock.now()
        route = self.ways.route(endpoint, to, config, now)
        opened = opening(branch, *called, digest, args)
        since = config.answers_since(now)
        ask = ask or partial(asked_of, self.reader(endpoint), endpoint, to)
        call = CallRef(branch.run.id, *opened)
        line = LineCall(call, route, body, self._clock, since, ask)
        return Wait(
            kind=called[0],
            name=called[1],
            args=args,
            digest=digest,
            decode=decode,
            opens=line.opens,
            drops=line.drops,
            opened=opened,
            model=usage_name(endpoint),
            lane=route.name,
            need=self._need(line.id, config, endpoint, to, route.ways, body),
        )

    def _need(
        self,
        id: str,
        config: Config,
        endpoint: Endpoint,
        to: str,
        ways: Sequence[str],
        body: Callable[[], bytes],
    ) -> Need | None:
        """What a call must have room for in its budgets, if it has any."""
        if not config.accounts:
            return None
        writes = not to.startswith(("embed", "/v1/embeddings"))
        return self.budgets.need(id, config.accounts, usage_name(endpoint), ways, body, writes=writes)

    def live_need(
        self,
        branch: Branch,
        config: Config,
        endpoint: Endpoint,
        to: str,
        body: Callable[[], bytes],
        called: tuple[str, str, bytes, bytes],
    ) -> Need | None:
        """The same, of a live call that the branch makes next; `called` is its kind, name, digest and arguments."""
        if not config.accounts:
            return None
        return self._need(_line_id(branch, *called), config, endpoint, to, (LIVE,), body)

    def reworded(self, call: Entry, value: object, where: str) -> Any:
        """What is recorded of a call whose outcome is another one: of one to a model, what it says; see `wording`."""
        if call.kind == "receive":
            return retold(call.value, value)
        if call.kind == "ask":
            return answered(call.args, value, where)
        if call.kind not in ("generate", "embed"):
            return value
        provider = self.reader(self.place(msgspec.json.decode(call.args)["model"]))
        return (reworded if call.kind == "generate" else revectored)(provider, call.value, value, where)

    def limit(self, *key: str) -> Limit:
        """The limit of an endpoint, model and credential."""
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = Limit(self._clock)
        return limit

    def _refuse_too_large(
        self, endpoint: Endpoint, provider: Provider, body: Callable[[], bytes], args: bytes
    ) -> None:
        """A body that no job could take isn't recorded, sent or paid; it is the same in every mode."""
        if len(args) <= provider.max_bytes // 2:
            return
        size = len(body())
        if size > provider.max_bytes:
            raise ModelFailed(
                usage_name(endpoint),
                0,
                f"the request has {size:,} bytes and {provider.name} takes {provider.max_bytes:,}; "
                f"shorten the prompt, or split it over several calls",
                "request_too_large",
            )

    @property
    def clock(self) -> AlarmClock:
        """What live calls wait by."""
        return self._clock

    def land(self) -> None:
        """Begin no more live calls: those that a provider has come in, others wait for the next process."""
        for limit in self._limits.values():
            limit.land()

    async def close(self) -> None:
        """Let go of connections."""
        for provider in (*self._providers.values(), *self._keyless.values()):
            await provider.close()
        self._providers.clear()
        self._keyless.clear()
        for limit in self._limits.values():
            limit.close()
        await self.wire.close()


def _line_id(branch: Branch, kind: str, name: str, digest: bytes, args: bytes) -> str:
    """What the call that the branch makes next is called as a line."""
    return line_id(branch.run.id, opening(branch, kind, name, digest, args))


def _pools(provider: Provider, to: str) -> bool:
    """Whether the provider takes an endpoint's requests in jobs."""
    return provider.batches and to not in live_only(provider)


def _body(provider: Provider, endpoint: Endpoint, to: str, request: Any) -> bytes:
    if to == "chat":
        return msgspec.json.encode(provider.chat_body(request, endpoint.model))
    return msgspec.json.encode(provider.embed_body(request, endpoint.model))
