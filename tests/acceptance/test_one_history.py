"""The same flow live and in batch, on either store, and through a kill: journals equal, path by path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

import segue
from segue.model.entry import Entry
from segue.providers.openai import OpenAI
from segue.runtime.wake.rebase import entries_of
from segue.testing import compare
from segue.testing.simulator import Simulator, ToolCall, ToolCalls
from segue.transports.pooled import Pooled


class Label(msgspec.Struct):
    topic: Literal["billing", "bug"]
    urgent: bool


async def look_up(order: str) -> str:
    """Where an order is."""
    return f"{order} is on its way"


@segue.step
def policy(topic: str) -> str:
    return f"{topic} is free of charge"


@segue.flow(name="history.one")
async def one(text: str) -> str:
    return await segue.generate(f"Shorten: {text}")


@segue.flow(name="history.care")
async def care(text: str) -> dict[str, Any]:
    """Turns with tools, branches, a race, a child, a repair, a question, a timer."""
    label = await segue.generate(f"Classify: {text}", returns=Label)
    facts, order = await asyncio.gather(
        policy(label.topic), segue.generate(f"Find the order: {text}", tools=[look_up])
    )
    async with asyncio.TaskGroup() as group:
        first = group.create_task(one(f"{facts} 1"))
        second = group.create_task(one(f"{facts} 2"))
    short = await segue.map(one, [order, facts], limit=1)
    child = await segue.spawn(one(text))
    await segue.sleep(timedelta(milliseconds=20))
    sent = await segue.ask("Send?", show=short, returns=bool)
    return {"label": label.topic, "all": [first.result(), second.result(), *short, await child], "sent": sent}


def rule(body: dict[str, Any]) -> Any:
    last = body["messages"][-1]
    text = str(last.get("content"))
    if "Classify" in text and len(body["messages"]) == 1:
        return {"topic": "weather"}  # unfit: it is sent back
    if body.get("response_format"):
        return {"topic": "bug", "urgent": True}
    if last["role"] == "user" and "order" in text:
        calls = [ToolCall("look_up", {"order": name}, id=f"call_{name}") for name in ("o1", "o2")]
        return ToolCalls(*calls)
    return f"said {len(text)}"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(rule=rule, batch_time=timedelta(seconds=0.05)) as sim:
        yield sim


async def journal_of(engine: segue.Engine, run: str) -> list[Entry]:
    return [nameless(entry) for entry in await entries_of(engine.store, run)]


def nameless(entry: Entry) -> Entry:
    """Without the provider's own id and time of an answer."""
    if entry.value is None or not entry.value.startswith(b'{"id":"chatcmpl'):
        return entry
    body = {name: value for name, value in json.loads(entry.value).items() if name not in ("id", "created")}
    return msgspec.structs.replace(entry, value=json.dumps(body).encode())


async def lived(
    sim: Simulator, store: str, mode: Literal["live", "batch"], **options: Any
) -> tuple[Any, list[Entry]]:
    def far(_: Any) -> OpenAI:
        return OpenAI(sim.base_url, "any", Pooled())

    async with segue.Engine(store, mode=mode, model="far:m", providers={"far": far}, **options) as engine:
        async with asyncio.timeout(40):
            await engine.start(care("It broke"), id="r")  # a handle that is kept would have it streamed
            async for question in engine.asks():
                await question.answer(True)
                break
            return await (await engine.get("r")), await journal_of(engine, "r")


STORES: dict[str, Callable[[Path], str]] = {
    "memory": lambda path: "memory:",
    "sqlite": lambda path: f"sqlite:{path / 'batch.db'}",
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("park", ["auto", "always"])
async def test_live_and_batch_write_one_history(
    sim: Simulator, tmp_path: Path, store: str, park: str
) -> None:
    live, told = await lived(sim, "memory:", "live")
    assert sim.ledger.counts()["batch_paid"] == 0
    batch, told_in_batch = await lived(sim, STORES[store](tmp_path), "batch", park=park)
    assert sim.ledger.counts()["batch_paid"] == sim.ledger.counts()["live_paid"]
    assert sim.ledger.counts()["paid_twice"] == 0
    assert batch == live
    assert compare.differences(told, told_in_batch, ("live", "batch")) == []
    kinds = {entry.kind for entry in told if entry.kind}
    assert kinds >= {"generate", "step", "ask", "sleep", "spawn"}


async def test_a_difference_is_seen(sim: Simulator) -> None:
    _, told = await lived(sim, "memory:", "live")
    changed = [
        msgspec.structs.replace(entry, value=b'"other"') if entry.name == "policy" else entry
        for entry in told
    ]
    (line,) = compare.differences(told, changed)
    assert "policy" in line
