"""Together's jobs: files go elsewhere, and jobs have no label and are listed all at once."""

from __future__ import annotations

from typing import Any

import msgspec

from .batches import Errors, Format, Job, JobError, Page, moment

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Job(msgspec.Struct):
    id: str
    status: str
    created_at: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    error: str | None = None


class _Made(msgspec.Struct):
    job: _Job


_job = msgspec.json.Decoder(_Job)
_made = msgspec.json.Decoder(_Made)
_jobs = msgspec.json.Decoder(list[_Job] | None)


class TogetherFormat(Format):
    """Together: files go elsewhere and under another purpose; jobs have no label, and are listed all at once."""

    uploads = "/v1/files/upload"
    purpose = "batch-api"
    max_bytes = 95_000_000

    def fields(self, name: str) -> dict[str, str]:
        """See `Format.fields`."""
        return {"purpose": self.purpose, "file_name": name, "file_type": "jsonl"}

    def asked(self, file: str, path: str, nonce: str, model: str) -> dict[str, Any]:
        """See `Format.asked`."""
        return {"input_file_id": file, "endpoint": path, "completion_window": self.window}

    def job(self, body: bytes) -> Job:
        """See `Format.job`. One that was just made is wrapped."""
        made = "job" in _object.decode(body)
        return self._told(_made.decode(body).job if made else _job.decode(body))

    def list(self, page: int, after: str) -> str:
        """See `Format.list`."""
        return self.jobs

    def page(self, body: bytes) -> Page:
        """See `Format.page`."""
        return Page([self._told(each) for each in _jobs.decode(body) or ()], has_more=False)

    def _told(self, job: _Job) -> Job:
        return Job(
            id=job.id,
            status=job.status.lower(),
            created_at=moment(job.created_at),
            input_file_id=job.input_file_id,
            output_file_id=job.output_file_id,
            error_file_id=job.error_file_id,
            errors=Errors([JobError(message=job.error)]) if job.error else None,
        )
