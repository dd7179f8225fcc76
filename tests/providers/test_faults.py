"""What an error means, whoever words it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.ports.provider import OVERFLOW, LineResult, Rates
from segue.providers.batches import line_result
from segue.providers.faults import event_fault, http_fault
from segue.providers.masking import Mask
from segue.providers.rates import rates

MASK = Mask("")

TOO_LONG: list[Any] = [
    {"error": {"message": "Please reduce it.", "type": "invalid_request_error", "code": "context_length_exceeded"}},
    {"error": {"message": "Your input exceeds the context window of this model.", "code": None}},
    {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
    {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}},
    {"message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"},
    {"error": {"message": "`inputs` tokens + `max_new_tokens` must be <= 8193.", "type": "invalid_request_error"}},
    {"error": "This model's maximum prompt length is 131072 but the request contains 140000 tokens."},
    {"type": "error", "error": {"message": "prompt is too long: 210 > 200"}},
    [{"error": {"message": "The input token count (20) exceeds the maximum number of tokens allowed."}}],
]  # fmt: skip
FINE: list[Any] = [
    {"error": {"message": "Invalid value for 'temperature'.", "code": "invalid_value"}},
    {"error": {"message": "max_tokens is too large: 100000.", "code": "invalid_value"}},
]


@pytest.mark.parametrize("body", TOO_LONG)
def test_a_conversation_that_is_too_long(body: Any):
    data = msgspec.json.encode(body)
    fault = http_fault(400, {}, data, MASK)
    assert (fault.code, fault.again) == (OVERFLOW, False)
    fault = event_fault(data, MASK)
    assert (fault.code, fault.again) == (OVERFLOW, False)
    line = {"custom_id": "a", "response": {"status_code": 400, "body": body}, "error": None}
    result = line_result(msgspec.json.encode(line), MASK)
    assert isinstance(result, LineResult)
    assert result.code == OVERFLOW


@pytest.mark.parametrize("body", FINE)
def test_other_refusals_are_something_else(body: Any):
    assert http_fault(400, {}, msgspec.json.encode(body), MASK).code == "invalid_value"


@pytest.mark.parametrize("status", [429, 500])
def test_too_many_tokens_a_minute_is_no_overflow(status: int):
    body = b'{"error":{"message":"Limit reached: maximum context length","code":"rate_limit_exceeded"}}'
    assert http_fault(status, {}, body, MASK).code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, None),
        (
            {
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0.5s",
            },
            Rates(59, 149984, 1.0, 360.5),
        ),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"},
            Rates(0, None, 0.12, None),
        ),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "7"}, Rates(3, None, 7.0, None)),
        ({"x-ratelimit-remaining-requests": "many"}, None),
        (
            {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "soon"},
            Rates(None, 5, None, None),
        ),
        (
            {
                "anthropic-ratelimit-requests-remaining": "4",
                "anthropic-ratelimit-requests-reset": "2001-01-01T00:00:00Z",
            },
            Rates(4, None, 0.0, None),
        ),
    ],
)
def test_rate_headers(headers: dict[str, str], told: Rates | None):
    assert rates(headers) == told
