"""xAI's jobs: made of an OpenAI file, but with counts for a status, and outcomes that are read page by page."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from typing import Any

import msgspec

from .batches import LABEL, PAGE, Counts, Errors, Format, Job, JobError, Page, moment


class _State(msgspec.Struct):
    num_requests: int | None = None
    num_pending: int | None = None
    num_success: int | None = None
    num_error: int | None = None
    num_cancelled: int | None = None


class _Job(msgspec.Struct):
    batch_id: str
    name: str | None = None
    create_time: str | None = None
    cancel_time: str | None = None
    cancel_by_xai_message: str | None = None
    input_file_id: str | None = None
    state: _State | None = None

    def status(self) -> str:
        """Nothing but counts says how far it is; before the file is read and after it was refused all are 0."""
        state = self.state or _State()
        if self.cancel_by_xai_message:
            return "failed"
        if state.num_pending:
            return "in_progress"
        if self.cancel_time or state.num_cancelled:
            return "cancelled"
        return "completed" if state.num_requests else "validating"


class _Jobs(msgspec.Struct):
    batches: list[_Job] | None = None
    pagination_token: str | None = None


class _Result(msgspec.Struct):
    response: dict[str, msgspec.Raw] | None = None
    error: dict[str, Any] | None = None


class _Row(msgspec.Struct):
    batch_request_id: str
    batch_result: _Result | None = None
    error_message: str | None = None


class _Rows(msgspec.Struct):
    results: list[msgspec.Raw] | None = None
    pagination_token: str | None = None


_job = msgspec.json.Decoder(_Job)
_jobs = msgspec.json.Decoder(_Jobs)
_row = msgspec.json.Decoder(_Row)
_rows = msgspec.json.Decoder(_Rows)

#: gRPC's codes, which errors of lines have, as HTTP has them.
_STATUS = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 13: 500, 14: 503, 16: 401}
_ROWS = 1_000  #: outcomes that are asked for at a time


class XAIFormat(Format):
    """xAI: a job has a name for a label; its outcomes are pages of its own, not a file."""

    max_bytes = 45_000_000
    live_only = ("embed",)
    paged = True

    def fields(self, name: str) -> dict[str, str]:
        """See `Format.fields`."""
        return {}

    def asked(self, file: str, path: str, nonce: str, model: str) -> dict[str, Any]:
        """See `Format.asked`."""
        return {"name": nonce, "input_file_id": file}

    def job(self, body: bytes) -> Job:
        """See `Format.job`."""
        return _told(_job.decode(body))

    def list(self, page: int, after: str) -> str:
        """See `Format.list`."""
        return f"{self.jobs}?limit={PAGE}{_from(after)}"

    def page(self, body: bytes) -> Page:
        """See `Format.page`."""
        page = _jobs.decode(body)
        following = page.pagination_token or ""
        return Page(
            [_told(each) for each in page.batches or ()], has_more=bool(following), following=following
        )

    def cancel(self, job: str) -> str:
        """See `Format.cancel`."""
        return f"{self.jobs}/{job}:cancel"

    def outcomes(self, file: str, after: str) -> str:
        """See `Format.outcomes`. The file is the job itself."""
        return f"{self.jobs}/{file}/results?limit={_ROWS}{_from(after)}"

    def rows(self, body: bytes) -> tuple[Sequence[bytes], str]:
        """See `Format.rows`."""
        page = _rows.decode(body)
        return [_line(bytes(raw)) for raw in page.results or ()], page.pagination_token or ""


def _from(token: str) -> str:
    return f"&pagination_token={urllib.parse.quote(token, safe='')}" if token else ""


def _told(job: _Job) -> Job:
    state, status = job.state or _State(), job.status()
    refused = job.cancel_by_xai_message
    worked = bool(state.num_success or state.num_error)
    return Job(
        id=job.batch_id,
        status=status,
        created_at=moment(job.create_time),
        input_file_id=job.input_file_id,
        output_file_id=job.batch_id if worked and status != "in_progress" else None,
        errors=Errors([JobError(message=refused)]) if refused else None,
        request_counts=Counts(state.num_requests, state.num_success, state.num_error),
        metadata={LABEL: job.name or ""},
    )


def _line(raw: bytes) -> bytes:
    """An outcome as OpenAI writes it. What can't be read is left as it is, for whoever reads lines to say so."""
    try:
        row = _row.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return raw
    result = row.batch_result or _Result()
    for body in (result.response or {}).values():
        return _as_openai(row.batch_request_id, 200, bytes(body))
    error = result.error or {"message": row.error_message or "it failed, and no reason was given"}
    code = error.get("code")
    status = _STATUS.get(code, 500) if isinstance(code, int) else 500
    return _as_openai(row.batch_request_id, status, msgspec.json.encode({"error": error}))


def _as_openai(ident: str, status: int, body: bytes) -> bytes:
    head = b'{"custom_id":%s,"response":{"status_code":%d,"body":' % (msgspec.json.encode(ident), status)
    return head + body + b"}}"
