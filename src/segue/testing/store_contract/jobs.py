"""Jobs, and lists of runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ...model.run import CallRef
from ...ports.store import JobHead, NewRun, Store, Turn
from .acts import (
    commit,
    create,
    newest,
    park,
    spec,
    start,
)


class JobsContract:
    """Part of `StoreContract`."""

    async def test_jobs(self, store: Store) -> None:
        first = await store.put_job(JobHead("j1", "greet", 1.5))
        assert first == JobHead("j1", "greet", 1.5)
        await store.put_job(JobHead("j0", "greet", 2.5, total=1))
        await start(store, "a", "b", "c", "d", job="j1")
        await create(store, "e", job="j1")
        await create(store, "alone")
        await commit(store, "a", 1, status="done")
        await commit(store, "b", 1, status="failed")
        await park(store, "c")
        counts = {"ready": 2, "parked": 1, "done": 1, "failed": 1}
        assert await store.put_job(JobHead("j1", "other", 9.0, total=5)) == JobHead(
            "j1", "greet", 1.5, 5, counts
        )
        assert await store.put_job(JobHead("j1", "other", 9.0)) == await store.get_job("j1")
        assert await store.get_job("j1") == JobHead("j1", "greet", 1.5, 5, counts)
        assert [job.id for job in await store.list_jobs()] == ["j1", "j0"]
        assert (await store.list_jobs())[0].counts == counts

    async def test_a_jobs_runs_may_come_before_it(self, store: Store) -> None:
        await create(store, "a", job="j")
        assert await store.get_job("j") is None
        assert await store.list_jobs() == []
        assert (await store.put_job(JobHead("j", "greet", 1.0))).counts == {"ready": 1}

    async def test_runs_are_listed_in_order_of_id(self, store: Store) -> None:
        await start(store, "b", "d", "a", job="j")
        await start(store, "c", "e", job="k")
        await start(store, "f")
        await commit(store, "d", 1, status="held", reason="r")
        await commit(store, "e", 1, status="held", reason="r")
        await commit(store, "a", 1, status="done", value=b"1")

        async def ids(**query: Any) -> str:
            return "".join([head.id for head in await store.runs(**query)])

        assert await ids() == "abcdef"
        assert await store.ids() == [*"abcdef"]
        assert await store.ids(after="bb", limit=2) == ["c", "d"]
        assert await ids(limit=2) == "ab"
        assert await ids(after="b", limit=3) == "cde"
        assert await ids(after="bb") == "cdef"
        assert await store.run_counts() == {"ready": 3, "held": 2, "done": 1}

    async def test_runs_are_listed_newest_first(self, store: Store) -> None:
        await start(store, "b", "d", "a", job="j")
        await start(store, "c", "e", job="k")
        await start(store, "f")
        await commit(store, "d", 1, status="held", reason="r")
        await commit(store, "e", 1, status="held", reason="r")
        await commit(store, "a", 1, status="done", value=b"1")
        assert await newest(store) == "f e c a d b"
        assert await newest(store, job="j") == "a d b"
        assert await newest(store, job="j", limit=2) == "a d"
        assert await newest(store, job="j", status=["done", "ready"]) == "a b"
        assert await newest(store, job="j", status=["failed"]) == ""
        assert await newest(store, job="none") == ""
        assert await newest(store, status=["held"]) == "e d"
        assert await newest(store, status=["held", "done"], limit=2) == "e a"
        assert await newest(store, status=["ready", "ready"]) == "f c b"
        assert await newest(store, job="", status=["held"]) == ""
        assert (await store.newest(limit=1))[0] == [await store.get("f")]

    @pytest.mark.parametrize("which", [{}, {"job": "j"}, {"status": ["done"]}])
    async def test_the_newest_are_gone_through_page_by_page(self, store: Store, which: Any) -> None:
        """Also where the last one of a page is removed, and others come, meanwhile."""
        await start(store, "r3", "r1", "r4", "r0", "r5", job="j")
        for id in ("r3", "r1", "r4", "r0", "r5"):
            await commit(store, id, 1, status="done")
        heads, before = await store.newest(limit=3, **which)
        assert [head.id for head in heads] == ["r5", "r0", "r4"]
        await store.remove(["r4"])
        await start(store, "later", job="j")
        await commit(store, "later", 2, status="done")
        heads, before = await store.newest(limit=3, before=before, **which)
        assert [head.id for head in heads] == ["r1", "r3"]
        assert await store.newest(limit=3, before=before, **which) == ([], before)

    async def test_runs_are_listed_under_those_that_started_them(self, store: Store) -> None:
        await start(store, "b", "a")
        await start(store, "row", job="j")
        await start(store, "b.1", "own", parent=CallRef("b", "", 0))
        await start(store, "row.1", parent=CallRef("row", "", 0))
        child = NewRun("a.1", spec(parent=CallRef("a", "", 0)))
        await commit(store, "a", 1, spawn=[child])
        await start(store, "orphan", parent=CallRef("never", "", 0))
        along = [NewRun("d", spec()), NewRun("d.1", spec(parent=CallRef("d", "", 0)))]
        await store.create(along, now=0.0)
        await start(store, "c")
        assert await newest(store, job="") == "c d orphan a b"
        assert await newest(store, parent="d") == "d.1"
        assert await newest(store, job="j") == "row"
        assert await newest(store, parent="b") == "own b.1"
        assert await newest(store, parent="row") == "row.1"
        assert await newest(store, parent="a", status=["ready"]) == "a.1"
        assert await newest(store, parent="a", status=["done"]) == ""
        assert await newest(store, parent="c") == ""
        assert await newest(store, parent="never") == ""
        await commit(store, "b", 1, status="done")
        await store.remove(["b"])
        assert await newest(store, job="") == "c d orphan own b.1 a"
        assert await newest(store, parent="b") == ""
        await start(store, "b")
        assert await newest(store, parent="b") == ""

    async def test_runs_in_the_order_of_their_ends(self, store: Store) -> None:
        await start(store, *"abcdef", job="j")
        await start(store, "x", job="other")
        for id, end in (("c", "done"), ("x", "done"), ("a", "failed"), ("f", "cancelled"), ("b", "done")):
            await commit(store, id, 1, status=end)
        heads = await store.finished("j", 0, 10)
        assert "".join(head.id for head in heads) == "cafb"
        places = [head.finished for head in heads]
        assert places == sorted(places)
        assert places[0] > 0
        assert await store.finished("j", places[1], 10) == heads[2:]
        assert await store.finished("j", 0, 2) == heads[:2]
        assert await store.finished("j", places[-1], 10) == []
        assert heads[0] == await store.get("c")

    async def test_a_cursor_over_ends_misses_none(self, store: Store) -> None:
        ids = [f"r{i:03}" for i in range(120)]
        await start(store, *ids, job="j")
        ends = [store.commit([Turn(run=id, fence=1, status="done")]) for id in ids]
        seen: list[str] = []
        cursor = 0
        while len(seen) < len(ids):
            heads = await store.finished("j", cursor, 7)
            seen += [head.id for head in heads]
            cursor = heads[-1].finished if heads else cursor
        await asyncio.gather(*ends)
        assert sorted(seen) == ids
