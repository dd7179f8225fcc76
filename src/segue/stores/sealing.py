"""Past turns as they are stored: journal rows packed together, compressed, for as long as their run says."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ..model.mode import DROP, KEEP
from ..model.run import Spec

#: So many bytes of rows are packed together at most, and so many rows.
SIZE: Final = 1 << 18
ROWS: Final = 10_000

_read = msgspec.msgpack.Decoder(list[bytes]).decode
_write = msgspec.msgpack.Encoder().encode


def pack(rows: Sequence[bytes]) -> bytes:
    """Rows as one, compressed."""
    return zlib.compress(_write(list(rows)))


def unpack(packed: bytes) -> list[bytes]:
    """The rows again."""
    return _read(zlib.decompress(packed))


def some(rows: Iterable[bytes]) -> list[bytes]:
    """The first of them, as many as are packed together."""
    out: list[bytes] = []
    size = 0
    for row in rows:
        if out and (size + len(row) > SIZE or len(out) == ROWS):
            break
        out.append(row)
        size += len(row)
    return out


def until(spec: Spec, now: float) -> float | None:
    """How long what is sealed now is kept, in seconds since the epoch; None for ever, 0 not at all."""
    kept = spec.kept
    if kept == KEEP:
        return None
    return 0.0 if kept == DROP else now + kept.total_seconds()
