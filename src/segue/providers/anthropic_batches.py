"""The wire format of Anthropic's Message Batches: requests, jobs and outcomes. No I/O.

A batch carries no label, so each of its ids does: `LINE-LABEL`, the label being of the submission. So one line of
the results says whose they are, and a batch that was submitted in a life that ended can be known again.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from ..model.errors import InvalidValue
from ..ports.provider import LineResult, RemoteJob
from .faults import named
from .masking import Mask

_FITS = re.compile(r"[a-zA-Z0-9_-]{1,47}")
_LABELLED = re.compile(r"(.+)-([0-9a-f]{16})")
_STATUS = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "timeout_error": 504,
    "overloaded_error": 529,
}  # fmt: skip
_ENDS = {"expired": "batch_expired", "canceled": "batch_cancelled"}


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class Job(msgspec.Struct):
    """A batch as the wire has it."""

    id: str
    processing_status: str
    created_at: str = ""
    results_url: str | None = None
    request_counts: _Counts = msgspec.field(default_factory=_Counts)

    @property
    def over(self) -> bool:
        return self.processing_status == "ended"

    @property
    def total(self) -> int:
        counts = self.request_counts
        return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired

    @property
    def created(self) -> float:
        """In epoch seconds; endless where it isn't told."""
        try:
            return datetime.fromisoformat(self.created_at).timestamp()
        except ValueError:
            return float("inf")


class Page(msgspec.Struct):
    """A part of the list of batches, the newest first."""

    data: list[Job]
    has_more: bool = False


class _Error(msgspec.Struct):
    type: str | None = None
    message: str | None = None


class _Told(msgspec.Struct):
    error: _Error | None = None


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _Outcome(msgspec.Struct):
    custom_id: str
    result: _Result


_outcome = msgspec.json.Decoder(_Outcome)
_told = msgspec.json.Decoder(_Told)


def label_of(nonce: str) -> str:
    """What the ids of a submission end with."""
    return re.sub(r"[^0-9a-f]", "0", nonce.lower())[:16].ljust(16, "0")


def labelled(ident: str) -> tuple[str, str]:
    """A line's own id, and the label of its submission; empty where there is none."""
    found = _LABELLED.fullmatch(ident)
    return (found[1], found[2]) if found else (ident, "")


def request(ident: str, label: str, body: bytes) -> bytes:
    """One request of a batch. What is marked for the cache is kept for an hour: a batch takes longer than minutes."""
    if not _FITS.fullmatch(ident):
        raise InvalidValue(
            "a line's id", "up to 47 letters, digits, '-' and '_'", "Anthropic takes no other", repr(ident)
        )
    # a quotation mark that isn't escaped is no part of a text, so this is structure
    body = body.replace(
        b'"cache_control":{"type":"ephemeral"}', b'"cache_control":{"type":"ephemeral","ttl":"1h"}'
    )
    return b'{"custom_id":"%s-%s","params":%s}' % (ident.encode(), label.encode(), body)


def remote_job(job: Job) -> RemoteJob:
    """A batch in the words of the contract."""
    counts = job.request_counts
    return RemoteJob(
        id=job.id,
        status=job.processing_status,
        over=job.over,
        done=counts.succeeded,
        failed=counts.errored,
        total=job.total,
    )


def line_result(line: bytes, mask: Mask) -> LineResult | str:
    """One line of the results, or what is wrong with it."""
    try:
        outcome = _outcome.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return f"{mask(str(problem))}: {mask.quoted(line)}"
    ident, _ = labelled(outcome.custom_id)
    if not ident:
        return f"it has no custom_id: {mask.quoted(line)}"
    result = outcome.result
    if result.type == "succeeded":
        return LineResult(ident, 200, bytes(result.message))
    if result.type in _ENDS:
        return LineResult(ident, 0, b"", _ENDS[result.type])
    body = mask(bytes(result.error).decode("utf-8", "replace")).encode()
    error = _error(body)
    kind = error.type or ""
    code = named(0, error.message or "", "", kind)
    return LineResult(ident, _STATUS.get(kind, 500), body, mask(code)[:100])


def _error(body: bytes) -> _Error:
    try:
        return _told.decode(body).error or _Error()
    except msgspec.DecodeError:
        return _Error()


def job_page(body: bytes) -> Page:
    """A page of the list. Raises `ValueError`."""
    return msgspec.json.decode(body, type=Page)


def job(body: bytes) -> Job:
    """A batch. Raises `ValueError`."""
    return msgspec.json.decode(body, type=Job)
