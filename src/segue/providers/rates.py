"""What the headers of an answer say of rate limits."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime

from ..ports.provider import Rates

_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_EPOCH = 1e9  # a bare number above this is a moment, not a span


def rates(headers: Mapping[str, str]) -> Rates | None:
    """Of OpenAI and those who follow it, and of Anthropic; None where they say nothing. Names are in lower case."""
    if not any("ratelimit-" in name for name in headers):
        return None
    for prefix in _PREFIXES:
        found = Rates(
            requests=_count(headers, prefix, "remaining-requests", "requests-remaining", "remaining"),
            tokens=_count(headers, prefix, "remaining-tokens", "tokens-remaining"),
            requests_reset=_span(headers, prefix, "reset-requests", "requests-reset", "reset"),
            tokens_reset=_span(headers, prefix, "reset-tokens", "tokens-reset"),
        )
        if found.requests is not None or found.tokens is not None:
            return found
    return None


def _first(headers: Mapping[str, str], prefix: str, names: tuple[str, ...]) -> str:
    return next((told for name in names if (told := headers.get(prefix + name, "").strip())), "")


def _count(headers: Mapping[str, str], prefix: str, *names: str) -> int | None:
    told = _first(headers, prefix, names)
    return int(told) if told.isdecimal() else None


def _span(headers: Mapping[str, str], prefix: str, *names: str) -> float | None:
    """`1s`, `6m0s`, `20ms`, bare seconds, or a moment as ISO 8601 or epoch seconds: in seconds from now."""
    told = _first(headers, prefix, names)
    if not told:
        return None
    try:
        number = float(told)
    except ValueError:
        pieces = _SPAN.findall(told)
        if pieces and "".join(count + unit for count, unit in pieces) == told:
            return sum(float(count) * _UNITS[unit] for count, unit in pieces)
        try:
            return max(0.0, datetime.fromisoformat(told).timestamp() - time.time())
        except ValueError:
            return None
    if not math.isfinite(number) or number < 0:
        return None
    return max(0.0, number - time.time()) if number >= _EPOCH else number
