"""Model calls as recorded calls: sent live from this process, or put in a lane for a batch job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, cast

import msgspec

from ...authoring.context import Branch, Need, Wait, Work
from ...core import deadlines
from ...core.deadlines import Way
from ...model.chat import ChatReply, ChatRequest, Tokens
from ...model.errors import ModelFailed, ProviderFault, UnknownName
from ...model.lane import LIVE, Line, LineOutcome
from ...model.mode import Batch, Config, Late, Live
from ...model.run import CallRef, Usage
from ...ports.clock import AlarmClock
from ...ports.provider import BatchProvider, CallFault, Endpoint, Numbering, PartlyLive, Provider, Windowed
from ...ports.store import Turn
from ...ports.transport import Transport
from ..ground.events import Token
from . import wire
from .budgets import Budgets
from .limits import Limit
from .sameness import Sameness, is_whole, same_as
from .trying import model_failed, retrying, until_answered
from .wire import Wire

#: The call that is being carried out, named as its line in a batch would be.
CALLING: ContextVar[str] = ContextVar("segue_calling", default="")


log = logging.getLogger("segue")

#: Only of less time than this, in seconds, it is looked whether a live call would already have to begin.
SHORT = 3600.0
#: What a provider's batch promises.
DAY = timedelta(hours=24)


class Vectors(msgspec.Struct, frozen=True):
    """What an embeddings call gives."""

    vectors: list[list[float]]
    tokens: Tokens


class Models:
    """The models that an engine can reach, by name. `find` gives the provider of an endpoint."""

    def __init__(
        self,
        resolve: Callable[[str], Endpoint],
        make: Callable[[Endpoint], Provider],
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
        self._limits: dict[tuple[str, ...], Limit] = {}
        self.budgets = budgets
        self.wire = Wire(self, clock, wants_events, open_pool)
        self.max_age: dict[str, Batch] = {}
        self._warned: set[str] = set()  # lanes whose lines are late at once
        self.took: dict[
            str, list[float]
        ] = {}  #: by lane, how long its jobs took in seconds; with `|live`, live rounds

    def named(self, names: Sequence[str], config: Config) -> list[str]:
        """Names and roles as full model names. Raises `UnknownName` for one that can't be had."""
        if not names:
            raise UnknownName(
                "model", "", "say which: Engine(model='openai:gpt-5-mini'), model= on the call, or --model"
            )
        out: list[str] = []
        for name in names:
            for full in config.models.get(name, (name,)):
                self.endpoint(full)
                out.append(full)
        return out

    def endpoint(self, model: str) -> Endpoint:
        """Where a model is."""
        known = self._endpoints.get(model)
        if known is None:
            known = self._endpoints[model] = self._resolve(model)
        return known

    def provider(self, endpoint: Endpoint) -> Provider:
        """Who speaks for an endpoint; one for each base URL and credential."""
        key = (endpoint.provider, endpoint.base_url, endpoint.credential)
        known = self._providers.get(key)
        if known is None:
            known = self._providers[key] = self._make(endpoint)
        return known

    def batches(self, endpoint: Endpoint, to: str) -> BatchProvider:
        """Who carries out the jobs of a lane. Raises `UnknownName` where nobody does."""
        provider = self.provider(endpoint)
        _, window = in_window(to)
        if window is not None:
            windows = provider.windows if isinstance(provider, Windowed) else {}
            if window not in windows:
                raise UnknownName("completion window", str(window), f"{provider.name} has none")
            return windows[window]
        if not provider.batches:
            raise UnknownName("batch API", provider.name, "its lines wait for a release that knows one")
        return cast(BatchProvider, provider)

    def call(
        self, branch: Branch, config: Config, model: str, request: Any, args: bytes, digest: bytes
    ) -> Work | Wait:
        """A recorded call of that model, carried out as the mode says."""
        endpoint = self.endpoint(model)
        provider = self.provider(endpoint)
        mode = config.mode or Live()
        self._refuse_too_large(endpoint, provider, request, args)
        decode: Callable[[bytes], Any]
        if isinstance(request, ChatRequest):
            kind, to, decode = "generate", "chat", _chat_reader(provider)
        else:
            kind, to, decode = "embed", "embed", _vector_reader(provider)
        if config.pooled is not None and _pools(provider, to):

            def body() -> bytes:
                return _body(provider, endpoint, to, request)

            return self.line(branch, endpoint, config, (kind, kind), to, body, args, digest, decode)
        live = mode if isinstance(mode, Live) else Live()
        since = config.answers_since(self._clock.now())
        shared = None if since is None else self.sameness.sharing(since, partial(is_whole, provider, to))
        place = (branch.path, branch.n)
        ident = line_id(branch.run.id, *place, digest if branch.run.rebased else b"")

        need = self._need(
            ident, config, endpoint, to, (LIVE,), lambda: _body(provider, endpoint, to, request)
        )

        async def run() -> bytes:
            CALLING.set(ident)
            body = _body(provider, endpoint, to, request)

            async def send() -> bytes:
                return await self._send(branch, place, provider, endpoint, live.concurrency, to, body, need)

            if shared is None:
                return await send()
            answer, reused = await shared.answer(asked_of(provider, endpoint, to, body), send)
            if reused and to == "chat" and self._wants(branch.run.id):
                said = provider.chat_reply(answer).text
                branch.run.emit(Token(run=branch.run.id, path=place[0], n=place[1], text=said))
            return answer

        return Work(
            kind=kind,
            name=kind,
            args=args,
            digest=digest,
            decode=decode,
            run=run,
            model=usage_name(endpoint),
            settles=None if shared is None else shared.settles,
            need=need,
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
        digest: bytes,
    ) -> Need | None:
        """The same, of a live call that the branch makes next."""
        if not config.accounts:
            return None
        run = branch.run
        ident = line_id(run.id, branch.path, branch.n, digest if run.rebased else b"")
        return self._need(ident, config, endpoint, to, (LIVE,), body)

    def limit(self, *key: str) -> Limit:
        """The limit of an endpoint, model and credential."""
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = Limit(self._clock)
        return limit

    def _refuse_too_large(self, endpoint: Endpoint, provider: Provider, request: Any, args: bytes) -> None:
        """A body that no job could take isn't recorded, sent or paid; it is the same in every mode."""
        if len(args) <= provider.max_bytes // 2:
            return
        size = len(
            _body(provider, endpoint, "chat" if isinstance(request, ChatRequest) else "embed", request)
        )
        if size > provider.max_bytes:
            raise ModelFailed(
                usage_name(endpoint),
                0,
                f"the request has {size:,} bytes and {provider.name} takes {provider.max_bytes:,}; "
                f"shorten the prompt, or split it over several calls",
                "request_too_large",
            )

    # ------------------------------------------------------------ live
    async def _send(
        self,
        branch: Branch,
        place: tuple[str, int],
        provider: Provider,
        endpoint: Endpoint,
        most: int,
        to: str,
        body: bytes,
        need: Need | None,
    ) -> bytes:
        limit = self.limit(endpoint.base_url, endpoint.provider, endpoint.model, endpoint.credential)
        run = branch.run

        async def send(attempt: int) -> bytes:
            def tell(text: str) -> None:
                run.emit(Token(run=run.id, path=place[0], n=place[1], text=text, attempt=attempt))

            streams = to == "chat" and self._wants(run.id)
            answer = await provider.send(to, body, tell if streams else None, limit.heard)
            try:
                _read(provider, to, answer)
            except ProviderFault as fault:
                if need is not None and fault.status != 200:
                    need.spoil()
                raise CallFault(fault.status, str(fault), again=True) from fault
            return answer

        name = usage_name(endpoint)
        try:
            return await until_answered(
                limit,
                self._clock,
                send,
                most=most,
                tokens=len(body) // 4,
                seed=f"{run.id}{place}",
                model=name,
                run=run.id,
                tell=lambda trouble: run.emit(retrying(run.id, place, name, trouble)),
                spoil=None if need is None else need.spoil,
            )
        except CallFault as fault:
            failure = fault
        raise model_failed(name, failure.status, failure.message, failure.code)

    # ------------------------------------------------------------ batch
    def line(
        self,
        branch: Branch,
        endpoint: Endpoint,
        config: Config,
        called: tuple[str, str],
        to: str,
        make_body: Callable[[], bytes],
        args: bytes,
        digest: bytes,
        decode: Callable[[bytes], Any],
        ask: Callable[[bytes], str] | None = None,
    ) -> Wait:
        """A recorded call that goes out as a line of a batch job. `called` is its kind and name, `ask` tells what a
        body asks."""
        run = branch.run
        mode = config.pooled or Batch()
        now = self._clock.now()
        due, late = config.due_at(now)
        if config.deadline is None:
            way: str | None = _window(self.provider(endpoint), mode, to)
        else:
            way = self._way(endpoint, to, due - now, late)
        at_once = way is None
        if way is None:  # only a live call is in time: it goes as soon as it is in its lane
            way, due = "", now
        lane = lane_key(endpoint, to + way)
        self.max_age[lane] = mode
        if due and due - now < SHORT:
            self._warn_late(lane, endpoint, to, due - now, late)
        ident = line_id(run.id, branch.path, branch.n, digest if run.rebased else b"")
        ways = [] if at_once else [lane_name(to + way)]
        if late == "live":  # it may go both
            ways.append(LIVE)

        since = config.answers_since(now)
        ask = ask or partial(asked_of, self.provider(endpoint), endpoint, to)

        def opens(turn: Turn, path: str, n: int) -> None:
            body = make_body()
            line = Line(
                id=ident,
                lane=lane,
                call=CallRef(run.id, path, n),
                body=body,
                size=len(body),
                created=self._clock.now(),
                due=due,
                late=late,
                same="" if since is None else ask(body),
                since=since or 0.0,
            )
            turn.lines = [*turn.lines, line]

        def drops(turn: Turn, path: str, n: int) -> None:
            ids = {line_id(run.id, path, n), line_id(run.id, path, n, digest)} if run.rebased else {ident}
            turn.withdrawn = [*turn.withdrawn, *ids]

        return Wait(
            kind=called[0],
            name=called[1],
            args=args,
            digest=digest,
            decode=decode,
            opens=opens,
            drops=drops,
            sender=f"line:{ident}",
            model=usage_name(endpoint),
            lane=lane_name(to + way),
            need=self._need(ident, config, endpoint, to, ways, make_body),
        )

    def _way(self, endpoint: Endpoint, to: str, left: float, late: Late) -> str | None:
        """What is added to a lane's endpoint for the cheapest way that is in time; None for live."""
        ways = self.ways(endpoint, to)
        found = deadlines.choose(list(ways), left, 0.0 if late == "fail" else self.lead(endpoint, to))
        if found is None and late == "fail":
            found = min(ways, key=lambda way: way.expected)
        return None if found is None else ways[found]

    def _warn_late(self, lane: str, endpoint: Endpoint, to: str, left: float, late: Late) -> None:
        """Say once a lane that its lines are late as they are made: each goes live, at the full price."""
        lead = self.lead(endpoint, to)
        if late != "live" or not 0 < left < lead or lane in self._warned:
            return
        self._warned.add(lane)
        log.warning(
            "model %r: all its calls go live: what isn't there %.0f s before its time is sent live, and they have "
            "%.0f s. Give a batch longer",
            usage_name(endpoint), lead, left,
        )  # fmt: skip

    def lead(self, endpoint: Endpoint, to: str) -> float:
        """Seconds that a live call needs before its deadline."""
        return deadlines.lead(self.took.get(f"{lane_key(endpoint, to)}|{LIVE}", ()), 1)

    def ways(self, endpoint: Endpoint, to: str) -> dict[Way, str]:
        """The ways below a live call, the cheapest first, with what they add to a lane's endpoint."""
        provider = self.provider(endpoint)
        added = {"": DAY.total_seconds()}
        if to == "chat" and isinstance(provider, Windowed):
            windows = sorted((window.total_seconds() for window in provider.windows), reverse=True)
            added |= {f"~{int(window)}": window for window in windows}
        found: dict[Way, str] = {}
        for more, promised in added.items():
            took = tuple(self.took.get(lane_key(endpoint, to + more), ()))
            found[Way(lane_name(to + more), promised, took)] = more
        return found

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
        for provider in self._providers.values():
            await provider.close()
        self._providers.clear()
        for limit in self._limits.values():
            limit.close()
        await self.wire.close()


def lane_key(endpoint: Endpoint, to: str) -> str:
    """Requests of one provider, base URL, endpoint, model and credential share a lane."""
    return "|".join((endpoint.provider, endpoint.base_url, to, endpoint.model, endpoint.credential))


def lane_endpoint(lane: str) -> tuple[Endpoint, str]:
    """What a lane's key says."""
    provider, base_url, to, model, credential = lane.split("|")
    return Endpoint(provider, base_url, model, credential), to


@lru_cache(256)
def in_window(to: str) -> tuple[str, timedelta | None]:
    """A lane's endpoint without its window, and the window."""
    endpoint, _, seconds = to.partition("~")
    return endpoint, timedelta(seconds=int(seconds)) if seconds else None


def base_lane(lane: str) -> str:
    """A lane's key without its window."""
    endpoint, to = lane_endpoint(lane)
    return lane_key(endpoint, in_window(to)[0])


def lane_name(to: str) -> str:
    """The lane as receipts have it: `batch`, or a window such as `2h`."""
    _, window = in_window(to)
    return "batch" if window is None else f"{window.total_seconds() / 3600:g}h"


def _window(provider: Provider, mode: Batch, to: str) -> str:
    """What is added to a lane's endpoint: the slowest way that is in time, where that isn't a batch."""
    if to != "chat" or mode.within >= DAY or not isinstance(provider, Windowed) or not provider.windows:
        return ""
    in_time = [window for window in provider.windows if window <= mode.within]
    window = max(in_time) if in_time else min(provider.windows)
    return f"~{int(window.total_seconds())}"


def line_id(run: str, path: str, n: int, digest: bytes = b"") -> str:
    """32 hex digits: the same in every life, and fit for every provider's rules.

    `digest` tells the calls apart that a rebased run makes at one place.
    """
    return blake2b(f"{run}\0{path}\0{n}".encode() + digest, digest_size=16).hexdigest()


def asked_of(provider: Provider, endpoint: Endpoint, to: str, body: bytes) -> str:
    """What a request asks."""
    return same_as(endpoint, to, provider.question(body) if isinstance(provider, Numbering) else body)


def check_result(provider: Provider, to: str, body: bytes) -> Exception | None:
    """What is wrong with a line's response body, if anything."""
    counted = count_result(provider, to, body)
    return counted if isinstance(counted, Exception) else None


def count_result(provider: Provider, to: str, body: bytes) -> Tokens | Exception:
    """What a line's response body counts, or what is wrong with it."""
    to, _ = in_window(to)
    try:
        return wire.check_answer(to, body) if to.startswith("/") else _read(provider, to, body).tokens
    except Exception as problem:  # whatever a provider stumbles over, one line's body harms no other line
        return problem


def used(lane: str, provider: Provider, body: bytes, name: str) -> Usage:
    """What a line's answer counts, in a lane of that name."""
    endpoint, to = lane_endpoint(lane)
    to, _ = in_window(to)
    tokens = wire.tokens_of(to, body) if to.startswith("/") else _read(provider, to, body).tokens
    return Usage(usage_name(endpoint), name).plus(tokens)


def shared_outcome(outcome: LineOutcome, lane: str, provider: Provider, name: str) -> LineOutcome:
    """The outcome `ok` of a line that may be others' too: whether it is to be kept, and what was paid for it."""
    _, to = lane_endpoint(lane)
    body = outcome.value or b""
    paid = outcome.used or used(lane, provider, body, name)
    return msgspec.structs.replace(outcome, whole=is_whole(provider, in_window(to)[0], body), used=paid)


def usage_name(endpoint: Endpoint) -> str:
    """The name under which a model's tokens are counted."""
    return f"{endpoint.provider}:{endpoint.model}"


def _pools(provider: Provider, to: str) -> bool:
    """Whether the provider takes an endpoint's requests in jobs."""
    return provider.batches and not (isinstance(provider, PartlyLive) and to in provider.live_only)


def _body(provider: Provider, endpoint: Endpoint, to: str, request: Any) -> bytes:
    if to == "chat":
        return msgspec.json.encode(provider.chat_body(request, endpoint.model))
    return msgspec.json.encode(provider.embed_body(request, endpoint.model))


def _read(provider: Provider, to: str, body: bytes) -> ChatReply | Vectors:
    if to == "chat":
        return provider.chat_reply(body)
    vectors, tokens = provider.embed_reply(body)
    return Vectors(vectors, Tokens(tokens))


def _chat_reader(provider: Provider) -> Callable[[bytes], ChatReply]:
    return provider.chat_reply


def _vector_reader(provider: Provider) -> Callable[[bytes], Vectors]:
    def read(body: bytes) -> Vectors:
        vectors, tokens = provider.embed_reply(body)
        return Vectors(vectors, Tokens(tokens))

    return read
