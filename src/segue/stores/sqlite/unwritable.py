"""A file that may be read and not written: on a disk that is read-only or full, or somebody else's."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from ...model.errors import StoreError
from .schema import VERSION, refuse_strange, tune

#: What is done about a file that can only be read, where that isn't enough.
ELSEWHERE: Final = "copy it, with its -wal, to where you may write, and look at the copy"

Stamp = tuple[int, int, bool]


def is_unwritable(path: str) -> bool:
    """Whether a file is there that this process can't write, or not beside: SQLite keeps its log there."""
    beside = os.access(Path(path).absolute().parent, os.W_OK) or (
        _log(path).exists() and _index(path).exists()
    )
    return Path(path).is_file() and not (os.access(path, os.W_OK) and beside)


class Unwritable:
    """Connections to such a file. Nothing is made or changed beside it.

    Where it has a log, somebody may be at work on it, and SQLite reads it as it does any other. Where it has none, all
    of it stands in the file, which is read as it is: no lock can be had without files beside it. Should somebody
    begin to work on it meanwhile, `has_changed` tells, and what was read then is read again.
    """

    def __init__(self, path: str, address: str, *, busy: float) -> None:
        self._path, self._address, self._busy = path, address, busy
        self._stamp: Stamp | None = None

    def connect(self) -> sqlite3.Connection:
        """Open it. Raises `StoreError` for a file that isn't ours, or not of this version."""
        self._stamp = stamp = _stamp(self._path)
        has_log = stamp[2]
        if has_log and not _index(self._path).exists() and not os.access(self._log_folder, os.W_OK):
            raise StoreError(
                self._address,
                "it can't be written, and what was written last isn't in it but beside it",
                ELSEWHERE,
            )
        how = "mode=ro" if has_log else "mode=ro&immutable=1"
        cx = sqlite3.connect(
            f"{Path(self._path).absolute().as_uri()}?{how}",
            uri=True,
            timeout=self._busy,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            tune(cx)
            version = refuse_strange(cx, self._address)
            if version != VERSION:
                raise StoreError(
                    self._address,
                    f"its tables are of version {version}, and to bring them up to {VERSION} it must be written",
                    ELSEWHERE,
                )
        except BaseException:
            cx.close()
            raise
        return cx

    @property
    def _log_folder(self) -> Path:
        return Path(self._path).absolute().parent

    def has_changed(self) -> bool:
        """Whether what was read since `connect` may be of two times."""
        assert self._stamp is not None  # it was connected to
        return not self._stamp[2] and _stamp(self._path) != self._stamp


def _stamp(path: str) -> Stamp:
    """What tells that somebody works on a file, or did since."""
    now = os.stat(path)
    try:
        log = os.stat(_log(path)).st_size
    except FileNotFoundError:
        log = 0
    return now.st_mtime_ns, now.st_size, log > 0


def _log(path: str) -> Path:
    return Path(f"{path}-wal")


def _index(path: str) -> Path:
    return Path(f"{path}-shm")
