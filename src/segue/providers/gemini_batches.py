"""The wire format of Gemini's files and batches: lines, operations and responses. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from ..ports.provider import LineResult, RemoteJob
from .faults import named
from .masking import Mask

_OVER = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled", "expired"})


class _Output(msgspec.Struct, rename="camel"):
    responses_file: str | None = None


class _Input(msgspec.Struct, rename="camel"):
    file_name: str | None = None


class _Stats(msgspec.Struct, rename="camel"):
    request_count: int | str = 0
    successful_request_count: int | str = 0
    failed_request_count: int | str = 0


class _Metadata(msgspec.Struct, rename="camel"):
    state: str = ""
    display_name: str = ""
    create_time: str = ""
    input_config: _Input | None = None
    output: _Output | None = None
    batch_stats: _Stats | None = None


class _Status(msgspec.Struct):
    code: int | None = None
    message: str | None = None


class Operation(msgspec.Struct):
    """A batch as the wire has it."""

    name: str
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    response: _Output | None = None
    error: _Status | None = None
    done: bool = False

    @property
    def file(self) -> str:
        """What its requests were read from."""
        config = self.metadata.input_config
        return (config.file_name if config is not None else None) or ""

    @property
    def created(self) -> float:
        """In epoch seconds; endless where it isn't told."""
        try:
            return datetime.fromisoformat(self.metadata.create_time).timestamp()
        except ValueError:
            return float("inf")


class Page(msgspec.Struct, rename="camel"):
    """A part of the list of batches."""

    operations: list[Operation] = []
    next_page_token: str = ""


class _File(msgspec.Struct):
    name: str


class _Uploaded(msgspec.Struct):
    file: _File


class _Error(msgspec.Struct):
    code: int | None = None
    message: str | None = None
    status: str | None = None


class _Line(msgspec.Struct):
    key: str | None = None
    response: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None
    status: _Error | None = None


_line = msgspec.json.Decoder(_Line)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])

operation = msgspec.json.Decoder(Operation).decode
page = msgspec.json.Decoder(Page).decode


def uploaded(body: bytes) -> str:
    """The name of a file that was uploaded. Raises `ValueError`."""
    return msgspec.json.decode(body, type=_Uploaded).file.name


def without_model(body: bytes) -> tuple[str, bytes]:
    """The model that a request's body names, and the rest: on the wire it stands in the path."""
    asked: dict[str, Any] = {**_object.decode(body)}
    model = asked.pop("model", None)
    name = "" if model is None else str(msgspec.json.decode(model))
    return name.removeprefix("models/"), msgspec.json.encode(asked)


def job_line(ident: str, request: bytes) -> bytes:
    """One line of a batch's file."""
    return b'{"key":%s,"request":%s}\n' % (msgspec.json.encode(ident), request)


def remote_job(found: Operation, mask: Mask) -> RemoteJob:
    """A batch in the words of the contract. States are called `BATCH_STATE_…`, `JOB_STATE_…` or neither."""
    about = found.metadata
    state = about.state.upper().removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_").lower()
    stats = about.batch_stats or _Stats()
    output = (found.response and found.response.responses_file) or (
        about.output and about.output.responses_file
    )
    rejected = ""
    if state == "failed" and not output:
        told = found.error.message if found.error is not None else None
        rejected = mask(told or "it failed, and no reason was given")
    return RemoteJob(
        id=found.name,
        status=state or "unknown",
        over=state in _OVER or found.done,
        done=int(stats.successful_request_count),
        failed=int(stats.failed_request_count),
        total=int(stats.request_count),
        nonce=about.display_name,
        file=found.file,
        files=(output,) if output else (),
        rejected=rejected,
    )


def line_result(line: bytes, mask: Mask) -> LineResult | str:
    """One line of the responses, or what is wrong with it."""
    try:
        found = _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return f"{mask(str(problem))}: {mask.quoted(line)}"
    if not found.key:
        return f"it has no key: {mask.quoted(line)}"
    if response := bytes(found.response):
        return LineResult(found.key, 200, response)
    error = found.error or found.status
    if error is None:
        return LineResult(found.key, 0, b"", "no_response")
    code = named(0, error.message or "", error.status or f"{error.code or ''}", "")
    body = msgspec.json.encode({"error": {"message": mask(error.message or ""), "status": mask(code)}})
    return LineResult(found.key, _http(error.code), body, mask(code)[:100])


#: What gRPC's codes are in HTTP: outcomes may bear either.
_GRPC = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}


def _http(code: int | None) -> int:
    return _GRPC.get(code or 2, code or 500) if (code or 0) < 100 else code or 500
