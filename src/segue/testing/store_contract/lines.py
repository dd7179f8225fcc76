"""Lines: taken into provider jobs, each ended once, withdrawn."""

from __future__ import annotations

import msgspec
import pytest

from ...model.entry import Failure
from ...model.lane import BatchJob, LineOutcome
from ...model.run import CallRef, Status, Usage
from ...ports.store import Store, Turn
from .acts import (
    HOUR,
    LANE,
    claim,
    commit,
    lane_with,
    line,
    mail_of,
    start,
    status,
    take,
    tell,
)


class LinesContract:
    """Part of `StoreContract`."""

    async def test_lines_wait_in_their_lanes(self, store: Store) -> None:
        await start(store, "a")
        other = "mock|http://x|/v1/chat|large|key"
        lines = [line("l1", "a", body=b"12345", created=3.5), line("l2", "a", size=100, created=1.5)]
        await commit(store, "a", 1, lines=[*lines, line("l3", "a", lane=other, created=2.5)])
        first, second = sorted(await store.lanes(), key=lambda lane: -lane.waiting)
        assert (first.lane, first.waiting, first.size, first.oldest, first.jobs) == (LANE, 2, 105, 3.5, [])
        assert (second.lane, second.waiting, second.size, second.oldest) == (other, 1, 2, 2.5)
        assert await store.line_counts() == {"waiting": 3}

    async def test_one_worker_drives_a_lane(self, store: Store) -> None:
        fence = await store.claim_lane(LANE, "w1", 10.0, now=0.0)
        assert fence is not None
        assert await store.claim_lane(LANE, "w2", 10.0, now=9.0) is None
        assert await store.claim_lane(LANE, "w1", 10.0, now=9.0) == fence
        assert await store.claim_lane(LANE, "w2", 10.0, now=18.9) is None
        newer = await store.claim_lane(LANE, "w2", 10.0, now=19.0)
        assert newer is not None
        assert newer > fence
        assert await store.claim_lane(LANE, "w1", 10.0, now=20.0) is None
        assert await store.claim_lane("other", "w1", 10.0, now=0.0) is not None

    async def test_take(self, store: Store) -> None:
        (fence,) = await start(store, "a")
        ids = ["l5", "l4", "l3", "l2", "l1"]
        await commit(store, "a", fence, lines=[line(id, "a", body=b"x" * 10) for id in ids])
        drive = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert drive is not None
        assert await take(store, drive + 1, job="B0") is None
        job = await take(store, drive, lines=2, job="B1")
        assert job == BatchJob("B1", LANE, "nonce-B1", "intent", 2, 5.0, size=20)
        assert [one.id for one in await store.job_lines("B1", "", 10)] == ["l5", "l4"]
        second = await take(store, drive, size=25, job="B2")
        assert second is not None
        assert [one.id for one in await store.job_lines("B2", "", 10)] == ["l3", "l2"]
        third = await take(store, drive, size=1, job="B3")  # a line above the limit goes alone
        assert third is not None
        assert third.lines == 1
        assert await take(store, drive, job="B4") is None
        assert await store.batch_jobs() == [job, second, third]
        assert await store.batch_jobs(lane=LANE) == [job, second, third]
        assert await store.batch_jobs(lane="other") == []
        assert await store.batch_jobs(newest=2) == [second, third]
        assert await store.batch_jobs(lane=LANE, open_only=False, newest=5) == [job, second, third]
        (lane,) = await store.lanes()
        assert (lane.waiting, lane.size, lane.jobs) == (0, 0, [job, second, third])
        assert await store.line_counts() == {"taken": 5}

    async def test_take_again_gives_the_same_job(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, lines=[line("l1", "a"), line("l2", "a")])
        drive = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert drive is not None
        job = await take(store, drive, lines=1, job="B1")
        assert await take(store, drive, lines=1, job="B1") == job
        assert await store.line_counts() == {"taken": 1, "waiting": 1}

    async def test_job_lines_come_in_pages(self, store: Store) -> None:
        ids = [f"l{i:02}" for i in range(25)]
        ids.reverse()
        await lane_with(store, *ids, body=b'{"x":1}', created=1.5)
        pages: list[list[str]] = []
        after = ""
        while page := await store.job_lines("B1", after, 10):
            after = page[-1].id
            pages.append([one.id for one in page])
            assert {(one.body, one.size, one.created, one.attempt) for one in page} == {
                (b'{"x":1}', 7, 1.5, 1)
            }
        assert pages == [ids[:10], ids[10:20], ids[20:]]
        assert await store.job_bodies("B1", "", 2) == [("l24", b'{"x":1}'), ("l23", b'{"x":1}')]
        assert await store.job_bodies("B1", "l02", 10) == [("l01", b'{"x":1}'), ("l00", b'{"x":1}')]
        assert await store.job_bodies("B1", "l00", 10) == []
        (one, *_) = await store.job_lines("B1", "", 1, bodies=False)
        assert one.size == 7
        assert (one.lane, one.call) == (LANE, CallRef("r", "", 0))

    async def test_what_nobody_waits_for_needs_no_body(self, store: Store) -> None:
        """A job that isn't submitted yet can go without it."""
        await lane_with(store, "l1", "l2", "l3")
        await store.withdraw(["l2"], now=6.0)
        assert await store.job_bodies("B1", "", 1) == [("l1", b"{}")]
        assert await store.job_bodies("B1", "l1", 1) == [("l3", b"{}")]
        await store.deliver([tell("r", 1)], now=6.0)
        got = (await claim(store))["r"]
        await commit(store, "r", got.head.fence, status="cancelled")
        assert await store.job_bodies("B1", "", 9) == []
        assert [one.id for one in await store.job_lines("B1", "", 9)] == ["l1", "l2", "l3"]

    async def test_a_jobs_state_is_fenced(self, store: Store) -> None:
        fence = await lane_with(store, "l1")
        (job,) = await store.batch_jobs()
        sent = BatchJob(
            job.id, LANE, job.nonce, "sent", 1, 5.0, "f", "remote", "running", progress=1, sent=7.5, error="e"
        )
        assert not await store.put_batch_job(sent, fence + 1)
        assert await store.batch_jobs() == [job]
        assert await store.put_batch_job(sent, fence)
        assert await store.batch_jobs() == [sent]
        assert not await store.put_batch_job(BatchJob("unknown", LANE, "n", "sent", 1, 5.0), fence)
        newer = await store.claim_lane(LANE, "w2", HOUR, now=2 * HOUR)
        assert newer is not None
        assert not await store.put_batch_job(job, fence)
        assert await store.outcomes("B1", fence, [LineOutcome("l1", "ok", b"1")], now=0.0) is None
        assert await store.outcomes("unknown", newer, [], now=0.0) is None
        assert await store.line_counts() == {"taken": 1}

    async def test_outcomes_reach_their_runs(self, store: Store) -> None:
        fence = await lane_with(store, "l1", "l2", "l3", "l4")
        error = Failure("segue:Expired", "too late")
        chunk = [LineOutcome("l2", "ok", b'{"a":1}'), LineOutcome("l1", "expired", error=error)]
        assert await store.outcomes("B1", fence, chunk, now=6.5) == []
        assert await status(store, "r") == "ready"
        one, two = await mail_of(store, "r")
        assert (one.kind, one.call, one.value, one.error) == ("result", CallRef("r", "", 1), b'{"a":1}', None)
        assert (two.call, two.value, two.error, two.at) == (CallRef("r", "", 0), None, error, 6.5)
        assert await store.line_counts(job="B1") == {"ok": 1, "expired": 1, "taken": 2}
        assert [one.id for one in await store.job_lines("B1", "", 10)] == ["l3", "l4"]
        assert [job.state for job in await store.batch_jobs()] == ["intent"]
        await store.outcomes("B1", fence, [LineOutcome("l3", "missing"), LineOutcome("l4", "error")], now=7.0)
        assert await store.batch_jobs() == []
        (job,) = await store.batch_jobs(open_only=False)
        assert job.state == "closed"
        assert await store.lanes() == []
        assert await store.line_counts() == {"ok": 1, "expired": 1, "missing": 1, "error": 1}
        assert await store.line_counts(open_only=True) == {}
        assert await store.job_lines("B1", "", 10) == []
        assert await store.put_batch_job(BatchJob("B1", LANE, "n", "sent", 4, 5.0), fence)
        assert await store.batch_jobs() == []

    async def test_outcomes_lie_before_a_run_that_is_held(self, store: Store) -> None:
        (held,) = await start(store, "r")
        await commit(store, "r", held, lines=[line("l1", "r")], status="held", reason="code changed")
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        await take(store, fence, job="B1")
        assert await store.outcomes("B1", fence, [LineOutcome("l1", "ok", b"1")], now=6.0) == []
        assert await status(store, "r") == "held"
        assert await claim(store) == {}
        assert [mail.value for mail in await mail_of(store, "r")] == [b"1"]

    async def test_a_job_that_was_sent_knows_when_it_was_over(self, store: Store) -> None:
        fence = await lane_with(store, "l1")
        await store.outcomes("B1", fence, [LineOutcome("l1", "error", again=True)], now=6.0)
        made = await take(store, fence, job="B2")
        assert made is not None
        assert await store.put_batch_job(msgspec.structs.replace(made, state="sent", sent=6.5), fence)
        await store.outcomes("B2", fence, [LineOutcome("l1", "ok", b"1")], now=7.0)
        assert [job.over for job in await store.batch_jobs(open_only=False)] == [0.0, 7.0]

    async def test_strange_outcomes_change_nothing(self, store: Store) -> None:
        fence = await lane_with(store, "l1", "l2", "l3")
        done = LineOutcome("l1", "ok", b"1")
        assert await store.outcomes("B1", fence, [done], now=0.0) == []
        chunk = [
            done,
            LineOutcome("x", "ok", b"1"),
            LineOutcome("l2", "ok", b"2"),
            LineOutcome("l2", "ok", b"3"),
        ]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == ["l1", "x", "l2"]
        assert [mail.value for mail in await mail_of(store, "r")] == [b"1", b"2"]
        await start(store, "s")
        await commit(store, "s", 1, lines=[line("m1", "s")])
        await take(store, fence, job="B2")
        assert await store.outcomes("B1", fence, [LineOutcome("m1", "ok", b"1")], now=0.0) == ["m1"]
        assert await mail_of(store, "s") == []

    async def test_a_result_that_is_read_again_isnt_paid_again(self, store: Store) -> None:
        """Of a line whose live call failed, so that the provider's job decided."""
        drive = await lane_with(store, "l1", "l2", due=50.0, late="live")
        assert await store.promote(LANE, drive, by=60.0, max_lines=1, job="P", now=49.0)
        failed = LineOutcome("l1", "error", None, Failure("m:E", "no"))
        assert await store.outcomes("P", drive, [failed], now=50.0) == []
        paid = LineOutcome("l1", "ok", b"1", used=Usage("m", "batch", 1, 2, 3))
        assert await store.outcomes("B1", drive, [paid], now=51.0) == []
        assert await store.outcomes("B1", drive, [paid], now=52.0) == ["l1"]
        assert await store.unclaimed() == []

    async def test_lines_go_round_again(self, store: Store) -> None:
        fence = await lane_with(store, "l1", "l2", created=4.5)
        chunk = [LineOutcome("l1", "expired", again=True), LineOutcome("l2", "ok", b"1")]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == []
        assert len(await mail_of(store, "r")) == 1
        (lane,) = await store.lanes()
        assert (lane.waiting, lane.size, lane.oldest, lane.jobs) == (1, 2, 4.5, [])
        assert await store.line_counts(job="B1") == {"ok": 1}
        assert await store.outcomes("B1", fence, [LineOutcome("l1", "ok", b"1")], now=0.0) == ["l1"]
        job = await take(store, fence, job="B2")
        assert job is not None
        assert job.lines == 1
        (again,) = await store.job_lines("B2", "", 10)
        assert (again.id, again.attempt, again.body) == ("l1", 2, b"{}")
        assert await store.outcomes("B2", fence, [LineOutcome("l1", "ok", b"2")], now=0.0) == []
        assert [mail.value for mail in await mail_of(store, "r")] == [b"1", b"2"]

    async def test_lines_that_go_again_go_first(self, store: Store) -> None:
        fence = await lane_with(store, "l1")
        await start(store, "s")
        await commit(store, "s", 1, lines=[line("m1", "s")])
        await store.outcomes("B1", fence, [LineOutcome("l1", "expired", again=True)], now=0.0)
        await take(store, fence, lines=1, job="B2")
        assert [one.id for one in await store.job_lines("B2", "", 10)] == ["l1"]

    @pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
    async def test_lines_of_a_run_that_ended(self, store: Store, end: Status) -> None:
        fence = await lane_with(store, "l1", "l2")
        await store.deliver([tell("r", 1)], now=0.0)
        await claim(store)
        await commit(store, "r", 2, status=end)
        assert await store.line_counts() == {"taken": 2}
        chunk = [LineOutcome("l1", "ok", b"1"), LineOutcome("l2", "expired", again=True)]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == []
        assert await store.line_counts() == {"ok": 1, "cancelled": 1}
        assert await mail_of(store, "r") == []
        assert await store.batch_jobs() == []

    async def test_an_attempt_that_is_free(self, store: Store) -> None:
        fence = await lane_with(store, "l1", "l2")
        chunk = [LineOutcome("l1", "error", again=True, free=True), LineOutcome("l2", "error", again=True)]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == []
        await take(store, fence, job="B2")
        assert [(one.id, one.attempt) for one in await store.job_lines("B2", "", 10)] == [
            ("l1", 1),
            ("l2", 2),
        ]

    async def test_a_line_goes_round_so_often_at_most(self, store: Store) -> None:
        fence = await lane_with(store, "l1")
        last = [LineOutcome("l1", "expired", again=True, most=2)]
        assert await store.outcomes("B1", fence, last, now=0.0) == []
        assert await mail_of(store, "r") == []
        await take(store, fence, job="B2")
        assert await store.outcomes("B2", fence, last, now=0.0) == []
        assert len(await mail_of(store, "r")) == 1
        assert await store.line_counts() == {"expired": 1}

    async def test_a_job_knows_its_size(self, store: Store) -> None:
        await lane_with(store, "l1", "l2", body=b"[1,2]")
        assert [job.size for job in await store.batch_jobs()] == [10]

    async def test_lines_are_withdrawn(self, store: Store) -> None:
        fence = await lane_with(store, "l1", "l2")
        await start(store, "s")
        await commit(store, "s", 1, lines=[line("m1", "s"), line("m2", "s")])
        assert await store.withdraw(["m1", "l1", "unknown", "l2"], now=5.0) == [True, False, False, False]
        assert await store.withdraw(["m1"], now=5.0) == [False]
        (lane,) = await store.lanes()
        assert (lane.waiting, lane.size) == (1, 2)
        assert await store.line_counts() == {"waiting": 1, "cancelled": 1, "taken": 2}
        assert await store.line_counts(open_only=True) == {"waiting": 1, "taken": 2}
        assert await store.line_counts(job="B1", open_only=True) == {"taken": 2}
        used = Usage("m", "batch", 1, 10, 5)
        chunk = [LineOutcome("l1", "expired", again=True), LineOutcome("l2", "ok", b"1", used=used)]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == []
        assert [mail.value for mail in await mail_of(store, "r")] == [b"1"]
        assert await store.unclaimed(run="r") == [used]
        job = await take(store, fence, job="B2")
        assert job is not None
        assert job.lines == 1
        assert await store.line_counts() == {"ok": 1, "cancelled": 2, "taken": 1}

    async def test_a_result_that_its_run_ends_without_is_unclaimed(self, store: Store) -> None:
        """It lies there unread. Whoever takes a letter knows what was paid for it, if nobody has counted it yet."""
        fence = await lane_with(store, "l1", "l2", "l3")
        await store.withdraw(["l3"], now=5.0)
        used = Usage("m", "batch", 1, 10, 5)
        chunk = [LineOutcome(id, "ok", b"1", used=used) for id in ("l1", "l2", "l3")]
        assert await store.outcomes("B1", fence, chunk, now=6.0) == []
        assert [mail.used for mail in await mail_of(store, "r")] == [used, used, None]
        assert await store.unclaimed() == [used]
        held = (await claim(store))["r"].head.fence
        taken = [letter.id for letter in await store.inbox("r", 0)][:1]
        await commit(store, "r", held, consumed=taken, status="done")
        assert await store.unclaimed(run="r") == [used, used]

    async def test_what_was_paid_for_nothing_is_found_by_run_and_by_job(self, store: Store) -> None:
        for run, job in (("a", "j"), ("b", "k"), ("c", "j")):
            await start(store, run, job=job)
            await commit(store, run, 1, lines=[line(run, run)])
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        await take(store, fence, job="B1")
        await store.withdraw(["a", "b", "c"], now=5.0)
        used = {run: Usage("m", "batch", 1, tokens) for tokens, run in enumerate("abc")}
        chunk = [LineOutcome(run, "ok", b"1", used=used[run]) for run in "abc"]
        await store.outcomes("B1", fence, chunk, now=6.0)
        assert await store.unclaimed() == [used["a"], used["b"], used["c"]]
        assert await store.unclaimed(run="b") == [used["b"]]
        assert await store.unclaimed(job="j") == [used["a"], used["c"]]
        assert await store.unclaimed(job="nothing") == []

    async def test_a_turn_withdraws_lines(self, store: Store) -> None:
        await start(store, "r")
        await commit(store, "r", 1, lines=[line("l1", "r"), line("l2", "r")])
        assert await commit(store, "r", 9, withdrawn=["l1"]) == "fenced"
        assert await store.line_counts() == {"waiting": 2}
        await commit(
            store, "r", 1, entries=b"e", withdrawn=["l1", "l2"], lines=[line("l2", "r", body=b"new")]
        )
        assert await store.line_counts() == {"waiting": 1, "cancelled": 1}
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        await take(store, fence, job="B1")
        assert [(one.id, one.body) for one in await store.job_lines("B1", "", 10)] == [("l2", b"new")]

    async def test_a_withdrawn_line_that_is_wanted_after_all(self, store: Store) -> None:
        fence = await lane_with(store, "l1")
        await store.withdraw(["l1"], now=5.0)
        await store.deliver([tell("r", 1)], now=0.0)
        got = (await claim(store))["r"]
        await commit(store, "r", got.head.fence, lines=[line("l1", "r")])
        await store.outcomes("B1", fence, [LineOutcome("l1", "expired", again=True)], now=0.0)
        assert await store.line_counts() == {"waiting": 1}

    async def test_a_revived_run_waits_for_its_lines_again(self, store: Store) -> None:
        """Only where all of them are still to have an outcome; those that nobody waited for go round again too."""
        fence = await lane_with(store, "l1", "l2")
        await store.withdraw(["l1"], now=5.0)
        await store.deliver([tell("r", 1)], now=0.0)
        got = (await claim(store))["r"]
        await commit(store, "r", got.head.fence, status="cancelled", lines=[line("l3", "r")])
        assert sorted(await store.open_lines(["l1", "l2", "l3", "unknown"])) == ["l1", "l2"]
        how = {"pool": None, "now": 6.0, "status": ["cancelled"]}
        assert not await store.revive("r", lines=["l1", "l3"], **how)  # type: ignore[arg-type]  # as it says
        assert (await store.get("r")).status == "cancelled"  # type: ignore[union-attr]  # it is there
        assert await store.revive("r", lines=["l1", "l2"], **how)  # type: ignore[arg-type]  # as it says
        chunk = [LineOutcome("l1", "expired", again=True), LineOutcome("l2", "ok", b"1")]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == []
        assert await store.line_counts() == {"waiting": 1, "ok": 1, "cancelled": 1}
        assert await store.open_lines(["l1", "l2"]) == ["l1"]
        got = (await claim(store))["r"]
        await commit(store, "r", got.head.fence, status="cancelled")
        assert await store.line_counts() == {"ok": 1, "cancelled": 2}

    async def test_a_revived_run_takes_along_what_it_left_in_a_job_when_it_ends_again(
        self, store: Store
    ) -> None:
        fence = await lane_with(store, "l1")
        await store.deliver([tell("r", 1)], now=0.0)
        await commit(store, "r", (await claim(store))["r"].head.fence, status="cancelled")
        assert await store.revive("r", pool=None, now=6.0, status=["cancelled"])
        assert await store.outcomes("B1", fence, [LineOutcome("l1", "expired", again=True)], now=6.0) == []
        assert await store.line_counts() == {"waiting": 1}
        await commit(store, "r", (await claim(store))["r"].head.fence, status="cancelled")
        assert await store.line_counts() == {"cancelled": 1}
        assert await store.lanes() == []

    async def test_a_line_is_sent_once(self, store: Store) -> None:
        fence = await lane_with(store, "l1")
        await store.deliver([tell("r", 1)], now=0.0)
        got = (await claim(store))["r"]
        await commit(store, "r", got.head.fence, lines=[line("l1", "r", body=b"other")])
        assert await store.line_counts() == {"taken": 1}
        await store.outcomes("B1", fence, [LineOutcome("l1", "error")], now=0.0)
        await commit(store, "r", got.head.fence, lines=[line("l1", "r", body=b"longer")])
        (lane,) = await store.lanes()
        assert (lane.waiting, lane.size) == (1, 6)
        await take(store, fence, job="B2")
        (again,) = await store.job_lines("B2", "", 10)
        assert (again.body, again.attempt) == (b"longer", 2)

    async def test_many_outcomes_wake_many_runs(self, store: Store) -> None:
        ids = [f"r{i:04}" for i in range(1000)]
        await start(store, *ids)
        await store.commit(
            [Turn(run=id, fence=1, lines=[line(f"l-{id}", id)], status="parked") for id in ids]
        )
        fence = await store.claim_lane(LANE, "w", HOUR, now=0.0)
        assert fence is not None
        await take(store, fence, job="B1")
        chunk = [LineOutcome(f"l-{id}", "ok", id.encode()) for id in ids]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == []
        got = await claim(store, 1000)
        assert list(got) == ids
        assert [run.inbox[0].mail.value for run in got.values()] == [id.encode() for id in ids]
