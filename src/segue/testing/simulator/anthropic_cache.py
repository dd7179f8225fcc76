"""Anthropic's prompt cache: what a request writes up to its marks, a later one with the same beginning reads. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from .completion import canonical, tokens

__all__ = ["Cache"]

#: A shorter beginning isn't kept.
_LEAST = 1024
_LASTING = {"5m": 300.0, "1h": 3600.0}


class Cache:
    """Beginnings of prompts by digest, and until when they are kept; a reading renews."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def usage(self, body: dict[str, Any], now: float) -> dict[str, Any]:
        """The tokens of a request, by what they cost."""
        marks: list[tuple[bytes, int, str]] = []
        seen = hashlib.sha256(str(body.get("model")).encode())
        total = 0
        blocks = list(_blocks(body))
        for at, (bare, mark) in enumerate(blocks):
            seen.update(canonical(bare))
            total += tokens(bare["text"] if set(bare) == {"type", "text"} else bare)
            if at == len(blocks) - 1:
                mark = mark or body.get("cache_control")
            if mark and total >= _LEAST:
                marks.append((seen.digest(), total, mark.get("ttl") or "5m"))
        read = max((size for key, size, _ in marks if self._until.get(key, 0.0) > now), default=0)
        written = {"5m": 0, "1h": 0}
        reached = read
        for key, size, ttl in marks:
            if size > reached:
                written[ttl] += size - reached
                reached = size
            self._until[key] = now + _LASTING[ttl]
        return {
            "input_tokens": total - reached,
            "cache_creation_input_tokens": sum(written.values()),
            "cache_read_input_tokens": read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": written["5m"],
                "ephemeral_1h_input_tokens": written["1h"],
            },
        }


def _blocks(body: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """What a prompt is made of, in the order in which it is kept, and what is marked."""
    for tool in body.get("tools") or ():
        yield _bare(tool)
    for part in ({"role": "system", "content": body.get("system")}, *(body.get("messages") or ())):
        content = part.get("content") or ()
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for block in content:
            yield _bare(block)


def _bare(block: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    return {name: value for name, value in block.items() if name != "cache_control"}, block.get(
        "cache_control"
    )
