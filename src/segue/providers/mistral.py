"""Mistral's jobs: the model stands with the job, and they count and list otherwise."""

from __future__ import annotations

from typing import Any

import msgspec

from .batches import LABEL, PAGE, Counts, Errors, Format, Job, JobError, Page

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Job(msgspec.Struct):
    id: str
    status: str
    created_at: float | None = None
    input_files: list[str] = []
    output_file: str | None = None
    error_file: str | None = None
    errors: list[dict[str, Any]] = []
    total_requests: int | None = None
    succeeded_requests: int | None = None
    failed_requests: int | None = None
    metadata: dict[str, Any] | None = None


class _Jobs(msgspec.Struct):
    data: list[_Job] | None = None


_job = msgspec.json.Decoder(_Job)
_jobs = msgspec.json.Decoder(_Jobs)
_STATUS = {"success": "completed", "timeout_exceeded": "expired", "cancellation_requested": "cancelling"}


class MistralFormat(Format):
    """Mistral: the model stands with the job, not in its lines."""

    jobs = "/v1/batch/jobs"

    def line(self, ident: str, path: str, body: bytes) -> bytes:
        """See `Format.line`."""
        asked = {name: value for name, value in _object.decode(body).items() if name != "model"}
        return msgspec.json.encode({"custom_id": ident, "body": asked}) + b"\n"

    def asked(self, file: str, path: str, nonce: str, model: str) -> dict[str, Any]:
        """See `Format.asked`."""
        return {
            "input_files": [file],
            "endpoint": path,
            "model": model,
            "timeout_hours": 24,
            "metadata": {LABEL: nonce},
        }

    def job(self, body: bytes) -> Job:
        """See `Format.job`."""
        return self._told(_job.decode(body))

    def list(self, page: int, after: str) -> str:
        """See `Format.list`."""
        return f"{self.jobs}?page={page}&page_size={PAGE}"

    def page(self, body: bytes) -> Page:
        """See `Format.page`."""
        return Page([self._told(each) for each in _jobs.decode(body).data or ()])

    def _told(self, job: _Job) -> Job:
        status = job.status.lower()
        return Job(
            id=job.id,
            status=_STATUS.get(status, status),
            created_at=job.created_at,
            input_file_id=job.input_files[0] if job.input_files else None,
            output_file_id=job.output_file,
            error_file_id=job.error_file,
            errors=Errors([JobError(message=str(each.get("message") or each)) for each in job.errors]),
            request_counts=Counts(job.total_requests, job.succeeded_requests, job.failed_requests),
            metadata=job.metadata,
        )
