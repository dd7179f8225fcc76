"""The limit that a process has on the size of files."""

from __future__ import annotations

import sqlite3
from typing import Final

CURE: Final = (
    "raise that limit (`ulimit -f unlimited`, of a service LimitFSIZE=), or if it is far off, check the disk; "
    "nothing committed is lost"
)

_GROWING: Final = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE)


def met(error: sqlite3.Error) -> int | None:
    """That limit, in bytes, if this is the error of a file that was to grow: SQLite doesn't say why it couldn't."""
    if getattr(error, "sqlite_errorcode", 0) not in _GROWING:
        return None
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit
