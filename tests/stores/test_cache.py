"""The SQLite store gives memory back while nothing happens."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from queue import SimpleQueue

import pytest

from segue.stores.sqlite import cache as caches
from segue.stores.sqlite.cache import USED, Cache


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
