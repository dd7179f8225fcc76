"""One flow, with tools, a form and thoughts, in every provider's protocol: the same live and in batch, and replayed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import msgspec
import pytest

import segue
from segue.testing.simulator import Said, Simulator, ToolCall
from tests.crash.remote import FastClock

MODELS = {
    "openai": "openai:gpt-5@{url}/v1",
    "anthropic by budget": "anthropic:claude-haiku-4-5@{url}",
    "anthropic by effort": "anthropic:claude-opus-5@{url}/v1",
    "gemini 2": "gemini:gemini-2.5-flash@{url}",
    "gemini 3": "gemini:gemini-3-pro@{url}/v1",
}


class Label(msgspec.Struct):
    topic: Literal["billing", "bug"]
    urgent: bool


class Open(msgspec.Struct):
    counts: dict[str, int]


async def look_up(order: str) -> str:
    """Where an order is."""
    return f"{order} is on its way"


@segue.flow(name="providers.in_flows")
async def care(text: str) -> list[Any]:
    label = await segue.generate(f"Classify {text}", returns=Label, system="You are brief. " * 400)
    said = await segue.generate(f"Where is {text}?", tools=[look_up], reasoning="low")
    both = await segue.generate(f"Count {text}", tools=[look_up], returns=Open)
    return [label.topic, label.urgent, said, both.counts]


def rule(body: dict[str, Any]) -> Any:
    """What a model says, whose words the request is in."""
    last = body["messages"][-1]
    first = next(each["content"] for each in body["messages"] if each["role"] == "user")
    if "Classify" in first:
        return {"topic": "bug", "urgent": True}
    if last["role"] == "tool" and "Where" in first:
        return f"I see: {last['content']}"
    if last["role"] == "tool":
        tools = [each["function"]["name"] for each in body["tools"]]
        counted = {"counts": {"one": 1}}
        return ToolCall("segue_answer", counted) if "segue_answer" in tools else counted
    return Said("", ToolCall("look_up", {"order": "A"}), ToolCall("look_up", {"order": "B"}), thinking="Hm.")


async def outcome(model: str, sim: Simulator, mode: Any, clock: FastClock) -> tuple[list[Any], segue.Receipt]:
    engine = segue.Engine("memory:", model=model, clock=clock, mode=mode, verify=True)
    async with engine:
        run = await engine.start(care("A"), id="run")
        return await run, await run.receipt()


@pytest.mark.parametrize("name", MODELS)
async def test_live_and_batch_agree(name: str) -> None:
    clock = FastClock()
    async with Simulator(rule=rule, clock=clock, batch_time=timedelta(seconds=1)) as sim:
        model = MODELS[name].format(url=sim.url)
        live, paid = await outcome(model, sim, "live", clock)
        batch, pooled = await outcome(model, sim, "batch", clock)
        assert live == batch == ["bug", True, live[2], {"one": 1}]
        assert live[2].startswith("I see: ")
        assert live[2].endswith("is on its way")
        counts = sim.ledger.counts()
        assert (counts["live_paid"], counts["batch_paid"], counts["paid_twice"]) == (5, 5, 0)
        assert counts["asked"] == 10
        for kind, receipt in (
            ("live", paid),
            ("batch", pooled),
        ):  # what is counted is what the provider counts
            entries = [entry for entry in sim.ledger.lines() if entry.kind == kind]
            [line] = receipt.lines
            assert line.input_tokens == sum(entry.tokens_in for entry in entries)
            assert line.output_tokens == sum(entry.tokens_out for entry in entries)


@segue.flow(name="providers.vectors")
async def vectors(texts: list[str]) -> list[int]:
    return [len(each) for each in await segue.embed(texts)]


async def test_embeddings_that_no_job_takes_go_live() -> None:
    clock = FastClock()
    async with Simulator(clock=clock) as sim:
        async with segue.Engine("memory:", model=f"gemini:m@{sim.url}", clock=clock, mode="batch") as engine:
            assert await engine.run(vectors(["a", "b"])) == [64, 64]
        assert (len(sim.ledger.lines("live")), sim.batches()) == (1, [])
