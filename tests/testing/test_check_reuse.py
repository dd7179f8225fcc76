"""A flow that reuses answers, checked as any other."""

from __future__ import annotations

import asyncio

import segue
from segue.testing import FakeModel, check
from segue.testing.fake_model import FakeEngine


@segue.flow(name="check.reuse")
async def twice(text: str) -> list[str]:
    both = await asyncio.gather(*(segue.generate(f"Sum up {text}", reuse=True) for _ in range(2)))
    return [*both, await segue.generate(f"Sum up {text}", reuse=True)]


async def test_it_is_the_same_in_any_mode_and_whatever_dies() -> None:
    model = FakeModel().when("Sum up").reply("short")
    report = await check(twice, ["a", "a", "b"], model=model)
    assert report.kills > 5


async def test_a_fake_model_is_asked_once() -> None:
    model = FakeModel().when("Sum up").reply("one", "two", "three")
    async with FakeEngine(model, "memory:") as engine:
        assert await engine.run(twice("a")) == ["one"] * 3
    assert len(model.calls) == 1
