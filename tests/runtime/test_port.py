"""Requests from outside: answered at a port of the process, carried out once whatever becomes of the caller."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

import segue
from segue.model.errors import MailboxFull, RunEnded, StoreError
from segue.model.message import PORT, Letter
from segue.stores import open_store
from segue.stores.memory import MemoryStore

HANDLED: list[int] = []


class Weigh(segue.Request[int]):
    n: int


class Finish(segue.Note): ...


class Scale(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def weigh(self, m: Weigh) -> int:
        HANDLED.append(m.n)
        if m.n < 0:
            raise ValueError(f"{m.n} is no weight")
        if m.n == 7:
            await segue.sleep(timedelta(seconds=0.3))
        self.total += m.n
        return self.total

    @segue.on
    async def finish(self, _: Finish) -> segue.Done[None]:
        return segue.Done(None)


class Narrow(Scale):
    mailbox = segue.Mailbox(1, full="fail")


@pytest.fixture(params=["memory", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    HANDLED.clear()
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/runs.db"


async def test_a_request_makes_no_run_and_leaves_nothing(address: str) -> None:
    async with segue.Engine(address) as engine:
        scale = await engine.start(Scale(), id="scale")
        assert [await scale.request(Weigh(1)) for _ in range(3)] == [1, 2, 3]
        assert await asyncio.gather(*(scale.request(Weigh(1)) for _ in range(300))) == [*range(4, 304)]
        assert [head.id for head in await engine.store.runs()] == ["scale"]
        left = 303
        while left:  # read ones are forgotten some time later
            left = len((await engine.store.letters({engine.port.address: 0})).get(engine.port.address, ()))
            await asyncio.sleep(0.01)


async def test_errors(address: str) -> None:
    async with segue.Engine(address) as engine:
        scale = await engine.start(Scale(), id="scale")
        with pytest.raises(ValueError, match="-1 is no weight"):
            await scale.request(Weigh(-1))
        await scale.tell(Finish())
        await scale
        with pytest.raises(RunEnded):
            await scale.request(Weigh(1))
        narrow = await engine.start(Narrow(), id="narrow")
        first = asyncio.ensure_future(narrow.request(Weigh(7)))
        while not HANDLED or HANDLED[-1] != 7:
            await asyncio.sleep(0.001)
        with pytest.raises(MailboxFull):
            await narrow.request(Weigh(1))
        assert await first == 7


async def test_a_late_answer_is_nobodys(address: str) -> None:
    async with segue.Engine(address) as engine:
        scale = await engine.start(Scale(), id="scale")
        with pytest.raises(TimeoutError, match="request Weigh"):
            await scale.request(Weigh(7), timeout=timedelta(milliseconds=1))
        assert await scale.request(Weigh(1)) == 8


async def test_the_death_of_the_caller_loses_the_answer_alone() -> None:
    HANDLED.clear()
    store = MemoryStore()
    async with segue.Engine(store) as first:
        scale = await first.start(Scale(), id="scale")
        await scale.request(Weigh(1))
        name = first.worker.name
        asking = asyncio.ensure_future(scale.request(Weigh(7)))
        while HANDLED != [1, 7]:
            await asyncio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with segue.Engine(store) as second:
        scale = await second.get("scale")  # type: ignore[assignment]  # by its id
        assert await scale.request(Weigh(2)) == 10
        while name in await store.workers():  # the answer to the dead one is dropped
            await asyncio.sleep(0.01)
        assert await store.letters({PORT + name: 0}) == {}
    assert HANDLED[0] == 1
    assert HANDLED.count(2) == 1


async def test_between_processes(tmp_path: Path) -> None:
    HANDLED.clear()
    path = f"sqlite:{tmp_path}/runs.db"
    async with (
        segue.Engine(open_store(path)) as worker,
        segue.Engine(open_store(path), worker=False) as client,
    ):
        await worker.start(Scale(), id="scale")
        scale = await client.get("scale")
        assert await scale.request(Weigh(3)) == 3


def failing_reads(times: int, store: segue.ports.store.Store) -> Callable[[], int]:
    """So many times what came to the process can't be read; how often that happened."""
    whole, failed = store.letters, 0

    def letters(after: Mapping[str, int]) -> Future[dict[str, list[Letter]]]:
        nonlocal failed
        if failed == times or not any(address.startswith(PORT) for address in after):
            return whole(after)
        failed += 1
        found: Future[dict[str, list[Letter]]] = asyncio.get_running_loop().create_future()
        found.set_exception(StoreError("here", "the disk reports an error", "check it"))
        return found

    store.letters = letters  # type: ignore[method-assign]
    return lambda: failed


@pytest.mark.parametrize("times", [1, 3])
async def test_a_read_that_fails_fails_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    """Its handler has done its work, and would do it twice for who asks again."""
    monkeypatch.setattr("segue.runtime.mail.port.POLL", 0.02)
    HANDLED.clear()
    path = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(path) as worker, segue.Engine(path, worker=False) as client:
        await worker.start(Scale(), id="scale")
        scale = await client.get("scale")
        failed = failing_reads(times, client.store)
        assert await asyncio.gather(*(scale.request(Weigh(7)) for _ in range(2))) == [7, 14]
        assert failed() == times
    assert HANDLED == [7, 7]
    (said,) = [one.getMessage() for one in caplog.records]
    assert said.endswith("the disk reports an error; check it")


async def test_reads_that_go_on_failing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.mail.port.POLL", 0.01)
    path = f"sqlite:{tmp_path}/runs.db"
    async with segue.Engine(path) as worker, segue.Engine(path, worker=False) as client:
        await worker.start(Scale(), id="scale")
        scale = await client.get("scale")
        whole = client.store.letters
        failing_reads(-1, client.store)
        with pytest.raises(StoreError, match="the disk reports an error"):
            await asyncio.wait_for(scale.request(Weigh(1)), 20)
        client.store.letters = whole  # type: ignore[method-assign]
        await asyncio.sleep(0.1)
        assert await asyncio.wait_for(scale.request(Weigh(7)), 20) == 8


async def test_a_claim_that_fails_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.mail.port.POLL", 0.2)
    async with segue.Engine() as engine:
        scale = await engine.start(Scale(), id="scale")
        whole = engine.store.claim

        async def failing(*_: object, **__: object) -> list[object]:
            engine.store.claim = whole  # type: ignore[method-assign]
            raise StoreError("here", "the disk reports an error", "check it")

        engine.store.claim = failing  # type: ignore[assignment]
        engine.worker.wake()
        assert await scale.request(Weigh(7)) == 7
        assert engine.store.claim == whole


async def test_claims_that_go_on_failing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.mail.port.POLL", 0.01)
    async with segue.Engine() as engine:
        scale = await engine.start(Scale(), id="scale")

        async def failing(*_: object, **__: object) -> list[object]:
            raise StoreError("here", "the disk reports an error", "check it")

        monkeypatch.setattr(engine.store, "claim", failing)
        engine.worker.wake()
        with pytest.raises(StoreError, match="the disk reports an error"):
            await asyncio.wait_for(scale.request(Weigh(7)), 20)
