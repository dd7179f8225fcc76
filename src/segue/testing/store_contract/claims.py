"""Claims: who may act on a run, until when, and what becomes of runs that their workers die of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ...model.mode import Config
from ...ports.store import Claimed, Lease, NewRun, Store
from ...stores.poison import LAPSES, SUSPECT
from .acts import (
    HOUR,
    LANE,
    append,
    claim,
    commit,
    create,
    loaded,
    park,
    spec,
    start,
    status,
    tell,
)


class ClaimsContract:
    """Part of `StoreContract`."""

    async def test_claim_gives_all_that_a_wake_needs(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        await commit(store, "a", fence, entries=b"old", checkpoint=None)
        await commit(store, "a", fence, entries=b"one", checkpoint=b"state")
        await commit(store, "a", fence, entries=b"two")
        await park(store, "a", fence)
        await store.deliver([tell("a", 1), tell("a", 2)], now=7.0)
        got = (await claim(store, now=8.0))["a"]
        assert (got.head.status, got.head.fence, got.head.wake) == ("ready", 2, None)
        assert (got.checkpoint, got.pool, got.journal) == (b"state", None, [b"one", b"two"])
        assert [letter.mail for letter in got.inbox] == [tell("a", 1), tell("a", 2)]
        assert got == await store.load("a")

    async def test_highest_priority_then_oldest(self, store: Store) -> None:
        await create(store, "a", "b")
        await create(store, "urgent", config=Config(priority=5))
        await create(store, "idle", config=Config(priority=-5))
        await create(store, "c")
        assert list(await claim(store, 3)) == ["urgent", "a", "b"]
        assert list(await claim(store)) == ["c", "idle"]
        assert await claim(store) == {}

    async def test_the_most_urgent_first_of_those_that_are_due_or_have_lapsed(self, store: Store) -> None:
        for id, wake, priority in (("late", 1.0, 0), ("later", 2.0, 0), ("urgent", 3.0, 5)):
            (fence,) = await start(store, id, config=Config(priority=priority))
            await park(store, id, fence, wake=wake)
        assert list(await claim(store, 1, now=9.0)) == ["urgent"]
        assert list(await claim(store, now=9.0)) == ["late", "later"]
        await store.renew("w", [Lease("late", 2)], 10.0, now=9.0)
        await store.renew("w", [Lease("later", 2), Lease("urgent", 2)], 20.0, now=9.0)
        assert list(await claim(store, 1, now=99.0)) == ["urgent"]
        assert list(await claim(store, now=99.0)) == ["late", "later"]

    async def test_claims_are_exclusive(self, store: Store) -> None:
        ids = [f"r{i:03}" for i in range(200)]
        await create(store, *ids)
        claims = [store.claim(f"w{i}", 30, HOUR, now=0.0) for i in range(10)]
        got = [run.head.id for runs in await asyncio.gather(*claims) for run in runs]
        assert sorted(got) == ids

    async def test_a_lapsed_claim_is_taken_over(self, store: Store) -> None:
        await create(store, "a")
        (mine,) = await store.claim("w1", 1, 10.0, now=100.0)
        assert await store.claim("w2", 1, 10.0, now=109.9) == []
        (other,) = await store.claim("w2", 1, 10.0, now=110.0)
        assert other.head.fence == mine.head.fence + 1
        assert await commit(store, "a", mine.head.fence, entries=b"late") == "fenced"
        assert await commit(store, "a", mine.head.fence, entries=b"late", status="done") == "fenced"
        assert await commit(store, "a", other.head.fence, entries=b"mine") == "committed"
        assert (await store.history("a")).rows == [b"mine"]
        assert await status(store, "a") == "ready"

    async def test_runs_of_some_code_are_left_to_others(self, store: Store) -> None:
        mine, theirs = spec(target="t", module="a", version="1"), spec(target="t", module="b", version="1")
        await store.create([NewRun("mine", mine), NewRun("theirs", theirs)], now=0.0)
        assert await store.backlog(now=0.0, but=[theirs.code]) == (1, None)
        (got,) = await store.claim("w", 9, HOUR, now=0.0, but=[theirs.code, "other"])
        assert got.head.id == "mine"
        assert await store.claim("w", 9, HOUR, now=0.0, but=["t"]) == []
        assert sorted(await claim(store, now=2 * HOUR)) == ["mine", "theirs"]

    async def test_a_claim_says_no_more_why_its_run_waited(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        await commit(store, "a", fence, release=True, reason="nobody knows it")
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.reason) == ("ready", "nobody knows it")
        assert (await claim(store))["a"].head.reason == ""

    async def test_a_lapsed_claim_is_left_alone_where_that_is_asked(self, store: Store) -> None:
        await start(store, "held", "too", worker="w1")
        await start(store, "dead", worker="w2")
        await create(store, "free")
        await store.bury(["w2"])
        got = await store.claim("w3", 10, HOUR, now=2 * HOUR, lapsed=False)
        assert sorted(one.head.id for one in got) == ["dead", "free"]
        assert sorted(await claim(store, now=2 * HOUR, worker="w3")) == ["held", "too"]

    async def test_a_lapsed_claim_that_nobody_took_still_commits(self, store: Store) -> None:
        await create(store, "a")
        (mine,) = await store.claim("w", 1, 1.0, now=0.0)
        assert await commit(store, "a", mine.head.fence, entries=b"row", now=50.0) == "committed"

    async def test_of_lapsed_claims_only_those_are_lost_that_are_taken_over(self, store: Store) -> None:
        await start(store, "a", "b", "c")
        assert list(await claim(store, 2, now=2 * HOUR, worker="w2")) == ["a", "b"]
        assert await commit(store, "b", 1, entries=b"late") == "fenced"
        assert await commit(store, "c", 1, entries=b"row") == "committed"
        assert await store.renew("w", [Lease("c", 1)], HOUR, now=2 * HOUR) == [True]

    async def test_a_claim_given_up_no_longer_commits(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        await park(store, "a", fence)
        assert await commit(store, "a", fence, entries=b"row") == "fenced"

    async def test_renew(self, store: Store) -> None:
        await create(store, "a", "b", "c")
        await store.claim("w", 3, 10.0, now=0.0)
        await park(store, "c", 1)
        leases = [Lease("a", 1), Lease("b", 2), Lease("c", 1), Lease("x", 1)]
        assert await store.renew("w", leases, 100.0, now=5.0) == [True, False, False, False]
        assert await store.renew("other", leases[:1], 100.0, now=5.0) == [False]
        assert list(await claim(store, now=50.0, worker="w2")) == ["b"]
        assert await claim(store, now=104.9, worker="w2") == {}
        assert list(await claim(store, now=105.0, worker="w2")) == ["a"]
        assert await store.renew("w", leases[:1], 100.0, now=106.0) == [False]

    async def test_a_shortened_claim_lapses_sooner(self, store: Store) -> None:
        await start(store, "a")
        assert await store.renew("w", [Lease("a", 1)], 0.0, now=10.0) == [True]
        assert list(await claim(store, now=10.0)) == ["a"]

    async def test_what_the_dead_held_is_free(self, store: Store) -> None:
        await start(store, "a", "b", worker="dead")
        await start(store, "c", worker="living")
        fence = await store.claim_lane(LANE, "dead", HOUR, now=1.0)
        assert fence is not None
        other = await store.claim_lane("other", "living", HOUR, now=1.0)
        assert await store.workers() == ["dead", "living"]
        await store.bury(["dead", "unknown"])
        assert await store.workers() == ["living"]
        assert await store.claim_lane(LANE, "living", HOUR, now=1.0) == fence + 1
        assert await store.claim_lane("other", "third", HOUR, now=1.0) is None
        assert await store.claim_lane("other", "living", HOUR, now=1.0) == other
        assert list(await claim(store, now=1.0, worker="living")) == ["a", "b"]
        assert await commit(store, "a", 1) == "fenced"
        assert await commit(store, "c", 1) == "committed"

    async def test_poison_is_held(self, store: Store) -> None:
        await create(store, "a")
        got: dict[str, Claimed] = {}
        for n in range(LAPSES):
            got = await claim(store, now=n * HOUR, worker=f"w{n}")
            assert list(got) == ["a"]
        assert await claim(store, now=LAPSES * HOUR) == {}
        head = (await loaded(store, "a")).head
        assert (head.status, head.cause) == (
            "held",
            f"its claim lapsed {LAPSES} times with nothing done between: it may be what its workers died of",
        )
        assert "segue resume a" in head.reason
        assert await commit(store, "a", got["a"].head.fence, entries=b"late") == "fenced"
        assert await claim(store, now=50 * HOUR) == {}
        assert await store.revive("a", pool=None, now=50 * HOUR, status=("held",))
        for n in range(LAPSES):  # from the start
            assert list(await claim(store, now=(51 + n) * HOUR, worker=f"w{n}")) == ["a"]

    @pytest.mark.parametrize(
        "done",
        [
            {"row": b"row"},
            {"checkpoint": b"{}", "entries": b"row"},
            {"checkpoint": b"{}"},
            {"outbox": [tell("nobody", 1, "a")]},
            {"release": True},
        ],
    )
    async def test_what_gets_on_is_no_poison(self, store: Store, done: dict[str, Any]) -> None:
        await create(store, "a")
        for n in range(4 * LAPSES):
            got = await claim(store, limit=1, now=n * HOUR, worker=f"w{n}")
            assert list(got) == ["a"]
            if n % 4 == 3:
                if "row" in done:
                    assert await append(store, [("a", got["a"].head.fence, b"row")]) == ["committed"]
                else:
                    assert await commit(store, "a", got["a"].head.fence, **done) == "committed"
                if "release" in done:
                    assert list(await claim(store, limit=1, now=n * HOUR, worker=f"w{n}")) == ["a"]

    async def test_a_worker_has_one_suspect_at_a_time(self, store: Store) -> None:
        await create(store, "a", "b")
        for n in range(SUSPECT):
            assert list(await claim(store, now=n * HOUR, worker=f"w{n}")) == ["a", "b"]
        now = SUSPECT * HOUR
        assert list(await claim(store, now=now, worker="v")) == ["a"]
        assert await claim(store, now=now, worker="v") == {}
        assert list(await claim(store, now=now, worker="w")) == ["b"]

    async def test_neighbours_of_poison_are_told_apart_from_it(self, store: Store) -> None:
        await create(store, *"abcdef")
        done: set[str] = set()
        for n in range(40):  # a worker dies as soon as it has "d"
            while True:
                got = await claim(store, now=n * HOUR, worker=f"w{n}")
                if not got or "d" in got:
                    break
                for run, claimed in got.items():
                    await commit(store, run, claimed.head.fence, status="done", value=b"1")
                    done.add(run)
        assert done == set("abcef")
        assert await status(store, "d") == "held"

    async def test_runs_of_other_targets_are_left_to_others(self, store: Store) -> None:
        """Those that are ready, due, or were lost; what is left keeps its place."""
        await start(store, "lost", "due", target="theirs")
        await park(store, "due", wake=5.0)
        await create(store, "a", "b", target="theirs")
        await create(store, "c", target="mine")
        await create(store, "d", target="other")
        late = HOUR + 1.0
        assert await store.backlog(now=late) == (6, None)
        assert await store.backlog(now=late, but=["theirs", "nobody's"]) == (2, None)
        got = await store.claim("w", 1, HOUR, now=late, but=["theirs", "nobody's"])
        assert [one.head.id for one in got] == ["c"]
        assert await store.claim("w", 9, HOUR, now=late, but=["theirs", "other"]) == []
        assert sorted(await claim(store, 3, now=late)) == ["a", "due", "lost"]
        assert list(await claim(store, now=late)) == ["b", "d"]

    async def test_backlog(self, store: Store) -> None:
        await create(store, "ready", "mine")
        await claim(store, 1)
        await start(store, "p1", "p2", "p3", "held", "done")
        await park(store, "p1", wake=500.0)
        await park(store, "p2", wake=300.0)
        await park(store, "p3")
        await commit(store, "held", 1, status="held", reason="money")
        await commit(store, "done", 1, status="done")
        assert await store.backlog(now=0.0) == (2, 300.0)
        assert await store.backlog(now=400.0) == (3, 500.0)
        assert await store.backlog(now=500.0) == (4, None)
        await claim(store, now=400.0)
        assert await store.backlog(now=400.0) == (3, 500.0)
        await store.deliver([tell("p1", 1)], now=400.0)
        assert await store.backlog(now=400.0) == (4, None)
