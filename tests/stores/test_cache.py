"""The SQLite store gives memory back while nothing happens."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest

from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite import cache as caches
from segue.stores.sqlite.cache import USED, Cache
from segue.stores.sqlite.elsewhere import Elsewhere


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(caches, "REST", 0.01)
    return []


@pytest.fixture
def cache(told: list[str]) -> Iterator[Cache]:
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as cx:
        cx.set_trace_callback(told.append)
        yield Cache(cx)


def test_pages_are_given_back_where_nothing_comes_after_a_burst(told: list[str], cache: Cache) -> None:
    queue = SimpleQueue[str]()
    cache.uses(USED)
    threading.Timer(0.05, queue.put, ("next",)).start()
    assert cache.wait(queue) == "next"
    assert told == ["pragma shrink_memory"]


def test_they_are_kept_while_orders_come(told: list[str], cache: Cache) -> None:
    queue = SimpleQueue[str]()
    for _ in range(3 * USED):
        cache.uses(1)
        queue.put("next")
        assert cache.wait(queue) == "next"
    assert told == []


def test_a_few_orders_are_not_worth_it_and_a_rest_is_one(told: list[str], cache: Cache) -> None:
    queue = SimpleQueue[str]()
    for used in (USED, 1):
        cache.uses(used)
        threading.Timer(0.05, queue.put, ("next",)).start()
        cache.wait(queue)
    assert told == ["pragma shrink_memory"]


def test_times_without_orders_add_up_until_there_is_one(told: list[str], cache: Cache) -> None:
    cache.uses(USED)
    cache.idles(0.006)
    cache.uses(1)
    cache.idles(0.006)
    assert told == []
    cache.idles(0.006)
    assert told == ["pragma shrink_memory"]


async def test_the_thread_that_writes_says_that_it_idles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle: set[str] = set()
    monkeypatch.setattr(Cache, "idles", lambda *_: idle.add(threading.current_thread().name))
    store = SqliteStore(tmp_path / "runs.db")
    await store.open()
    async with asyncio.timeout(5):
        while "segue-sqlite-writer" not in idle:
            await asyncio.sleep(0.001)
    await store.close()


def test_others_are_not_looked_for_where_the_file_fails() -> None:
    cx = sqlite3.connect(":memory:")
    elsewhere = Elsewhere(cx)
    cx.close()
    assert elsewhere.look() == []  # the thread that writes goes on, and its next write tells
