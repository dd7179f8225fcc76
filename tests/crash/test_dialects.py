"""Death at every call of a lane, in each provider's own protocol: the simulator's ledger shows each line paid once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.ports.provider import BatchProvider, CallFault, LineResult, RemoteJob
from segue.ports.store import Store
from segue.providers.anthropic import Anthropic
from segue.providers.anthropic_batches import labelled
from segue.providers.gemini import Gemini
from segue.providers.openai import OpenAI
from segue.runtime.lanes import delivery, ending, lane, lanes
from segue.stores import open_store
from segue.testing.simulator import Simulator
from segue.transports.pooled import Pooled
from tests.crash.remote import Death, FastClock, MortalStore

ROWS = [f"row {number}" for number in range(5)]
EXPECTED = [f"heard then heard {row}" for row in ROWS]
#: What a life calls, by how often death strikes there: at each call, or, where the machine's load says how many there
#: are, at the first few.
EACH = 40
STRIKES = {
    "take": EACH,
    "job_lines": EACH,
    "job_bodies": EACH,
    "upload": EACH,
    "submit": EACH,
    "results": EACH,
    "outcomes": EACH,
} | {
    "claim_lane": 2,
    "put_batch_job": 6,
    "poll": 3,
}
SPEAKS: dict[str, Callable[[Simulator], BatchProvider]] = {
    "openai": lambda sim: OpenAI(sim.base_url, "", Pooled()),
    "anthropic": lambda sim: Anthropic(sim.base_url, "", Pooled()),
    "gemini": lambda sim: Gemini(f"{sim.url}/v1beta", "", Pooled()),
}
each_dialect = pytest.mark.parametrize("dialect", SPEAKS)


@segue.flow(name="crash.dialects.twice")
async def twice(text: str) -> str:
    first = await segue.generate(text)
    return await segue.generate(f"then {first}")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "CHUNK", 3)
    monkeypatch.setattr(ending, "CHUNK", 3)
    monkeypatch.setattr(delivery, "CHUNK", 3)


def heard(body: dict[str, Any]) -> str:
    return f"heard {body['messages'][-1]['content']}"


class Mortal:
    """A provider as spoken to by a process that dies."""

    def __init__(self, inner: BatchProvider, death: Death) -> None:
        self._inner, self._death = inner, death

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("upload", "submit", "find", "poll"):
            return found

        async def watched(*args: Any, **named: Any) -> Any:
            return await self._call(name, lambda: found(*args, **named))

        return watched

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        async for result in self._inner.results(job):

            async def read(result: LineResult | str = result) -> LineResult | str:
                return result

            yield await self._call("results", read)

    async def _call(self, name: str, doing: Callable[[], Awaitable[Any]]) -> Any:
        return await self._death.call(name, doing, CallFault(0, "this process is dead", again=True))


async def one_life(store: Store, sim: Simulator, dialect: str, clock: FastClock, death: Death) -> list[str]:
    provider = SPEAKS[dialect](sim)
    engine = segue.Engine(
        MortalStore(store, death),  # type: ignore[arg-type]  # it passes on what it doesn't watch
        clock=clock,
        mode="batch",
        model="far:claude-or-gemini",
        providers={"far": lambda _: Mortal(provider, death)},  # type: ignore[dict-item,return-value]
    )
    try:
        async with engine:
            return await engine.map(twice, ROWS, id="job")
    finally:
        await provider.close()


async def cut_off(
    store: Store, sim: Simulator, dialect: str, clock: FastClock, death: Death
) -> list[str] | None:
    """A life that ends when death strikes; its results if it was spared."""
    life = asyncio.ensure_future(one_life(store, sim, dialect, clock, death))
    struck = asyncio.ensure_future(death.struck.wait())
    await asyncio.wait({life, struck}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    struck.cancel()
    if not death.struck.is_set():
        return await asyncio.wait_for(life, 1)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    return None


async def strike(dialect: str, at: int, after: bool, name: str = "") -> tuple[bool, str]:
    """Die at that call, then live on. Whether death struck, and where."""
    clock, death, store = FastClock(), Death(at, after, name), open_store("memory:")
    await store.open()
    async with Simulator(rule=heard, clock=clock, batch_time=timedelta(seconds=3)) as sim:
        try:
            first = await cut_off(store, sim, dialect, clock, death)
            clock.moved += 2 * lanes.LEASE
            spared = Death(0, False)
            results = await asyncio.wait_for(one_life(store, sim, dialect, clock, spared), 30)
            assert results == EXPECTED, death.where
            assert first is None or first == EXPECTED
            assert await store.lanes() == []
            assert await store.line_counts() == {"ok": 2 * len(ROWS)}
        finally:
            await store.close()
        paid = Counter(
            labelled(entry.custom_id or "")[0] for entry in sim.ledger.lines("batch") if entry.paid
        )
        assert set(paid.values()) == {1}, f"paid {paid} when it died {death.where}"
        assert len(paid) == 2 * len(ROWS)
        assert not sim.ledger.lines("live")
    return first is None, death.where


async def every(dialect: str, after: bool, name: str) -> int:
    """Die at every call of that name; how many there were."""
    for at in range(1, STRIKES[name] + 1):
        struck, where = await strike(dialect, at, after, name)
        if not struck:
            return at - 1
        assert where.split()[1] == name
    assert STRIKES[name] < EACH, "the work takes more calls than were tried"
    return STRIKES[name]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", STRIKES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@each_dialect
async def test_death_at_every_call(dialect: str, after: bool, name: str) -> None:
    assert await every(dialect, after, name) >= 1


@each_dialect
async def test_death_around_the_submission(dialect: str) -> None:
    """Before and after each call from the first line that is taken to the provider's job id."""
    seen: set[str] = set()
    for at in range(2, 9):
        for after in (False, True):
            seen.add((await strike(dialect, at, after))[1])
    assert {"before submit", "after submit", "before upload", "after upload"} <= seen
