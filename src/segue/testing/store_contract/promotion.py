"""Late lines: sent live beside their provider job, of which the first answer counts."""

from __future__ import annotations

import pytest

from ...model.entry import Failure
from ...model.lane import LineOutcome
from ...model.run import Usage
from ...ports.store import Store
from .acts import HOUR, LANE, claim, commit, lane_with, line, mail_of, park, start, take, tell

USED = Usage("m", "batch", 1, 2, 3)
NO = Failure("m:E", "no")


def ok(value: bytes, id: str = "l1") -> LineOutcome:
    return LineOutcome(id, "ok", value, used=USED)


async def promote(store: Store, fence: int, *, by: float = 60.0, lines: int = 9, job: str = "P") -> list[str]:
    """The lines of a new job of live calls, made at 49."""
    made = await store.promote(LANE, fence, by=by, max_lines=lines, job=job, now=49.0)
    return [] if made is None else [one.id for one in await store.job_lines(made.id, "", 99)]


async def promoted(store: Store) -> int:
    """A line `l1` of a run `r` that is in the job `B1` and in one of live calls, `P`; the lane's fence."""
    fence = await lane_with(store, "l1", due=50.0, late="live")
    assert await promote(store, fence) == ["l1"]
    return fence


async def values(store: Store) -> list[bytes | None]:
    """What `r` was sent."""
    return [mail.value for mail in await mail_of(store, "r")]


class PromotionContract:
    """Part of `StoreContract`."""

    async def test_one_that_is_put_in_anew_may_be_late_again(self, store: Store) -> None:
        fence = await lane_with(store, "l1", due=50.0, late="live")
        assert await store.withdraw(["l1"], now=5.0) == [False]
        assert [lane.due for lane in await store.lanes()] == [0.0]
        await store.deliver([tell("r", 1)], now=5.0)
        (run,) = (await claim(store)).values()
        await commit(store, "r", run.head.fence, lines=[line("l1", "r", due=50.0, late="live")])
        assert [lane.due for lane in await store.lanes()] == [50.0]
        assert await promote(store, fence) == ["l1"]

    async def test_what_comes_of_a_live_call_is_not_for_a_line_that_was_put_in_anew(
        self, store: Store
    ) -> None:
        fence = await promoted(store)
        assert await store.outcomes("B1", fence, [ok(b"1")], now=50.0) == []
        (run,) = (await claim(store)).values()
        await commit(store, "r", run.head.fence, lines=[line("l1", "r")])
        assert await store.outcomes("P", fence, [ok(b"2")], now=51.0) == ["l1"]
        assert await store.line_counts() == {"waiting": 1}

    async def test_those_that_are_due_first_are_promoted_once(self, store: Store) -> None:
        await start(store, "r")
        dues = {"l1": 58.0, "l2": 0.0, "l3": 55.0, "l4": 61.0, "l5": 56.0}
        lines = [line(id, "r", due=due, late="live" if due else "wait") for id, due in dues.items()]
        await commit(store, "r", 1, lines=[*lines, line("l6", "r", due=50.0, late="fail")])
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        assert await promote(store, fence + 1) == []
        assert await promote(store, fence, lines=2) == ["l3", "l5"]
        assert await promote(store, fence, lines=2) == ["l3", "l5"]  # the job of that id
        assert await promote(store, fence, job="P2") == ["l1"]
        assert await promote(store, fence, job="P3") == []
        (lane,) = await store.lanes()
        assert (lane.waiting, lane.due) == (3, 50.0)  # that fails when it is late, which it isn't yet
        assert [(job.id, job.state, job.lines) for job in lane.jobs] == [("P", "live", 2), ("P2", "live", 1)]
        await take(store, fence, job="B1")
        assert [one.id for one in await store.job_lines("B1", "", 99)] == ["l2", "l4", "l6"]

    async def test_a_job_leaves_those_that_are_to_be_promoted(self, store: Store) -> None:
        await start(store, "r")
        lives = [line(id, "r", due=due, late="live") for id, due in (("l2", 50.0), ("l3", 70.0))]
        fails = [line(id, "r", due=due, late="fail") for id, due in (("l4", 50.0), ("l5", 4.0))]
        await commit(store, "r", 1, lines=[line("l1", "r"), *lives, *fails])
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        most = {"max_lines": 99, "max_bytes": 10**9}
        assert await store.take(LANE, fence, job="B1", nonce="n", now=5.0, late_by=60.0, **most) is not None
        assert [one.id for one in await store.job_lines("B1", "", 99)] == ["l1", "l3", "l4"]
        assert await promote(store, fence) == ["l2", "l5"]

    async def test_the_first_answer_counts_and_the_other_is_unclaimed(self, store: Store) -> None:
        fence = await promoted(store)
        assert await store.outcomes("P", fence, [ok(b"live")], now=50.0) == []
        assert await store.outcomes("P", fence, [ok(b"live")], now=50.0) == ["l1"]
        assert [job.id for job in await store.batch_jobs()] == ["B1"]
        assert await store.outcomes("B1", fence, [ok(b"job")], now=51.0) == []
        assert await store.outcomes("B1", fence, [ok(b"job")], now=51.0) == ["l1"]
        assert (await values(store), await store.unclaimed()) == ([b"live"], [USED])
        assert await store.batch_jobs() == []

    @pytest.mark.parametrize("status", ["expired", "error", "missing"])
    @pytest.mark.parametrize("again", [True, False])
    async def test_where_the_job_has_no_answer_the_live_call_decides(
        self, store: Store, status: str, again: bool
    ) -> None:
        fence = await promoted(store)
        none = LineOutcome("l1", status, None, NO, again=again)  # type: ignore[arg-type]  # one of the above
        assert await store.outcomes("B1", fence, [none], now=50.0) == []
        assert (await values(store), await store.line_counts()) == ([], {"taken": 1})
        assert [job.id for job in await store.batch_jobs()] == ["P"]
        assert await store.outcomes("P", fence, [ok(b"live")], now=51.0) == []
        assert (await values(store), await store.unclaimed()) == ([b"live"], [])
        assert await store.batch_jobs() == []

    async def test_where_the_live_call_fails_the_job_decides(self, store: Store) -> None:
        fence = await promoted(store)
        assert await store.outcomes("P", fence, [LineOutcome("l1", "error", None, NO)], now=50.0) == []
        assert [job.id for job in await store.batch_jobs()] == ["B1"]
        assert await promote(store, fence, job="P2") == []
        late = LineOutcome("l1", "expired", None, NO, again=True)
        assert await store.outcomes("B1", fence, [late], now=51.0) == []  # it doesn't go round again
        (mail,) = await mail_of(store, "r")
        assert (mail.error, await store.line_counts()) == (NO, {"expired": 1})

    async def test_a_job_is_open_for_what_was_promoted_out_of_it(self, store: Store) -> None:
        fence = await lane_with(store, "l1", "l2", due=50.0, late="live")
        assert await promote(store, fence, lines=1) == ["l1"]
        assert await store.outcomes("B1", fence, [ok(b"2", "l2")], now=50.0) == []
        (job, _) = await store.batch_jobs()
        assert await store.put_batch_job(job, fence)
        assert [job.id for job in await store.batch_jobs()] == ["B1", "P"]
        assert await store.outcomes("P", fence, [LineOutcome("l1", "error", None, NO)], now=51.0) == []
        assert await store.outcomes("B1", fence, [ok(b"1")], now=52.0) == []
        assert (await values(store), await store.batch_jobs()) == ([b"2", b"1"], [])

    async def test_where_both_fail_the_run_gets_the_last_error(self, store: Store) -> None:
        fence = await promoted(store)
        assert await store.outcomes("B1", fence, [LineOutcome("l1", "expired", again=True)], now=50.0) == []
        last = LineOutcome("l1", "error", None, NO, again=True)
        assert await store.outcomes("P", fence, [last], now=51.0) == []
        (mail,) = await mail_of(store, "r")
        assert (mail.error, await store.line_counts()) == (NO, {"error": 1})
        assert await store.batch_jobs() == []

    async def test_a_promoted_line_that_nobody_waits_for(self, store: Store) -> None:
        fence = await promoted(store)
        await store.deliver([tell("r", 1)], now=50.0)
        await claim(store)
        await commit(store, "r", 2, status="cancelled")
        assert await store.job_bodies("P", "", 9) == []
        assert await store.outcomes("P", fence, [ok(b"live")], now=50.0) == []
        assert await store.outcomes("B1", fence, [ok(b"job")], now=51.0) == []
        assert (await values(store), await store.unclaimed()) == ([], [USED, USED])

    async def test_a_line_that_waits_is_promoted_out_of_its_lane(self, store: Store) -> None:
        await start(store, "r")
        await park(store, "r", lines=[line("l1", "r", due=50.0, late="live")])
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        assert await promote(store, fence) == ["l1"]
        assert await take(store, fence, job="B1") is None
        (lane,) = await store.lanes()
        assert (lane.waiting, lane.size, lane.due) == (0, 0, 0.0)
        failed = LineOutcome("l1", "error", None, NO, again=True)
        assert await store.outcomes("P", fence, [failed], now=50.0) == []
        (mail,) = await mail_of(store, "r")
        assert (mail.error, await store.lanes()) == (NO, [])
