"""The first test of the core: random programs, killed and parked at random, replay to the same end.

No step that was committed runs again, no false alarm, no two lives that see different outcomes at one
place, no step that begins before all is durable that its run's code has had in this life; and a clock
smuggled into arguments is caught whenever it was recorded.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

import segue
from segue.authoring.context import find_branch
from segue.core import journal
from segue.model.entry import decode_entries
from segue.ports.store import CommitResult, Landed, Store, Turn
from segue.runtime.ground.clock import SystemClock
from segue.stores.memory import MemoryStore
from segue.testing.crash import Mortal
from tests.runtime import programs
from tests.runtime.delayed import Delayed
from tests.runtime.lives import watched_rest


class World:
    """What one program does to the world, over all its lives."""

    def __init__(self, seed: int, *, strikes: bool = False) -> None:
        self.seed, self.chance = seed, random.Random(seed * 7 + 1)
        self.program = programs.make(random.Random(seed), strikes=strikes)
        self.executed: list[str] = []  # places, in this life
        self.smuggled: set[str] = set()  # places whose arguments had a clock in them, in this life
        self.seen: dict[str, Any] = {}
        self.had: dict[str, set[str]] = {}  # by run: the places whose outcomes its code has had in this life
        self.durable: set[str] | None = None  # places of which the store has said so, if it takes its time
        self.clock_at: int | None = None
        self.calls = 0

        @segue.step(name="work")
        async def work(name: str, args: list[int], place: str) -> int:
            had = self.had.get(place.split()[0], set())
            assert self.durable is None or had <= self.durable, (
                f"{place} began before {had - self.durable} stood"
            )
            for _ in range(self.chance.choice([0, 0, 1, 2, 5])):
                await asyncio.sleep(0)
            self.executed.append(place)
            for _ in range(self.chance.choice([0, 1, 3])):
                await asyncio.sleep(0)
            return self.chance.randint(0, 6)

        @segue.flow(name="program.child", version="1")
        async def child(v: int) -> int:
            return await self.inside("in", v) + await self.inside("out", v)

        self.work, self.flow = work, child

    async def run(self, ops: list[programs.Op], shared: list[int] | None) -> int:
        """Interpret a program."""
        return await programs.run(self, ops, shared)

    async def step(self, name: str, *args: int) -> int:
        branch = find_branch()
        assert branch is not None
        place = f"{branch.run.id} {branch.path}#{branch.n}"
        self.calls += 1
        if self.calls == self.clock_at:
            args = (*args, self.chance.randint(10, 10**6))
            self.smuggled.add(place)
        value = await self.work(name, list(args), place)
        self.had.setdefault(branch.run.id, set()).add(place)
        if self.seen.setdefault(place, value) != value:
            raise AssertionError(f"{place} gave {self.seen[place]} once and {value} now")
        return value

    async def inside(self, name: str, v: int) -> int:
        """A step of a child, into which no clock is smuggled: its parent would wait for it for ever."""
        branch = find_branch()
        assert branch is not None
        place = f"{branch.run.id} {branch.path}#{branch.n}"
        value = await self.work(name, [v], place)
        self.had.setdefault(branch.run.id, set()).add(place)
        return value

    async def ask(self, v: int) -> int:
        return await segue.ask(f"say {v}", returns=int)

    async def tell(self, v: int) -> None:
        branch = find_branch()
        assert branch is not None
        await segue.tell(branch.run.id, v)

    async def child(self, v: int) -> int:
        if v % 2:
            return (await segue.map(self.flow, [v]))[0]
        return await (await segue.spawn(self.flow(v)))


class Acknowledging(Delayed):
    """A store that takes its time, and keeps what it has said to be durable."""

    def __init__(self, inner: Store, delay: Callable[[], float]) -> None:
        super().__init__(inner, delay)
        self.durable: set[str] = set()  # places

    def land(self, turn: Turn, then: Landed) -> None:
        """As the store's, as late."""
        super().land(turn, self._noting(turn.run, turn.entries, then))

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        """As the store's, as late."""
        return super().append(run, fence, entries, self._noting(run, entries, then))

    def _noting(self, run: str, entries: bytes | None, then: Landed) -> Landed:
        def told(result: CommitResult | BaseException) -> None:
            if result in ("committed", "ready") and entries is not None:
                self.durable |= {f"{run} {entry.path}#{entry.n}" for entry in decode_entries(entries)}
            then(result)

        return told


async def live(world: World, store: Store, shared: bool, life: int, die_at: int | None) -> tuple[str, Any]:
    """One life of the process: until the run ended, or the kill."""

    @segue.flow(name="program", version="1")
    async def program() -> int:
        return await world.run(world.program, [] if shared else None)

    world.calls = 0
    world.smuggled.clear()
    mortal = Mortal(store, die_at, after=bool(life % 2))
    killed = asyncio.get_running_loop().create_future()
    mortal.died = lambda: killed.done() or killed.set_result(None)
    async with segue.Engine(mortal, linger=0.05, clock=Later(life)) as engine:
        if (world.seed + life // 2) % 2:
            waiting = asyncio.ensure_future(engine.start(program(), id="it"))
        else:  # nobody watches it, and it begins where it is asked for
            waiting = asyncio.ensure_future(engine.run(program(), id="it"))
        await asyncio.sleep(0)
        run = await engine.get("it")
        answering = asyncio.ensure_future(answer(engine))
        ending = asyncio.ensure_future(engine.wait("it"))
        await asyncio.wait({ending, killed, answering}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        if not killed.done():
            head = ending.result()
            return ("held", head.reason) if head.status == "held" else ("done", run.result_of(head))
        ending.cancel()
    await asyncio.gather(answering, ending, waiting, return_exceptions=True)
    return "killed", None


async def recorded(store: Store) -> set[str]:
    """Places of steps with an outcome in a journal."""
    places: set[str] = set()
    for head in await store.runs():
        loaded = await store.load(head.id)
        entries = journal.read(loaded.journal) if loaded is not None else []
        places |= {f"{head.id} {entry.path}#{entry.n}" for entry in entries if entry.kind == "step"}
    return places


class Later(SystemClock):
    """Each life begins long after the one before: its leases have lapsed."""

    def __init__(self, life: int) -> None:
        self.ahead = life * 1000.0

    def now(self) -> float:
        return super().now() + self.ahead

    def steady(self) -> float:
        return self.now()


async def answer(engine: segue.Engine) -> None:
    async for question in engine.asks():
        await question.answer(int(question.question.split()[1]) % 5)


async def trial(
    seed: int, *, shared: bool, clock_at: int | None = None, slow: bool = False, strikes: bool = False
) -> tuple[str, int]:
    """`slow`: commits take their time. `strikes`: asyncio's own timeouts strike."""
    world = World(seed, strikes=strikes)
    delays = random.Random(seed + 11)
    store: Any = MemoryStore()
    if slow:
        store = Acknowledging(store, lambda: delays.choice([0.0, 0.001, 0.002, 0.006]))
        world.durable = store.durable
    world.clock_at = clock_at
    r = random.Random(seed + 5)
    for life in range(200):
        before = await recorded(store)
        world.executed.clear()
        world.had.clear()
        if world.durable is not None:
            world.durable |= before
        world.seen = {place: value for place, value in world.seen.items() if place in before}
        with watched_rest(few=(0, 1, 8)[seed % 3]):
            state, result = await live(world, store, shared, life, r.randint(1, 4) if life < 12 else None)
        assert not before & set(world.executed), "a step that was committed ran again"
        if state == "done":
            assert not before & world.smuggled, "a clock in recorded arguments went unseen"
        if state != "killed":
            return (state if state == "done" else f"held: {result}"), life + 1
    raise AssertionError("it never ends")


@pytest.mark.parametrize("block", range(8))
@pytest.mark.parametrize("shared", [False, True])
async def test_random_programs_replay(block: int, shared: bool) -> None:
    lives = 0
    for seed in range(block * 25, block * 25 + 25):
        state, count = await trial(seed, shared=shared)
        assert state == "done", (seed, state)
        lives += count
    assert lives > 120


@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("shared", [False, True])
async def test_random_programs_replay_from_a_store_that_takes_its_time(block: int, shared: bool) -> None:
    for seed in range(20_000 + block * 10, 20_010 + block * 10):
        state, _ = await trial(seed, shared=shared, slow=True)
        assert state == "done", (seed, state)


@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("slow", [False, True])
async def test_random_programs_replay_where_timeouts_strike(block: int, slow: bool) -> None:
    for seed in range(30_000 + block * 10, 30_010 + block * 10):
        state, _ = await trial(seed, shared=bool(seed % 2), slow=slow, strikes=True)
        assert state == "done", (seed, state)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_smuggled_clock_is_caught(at: int) -> None:
    states = [(await trial(9000 + seed, shared=False, clock_at=at))[0] for seed in range(20)]
    assert any("held" in state for state in states)
