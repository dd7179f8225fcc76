"""Runs: created once, ended once, revived."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ...model.entry import Failure
from ...model.message import Mail
from ...model.mode import Batch, Config
from ...model.run import CallRef, Status, Usage
from ...ports.store import Claimed, NewRun, Store
from .acts import (
    claim,
    commit,
    create,
    line,
    loaded,
    mail_of,
    newest,
    park,
    pool,
    question,
    spec,
    start,
    status,
    tell,
)


class RunsContract:
    """Part of `StoreContract`."""

    # ------------------------------------------------------------ create
    async def test_a_new_run_is_ready(self, store: Store) -> None:
        mine = spec(
            version="v1",
            job="j",
            index=3,
            key="k",
            parent=CallRef("p", "0.1", 2),
            config=Config(mode=Batch(), model=("openai:small",), tags={"a": "b"}, priority=2),
            created=12.25,
        )
        (made,) = await store.create([NewRun("a", mine, pool=pool(b"1"))], now=12.5)
        assert made.new
        assert made.head == await store.get("a")
        assert (made.head.id, made.head.spec, made.head.status) == ("a", mine, "ready")
        assert (made.head.fence, made.head.finished, made.head.updated) == (0, 0, 12.5)
        assert (await loaded(store, "a")) == Claimed(made.head, None, pool(b"1"), [], [])

    async def test_create_is_idempotent_by_id(self, store: Store) -> None:
        await create(store, "a", target="first")
        again, other = await store.create([NewRun("a", spec(target="second")), NewRun("b", spec())], now=9.0)
        assert not again.new
        assert again.head.spec.target == "first"
        assert again.head.updated == 0.0
        assert other.new
        assert len(await claim(store)) == 2

    async def test_twice_in_one_create(self, store: Store) -> None:
        one, two = await store.create([NewRun("a", spec(key="1")), NewRun("a", spec(key="2"))], now=0.0)
        assert (one.new, two.new) == (True, False)
        assert two.head.spec.key == one.head.spec.key == "1"
        assert len(await store.runs()) == 1
        await store.create([NewRun(id, spec()) for id in ("c", "b", "c")], now=0.0)
        assert list(await claim(store)) == ["a", "c", "b"]

    async def test_created_by_several_at_once(self, store: Store) -> None:
        made = await asyncio.gather(*[store.create([NewRun("a", spec())], now=0.0) for _ in range(10)])
        assert sum(one.new for (one,) in made) == 1

    async def test_create_claimed(self, store: Store) -> None:
        (made,) = await store.create([NewRun("a", spec())], now=1.0, worker="w", ttl=10.0)
        assert made.head.fence == 1
        assert await claim(store, now=10.9) == {}
        assert await commit(store, "a", 1, entries=b"row") == "committed"
        (again,) = await store.create([NewRun("a", spec())], now=2.0, worker="other", ttl=10.0)
        assert (again.new, again.head.fence) == (False, 1)
        assert await commit(store, "a", 1, entries=b"row") == "committed"

    async def test_nothing_of_nothing(self, store: Store) -> None:
        assert await store.create([], now=0.0) == []
        assert await store.commit([]) == []
        assert await store.deliver([], now=0.0) == []
        assert await store.renew("w", [], 1.0, now=0.0) == []
        assert await store.get_blobs([]) == {}
        assert await store.claim("w", 10, 1.0, now=0.0) == []
        assert await store.runs() == []
        assert await store.list_jobs() == []
        assert await store.lanes() == []
        assert await store.line_counts() == {}
        assert await store.backlog(now=0.0) == (0, None)

    async def test_what_isnt_there(self, store: Store) -> None:
        assert await store.get("x") is None
        assert await store.load("x") is None
        assert (await store.history("x")).rows == []
        assert await store.inbox("x", 0) == []
        assert await store.finished("x", 0, 10) == []
        assert await newest(store, job="x") == ""
        assert await store.get_job("x") is None
        assert await store.get_ask("x") is None
        assert await store.asks(run="x") == []
        assert await store.job_lines("x", "", 10) == []
        assert await store.line_counts(job="x") == {}
        assert await store.batch_jobs(lane="x") == []
        assert not await store.revive("x", pool=None, now=0.0, status=["failed"])
        assert await commit(store, "x", 1, entries=b"row") == "fenced"

    # ------------------------------------------------------------ ends
    async def test_an_end_is_final(self, store: Store) -> None:
        await start(store, "a")
        error = Failure("m:Bad", "it broke", b'["x"]')
        await commit(store, "a", 1, entries=b"row", status="failed", error=error, now=8.0)
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.error, head.value, head.finished) == ("failed", error, None, 1)
        assert head.updated == 8.0
        assert await commit(store, "a", 1, entries=b"more") == "fenced"
        assert await claim(store, now=1e9) == {}
        assert (await store.history("a")).rows == [b"row"]
        assert (await loaded(store, "a")).journal == [b"row"]

    async def test_an_end_closes_what_is_open(self, store: Store) -> None:
        await start(store, "a", "b")
        await commit(store, "a", 1, asks=[question("q1", "a"), question("q2", "a")])
        await commit(store, "b", 1, asks=[question("q3", "b")], lines=[line("l3", "b")])
        await commit(store, "a", 1, lines=[line("l1", "a"), line("l2", "a")])
        await store.deliver([tell("a", 1)], now=0.0)
        await store.answer("q1", b"true", now=0.0)
        await commit(store, "a", 1, status="cancelled")
        assert [ask.id for ask in await store.asks()] == ["q3"]
        assert await store.answer("q2", b"true", now=0.0) == "closed"
        known = [await store.get_ask(ask) for ask in ("q1", "q2")]
        assert [ask and ask[1] for ask in known] == ["answered", "closed"]
        assert await store.line_counts() == {"waiting": 1, "cancelled": 2}
        (lane,) = await store.lanes()
        assert (lane.waiting, lane.size) == (1, 2)
        assert await mail_of(store, "a") == []

    @pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
    async def test_a_parent_is_told(self, store: Store, end: Status) -> None:
        await start(store, "p")
        await park(store, "p")
        call = CallRef("p", "0", 4)
        await start(store, "c", parent=call)
        error = Failure("m:Bad", "it broke") if end == "failed" else None
        value = b"42" if end == "done" else None
        await commit(store, "c", 1, status=end, value=value, error=error, now=6.5)
        assert await status(store, "p") == "ready"
        (mail,) = await mail_of(store, "p")
        assert (mail.to, mail.sender, mail.kind, mail.call, mail.at) == ("p", "run:c", "result", call, 6.5)
        assert mail.value == value
        if end == "cancelled":
            assert mail.error is not None
            assert mail.error.type == "segue:RunCancelled"
        else:
            assert mail.error == error

    async def test_a_childs_last_words_come_before_its_end(self, store: Store) -> None:
        await start(store, "p")
        await start(store, "c", parent=CallRef("p", "", 0))
        await commit(store, "c", 1, outbox=[Mail("p", "run:c", 1, "tell")])
        await commit(store, "c", 1, outbox=[Mail("p", "run:c", 2, "tell")], status="done", value=b"1")
        mail = await mail_of(store, "p")
        assert [one.kind for one in mail] == ["tell", "tell", "result"]
        assert [one.number for one in mail[:2]] == [1, 2]

    async def test_a_child_tells_again_after_a_revival(self, store: Store) -> None:
        await start(store, "p")
        await start(store, "c", parent=CallRef("p", "", 0))
        await commit(store, "c", 1, status="failed", error=Failure("m:E", "no"))
        await store.revive("c", pool=None, now=0.0, status=["failed"])
        await claim(store)
        await commit(store, "c", 2, status="done", value=b"1")
        assert [mail.value for mail in await mail_of(store, "p")] == [None, b"1"]

    async def test_a_parent_that_is_gone_is_not_told(self, store: Store) -> None:
        await start(store, "p")
        await start(store, "c", "d", parent=CallRef("p", "", 0))
        await start(store, "e", parent=CallRef("x", "", 0))
        await commit(store, "p", 1, status="done")
        for child in ("c", "d", "e"):
            assert await commit(store, child, 1, status="done", value=b"1") == "committed"
        assert await mail_of(store, "p") == []

    # ------------------------------------------------------------ revive
    async def test_revive_keeps_the_journal(self, store: Store) -> None:
        await start(store, "a", job="j")
        error = Failure("m:E", "no")
        use = [Usage("m", "live", 1)]
        await commit(store, "a", 1, entries=b"1", status="failed", error=error, reason="x", usage=use)
        assert not await store.revive("a", pool=None, now=5.0, status=["held", "cancelled"])
        assert await store.revive("a", pool=None, now=5.0, status=["held", "failed"])
        assert not await store.revive("a", pool=None, now=6.0, status=["held", "failed"])
        head = await store.get("a")
        assert head is not None
        assert (head.status, head.reason, head.value, head.error, head.finished) == (
            "ready",
            "",
            None,
            None,
            0,
        )
        assert (head.usage, head.updated) == (use, 5.0)
        assert await store.finished("j", 0, 10) == []
        got = (await claim(store))["a"]
        assert (got.journal, got.pool, got.head.fence) == ([b"1"], None, 2)
        await commit(store, "a", 2, entries=b"2", status="done", value=b"7")
        (end,) = await store.finished("j", 1, 10)
        assert (end.id, end.value, end.error, end.finished) == ("a", b"7", None, 2)
        assert await store.finished("j", 0, 10) == [end]

    async def test_revive_with_a_pool_starts_over(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, entries=b"1", status="held", reason="code changed")
        assert await store.revive("a", pool=pool(b"1"), now=5.0, status=["held"])
        got = (await claim(store))["a"]
        assert (got.journal, got.pool, got.head.reason) == ([], pool(b"1"), "")
        await commit(store, "a", 2, entries=b"2")
        assert (await store.history("a")).rows == [b"1", b"2"]
        assert (await loaded(store, "a")).journal == [b"2"]

    async def test_revive_with_other_options(self, store: Store) -> None:
        await start(store, "a", job="j")
        await start(store, "b")
        await commit(store, "a", 1, status="failed")
        await commit(store, "b", 1, status="failed")
        before = await store.get("a")
        assert before is not None
        other = Config(model=("m:other",), priority=1)
        assert await store.revive("a", pool=None, now=5.0, status=["failed"], config=other)
        assert await store.revive("b", pool=None, now=5.0, status=["failed"])
        head = await store.get("a")
        assert head is not None
        assert head.spec == msgspec.structs.replace(before.spec, config=other)
        assert (await claim(store, 1))["a"].head.spec.config == other  # the more urgent one
        assert (await claim(store))["b"].head.spec.config == Config()

    async def test_a_run_that_is_ready_comes_sooner_once_it_is_more_urgent(self, store: Store) -> None:
        await create(store, "a", "b", "c")
        for priority in (5, 0, 5):
            config = Config(priority=priority)
            assert await store.revive("c", pool=None, now=0.0, status=["ready"], config=config)
        assert list(await claim(store)) == ["c", "a", "b"]

    async def test_others_are_revived_along_as_far_as_they_are_cancelled(self, store: Store) -> None:
        await start(store, "a", "b", "c", "d")
        for id in ("a", "b"):
            await commit(store, id, 1, entries=b"1", status="cancelled")
        await commit(store, "c", 1, status="done", value=b"7")
        along = {"b": pool(b"2"), "c": pool(b"3"), "nowhere": pool(b"4")}
        assert not await store.revive("a", pool=pool(b"1"), now=5.0, status=["failed"], along=along)
        assert [await status(store, id) for id in "abc"] == ["cancelled", "cancelled", "done"]
        assert await store.revive("a", pool=pool(b"1"), now=5.0, status=["cancelled"], along=along)
        assert [await status(store, id) for id in "abcd"] == ["ready", "ready", "done", "ready"]
        got = await claim(store)
        assert [(got[id].pool, got[id].journal) for id in ("a", "b")] == [(pool(b"1"), []), (pool(b"2"), [])]

    async def test_revive_fences_who_held_it(self, store: Store) -> None:
        await start(store, "a")
        assert await store.revive("a", pool=pool(b"1"), now=0.0, status=["ready"])
        assert await commit(store, "a", 1, entries=b"late") == "fenced"
        assert list(await claim(store)) == ["a"]

    async def test_a_revived_timer_is_off(self, store: Store) -> None:
        await start(store, "a")
        await park(store, "a", wake=50.0)
        assert await store.revive("a", pool=None, now=0.0, status=["parked"])
        assert await store.backlog(now=0.0) == (1, None)
        assert list(await claim(store)) == ["a"]
        assert await claim(store, now=60.0) == {}

    async def test_mail_reaches_a_revived_run(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, status="failed")
        assert await store.deliver([tell("a", 1)], now=0.0) == ["gone"]
        await store.revive("a", pool=None, now=0.0, status=["failed"])
        assert await store.deliver([tell("a", 1)], now=0.0) == ["delivered"]
