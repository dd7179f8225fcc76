"""Turns: written whole or not at all, in order; what they leave behind, and when their run wakes."""

from __future__ import annotations

import asyncio

from ...model.message import Mail
from ...model.run import CallRef, Usage
from ...ports.store import NewRun, Store, Turn
from .acts import (
    append,
    claim,
    commit,
    create,
    land,
    line,
    loaded,
    mail_of,
    park,
    pool,
    question,
    spec,
    start,
    status,
    tell,
)


class TurnsContract:
    """Part of `StoreContract`."""

    # ------------------------------------------------------------ commit
    async def test_journal_rows_are_appended_in_order(self, store: Store) -> None:
        await start(store, "a", "b")
        rows = [b"%d" % i for i in range(50)]
        turns = [Turn(run=run, fence=1, entries=row) for row in rows for run in ("a", "b")]
        futures = [store.commit([turn]) for turn in turns[:60]]
        assert await store.commit(turns[60:]) == ["committed"] * 40
        assert [await future for future in futures] == [["committed"]] * 60
        assert (await loaded(store, "a")).journal == rows
        assert (await loaded(store, "b")).journal == rows

    async def test_a_fenced_turn_writes_nothing_and_its_neighbours_do(self, store: Store) -> None:
        await start(store, "a", "b", "c", "child")
        await store.deliver([tell("b", 1)], now=0.0)
        ((letter, *_),) = [await store.inbox("b", 0)]
        stale = Turn(
            run="b",
            fence=9,
            entries=b"row",
            checkpoint=b"state",
            consumed=[letter.id],
            outbox=[Mail("c", "run:b", 1, "tell")],
            lines=[line("l1", "b")],
            asks=[question("q1", "b")],
            spawn=[NewRun("new", spec())],
            blobs=[(b"digest", b"content")],
            status="done",
            value=b"1",
            usage=[Usage("m", "live", 1)],
        )
        turns = [Turn(run="a", fence=1, entries=b"row"), stale, Turn(run="c", fence=1, status="parked")]
        assert await store.commit(turns) == ["committed", "fenced", "committed"]
        assert ((await store.history("a")).rows, (await store.history("b")).rows) == ([b"row"], [])
        assert await mail_of(store, "c") == []
        assert await mail_of(store, "b") == [letter.mail]
        assert await store.get("new") is None
        assert await store.get_blobs([b"digest"]) == {}
        assert await store.asks() == []
        assert await store.line_counts() == {}
        found = await loaded(store, "b")
        assert (found.head.status, found.head.usage, found.checkpoint) == ("ready", [], None)
        assert await status(store, "c") == "parked"

    async def test_several_turns_of_one_run(self, store: Store) -> None:
        await start(store, "a")
        turns = [
            Turn(run="a", fence=1, entries=b"1"),
            Turn(run="a", fence=1, entries=b"2", checkpoint=b"s"),
            Turn(run="a", fence=1, entries=b"3", status="parked"),
            Turn(run="a", fence=1, entries=b"4"),
        ]
        assert await store.commit(turns) == ["committed", "committed", "committed", "fenced"]
        found = await loaded(store, "a")
        assert (found.checkpoint, found.journal, found.head.status) == (b"s", [b"2", b"3"], "parked")

    async def test_a_turn_may_say_nothing(self, store: Store) -> None:
        await start(store, "a")
        assert await commit(store, "a", 1) == "committed"
        assert await commit(store, "a", 2) == "fenced"
        assert (await store.history("a")).rows == []

    async def test_release_leaves_the_run_ready(self, store: Store) -> None:
        await start(store, "a")
        assert await commit(store, "a", 1, entries=b"row", release=True, now=3.0) == "committed"
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.updated) == ("ready", 3.0)
        assert (await claim(store))["a"].head.fence == 2

    async def test_held_runs_wait_for_a_person(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, status="held", reason="code changed")
        await store.deliver([tell("a", 1)], now=0.0)
        assert await claim(store, now=1e9) == {}
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.reason) == ("held", "code changed")
        assert await mail_of(store, "a") == [tell("a", 1)]

    async def test_a_held_run_can_be_cancelled(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, status="held", reason="code changed")
        await store.deliver([tell("a", 1, kind="cancel", name="", value=None)], now=0.0)
        claimed = await claim(store)
        assert claimed["a"].head.fence == 2
        assert [letter.mail.kind for letter in claimed["a"].inbox] == ["cancel"]

    async def test_usage_is_the_newest_said(self, store: Store) -> None:
        await start(store, "a")
        use = [Usage("m", "batch", 2, 30, 40, 5), Usage("m", "live", 1, 2, 3)]
        await commit(store, "a", 1, usage=use[:1])
        await commit(store, "a", 1, entries=b"row", usage=use)
        await commit(store, "a", 1, entries=b"row")
        await park(store, "a")
        head = await store.get("a")
        assert head is not None
        assert head.usage == use

    async def test_many_turns_at_once(self, store: Store) -> None:
        ids = [f"r{i:03}" for i in range(300)]
        await start(store, *ids)
        turns = [
            Turn(run=id, fence=1, entries=b"e" + id.encode(), status="parked", wake=float(i))
            for i, id in enumerate(ids)
        ]
        assert await store.commit(turns) == ["committed"] * 300
        got = await claim(store, 1000, now=149.0)
        assert sorted(got) == ids[:150]
        assert all(run.journal == [b"e" + id.encode()] for id, run in got.items())

    async def test_one_fenced_among_many(self, store: Store) -> None:
        ids = [f"r{i:03}" for i in range(300)]
        await start(store, *ids)
        turns = [Turn(run=id, fence=1 + (id == "r280"), entries=id.encode()) for id in ids]
        results = await store.commit(turns)
        assert [id for id, result in zip(ids, results, strict=True) if result != "committed"] == ["r280"]
        assert [(await store.history(id)).rows for id in ("r000", "r280", "r299")] == [
            [b"r000"],
            [],
            [b"r299"],
        ]

    async def test_turns_land_by_themselves(self, store: Store) -> None:
        await start(store, "a", "b", "c", "d")
        await store.deliver([tell("c", 1)], now=0.0)
        turns = [
            Turn(run="a", fence=1, entries=b"1"),
            Turn(run="b", fence=9, entries=b"2", outbox=[Mail("a", "run:b", 1, "tell")]),
            Turn(run="a", fence=1, entries=b"3"),
            Turn(run="c", fence=1, entries=b"4", status="parked"),
            Turn(run="d", fence=1, status="done", value=b"5"),
        ]
        assert await land(store, turns) == ["committed", "fenced", "committed", "ready", "committed"]
        assert (await loaded(store, "a")).journal == [b"1", b"3"]
        assert await mail_of(store, "a") == []
        head = await store.get("d")
        assert head is not None
        assert (head.status, head.value) == ("done", b"5")

    async def test_rows_are_appended_by_who_holds_their_runs(self, store: Store) -> None:
        ids = [f"r{i:03}" for i in range(300)]
        await start(store, *ids)
        assert await append(store, [(id, 1, b"1") for id in ids]) == ["committed"] * 300
        rows = [(id, 1 + (id == "r280"), b"2") for id in (*ids, "nobody")]
        results = await append(store, rows)
        assert [row[0] for row, came in zip(rows, results, strict=True) if came != "committed"] == [
            "r280",
            "nobody",
        ]
        assert [(await store.history(id)).rows for id in ("r000", "r280")] == [[b"1", b"2"], [b"1"]]
        assert await commit(store, "r000", 1, status="done", value=b"3", entries=b"4") == "committed"
        assert await append(store, [("r000", 1, b"5")]) == ["fenced"]
        assert (await store.history("r000")).rows == [b"1", b"2", b"4"]

    async def test_rows_of_two_lives_appended_together(self, store: Store) -> None:
        await start(store, "a", "b")
        await store.bury(["w"])
        await claim(store)
        assert await append(store, [("b", 1, b"old"), ("a", 2, b"new")]) == ["fenced", "committed"]
        assert await append(store, [("a", 1, b"old"), ("a", 2, b"newer")]) == ["fenced", "committed"]
        assert await append(store, [("a", 2, b"newest"), ("a", 1, b"old")]) == ["committed", "fenced"]
        rows = [(await store.history(id)).rows for id in "ab"]
        assert rows == [[b"new", b"newer", b"newest"], []]

    async def test_a_row_keeps_its_place_between_turns(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        await commit(store, "a", fence, entries=b"1", checkpoint=b"state")
        await append(store, [("a", fence, b"2")])
        await create(store, "b")  # in the same group, perhaps
        loaded = await store.load("a")
        assert loaded is not None
        assert loaded.journal == [b"1", b"2"]

    async def test_spawned_runs_are_created_once(self, store: Store) -> None:
        await start(store, "a")
        child = NewRun("a/1", spec(target="child", parent=CallRef("a", "", 0)), pool=pool(b"1"))
        await commit(store, "a", 1, entries=b"row", spawn=[child], now=4.0)
        await commit(store, "a", 1, spawn=[NewRun("a/1", spec(target="other"))])
        got = (await claim(store))["a/1"]
        assert (got.head.spec, got.pool, got.head.fence) == (child.spec, pool(b"1"), 1)

    # ------------------------------------------------------------ checkpoints
    async def test_a_checkpoint_archives_the_journal(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, entries=b"1")
        await commit(store, "a", 1, entries=b"2", checkpoint=b"s1")
        await commit(store, "a", 1, entries=b"3")
        await commit(store, "a", 1, checkpoint=b"s2")
        found = await loaded(store, "a")
        assert (found.checkpoint, found.journal) == (b"s2", [])
        await commit(store, "a", 1, entries=b"4", release=True)
        got = (await claim(store))["a"]
        assert (got.checkpoint, got.journal) == (b"s2", [b"4"])
        assert (await store.history("a")).rows == [b"1", b"2", b"3", b"4"]

    async def test_deltas_are_kept_beside_the_checkpoint_until_the_next_one(self, store: Store) -> None:
        """Each archives the journal; those of one run are its own, in order, and fenced like all."""
        fences = dict(zip("ab", await start(store, "a", "b"), strict=True))
        for id in "ab":
            await commit(store, id, fences[id], checkpoint=b"s1")
        first = [Turn(run=id, fence=fences[id], delta=id.encode() + b"1", entries=b"1") for id in "ab"]
        assert await store.commit(first) == ["committed", "committed"]
        await commit(store, "a", fences["a"], delta=b"a2", entries=b"2")
        await commit(store, "a", fences["a"] - 1, delta=b"no")
        await park(store, "a", fences["a"], entries=b"3", seen=0)
        await store.deliver([tell("a", 1)], now=1.0)
        got = (await claim(store, now=2.0))["a"]
        assert (got.checkpoint, got.deltas, got.journal) == (b"s1", [b"a1", b"a2"], [b"2", b"3"])
        assert (await loaded(store, "b")).deltas == [b"b1"]
        await commit(store, "a", got.head.fence, checkpoint=b"s2")
        found = await loaded(store, "a")
        assert (found.checkpoint, found.deltas, found.journal) == (b"s2", [], [])
        assert (await loaded(store, "b")).deltas == [b"b1"]
        assert (await store.history("a")).rows == [b"1", b"2", b"3"]

    async def test_a_delta_may_take_the_place_of_the_newest_ones(self, store: Store) -> None:
        """Of its own run, however many are asked for, also with others in one commit; fenced like all."""
        fences = dict(zip("abc", await start(store, "a", "b", "c"), strict=True))

        async def put(id: str, delta: bytes, replaces: int = 0, *, back: int = 0) -> None:
            await commit(store, id, fences[id] - back, delta=delta, replaces=replaces)

        for id in "abc":
            await commit(store, id, fences[id], checkpoint=b"s")
        for n in range(1, 5):
            for id in "abc":
                await put(id, id.encode() + b"%d" % n)
        await put("a", b"no", 2, back=1)
        turns = [
            Turn(run="a", fence=fences["a"], delta=b"a5", replaces=1),
            Turn(run="b", fence=fences["b"], delta=b"b5", replaces=3),
            Turn(run="c", fence=fences["c"], delta=b"c5"),
        ]
        before = {id: (await loaded(store, id)).deltas for id in "abc"}
        assert await store.commit(turns) == ["committed"] * 3
        kept = {id: (await loaded(store, id)).deltas for id in "abc"}
        assert kept == {turn.run: turn.after(before[turn.run]) for turn in turns}
        assert kept["a"] == [b"a1", b"a2", b"a3", b"a5"]
        assert kept["b"] == [b"b1", b"b5"]
        assert kept["c"] == [b"c1", b"c2", b"c3", b"c4", b"c5"]
        await put("b", b"b6")
        await put("b", b"b7", 2)
        await put("a", b"a6", 99)
        kept = {id: (await loaded(store, id)).deltas for id in "abc"}
        assert (kept["a"], kept["b"], len(kept["c"])) == ([b"a6"], [b"b1", b"b7"], 5)
        await commit(store, "c", fences["c"], checkpoint=b"t", delta=b"c6", replaces=1)
        assert (await loaded(store, "c")).deltas == []  # its own is in the checkpoint
        await put("c", b"c7", 1)  # there is none
        found = await loaded(store, "c")
        assert (found.checkpoint, found.deltas) == (b"t", [b"c7"])

    async def test_what_is_stored_is_any_bytes_of_any_length(self, store: Store) -> None:
        """Of several runs that are claimed together."""
        every = bytes(range(256))
        blobs = {id: [b"", every * n, every[n:] * 3 * n, b"\x00"] for n, id in enumerate("abc", 1)}
        for n, id in enumerate("abc", 1):
            (fence,) = await start(store, id)
            checkpoint = every * 30 * (n - 1)
            await commit(store, id, fence, checkpoint=checkpoint)
            for blob in blobs[id]:
                await commit(store, id, fence, delta=blob)
            for blob in blobs[id]:
                await commit(store, id, fence, entries=blob)
            await commit(store, id, fence, release=True)
        for n, (id, claimed) in enumerate(sorted((await claim(store)).items()), 1):
            assert claimed.checkpoint == every * 30 * (n - 1)
            assert (claimed.deltas, claimed.journal) == (blobs[id], blobs[id])

    # ------------------------------------------------------------ parking
    async def test_a_parked_run_wakes_at_its_time(self, store: Store) -> None:
        await start(store, "a", "b")
        await park(store, "a", wake=100.25)
        await park(store, "b")
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.wake) == ("parked", 100.25)
        assert await claim(store, now=100.0) == {}
        got = await claim(store, now=100.25)
        assert list(got) == ["a"]
        assert got["a"].head.wake is None
        assert await claim(store, now=1e9) != {}  # the claim lapsed; b isn't due ever
        assert await status(store, "b") == "parked"

    async def test_mail_wakes_a_parked_run_once(self, store: Store) -> None:
        await start(store, "a")
        await park(store, "a", wake=100.0)
        await store.deliver([tell("a", 1)], now=5.0)
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.wake) == ("ready", None)
        assert list(await claim(store, now=6.0)) == ["a"]
        assert await claim(store, now=200.0) == {}

    async def test_a_park_that_missed_mail_leaves_the_run_ready(self, store: Store) -> None:
        await start(store, "a")
        await store.deliver([tell("a", 1), tell("a", 2)], now=0.0)
        first, second = await store.inbox("a", 0)
        assert await park(store, "a", seen=first.id, consumed=[first.id], wake=9.0) == "ready"
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.wake) == ("ready", None)
        got = (await claim(store))["a"]
        assert got.inbox == [second]
        assert await park(store, "a", 2, seen=second.id) == "committed"
        assert await status(store, "a") == "parked"
        assert await mail_of(store, "a") == [second.mail]

    async def test_a_hold_that_missed_mail_leaves_the_run_ready(self, store: Store) -> None:
        """It may be a cancellation, which a held run is to hear of."""
        await start(store, "a")
        await store.deliver([tell("a", 1, kind="cancel", name="", value=None)], now=0.0)
        (letter,) = await store.inbox("a", 0)
        turn = Turn(run="a", fence=1, status="held", release=True, reason="code changed")
        assert await store.commit([turn]) == ["ready"]
        assert await status(store, "a") == "ready"
        assert (await claim(store))["a"].inbox == [letter]
        turn = Turn(run="a", fence=2, status="held", release=True, reason="code changed", seen=letter.id)
        assert await store.commit([turn]) == ["committed"]
        assert await status(store, "a") == "held"

    async def test_consumed_mail_doesnt_keep_a_run_awake(self, store: Store) -> None:
        await start(store, "a")
        await store.deliver([tell("a", 1)], now=0.0)
        (letter,) = await store.inbox("a", 0)
        assert await park(store, "a", seen=0, consumed=[letter.id]) == "committed"
        assert await status(store, "a") == "parked"

    async def test_a_park_and_a_delivery_at_once_lose_nothing(self, store: Store) -> None:
        ids = [f"r{i}" for i in range(50)]
        await start(store, *ids)
        for id in ids:
            parked = store.commit([Turn(run=id, fence=1, status="parked")])
            await asyncio.gather(parked, store.deliver([tell(id, 1)], now=0.0))
        assert sorted(await claim(store)) == sorted(ids)

    # ------------------------------------------------------------ blobs
    async def test_blobs(self, store: Store) -> None:
        await start(store, "a")
        large = bytes(range(256)) * 1000
        await commit(store, "a", 1, blobs=[(b"d1", b"one"), (b"d2", large), (b"d3", b"")])
        await commit(store, "a", 1, blobs=[(b"d1", b"one"), (b"d4", b"four")])
        found = await store.get_blobs([b"d1", b"d2", b"d3", b"d4", b"d5"])
        assert found == {b"d1": b"one", b"d2": large, b"d3": b"", b"d4": b"four"}

    async def test_many_blobs(self, store: Store) -> None:
        await start(store, "a")
        blobs = [(b"digest%d" % i, b"%d" % i) for i in range(1200)]
        await commit(store, "a", 1, blobs=blobs)
        assert await store.get_blobs([digest for digest, _ in blobs]) == dict(blobs)
