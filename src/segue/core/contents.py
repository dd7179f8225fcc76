"""Large contents: cut into pieces that others may have too, each of which is stored once, by its digest.

A text that a model or a tool gave is often part of what comes after: of the arguments of the next call, of the result.
So a JSON text is cut at each large string in it, and arguments that are one value alone are cut like that value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b

import msgspec

from ..model.entry import BLOB
from ..model.errors import Damaged

#: The digest of a piece, in bytes.
SIZE = 16

#: What stands around the one argument of a call.
OPENING, CLOSING = b"[[", b"],{}]"

#: How a question to a person begins.
_ASKING = b'{"question":'

#: A string. What was matched is never gone back to: that would take 100 bytes for each escape, and a string without an
#: end, as no JSON has, would be gone over again from each quote in it.
_string = re.compile(rb'"[^"\\]*+(?:\\.?+[^"\\]*+)*+(?:"|\Z)', re.DOTALL).match

#: A large string fills a whole stretch of so many bytes, wherever it begins.
_STRETCH = BLOB // 2

#: Pieces that stay in place and digests of others, by turns, beginning and ending with one that stays.
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class _Shown(msgspec.Struct):
    """Of a question, what is shown with it."""

    show: msgspec.Raw = msgspec.Raw(b"null")


_read_shown = msgspec.json.Decoder(_Shown).decode


def content_digest(content: bytes) -> bytes:
    """The name of a piece."""
    return blake2b(content, digest_size=SIZE).digest()


def cut(content: bytes, blobs: list[tuple[bytes, bytes]]) -> bytes:
    """What stands for a content, whose large pieces are added to `blobs`, each by its digest."""
    out: list[bytes] = []
    kept = b""
    for piece in _pieces(content):
        if len(piece) <= BLOB:
            kept += piece
        else:
            name = content_digest(piece)
            blobs.append((name, piece))
            out += kept, name
            kept = b""
    out.append(kept)
    return _encode(out)


def names_in(stand: bytes) -> list[bytes]:
    """The digests of what was cut out. Raises `msgspec.DecodeError`."""
    return _decode(stand)[1::2]


def whole(stand: bytes, contents: Mapping[bytes, bytes]) -> bytes:
    """The content that this stands for. Raises `msgspec.DecodeError` and `Damaged`."""
    pieces = _decode(stand)
    pieces[1::2] = [checked(contents, name) for name in pieces[1::2]]
    content = b"".join(pieces)
    if len(content) <= BLOB:
        raise Damaged("its journal", "a large content isn't as large as it was")
    return content


def checked(contents: Mapping[bytes, bytes], name: bytes) -> bytes:
    """A piece, as its digest says. Raises `Damaged`."""
    content = contents.get(name)
    if content is None:
        raise Damaged("its journal", "a large content is missing")
    if content_digest(content) != name:
        raise Damaged("its journal", "a large content isn't what its digest says")
    return content


def _pieces(content: bytes) -> Iterator[bytes]:
    if content.startswith(OPENING) and content.endswith(CLOSING):
        yield OPENING
        yield from _at_strings(content[len(OPENING) : -len(CLOSING)])
        yield CLOSING
    elif content.startswith(_ASKING) and (shown := _shown(content)):
        before, _, after = content.partition(shown)
        yield before
        yield from _at_strings(shown)
        yield after
    else:
        yield from _at_strings(content)


def _shown(question: bytes) -> bytes:
    """What a question shows, if it is large."""
    try:
        shown = bytes(_read_shown(question).show)
    except msgspec.DecodeError:  # it is no question
        return b""
    return shown if len(shown) > BLOB else b""


def _at_strings(content: bytes) -> Iterator[bytes]:
    """Each large string of a JSON text, and what is between them."""
    upto = 0
    for start, end in _large_strings(content):
        yield content[upto:start]
        yield content[start:end]
        upto = end
    yield content[upto:]


def _large_strings(content: bytes) -> Iterator[tuple[int, int]]:
    """Where they begin and end. Only stretches that may be within a string are looked at closely, which most aren't."""
    outside = stretch = 0  # where no string is open; where to look
    while stretch + _STRETCH <= len(content):
        quote = content.find(b'"', stretch, stretch + _STRETCH)
        if quote < 0 or content[quote - 1 : quote] == b"\\":
            before = content[outside:stretch].replace(rb"\\", b"__").replace(rb"\"", b"__")
            if before.count(b'"') % 2:
                start = outside + before.rfind(b'"')
                outside = _end(content, start)
                if outside - start > BLOB:
                    yield start, outside
                stretch = -(-outside // _STRETCH) * _STRETCH
                continue
            outside = stretch
        stretch += _STRETCH


def _end(content: bytes, start: int) -> int:
    """Where the string that begins there ends."""
    quote = content.find(b'"', start + 1)
    if quote >= 0 and content[quote - 1 : quote] != b"\\":
        return quote + 1
    found = _string(content, start)
    assert found is not None  # it matches whatever begins with a quote
    return found.end()
