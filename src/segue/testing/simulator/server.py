"""The provider simulator: one machinery and one ledger behind the routes of every dialect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import msgspec
from aiohttp import web

from segue.model import checks
from segue.model.errors import InvalidValue
from segue.ports.clock import Clock

from .anthropic import Anthropic
from .batches import Batch, Pace
from .chaos import Chaos
from .clock import SystemClock
from .compatible import PLAYS
from .crowd import Crowd
from .dialect import Dialect
from .faults import Fault, Faults
from .files import Files
from .gemini import Gemini
from .ledger import Ledger
from .model import Backend, Model, Scripted, Upstream, names
from .processor import Limits, Processor
from .replies import Failure, Rule, Scene, Script
from .service import Service, hang_up, json_of, json_response

__all__ = ["Simulator"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Simulator:
    """A server that speaks the protocols of OpenAI, Anthropic and Gemini on one port: live calls and batches.

    `async with Simulator() as sim` listens on a free port; give an OpenAI client `sim.base_url`, the others
    `sim.url`. Replies come from `when(…).reply(…)`, else from `rule`, else a valid one is made up; with `upstream`
    all chat requests go to that server instead. `batch_time` is how long a batch takes, from creation to the end
    (with an upstream, at least), `pace` says it state by state, and `window` is how long one may take whatever
    window was asked for. `faults` has things go wrong on command, `chaos` by chance. `latency` is the time before
    the first byte of a live answer. `concurrency` is how many batch lines are worked on at once; live calls don't
    queue behind them. With `directory` files, batches and the ledger are there again after a restart. `plays` is
    whose differences OpenAI's protocol has here: `openai`, `azure`, `groq`, `mistral`, `together`, `xai`, or
    `without` for a server that has no batches.

    On a `VirtualClock` nothing happens until `advance` is awaited; on another clock batches go on by themselves.
    """

    def __init__(
        self,
        *,
        rule: Rule | None = None,
        upstream: str | None = None,
        upstream_key: str | None = None,
        models: Sequence[str] = (),
        key: str | None = None,
        clock: Clock | None = None,
        batch_time: timedelta = timedelta(seconds=2),
        pace: Pace | None = None,
        window: timedelta | None = None,
        latency: timedelta = timedelta(0),
        limits: Limits | None = None,
        chaos: Chaos | None = None,
        plays: str = "openai",
        concurrency: int = 8,
        directory: str | Path | None = None,
        ledger: str | Path | None = None,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        _check_names(host=host, key=key, upstream_key=upstream_key, models=models)
        checks.count("concurrency", concurrency)
        if upstream is None and upstream_key is not None:
            raise InvalidValue("upstream_key", "an upstream that it is the key of", "there is none")
        if upstream is not None and rule is not None:
            raise InvalidValue("rule", "no upstream beside it", "the upstream answers all")
        limits = limits or Limits()
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.faults, self.chaos = Faults(), chaos or Chaos(0.0)
        self.crowd = Crowd(limits.at_once, limits.a_minute, self.clock.now)
        self.base_url = self.url = ""
        self._key, self._address = key, (host, port)
        self._script = Script()
        self._runner: web.AppRunner | None = None
        root = Path(directory) if directory is not None else None
        path = Path(ledger) if ledger is not None else root and root / "ledger.jsonl"
        self.ledger = Ledger(path)
        self.files = Files(root and root / "files", seed=seed)
        model = Model(self._backend(upstream, upstream_key, rule, seed), models)
        self._processor = Processor(
            model=model,
            files=self.files,
            ledger=self.ledger,
            faults=self.faults,
            chaos=self.chaos,
            clock=self.clock,
            pace=pace or Pace.of(batch_time),
            limits=limits,
            window=window,
            concurrency=concurrency,
            seed=seed,
            directory=root and root / "batches",
        )
        self._service = self._serving(model, limits, latency, seed)
        own = PLAYS[plays](self._service)
        self._dialects: list[Dialect] = [Anthropic(self._service), Gemini(self._service), own]
        self._prefix = own.prefix
        self._processor.speak(self._dialects)

    def _backend(self, upstream: str | None, key: str | None, rule: Rule | None, seed: int) -> Backend:
        if upstream is not None:
            return Upstream(upstream, key=key)
        ids = names(seed, len(self.ledger))
        return Scripted(self._script, rule, clock=self.clock.now, names=ids)

    def _serving(self, model: Model, limits: Limits, latency: timedelta, seed: int) -> Service:
        return Service(
            clock=self.clock,
            faults=self.faults,
            chaos=self.chaos,
            files=self.files,
            ledger=self.ledger,
            model=model,
            processor=self._processor,
            limits=limits,
            ids=names(seed + 1, len(self.ledger)),
            latency=latency.total_seconds(),
            tasks=set(),
        )

    def when(self, contains: str) -> Scene:
        """Script a reply: `sim.when("refund").reply("Certainly.")`; the longest text that is found wins."""
        self._check_scripted()
        return self._script.when(contains)

    def load(self, path: str | Path) -> None:
        """Script replies from a JSONL file, lines as `{"when": "refund", "reply": "Certainly."}`.

        Instead of `reply`: `tool` and `arguments`, or `status` and `message` of an error. Raises `InvalidValue`.
        """
        self._check_scripted()
        self._script.load(Path(path))

    def _check_scripted(self) -> None:
        if isinstance(self._service.model.backend, Upstream):
            raise InvalidValue("a scripted reply", "no upstream beside it", "the upstream answers all")

    async def advance(self, by: timedelta) -> None:
        """Move the virtual clock; whatever was to happen meanwhile has happened on return."""
        await self._processor.run_until(self.clock.now() + by.total_seconds())

    async def finish(self) -> None:
        """Move the virtual clock until every batch is over."""
        await self._processor.run_dry()

    def batches(self) -> list[Batch]:
        """Every batch, newest first."""
        return self._processor.all()

    async def start(self) -> None:
        """Listen, and go on with the batches that aren't over."""
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self._address)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.base_url = f"{self.url}{self._prefix}/v1"
        self._processor.start()

    async def close(self) -> None:
        """Stop listening; batches stand where they are."""
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._service.tasks:
            task.cancel()
        await asyncio.gather(*self._service.tasks, return_exceptions=True)
        await self._processor.close()
        await self._service.model.backend.close()
        self.ledger.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[self._shaped, self._allowed, self._faulty],
            client_max_size=self._service.limits.bytes + 2**20,
        )
        app.add_routes(self._routes())
        app.add_routes(
            [
                web.get("/_ledger", self._show_ledger),
                web.get("/_faults", self._show_faults),
                web.post("/_faults", self._order_faults),
            ]
        )
        return app

    def _routes(self) -> list[web.RouteDef]:
        """Every dialect's, each once: some paths are several providers'. Those with a verb behind a name go first."""
        found: dict[tuple[str, str], dict[str, Handler]] = {}
        for dialect in self._dialects:
            for route in dialect.routes():
                found.setdefault((route.method, route.path), {})[dialect.name] = route.handler
        routes = [web.RouteDef(*key, self._chosen(handlers), {}) for key, handlers in found.items()]
        return sorted(routes, key=lambda route: "}:" not in route.path)

    def _chosen(self, handlers: dict[str, Handler]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            handler = handlers.get(self._dialect(request).name)
            if handler is None:
                raise web.HTTPNotFound
            return await handler(request)

        return handle

    def _dialect(self, request: web.Request) -> Dialect:
        """Whose words answer a request; those of the last where nobody knows the path."""
        return next((each for each in self._dialects if each.speaks(request)), self._dialects[-1])

    # What every request goes through, from the outside in.

    @web.middleware
    async def _shaped(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors in the provider's shape; the time is what the clock says by now."""
        await self._service.processor.catch_up()
        try:
            return await handler(request)
        except Failure as failure:
            return self._failed(request, failure)
        except web.HTTPException as problem:
            message = (
                f"Invalid URL ({request.method} {request.path})" if problem.status == 404 else problem.reason
            )
            return self._failed(request, Failure(problem.status, message, type="invalid_request_error"))

    def _failed(self, request: web.Request, failure: Failure) -> web.Response:
        headers = {"x-request-id": f"req_{next(self._service.ids)}"}
        if failure.retry_after is not None:
            headers["retry-after"] = f"{failure.retry_after:g}"
        return json_response(self._dialect(request).error(failure), status=failure.status, headers=headers)

    @web.middleware
    async def _allowed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        dialect = self._dialect(request)
        if self._key is not None and dialect.speaks(request) and dialect.key(request) != self._key:
            raise Failure(
                401, "Incorrect API key provided.", code="invalid_api_key", type="invalid_request_error"
            )
        return await handler(request)

    @web.middleware
    async def _faulty(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_"):
            return await handler(request)
        self.chaos.strike("call", self.faults)
        if (delay := self.faults.take(request.path, "delay")) is not None:
            await self.clock.sleep(delay.amount or 0.0)
        if (fault := self.faults.take(request.path, "html", "fail", "refuse")) is not None:
            return await self._refused(request, fault)
        response = await self._crowded(request, handler)
        if self.faults.take(request.path, "empty") is not None:
            return web.Response(body=b"", content_type="application/json")
        if self.faults.take(request.path, "lose") is not None:
            hang_up(request)
        return response

    async def _crowded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A live call is counted, and refused where there are too many."""
        if not self._dialect(request).asks_model(request.path):
            return await handler(request)
        headers = self.crowd.enter()
        try:
            response = await handler(request)
        finally:
            self.crowd.leave()
        if not response.prepared:
            response.headers.update(headers)
        return response

    async def _refused(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """Nothing is done; a request for the model stands in the ledger all the same."""
        if self._dialect(request).asks_model(request.path):
            with contextlib.suppress(Failure):
                body = await json_of(request)
                self._service.enter(request.path, body, 0 if fault.effect == "refuse" else fault.status)
        if fault.effect == "html":
            page = f"<html><body><h1>{fault.status}</h1></body></html>"
            return web.Response(status=fault.status, text=page, content_type="text/html")
        if fault.effect == "refuse":
            hang_up(request)
        raise Failure(fault.status, retry_after=fault.amount)

    # The desk: what was asked and paid, and what is to go wrong.

    async def _show_faults(self, request: web.Request) -> web.StreamResponse:
        return json_response({"coming": self.faults.coming(), "drawn": self.chaos.done})

    async def _order_faults(self, request: web.Request) -> web.StreamResponse:
        try:
            for line in (await request.text()).splitlines():
                self.faults.order(line)
        except InvalidValue as wrong:
            raise Failure(400, str(wrong)) from None
        return await self._show_faults(request)

    async def _show_ledger(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("summary"):
            return json_response(self.ledger.counts())
        return json_response(
            [msgspec.to_builtins(entry) | {"paid": entry.paid} for entry in self.ledger.lines()]
        )


def _check_names(**given: str | Sequence[str] | None) -> None:
    """Raise `InvalidValue` for one that is empty, as of a variable that isn't set."""
    for where, value in given.items():
        if value is not None and "" in ([value] if isinstance(value, str) else value):
            raise InvalidValue(where, "one that isn't empty", "it is")
