"""Opening a file that another process holds just now."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from segue.model.errors import StoreError
from segue.stores.sqlite import SqliteStore


async def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    first = SqliteStore(str(path))
    await first.open()
    await first.close()
    cx = sqlite3.connect(path, isolation_level=None)
    cx.execute("begin immediate")
    store = SqliteStore(str(path), patience=timedelta(seconds=30))
    opening = asyncio.ensure_future(store.open())
    await asyncio.sleep(0.8)
    assert not opening.done()
    cx.execute("rollback")
    await asyncio.wait_for(opening, 10)
    await store.close()
    cx.execute("begin immediate")
    with pytest.raises(StoreError, match="another process kept it locked"):
        await SqliteStore(str(path), patience=timedelta(seconds=0.3)).open()
    cx.close()
