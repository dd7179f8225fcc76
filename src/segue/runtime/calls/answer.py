"""What providers answer, read: by whose rules, what it counts, what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ...model.chat import ChatReply, Tokens
from ...model.lane import LineOutcome
from ...model.run import Usage
from ...ports.provider import Provider
from ...providers.wire import dialect_of, object_of
from .naming import in_window, lane_endpoint, usage_name
from .sameness import is_whole


class Vectors(msgspec.Struct, frozen=True):
    """What an embeddings call gives."""

    vectors: list[list[float]]
    tokens: Tokens


def reader(provider: Provider, to: str) -> Callable[[bytes], ChatReply | Vectors]:
    """Who reads the answers of an endpoint."""
    if to == "chat":
        return provider.chat_reply

    def read(body: bytes) -> Vectors:
        vectors, tokens = provider.embed_reply(body)
        return Vectors(vectors, Tokens(tokens))

    return read


def check_result(provider: Provider, to: str, body: bytes) -> Exception | None:
    """What is wrong with a line's response body, if anything."""
    counted = count_result(provider, to, body)
    return counted if isinstance(counted, Exception) else None


def count_result(provider: Provider, to: str, body: bytes) -> Tokens | Exception:
    """What a line's response body counts, or what is wrong with it."""
    to, _ = in_window(to)
    try:
        return _counted(provider, to, body)
    except Exception as problem:  # whatever a provider stumbles over, one line's body harms no other line
        return problem


def _counted(provider: Provider, to: str, body: bytes) -> Tokens:
    """What an answer counts; that of an SDK's call, whose endpoint is a path, by the rules of its dialect.

    Raises `ValueError` or `ProviderFault` for what is none.
    """
    if not to.startswith("/"):
        return reader(provider, to)(body).tokens
    dialect, answer = dialect_of(to), object_of(body)
    if not dialect.is_answer(answer):
        raise ValueError(f"it isn't an answer of {to}")
    return dialect.tokens(answer)


def used(lane: str, provider: Provider, body: bytes, name: str) -> Usage:
    """What a line's answer counts, in a lane of that name."""
    endpoint, to = lane_endpoint(lane)
    to, _ = in_window(to)
    return Usage(usage_name(endpoint), name).plus(_counted(provider, to, body))


def shared_outcome(outcome: LineOutcome, lane: str, provider: Provider, name: str) -> LineOutcome:
    """The outcome `ok` of a line that may be others' too: whether it is to be kept, and what was paid for it."""
    _, to = lane_endpoint(lane)
    body = outcome.value or b""
    paid = outcome.used or used(lane, provider, body, name)
    return msgspec.structs.replace(outcome, whole=is_whole(provider, in_window(to)[0], body), used=paid)
