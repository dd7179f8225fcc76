"""The wire format of Files and Batches, OpenAI's: lines, jobs and outcomes. No I/O.

Those who differ say where: `AzureFormat`, `GroqFormat`, `mistral.py`, `together.py`, `xai.py`.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from ..ports.provider import LineResult, RemoteJob
from .faults import named, told
from .masking import Mask

LABEL = "segue"  #: the key of our nonce in a job's metadata
_OVER = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})


class JobError(msgspec.Struct):
    """What is wrong with a job, or with one of its lines."""

    code: str | int | None = None
    message: str | None = None
    line: int | None = None


class Errors(msgspec.Struct):
    """All that is wrong with a job."""

    data: list[JobError] | None = None


class Counts(msgspec.Struct):
    """How many of a job's lines have ended, and how."""

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
    errors: Errors | None = None
    request_counts: Counts | None = None
    metadata: dict[str, Any] | None = None

    @property
    def nonce(self) -> str:
        label = (self.metadata or {}).get(LABEL, "")
        return label if isinstance(label, str) else ""


class Page(msgspec.Struct):
    """A part of the list of jobs."""

    data: list[Job]
    has_more: bool | None = None
    following: str = ""  #: what asks for the next one, if it isn't the id of the last job

    @property
    def cursor(self) -> str:
        """What asks for the page after this one, which isn't empty."""
        return self.following or self.data[-1].id

    def more(self, most: int) -> bool:
        """Whether another page may follow this one, which was to hold so many at most."""
        return bool(self.data) and (self.has_more if self.has_more is not None else len(self.data) >= most)


class Stored(msgspec.Struct):
    """An uploaded file."""

    id: str
    status: str | None = None


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: msgspec.Raw = msgspec.Raw(b"")


class _Outcome(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: dict[str, Any] | None = None


_outcome = msgspec.json.Decoder(_Outcome)
_text = msgspec.json.Encoder().encode


def job_line(ident: str, path: str, body: bytes) -> bytes:
    """One line of a job's file; the body goes in as it is."""
    if b"\n" in body or b"\r" in body:  # in JSON they stand between tokens only
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return b'{"custom_id":%s%s%s}\n' % (_text(ident), _between(path), body)


@lru_cache(64)
def _between(path: str) -> bytes:
    return b',"method":"POST","url":%s,"body":' % _text(path)


_job = msgspec.json.Decoder(Job)
_page = msgspec.json.Decoder(Page)

PAGE = 100  #: jobs that are asked for at a time


class Format:
    """How a provider's files and jobs look: OpenAI's. Others say where they differ. Paths begin with `/v1`."""

    jobs = "/v1/batches"
    files = "/v1/files"
    uploads = "/v1/files"
    purpose = "batch"
    window = "24h"
    max_lines = 50_000
    max_bytes = 190_000_000  #: of bodies; 200 MB less what stands around them in a file
    settles = False  #: an uploaded file has to be looked at until it is processed
    live_only: tuple[str, ...] = ()  #: endpoints that it takes no jobs for
    paged = False  #: outcomes come in pages (`rows`), not as the lines of a file

    def fields(self, name: str) -> dict[str, str]:
        """What goes with a file, but for the file."""
        return {"purpose": self.purpose}

    def line(self, ident: str, path: str, body: bytes) -> bytes:
        """One line of a job's file."""
        return job_line(ident, path, body)

    def asked(self, file: str, path: str, nonce: str, model: str) -> dict[str, Any]:
        """The request for a job."""
        return {
            "input_file_id": file,
            "endpoint": path,
            "completion_window": self.window,
            "metadata": {LABEL: nonce},
        }

    def job(self, body: bytes) -> Job:
        """A job as it is told of. Raises `ValueError`."""
        return _job.decode(body)

    def list(self, page: int, after: str) -> str:
        """Where a page of the list of jobs is; pages count from 0, `after` is the last id of the one before."""
        cursor = f"&after={urllib.parse.quote(after, safe='')}" if after else ""
        return f"{self.jobs}?limit={PAGE}{cursor}"

    def page(self, body: bytes) -> Page:
        """A page of that list. Raises `ValueError`."""
        return _page.decode(body)

    def cancel(self, job: str) -> str:
        """Where a job is cancelled; its id is quoted already, as all that follow."""
        return f"{self.jobs}/{job}/cancel"

    def outcomes(self, file: str, after: str) -> str:
        """Where a file of outcomes is, or its page after that which told `after`."""
        return f"{self.files}/{file}/content"

    def rows(self, body: bytes) -> tuple[Sequence[bytes], str]:
        """A page of outcomes, as lines that OpenAI would write, and what asks for the next. Raises `ValueError`."""
        raise NotImplementedError


class AzureFormat(Format):
    """Azure: a file is looked at before a job may name it."""

    settles = True


class GroqFormat(Format):
    """Groq: smaller files."""

    max_bytes = 95_000_000


def moment(text: str | None) -> float | None:
    """A time as ISO 8601 in epoch seconds; None where it isn't told."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def remote_job(job: Job, mask: Mask) -> RemoteJob:
    """A job in the words of the contract."""
    status = job.status.lower()
    counts = job.request_counts or Counts()
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
        faults={each.line: mask(_reason(each)) for each in reversed(errors) if each.line},
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
    message, code, kind = told(body)
    named_code = named(status, message, code or _code(error), kind)
    return LineResult(outcome.custom_id, status, _masked(body, mask), mask(named_code))


def _reason(error: JobError) -> str:
    code = f" ({error.code})" if error.code and error.message else ""
    return f"{error.message or error.code or 'no reason given'}{code}"


def _told(errors: list[JobError]) -> str:
    told = [f"{f'line {each.line}: ' if each.line else ''}{_reason(each)}" for each in errors[:5]]
    if len(errors) > 5:
        told.append(f"and {len(errors) - 5} more")
    return "; ".join(told) or "it failed, and no reason was given"


def _masked(body: bytes, mask: Mask) -> bytes:
    return mask(body.decode("utf-8", "replace")).encode()


def _code(error: dict[str, Any] | None) -> str:
    code = (error or {}).get("code")
    return str(code) if isinstance(code, str | int) else ""
