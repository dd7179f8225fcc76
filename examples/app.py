from dataclasses import dataclass
from typing import Literal

import segue


@dataclass
class Label:
    topic: Literal["billing", "bug", "other"]
    urgent: bool


@segue.step  # recorded whole: done once, whatever crashes
async def policy(topic: str) -> str:
    return f"{topic} is free of charge"


@segue.flow  # recorded call by call: replayed, never paid twice
async def triage(ticket: str) -> str:
    label = await segue.generate(f"Classify: {ticket}", returns=Label)
    draft = await segue.generate(f"Answer {ticket!r}. Policy: {await policy(label.topic)}")
    if label.urgent and not await segue.ask("Send this?", show=draft, returns=bool):
        return "escalated"
    return draft


async def main(tickets: list[str]) -> None:
    async with segue.Engine("sqlite:runs.db", model="openai:gpt-5-mini") as engine:
        print(await engine.run(triage("My invoice is wrong")))  # live
        async for row in engine.map(triage, tickets, id="nightly", mode="batch"):  # half price
            print(row.key, row.value if row.ok else row.error)
