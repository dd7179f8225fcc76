"""The demo's flow and its proof, with a provider that answers by a rule: no model, no network."""

import importlib.util
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue.core import export
from segue.runtime.wake.rebase import entries_of
from segue.testing import Simulator

DEMO = Path(__file__).parents[2] / "demo"
ROWS = [
    "the player froze twice, call me now",
    "i love it",
    "the menu is hard to read",
    "it burnt my hand, i want my money back now",
    "works like a charm",
]

pytestmark = pytest.mark.slow


def load(name: str) -> Any:
    """A file of the demo, as it is."""
    spec = importlib.util.spec_from_file_location(f"demo_{name}", DEMO / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


triage, proof, people, reviews = (load(name) for name in ("triage", "proof", "people", "reviews"))


def rule(body: dict[str, Any]) -> Any:
    """What the provider says."""
    prompt = body["messages"][-1]["content"]
    row = prompt.rpartition("Review: ")[2].partition("\n")[0]
    if prompt.endswith("Answer:"):
        return " We are sorry that nobody came." if "money" in row else f" We are sorry: {row}."
    good = "love" in row or "charm" in row
    return {"sentiment": "positive" if good else "negative", "topic": "quality", "urgent": "now" in row}


async def shown(directory: Path) -> tuple[dict[str, dict[str, list[Any]]], list[Any], list[Any]]:
    """Run the rows live and in batch: journals by job and key, the batch's output lines, the ledger."""
    ledger = directory / "ledger.jsonl"
    journals: dict[str, dict[str, list[Any]]] = {}
    out = []
    async with Simulator(rule=rule, ledger=ledger, batch_time=timedelta(seconds=0.2)) as sim:
        model = f"openai:any@{sim.base_url}"
        async with segue.Engine(f"sqlite:{directory / 'runs.db'}", model=model) as engine:
            for mode in ("live", "batch"):
                job = engine.map(triage.triage, ROWS, id=mode, mode=mode)
                outcomes = {outcome.index: outcome async for outcome in answered(engine, job)}
                journals[mode] = {str(index): await journal(engine, f"{mode}/{index}") for index in outcomes}
                values = [msgspec.to_builtins(outcomes[index].value) for index in range(len(ROWS))]
                out = [{"input": row, "value": value} for row, value in zip(ROWS, values, strict=True)]
    return journals, out, proof.read_lines(ledger.read_bytes())


async def answered(engine: segue.Engine, job: Any) -> Any:
    """The job's outcomes, while a stand-in answers questions."""
    import asyncio

    async def answer() -> None:
        async for ask in engine.asks():
            await ask.answer(people.rule(ask.show[1]))

    answering = asyncio.ensure_future(answer())
    try:
        async for outcome in job:
            yield outcome
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def journal(engine: segue.Engine, run: str) -> list[Any]:
    lines = export.write(await engine.head(run), await entries_of(engine.store, run))
    return [msgspec.json.decode(line) for line in lines]


async def test_the_proof_holds_and_would_not_hold_of_anything_else(tmp_path: Path) -> None:
    journals, out, ledger = await shown(tmp_path)
    outcomes = [line["value"]["outcome"] for line in out]
    assert outcomes == ["answered", "filed", "answered", "escalated", "filed"]
    answers = sum(call.get("kind") == "generate" for calls in journals["batch"].values() for call in calls)
    assert answers == 8

    assert proof.every_row_answered(out, ROWS).holds
    assert not proof.every_row_answered(out[:-1], ROWS).holds
    assert not proof.every_row_answered([out[1], out[0], *out[2:]], ROWS).holds
    assert not proof.every_row_answered([{**out[0], "error": {"type": "X"}}, *out[1:]], ROWS).holds

    line = next(entry for entry in ledger if entry["kind"] == "batch")
    rest = [entry for entry in ledger if entry is not line]
    assert proof.each_line_once(ledger, answers).holds
    assert not proof.each_line_once([*ledger, line], answers).holds  # paid twice
    assert not proof.each_line_once(rest, answers).holds  # never paid
    assert not proof.each_line_once([*rest, {**line, "status": 500}], answers).holds
    assert not proof.each_line_once(
        [*ledger, {**line, "custom_id": "lost"}], answers
    ).holds  # paid, not recorded

    pairs = [(journals["live"][key], journals["batch"][key]) for key in journals["live"]]
    assert proof.same_journals(pairs).holds
    assert not proof.same_journals([(live[:-1], batch) for live, batch in pairs]).holds
    assert not proof.same_journals([(live, changed(batch)) for live, batch in pairs]).holds
    assert not proof.same_journals([]).holds

    felt = proof.agreement(out, [-2.0, 3.0, 1.0, -3.0, 2.0])
    assert felt == proof.Agreement(0.8, 0.6)


def changed(journal: list[Any]) -> list[Any]:
    """The same journal, but that the model said something else."""
    copy: list[Any] = msgspec.json.decode(msgspec.json.encode(journal))
    call = next(call for call in copy if call.get("kind") == "generate")
    call["value"]["choices"][0]["message"]["content"] += "!"
    return copy


def test_one_clear_remark_of_each_review_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "ratings.txt"
    file.write_text(
        "1_1\t-0.9\ttoo faint a feeling to be of any use here.\r\n"
        "1_2\t2.85\tshort.\r\n"
        "1_3\t2.85\ti love it more than i can say, really.\r\n"
        "1_4\t-3.0\ti hate it more than i can say, really.\r\n"
        "2_1\t0.0\ti have no feeling about it, none at all.\r\n"
    )
    assert reviews.choose(file) == [("1_3", 2.85, "i love it more than i can say, really.")]
