"""A process that dies at any write or call of requests that are the same: each is paid once all the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.ports.store import Store
from segue.runtime.lanes import delivery, ending, lane, lanes
from segue.runtime.receipt import total
from segue.stores import open_store
from segue.testing.crash import Mortal
from tests.crash.remote import Death, Far, FastClock, MortalFar, MortalStore, Remote, answer

PROMPTS = 2
ROWS = [f"row {number % PROMPTS}" for number in range(7)]
EXPECTED = [f"heard then heard {row}" for row in ROWS]
#: Distinct requests: each prompt, and what follows from each answer.
DISTINCT = 2 * PROMPTS
MOST = 80


@segue.flow(name="crash.same")
async def same(text: str) -> str:
    first = await segue.generate(text)
    return await segue.generate(f"then {first}")


class Counted(Far):
    """Keeps account of live calls, which take a moment."""

    def __init__(self, remote: Remote, live: Counter[bytes]) -> None:
        super().__init__(remote)
        self.live = live

    async def send(
        self, endpoint: str, body: bytes, on_text: Callable[[str], None] | None, on_rates: Any = None
    ) -> bytes:
        self.live[body] += 1
        await asyncio.sleep(0.002)
        return answer(body)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (lane, ending, delivery):
        monkeypatch.setattr(room, "CHUNK", 3)


def engine_of(store: Any, provider: Far, clock: FastClock, mode: str) -> segue.Engine:
    return segue.Engine(
        store, clock=clock, mode=mode, model="far:m", providers={"far": lambda _: provider}, reuse=True
    )


async def one_life(store: Any, provider: Far, clock: FastClock, mode: str) -> list[str]:
    async with engine_of(store, provider, clock, mode) as engine:
        return await engine.map(same, ROWS, id="job")


async def until(struck: asyncio.Event, life: Any) -> list[str] | None:
    """A life's results, if death doesn't strike."""
    living, death = asyncio.ensure_future(life), asyncio.ensure_future(struck.wait())
    await asyncio.wait({living, death}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    death.cancel()
    if not struck.is_set():
        return await asyncio.wait_for(living, 1)
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    return None


async def accounts(store: Store) -> Counter[str]:
    """Calls by lane, of all runs."""
    uses = total(use for head in (await store.newest(job="job"))[0] for use in head.usage)
    return Counter({use.lane: use.calls for use in uses})


async def killed_in_batch(store: Store, at: int, after: bool) -> bool:
    clock = FastClock()
    remote, death = Remote(clock), Death(at, after)
    await store.open()
    try:
        mortal = MortalStore(store, death)
        first = await until(death.struck, one_life(mortal, MortalFar(remote, death), clock, "batch"))
        clock.moved += 2 * lanes.LEASE
        whole = MortalStore(store, Death(0, False))
        assert await asyncio.wait_for(one_life(whole, Far(remote), clock, "batch"), 30) == EXPECTED, (
            death.where
        )
        assert first in (None, EXPECTED)
        assert await store.lanes() == []
        assert await store.line_counts() == {"ok": 2 * len(ROWS)}
        assert list(remote.paid.values()) == [1] * DISTINCT, death.where
        assert await accounts(store) == {"batch": DISTINCT, "reused": 2 * len(ROWS) - DISTINCT}
    finally:
        await store.close()
    return first is None


async def killed_at_a_write(store: Store, at: int, after: bool, mode: str) -> tuple[bool, Counter[bytes]]:
    clock = FastClock()
    remote, live = Remote(clock), Counter[bytes]()
    struck = asyncio.Event()
    await store.open()
    try:
        mortal = Mortal(store, at, after=after, every=True)
        mortal.died = struck.set
        first = await until(struck, one_life(mortal, Counted(remote, live), clock, mode))
        clock.moved += 2 * lanes.LEASE
        last = Mortal(store, None)
        last.commits = 1  # it is open
        assert await asyncio.wait_for(one_life(last, Counted(remote, live), clock, mode), 30) == EXPECTED
        counted = await accounts(store)
        assert counted.total() == 2 * len(ROWS)
        if mode == "batch":
            assert list(remote.paid.values()) == [1] * DISTINCT
            assert counted["batch"] == DISTINCT
        else:
            assert len(live) == DISTINCT
            assert set(live.values()) <= {1, 2}  # those under way when it died
            assert counted["live"] == DISTINCT
    finally:
        await store.close()
    return first is None, live


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_death_at_every_call_of_a_lane(tmp_path: Path, kind: str, after: bool) -> None:
    for at in range(1, MOST):
        address = "memory:" if kind == "memory" else f"sqlite:{tmp_path / str(at)}.db"
        if not await killed_in_batch(open_store(address), at, after):
            assert at > 15
            return
    raise AssertionError("the work takes more calls than were tried")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_death_at_every_write(after: bool, mode: str) -> None:
    twice = 0
    for at in range(1, MOST):
        struck, live = await killed_at_a_write(open_store("memory:"), at, after, mode)
        twice += live.total() - len(live)
        if not struck:
            assert at > 15
            assert (twice > 0) == (mode == "live")
            assert not live or set(live.values()) == {1}
            return
    raise AssertionError("the work takes more writes than were tried")
