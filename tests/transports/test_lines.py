from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from segue.transports.lines import split_lines

TEXT = "eins\r\nzwéi\n\n🎵 drei\r\n\r\nlast".encode()
LINES = [b"eins", "zwéi".encode(), b"", "🎵 drei".encode(), b"", b"last"]


async def each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def lines(*chunks: bytes) -> list[bytes]:
    return [line async for line in split_lines(each(chunks))]


@pytest.mark.parametrize("at", range(len(TEXT) + 1))
async def test_it_doesnt_matter_where_the_cut_is(at: int):
    assert await lines(TEXT[:at], TEXT[at:]) == LINES


async def test_byte_by_byte():
    assert await lines(*(bytes([byte]) for byte in TEXT)) == LINES


async def test_all_at_once():
    assert await lines(TEXT) == LINES


@pytest.mark.parametrize(
    ("chunks", "expected"), [((), []), ((b"",), []), ((b"\n",), [b""]), ((b"a\n",), [b"a"])]
)
async def test_ends(chunks: tuple[bytes, ...], expected: list[bytes]):
    assert await lines(*chunks) == expected
