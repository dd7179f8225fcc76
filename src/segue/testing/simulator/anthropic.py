"""Anthropic's dialect: Messages, and Message Batches."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from aiohttp import web

from . import anthropic_messages as wire
from .anthropic_cache import Cache
from .batches import Batch, Checked, Line, Row
from .dialect import ModelFault
from .model import Answer
from .replies import Failure
from .service import Service, json_of, json_response

__all__ = ["Anthropic"]

_PATH = "/v1/messages"
_DAY = timedelta(hours=24)
_MOST = 100_000
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Anthropic:
    """`Dialect` of Anthropic."""

    name = "anthropic"
    batch_prefix = "msgbatch_"
    validates = False

    def __init__(self, service: Service) -> None:
        self._service = service
        self._cache = Cache()

    def routes(self) -> Iterable[web.RouteDef]:
        one = "/v1/messages/batches/{id}"
        return [
            web.post(_PATH, self._messages),
            web.post("/v1/messages/batches", self._create),
            web.get("/v1/messages/batches", self._list),
            web.get(one, self._retrieve),
            web.delete(one, self._delete),
            web.post(f"{one}/cancel", self._cancel),
            web.get(f"{one}/results", self._results),
        ]

    def speaks(self, request: web.Request) -> bool:
        return request.path == _PATH or request.path.startswith(f"{_PATH}/")

    def asks_model(self, path: str) -> bool:
        return path == _PATH

    def key(self, request: web.Request) -> str:
        return request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix(
            "Bearer "
        )

    def error(self, failure: Failure) -> Any:
        return wire.error(failure, f"req_{next(self._service.ids)}")

    def usage(self, body: dict[str, Any]) -> tuple[int, int]:
        return wire.usage_of(body)

    # The model.

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        if not request.headers.get("anthropic-version"):
            raise Failure(400, "anthropic-version: header is required")
        body = await json_of(request)
        await self._service.think()
        try:
            if isinstance(body, dict) and body.get("stream") is True:
                return await self._stream(request, body)
            answer = await self._answer(body, "standard")
        except Failure as failure:
            self._service.enter(_PATH, body, failure.status)
            raise
        self._service.enter(_PATH, body, 200, wire.usage_of(answer))
        return json_response(answer, headers={"request-id": f"req_{next(self._service.ids)}"})

    def _checked(self, body: Any) -> dict[str, Any]:
        """The request as chat."""
        wrong = wire.check(body) or self._service.model.check_model(body["model"])
        if wrong is not None:
            raise wrong
        return wire.as_chat(body)

    def _tokens(self, body: dict[str, Any], tier: str) -> dict[str, Any]:
        return self._cache.usage(body, self._service.clock.now()) | {"output_tokens": 0, "service_tier": tier}

    async def _answer(self, body: Any, tier: str) -> dict[str, Any]:
        chat = self._checked(body)
        completion = await self._service.model.backend.complete(chat)
        ident = f"msg_{next(self._service.ids)}"
        return wire.message(completion, id=ident, usage=self._tokens(body, tier))

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        chunks = await self._service.model.backend.stream(self._checked(body))
        usage = self._tokens(body, "standard")
        begun: dict[str, Any] = {
            "id": f"msg_{next(self._service.ids)}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        heard = {**usage}
        try:
            return await self._service.stream(request, wire.events(chunks, begun, heard), error=_broken)
        finally:
            self._service.enter(_PATH, body, 200, wire.usage_of({"usage": heard}))

    # Batches.

    async def _create(self, request: web.Request) -> web.StreamResponse:
        asked = await json_of(request)
        lines = _lines(asked)
        content = b"".join(lines)
        limits = self._service.limits
        if len(content) > limits.bytes:
            raise Failure(413, "Request exceeds the maximum allowed number of bytes.")
        if message := self._service.processor.over_quota(None, len(content) // 4):
            raise Failure(429, message)
        file = self._service.files.add(
            content,
            purpose="requests",
            filename="requests.jsonl",
            now=self._service.clock.now(),
            owner=self.name,
        )
        batch = self._service.processor.create(
            self.name, endpoint=_PATH, input_file_id=file.id, window=_DAY, asked={}, total=len(lines)
        )
        return json_response(self._view(request, batch))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        views = [self._view(request, batch) for batch in self._service.processor.all(self.name)]
        return json_response(_page(views, request))

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._view(request, self._known(request)))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self._known(request)
        if batch.final:
            raise Failure(400, f"Batch {batch.id} cannot be canceled: processing has ended.")
        if batch.status != "finalizing":
            self._service.processor.cancel(batch.id)
        return json_response(self._view(request, batch))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        batch = self._known(request)
        if not batch.final:
            raise Failure(400, f"Batch {batch.id} cannot be deleted: it is still in progress.")
        self._service.processor.forget(batch.id)
        return json_response({"id": batch.id, "type": "message_batch_deleted"})

    async def _results(self, request: web.Request) -> web.StreamResponse:
        batch = self._known(request)
        if not batch.final:
            raise Failure(400, f"Batch {batch.id} has not finished processing.")
        if not batch.output_file_id:
            raise Failure(404, f"No results for batch {batch.id}.")
        content = self._service.files.content(batch.output_file_id)
        return web.Response(body=content, content_type="application/x-jsonl")

    def _known(self, request: web.Request) -> Batch:
        batch = self._service.processor.get(request.match_info["id"])
        if batch is None or batch.dialect != self.name:
            raise Failure(404, f"Message batch {request.match_info['id']} not found.")
        return batch

    def _view(self, request: web.Request, batch: Batch) -> dict[str, Any]:
        """A batch. Its counts are zeros, all but `processing`, until it ends."""
        status = "ended" if batch.final else "canceling" if batch.status == "cancelling" else "in_progress"
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        ended = batch.completed_at or batch.expired_at or batch.cancelled_at
        if batch.final:
            left = batch.total - batch.completed - batch.failed
            counts |= {"succeeded": batch.completed, "errored": batch.failed}
            counts["canceled" if batch.status == "cancelled" else "expired"] = left
        else:
            counts["processing"] = batch.total
        url: str | None = None
        if batch.final and batch.error_file_id == "":  # a fault
            url = ""
        elif batch.output_file_id:
            url = f"{request.scheme}://{request.host}{_PATH}/batches/{batch.id}/results"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": counts,
            "ended_at": _moment(ended),
            "created_at": _moment(batch.created_at),
            "expires_at": _moment(batch.created_at + _DAY.total_seconds()),
            "archived_at": None,
            "cancel_initiated_at": _moment(batch.cancelling_at),
            "results_url": url,
        }

    def read(self, batch: Batch, content: bytes, model_fault: ModelFault) -> Checked:
        rows = [msgspec.json.decode(line) for line in content.splitlines()]
        lines = [Line(row["custom_id"], msgspec.json.encode(row["params"])) for row in rows]
        return Checked(lines, None, len(content) // 4, [])

    async def work(self, endpoint: str, body: Any) -> Answer:
        try:
            if body.get("stream"):
                raise Failure(400, "stream: streaming is not supported in a batch")
            return Answer(200, await self._answer(body, "batch"))
        except Failure as failure:
            return Answer(failure.status, self.error(failure))

    def row(self, batch: Batch, row: Row) -> tuple[Literal["output", "error"], dict[str, Any]]:
        result: dict[str, Any]
        if row.outcome is None:
            result = {"type": "canceled" if batch.status == "cancelled" else "expired"}
        elif row.outcome.status == 200:
            result = {"type": "succeeded", "message": row.outcome.body}
        else:
            result = {"type": "errored", "error": row.outcome.body}
        return "output", {"custom_id": row.id, "result": result}


def _lines(asked: Any) -> list[bytes]:
    """The requests of a batch, a line each. Raises `Failure` for what is refused at once."""
    requests = asked.get("requests") if isinstance(asked, dict) else None
    if not isinstance(requests, list) or not requests:
        raise Failure(400, "requests: List should have at least 1 item after validation, not 0")
    if len(requests) > _MOST:
        raise Failure(400, f"requests: List should have at most {_MOST} items after validation")
    seen: set[str] = set()
    lines = []
    for at, each in enumerate(requests):
        ident = each.get("custom_id") if isinstance(each, dict) else None
        if not isinstance(ident, str) or not _ID.fullmatch(ident):
            raise Failure(
                400, f"requests.{at}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
            )
        if ident in seen:
            raise Failure(400, f"requests.{at}.custom_id: must be unique within the batch: {ident}")
        if not isinstance(each.get("params"), dict):
            raise Failure(400, f"requests.{at}.params: Field required")
        seen.add(ident)
        lines.append(msgspec.json.encode({"custom_id": ident, "params": each["params"]}) + b"\n")
    return lines


def _page(views: list[dict[str, Any]], request: web.Request) -> dict[str, Any]:
    try:
        limit = int(request.query.get("limit", 20))
    except ValueError:
        limit = 0
    if not 1 <= limit <= 1000:
        raise Failure(400, "limit: Input should be from 1 to 1000")
    ids = [view["id"] for view in views]
    first, last = 0, len(views)
    if (after := request.query.get("after_id")) is not None:
        first = ids.index(after) + 1 if after in ids else last
    if (before := request.query.get("before_id")) is not None:
        last = ids.index(before) if before in ids else first
        first = max(first, last - limit)
    data = views[first:last][:limit]
    ends = (
        {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
        if data
        else {"first_id": None, "last_id": None}
    )
    more = first > 0 if before is not None else first + limit < last
    return {"data": data, "has_more": more, **ends}


def _broken(failure: Failure) -> bytes:
    return wire.event("error", error=wire.error(failure)["error"])


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
