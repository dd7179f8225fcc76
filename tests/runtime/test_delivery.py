"""Outcomes on their way to the store: in order, few at a time, and none lost where something breaks off."""

from __future__ import annotations

import asyncio

import pytest

from segue.model.errors import StoreError
from segue.model.lane import LineOutcome
from segue.ports.provider import CallFault
from segue.runtime.lanes import delivery
from segue.runtime.lanes.delivery import Delivery


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "CHUNK", 2)


class Storage:
    """Takes chunks, one at a time, each when it is told to; or fails."""

    def __init__(self, *, fails: int = 0) -> None:
        self.begun: list[list[str]] = []
        self.ended: list[list[str]] = []
        self.go = asyncio.Event()
        self._turn = asyncio.Lock()
        self._fails = fails

    async def put(self, chunk: list[LineOutcome]) -> list[str] | None:
        ids = [outcome.id for outcome in chunk]
        self.begun.append(ids)
        async with self._turn:
            await self.go.wait()
            if len(self.begun) >= self._fails > 0:
                raise StoreError("test", "it is full", "make room")
            self.ended.append(ids)
        return [id for id in ids if id.startswith("?")]


async def deliver(storage: Storage, *ids: str, fault: BaseException | None = None) -> Delivery:
    async with Delivery(storage.put) as outcomes:
        for id in ids:
            if outcomes.add(LineOutcome(id, "ok", b"1")):
                await outcomes.send()
        if fault is not None:
            raise fault
    return outcomes


async def test_all_are_stored_in_order_and_strange_ones_known() -> None:
    storage = Storage()
    storage.go.set()
    outcomes = await deliver(storage, "a", "?b", "c", "?d", "?d")
    assert storage.ended == [["a", "?b"], ["c", "?d"], ["?d"]]
    assert outcomes.strange == ["?b", "?d", "?d"]


async def test_reading_goes_on_while_a_few_chunks_are_written() -> None:
    storage = Storage()
    work = asyncio.ensure_future(deliver(storage, *"abcdefghij"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert storage.begun == [["a", "b"], ["c", "d"], ["e", "f"]]
    storage.go.set()
    await work
    assert len(storage.ended) == 5


async def test_a_few_large_answers_are_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "CHUNK", 1000)
    monkeypatch.setattr(delivery, "_BYTES", 10)
    outcomes = Delivery(Storage().put)
    assert not outcomes.add(LineOutcome("a", "ok", b"x" * 9))
    assert outcomes.add(LineOutcome("b", "ok", b"x"))


async def test_what_came_before_a_download_broke_is_stored() -> None:
    storage = Storage()
    storage.go.set()
    with pytest.raises(CallFault):
        await deliver(storage, "a", "b", "c", fault=CallFault(0, "lost", again=True))
    assert storage.ended == [["a", "b"], ["c"]]


async def test_a_store_that_fails_is_heard_and_ends_it() -> None:
    storage = Storage(fails=2)
    storage.go.set()
    with pytest.raises(StoreError):
        await deliver(storage, *"abcdefghij")
    assert storage.ended == [["a", "b"]]
    assert len(storage.begun) < 5


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    storage = Storage()
    work = asyncio.ensure_future(deliver(storage, *"abcdefghij"))
    await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert len(asyncio.all_tasks()) == 1
    assert storage.ended == []
