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
