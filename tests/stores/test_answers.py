"""Lines that ask the same, in any order of what may happen to them: each run is answered once, and paid for once."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.model.entry import Failure
from segue.model.lane import Answer, Line, LineOutcome
from segue.model.run import REUSED, CallRef, Spec, Usage
from segue.ports.store import NewRun, Turn
from segue.stores.memory import MemoryStore

LANE = "x|u|e|m|k"
KEYS = "ab"
PAID = Usage("m", "batch", 1)

dues = st.sampled_from([0.0, 0.0, 30.0, 300.0])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(KEYS), dues, st.sampled_from(["live", "fail"])),
        st.tuples(st.sampled_from(["withdraw", "end"]), st.integers(0, 30)),
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.just("promote"), st.sampled_from([0.0, 60.0])),
        st.tuples(
            st.just("outcome"),
            st.integers(0, 30),
            st.sampled_from(["whole", "cut", "error", "again", "quits", "expired"]),
        ),
        st.tuples(st.just("answer"), st.sampled_from(KEYS)),
        st.tuples(st.just("wait"), st.sampled_from([10.0, 100.0])),
        st.tuples(st.just("forget")),
    ),
    max_size=40,
)  # fmt: skip


@dataclass
class World:
    """A store, and what was done with it."""

    store: MemoryStore = field(default_factory=MemoryStore)
    now: float = 1000.0
    runs: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)  # runs that ended
    left: set[str] = field(default_factory=set)  # lines that were given up
    jobs: int = 0
    paid: int = 0  # outcomes that were

    async def open(self) -> None:
        await self.store.open()
        await self.store.claim_lane(LANE, "w", 10**9, now=0.0)
        await self.store.create([NewRun("live", Spec("flow", "f", b""))], now=0.0, worker="w", ttl=10**9)

    async def ask(self, key: str, due: float, late: Any) -> None:
        run = f"r{len(self.runs):02}"
        self.runs.append(run)
        await self.store.create([NewRun(run, Spec("flow", "f", b""))], now=self.now, worker="w", ttl=10**9)
        due = due and self.now + due
        line = Line(
            f"{run}{key}", LANE, CallRef(run, "", 0), key.encode(), 0, self.now, 1, due, late, same=key
        )
        await self.store.commit([Turn(run=run, fence=1, entries=b"", lines=[line], now=self.now)])

    async def withdraw(self, number: int) -> None:
        if self.runs:
            run = self.runs[number % len(self.runs)]
            lines = [f"{run}{key}" for key in KEYS]
            if not await self.store.inbox(run, 0):
                self.left.update(lines)
            await self.store.withdraw(lines, now=5.0)

    async def end(self, number: int) -> None:
        if self.runs and (run := self.runs[number % len(self.runs)]) not in self.gone:
            if not await self.store.inbox(run, 0):
                self.gone.add(run)
            await self.store.commit([Turn(run=run, fence=1, status="done", now=self.now)])
            self.gone.add(run)

    async def take(self, lines: int) -> bool:
        self.jobs += 1
        job = f"B{self.jobs}"
        made = await self.store.take(
            LANE, 1, max_lines=lines, max_bytes=10**9, job=job, nonce=job, now=self.now
        )
        return made is not None

    async def promote(self, more: float) -> None:
        self.jobs += 1
        await self.store.promote(LANE, 1, by=self.now + more, max_lines=4, job=f"L{self.jobs}", now=self.now)

    async def open_lines(self) -> list[tuple[str, Line]]:
        jobs = await self.store.batch_jobs()
        return [(job.id, line) for job in jobs for line in await self.store.job_lines(job.id, "", 99)]

    async def outcome(self, number: int, how: str) -> None:
        found = await self.open_lines()
        if not found:
            return
        job, line = found[number % len(found)]
        assert line.body == line.same.encode()
        if job.startswith("L") and line.late == "fail" and 0 < line.due <= self.now:
            how = "expired"
        outcome = {
            "whole": LineOutcome(line.id, "ok", b"1", used=PAID, lane="batch", whole=True),
            "cut": LineOutcome(line.id, "ok", b"1", used=PAID, lane="batch"),
            "error": LineOutcome(line.id, "error", None, Failure("m:E", "")),
            "again": LineOutcome(line.id, "expired", None, Failure("m:E", ""), again=True),
            "quits": LineOutcome(line.id, "missing", None, Failure("m:E", ""), again=True, free=True),
            "expired": LineOutcome(line.id, "expired", None, Failure("m:E", "")),
        }[how]
        self.paid += outcome.status == "ok"
        assert await self.store.outcomes(job, 1, [outcome], now=self.now) == []

    async def answer(self, key: str) -> None:
        await self.store.commit(
            [Turn(run="live", fence=1, answers=[Answer(key, b"2", self.now)], now=self.now)]
        )

    async def wait(self, seconds: float) -> None:
        self.now += seconds

    async def forget(self) -> None:
        await self.store.forget(before=self.now + 1)

    async def check(self) -> None:
        """Whoever follows follows somebody, and nobody is answered twice."""
        lines = self.store._lines.by_id.values()
        led = {line.line.same for line in lines if line.status in ("waiting", "taken")}
        assert {line.line.same for line in lines if line.status == "following"} <= led
        for run in self.runs:
            assert len(await self.store.inbox(run, 0)) <= 1

    async def finish(self) -> None:
        """All that is open gets an answer; then all are answered, and what was paid is counted once."""
        for _ in range(200):
            while await self.open_lines():
                await self.outcome(0, "whole")
            if not await self.take(99):
                break
        for job in await self.store.batch_jobs():  # as its driver does, once nothing of it is open
            await self.store.put_batch_job(msgspec.structs.replace(job, state="closed"), 1)
        assert set(await self.store.line_counts()) <= {"ok", "error", "expired", "missing", "cancelled"}
        assert await self.store.lanes() == []
        counts: Counter[str] = Counter()
        for run in self.runs:
            if run in self.gone:
                continue
            results = [letter.mail for letter in await self.store.inbox(run, 0)]
            given_up = any(line in self.left for line in (f"{run}{key}" for key in KEYS))
            assert len(results) == 1 or (given_up and not results)
            if not given_up:  # else what came for it is unclaimed
                counts.update(mail.name for mail in results if mail.error is None)
        counts["unclaimed"] = len(await self.store.unclaimed())
        counted = counts["batch"] + counts["unclaimed"]
        assert counted <= self.paid
        if not self.gone:  # of runs that ended the mail is gone
            assert counted == self.paid
        assert counts.keys() <= {"batch", "unclaimed", REUSED}


@given(steps)
@settings(max_examples=400)
def test_each_is_answered_once_and_paid_once(steps: list[tuple[Any, ...]]) -> None:
    async def live() -> None:
        world = World()
        await world.open()
        for name, *args in steps:
            await getattr(world, name)(*args)
            await world.check()
        await world.finish()

    asyncio.run(live())
