"""What every store promises of runs that are removed: nothing is left of them, and nothing of others is lost."""

from __future__ import annotations

from typing import Any

from ...core.contents import content_digest
from ...model.budget import Account, Amount, Limit, Reservation
from ...model.entry import BLOB
from ...model.lane import LineOutcome
from ...model.message import DeadLetter
from ...model.mode import Config
from ...model.run import Usage
from ...ports.store import History, JobHead, Store
from .acts import (
    append,
    claim,
    commit,
    create,
    lane_with,
    line,
    loaded,
    mail_of,
    newest,
    park,
    pool,
    question,
    start,
    take,
    tell,
)

LARGE = b'"' + b"x" * BLOB + b'"'
OTHER = b'"' + b"y" * BLOB + b'"'


async def _ends(store: Store, *ids: str, status: str = "done", **fields: Any) -> None:
    for id in ids:
        (fence,) = await start(store, id, **fields)
        assert await commit(store, id, fence, status=status, value=b"1") == "committed"


class RemovalContract:
    """Part of `StoreContract`."""

    async def test_what_is_over_goes_and_the_rest_stays(self, store: Store) -> None:
        await _ends(store, "a", "f")
        await start(store, "b")
        await create(store, "c")
        await start(store, "p")
        await park(store, "p")
        ids, gone = ["a", "b", "c", "p", "f", "never"], [True, False, False, False, True, True]
        assert await store.removable(ids) == gone
        assert await store.remove(ids) == gone
        assert await store.ids() == ["b", "c", "p"]
        assert [head.id for head in await store.runs()] == ["b", "c", "p"]
        assert await newest(store, job="") == "p c b"
        assert await store.run_counts() == {"ready": 2, "parked": 1}
        assert await store.get("a") is None
        assert await store.load("a") is None
        assert await store.history("a") == History([])
        assert await store.backlog(now=0.0) == (2, None)
        assert await store.remove([]) == []
        assert await store.remove(["a"]) == [True]

    async def test_what_others_do_next_comes_after_their_checkpoints_still(self, store: Store) -> None:
        """Also where what was newest of all is removed."""
        await start(store, "a", "b")
        await commit(store, "b", 1, entries=b"past")
        await commit(store, "a", 1, entries=b"newest")
        await commit(store, "b", 1, checkpoint=b"state")
        await commit(store, "a", 1, status="done")
        assert await store.remove(["a"]) == [True]
        await commit(store, "b", 1, entries=b"next")
        assert (await loaded(store, "b")).journal == [b"next"]

    async def test_a_line_that_keeps_its_run_is_paid_for_as_ever(self, store: Store) -> None:
        fence = await lane_with(store, "l1")
        await _ends(store, "a")
        await store.deliver([tell("r", 1)], now=0.0)
        await claim(store)
        await commit(store, "r", 2, status="cancelled")
        assert await store.remove(["r", "a"]) == [False, True]
        used = Usage("m", "batch", 1, 2, 3)
        assert await store.outcomes("B1", fence, [LineOutcome("l1", "ok", b"1", used=used)], now=6.0) == []
        assert await store.unclaimed() == [used]
        assert await store.remove(["r"]) == [True]

    async def test_an_id_is_free_again(self, store: Store) -> None:
        (fence,) = await start(store, "a", key="1")
        checkpoint = {"entries": b"row", "checkpoint": b"s", "asks": [question("q", "a")]}
        await commit(store, "a", fence, **checkpoint)
        await commit(store, "a", fence, entries=b"more", delta=b"d", dead=[DeadLetter(tell("a", 1), "none")])
        await store.sweep(now=1.0, limit=10)
        await store.deliver([tell("a", 7)], now=0.0)
        await commit(store, "a", fence, status="failed", usage=[Usage("m", "batch", 1)])
        assert await store.remove(["a"]) == [True]
        assert await store.get_ask("q") is None
        assert await store.dead_letters() == []
        await create(store, "other")  # whose rows take no place of theirs
        await create(store, "a", key="2")
        found = await loaded(store, "a")
        assert (found.head.spec.key, found.head.status, found.head.usage) == ("2", "ready", [])
        assert (found.checkpoint, found.deltas, found.journal, found.inbox) == (None, [], [], [])
        assert await store.deliver([tell("a", 1)], now=0.0) == ["delivered"]
        assert list(await claim(store)) == ["other", "a"]

    async def test_mail_of_the_next_one_of_that_id_is_new(self, store: Store) -> None:
        """Its numbers have the fence in front: they are above those of the run before."""
        await start(store, "b")
        (fence,) = await start(store, "a")
        for _ in range(3):
            await park(store, "a", fence)
            await store.deliver([tell("a", fence)], now=0.0)
            fence = (await claim(store))["a"].head.fence
        outbox = [tell("b", fence << 24 | 5, "a")]
        await commit(store, "a", fence, outbox=outbox, status="done")
        await store.remove(["a"])
        (again,) = await start(store, "a")
        assert again > fence
        assert (await loaded(store, "a")).head.fence == again
        await commit(store, "a", again, outbox=[tell("b", again << 24 | 1, "a")])
        assert len(await mail_of(store, "b")) == 2

    async def test_who_had_it_claimed_writes_nothing(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        later = (await store.claim("w2", 1, 10.0, now=1e6))[0].head.fence
        await commit(store, "a", later, status="done")
        await store.remove(["a"])
        (again,) = await start(store, "a")
        for stale in (fence, later):
            assert await commit(store, "a", stale, entries=b"late") == "fenced"
            assert await append(store, [("a", stale, b"late")]) == ["fenced"]
        assert (await store.history("a")).rows == []
        assert await commit(store, "a", again, entries=b"row") == "committed"

    async def test_contents_that_others_hold_stay(self, store: Store) -> None:
        for id in "ab":
            (fence,) = await start(store, id, args=b"[[" + LARGE + b"],{}]")
            row = {"entries": b"row", "blobs": [(content_digest(OTHER), OTHER)]}
            await commit(store, id, fence, **row, status="done", value=LARGE)
        digests = [content_digest(OTHER)]
        await store.remove(["a"])
        assert list(await store.get_blobs(digests)) == digests
        head = (await loaded(store, "b")).head
        assert (head.value, head.spec.args) == (LARGE, b"[[" + LARGE + b"],{}]")
        await store.remove(["b"])
        assert await store.get_blobs(digests) == {}

    async def test_what_a_rebased_one_took_over_stays(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        await commit(
            store, "a", fence, blobs=[(content_digest(LARGE), LARGE)], entries=b"row", status="failed"
        )
        await create(store, "b")
        assert await store.revive("b", pool=pool(LARGE), now=0.0, status=["ready"])
        await store.remove(["a"])
        found = (await loaded(store, "b")).pool
        assert found is not None
        assert found.entries[0].value == LARGE

    async def test_one_stays_whose_line_may_be_paid_yet(self, store: Store) -> None:
        drive = await lane_with(store, "l1", "l2", run="a")
        (fence,) = [got.head.fence for got in await store.claim("w", 1, 1.0, now=1e6)] or [1]
        await commit(store, "a", fence, lines=[line("l3", "a")])
        await store.deliver([tell("a", 1, kind="cancel", name="")], now=0.0)
        (got,) = (await claim(store, now=1e9)).values()
        await commit(store, "a", got.head.fence, status="cancelled")
        assert await store.removable(["a"]) == [False]
        assert await store.remove(["a"]) == [False]
        used = Usage("m", "batch", 1)
        ends = [LineOutcome(id, "ok", b"{}", used=used) for id in ("l1", "l2")]
        assert await store.outcomes("B1", drive, ends[:1], now=0.0) == []
        assert await store.remove(["a"]) == [False]
        assert await store.outcomes("B1", drive, ends[1:], now=0.0) == []
        assert len(await store.unclaimed(run="a")) == 2
        assert await store.removable(["a"]) == [True]
        assert await store.remove(["a"]) == [True]
        assert await store.unclaimed() == []
        assert await store.line_counts() == {}
        assert await store.reserved("B1") == {}
        assert await store.outcomes("B1", drive, ends[:1], now=0.0) == ["l1"]
        (fence,) = await start(store, "a")
        await park(store, "a", fence, lines=[line("l1", "a")])
        assert await store.line_counts() == {"waiting": 1}

    async def test_lines_are_found_that_come_after_one_that_is_gone(self, store: Store) -> None:
        drive = await lane_with(store, "l1", run="a")
        (fence,) = await start(store, "b")
        await park(store, "b", fence, lines=[line("l2", "b"), line("l3", "b")])
        await take(store, drive, job="B2")
        await store.outcomes("B1", drive, [LineOutcome("l1", "ok", b"{}")], now=0.0)
        fence = (await claim(store))["a"].head.fence
        await commit(store, "a", fence, status="done")
        assert await store.remove(["a"]) == [True]
        assert [one.id for one in await store.job_lines("B2", "l1", 10)] == ["l2", "l3"]

    async def test_its_budget_goes_unless_others_are_on_it(self, store: Store) -> None:
        accounts = [Account(f"run:{id}", Limit(nanos=100)) for id in "ab"]
        for id, account in zip("ab", accounts, strict=True):
            await start(store, id)
            await start(store, f"child of {id}")
            await store.reserve([Reservation(f"call {id}", id, (account,), Amount(10, 1))], now=0.0)
        await store.reserve([Reservation("c", "child of b", (accounts[1],), Amount(10, 1))], now=0.0)
        for id in "ab":
            await commit(store, id, 1, status="done")
        assert await store.remove(["a", "b"]) == [True, True]
        assert [one.id for one in await store.budgets()] == ["run:b"]

    async def test_budgets_of_blocks_in_its_code_go_too(self, store: Store) -> None:
        of = {"block:a #0.0": "a", "block:a /x#1.0": "a", "block:a b #0.0": "a b", "block:ab #0.0": "ab"}
        await start(store, "a", "a b", "ab")
        for id, run in of.items():
            await store.reserve([Reservation(id, run, (Account(id, Limit(nanos=9)),), Amount(1, 1))], now=0.0)
        await commit(store, "a", 1, status="done")
        assert await store.remove(["a"]) == [True]
        assert [one.id for one in await store.budgets()] == ["block:a b #0.0", "block:ab #0.0"]

    async def test_its_budget_stays_while_a_run_draws_on_it_that_isnt_over(self, store: Store) -> None:
        await store.put_job(JobHead("j", "greet", 1.0))
        accounts = [Account(id, Limit(nanos=100)) for id in ("job:j", "run:j/1", "run:j/2")]
        (fence,) = await start(store, "j/1", job="j")
        await start(store, "other", config=Config(accounts=tuple(accounts[:2])))
        wanted = Reservation("call", "j/1", tuple(accounts), Amount(10, 1))
        await store.reserve([wanted], now=0.0)
        await commit(store, "j/1", fence, status="done")
        assert await store.remove(["j/1"]) == [True]
        assert await store.remove_job("j") is True
        assert [one.id for one in await store.budgets()] == ["job:j", "run:j/1", "run:j/2"]
        await commit(store, "other", fence, status="done")
        assert await store.remove_job("j") is True
        assert [one.id for one in await store.budgets()] == ["run:j/1", "run:j/2"]

    async def test_jobs(self, store: Store) -> None:
        await store.put_job(JobHead("j", "greet", 1.0, total=3))
        await _ends(store, "j/1", "j/2", job="j")
        await start(store, "j/3", job="j")
        assert await store.remove(["j/1", "j/2", "j/3"]) == [True, True, False]
        assert await newest(store, job="j") == "j/3"
        assert await store.finished("j", 0, 10) == []
        job = await store.get_job("j")
        assert job is not None
        assert job.counts == {"ready": 1}
        assert await store.remove_job("j") is False
        await commit(store, "j/3", 1, status="done")
        await store.remove(["j/3"])
        assert await store.remove_job("j") is True
        assert await store.remove_job("j") is True
        assert await store.get_job("j") is None
        assert await store.list_jobs() == []
        made = await store.put_job(JobHead("j", "other", 2.0))
        assert made == JobHead("j", "other", 2.0)
        await _ends(store, "j/1", job="j")
        assert [head.id for head in await store.finished("j", 0, 10)] == ["j/1"]

    async def test_newer_ones_come_after_those_that_are_gone(self, store: Store) -> None:
        for n in range(3):
            await _ends(store, f"a{n}")
            await create(store, f"b{n}")
            await store.remove([f"a{n}"])
        await _ends(store, "z1", "z2", "z3")
        await store.remove(["z1", "z2", "z3"])
        await _ends(store, "z4")
        await store.remove(["z4"])
        for get in (store.get, store.load):
            assert await get("") is None
        await create(store, "last")
        assert await newest(store, job="") == "last b2 b1 b0"
        assert list(await claim(store)) == ["b0", "b1", "b2", "last"]
        assert await store.run_counts() == {"ready": 4}
