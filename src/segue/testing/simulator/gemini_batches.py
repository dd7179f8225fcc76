"""Gemini's batches as the wire has them: requests inline or in a file, operations and responses. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from .batches import Batch, BatchError, Checked, Line, Row
from .gemini_content import camel
from .replies import Failure

__all__ = ["INLINE", "asked_of", "moment", "read", "row", "view"]

#: The most bytes of a batch whose requests are inline.
INLINE = 20 * 2**20

_STATES = {
    "validating": "PENDING",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "RUNNING",
    "completed": "SUCCEEDED",
    "failed": "FAILED",
    "expired": "EXPIRED",
    "cancelled": "CANCELLED",
}
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main"


def asked_of(body: Any) -> tuple[str, str, list[dict[str, Any]]]:
    """Name, input file and inline requests that a batch is made of. Raises `Failure` for what is refused at once."""
    batch = camel(body.get("batch") or {}) if isinstance(body, dict) else {}
    config = camel(batch.get("inputConfig") or {})
    name, file = batch.get("displayName"), config.get("fileName")
    inline = (config.get("requests") or {}).get("requests") or []
    if not isinstance(name, str) or not name:
        raise Failure(400, "* BatchGenerateContentRequest.batch.display_name: display_name is not specified")
    if bool(file) == bool(inline):
        raise Failure(
            400, "* BatchGenerateContentRequest.batch.input_config: exactly one source must be specified"
        )
    return name, file or "", inline


def read(batch: Batch, content: bytes, most_lines: int) -> Checked:
    """The lines of a batch. A key may be left out where the requests are inline."""
    lines: list[Line] = []
    errors: list[BatchError] = []
    seen: set[str] = set()
    for number, raw in enumerate(content.splitlines(), 1):
        if not raw.strip():
            continue
        try:
            found = camel(msgspec.json.decode(raw))
            key = found.get("key") or (found.get("metadata") or {}).get("key")
            key = str(key) if key is not None else f"{number - 1}" if batch.ordered else ""
            request = found["request"]
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
            errors.append(
                BatchError("INVALID_ARGUMENT", f"Line {number} of the input file is no request.", number)
            )
            continue
        if not key or key in seen:
            what = f"has the key {key!r} of another line" if key else "has no key"
            errors.append(BatchError("INVALID_ARGUMENT", f"Line {number} of the input file {what}.", number))
            continue
        seen.add(key)
        lines.append(Line(key, msgspec.json.encode(request)))
    if not lines and not errors:
        errors.append(BatchError("INVALID_ARGUMENT", "The input file is empty."))
    if len(lines) > most_lines:
        errors.append(BatchError("INVALID_ARGUMENT", f"The input file has more than {most_lines} requests."))
    return Checked(lines, batch.model, len(content) // 4, errors)


def row(batch: Batch, row: Row) -> tuple[Literal["output", "error"], dict[str, Any]]:
    """A response; of inline requests their metadata comes with it. What wasn't worked on is left out by `view`."""
    head: dict[str, Any] = {"metadata": {"key": row.id}} if batch.ordered else {"key": row.id}
    if row.outcome is None:
        return "error", head
    if row.outcome.status == 200:
        return "output", head | {"response": row.outcome.body}
    return "output", head | {"error": row.outcome.body["error"]}


def view(batch: Batch, output: bytes) -> dict[str, Any]:
    """A batch as an operation. One that expired or was cancelled has nothing to show: so the documentation."""
    state = _STATES[batch.status]
    metadata: dict[str, Any] = {
        "@type": f"{_TYPE}.GenerateContentBatch",
        "name": f"batches/{batch.id}",
        "model": f"models/{batch.model}",
        "displayName": batch.asked["name"],
        "inputConfig": {} if batch.ordered else {"fileName": batch.asked["file"]},
        "createTime": moment(batch.created_at),
        "updateTime": moment(batch.finalizing_at or batch.in_progress_at or batch.created_at),
        "state": f"BATCH_STATE_{state}",
        "batchStats": _stats(batch),
    }
    operation: dict[str, Any] = {"name": f"batches/{batch.id}", "metadata": metadata}
    if not batch.final:
        return operation
    ended = batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at
    metadata |= {"endTime": moment(ended), "updateTime": moment(ended)}
    operation["done"] = True
    if batch.status == "completed":
        found = _output(batch, output)
        if found is not None:
            metadata["output"] = found
        operation["response"] = {"@type": f"{_TYPE}.GenerateContentBatchOutput", **(found or {})}
    else:
        told = "; ".join(each.message for each in batch.errors) or f"The batch is {state.lower()}."
        operation["error"] = {"code": {"FAILED": 3, "EXPIRED": 4, "CANCELLED": 1}[state], "message": told}
    return operation


def _stats(batch: Batch) -> dict[str, str]:
    """Counts are strings, as of all 64-bit numbers; those that are zero are left out."""
    counts = {
        "requestCount": batch.total,
        "successfulRequestCount": batch.completed,
        "failedRequestCount": batch.failed,
        "pendingRequestCount": 0 if batch.final else batch.total - batch.completed - batch.failed,
    }
    return {name: str(count) for name, count in counts.items() if count}


def _output(batch: Batch, output: bytes) -> dict[str, Any] | None:
    if batch.error_file_id == "":  # a fault
        return {"responsesFile": ""}
    if batch.output_file_id is None:
        return None
    if not batch.ordered:
        return {"responsesFile": f"files/{batch.output_file_id}"}
    return {"inlinedResponses": {"inlinedResponses": [msgspec.Raw(line) for line in output.splitlines()]}}


def moment(seconds: float | None) -> str | None:
    """As a timestamp of the wire."""
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    )
