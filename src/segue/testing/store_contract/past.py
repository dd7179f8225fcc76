"""What every store promises of past turns: sealed, kept for as long as their run says, then dropped with all theirs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ...model.mode import DROP, KEEP, Config
from ...model.run import Spec
from ...ports.store import History, NewRun, Store, Turn


async def _start(store: Store, *ids: str, **fields: Any) -> None:
    runs = [NewRun(id, Spec("actor", "greet", b"{}", **fields)) for id in ids]
    await store.create(runs, now=0.0, worker="w", ttl=3600.0)


async def _commit(store: Store, run: str, **fields: Any) -> None:
    assert await store.commit([Turn(run=run, fence=1, **fields)]) == ["committed"]


async def _sweep(store: Store, now: float, limit: int = 10) -> int:
    """All there is to be done; in how many calls."""
    for calls in range(100):
        if not await store.sweep(now=now, limit=limit):
            return calls
    raise AssertionError("there is no end to it")


class PastContract:
    """The part of `StoreContract` on past turns."""

    async def test_what_was_archived_is_sealed_and_reads_as_before(self, store: Store) -> None:
        await _start(store, "a", "b")
        for n in range(3):
            await _commit(store, "a", entries=b"%d" % n, checkpoint=b"s")
        await _commit(store, "b", entries=b"b")
        before = await store.history("a")
        assert (before.rows, before.archived, before.dropped) == ([b"0", b"1", b"2"], 2, 0)
        await _sweep(store, 1e9)
        assert await store.history("a") == before
        await _commit(store, "a", entries=b"3", delta=b"d")
        await _sweep(store, 2e9)
        await _commit(store, "a", entries=b"4")
        assert await store.history("a") == History([b"0", b"1", b"2", b"3", b"4"], 3)
        assert await store.history("b") == History([b"b"])
        found = await store.load("a")
        assert found is not None
        assert (found.checkpoint, found.deltas, found.journal) == (b"s", [b"d"], [b"3", b"4"])

    async def test_much_is_sealed_in_pieces_of_which_nothing_is_lost(self, store: Store) -> None:
        await _start(store, "a", "b", "c")
        rows = [b"%d" % n * 30_000 for n in range(40)]
        for id in "abc":
            for row in rows:
                await _commit(store, id, entries=row)
            await _commit(store, id, checkpoint=b"s")
        assert await _sweep(store, 1.0, limit=2) > 3
        for id in "abc":
            assert await store.history(id) == History(rows, len(rows))

    async def test_dropped_ones_are_counted_and_the_live_journal_stays(self, store: Store) -> None:
        await _start(store, "a", history=DROP)
        await _start(store, "b", config=Config(history=DROP))
        await _start(store, "c", config=Config(history=DROP), history=KEEP)
        for id in "abc":
            await _commit(store, id, entries=b"1")
            await _commit(store, id, entries=b"2")
            await _commit(store, id, entries=b"3", checkpoint=b"s")
            await _sweep(store, 1.0)
            await _commit(store, id, entries=b"4", delta=b"d", status="done")
            await _sweep(store, 1.0)
        assert await store.history("a") == await store.history("b") == History([b"4"], 0, 3)
        assert await store.history("c") == History([b"1", b"2", b"3", b"4"], 3)
        assert await store.history("a", rows=False) == History([], 0, 3)
        assert await store.history("c", rows=False) == History([], 3)

    async def test_those_of_a_time_are_dropped_when_it_is_over(self, store: Store) -> None:
        await _start(store, "a", history=timedelta(seconds=100))
        await _commit(store, "a", entries=b"1")
        await _commit(store, "a", entries=b"2", checkpoint=b"s")
        await _sweep(store, 1000.0)
        await _commit(store, "a", entries=b"3", checkpoint=b"s")
        await _sweep(store, 1050.0)
        await _sweep(store, 1099.0)
        assert await store.history("a") == History([b"1", b"2", b"3"], 2)
        await _sweep(store, 1100.0)
        assert await store.history("a") == History([b"2", b"3"], 1, 1)
        await _sweep(store, 9999.0)
        assert await store.history("a") == History([b"3"], 0, 2)

    async def test_contents_go_with_the_last_rows_they_came_with(self, store: Store) -> None:
        await _start(store, "a", history=DROP)
        await _start(store, "b", history=timedelta(seconds=100))
        await _start(store, "c")
        mine, both, all_, live = (
            (name.encode(), name.upper().encode()) for name in ("mine", "both", "all", "live")
        )
        await _commit(store, "a", entries=b"1", blobs=[mine, both, all_, both])
        await _commit(store, "b", entries=b"1", blobs=[both, all_])
        await _commit(store, "c", entries=b"1", blobs=[all_])
        for id in "abc":
            await _commit(store, id, entries=b"2", checkpoint=b"s", blobs=[live])

        async def there(now: float) -> str:
            await _sweep(store, now)
            found = await store.get_blobs([b"mine", b"both", b"all", b"live"])
            return " ".join(sorted(name.decode() for name in found))

        assert await there(1000.0) == "all both live"
        assert await there(2000.0) == "all live"
        await _commit(store, "a", entries=b"3", blobs=[mine], checkpoint=b"s")
        assert await there(3000.0) == "all live mine"

    async def test_nothing_written_later_is_taken_for_what_was_dropped(self, store: Store) -> None:
        """Not where the newest rows of all are those that go."""
        await _start(store, "a", history=DROP)
        for n in range(5):
            await _commit(store, "a", entries=b"%d" % n)
            await _commit(store, "a", checkpoint=b"s")
            await _sweep(store, 1.0)
            await _commit(store, "a", entries=b"new")
            found = await store.load("a")
            assert found is not None
            assert found.journal == [b"new"]
