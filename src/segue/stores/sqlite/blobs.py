"""Large contents, by digest."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence


def get_blobs(cx: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    """Contents by digest."""
    out: dict[bytes, bytes] = {}
    for start in range(0, len(digests), 500):
        part = list(digests[start : start + 500])
        marks = ",".join("?" * len(part))
        out.update(
            cx.execute(f"select digest, content from blobs where digest in ({marks})", part).fetchall()
        )
    return out
