"""OpenAI's batches as the wire has them: requests, files of lines, jobs and outcomes. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Literal

import msgspec

from .batches import Batch, BatchError, Checked, Line, Row
from .model import ENDPOINTS
from .replies import Failure

__all__ = ["check", "row", "view", "window_of"]


def view(batch: Batch) -> dict[str, Any]:
    """A batch."""
    moments = {name: _whole(getattr(batch, name)) for name in batch.__struct_fields__ if name.endswith("_at")}
    errors = [msgspec.to_builtins(error) for error in batch.errors]
    return moments | {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.asked["completion_window"],
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": {
            "input_tokens": batch.tokens_in,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": batch.tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": batch.tokens_in + batch.tokens_out,
        },
        "metadata": batch.asked["metadata"],
    }


def row(batch: Batch, row: Row) -> tuple[Literal["output", "error"], dict[str, Any]]:
    """A line of the output file or of the error file. Lines that weren't worked on are in the latter."""
    ident = f"batch_req_{batch.id[6:18]}{row.index:06}"
    line: dict[str, Any] = {"id": ident, "custom_id": row.id, "response": None, "error": None}
    if row.outcome is None:
        return "error", line | {"error": _unworked(batch)}
    response = {
        "status_code": row.outcome.status,
        "request_id": f"req_{ident[10:]}",
        "body": row.outcome.body,
    }
    return "output" if row.outcome.status == 200 else "error", line | {"response": response}


def _unworked(batch: Batch) -> dict[str, str]:
    if batch.status == "cancelled":
        return {"code": "batch_cancelled", "message": "The batch was cancelled before this request executed."}
    message = "This request could not be executed before the completion window expired."
    return {"code": "batch_expired", "message": message}


def check(
    content: bytes,
    endpoint: str,
    *,
    model_fault: Callable[[str], Failure | None],
    most_lines: int,
    most_errors: int = 100,
) -> Checked:
    """Read a batch's input file. Anything wrong with one line is an error of the whole."""
    seen = _Seen(endpoint, model_fault)
    for number, raw in _rows(content):
        if (wrong := seen.add(number, raw)) is not None and len(seen.errors) < most_errors:
            seen.errors.append(wrong)
    if not seen.lines and not seen.errors:
        seen.errors.append(BatchError("empty_file", "The batch input file is empty."))
    if len(seen.lines) > most_lines:
        message = f"The batch input file has more than {most_lines} requests."
        seen.errors.append(BatchError("too_many_tasks", message))
    tokens = sum(len(line.body) // 4 for line in seen.lines)
    return Checked(seen.lines, seen.model, tokens, seen.errors)


class _Seen:
    """The lines of a file so far."""

    def __init__(self, endpoint: str, model_fault: Callable[[str], Failure | None]) -> None:
        self.lines: list[Line] = []
        self.errors: list[BatchError] = []
        self.model: str | None = None
        self._endpoint = endpoint
        self._model_fault = model_fault
        self._ids: set[str] = set()

    def add(self, number: int, raw: bytes) -> BatchError | None:
        try:
            row = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            row = None
        if not isinstance(row, dict):
            return BatchError("invalid_json_line", "This line is not parseable as valid JSON.", number)
        wrong = self._shape(number, row) or self._unique(number, row["custom_id"])
        wrong = wrong or self._one_model(number, row["body"].get("model"))
        if wrong is None:
            self.lines.append(Line(row["custom_id"], msgspec.json.encode(row["body"])))
        return wrong

    def _shape(self, number: int, row: dict[str, Any]) -> BatchError | None:
        for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            if not row.get(name) or not isinstance(row[name], kind):
                message = f"Missing or invalid required parameter: {name!r}."
                return BatchError("missing_required_parameter", message, number, name)
        if row["method"] != "POST":
            return BatchError("invalid_method", "The method must be 'POST'.", number, "method")
        if row["url"] != self._endpoint:
            message = f"The URL {row['url']!r} does not match the batch's endpoint {self._endpoint!r}."
            return BatchError("url_mismatch", message, number, "url")
        return None

    def _unique(self, number: int, custom_id: str) -> BatchError | None:
        if custom_id in self._ids:
            message = f"The custom_id {custom_id!r} is used by another line of this file."
            return BatchError("duplicate_custom_id", message, number, "custom_id")
        self._ids.add(custom_id)
        return None

    def _one_model(self, number: int, model: Any) -> BatchError | None:
        if not model or not isinstance(model, str):
            message = "Missing required parameter: 'body.model'."
            return BatchError("missing_required_parameter", message, number, "body.model")
        self.model = self.model or model
        if model != self.model:
            message = f"The model {model!r} does not match {self.model!r}, the model of the lines before."
            return BatchError("model_mismatch", message, number, "body.model")
        if (fault := self._model_fault(model)) is not None:
            return BatchError(fault.code or "model_not_found", fault.message, number, "body.model")
        return None


def _rows(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, raw in enumerate(content.split(b"\n"), 1):
        if raw.strip():
            yield number, raw


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


_UNITS: dict[str, Callable[[int], timedelta]] = {
    "h": lambda count: timedelta(hours=count),
    "d": lambda count: timedelta(days=count),
}


def window_of(asked: dict[str, Any]) -> timedelta:
    """The completion window of a well-formed request for a batch; `Failure` otherwise."""
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(asked.get(name), str) or not asked[name]:
            message = f"Missing required parameter: {name!r}."
            raise Failure(400, message, code="missing_required_parameter", param=name)
    if asked["endpoint"] not in ENDPOINTS:
        message = f"Invalid value: {asked['endpoint']!r}. Supported values are: {', '.join(ENDPOINTS)}."
        raise Failure(400, message, code="invalid_value", param="endpoint")
    if (window := re.fullmatch(r"(\d{1,3})([hd])", asked["completion_window"])) is None:
        message = f"Invalid value: {asked['completion_window']!r}. Supported values are: '24h'."
        raise Failure(400, message, code="invalid_value", param="completion_window")
    if not _is_metadata(asked.get("metadata")):
        message = (
            "The metadata must be at most 16 pairs of strings, keys up to 64 and values up to 512 characters."
        )
        raise Failure(400, message, code="invalid_metadata", param="metadata")
    return _UNITS[window[2]](int(window[1]))


def _is_metadata(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and len(value) <= 16
        and all(isinstance(text, str) and len(key) <= 64 and len(text) <= 512 for key, text in value.items())
    )
