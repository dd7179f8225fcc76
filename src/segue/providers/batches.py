"""The wire format of OpenAI's Files and Batches: job lines, jobs and outcomes. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from ..ports.provider import LineResult, RemoteJob
from .masking import Mask

LABEL = "segue"  #: the key of our nonce in a job's metadata
_OVER = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})


class _Error(msgspec.Struct):
    code: str | int | None = None
    message: str | None = None
    line: int | None = None


class _Errors(msgspec.Struct):
    data: list[_Error] | None = None


class _Counts(msgspec.Struct):
    total: int | None = None
    completed: int | None = None
    failed: int | None = None


class Job(msgspec.Struct):
    """A job as the wire has it."""

    id: str
    status: str
    created_at: float | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    request_counts: _Counts | None = None
    metadata: dict[str, Any] | None = None

    @property
    def nonce(self) -> str:
        label = (self.metadata or {}).get(LABEL, "")
        return label if isinstance(label, str) else ""


class Page(msgspec.Struct):
    """A part of the list of jobs."""

    data: list[Job]
    has_more: bool | None = None


class Stored(msgspec.Struct):
    """An uploaded file."""

    id: str


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: msgspec.Raw = msgspec.Raw(b"")


class _Outcome(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: dict[str, Any] | None = None


class _Coded(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _Failed(msgspec.Struct):
    error: _Coded | None = None


_outcome = msgspec.json.Decoder(_Outcome)
_failed = msgspec.json.Decoder(_Failed)


def job_line(ident: str, path: str, body: bytes) -> bytes:
    """One line of a job's file; the body goes in as it is."""
    if b"\n" in body or b"\r" in body:  # in JSON they stand between tokens only
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    head = b'{"custom_id":%s,"method":"POST","url":%s,"body":' % (
        msgspec.json.encode(ident),
        msgspec.json.encode(path),
    )
    return head + body + b"}\n"


def remote_job(job: Job, mask: Mask) -> RemoteJob:
    """A job in the words of the contract."""
    status = job.status.lower()
    counts = job.request_counts or _Counts()
    files = tuple(each for each in (job.output_file_id, job.error_file_id) if each)
    errors = (job.errors.data if job.errors else None) or []
    rejected = ""
    if status == "failed" and not files:
        rejected = mask(_told(errors))
    return RemoteJob(
        id=job.id,
        status=status,
        over=status in _OVER,
        done=counts.completed or 0,
        failed=counts.failed or 0,
        total=counts.total or 0,
        nonce=job.nonce,
        file=job.input_file_id or "",
        files=files,
        rejected=rejected,
        bad_lines=tuple(sorted({each.line for each in errors if each.line})),
    )


def line_result(line: bytes, mask: Mask) -> LineResult | str:
    """One line of an outcome file, or what is wrong with it."""
    try:
        outcome = _outcome.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return f"{mask(str(problem))}: {mask.quoted(line)}"
    response, error = outcome.response, outcome.error
    if not outcome.custom_id:
        return f"it has no custom_id: {mask.quoted(line)}"
    if response is None:
        body = b"" if error is None else msgspec.json.encode({"error": error})
        return LineResult(outcome.custom_id, 0, _masked(body, mask), mask(_code(error) or "no_response"))
    status = response.status_code or 0
    body = bytes(response.body)
    if status == 200:
        return LineResult(outcome.custom_id, status, body)
    return LineResult(outcome.custom_id, status, _masked(body, mask), mask(_body_code(body) or _code(error)))


def _told(errors: list[_Error]) -> str:
    told = [
        f"{f'line {each.line}: ' if each.line else ''}{each.message or each.code or 'no reason given'}"
        f"{f' ({each.code})' if each.code and each.message else ''}"
        for each in errors[:5]
    ]
    if len(errors) > 5:
        told.append(f"and {len(errors) - 5} more")
    return "; ".join(told) or "it failed, and no reason was given"


def _masked(body: bytes, mask: Mask) -> bytes:
    return mask(body.decode("utf-8", "replace")).encode()


def _code(error: dict[str, Any] | None) -> str:
    code = (error or {}).get("code")
    return str(code) if isinstance(code, str | int) else ""


def _body_code(body: bytes) -> str:
    try:
        error = _failed.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return "" if error is None else str(error.code or error.type or "")
