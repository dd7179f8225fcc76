"""HTTP answers that aren't what was asked for, as `CallFault`s."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from ..ports.provider import OVERFLOW, CallFault
from .masking import Mask

_AGAIN = frozenset({408, 409, 425, 429, 498})
_NO_MONEY = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
)
_FINAL = _NO_MONEY | {
    OVERFLOW,
    "bio_policy",
    "content_filter",
    "content_policy_violation",
    "invalid_api_key",
    "invalid_image",
    "invalid_prompt",
    "invalid_request_error",
    "misalignment_policy_violation",
    "model_not_found",
}
#: How those say that a prompt is too long who have no code for it, or another one.
_TOO_LONG = re.compile(
    r"prompt is too long"  # Anthropic
    r"|exceeds the maximum number of tokens"  # Gemini
    r"|maximum context length|exceeds? the (?:available )?context"  # vLLM, llama.cpp, …
    r"|maximum prompt length"  # xAI
    r"|too large for model with"  # Mistral
    r"|tokens \+ `max_new_tokens` must be"  # Together
    r"|input length and `max_tokens` exceed",  # Anthropic too
    re.IGNORECASE,
)
_MODEL = re.compile(r"(?<!/)model", re.IGNORECASE)  # in a path it is none that is missing
_LONG_CODES = frozenset({OVERFLOW, "exceed_context_size_error", "string_above_max_length"})


def http_fault(
    status: int, headers: Mapping[str, str], body: bytes, mask: Mask, *, nowhere: str = ""
) -> CallFault:
    """What an answer with a status other than 2xx means. `nowhere` is told where nothing may be at that URL."""
    message, code, kind = told(body)
    if not message:
        message = f"the answer's body is {mask.quoted(body)}" if body.strip() else "the answer has no body"
    if 300 <= status < 400 and (place := headers.get("location")):
        message = f"moved to {place!r}: set the base URL to where the API is; {message}"
    if nowhere and status in (404, 405) and not _MODEL.search(f"{code} {message}"):
        message = f"{message}; {nowhere}"
    match headers.get("x-should-retry", "").lower():
        case "true":
            again = True
        case "false":
            again = False
        case _:
            again = status in _AGAIN or status >= 500
    if code in _NO_MONEY or kind in _NO_MONEY:
        again = False
    return CallFault(
        status,
        _shown(mask, message),
        again=again,
        after=_after(headers),
        code=mask(named(status, message, code, kind))[:100],
    )


def event_fault(body: bytes, mask: Mask) -> CallFault:
    """What an error in the middle of a stream, or one under status 200, means."""
    message, code, kind = told(body)
    status = int(code) if code.isdecimal() and len(code) == 3 else 0
    code = named(status, message, code, kind)
    again = not {code, kind} & _FINAL and (status == 0 or status in _AGAIN or status >= 500)
    text = _shown(mask, message) if message else mask.quoted(body)
    return CallFault(status, text, again=again, code=mask(code or kind)[:100])


def named(status: int, message: str, code: str, kind: str) -> str:
    """The code of an error, in the provider's word but for `OVERFLOW`."""
    if {code, kind} & _LONG_CODES or (status in (0, 400, 413, 422) and _TOO_LONG.search(message)):
        return OVERFLOW
    return code or kind


def garbage(what: str, body: bytes, mask: Mask, status: int = 200) -> CallFault:
    """An answer that says it is fine and isn't: of a proxy, or cut off."""
    said = f"it begins {mask.quoted(body)}" if body.strip() else "it is empty"
    return CallFault(status, f"{what}: {said}", again=True, code="bad_body")


def told(body: bytes) -> tuple[str, str, str]:
    """Message, code and type of an error body, whoever wrote it; empty where they aren't told."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", "", ""
    if isinstance(said, list) and said:  # Gemini's compatible endpoint
        said = said[0]
    if not isinstance(said, dict):
        return "", "", ""
    error = said.get("error") or said
    if isinstance(error, str):
        return error, "", ""
    if not isinstance(error, dict):
        return "", "", ""
    message = error.get("message") or error.get("detail")
    if message is not None and not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    return message or "", _word(error.get("code")), _word(error.get("type"))


def _word(value: Any) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _shown(mask: Mask, message: str) -> str:
    text = mask(message)
    return text if len(text) <= 1000 else text[:999] + "…"


def _after(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait, in seconds."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after", "")
    if (seconds := _number(asked)) is not None:
        return seconds
    if not asked:
        return None
    from email.utils import parsedate_to_datetime  # half a package; few servers give a date

    try:
        moment = parsedate_to_datetime(asked).timestamp()
        date = headers.get("date")  # of the server's own clock, where it tells
        now = parsedate_to_datetime(date).timestamp() if date else time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, moment - now)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
