"""What every store promises of requests that are the same, as tests; part of `StoreContract`."""

from __future__ import annotations

from typing import Any

import pytest

from ...model.entry import BLOB, Failure
from ...model.lane import Answer, Line, LineOutcome
from ...model.message import Mail
from ...model.run import REUSED, CallRef, Spec, Usage
from ...ports.store import NewRun, Store, Turn
from .acts import LANE

PAID = Usage("m", "batch", 1, 10, 20)
LARGE = b'"%s"' % (b"x" * (2 * BLOB))


def ask(run: str, same: str = "a", **fields: Any) -> Line:
    """A line of a run that asks that."""
    given: dict[str, Any] = {
        "id": f"{run}-{same}",
        "lane": LANE,
        "call": CallRef(run, "", 1),
        "body": b'{"asks":"%s"}' % same.encode(),
        "created": 5.0,
        "same": same,
        **fields,
    }
    return Line(**given)


def whole(run: str, same: str = "a", value: bytes = b'"hi"', **fields: Any) -> LineOutcome:
    """An answer that will do for others."""
    given: dict[str, Any] = {"whole": True, "used": PAID, "lane": "batch", **fields}
    return LineOutcome(f"{run}-{same}", "ok", value, **given)


async def put(store: Store, *lines: Line, now: float = 0.0, parks: bool = True) -> None:
    """Runs of these lines, parked; all in one commit."""
    runs = list(dict.fromkeys(line.call.run for line in lines))
    spec = Spec("flow", "greet", b"[]", job="j")
    await store.create([NewRun(run, spec) for run in runs], now=now, worker="w", ttl=60.0)
    status = "parked" if parks else "ready"
    turns = [
        Turn(
            run=run,
            fence=1,
            entries=b"row",
            lines=[line for line in lines if line.call.run == run],
            status=status,  # type: ignore[arg-type]  # one of the two above
            now=now,
        )
        for run in runs
    ]
    await store.commit(turns)


async def end(store: Store, run: str, **fields: Any) -> None:
    """Have a run end that isn't claimed."""
    await store.revive(run, pool=None, now=0.0, status=("parked", "ready"))
    (claimed,) = [one for one in await store.claim("w", 100, 60.0, now=0.0) if one.head.id == run]
    await store.commit([Turn(run=run, fence=claimed.head.fence, status="done", **fields)])


async def drive(store: Store) -> int:
    fence = await store.claim_lane(LANE, "w", 60.0, now=0.0)
    assert fence is not None
    return fence


async def take(store: Store, job: str = "B1") -> list[str]:
    """What goes into a provider's job; all that waits."""
    fence = await drive(store)
    taken = await store.take(LANE, fence, max_lines=100, max_bytes=10**9, job=job, nonce=job, now=0.0)
    return [] if taken is None else [line.id for line in await store.job_lines(job, "", 100)]


async def tell(store: Store, *outcomes: LineOutcome, job: str = "B1", now: float = 7.0) -> None:
    assert await store.outcomes(job, await drive(store), outcomes, now=now) == []


async def got(store: Store, run: str) -> list[tuple[str, str, bytes | None]]:
    """The results that a run was sent: sender, lane and value."""
    mail: list[Mail] = [letter.mail for letter in await store.inbox(run, 0)]
    assert all(one.kind == "result" and one.call is not None and one.call.run == run for one in mail)
    return [(one.sender, one.name, one.value) for one in mail]


@pytest.mark.asyncio
class AnswersContract:
    """Subclass it with a fixture `store`."""

    async def test_answers_are_kept_by_what_was_asked(self, store: Store) -> None:
        await put(store, ask("r", "b"), parks=False)
        kept = [Answer("a", b'"hi"', 3.5), Answer("large", LARGE, 4.0)]
        await store.commit([Turn(run="r", fence=1, answers=kept)])
        assert await store.answers(["a", "large", "nothing"]) == {"a": kept[0], "large": kept[1]}
        assert await store.answers([]) == {}

    async def test_the_newest_answer_counts_and_old_ones_are_forgotten(self, store: Store) -> None:
        await put(store, ask("r", "z"), parks=False)
        for at, value in ((5.0, b"1"), (9.0, b"2"), (7.0, b"3")):
            await store.commit([Turn(run="r", fence=1, answers=[Answer("a", value, at)])])
        assert await store.answers(["a"]) == {"a": Answer("a", b"2", 9.0)}
        assert await store.forget(before=9.0) == 0
        assert await store.forget(before=9.5) == 1
        assert await store.answers(["a"]) == {}

    async def test_a_fenced_turn_keeps_no_answer(self, store: Store) -> None:
        await put(store, ask("r"))
        await store.commit([Turn(run="r", fence=9, answers=[Answer("a", b"1", 1.0)])])
        assert await store.answers(["a"]) == {}

    async def test_one_is_sent_and_the_others_follow(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"), ask("r3"), ask("r4", "b"))
        assert await store.line_counts() == {"waiting": 2, "following": 2}
        (head,) = await store.lanes()
        assert head.waiting == 2
        assert await take(store) == ["r1-a", "r4-b"]
        await put(store, ask("r5"))
        assert await store.line_counts() == {"taken": 2, "following": 3}
        assert await store.line_counts(open_only=True) == {"taken": 2, "following": 3}
        assert await take(store, "B2") == []
        await tell(store, whole("r1"), now=7.5)
        assert await got(store, "r1") == [("line:r1-a", "batch", b'"hi"')]
        for run in ("r2", "r3", "r5"):
            assert await got(store, run) == [(f"line:{run}-a", REUSED, b'"hi"')]
            assert (await store.newest(status=["ready"]))[0][0].status == "ready"
        assert await store.answers(["a"]) == {"a": Answer("a", b'"hi"', 7.5)}
        assert await store.line_counts() == {"ok": 4, "taken": 1}

    async def test_an_answer_that_is_there_is_given_at_once(self, store: Store) -> None:
        await put(store, ask("r1"))
        await take(store)
        await tell(store, whole("r1", value=LARGE), now=10.0)
        await put(store, ask("r2", since=10.0), ask("r3", since=10.5), now=11.0)
        assert await got(store, "r2") == [("line:r2-a", REUSED, LARGE)]
        (parked,) = [head for head in await store.runs() if head.id == "r2"]
        assert parked.status == "ready"  # it was there before it parked
        assert await got(store, "r3") == []
        assert await store.line_counts() == {"ok": 2, "waiting": 1}
        assert await store.unclaimed() == []

    async def test_lines_that_dont_say_so_share_nothing(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2", same="", id="r2-a"), ask("r3", same="", id="r3-a"))
        assert await store.line_counts() == {"waiting": 3}
        await take(store)
        await tell(store, whole("r2"))
        assert await got(store, "r1") == []

    async def test_an_answer_from_elsewhere_spares_what_waits(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"))
        await put(store, ask("r3", "b"), parks=False)
        await store.commit([Turn(run="r3", fence=1, answers=[Answer("a", b'"live"', 3.0)])])
        for run in ("r1", "r2"):
            assert await got(store, run) == [(f"line:{run}-a", REUSED, b'"live"')]
        assert await store.line_counts() == {"ok": 2, "waiting": 1}

    async def test_an_answer_that_isnt_whole_is_shared_and_not_kept(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"))
        await take(store)
        await tell(store, whole("r1", whole=False))
        assert await got(store, "r2") == [("line:r2-a", REUSED, b'"hi"')]
        assert await store.answers(["a"]) == {}

    async def test_an_error_is_shared(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"))
        await take(store)
        error = Failure("m:E", "no")
        await tell(store, LineOutcome("r1-a", "error", None, error))
        (letter,) = await store.inbox("r2", 0)
        assert letter.mail.error == error
        assert await store.line_counts() == {"error": 2}

    async def test_what_goes_round_again_is_waited_for(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"))
        await take(store)
        await tell(store, LineOutcome("r1-a", "expired", again=True))
        assert await store.line_counts() == {"waiting": 1, "following": 1}
        assert await take(store, "B2") == ["r1-a"]

    @pytest.mark.parametrize("leaves", ["withdrawn", "ended"])
    async def test_the_next_takes_the_place_of_one_that_leaves(self, store: Store, leaves: str) -> None:
        await put(store, ask("r1"), ask("r2"), ask("r3"))
        if leaves == "withdrawn":
            assert await store.withdraw(["r1-a"], now=5.0) == [True]
        else:
            await end(store, "r1")
        assert await store.line_counts() == {"cancelled": 1, "waiting": 1, "following": 1}
        assert await take(store) == ["r2-a"]
        (line,) = await store.job_lines("B1", "", 9)
        assert line.body == ask("r1").body
        await tell(store, whole("r2"))
        assert await got(store, "r2") == [("line:r2-a", "batch", b'"hi"')]
        assert await got(store, "r3") == [("line:r3-a", REUSED, b'"hi"')]

    @pytest.mark.parametrize("leaves", ["withdrawn", "ended"])
    async def test_one_that_leaves_a_job_is_answered_for_the_others(self, store: Store, leaves: str) -> None:
        """Its own run gets nothing more that counts: the first of the others has what was paid in its usage."""
        await put(store, ask("r1"), ask("r2"), ask("r3"))
        await take(store)
        if leaves == "withdrawn":
            assert await store.withdraw(["r1-a"], now=5.0) == [False]
        else:
            await end(store, "r1")
        assert await store.job_bodies("B1", "", 9) == [("r1-a", ask("r1").body)]
        await tell(store, whole("r1"))
        assert await got(store, "r1") == []
        assert await got(store, "r2") == [("line:r2-a", "batch", b'"hi"')]
        assert await got(store, "r3") == [("line:r3-a", REUSED, b'"hi"')]
        assert [letter.mail.used for run in ("r2", "r3") for letter in await store.inbox(run, 0)] == [
            PAID,
            None,
        ]
        assert await store.unclaimed() == []

    @pytest.mark.parametrize("leaves", ["withdrawn", "ended"])
    async def test_one_that_left_and_would_go_again_is_succeeded(self, store: Store, leaves: str) -> None:
        await put(store, ask("r1"), ask("r2"))
        await take(store)
        await (store.withdraw(["r1-a"], now=5.0) if leaves == "withdrawn" else end(store, "r1"))
        await tell(store, LineOutcome("r1-a", "expired", again=True))
        (sent,) = await take(store, "B2")
        assert sent in ("r1-a", "r2-a")
        await tell(store, whole(sent[:2]), job="B2")
        assert await got(store, "r2") == [("line:r2-a", "batch", b'"hi"')]

    async def test_one_that_left_and_goes_again_for_others_isnt_sent_without_them(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"))
        await take(store)
        assert await store.withdraw(["r1-a"], now=5.0) == [False]
        await tell(store, LineOutcome("r1-a", "expired", again=True))
        assert await store.withdraw(["r2-a"], now=5.0) == [True]
        assert await store.line_counts() == {"cancelled": 2}
        assert await store.lanes() == []
        await put(store, ask("r3"))
        assert await take(store, "B2") == ["r3-a"]

    async def test_one_that_left_and_is_put_in_anew_gets_its_answer(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"), parks=False)
        await take(store)
        assert await store.withdraw(["r1-a"], now=5.0) == [False]
        await store.commit([Turn(run="r1", fence=1, lines=[ask("r1")])])
        await tell(store, whole("r1"))
        assert await got(store, "r1") == [("line:r1-a", "batch", b'"hi"')]
        assert await got(store, "r2") == [("line:r2-a", REUSED, b'"hi"')]

    async def test_one_that_nobody_follows_any_more_isnt_sent_for_others(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"))
        await take(store)
        assert await store.withdraw(["r1-a"], now=5.0) == [False]
        assert await store.withdraw(["r2-a"], now=5.0) == [True]
        await tell(store, LineOutcome("r1-a", "expired", again=True))
        assert await store.line_counts() == {"cancelled": 2}

    @pytest.mark.parametrize("answered", ["by a live call", "by another line"])
    async def test_one_that_left_isnt_sent_for_others_that_have_an_answer(
        self, store: Store, answered: str
    ) -> None:
        await put(store, ask("r1"), ask("r2", due=50.0, late="fail"), ask("r3"))
        assert await take(store) == ["r1-a", "r2-a"]
        assert await store.withdraw(["r1-a"], now=5.0) == [False]
        assert [id for id, _ in await store.job_bodies("B1", "", 9)] == ["r1-a", "r2-a"]
        if answered == "by another line":
            await tell(store, whole("r2"))
        else:
            await put(store, ask("r4", "b"), parks=False)
            await store.commit([Turn(run="r4", fence=1, answers=[Answer("a", b'"hi"', 7.0)])])
        assert await got(store, "r3") == [("line:r3-a", REUSED, b'"hi"')]
        assert "r1-a" not in [id for id, _ in await store.job_bodies("B1", "", 9)]
        await tell(store, LineOutcome("r1-a", "expired", again=True))
        assert (await store.line_counts())["cancelled"] == 1

    async def test_one_that_nobody_waits_for_is_wanted_again_by_who_asks_the_same(self, store: Store) -> None:
        await put(store, ask("r1"))
        await take(store)
        assert await store.withdraw(["r1-a"], now=5.0) == [False]
        assert await store.job_bodies("B1", "", 9) == []
        await put(store, ask("r2"))
        assert await store.line_counts() == {"taken": 1, "following": 1}
        assert await store.job_bodies("B1", "", 9) == [("r1-a", ask("r1").body)]
        await tell(store, whole("r1"))
        assert await got(store, "r1") == []
        assert await got(store, "r2") == [("line:r2-a", "batch", b'"hi"')]
        assert await store.unclaimed() == []

    async def test_nobody_takes_the_place_of_one_that_leaves_where_another_goes_on(
        self, store: Store
    ) -> None:
        await put(store, ask("r1"), ask("r2", due=50.0, late="fail"), ask("r3"))
        assert await store.line_counts() == {"waiting": 2, "following": 1}
        assert await store.withdraw(["r1-a"], now=5.0) == [True]
        assert await store.line_counts() == {"cancelled": 1, "waiting": 1, "following": 1}
        assert await take(store) == ["r2-a"]
        await tell(store, whole("r2"))
        assert await got(store, "r3") == [("line:r3-a", REUSED, b'"hi"')]

    async def test_what_was_paid_for_nobody_is_unclaimed(self, store: Store) -> None:
        await put(store, ask("r1"))
        await take(store)
        await end(store, "r1")
        await tell(store, whole("r1"))
        assert await store.unclaimed() == [PAID]
        assert list(await store.answers(["a"])) == ["a"]  # it will do for others

    async def test_a_follower_that_leaves_harms_nobody(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"), ask("r3"))
        assert await store.withdraw(["r2-a"], now=5.0) == [True]
        await take(store)
        await tell(store, whole("r1"))
        assert await got(store, "r2") == []
        assert await got(store, "r3") == [("line:r3-a", REUSED, b'"hi"')]

    async def test_all_of_them_leave(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2"))
        assert await store.withdraw(["r1-a", "r2-a"], now=5.0) == [True, True]
        assert await store.line_counts() == {"cancelled": 2}
        assert await store.lanes() == []
        await put(store, ask("r3"))
        assert await take(store) == ["r3-a"]

    async def test_of_those_that_leave_together_none_takes_the_place_of_another(self, store: Store) -> None:
        """Nor its attempts, should it be put in anew; and all of them were waited for."""
        await put(store, ask("r1"), ask("r2"), parks=False)
        await take(store)
        await tell(store, LineOutcome("r1-a", "expired", again=True))
        assert await store.withdraw(["r1-a", "r2-a"], now=5.0) == [True, True]
        await store.commit([Turn(run="r2", fence=1, lines=[ask("r2")])])
        assert await take(store, "B2") == ["r2-a"]
        assert [line.attempt for line in await store.job_lines("B2", "", 9)] == [2]

    async def test_two_of_one_run(self, store: Store) -> None:
        second = ask("r1", id="second", call=CallRef("r1", "", 2))
        await put(store, ask("r1"), second)
        await take(store)
        await tell(store, whole("r1"))
        assert await got(store, "r1") == [
            ("line:second", REUSED, b'"hi"'),
            ("line:r1-a", "batch", b'"hi"'),
        ]

    async def test_a_follower_that_is_due_sooner_has_its_leader_sent_live_for_it(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2", due=50.0, late="live"))
        await take(store)
        await put(store, ask("r3", due=40.0, late="live"))
        (head,) = await store.lanes()
        assert head.due == 40.0
        job = await store.promote(LANE, await drive(store), by=45.0, max_lines=9, job="L1", now=41.0)
        assert job is not None
        assert [line.id for line in await store.job_lines("L1", "", 9)] == ["r1-a"]
        await tell(store, whole("r1", lane="live"), job="L1")
        for run in ("r2", "r3"):
            assert await got(store, run) == [(f"line:{run}-a", REUSED, b'"hi"')]
        await tell(store, whole("r1"))  # the job's own answer comes second
        assert await store.unclaimed() == [PAID]

    async def test_one_that_fails_sooner_follows_nobody(self, store: Store) -> None:
        await put(store, ask("r1"), ask("r2", due=50.0, late="fail"))
        assert await store.line_counts() == {"waiting": 2}
        await take(store)
        await tell(store, whole("r1"))
        assert await got(store, "r2") == []  # it is in the job as well
        await tell(store, whole("r2"))
        assert await got(store, "r2") == [("line:r2-a", "batch", b'"hi"')]

    async def test_a_missed_deadline_is_shared_by_those_who_missed_theirs(self, store: Store) -> None:
        await put(
            store,
            *(ask(run, due=due, late="fail") for run, due in (("r1", 50.0), ("r2", 50.0), ("r3", 90.0))),
        )
        assert await store.line_counts() == {"waiting": 1, "following": 2}
        fence = await drive(store)
        assert await store.promote(LANE, fence, by=60.0, max_lines=9, job="L1", now=51.0) is not None
        await tell(store, LineOutcome("r1-a", "expired", None, Failure("m:Late", "late")), job="L1", now=52.0)
        for run in ("r1", "r2"):
            (letter,) = await store.inbox(run, 0)
            assert letter.mail.error == Failure("m:Late", "late")
        assert await got(store, "r3") == []
        assert await take(store) == ["r3-a"]

    async def test_put_in_again_it_asks_anew(self, store: Store) -> None:
        """A line that ended goes round again as one that was never there."""
        await put(store, ask("r1"))
        await take(store)
        await tell(store, LineOutcome("r1-a", "error", None, Failure("m:E", "no")))
        await put(store, ask("r2"))
        (claimed,) = await store.claim("w", 9, 60.0, now=0.0)
        await store.commit([Turn(run="r1", fence=claimed.head.fence, lines=[ask("r1")], status="parked")])
        assert await store.line_counts() == {"waiting": 1, "following": 1}
        assert await take(store, "B2") == ["r2-a"]

    async def test_a_follower_that_is_put_in_again_and_would_share_no_more_follows_still(
        self, store: Store
    ) -> None:
        await put(store, ask("r1"), ask("r2"), parks=False)
        await store.commit([Turn(run="r2", fence=1, lines=[ask("r2", id="r2-a", same="", body=b"own")])])
        assert await store.line_counts() == {"waiting": 1, "following": 1}
        assert await store.withdraw(["r1-a"], now=5.0) == [True]
        assert await take(store) == ["r2-a"]
        (line,) = await store.job_lines("B1", "", 9)
        assert line.body == ask("r1").body

    async def test_many_followers_of_many(self, store: Store) -> None:
        lines = [ask(f"r{number}", "abcd"[number % 4]) for number in range(600)]
        await put(store, *lines)
        assert await store.line_counts() == {"waiting": 4, "following": 596}
        await take(store)
        await tell(store, *(whole(f"r{number}", "abcd"[number]) for number in range(4)))
        assert await store.line_counts() == {"ok": 600}
        assert len((await store.newest(status=["ready"]))[0]) == 600
