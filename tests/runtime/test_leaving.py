"""What reaches a run while it leaves memory isn't lost."""

from __future__ import annotations

import segue
from segue.testing import FakeModel


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
