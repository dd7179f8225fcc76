"""A fork in which a model says something else: its words are edited, not the provider's response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

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


class Moved(segue.Note):
    to: str


class Left(segue.Note):
    why: str


@segue.flow
async def follows(texts: list[str]) -> str:
    said = await segue.receive(Moved | Left)
    vectors = await segue.embed(texts)
    return f"{said!r} {[vector[0] for vector in vectors]}"


@pytest.mark.parametrize("provider", ["openai", "gemini"])
async def test_messages_and_vectors_are_edited(provider: str) -> None:
    async with Simulator() as sim, segue.Engine(model=f"{provider}:any@{sim.base_url}") as engine:
        run = await engine.start(follows(["b", "a", "b"]), id="it")
        await run.tell(Moved("Rome"))
        before = await run
        asked = sim.ledger.counts()["asked"]
        vectors = [[0.5, 1.0], [2.0], [3]]
        told: list[tuple[dict[str, Any], str]] = [
            ({"#0": {"to": "Oslo"}}, before.replace("Rome", "Oslo")),
            ({"#0": Left("bored"), "#1": vectors}, "Left(why='bored') [0.5, 2.0, 3.0]"),
            (
                {"#0": {"name": "Left", "value": {"why": "it"}}},
                before.replace("Moved(to='Rome')", "Left(why='it')"),
            ),
        ]
        for edit, says in told:
            assert await (await engine.fork("it", edit=edit)) == says
        assert sim.ledger.counts()["asked"] == asked
        with pytest.raises(InvalidValue, match="expected 3 vectors, or a whole response of"):
            await engine.fork("it", edit={"#1": [[1.0]]})
        with pytest.raises(InvalidValue, match="expected Moved: the field `to` is missing"):
            await (await engine.fork("it", edit={"#0": {"why": "x"}}))


@segue.flow
async def reviewed(text: str) -> str:
    verdict = await segue.ask(f"Is {text} fine?", returns=Literal["yes", "no"])
    return f"{text}: {verdict}"


async def test_an_answer_that_is_edited_has_to_fit_its_question() -> None:
    async with segue.Engine("memory:") as engine:
        run = await engine.start(reviewed("it"), id="it")
        async for ask in engine.asks():
            await ask.answer("yes")
            break
        assert await run == "it: yes"
        with pytest.raises(InvalidValue, match="the edit of #0"):
            await engine.fork("it", edit={"#0": "perhaps"}, id="other")
        assert await (await engine.fork("it", edit={"#0": "no"}, id="other")) == "it: no"
