"""What reaches a run while it leaves memory isn't lost, nor does it leave twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import segue
from segue.ports.store import Turn
from segue.testing import FakeModel
from segue.testing.crash import Survivor
from tests.runtime.world import World


@segue.flow
async def bare_leaf(name: str) -> str:
    return name.upper()


@segue.flow
async def tree(count: int) -> list[str]:
    return await segue.map(bare_leaf, [f"leaf {i}" for i in range(count)])


async def test_children_that_end_while_their_parent_parks() -> None:
    async with FakeModel():
        for count in range(1, 6):
            assert await tree(count) == [f"LEAF {i}" for i in range(count)]


async def test_a_run_that_ended_elsewhere_leaves_once_however_many_of_its_calls_hear_of_it(
    tmp_path: Path,
) -> None:
    store, world, problems = Survivor(), World(tmp_path), list[object]()

    @segue.flow
    async def late() -> list[str]:
        store.lapse()
        (claimed,) = await store.claim("another", 1, 60.0, now=world.clock.now())
        head = claimed.head
        turn = Turn(run=head.id, fence=head.fence, status="done", release=True, value=b'["from there"]')
        assert await store.commit([turn]) == ["committed"]
        return list(await asyncio.gather(*[segue.generate(f"row {number}") for number in range(3)]))

    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    await world.simulator()
    async with world.engine(store, mode="live", budget=segue.Budget(tokens=1_000_000)) as engine:  # type: ignore[arg-type]
        assert await engine.run(late()) == ["from there"]
    await world.sim.close()
    assert problems == []


class Hello(segue.Request[str]): ...


class Greeter(segue.Actor[None]):
    @segue.on
    async def hello(self, _: Hello) -> str:
        return "hello"


def test_a_loop_ends_though_its_engine_was_left_open() -> None:
    async def main() -> str:
        engine = segue.Engine("memory:")
        await engine.__aenter__()
        greeter = await engine.start(Greeter(), id="greeter")
        return await greeter.request(Hello())

    assert asyncio.run(main()) == "hello"


async def test_a_run_whose_claim_was_lost_for_a_while_is_here_once(tmp_path: Path) -> None:
    store, world = Survivor(), World(tmp_path)
    begun, ended = list[int](), list[str]()

    @segue.step
    async def slow() -> str:
        begun.append(len(begun))
        try:
            await asyncio.sleep(0.2 if len(begun) > 1 else 3600)
        except asyncio.CancelledError:
            ended.append("cut off")
            raise
        return "done"

    @segue.flow
    async def waits() -> str:
        return await slow()

    async with world.engine(store) as engine:  # type: ignore[arg-type]
        run = await engine.start(waits(), id="it")
        while not begun:
            await asyncio.sleep(0.001)
        store.lapse()  # nothing was renewed for long: another worker had it, and died
        (claimed,) = await store.claim("another", 1, 60.0, now=world.clock.now())
        assert claimed.head.id == "it"
        await store.bury(["another"])
        engine.worker.wake()
        while len(begun) < 2:
            await asyncio.sleep(0.001)
        engine.worker._lose("it", fence=1)  # a renewal that comes back late says nothing of a newer claim
        assert await asyncio.wait_for(run, 5) == "done"
        assert (len(begun), ended) == (2, ["cut off"])


async def test_a_run_that_another_worker_has_is_given_up_when_its_claim_is_to_be_renewed(
    tmp_path: Path,
) -> None:
    store, world = Survivor(), World(tmp_path)
    begun, cut = asyncio.Event(), asyncio.Event()

    @segue.step
    async def endless() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cut.set()

    @segue.flow
    async def stays() -> None:
        await endless()

    async with world.engine(store) as engine:  # type: ignore[arg-type]
        await engine.start(stays(), id="it")
        await begun.wait()
        store.lapse()
        assert await store.claim("another", 1, 60.0, now=world.clock.now())
        await engine.worker._renew()
        await asyncio.wait_for(cut.wait(), 5)
        assert "it" not in engine.worker.awake
