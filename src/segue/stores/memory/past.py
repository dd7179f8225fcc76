"""Past turns in the store in memory: what came before a run's checkpoint."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Protocol

from ...core.contents import content_digest
from ...model.run import Spec
from .. import sealing


class Past:
    """Archived journal rows of a run, packed or not yet; `digests` are of contents that came with those that aren't."""

    __slots__ = ("digests", "dropped", "packed", "rows")

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.digests: list[bytes] = []
        self.packed: list[_Packed] = []
        self.dropped = 0

    def count(self) -> int:
        """How many are kept."""
        return sum(one.count for one in self.packed) + len(self.rows)

    def archived(self) -> list[bytes]:
        """All that are kept, oldest first."""
        return [*chain.from_iterable(sealing.unpack(one.rows) for one in self.packed), *self.rows]


class _Packed:
    __slots__ = ("count", "digests", "rows", "until")

    def __init__(self, rows: list[bytes], digests: list[bytes], until: float | None) -> None:
        self.rows, self.count, self.digests, self.until = sealing.pack(rows), len(rows), digests, until


class _Has(Protocol):
    spec: Spec
    past: Past | None


class Contents:
    """Blobs, by digest, for as long as somebody holds them."""

    def __init__(self) -> None:
        self.by_digest: dict[bytes, bytes] = {}
        self._holds: Counter[bytes] = Counter()

    def put(self, digest: bytes, content: bytes) -> None:
        """It came with a turn."""
        self.by_digest.setdefault(digest, content)
        self._holds[digest] += 1

    def same(self, content: bytes) -> bytes:
        """The one that is here, or else that one."""
        return self.by_digest.get(content_digest(content), content)

    def let_go(self, digests: list[bytes]) -> None:
        """Turns that it came with are forgotten."""
        for digest in digests:
            self._holds[digest] -= 1
            if not self._holds[digest]:
                del self._holds[digest], self.by_digest[digest]


def seal(run: _Has, contents: Contents, now: float) -> bool:
    """Pack what was archived of a run, or drop it, and drop what is over; whether more is to come."""
    past = run.past
    if past is None:
        return False
    until = sealing.until(run.spec, now)
    if until == 0.0:
        past.dropped += len(past.rows)
        contents.let_go(past.digests)
        past.rows, past.digests = [], []
    elif past.rows:
        rows = sealing.some(past.rows)
        past.rows = past.rows[len(rows) :]
        digests, past.digests = ([], past.digests) if past.rows else (past.digests, [])
        past.packed.append(_Packed(rows, digests, until))
    over = [one for one in past.packed if one.until is not None and one.until <= now]
    for one in over:
        past.packed.remove(one)
        past.dropped += one.count
        contents.let_go(one.digests)
    return bool(past.rows)


def next_over(past: Past) -> float | None:
    """When the first that is packed isn't kept any longer."""
    return min((one.until for one in past.packed if one.until is not None), default=None)
