"""The provider simulator: the state machine, the model and the ledger behind HTTP routes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
from aiohttp import BodyPartReader, web

from segue.ports.clock import Clock

from .batches import Batch, Pace
from .clock import SystemClock
from .completion import tokens, usage_of
from .faults import Fault, Faults
from .files import File, Files
from .ledger import Entry, Ledger, digest
from .model import ENDPOINTS, Answer, Backend, Model, Scripted, Upstream, names
from .processor import Limits, Processor
from .replies import Failure, Rule, Scene, Script

__all__ = ["Simulator"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Simulator:
    """A server that speaks a provider's protocol: chat, embeddings, files and batches.

    `async with Simulator() as sim` listens on a free port; give a client `sim.base_url`. Replies come from
    `when(…).reply(…)`, else from `rule`, else a valid one is made up; with `upstream` all chat requests go to
    that server instead. `batch_time` is how long a batch takes, from creation to the end (with an upstream, at
    least), `pace` says it state by state, and `window` is how long one may take whatever window was asked for.
    `latency` is the time before the first byte of a live answer. `concurrency` is how many batch lines are
    worked on at once; live calls don't queue behind them. With `directory` files, batches and the ledger are
    there again after a restart.

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
        concurrency: int = 8,
        directory: str | Path | None = None,
        ledger: str | Path | None = None,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        limits = limits or Limits()
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.faults = Faults()
        self.base_url = ""
        self._key = key
        self._latency = latency.total_seconds()
        self._size = limits.bytes
        self._address = host, port
        self._script = Script()
        self._runner: web.AppRunner | None = None
        root = Path(directory) if directory is not None else None
        path = Path(ledger) if ledger is not None else root and root / "ledger.jsonl"
        self.ledger = Ledger(path)
        self.files = Files(root and root / "files", seed=seed)
        backend: Backend
        if upstream is not None:
            backend = Upstream(upstream, key=upstream_key)
        else:
            ids = names(seed, len(self.ledger))
            backend = Scripted(self._script, rule, clock=self.clock.now, names=ids)
        self._model = Model(backend, models)
        self._ids = names(seed + 1, len(self.ledger))
        self._processor = Processor(
            model=self._model,
            files=self.files,
            ledger=self.ledger,
            faults=self.faults,
            clock=self.clock,
            pace=pace or Pace.of(batch_time),
            limits=limits,
            window=window,
            concurrency=concurrency,
            seed=seed,
            directory=root and root / "batches",
        )

    def when(self, contains: str) -> Scene:
        """Script a reply: `sim.when("refund").reply("Certainly.")`; the first `when` that fits answers."""
        return self._script.when(contains)

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
        self.base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        self._processor.start()

    async def close(self) -> None:
        """Stop listening; batches stand where they are."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self._processor.close()
        await self._model.backend.close()
        self.ledger.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[self._shaped, self._allowed, self._faulty], client_max_size=self._size + 2**20
        )
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/embeddings", self._embed),
                web.get("/v1/models", self._list_models),
                web.post("/v1/files", self._upload),
                web.get("/v1/files", self._list_files),
                web.get("/v1/files/{id}", self._file),
                web.delete("/v1/files/{id}", self._delete_file),
                web.get("/v1/files/{id}/content", self._content),
                web.post("/v1/batches", self._create_batch),
                web.get("/v1/batches", self._list_batches),
                web.get("/v1/batches/{id}", self._batch),
                web.post("/v1/batches/{id}/cancel", self._cancel_batch),
                web.get("/_ledger", self._show_ledger),
            ]
        )
        return app

    # What every request goes through, from the outside in.

    @web.middleware
    async def _shaped(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors in the provider's shape; the time is what the clock says by now."""
        await self._processor.catch_up()
        try:
            return await handler(request)
        except Failure as failure:
            return self._send(Answer.failed(failure))
        except web.HTTPException as problem:
            message = (
                f"Invalid URL ({request.method} {request.path})" if problem.status == 404 else problem.reason
            )
            return self._send(Answer.failed(Failure(problem.status, message, type="invalid_request_error")))

    @web.middleware
    async def _allowed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._key is not None and given != self._key and request.path.startswith("/v1/"):
            raise Failure(
                401, "Incorrect API key provided.", code="invalid_api_key", type="invalid_request_error"
            )
        return await handler(request)

    @web.middleware
    async def _faulty(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if (delay := self.faults.take(request.path, "delay")) is not None:
            await self.clock.sleep(delay.amount or 0.0)
        if (fault := self.faults.take(request.path, "html", "fail", "refuse")) is not None:
            return await self._refused(request, fault)
        response = await handler(request)
        if self.faults.take(request.path, "empty") is not None:
            return web.Response(body=b"", content_type="application/json")
        if self.faults.take(request.path, "lose") is not None:
            _hang_up(request)
        return response

    async def _refused(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """Nothing is done; a request for the model stands in the ledger all the same."""
        if request.path in ENDPOINTS:
            with contextlib.suppress(Failure):
                body = await _json(request)
                self._enter(request.path, body, 0 if fault.effect == "refuse" else fault.status)
        if fault.effect == "html":
            page = f"<html><body><h1>{fault.status}</h1></body></html>"
            return web.Response(status=fault.status, text=page, content_type="text/html")
        if fault.effect == "refuse":
            _hang_up(request)
        return self._send(Answer.failed(Failure(fault.status, retry_after=fault.amount)))

    # The model.

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _json(request)
        await self._think()
        if isinstance(body, dict) and body.get("stream"):
            return await self._stream(request, body)
        return await self._answered(request, body)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await _json(request)
        await self._think()
        return await self._answered(request, body)

    async def _think(self) -> None:
        if self._latency:
            await self.clock.sleep(self._latency)

    async def _answered(self, request: web.Request, body: Any) -> web.StreamResponse:
        answer = await self._model.answer(request.path, body)
        self._enter(request.path, body, answer.status, *usage_of(answer.body))
        return self._send(answer)

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        stream = await self._model.stream(body)
        if isinstance(stream, Answer):
            self._enter(request.path, body, stream.status)
            return self._send(stream)
        said = _Said(body)
        try:
            return await self._send_stream(request, said.each(stream))
        finally:
            self._enter(request.path, body, 200, *said.usage())

    async def _send_stream(
        self, request: web.Request, stream: AsyncIterator[dict[str, Any]]
    ) -> web.StreamResponse:
        cut = self.faults.take(request.path, "cut")
        response = web.StreamResponse(
            headers={"Cache-Control": "no-cache", "x-request-id": self._request_id()}
        )
        response.content_type = "text/event-stream"
        await response.prepare(request)
        left = cut.amount if cut is not None else None
        with contextlib.suppress(ConnectionError):
            async for chunk in stream:
                if left is not None and (left := left - 1) < 0:
                    break
                await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
            if cut is None:
                await response.write(b"data: [DONE]\n\n")
            elif cut.aborts and request.transport is not None:
                request.transport.close()  # unlike a reset it lets what was sent arrive
        return response

    def _enter(self, endpoint: str, body: Any, status: int, asked: int = 0, said: int = 0) -> None:
        model = str(body.get("model", "")) if isinstance(body, dict) else ""
        self.ledger.add(
            Entry(
                time=self.clock.now(),
                kind="live",
                endpoint=endpoint,
                status=status,
                sha256=digest(body),
                model=model,
                tokens_in=asked,
                tokens_out=said,
            )
        )

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        known = self._model.models or ("simulated",)
        return _json_response(
            _page([{"id": name, "object": "model", "created": 0, "owned_by": "segue"} for name in known])
        )

    # Files.

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        purpose, filename, content = await _form(request)
        if content is None or not purpose:
            missing = "file" if content is None else "purpose"
            raise Failure(400, f"Missing required parameter: {missing!r}.", param=missing)
        if len(content) > self._size:
            raise Failure(413, f"The file has more than {self._size} bytes.", param="file")
        file = self.files.add(content, purpose=purpose, filename=filename, now=self.clock.now())
        return _json_response(file.view())

    async def _list_files(self, request: web.Request) -> web.StreamResponse:
        purpose = request.query.get("purpose")
        found = [file.view() for file in self.files.all() if purpose in (None, file.purpose)]
        return _json_response(_cut(found, request, most=10_000, usual=10_000))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return _json_response(self._found(request).view())

    async def _content(self, request: web.Request) -> web.StreamResponse:
        content = self.files.content(self._found(request).id)
        return web.Response(body=content, content_type="application/octet-stream")

    async def _delete_file(self, request: web.Request) -> web.StreamResponse:
        file = self._found(request)
        if self._processor.uses(file.id):
            raise Failure(
                409, f"The file {file.id!r} is used by a batch that isn't over.", type="invalid_request_error"
            )
        self.files.delete(file.id)
        return _json_response({"id": file.id, "object": "file", "deleted": True})

    def _found(self, request: web.Request) -> File:
        file = self.files.get(request.match_info["id"])
        if file is None:
            raise Failure(404, f"No such File object: {request.match_info['id']}", param="id")
        return file

    # Batches.

    async def _create_batch(self, request: web.Request) -> web.StreamResponse:
        asked = await _json(request)
        if not isinstance(asked, dict):
            raise Failure(400, "The body must be a JSON object", code="invalid_json")
        return _json_response(self._processor.create(asked).view())

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        views = [batch.view() for batch in self._processor.all()]
        return _json_response(_cut(views, request, most=100, usual=20))

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        return _json_response(self._known(request).view())

    async def _cancel_batch(self, request: web.Request) -> web.StreamResponse:
        return _json_response(self._processor.cancel(self._known(request).id).view())

    def _known(self, request: web.Request) -> Batch:
        batch = self._processor.get(request.match_info["id"])
        if batch is None:
            raise Failure(404, f"No batch found with id {request.match_info['id']!r}.")
        return batch

    # The ledger.

    async def _show_ledger(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("summary"):
            return _json_response(self.ledger.counts())
        return _json_response(
            [msgspec.to_builtins(entry) | {"paid": entry.paid} for entry in self.ledger.lines()]
        )

    def _send(self, answer: Answer) -> web.Response:
        headers = {"x-request-id": self._request_id()}
        if answer.retry_after is not None:
            headers["retry-after"] = f"{answer.retry_after:g}"
        return _json_response(answer.body, status=answer.status, headers=headers)

    def _request_id(self) -> str:
        return f"req_{next(self._ids)}"


class _Said:
    """What a stream said, and what of it the client wants to hear."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._pieces: list[Any] = []
        self._stated: tuple[int, int] | None = None

    async def each(self, stream: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        async for chunk in stream:
            if chunk.get("usage"):
                self._stated = usage_of(chunk)
            self._pieces.extend(choice.get("delta", {}) for choice in chunk.get("choices", []))
            if chunk.get("choices") or self._wants_usage:
                yield chunk

    def usage(self) -> tuple[int, int]:
        """As the stream stated it; an estimate when it ended before that."""
        if self._stated is not None:
            return self._stated
        text = "".join(piece.get("content") or "" for piece in self._pieces)
        calls = [piece["tool_calls"] for piece in self._pieces if piece.get("tool_calls")]
        return tokens(self._body.get("messages", [])), tokens(text) + tokens(calls or "")


async def _json(request: web.Request) -> Any:
    try:
        return msgspec.json.decode(await request.read())
    except msgspec.DecodeError as problem:
        message = f"We could not parse the JSON body of your request: {problem}."
        raise Failure(400, message, code="invalid_json") from problem


async def _form(request: web.Request) -> tuple[str, str, bytes | None]:
    """The purpose, the file's name and its content."""
    if not request.content_type.startswith("multipart/"):
        raise Failure(400, "The body must be multipart/form-data.")
    purpose, filename, content = "", "upload", None
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if part.name == "purpose":
            purpose = await part.text()
        elif part.name == "file":
            filename = part.filename or filename
            content = bytes(await part.read())
    return purpose, filename, content


def _cut(rows: list[dict[str, Any]], request: web.Request, *, most: int, usual: int) -> dict[str, Any]:
    """The page that `after` and `limit` ask for."""
    try:
        limit = int(request.query.get("limit", usual))
    except ValueError:
        limit = 0
    if not 1 <= limit <= most:
        raise Failure(400, f"The limit must be from 1 to {most}.", param="limit")
    after = request.query.get("after")
    if after is not None:
        places = [index for index, row in enumerate(rows) if row["id"] == after]
        if not places:
            raise Failure(400, f"No object with id {after!r}.", param="after")
        rows = rows[places[0] + 1 :]
    return _page(rows[:limit], has_more=len(rows) > limit)


def _page(rows: list[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    ends = (
        {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        if rows
        else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": rows, **ends, "has_more": has_more}


def _json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json"
    )


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
