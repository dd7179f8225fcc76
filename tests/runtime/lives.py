"""A desk for tests of runs: one store, one fake model, and as many lives of an engine as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from segue.core import journal
from segue.model.entry import Entry
from segue.model.run import Head
from segue.ports.store import Store
from segue.runtime.ground import tasks
from segue.runtime.wake import rebase, stillness
from segue.runtime.wake.executor import Executor
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.crash import Mortal
from segue.testing.fake_model import FakeEngine

Call = Callable[[], Coroutine[Any, Any, Any]]


class Desk:
    """Where runs outlive engines. `options` hold for every engine; time is virtual."""

    def __init__(self, store: Store | None = None, **options: Any) -> None:
        self.store = store or MemoryStore()
        self.fake = FakeModel()
        self.options: dict[str, Any] = {"linger": 0.02, **options}
        self.killed: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def engine(
        self, die_at: int | None = None, *, after: bool = False, **options: Any
    ) -> AsyncIterator[FakeEngine]:
        """One life; it dies at a commit, if told so. The next one begins long after."""
        mortal = Mortal(self.store, die_at, after=after)
        killed = self.killed = asyncio.get_running_loop().create_future()
        mortal.died = lambda: killed.done() or killed.set_result(None)
        async with FakeEngine(self.fake, mortal, **{**self.options, **options}) as engine:
            answering = asyncio.create_task(self.fake.keep_answering(engine))
            try:
                yield engine
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
        self.fake.clock.advance(1000)

    async def run(self, call: Coroutine[Any, Any, Any], *, id: str = "it", **how: Any) -> Any:
        """A run's result, in a life of its own."""
        async with self.engine() as engine:
            return await self.fake.or_unexpected(engine.run(call, id=id, **how))

    async def life(
        self, make: Call, die_at: int | None, *, after: bool = False, id: str = "it", **how: Any
    ) -> Head | None:
        """A life that may be cut off: the run's record if it ended in it."""
        async with self.engine(die_at, after=after) as engine:
            assert self.killed is not None
            if (die_at or 0) % 2:  # nobody watches it, and it begins where it is asked for
                await asyncio.wait([asyncio.ensure_future(engine.run(make(), id=id, **how))], timeout=0)
            else:
                await engine.start(make(), id=id, **how)
            ending = asyncio.ensure_future(self.fake.or_unexpected(engine.wait(id)))
            await asyncio.wait({ending, self.killed}, return_when=asyncio.FIRST_COMPLETED)
            if not self.killed.done():
                return ending.result()
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        return None

    async def head(self, id: str = "it") -> Head:
        """A run's record."""
        head = await self.store.get(id)
        assert head is not None
        return head

    async def entries(self, id: str = "it") -> list[Entry]:
        """A run's calls."""
        return await rebase.entries_of(self.store, id)

    async def calls(self, id: str = "it") -> list[str]:
        """A run's calls as `path#n kind name`, in order of place."""
        found = sorted(await self.entries(id), key=lambda entry: (entry.path, entry.n))
        return [f"{entry.path}#{entry.n} {entry.kind} {entry.name}" for entry in found]

    async def parked(self, id: str = "it") -> Head:
        """Its record as soon as it is parked."""
        return await self.until(id, "parked")

    async def until(self, id: str, *status: str) -> Head:
        """Its record as soon as it has one of these states."""
        for _ in range(5000):
            head = await self.store.get(id)
            if head is not None and head.status in status:
                return head
            await asyncio.sleep(0.001)
        raise AssertionError(f"run {id} never was {status}, it is {head and head.status}")


async def until(found: Callable[[], Any], within: float = 5.0) -> Any:
    """What is found, as soon as it is anything, and within so many seconds."""
    async with asyncio.timeout(within):
        while not (what := found()):
            await asyncio.sleep(0.001)
    return what


async def everywhere(
    make: Call, set_up: Callable[[Desk], object], check: Callable[[Desk, Head], object], **how: Any
) -> int:
    """Run a flow once undisturbed, then killed at every commit, before it is written and after; how many lives."""
    lives = 0
    for after in (False, True):
        for die_at in range(1, 60):
            desk = Desk()
            set_up(desk)
            head = await desk.life(make, die_at, after=after, **how)
            lives += 1
            whole = head is not None
            while head is None:
                head = await desk.life(make, None, **how)
                lives += 1
            check(desk, head)
            if whole:
                break
        else:
            raise AssertionError("it commits for ever")
    return lives


@contextmanager
def watched_rest(few: int = stillness.FEW) -> Iterator[None]:
    """What looks at runs' tasks find is compared with a look at all of them; `few` is their `FEW`."""
    turn, committed = Executor._turn, Executor.committed

    wrong: list[str] = []

    def at_rest(run: Executor) -> None:
        if moving := _moving(run):
            wrong.append(f"at rest, but for {moving}")
        turn(run)

    def compared(then: Callable[[Executor], None]) -> Callable[[Executor], None]:
        def landed(run: Executor) -> None:
            if not run.leaving and run.still.is_busy() != bool(moving := _moving(run)):
                wrong.append(f"committed, and these move: {moving}")
            then(run)

        return landed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Executor, "_turn", at_rest)
        patch.setattr(Executor, "committed", compared(committed))
        patch.setattr(stillness, "FEW", few)
        yield
    assert not wrong, wrong[:3]


def _moving(run: Executor) -> list[asyncio.Task[Any]]:
    """The tasks of a run that run or are about to."""
    waits = {task: tasks.waiter(task) for task in run.tasks if task is not run.still.busy_by_itself}
    return [task for task, at in waits.items() if not task.done() and (at is None or at.done())]


def rows(entries: list[Entry]) -> list[tuple[Any, ...]]:
    """A journal without what may differ between two runs of the same: times, batches, how model calls went out."""
    return sorted((e.path, e.n, e.kind, e.name, e.args, e.error) for e in entries)


__all__ = ["Desk", "everywhere", "journal", "rows", "until", "watched_rest"]
