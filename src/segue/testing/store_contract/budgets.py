"""What every store promises of budgets; part of `StoreContract`."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from ...model.budget import Account, Amount, Limit, Reservation, Reserved, Settlement, Standing
from ...model.lane import Answer, BatchJob, Line, LineOutcome
from ...model.run import CallRef, Status, Usage
from ...ports.store import Store, Turn
from ...stores.poison import LAPSES
from .acts import HOUR, LANE, pool, start

_JOB = Account("job:j", Limit(nanos=100))


async def _commit(store: Store, run: str, fence: int = 1, **fields: Any) -> str:
    (result,) = await store.commit([Turn(run=run, fence=fence, now=5.0, **fields)])
    return result


async def _reserve(store: Store, id: str, nanos: int, *more: Account, run: str = "r") -> Reserved:
    wanted = Reservation(id, run, more or (_JOB,), Amount(nanos, 1))
    (result,) = await store.reserve([wanted], now=5.0)
    return result


async def _standing(store: Store, id: str = "job:j") -> tuple[int, int, int]:
    """Nano-dollars spent and reserved, and the calls that wait."""
    (one,) = await store.budgets([id])
    return one.spent.nanos, one.reserved.nanos, one.waiting


async def _status(store: Store, run: str) -> Status:
    head = await store.get(run)
    assert head is not None
    return head.status


async def _lane(store: Store, *ids: str, due: float = 0.0) -> int:
    """A run `r` whose lines have 30 reserved each, all taken into a provider job `B`; the lane's fence."""
    await start(store, "r")
    for id in ids:
        assert await _reserve(store, id, 30) == "reserved"
    lines = [
        Line(id, LANE, CallRef("r", "", n), b"{}", due=due, late="live" if due else "wait")
        for n, id in enumerate(ids)
    ]
    await _commit(store, "r", status="parked", release=True, lines=lines)
    fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
    assert fence is not None
    assert await _take(store, fence, "B") is not None
    return fence


async def _waited_for(store: Store) -> None:
    """A run `r` that has reserved most of a budget for its call `a`, and `s` that waits for it, parked."""
    await start(store, "r", "s")
    assert await _reserve(store, "a", 60) == "reserved"
    assert await _reserve(store, "s", 50, run="s") == "waits"
    assert await _commit(store, "s", status="parked", release=True, wants=["s"]) == "committed"


async def _take(store: Store, fence: int, job: str) -> BatchJob | None:
    return await store.take(LANE, fence, max_lines=9, max_bytes=999, job=job, nonce=job, now=5.0)


@pytest.mark.asyncio
class BudgetsContract:
    """Subclass it with a fixture `store`."""

    async def test_room_is_reserved_then_paid(self, store: Store) -> None:
        await start(store, "r")
        assert await store.budgets() == []
        assert await _reserve(store, "a", 60) == "reserved"
        assert await _standing(store) == (0, 60, 0)
        assert await _commit(store, "r", settled=[Settlement("a", Amount(45, 7))]) == "committed"
        assert await store.budgets() == [Standing("job:j", Limit(100), Amount(45, 7), Amount(), 0)]

    async def test_a_reservation_is_made_once(self, store: Store) -> None:
        await start(store, "r")
        assert await _reserve(store, "a", 60) == "reserved"
        assert await _reserve(store, "a", 99) == "reserved"
        assert await _standing(store) == (0, 60, 0)

    async def test_what_was_settled_isnt_paid_again(self, store: Store) -> None:
        await start(store, "r")
        await _reserve(store, "a", 60)
        for _ in range(2):
            await _commit(store, "r", settled=[Settlement("a", Amount(50))])
        await _commit(store, "r", settled=[Settlement("unknown", Amount(50))])
        assert await _standing(store) == (50, 0, 0)

    async def test_a_fenced_turn_settles_nothing(self, store: Store) -> None:
        await start(store, "r")
        await _reserve(store, "a", 60)
        assert await _commit(store, "r", 7, settled=[Settlement("a", Amount(50))]) == "fenced"
        assert await _standing(store) == (0, 60, 0)

    async def test_all_accounts_have_room_or_none_is_touched(self, store: Store) -> None:
        await start(store, "r")
        wide, narrow = Account("store", Limit(nanos=1000)), Account("run:r", Limit(tokens=1))
        assert await _reserve(store, "a", 60, wide, narrow) == "reserved"
        assert await _reserve(store, "b", 60, wide, narrow) == "waits"
        assert await _standing(store, "store") == (0, 60, 0)
        assert await _standing(store, "run:r") == (0, 60, 1)

    async def test_wait_while_others_may_turn_out_cheaper_then_short(self, store: Store) -> None:
        await start(store, "r")
        await _reserve(store, "a", 60)
        assert await _reserve(store, "b", 50) == "waits"
        assert await _reserve(store, "c", 101) == "short"
        assert await _reserve(store, "d", 40) == "reserved"
        await _commit(store, "r", settled=[Settlement("a", Amount(60))])
        assert await _reserve(store, "b", 50) == "short"
        assert await _standing(store) == (60, 40, 2)

    async def test_more_than_was_reserved_is_paid_and_nothing_after_it(self, store: Store) -> None:
        await start(store, "r")
        await _reserve(store, "a", 60)
        await _commit(store, "r", settled=[Settlement("a", Amount(130))])
        assert await _standing(store) == (130, 0, 0)
        assert await _reserve(store, "b", 1) == "short"

    async def test_nobody_overspends_at_once(self, store: Store) -> None:
        await start(store, *(f"r{n}" for n in range(30)))
        results = await asyncio.gather(*(_reserve(store, f"c{n}", 9, run=f"r{n}") for n in range(30)))
        assert results.count("reserved") == 11
        assert await _standing(store) == (0, 99, 19)

    @pytest.mark.parametrize("end", ["done", "failed", "cancelled", "held", "parked", "ready"])
    async def test_leaving_gives_back(self, store: Store, end: str) -> None:
        await start(store, "r", "s")
        await _reserve(store, "a", 60)
        await _reserve(store, "b", 70)
        await _reserve(store, "s", 10, run="s")
        await _commit(store, "r", status=end, release=True)
        assert await _standing(store) == (0, 10, 0)

    @pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
    async def test_what_has_ended_reserves_nothing(self, store: Store, end: str) -> None:
        await start(store, "r")
        await _commit(store, "r", status=end, release=True)
        assert await _reserve(store, "c", 5) == "gone"
        assert await _reserve(store, "c", 5, run="nobody") == "gone"
        assert await store.budgets() == []

    async def test_revived_runs_reserve_anew(self, store: Store) -> None:
        """And what they gave up is there for others."""
        await _waited_for(store)
        assert await _reserve(store, "b", 50) == "waits"
        assert await store.revive("r", pool=pool(b"1"), now=6.0, status=("ready",))
        assert (await _standing(store), await _status(store, "s")) == ((0, 0, 0), "ready")

    # ------------------------------------------------------------ those that wait
    async def test_room_that_is_given_back_wakes_those_it_suffices_for(self, store: Store) -> None:
        await start(store, "r", "s", "t", "u")
        await _reserve(store, "a", 90)
        for run, nanos in (("s", 50), ("t", 60), ("u", 20)):
            await _reserve(store, run, nanos, run=run)
        for run in "st":
            assert await _commit(store, run, status="parked", release=True, wants=[run]) == "committed"
        assert await _commit(store, "u", status="parked", release=True, wants=["u"]) == "committed"
        await _commit(store, "r", settled=[Settlement("a", Amount(20))])
        assert [await _status(store, run) for run in "stu"] == ["ready", "parked", "parked"]
        assert [one.head.id for one in await store.claim("w", 9, HOUR, now=6.0)] == ["s"]
        assert await _reserve(store, "s", 50, run="s") == "reserved"
        assert await _standing(store) == (20, 50, 2)

    async def test_room_that_isnt_taken_is_the_next_ones(self, store: Store) -> None:
        await start(store, "r", "s", "t")
        await _reserve(store, "a", 90)
        for run in "st":
            await _reserve(store, run, 60, run=run)
            await _commit(store, run, status="parked", release=True, wants=[run])
        await _commit(store, "r", settled=[Settlement("a", Amount(20))])
        assert [await _status(store, run) for run in "st"] == ["ready", "parked"]
        await store.claim("w", 9, HOUR, now=6.0)
        await _commit(store, "s", 2, status="parked", release=True)
        assert await _status(store, "t") == "ready"

    async def test_who_waits_no_longer_lets_the_next_one_have_room(self, store: Store) -> None:
        await start(store, "r", "s", "t")
        for id, nanos in (("a", 60), ("b", 20)):
            assert await _reserve(store, id, nanos) == "reserved"
        assert await _reserve(store, "z", 90, run="s") == "waits"
        assert await _reserve(store, "t", 30, run="t") == "waits"
        await _commit(store, "t", status="parked", release=True, wants=["t"])
        await _commit(store, "r", settled=[Settlement("b")])
        assert await _status(store, "t") == "parked"  # the longest that waits comes first
        await _commit(store, "s", settled=[Settlement("z")])
        assert await _status(store, "t") == "ready"
        assert await _standing(store) == (0, 60, 0)

    async def test_who_asks_again_while_another_waits_before_it_takes_the_room_there_is(
        self, store: Store
    ) -> None:
        await start(store, "r", "s", "t")
        assert await _reserve(store, "a", 80) == "reserved"
        assert await _reserve(store, "s", 90, run="s") == "waits"
        assert await _reserve(store, "t", 30, run="t") == "waits"
        assert await _reserve(store, "b", 10) == "reserved"
        await _commit(store, "r", settled=[Settlement("a"), Settlement("b", Amount(10))])
        assert await _standing(store) == (10, 0, 1)  # of two that waited, the first has room
        assert await _reserve(store, "t", 30, run="t") == "reserved"
        assert await _standing(store) == (10, 30, 0)

    async def test_those_that_there_cant_be_room_for_any_more_see_it(self, store: Store) -> None:
        await start(store, "r", "s")
        await _reserve(store, "a", 60)
        await _reserve(store, "s", 50, run="s")
        await _commit(store, "s", status="parked", release=True, wants=["s"])
        await _commit(store, "r", settled=[Settlement("a", Amount(60))])
        assert await _status(store, "s") == "ready"

    async def test_a_park_that_missed_its_room_leaves_the_run_ready(self, store: Store) -> None:
        await start(store, "r", "s")
        await _reserve(store, "a", 90)
        await _reserve(store, "s", 50, run="s")
        await _commit(store, "r", status="done", release=True)
        assert await _commit(store, "s", status="parked", release=True, wants=["s"]) == "ready"
        assert await _status(store, "s") == "ready"

    async def test_a_hold_that_missed_its_money_leaves_the_run_ready(self, store: Store) -> None:
        await start(store, "r")
        assert await _reserve(store, "a", 150) == "short"
        await store.fund("job:j", Limit(nanos=200), now=6.0)
        assert await _commit(store, "r", status="held", release=True, wants=["a"], reason="no") == "ready"

    async def test_held_runs_go_on_when_money_is_added(self, store: Store) -> None:
        await start(store, "r", "s", "t")
        for run, nanos in (("r", 150), ("s", 260), ("t", 120)):
            assert await _reserve(store, run, nanos, run=run) == "short"
            await _commit(store, run, status="held", release=True, wants=[run], reason="no money")
        standing = await store.fund("job:j", Limit(nanos=180), now=6.0)
        assert standing.limit == Limit(nanos=180)
        assert [await _status(store, run) for run in "rst"] == ["ready", "held", "held"]
        (got,) = await store.claim("w", 9, HOUR, now=6.0)
        assert (got.head.id, got.head.reason) == ("r", "")
        assert await _reserve(store, "r", 150) == "reserved"
        await _commit(store, "r", 2, status="done", release=True, settled=[Settlement("r", Amount(20))])
        assert [await _status(store, run) for run in "rst"] == ["done", "held", "ready"]

    async def test_limits(self, store: Store) -> None:
        await store.fund("run:r", Limit(nanos=10), now=0.0)
        assert (await store.fund("run:r", Limit(tokens=5), now=0.0)).limit == Limit(10, 5)
        assert (await store.fund("run:r", Limit(nanos=7), now=0.0)).limit == Limit(7, 5)
        assert (await store.fund("run:r", Limit(9, 3), raising=True, now=0.0)).limit == Limit(9, 5)
        await store.fund("a", Limit(nanos=1), now=0.0)
        assert [one.id for one in await store.budgets()] == ["a", "run:r"]
        assert [one.id for one in await store.budgets(["run:r", "unknown"])] == ["run:r"]

    @pytest.mark.parametrize("end", ["parked", "held", "done"])
    async def test_a_turn_that_gives_its_claim_up_wakes_those_that_wait(
        self, store: Store, end: Status
    ) -> None:
        await _waited_for(store)
        await _commit(store, "r", status=end)
        assert (await _standing(store), await _status(store, "s")) == ((0, 0, 0), "ready")

    async def test_a_run_that_has_ended_waits_for_no_room(self, store: Store) -> None:
        await start(store, "r")
        assert await _reserve(store, "a", 150) == "short"
        await _commit(store, "r", status="failed", wants=["a"])
        assert await _standing(store) == (0, 0, 0)

    async def test_what_poison_has_reserved_is_given_back(self, store: Store) -> None:
        await _waited_for(store)
        got: list[str] = []
        for n in range(1, LAPSES + 2):
            got = [one.head.id for one in await store.claim("w", 9, HOUR, now=n * 2 * HOUR)]
        assert (await _status(store, "r"), got) == ("held", ["s"])
        assert await _standing(store) == (0, 0, 0)

    # ------------------------------------------------------------ lines
    async def test_a_line_that_is_withdrawn_from_outside_gives_back(self, store: Store) -> None:
        await _waited_for(store)
        await _commit(store, "r", lines=[Line("a", LANE, CallRef("r", "", 0), b"{}")])
        assert await store.withdraw(["a"], now=6.0) == [True]
        assert (await _standing(store), await _status(store, "s")) == ((0, 0, 0), "ready")

    @pytest.mark.parametrize("first", ["line", "answer"])
    async def test_a_line_that_anothers_answer_will_do_for_gives_back(self, store: Store, first: str) -> None:
        await _waited_for(store)
        line = Line("a", LANE, CallRef("r", "", 0), b"{}", same="q")
        answer = Answer("q", b"1", 6.0)
        await start(store, "other")
        if first == "line":
            await _commit(store, "r", lines=[line])
        await _commit(store, "other", answers=[answer])
        if first == "answer":
            await _commit(store, "r", lines=[line])
        assert (await _standing(store), await _status(store, "s")) == ((0, 0, 0), "ready")

    async def test_a_line_that_is_answered_is_paid(self, store: Store) -> None:
        fence = await _lane(store, "l1", "l2")
        assert await store.reserved("B") == {"l1": Amount(30, 1), "l2": Amount(30, 1)}
        chunk = [LineOutcome("l1", "ok", b"1", paid=Amount(11)), LineOutcome("l2", "error")]
        await store.outcomes("B", fence, [*chunk, chunk[0]], now=6.0)
        await store.outcomes("B", fence, chunk, now=6.0)
        assert await _standing(store) == (11, 0, 0)
        assert await store.reserved("B") == {}

    async def test_a_line_that_goes_round_again_stays_reserved(self, store: Store) -> None:
        fence = await _lane(store, "l1")
        await store.outcomes("B", fence, [LineOutcome("l1", "expired", again=True)], now=6.0)
        assert await _standing(store) == (0, 30, 0)

    async def test_a_line_that_is_withdrawn_gives_back(self, store: Store) -> None:
        await start(store, "r", "s")
        await _reserve(store, "l1", 60)
        await _reserve(store, "s", 50, run="s")
        await _commit(store, "s", status="parked", release=True, wants=["s"])
        await _commit(store, "r", lines=[Line("l1", LANE, CallRef("r", "", 0), b"{}")])
        await _commit(store, "r", withdrawn=["l1"])
        assert await _standing(store) == (0, 0, 0)
        assert await _status(store, "s") == "ready"

    async def test_lines_that_wait_give_back_when_their_run_ends(self, store: Store) -> None:
        await start(store, "r", "s")
        await _reserve(store, "l1", 60)
        await _reserve(store, "s", 50, run="s")
        await _commit(store, "s", status="parked", release=True, wants=["s"])
        await _commit(store, "r", lines=[Line("l1", LANE, CallRef("r", "", 0), b"{}")])
        await _commit(store, "r", status="cancelled", release=True)
        assert await _standing(store) == (0, 0, 0)
        assert await _status(store, "s") == "ready"

    async def test_lines_of_a_run_that_ended_are_paid(self, store: Store) -> None:
        fence = await _lane(store, "l1")
        assert await store.revive("r", pool=None, now=6.0, status=("parked",))
        assert await _standing(store) == (0, 30, 0)
        await store.claim("w", 9, HOUR, now=6.0)
        await _commit(store, "r", 2, status="cancelled", release=True)
        assert await _standing(store) == (0, 30, 0)
        await store.outcomes("B", fence, [LineOutcome("l1", "ok", b"1", paid=Amount(11))], now=6.0)
        assert await _standing(store) == (11, 0, 0)

    async def test_both_answers_of_a_promoted_line_are_paid(self, store: Store) -> None:
        fence = await _lane(store, "l1", due=50.0)
        made = await store.promote(LANE, fence, by=60.0, max_lines=9, job="P", now=49.0)
        assert made is not None
        assert await store.reserved("P") == await store.reserved("B") == {"l1": Amount(30, 1)}
        used = Usage("m", "live", 1, 2, 3)
        await store.outcomes(
            "P", fence, [LineOutcome("l1", "ok", b"1", used=used, paid=Amount(20))], now=50.0
        )
        assert await _standing(store) == (20, 30, 0)
        await store.outcomes("B", fence, [LineOutcome("l1", "ok", b"2", used=used, paid=Amount(9))], now=51.0)
        assert await _standing(store) == (29, 0, 0)

    async def test_a_live_call_that_a_job_outran_is_paid_too(self, store: Store) -> None:
        fence = await _lane(store, "l1", due=50.0)
        await store.promote(LANE, fence, by=60.0, max_lines=9, job="P", now=49.0)
        used = Usage("m", "batch", 1, 2, 3)
        by_job = LineOutcome("l1", "ok", b"2", used=used, paid=Amount(9))
        await store.outcomes("B", fence, [by_job], now=50.0)
        assert await store.outcomes("B", fence, [by_job], now=50.0) == ["l1"]
        assert len(await store.claim("w", 9, HOUR, now=50.0)) == 1
        assert await _commit(store, "r", 2, status="parked", seen=999) == "committed"
        assert await _standing(store) == (9, 30, 0)
        assert [job.id for job in await store.batch_jobs()] == ["P"]
        assert await store.job_lines("P", "", 9) == []
        live = LineOutcome("l1", "ok", b"1", used=used, paid=Amount(20))
        assert await store.outcomes("P", fence, [live], now=51.0) == []
        assert await _standing(store) == (29, 0, 0)
        assert len(await store.unclaimed()) == 1
        assert await store.batch_jobs() == []

    async def test_a_live_call_that_never_ends_gives_back_as_its_job_closes(self, store: Store) -> None:
        fence = await _lane(store, "l1", due=50.0)
        made = await store.promote(LANE, fence, by=60.0, max_lines=9, job="P", now=49.0)
        assert made is not None
        await store.outcomes("B", fence, [LineOutcome("l1", "ok", b"2", paid=Amount(9))], now=50.0)
        assert await store.put_batch_job(msgspec.structs.replace(made, state="closed"), fence)
        assert await _standing(store) == (9, 0, 0)
        assert await store.batch_jobs() == []

    async def test_a_job_that_closes_gives_back_what_was_promoted(self, store: Store) -> None:
        fence = await _lane(store, "l1", due=50.0)
        await store.promote(LANE, fence, by=60.0, max_lines=9, job="P", now=49.0)
        await store.outcomes("P", fence, [LineOutcome("l1", "ok", b"1", paid=Amount(20))], now=50.0)
        await start(store, "s")
        assert await _reserve(store, "s", 80, run="s") == "waits"
        await _commit(store, "s", status="parked", wants=["s"])
        assert await store.put_batch_job(BatchJob("B", LANE, "B", "closed", 1, 5.0), fence)
        assert (await _standing(store), await _status(store, "s")) == ((20, 0, 0), "ready")
