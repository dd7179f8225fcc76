"""xAI: OpenAI's chat and files; jobs with a name and counts, and their outcomes page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web

from .batches import Batch
from .openai import OpenAI
from .replies import Failure
from .service import json_of, json_response

__all__ = ["XAI"]

_CHAT = "/v1/chat/completions"
_WITHIN = timedelta(hours=24)
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14, 504: 4}


class XAI(OpenAI):
    """A job is over once nothing is pending; what was wrong with its file is told in words, with all counts 0."""

    name = "xai"
    usual_purpose = "batch"

    def batch_routes(self, at: str) -> list[web.RouteDef]:
        return [
            web.post(f"{at}/batches", self._create_batch),
            web.get(f"{at}/batches", self._list_batches),
            web.get(f"{at}/batches/{{id}}/results", self._results),
            web.get(f"{at}/batches/{{id}}", self._batch),
            web.post(f"{at}/batches/{{id}}:cancel", self._cancel_batch),
        ]

    async def _create_batch(self, request: web.Request) -> web.StreamResponse:
        asked = await json_of(request)
        for name in ("name", "input_file_id"):
            if not isinstance(asked, dict) or not isinstance(asked.get(name), str) or not asked[name]:
                raise Failure(400, f"missing field `{name}`", param=name)
        batch = self._service.processor.create(
            self.name,
            window=_WITHIN,
            endpoint=_CHAT,
            input_file_id=asked["input_file_id"],
            asked={"name": asked["name"]},
        )
        return json_response(self.batch_view(batch))

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        views = [self.batch_view(batch) for batch in self._service.processor.all(self.name)]
        shown, following = _page(views, request, usual=100)
        return json_response({"batches": shown, "pagination_token": following})

    async def _results(self, request: web.Request) -> web.StreamResponse:
        batch, files = self._known(request), self._service.files
        found = [file for file in (batch.output_file_id, batch.error_file_id) if file]
        lines = [line for file in found for line in files.content(file).splitlines()]
        shown, following = _page(lines, request, usual=100)
        results = [_result(line) for line in shown]
        return json_response({"results": results, "pagination_token": following})

    def batch_view(self, batch: Batch) -> dict[str, Any]:
        refused = batch.status == "failed"
        total = 0 if refused or batch.status == "validating" else batch.total
        left = total - batch.completed - batch.failed
        held = int(bool(total) and not batch.final and not left)  # one that isn't written down yet is pending
        cancelled = left if batch.status == "cancelled" else 0
        return {
            "batch_id": batch.id,
            "name": batch.asked["name"],
            "create_time": _moment(batch.created_at),
            "expire_time": _moment(batch.created_at + timedelta(days=30).total_seconds()),
            "cancel_time": None if batch.cancelled_at is None else _moment(batch.cancelled_at),
            "cancel_by_xai_message": batch.errors[0].message if refused else None,
            "input_file_id": batch.input_file_id,
            "state": {
                "num_requests": total,
                "num_pending": 0 if batch.final else left + held,
                "num_success": max(0, batch.completed - held),
                "num_error": batch.failed + (left - cancelled if batch.final else 0),
                "num_cancelled": cancelled,
            },
        }


def _page(items: list[Any], request: web.Request, *, usual: int) -> tuple[list[Any], str | None]:
    begin, size = int(request.query.get("pagination_token", 0)), int(request.query.get("limit", usual))
    end = begin + size
    return items[begin:end], str(end) if end < len(items) else None


def _result(line: bytes) -> Any:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line.decode("utf-8", "replace")
    answer, ident = row["response"], row["custom_id"]
    if answer is not None and answer["status_code"] == 200:
        return {
            "batch_request_id": ident,
            "batch_result": {"response": {"chat_get_completion": answer["body"]}},
        }
    status, error = (answer["status_code"], answer["body"].get("error")) if answer else (504, row["error"])
    told = {"code": _CODES.get(status, 13), "message": (error or {}).get("message", "")}
    return {"batch_request_id": ident, "batch_result": {"error": told}}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
