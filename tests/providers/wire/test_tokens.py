"""What an answer counts is the same whoever made the call: an SDK, or `generate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from segue.model.chat import ChatReply, Tokens
from segue.providers import anthropic_messages, completions, gemini_content, responses
from segue.providers.wire import chat, gemini, messages
from segue.providers.wire import responses as wire_responses
from segue.providers.wire.dialect import Dialect

CHOICE = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
CANDIDATE = {"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"}

ANSWERS: list[tuple[Dialect, Callable[[bytes], ChatReply], dict[str, Any], str, dict[str, Any], Tokens]] = [
    (
        chat.Chat(),
        completions.chat_reply,
        {"choices": [CHOICE]},
        "usage",
        {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
        },
        Tokens(9, 4, 2, 3),
    ),
    (
        wire_responses.Responses(),
        responses.Responses().reply,
        {"status": "completed", "output": []},
        "usage",
        {
            "input_tokens": 9,
            "output_tokens": 4,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
        },
        Tokens(9, 4, 2, 3),
    ),
    (
        messages.Messages(),
        anthropic_messages.chat_reply,
        MESSAGE,
        "usage",
        {
            "input_tokens": 4,
            "cache_read_input_tokens": 2,
            "cache_creation_input_tokens": 3,
            "output_tokens": 4,
        },
        Tokens(9, 4, 2, 3),
    ),
    (
        gemini.Gemini(),
        gemini_content.chat_reply,
        {"candidates": [CANDIDATE]},
        "usageMetadata",
        {
            "promptTokenCount": 7,
            "toolUsePromptTokenCount": 2,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 1,
            "cachedContentTokenCount": 2,
        },
        Tokens(9, 4, 2),
    ),
]


@pytest.mark.parametrize(
    ("dialect", "read", "answer", "field", "usage", "tokens"),
    ANSWERS,
    ids=[type(each[0]).__name__ for each in ANSWERS],
)
def test_an_sdks_call_counts_what_generate_counts(
    dialect: Dialect,
    read: Callable[[bytes], ChatReply],
    answer: dict[str, Any],
    field: str,
    usage: dict[str, Any],
    tokens: Tokens,
):
    for told, counted in ((usage, tokens), (None, Tokens())):
        body = {**answer, field: told}
        assert dialect.tokens(body) == counted
        assert read(msgspec.json.encode(body)).tokens == counted
