"""What was asked and what was paid, request by request."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import IO, Any, Literal, Self

import msgspec

from .completion import canonical

__all__ = ["Entry", "Ledger", "digest"]

Kind = Literal["live", "background", "batch"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One request that reached the simulator.

    `status` is 0 for a batch line that was accepted and never worked on, and for a live call whose connection
    was closed. `sha256` is of the canonical body: sorted keys, no spaces.
    """

    time: float
    kind: Kind
    endpoint: str
    status: int
    sha256: str
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    batch: str | None = None
    custom_id: str | None = None

    @property
    def paid(self) -> bool:
        """Whether a provider would charge for it."""
        return self.status == 200


class Ledger:
    """All entries, in the order in which they came.

    With a path each is appended to a JSONL file and flushed at once, so that another process can follow; a
    file that is there already is read first.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._entries: list[Entry] = []
        self._file: IO[bytes] | None = None
        if path is not None:
            self._entries = _read(path)
            self._file = _appending(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What the file of another, perhaps still running simulator says; to look at only."""
        ledger = cls()
        ledger._entries = _read(path)
        return ledger

    def add(self, entry: Entry) -> None:
        """Write an entry down."""
        self._entries.append(entry)
        if self._file is not None:
            self._file.write(msgspec.json.encode(entry) + b"\n")
            self._file.flush()

    def lines(
        self, kind: Kind | None = None, *, batch: str | None = None, custom_id: str | None = None
    ) -> list[Entry]:
        """The entries, or those that fit."""
        return [
            entry
            for entry in self._entries
            if (kind is None or entry.kind == kind)
            and (batch is None or entry.batch == batch)
            and (custom_id is None or entry.custom_id == custom_id)
        ]

    def counts(self) -> dict[str, int]:
        """Sums: requests asked and paid by kind, the batches they were in, tokens paid for."""
        paid = [entry for entry in self._entries if entry.paid]
        return {
            "asked": len(self._entries),
            "paid": len(paid),
            "live_asked": len(self.lines("live")),
            "live_paid": sum(entry.kind == "live" for entry in paid),
            "background_paid": sum(entry.kind == "background" for entry in paid),
            "batch_asked": len(self.lines("batch")),
            "batch_paid": sum(entry.kind == "batch" for entry in paid),
            "batches": len({entry.batch for entry in self._entries if entry.batch}),
            "tokens_in": sum(entry.tokens_in for entry in paid),
            "tokens_out": sum(entry.tokens_out for entry in paid),
            "paid_twice": len(self.paid_twice()),
        }

    def paid_twice(self, by: Literal["custom_id", "sha256"] = "custom_id") -> dict[str, list[Entry]]:
        """What was paid more than once: batch lines with one custom id, or any requests with one body."""
        groups: dict[str, list[Entry]] = defaultdict(list)
        for entry in self._entries:
            key = entry.custom_id if by == "custom_id" else entry.sha256
            if entry.paid and key is not None:
                groups[key].append(entry)
        return {key: entries for key, entries in groups.items() if len(entries) > 1}

    def close(self) -> None:
        """Close the file, if any."""
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._entries)


def digest(body: Any) -> str:
    """SHA-256 of a body in canonical form."""
    return hashlib.sha256(canonical(body)).hexdigest()


def _read(path: Path) -> list[Entry]:
    """The entries of a ledger's file; a last line that isn't whole is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Entry) for line in whole]


def _appending(path: Path) -> IO[bytes]:
    """The file, open at the end of its last whole line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("r+b" if path.exists() else "w+b")
    file.seek(file.read().rfind(b"\n") + 1)
    file.truncate()
    return file
