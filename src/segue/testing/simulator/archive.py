"""Where batches outlive the process: a JSON file each, and the outcomes of their lines beside it."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import msgspec

from .batches import Batch, Outcome
from .files import write_whole

__all__ = ["Archive"]


class Archive:
    """Keeps batches in a directory; without one it keeps nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._open: dict[str, IO[bytes]] = {}
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def save(self, batch: Batch) -> None:
        """Keep a batch as it is now."""
        if self._directory is not None:
            write_whole(self._directory / f"{batch.id}.json", msgspec.json.encode(batch))
            if batch.final and (file := self._open.pop(batch.id, None)) is not None:
                file.close()

    def add(self, batch: Batch, outcome: Outcome) -> None:
        """Keep how a line ended."""
        if self._directory is None:
            return
        if batch.id not in self._open:
            self._open[batch.id] = (self._directory / f"{batch.id}.jsonl").open("ab")
        self._open[batch.id].write(msgspec.json.encode(outcome) + b"\n")
        self._open[batch.id].flush()

    def remove(self, batch: Batch) -> None:
        """Keep a batch no longer."""
        if self._directory is not None:
            (self._directory / f"{batch.id}.json").unlink(missing_ok=True)
            (self._directory / f"{batch.id}.jsonl").unlink(missing_ok=True)

    def batches(self) -> list[Batch]:
        """All that were kept, oldest first."""
        if self._directory is None:
            return []
        found = [
            msgspec.json.decode(path.read_bytes(), type=Batch) for path in self._directory.glob("*.json")
        ]
        return sorted(found, key=lambda batch: batch.number)

    def outcomes(self, batch: Batch) -> list[Outcome]:
        """How lines ended, as far as that was kept whole."""
        if self._directory is None or not (path := self._directory / f"{batch.id}.jsonl").exists():
            return []
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_whole(path, whole)
        return [msgspec.json.decode(line, type=Outcome) for line in whole.splitlines()]

    def close(self) -> None:
        """Close what is open."""
        for file in self._open.values():
            file.close()
        self._open.clear()
