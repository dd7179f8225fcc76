"""Chunks of bytes as lines."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends (LF or CRLF), wherever the chunks were cut; bytes after the last end are one."""
    parts: list[bytes] = []  # of a line that isn't whole; joined once, so that a long line costs linear time
    async for chunk in chunks:
        head, *others = chunk.split(b"\n")
        parts.append(head)
        if not others:
            continue
        yield b"".join(parts).removesuffix(b"\r")
        parts = [others.pop()]
        for line in others:
            yield line.removesuffix(b"\r")
    if last := b"".join(parts):
        yield last.removesuffix(b"\r")
