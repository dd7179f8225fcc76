"""Uploaded and produced files, in memory or in a directory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["File", "Files", "write_whole"]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file; its content lies elsewhere. `owner` is the dialect in which it came."""

    id: str
    number: int
    filename: str
    purpose: str
    size: int
    created_at: float
    owner: str = "openai"
    mime: str = "application/octet-stream"

    def view(self) -> dict[str, Any]:
        """As the wire has it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": int(self.created_at),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


class Files:
    """All files by id. With a directory they outlive the process."""

    def __init__(self, directory: Path | None = None, *, seed: int = 0) -> None:
        self._directory = directory
        self._seed = seed
        self._contents: dict[str, bytes] = {}
        self._files: dict[str, File] = {}
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            found = [msgspec.json.decode(path.read_bytes(), type=File) for path in directory.glob("*.json")]
            self._files = {file.id: file for file in sorted(found, key=lambda file: file.number)}

    def add(
        self,
        content: bytes,
        *,
        purpose: str,
        filename: str,
        now: float,
        owner: str = "openai",
        mime: str = "application/octet-stream",
    ) -> File:
        """Keep a new file."""
        number = max((file.number for file in self._files.values()), default=0) + 1
        name = hashlib.sha256(f"{self._seed}:file:{number}".encode()).hexdigest()[:24]
        file = File(
            id=f"file-{name}",
            number=number,
            filename=filename,
            purpose=purpose,
            size=len(content),
            created_at=now,
            owner=owner,
            mime=mime,
        )
        if self._directory is None:
            self._contents[file.id] = content
        else:
            write_whole(self._directory / f"{file.id}.data", content)
            write_whole(self._directory / f"{file.id}.json", msgspec.json.encode(file))
        self._files[file.id] = file
        return file

    def get(self, id: str) -> File | None:
        """A file, if there is one."""
        return self._files.get(id)

    def content(self, id: str) -> bytes:
        """All of a file; `KeyError` where there is none."""
        if self._directory is None:
            return self._contents[id]
        return (self._directory / f"{self._files[id].id}.data").read_bytes()

    def delete(self, id: str) -> bool:
        """Whether there was one to delete."""
        if self._files.pop(id, None) is None:
            return False
        self._contents.pop(id, None)
        if self._directory is not None:
            (self._directory / f"{id}.json").unlink()
            (self._directory / f"{id}.data").unlink()
        return True

    def all(self, owner: str) -> list[File]:
        """Every file of a dialect, newest first."""
        return [file for file in reversed(self._files.values()) if file.owner == owner]


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: readers, also those after a crash, see the old content or the new."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)
