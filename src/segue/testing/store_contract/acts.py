"""What the tests of the contract do to a store, with what a test doesn't care about filled in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ...model.entry import Entry, Pool
from ...model.lane import BatchJob, Line
from ...model.message import Mail, Question
from ...model.run import CallRef, Spec, Status
from ...ports.store import Claimed, CommitResult, Landed, NewRun, Store, Turn

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


def pool(value: bytes, kind: str = "step") -> Pool:
    """What a rebased run may take over: a call that gave that value."""
    return Pool([Entry("", 0, kind, "f", b"digest", b"[[],{}]", 0, 1, value)])


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


async def land(store: Store, turns: Sequence[Turn]) -> list[CommitResult | BaseException]:
    """Turns landed together, each by itself; what came of each."""
    return await _all_landed(partial(store.land, turn) for turn in turns)


async def append(store: Store, rows: Sequence[tuple[str, int, bytes]]) -> list[CommitResult | BaseException]:
    """Rows appended together; what came of each."""

    def put(row: tuple[str, int, bytes], then: Landed) -> CommitResult | None:
        return "committed" if store.append(*row, then) else None

    return await _all_landed(partial(put, row) for row in rows)


async def _all_landed(
    puts: Iterable[Callable[[Landed], CommitResult | None]],
) -> list[CommitResult | BaseException]:
    landed: list[asyncio.Future[CommitResult | BaseException]] = []
    for put in puts:
        future = asyncio.get_running_loop().create_future()
        if (result := put(future.set_result)) is not None:
            future.set_result(result)
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


async def newest(store: Store, **which: Any) -> str:
    """The ids of runs as `Store.newest` lists them."""
    heads, _ = await store.newest(**which)
    return " ".join([head.id for head in heads])


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
