"""Whatever the order in which runs reserve, pay, leave and get money: no overspending, no leak, nobody forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.model.budget import Account, Amount, Limit, Reservation, Settlement
from segue.model.run import ENDED, Spec
from segue.ports.store import NewRun, Store, Turn
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore

RUNS = [f"r{n}" for n in range(6)]
ACCOUNTS = (Account("job:j", Limit(100)), Account("run:r", Limit(70)), Account("store", Limit(150)))


class Market:
    """Runs that want room, at random. `above`: how much more than reserved calls may cost."""

    def __init__(self, store: Store, draw: random.Random, above: int) -> None:
        self.store, self.draw, self.above = store, draw, above
        self.fences: dict[str, int] = {}  # of runs at work
        self.open: dict[str, Reservation] = {}
        self.lacking: dict[str, dict[str, Reservation]] = {run: {} for run in RUNS}
        self.short: set[str] = set()  # calls there can't be room for
        self.spent: dict[str, int] = {}
        self.over = 0  # what calls did cost more than was reserved for them
        self.calls = 0

    async def begin(self) -> None:
        spec = Spec("flow", "f", b"[]")
        await self.store.create([NewRun(run, spec) for run in RUNS], now=0.0, worker="w", ttl=1e9)
        self.fences = dict.fromkeys(RUNS, 1)

    async def step(self) -> None:
        act = self.draw.choice([self.reserve] * 4 + [self.settle] * 3 + [self.leave, self.claim, self.fund])
        await act()
        await self.look()

    async def look(self) -> None:
        """Sums are those of what is open; limits hold but for what calls did cost above their reservation."""
        for one in await self.store.budgets():
            mine = [
                each for each in self.open.values() if one.id in {account.id for account in each.accounts}
            ]
            assert one.reserved.nanos == sum(each.amount.nanos for each in mine)
            assert one.spent.nanos == self.spent.get(one.id, 0)
            assert one.spent.nanos + one.reserved.nanos <= (one.limit.nanos or 0) + self.over

    async def reserve(self, run: str = "") -> None:
        if not self.fences:
            return
        run = run or self.draw.choice(list(self.fences))
        again = list(self.lacking[run].values())
        if again and self.draw.random() < 0.7:
            wanted = again
        else:
            self.calls += 1
            accounts = tuple(self.draw.sample(ACCOUNTS, self.draw.randint(1, 3)))
            wanted = [Reservation(f"{run}-{self.calls}", run, accounts, Amount(self.draw.randint(1, 60)))]
        for one, result in zip(wanted, await self.store.reserve(wanted, now=1.0), strict=True):
            if result == "reserved":
                self.open[one.id] = one
                self.lacking[run].pop(one.id, None)
            else:
                assert result in ("waits", "short")
                self.lacking[run][one.id] = one
                (self.short.add if result == "short" else self.short.discard)(one.id)

    async def settle(self, run: str = "") -> None:
        mine = [each for each in self.open.values() if each.run in self.fences and run in ("", each.run)]
        if not mine:
            return
        one = self.draw.choice(mine)
        cost = self.draw.randint(0, one.amount.nanos + self.above)
        turn = Turn(
            run=one.run, fence=self.fences[one.run], settled=[Settlement(one.id, Amount(cost))], now=1.0
        )
        assert await self.store.commit([turn]) == ["committed"]
        del self.open[one.id]
        self.over += max(0, cost - one.amount.nanos)
        for account in one.accounts:
            self.spent[account.id] = self.spent.get(account.id, 0) + cost

    async def leave(self, run: str = "", status: str = "") -> None:
        """What a run does that has nothing left to do, at times sooner."""
        if not self.fences:
            return
        run = run or self.draw.choice(list(self.fences))
        status = status or self.draw.choice(["parked", "parked", "held", "ready"])
        if status == "parked" and self.lacking[run].keys() & self.short:
            status = "held"  # as runs do
        wants = list(self.lacking[run]) if status in ("parked", "held") else []
        fence = self.fences.pop(run)
        await self.store.commit(
            [Turn(run=run, fence=fence, status=status, release=True, wants=wants, now=1.0)]  # type: ignore[arg-type]
        )
        self.open = {id: each for id, each in self.open.items() if each.run != run}

    async def claim(self) -> None:
        for got in await self.store.claim("w", self.draw.randint(1, 3), 1e9, now=2.0):
            self.fences[got.head.id] = got.head.fence

    async def fund(self) -> None:
        limit = Limit(self.draw.randint(50, 400))
        raising = True  # a lower limit may be below what is spent
        await self.store.fund(self.draw.choice(ACCOUNTS).id, limit, raising=raising, now=1.0)

    async def finish(self) -> None:
        """Let everybody who can go on do so, to the end: who is left is short of money, and says so."""
        for _ in range(1000):
            for run in list(self.fences):
                while any(each.run == run for each in self.open.values()):
                    await self.settle(run)
                if self.lacking[run]:
                    wanted = list(self.lacking[run].values())
                    results = await self.store.reserve(wanted, now=1.0)
                    for one, result in zip(wanted, results, strict=True):
                        if result == "reserved":
                            self.open[one.id] = self.lacking[run].pop(one.id)
                    if set(results) <= {"reserved"} or "reserved" in results:
                        continue
                    await self.leave(run, "held" if "short" in results else "parked")
                else:
                    await self.leave(run, "done")
                await self.look()
            await self.claim()
            if not self.fences and not any(head.status == "ready" for head in await self.store.runs()):
                break
        assert not self.open
        for head in await self.store.runs():
            assert head.status in (*ENDED, "held") or not self.lacking[head.id], (head.id, head.status)


@pytest.fixture(params=["memory", "sqlite"])
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(str(tmp_path / "runs.db"))
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("above", [0, 30])
async def test_random_interleavings(store: Store, above: int) -> None:
    market = Market(store, random.Random(above), above)
    await market.begin()
    for _ in range(400):
        await market.step()
    await market.finish()
    await store.fund("job:j", Limit(10**9), now=3.0)
    await store.fund("run:r", Limit(10**9), now=3.0)
    await store.fund("store", Limit(10**9), now=3.0)
    await market.finish()
    assert not any(market.lacking[head.id] for head in await store.runs() if head.status == "held")


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 60), above=st.sampled_from([0, 5, 50]))
def test_many_of_them(seed: int, steps: int, above: int) -> None:
    async def play() -> None:
        memory = MemoryStore()
        await memory.open()
        market = Market(memory, random.Random(seed), above)
        await market.begin()
        for _ in range(steps):
            await market.step()
        await market.finish()

    asyncio.run(play())
