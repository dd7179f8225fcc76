"""Many runs of three turns through a provider that does all it can to lose them, and processes that die.

On a clock that doesn't wait. A checker reads the simulator's ledger afterwards: every run ends, each with its own
answers, and a line is paid anew only where its result was lost on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import segue
from segue.core.batching import ATTEMPTS
from segue.model.errors import ModelFailed
from segue.model.mode import Batch
from segue.ports.provider import BatchProvider, CallFault, LineResult, RemoteJob
from segue.ports.store import Store
from segue.providers.openai import OpenAI
from segue.runtime.calls.naming import line_id
from segue.runtime.lanes.lanes import LEASE
from segue.stores import open_store
from segue.testing.clock import VirtualClock
from segue.testing.simulator import Failure, Limits, Pace, Simulator
from segue.transports.pooled import Pooled
from tests.crash.remote import Death, MortalStore

TURNS = 3
#: One row in so many asks what the provider refuses for good.
RUDE = 50


@segue.flow(name="soak.turns")
async def turns(number: int) -> str:
    said = f"row {number}"
    for _ in range(TURNS):
        said = await segue.generate(said)
    return said


class Gremlin:
    """Has things go wrong, by chance. A fault strikes the next call or job that it fits, whoever's that is."""

    def __init__(self, sim: Simulator, seed: int, rate: float) -> None:
        self.sim, self.rate = sim, rate
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._left: dict[tuple[str, ...], list[str]] = {}

    def before(self, call: str, lines: list[str]) -> None:
        """Perhaps something goes wrong with this call, or with what it makes."""
        if self.chance.random() < self.rate:
            self._spoil(self._next(self._of_call), lines)
        if call == "submit" and self.chance.random() < 4 * self.rate:
            self._spoil(self._next(self._of_job), lines)

    def _next(self, kinds: tuple[str, ...]) -> str:
        """One of these, each before any comes again."""
        left = self._left.setdefault(kinds, [])
        if not left:
            left += self.chance.sample(kinds, len(kinds))
        return left.pop()

    def _spoil(self, kind: str, lines: list[str]) -> None:
        self.done[kind] += 1
        faults = self.sim.faults
        match kind:
            case "html":
                faults.reply_html(status=self.chance.choice([200, 502]))
            case "fail":
                faults.fail(status=self.chance.choice([408, 429, 500, 503]))
            case "refuse":
                faults.close_connection()
            case "lose":
                faults.lose_reply()
            case "empty":
                faults.empty_reply()
            case "drop" | "rename" | "double":
                some = self.chance.sample(lines, min(3, len(lines)))
                spoil = {"drop": faults.drop_line, "rename": faults.wrong_id, "double": faults.double_line}[
                    kind
                ]
                for ident in some:
                    spoil(ident)
            case "half":
                faults.half_line()
            case "no file":
                faults.no_output_file()
            case "no id":
                faults.empty_error_file_id()
            case "rejected":
                faults.fail_batch("server_error")
            case "quota":
                faults.fail_batch("token_limit_exceeded", "Enqueued token limit reached")
            case "stalled":
                faults.stall_batch()

    _of_call = ("html", "fail", "refuse", "lose", "empty")
    _of_job = ("drop", "rename", "double", "half", "no file", "no id", "rejected", "quota", "stalled")


class Troubled:
    """A provider in a bad neighbourhood, as spoken to by a process that may die."""

    def __init__(self, inner: BatchProvider, world: World, death: Death) -> None:
        self._inner, self._world, self._death = inner, world, death
        self._lines: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("submit", "find", "poll"):
            return found

        async def watched(*args: Any, **named: Any) -> Any:
            return await self._call(name, lambda: found(*args, **named))

        return watched

    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        self._lines = []

        async def noted() -> AsyncIterator[tuple[str, bytes]]:
            async for ident, body in lines:
                self._lines.append(ident)
                yield ident, body

        file: str = await self._call("upload", lambda: self._inner.upload(noted(), endpoint, nonce))
        return file

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        self._world.gremlin.before("results", [])
        with self._world.at_work():
            async for result in self._inner.results(job):
                if isinstance(result, LineResult) and result.status == 200:
                    self._world.delivered.setdefault(result.id, set()).add(job.id)
                yield result

    async def _call(self, name: str, doing: Callable[[], Awaitable[Any]]) -> Any:
        self._world.gremlin.before(name, self._lines)
        gone = CallFault(0, "this process is dead", again=True)
        with self._world.at_work():
            return await self._death.call(name, doing, gone)


class Busy:
    """While it is open, the clock stands still."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __enter__(self) -> None:
        self._world.calls += 1

    def __exit__(self, *_: object) -> None:
        self._world.calls -= 1


class World:
    """One provider, one store, one clock, and the lives of those who work with them."""

    def __init__(self, sim: Simulator, store: Store, clock: VirtualClock, gremlin: Gremlin) -> None:
        self.sim, self.store, self.clock, self.gremlin = sim, store, clock, gremlin
        self.calls = 0  # on their way to the provider
        self.delivered: dict[str, set[str]] = {}  # by line: jobs that gave it an answer
        self.provider = OpenAI(sim.base_url, "", Pooled())
        clock.busy = lambda _: self.calls > 0

    def at_work(self) -> Busy:
        return Busy(self)

    async def life(self, rows: int, death: Death) -> dict[int, Any]:
        engine = segue.Engine(
            MortalStore(self.store, death),  # type: ignore[arg-type]  # it passes on what it doesn't watch
            clock=self.clock,
            mode=Batch(max_lines=rows // 10),
            model="far:m",
            providers={"far": lambda _: Troubled(self.provider, self, death)},  # type: ignore[dict-item,return-value]
        )
        async with engine:
            outcomes = [outcome async for outcome in engine.map(turns, range(rows), id="job")]
            return {outcome.index: outcome.error or outcome.value for outcome in outcomes}

    async def live(self, rows: int, deaths: int) -> dict[int, Any]:
        """Lives that are cut off at some call, and one that isn't."""
        for _ in range(deaths):
            death = Death(self.gremlin.chance.randrange(2, 80), self.gremlin.chance.random() < 0.5)
            life = asyncio.ensure_future(self.life(rows, death))
            struck = asyncio.ensure_future(death.struck.wait())
            await asyncio.wait({life, struck}, return_when=asyncio.FIRST_COMPLETED)
            for each in (life, struck):
                each.cancel()
            await asyncio.gather(life, struck, return_exceptions=True)
            self.clock.advance(2 * LEASE)
        return await self.life(rows, Death(0, False))


def rule(chance: random.Random) -> Callable[[dict[str, Any]], Any]:
    def reply(body: dict[str, Any]) -> Any:
        text: str = body["messages"][-1]["content"]
        number, said = int(text.rstrip("!").split()[1]), text.count("!")
        if number % RUDE == 7 and said == number % TURNS:
            return Failure(400, "Too rude.", code="content_filter")
        if chance.random() < 0.02:
            return Failure(chance.choice([429, 500, 503]))
        return f"{text}!"

    return reply


def needlessly_paid(sim: Simulator) -> Counter[str]:
    """By batch: lines paid once more though an answer to them stood in its files."""
    told: dict[str, set[str]] = {}
    for batch in sim.batches():
        content = sim.files.content(batch.output_file_id) if batch.output_file_id else b""
        told[batch.id] = set()
        for line in content.splitlines():
            with contextlib.suppress(msgspec.DecodeError):  # half a line
                told[batch.id].add(msgspec.json.decode(line)["custom_id"])
    paid: dict[str, list[str]] = {}
    for entry in sim.ledger.lines("batch"):
        if entry.paid:
            paid.setdefault(entry.custom_id or "", []).append(entry.batch or "")
    return Counter(batch for ident, batches in paid.items() for batch in batches[:-1] if ident in told[batch])


def sent_lines(sim: Simulator) -> Counter[str]:
    """By line: jobs that it was in, those that were rejected among them."""
    files = [sim.files.content(batch.input_file_id) for batch in sim.batches()]
    return Counter(msgspec.json.decode(line)["custom_id"] for file in files for line in file.splitlines())


def check(world: World, rows: int, results: dict[int, Any]) -> None:
    """Whatever went wrong: nothing lost, nothing swapped, nothing paid again that was there."""
    assert len(results) == rows
    unlucky, sent = 0, sent_lines(world.sim)
    for number, result in results.items():
        if number % RUDE == 7:
            assert isinstance(result, ModelFailed)
        elif isinstance(result, ModelFailed):
            unlucky += 1
            lines = [line_id(f"job/{number}", ("", turn)) for turn in range(TURNS)]
            assert max(sent[line] for line in lines) >= ATTEMPTS, "given up before it had to be"
        else:
            assert result == f"row {number}{'!' * TURNS}"
    assert unlucky < rows // 2, "so much went wrong that nothing is shown"
    paid = Counter(entry.custom_id for entry in world.sim.ledger.lines("batch") if entry.paid)
    assert max(paid.values()) <= ATTEMPTS
    assert all(len(jobs) == 1 for jobs in world.delivered.values()), "paid again though its answer was there"
    needless = needlessly_paid(world.sim)
    assert not needless, (needless, world.gremlin.done)
    assert len(world.gremlin.done) >= (8 if rows < 1000 else 14), "too little went wrong"
    assert not world.sim.ledger.lines("live")


@pytest.mark.parametrize(
    ("rows", "seed", "deaths"),
    [
        pytest.param(60, 1, 1, id="quick", marks=pytest.mark.slow),
        pytest.param(10_000, 2, 6, id="full", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
async def test_nothing_is_lost_or_paid_twice(rows: int, seed: int, deaths: int) -> None:
    clock, store = VirtualClock(), open_store("memory:")
    pace = Pace(validating=20.0, working=600.0, finalizing=20.0, cancelling=20.0)
    await store.open()
    async with Simulator(
        rule=rule(random.Random(seed)),
        clock=clock,
        pace=pace,
        window=timedelta(hours=1),
        limits=Limits(enqueued_tokens=rows * 5),
        concurrency=64,
        seed=seed,
    ) as sim:
        world = World(sim, store, clock, Gremlin(sim, seed, 0.15))
        try:
            results = await world.live(rows, deaths)
            check(world, rows, results)
            assert await store.lanes() == []
            known = {job.remote for job in await store.batch_jobs(open_only=False)}
            assert {batch.id for batch in sim.batches()} == known - {""}, (
                "a job that nobody knows of was paid"
            )
            counts = await store.line_counts()
            assert counts.keys() <= {"ok", "error", "expired", "missing", "cancelled"}
            assert sum(counts.values()) == len({entry.custom_id for entry in sim.ledger.lines("batch")})
        finally:
            await world.provider.close()
            await store.close()
