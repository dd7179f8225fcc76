"""What is killed: in each round a model call with a tool, a step, and for some rows a call that goes live."""

from __future__ import annotations

from typing import Literal

import msgspec

import segue


class Label(msgspec.Struct):
    topic: Literal["billing", "bug", "other"]
    urgent: bool


async def look_up(order: str) -> str:
    """Where an order is."""
    return f"{order} is on its way"


@segue.step
async def policy(topic: str) -> str:
    return f"{topic} is free of charge"


@segue.flow
async def care(number: int, text: str, rounds: int) -> list[str]:
    label = await segue.generate(f"Classify: {text} ({number})", returns=Label)
    said = [label.topic]
    for turn in range(rounds):
        prompt = f"Round {turn} of {number}: {said[-1]}. {await policy(label.topic)}."
        said.append(await segue.generate(prompt, tools=[look_up]))
        if (number + turn) % 8 == 0:
            said.append(await segue.generate(f"Live {turn} of {number}: {said[-1]}", mode="live"))
    return said
