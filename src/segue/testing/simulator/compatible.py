"""Those who speak OpenAI's protocol with differences: one class a provider, the differences and no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web

from . import openai_batches
from .batches import Batch, Checked
from .dialect import ModelFault
from .files import File
from .model import ENDPOINTS
from .openai import OpenAI
from .replies import Failure
from .service import Service, json_of, json_response
from .xai import XAI

__all__ = ["PLAYS", "Azure", "Groq", "Mistral", "Together", "Without"]


class Azure(OpenAI):
    """Azure: other paths, the key in a header of its own; files are looked at first, and no job expires."""

    name = "azure"
    prefix = "/openai"

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._looks: dict[str, int] = {}

    def key(self, request: web.Request) -> str:
        return request.headers.get("api-key", "")

    def file_view(self, file: File) -> dict[str, Any]:
        looks = self._looks[file.id] = self._looks.get(file.id, 0) + 1
        return file.view() | ({"status": "pending"} if file.purpose == "batch" and looks < 3 else {})

    def window(self, asked: dict[str, Any]) -> timedelta:
        openai_batches.window_of(asked)
        if self._looks.get(asked["input_file_id"], 0) < 3:
            raise Failure(
                400, f"The file {asked['input_file_id']} is not processed yet.", code="file_not_ready"
            )
        return timedelta(days=365)


class Groq(OpenAI):
    """Groq: other paths."""

    name = "groq"
    prefix = "/openai"


class Without(OpenAI):
    """A server of one's own, such as vLLM or Ollama: no files, no batches."""

    name = "without"

    def file_routes(self, at: str) -> list[web.RouteDef]:
        return []

    def batch_routes(self, at: str) -> list[web.RouteDef]:
        return []


_MISTRAL = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "completed": "SUCCESS",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelling": "CANCELLATION_REQUESTED",
}


class Mistral(OpenAI):
    """Mistral: jobs elsewhere, under other names; the model stands with the job, and not in its lines."""

    name = "mistral"
    batch_prefix = ""

    def batch_routes(self, at: str) -> list[web.RouteDef]:
        return [
            web.post(f"{at}/batch/jobs", self._create_job),
            web.get(f"{at}/batch/jobs", self._list_jobs),
            web.get(f"{at}/batch/jobs/{{id}}", self._batch),
            web.post(f"{at}/batch/jobs/{{id}}/cancel", self._cancel_batch),
        ]

    async def _create_job(self, request: web.Request) -> web.StreamResponse:
        asked = await json_of(request)
        for name in ("input_files", "endpoint", "model"):
            if not isinstance(asked, dict) or not asked.get(name):
                raise Failure(422, f"Field required: {name}", param=name)
        if asked["endpoint"] not in ENDPOINTS:
            raise Failure(422, f"Invalid endpoint: {asked['endpoint']}", param="endpoint")
        batch = self._service.processor.create(
            self.name,
            window=timedelta(hours=asked.get("timeout_hours", 24)),
            endpoint=asked["endpoint"],
            input_file_id=asked["input_files"][0],
            asked={"metadata": asked.get("metadata"), "model": asked["model"]},
        )
        return json_response(self.batch_view(batch))

    async def _list_jobs(self, request: web.Request) -> web.StreamResponse:
        size, page = int(request.query.get("page_size", 100)), int(request.query.get("page", 0))
        views = [self.batch_view(batch) for batch in self._service.processor.all(self.name)]
        shown = views[page * size : (page + 1) * size]
        return json_response({"object": "list", "data": shown, "total": len(views)})

    def batch_view(self, batch: Batch) -> dict[str, Any]:
        return {
            "id": batch.id,
            "object": "batch",
            "input_files": [batch.input_file_id],
            "endpoint": batch.endpoint,
            "model": batch.asked["model"],
            "metadata": batch.asked["metadata"],
            "status": _MISTRAL.get(batch.status, batch.status.upper()),
            "output_file": batch.output_file_id or None,
            "error_file": batch.error_file_id or None,
            "errors": [{"message": each.message, "count": 1} for each in batch.errors],
            "created_at": int(batch.created_at),
            "total_requests": batch.total,
            "completed_requests": batch.completed + batch.failed,
            "succeeded_requests": batch.completed,
            "failed_requests": batch.failed,
        }

    def read(self, batch: Batch, content: bytes, model_fault: ModelFault) -> Checked:
        rows = [msgspec.json.decode(line) for line in content.splitlines() if line.strip()]
        for row in rows:
            if set(row) != {"custom_id", "body"}:
                raise Failure(400, "A line has custom_id and body, and nothing else")
            row |= {"method": "POST", "url": batch.endpoint}
            row["body"] = {"model": batch.asked["model"], **row["body"]}
        return super().read(batch, b"".join(msgspec.json.encode(row) + b"\n" for row in rows), model_fault)


class Together(OpenAI):
    """Together: files elsewhere and for another purpose; jobs have no label, and words in upper case."""

    name = "together"
    batch_prefix = ""
    purposes = frozenset({"batch-api"})

    def file_routes(self, at: str) -> list[web.RouteDef]:
        return [
            web.post(f"{at}/files/upload", self._upload),
            web.get(f"{at}/files/{{id}}", self._file),
            web.get(f"{at}/files/{{id}}/content", self._content),
        ]

    async def _create_batch(self, request: web.Request) -> web.StreamResponse:
        asked = await json_of(request)
        if "metadata" in asked:
            raise Failure(400, "Unknown field: metadata", param="metadata")
        return json_response({"job": self.batch_view(self._made(asked | {"metadata": None})), "warning": ""})

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        return json_response([self.batch_view(batch) for batch in self._service.processor.all(self.name)])

    def batch_view(self, batch: Batch) -> dict[str, Any]:
        done = batch.completed + batch.failed
        return {
            "id": batch.id,
            "user_id": "user",
            "input_file_id": batch.input_file_id,
            "file_size_bytes": 0,
            "status": batch.status.upper(),
            "created_at": datetime.fromtimestamp(batch.created_at, UTC).isoformat().replace("+00:00", "Z"),
            "endpoint": batch.endpoint,
            "progress": 100.0 * done / batch.total if batch.total else 0.0,
            "model_id": batch.model or "",
            "output_file_id": batch.output_file_id or None,
            "error_file_id": batch.error_file_id or None,
            "error": batch.errors[0].message if batch.errors else None,
        }


#: What `Simulator(plays=…)` knows.
PLAYS: dict[str, type[OpenAI]] = {
    "azure": Azure,
    "groq": Groq,
    "mistral": Mistral,
    "openai": OpenAI,
    "together": Together,
    "without": Without,
    "xai": XAI,
}
