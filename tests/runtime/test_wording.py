"""A fork in which a model says something else: its words are edited, not the provider's response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import segue
from segue.errors import InvalidValue
from segue.testing import Simulator
from segue.testing.simulator import ToolCall


@dataclass
class Label:
    topic: str
    urgent: bool


def orders(email: str) -> str:
    "The orders."
    return "o-1"


@segue.flow
async def letter(to: str) -> str:
    label = await segue.generate(f"label {to}", returns=Label)
    draft = await segue.generate(f"write about {label.topic}")
    return f"{draft}, {label.urgent}"


@segue.flow
async def support(mail: str) -> str:
    return await segue.generate(mail, tools=[orders])


@pytest.mark.parametrize("provider", ["openai", "openai-responses", "anthropic", "gemini"])
async def test_the_words_of_a_model_are_edited(provider: str) -> None:
    async with Simulator() as sim:
        sim.when("label").reply({"topic": "stop", "urgent": False})
        sim.when("write").reply("stop")  # as the reason why it stopped, which stays
        model = f"{provider}:any@{sim.base_url}"
        async with segue.Engine("memory:", model=model) as engine:
            assert await engine.run(letter("Ada"), id="it") == "stop, False"
            edits: list[dict[str, Any]] = [
                {"#1": "short"},
                {"#0": {"topic": "stop", "urgent": True}},
                {"#1": '"x"'},
            ]
            said = [await (await engine.fork("it", edit=edit)) for edit in edits]
            assert said == ["short, False", "stop, True", '"x", False']
            whole = sim.ledger.counts()
            fork = await engine.fork("it", edit={"#0": {"topic": "a bug", "urgent": True}, "#1": "shorter"})
            assert await fork != "shorter, True"  # what comes after the edit asks otherwise, and is asked
            assert sim.ledger.counts() != whole


async def test_an_answer_that_has_no_words() -> None:
    async with Simulator() as sim:
        sim.when("mail").reply(ToolCall("orders", {"email": "a"}), "done")
        async with segue.Engine("memory:", model=f"openai:any@{sim.base_url}") as engine:
            assert await engine.run(support("mail"), id="it") == "done"
            with pytest.raises(InvalidValue, match="a whole response of openai"):
                await engine.fork("it", edit={"#0": "other"})
            whole = {
                "choices": [{"message": {"role": "assistant", "content": "at once"}, "finish_reason": "stop"}]
            }
            assert await (await engine.fork("it", edit={"#0": whole})) == "at once"
