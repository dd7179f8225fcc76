"""Which runs belong to a run, or to a job."""

from __future__ import annotations

from typing import Any

import segue
from segue.model.run import Head
from segue.ports.store import Store
from segue.runtime.family import family, spent
from segue.stores.memory import MemoryStore
from segue.testing import Simulator
from segue.testing.store_contract.acts import create


@segue.flow
async def leaf(word: str) -> str:
    return await segue.generate(f"say {word}")


@segue.flow
async def stem(word: str) -> list[str]:
    return await segue.map(leaf, [f"{word}{n}" for n in range(2)])


@segue.flow
async def tree(word: str) -> list[list[str]]:
    await segue.spawn(leaf("of another"), id=f"{word}.mine")
    return await segue.map(stem, [f"{word}{n}" for n in range(2)])


async def members(store: Store, **which: str) -> list[Head]:
    return [head async for head in family(store, **which)]


async def test_a_family_is_what_was_started_under_it() -> None:
    async with Simulator() as sim, segue.Engine("memory:", model=f"openai:any@{sim.base_url}") as engine:
        for id in ("a", "a.b", "a-b", "a0"):  # no more than names that begin alike
            await engine.run(tree(id), id=id)
        for job, keys in {"a": ["b/x", "b", "b.d"], "a/b": ["c", "d"], "other": ["a"]}.items():
            await engine.map(stem, keys, id=job, key=str)
        mine = await members(engine.store, run="a")
        assert [head.id for head in mine] == sorted(head.id for head in mine)
        targets = [head.spec.target for head in mine]
        assert sorted(targets) == ["leaf"] * 5 + ["stem"] * 2 + ["tree"]
        counts = {job: await members(engine.store, job=job) for job in ("a", "a/b", "other")}
        assert {job: len(heads) for job, heads in counts.items()} == {"a": 9, "a/b": 6, "other": 3}
        assert {head.spec.args for head in counts["a/b"]}.isdisjoint(
            head.spec.args for head in counts["other"]
        )
        assert (await spent(engine.store, run="a")).beneath == 7
        assert sum(use.calls for use in (await spent(engine.store, job="a")).usage) == 6
        (line,) = (await engine.map(stem, ["c", "d"], id="a/b", key=str).receipt()).lines
        assert line.calls == 4


async def test_for_a_run_without_children_hardly_any_others_are_read() -> None:
    class Counting(MemoryStore):
        read = 0

        async def runs(self, **which: Any) -> list[Head]:
            found = await super().runs(**which)
            self.read += len(found)
            return found

    store = Counting()
    async with segue.Engine(store, worker=False) as engine:
        await create(store, "r", *(f"r{n:04}" for n in range(300)))
        await engine.receipt(run="r")
    assert store.read <= 10
