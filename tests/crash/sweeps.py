"""Processes that are killed in the middle of one order to a SQLite store.

`sweeps.py ORDER` reads lines of JSON: the file, what time it is, and before which SQL statement of the order it dies, 0
for none. Each life is forked from this process. It says how each ended: minus the signal, or 0.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from typing import Any

from segue.stores.sqlite import store as sqlite_store
from segue.stores.sqlite.store import SqliteStore


async def order(store: SqliteStore, what: str, now: float) -> None:
    if what == "sweep":
        while await store.sweep(now=now, limit=2):
            pass
    elif what == "claim":
        while await store.claim("doomed", 2, 60.0, now=now, but=["theirs"]):
            pass
    else:
        raise ValueError(what)


def live(path: str, what: str, now: float, dies_at: int) -> None:
    """In the child."""
    count = 0
    began = False

    def statement(_: str) -> None:
        nonlocal count
        count += began
        if began and count == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    plain = sqlite3.connect

    def connect(*args: Any, **how: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = plain(*args, **how)
        connection.set_trace_callback(statement)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]  # the child's alone

    async def main() -> None:
        nonlocal began
        store = sqlite_store.SqliteStore(path)
        await store.open()
        began = True
        await order(store, what, now)
        began = False
        await store.close()

    asyncio.run(main())


if __name__ == "__main__":
    for line in sys.stdin:
        path, now, dies_at = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                live(path, sys.argv[1], now, dies_at)
                code = 0
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
