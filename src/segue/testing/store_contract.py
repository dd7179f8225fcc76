"""What every store promises, as tests. A store's author subclasses `StoreContract`::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            store = MyStore(...)
            await store.open()
            yield store
            await store.close()

It needs pytest and pytest-asyncio. Each test gets an empty, open store; none waits for real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ..model.entry import Failure
from ..model.lane import BatchJob, Line, LineOutcome
from ..model.message import Letter, Mail, Question
from ..model.mode import Batch, Config
from ..model.run import CallRef, Spec, Status, Usage
from ..ports.store import Claimed, CommitResult, Hint, JobHead, Lease, NewRun, Store, Turn
from ..stores.poison import LAPSES
from .answers_contract import AnswersContract
from .budget_contract import BudgetContract
from .mail_contract import MailContract
from .past_contract import PastContract
from .port_contract import PortContract

LANE = "mock|http://x|/v1/chat|small|key"
HOUR = 3600.0


def spec(**fields: Any) -> Spec:
    """A run's spec, with what a test doesn't care about filled in."""
    given: dict[str, Any] = {"kind": "flow", "target": "greet", "args": b'[["x"],{}]', **fields}
    return Spec(**given)


def tell(to: str, number: int, sender: str = "outside", **fields: Any) -> Mail:
    """Mail from outside."""
    given: dict[str, Any] = {"kind": "tell", "name": "Note", "value": b'"hi"', **fields}
    return Mail(to, sender, number, **given)


def line(id: str, run: str, **fields: Any) -> Line:
    """A model request of a run."""
    given: dict[str, Any] = {"id": id, "lane": LANE, "call": CallRef(run, "", 1), "body": b"{}", **fields}
    return Line(**given)


def question(id: str, run: str, **fields: Any) -> Question:
    """An ask of a run."""
    given: dict[str, Any] = {"id": id, "run": run, "path": "0", "n": 3, "question": "ok?", **fields}
    return Question(**given)


async def create(store: Store, *ids: str, now: float = 0.0, **fields: Any) -> None:
    """Runs, ready."""
    await store.create([NewRun(id, spec(**fields)) for id in ids], now=now)


async def start(store: Store, *ids: str, worker: str = "w", **fields: Any) -> list[int]:
    """Runs, claimed for an hour; their fences."""
    runs = [NewRun(id, spec(**fields)) for id in ids]
    made = await store.create(runs, now=0.0, worker=worker, ttl=HOUR)
    return [one.head.fence for one in made]


async def claim(store: Store, limit: int = 100, *, now: float = 0.0, worker: str = "w") -> dict[str, Claimed]:
    """What a worker gets, by id, in order."""
    return {got.head.id: got for got in await store.claim(worker, limit, HOUR, now=now)}


async def commit(store: Store, run: str, fence: int, **fields: Any) -> CommitResult:
    """One turn."""
    (result,) = await store.commit([Turn(run=run, fence=fence, **fields)])
    return result


async def append(store: Store, rows: Sequence[tuple[str, int, bytes]]) -> list[CommitResult | BaseException]:
    """Rows appended together; what came of each."""
    landed: list[asyncio.Future[CommitResult | BaseException]] = []
    for row in rows:
        future = asyncio.get_running_loop().create_future()
        if store.append(*row, future.set_result):
            future.set_result("committed")
        landed.append(future)
    return [await future for future in landed]


async def park(store: Store, run: str, fence: int = 1, **fields: Any) -> CommitResult:
    """A turn that parks."""
    return await commit(store, run, fence, status="parked", **fields)


async def status(store: Store, run: str) -> Status:
    """A run's status."""
    head = await store.get(run)
    assert head is not None
    return head.status


async def mail_of(store: Store, run: str, after: int = 0) -> list[Mail]:
    """What lies in an inbox."""
    return [letter.mail for letter in await store.inbox(run, after)]


async def loaded(store: Store, run: str) -> Claimed:
    """A run that is there, to look at."""
    found = await store.load(run)
    assert found is not None
    return found


async def lane_with(store: Store, *ids: str, run: str = "r", job: str = "B1", **fields: Any) -> int:
    """A parked run with lines that are taken into a provider job; the lane's fence."""
    (fence,) = await start(store, run)
    lines = [line(id, run, call=CallRef(run, "", n), **fields) for n, id in enumerate(ids)]
    await park(store, run, fence, lines=lines)
    drive = await store.claim_lane(LANE, "w", HOUR, now=0.0)
    assert drive is not None
    await take(store, drive, job=job)
    return drive


async def take(
    store: Store, fence: int, *, lines: int = 1000, size: int = 10**9, job: str
) -> BatchJob | None:
    """A new provider job."""
    return await store.take(
        LANE, fence, max_lines=lines, max_bytes=size, job=job, nonce=f"nonce-{job}", now=5.0
    )


@pytest.mark.asyncio
class StoreContract(MailContract, PastContract, PortContract, AnswersContract, BudgetContract):
    """Subclass it with a fixture `store`."""

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
        (made,) = await store.create([NewRun("a", mine, pool=b"pool")], now=12.5)
        assert made.new
        assert made.head == await store.get("a")
        assert (made.head.id, made.head.spec, made.head.status) == ("a", mine, "ready")
        assert (made.head.fence, made.head.finished, made.head.updated) == (0, 0, 12.5)
        assert (await loaded(store, "a")) == Claimed(made.head, None, b"pool", [], [])

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
        assert await store.runs(job="x") == []
        assert await store.get_job("x") is None
        assert await store.get_ask("x") is None
        assert await store.asks(run="x") == []
        assert await store.job_lines("x", "", 10) == []
        assert await store.line_counts(job="x") == {}
        assert await store.batch_jobs(lane="x") == []
        assert not await store.revive("x", pool=None, now=0.0, status=["failed"])
        assert await commit(store, "x", 1, entries=b"row") == "fenced"

    # ------------------------------------------------------------ claim
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

    async def test_a_lapsed_claim_that_nobody_took_still_commits(self, store: Store) -> None:
        await create(store, "a")
        (mine,) = await store.claim("w", 1, 1.0, now=0.0)
        assert await commit(store, "a", mine.head.fence, entries=b"row", now=50.0) == "committed"

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
        child = NewRun("a/1", spec(target="child", parent=CallRef("a", "", 0)), pool=b"p")
        await commit(store, "a", 1, entries=b"row", spawn=[child], now=4.0)
        await commit(store, "a", 1, spawn=[NewRun("a/1", spec(target="other"))])
        got = (await claim(store))["a/1"]
        assert (got.head.spec, got.pool, got.head.fence) == (child.spec, b"p", 1)

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

    # ------------------------------------------------------------ mail
    async def test_mail_is_delivered_once_for_ever(self, store: Store) -> None:
        await start(store, "a", "b")
        assert await store.deliver([tell("a", 1)], now=0.0) == ["delivered"]
        assert await store.deliver([tell("a", 1)], now=0.0) == ["duplicate"]
        (letter,) = await store.inbox("a", 0)
        await commit(store, "a", 1, consumed=[letter.id])
        await park(store, "a")
        assert await store.deliver([tell("a", 1), tell("b", 1)], now=0.0) == ["duplicate", "delivered"]
        assert await status(store, "a") == "parked"
        both = [tell("a", 2), tell("a", 2), tell("a", 1, "another"), tell("a", 3)]
        assert await store.deliver(both, now=0.0) == ["delivered", "duplicate", "delivered", "delivered"]
        assert await mail_of(store, "a") == [both[0], both[2], both[3]]

    async def test_mail_keeps_its_order_and_content(self, store: Store) -> None:
        await start(store, "a")
        mail = [
            tell("a", 1, "s", value=None, at=1.125),
            Mail("a", "t", 7, "request", "Ask", b"{}", reply=CallRef("b", "0", 1), callers=("x", "y")),
            Mail("a", "s", 2, "result", error=Failure("m:E", "no", b"[1]"), call=CallRef("a", "1", 2)),
            Mail("a", "u", 0, "cancel"),
            tell("a", 9, "s", value=b"\x00\xff"),
        ]
        for one in mail[:3]:
            await store.deliver([one], now=0.0)
        await store.deliver(mail[3:], now=0.0)
        letters = await store.inbox("a", 0)
        assert [letter.mail for letter in letters] == mail
        ids = [letter.id for letter in letters]
        assert ids == sorted(set(ids))
        assert min(ids) > 0
        assert await store.inbox("a", ids[2]) == letters[3:]
        assert (await loaded(store, "a")).inbox == letters

    async def test_letter_numbers_are_never_used_again(self, store: Store) -> None:
        await start(store, "a")
        newest = 0
        for number in range(5):
            await store.deliver([tell("a", number)], now=0.0)
            (letter,) = await store.inbox("a", 0)
            assert letter.id > newest
            newest = letter.id
            await commit(store, "a", 1, consumed=[newest])

    async def test_mail_to_nobody_and_to_the_dead(self, store: Store) -> None:
        await start(store, "a", "b")
        await store.deliver([tell("a", 1)], now=0.0)
        await commit(store, "a", 1, status="done")
        assert await store.deliver([tell("a", 2), tell("x", 1), tell("b", 1)], now=0.0) == [
            "gone",
            "gone",
            "delivered",
        ]
        assert await mail_of(store, "a") == []

    async def test_outbox(self, store: Store) -> None:
        await start(store, "a", "b", "c")
        await park(store, "b")
        out = [Mail("b", "run:a", n, "tell", value=b"%d" % n) for n in range(1, 4)]
        turn = Turn(
            run="a", fence=1, outbox=[*out, Mail("x", "run:a", 1, "tell"), Mail("a", "run:a", 4, "tell")]
        )
        assert await store.commit([turn]) == ["committed"]
        assert await mail_of(store, "b") == out
        assert await status(store, "b") == "ready"
        assert [mail.number for mail in await mail_of(store, "a")] == [4]
        assert await store.commit([turn]) == ["committed"]
        assert await store.deliver(out, now=0.0) == ["duplicate"] * 3
        assert await mail_of(store, "b") == out

    async def test_many_letters_at_once(self, store: Store) -> None:
        ids = [f"r{i:03}" for i in range(400)]
        await start(store, *ids)
        await store.commit([Turn(run=id, fence=1, status="parked") for id in ids])
        mail = [tell(id, number) for number in (1, 2) for id in ids]
        assert await store.deliver(mail, now=0.0) == ["delivered"] * 800
        got = await claim(store, 1000)
        assert list(got) == ids
        assert all([letter.mail.number for letter in run.inbox] == [1, 2] for run in got.values())

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

    # ------------------------------------------------------------ jobs and lists
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
        assert await ids(limit=2) == "ab"
        assert await ids(after="b", limit=3) == "cde"
        assert await ids(after="bb") == "cdef"
        assert await ids(job="j") == "abd"
        assert await ids(job="j", after="a", limit=1) == "b"
        assert await ids(job="j", status=["done", "ready"]) == "ab"
        assert await ids(job="j", status=["failed"]) == ""
        assert await ids(status=["held"]) == "de"
        assert await ids(status=["held"], after="d") == "e"
        assert await ids(status=["held", "done"], limit=2) == "ad"
        assert await ids(status=["held", "failed", "cancelled"]) == "de"
        assert (await store.runs(job="j", limit=1))[0] == await store.get("a")

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

    # ------------------------------------------------------------ revive, history
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
        assert await store.revive("a", pool=b"pool", now=5.0, status=["held"])
        got = (await claim(store))["a"]
        assert (got.journal, got.pool, got.head.reason) == ([], b"pool", "")
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

    async def test_revive_fences_who_held_it(self, store: Store) -> None:
        await start(store, "a")
        assert await store.revive("a", pool=b"p", now=0.0, status=["ready"])
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

    # ------------------------------------------------------------ questions
    async def test_asks(self, store: Store) -> None:
        await start(store, "a", "b")
        one = question("q2", "a", to="ann", show=b'{"x":1}', schema=b"{}", created=2.5, deadline=9.5)
        two = question("q1", "a", to="bob")
        three = question("q0", "b", to="ann")
        await commit(store, "a", 1, asks=[one, two])
        await commit(store, "b", 1, asks=[three])
        assert await store.asks() == [one, two, three]
        assert await store.asks(to="ann") == [one, three]
        assert await store.asks(run="a") == [one, two]
        assert await store.asks(run="a", to="ann") == [one]
        assert await store.asks(to="nobody") == []
        assert await store.get_ask("q2") == (one, "open")
        await commit(store, "a", 1, closed_asks=["q2", "unknown"])
        assert await store.get_ask("q2") == (one, "closed")
        assert await store.asks() == [two, three]

    async def test_questions_are_read_as_they_come(self, store: Store) -> None:
        await start(store, "a", "b")
        one, two, three = question("q2", "a", to="ann"), question("q1", "a", to="bob"), question("q0", "b")
        assert await store.asked(0) == ([], 0)
        await commit(store, "a", 1, asks=[one, two])
        found, after = await store.asked(0, limit=1)
        assert found == [one]
        await commit(store, "b", 1, asks=[three])
        found, after = await store.asked(after, limit=1)
        assert found == [two]
        found, after = await store.asked(after)
        assert found == [three]
        assert await store.asked(after) == ([], after)
        assert await store.asked(0, to="ann") == ([one], after)
        await commit(store, "a", 1, closed_asks=["q2", "q1"])
        assert await store.asked(0) == ([three], after)
        await commit(store, "a", 1, asks=[one])  # once more
        assert (await store.asked(after))[0] == [one]
        assert (await store.asked(0))[0] == [three, one]

    async def test_the_first_answer_wins(self, store: Store) -> None:
        await start(store, "a")
        await park(store, "a", asks=[question("q", "a")])
        answers = [store.answer("q", b"%d" % i, now=3.5) for i in range(10)]
        results = await asyncio.gather(*answers)
        assert sorted(results) == ["answered"] + ["closed"] * 9
        (mail,) = await mail_of(store, "a")
        assert (mail.kind, mail.call, mail.at) == ("result", CallRef("a", "0", 3), 3.5)
        assert mail.value == b"%d" % results.index("answered")
        assert await status(store, "a") == "ready"
        assert await store.get_ask("q") == (question("q", "a"), "answered")
        assert await store.answer("unknown", b"1", now=0.0) == "unknown"

    async def test_an_ask_can_be_opened_again(self, store: Store) -> None:
        await start(store, "a")
        await commit(store, "a", 1, asks=[question("q", "a")], status="failed")
        assert await store.answer("q", b"1", now=0.0) == "closed"
        await store.revive("a", pool=b"", now=0.0, status=["failed"])
        await claim(store)
        await park(store, "a", 2, asks=[question("q", "a")])
        assert [ask.id for ask in await store.asks(run="a")] == ["q"]
        assert await store.answer("q", b"2", now=0.0) == "answered"

    # ------------------------------------------------------------ blobs
    async def test_blobs(self, store: Store) -> None:
        await start(store, "a")
        large = bytes(range(256)) * 1000
        await commit(store, "a", 1, blobs=[(b"d1", b"one"), (b"d2", large), (b"d3", b"")])
        await commit(store, "a", 1, blobs=[(b"d1", b"other"), (b"d4", b"four")])
        found = await store.get_blobs([b"d1", b"d2", b"d3", b"d4", b"d5"])
        assert found == {b"d1": b"one", b"d2": large, b"d3": b"", b"d4": b"four"}

    async def test_many_blobs(self, store: Store) -> None:
        await start(store, "a")
        blobs = [(b"digest%d" % i, b"%d" % i) for i in range(1200)]
        await commit(store, "a", 1, blobs=blobs)
        assert await store.get_blobs([digest for digest, _ in blobs]) == dict(blobs)

    # ------------------------------------------------------------ lanes
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
        assert await store.job_lines("B1", "", 10) == []
        assert await store.put_batch_job(BatchJob("B1", LANE, "n", "sent", 4, 5.0), fence)
        assert await store.batch_jobs() == []

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

    async def test_lines_of_a_run_that_ended(self, store: Store) -> None:
        fence = await lane_with(store, "l1", "l2")
        await store.deliver([tell("r", 1)], now=0.0)
        await claim(store)
        await commit(store, "r", 2, status="cancelled")
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
        used = Usage("m", "batch", 1, 10, 5)
        chunk = [LineOutcome("l1", "expired", again=True), LineOutcome("l2", "ok", b"1", used=used)]
        assert await store.outcomes("B1", fence, chunk, now=0.0) == []
        assert [mail.value for mail in await mail_of(store, "r")] == [b"1"]
        assert await store.unclaimed(run="r") == [used]
        job = await take(store, fence, job="B2")
        assert job is not None
        assert job.lines == 1
        assert await store.line_counts() == {"ok": 1, "cancelled": 2, "taken": 1}

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

    # ------------------------------------------------------------ hints
    async def test_hints(self, store: Store) -> None:
        hints: list[Hint] = []
        end = store.subscribe(hints.append)

        async def told() -> set[tuple[str, str]]:
            for _ in range(5):
                await asyncio.sleep(0)
            out: set[tuple[str, str]] = {(hint.kind, run) for hint in hints for run in hint.runs}
            hints.clear()
            return out

        await start(store, "a", "b")
        assert await told() == set()
        await create(store, "c")
        assert await told() == {("ready", "c")}
        await commit(store, "a", 1, lines=[line("l1", "a")], asks=[question("q", "a")])
        assert await told() == {("lines", LANE)}
        await store.deliver([tell("a", 1)], now=0.0)
        assert await told() == {("mail", "a")}
        (letter,) = await store.inbox("a", 0)
        await park(store, "a", seen=letter.id)
        assert await told() == set()
        await store.answer("q", b"1", now=0.0)
        assert await told() == {("ready", "a")}
        await commit(store, "b", 1, status="done")
        assert await told() == {("ended", "b")}
        await claim(store)
        await commit(store, "a", 2, release=True)
        assert await told() == {("ready", "a")}
        end()
        await create(store, "d")
        assert await told() == set()

    async def test_letters_are_values(self, store: Store) -> None:
        """What comes out can't be changed from outside."""
        await start(store, "a")
        await store.deliver([tell("a", 1)], now=0.0)
        found = await loaded(store, "a")
        found.inbox.clear()
        found.journal.append(b"x")
        found.head.usage.append(Usage("m", "live"))
        again = await loaded(store, "a")
        assert (len(again.inbox), again.journal, again.head.usage) == (1, [], [])
        assert all(isinstance(letter, Letter) for letter in again.inbox)


__all__: Sequence[str] = ("StoreContract",)
