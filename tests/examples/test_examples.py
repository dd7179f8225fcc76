"""The example programs do what they say."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import segue
from segue.model.errors import MissingKey
from segue.testing import FakeModel, Simulator, ToolUse, check
from segue.testing.simulator import ToolCall

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


app, digest, graph = load("app"), load("digest"), load("graph")
pipeline, support = load("pipeline"), load("support")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------- app.py
async def test_app_as_it_stands(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rule(body: dict[str, Any]) -> Any:
        said = json.dumps(body["messages"])
        if body.get("response_format"):
            return {"topic": "billing", "urgent": False}
        return "It is free." if "billing is free of charge" in said else "?"

    async with Simulator(rule=rule, batch_time=timedelta(seconds=0.1)) as sim:
        monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        for _ in range(2):  # the second time everything is there already but the live call
            await app.main(["Where is it?", "It broke"])
        counts = sim.ledger.counts()
        assert (counts["live_paid"], counts["batch_paid"], counts["paid_twice"]) == (4, 4, 0)
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == ["It is free.", "0 It is free.", "1 It is free."]
    assert (here / "runs.db").exists()


async def test_app_without_a_key(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        await app.main(["Where is it?"])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_its_own_tests() -> None:
    words = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-c", "/dev/null", "--rootdir", "."]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "test_app.py"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


# ---------------------------------------------------------------- digest.py
def papers(here: Path, number: int) -> list[str]:
    for index in range(number):
        (here / f"{index}.txt").write_text(f"text {index}")
    return [str(here / f"{index}.txt") for index in range(number)]


async def test_digest(here: Path) -> None:
    model = FakeModel()
    model.when("Summarise").reply(lambda call: f"<{call.text.partition(chr(10))[2]}>")
    async with model:
        said = await digest.digest(papers(here, 3))
        assert said == "<<text 0>\n\n<text 1>\n\n<text 2>>"
        assert await digest.digest([*papers(here, 1), "nowhere.txt"]) == "<text 0>"
    assert len(model.calls) == 5


async def test_a_long_digest_takes_several_rounds(here: Path) -> None:
    model = FakeModel()
    model.when("Summarise").reply(
        lambda call: f"sum of {call.text.count('text') + call.text.count('sum of')}"
    )
    async with model:
        assert await digest.digest(papers(here, 45)) == "sum of 3"
    assert len(model.calls) == 45 + 3 + 1


async def test_a_digest_in_any_mode_and_any_crash(here: Path) -> None:
    model = FakeModel()
    model.when("Summarise").reply("short")
    await check(digest.digest, [papers(here, 3)], model=model)


# ---------------------------------------------------------------- support.py
def script(usd: float) -> FakeModel:
    model = FakeModel()
    model.when("Please refund").reply(
        [ToolUse("orders", email="a@b.c"), ToolUse("refund", order="o-1", usd=usd)],
        "Done, sorry for the trouble.",
    )
    return model


async def test_a_small_refund_needs_nobody() -> None:
    model = script(20)
    async with model:
        assert await support.support("Please refund o-1") == "Done, sorry for the trouble."
    assert "refunded 20" in model.calls[-1].text


async def test_a_large_one_is_denied_by_finance() -> None:
    """With the program's own bot, over an engine."""

    def rule(body: dict[str, Any]) -> Any:
        last = body["messages"][-1]
        if last["role"] == "user":
            return ToolCall("refund", {"order": "o-1", "usd": 500.0}, id="call_1")
        return f"Sorry: {last['content']}"

    async with Simulator(rule=rule) as sim:
        async with segue.Engine(model=f"openai:m@{sim.base_url}") as engine:
            bot = asyncio.ensure_future(support.finance(engine))
            try:
                said = await asyncio.wait_for(engine.run(support.support("Refund me")), 20)
            finally:
                bot.cancel()
    assert "offer store credit" in said


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        (segue.Approve(), "refunded 500.0 for o-1"),
        (segue.Edit(usd=50), "refunded 50.0 for o-1"),
        (segue.Deny("No."), "No."),
    ],
    ids=["approve", "edit", "deny"],
)
async def test_what_finance_may_say(verdict: Any, says: str) -> None:
    model = script(500).answer("refund", verdict)
    async with model:
        assert await support.support("Please refund o-1") == "Done, sorry for the trouble."
    assert says in model.calls[-1].text


async def test_existing_code_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDK's code and an agent's, live and in batch."""

    def rule(body: dict[str, Any]) -> Any:
        last = body["messages"][-1]
        if "French" in str(last["content"]):
            return "Bonjour"
        return ToolCall("search", {"query": "x"}) if last["role"] != "tool" else f"I found {last['content']}."

    async with Simulator(batch_time=timedelta(milliseconds=20), rule=rule, key="k") as sim:
        monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        existing = load("existing")
        for mode in ("live", "batch"):
            async with segue.Engine("memory:", mode=mode, verify=True) as engine:  # type: ignore[arg-type]
                assert await engine.run(existing.translate("hello")) == "Bonjour"
                assert await engine.run(existing.research("what is x?")) == "I found nothing about x."
        assert sim.ledger.counts()["batch_paid"] == 3


# ---------------------------------------------------------------- pipeline.py
def texts(here: Path, number: int, paragraphs: int) -> list[str]:
    for index in range(number):
        (here / f"{index}.txt").write_text("\n\n".join(f"text {index}.{part}" for part in range(paragraphs)))
    return [str(here / f"{index}.txt") for index in range(number)]


def says() -> FakeModel:
    model = FakeModel()
    model.when("Say in one line").reply(lambda call: call.text.partition(": ")[2].upper())
    return model


async def test_a_pipeline_with_a_route_for_what_fails(here: Path) -> None:
    async with says():
        assert await pipeline.pipeline([*texts(here, 7, 9), "nowhere.txt"]) == 63
    rows = (here / "rows.txt").read_text().splitlines()
    expected = [f"{here / str(i)}.txt#{part} TEXT {i}.{part}" for i in range(7) for part in range(9)]
    assert sorted(rows) == sorted(expected)
    said = (here / "failed.txt").read_text()
    assert said.startswith("nowhere.txt: ")
    assert "No such file" in said


@pytest.mark.slow
async def test_a_pipeline_in_any_mode_and_any_crash(here: Path) -> None:
    await check(pipeline.pipeline, [texts(here, 1, 3)], model=says())
    assert len((here / "rows.txt").read_text().splitlines()) == 3


# ---------------------------------------------------------------- graph.py
def editor() -> FakeModel:
    model = FakeModel()
    model.when("Questions").reply(["Why?", "How?"])
    model.when("Write").reply(lambda call: f"on {call.text.partition('Mind: ')[2]}")
    model.when("Judge").reply(
        lambda call: graph.Verdict(
            good="shorter" in call.text, wishes=["shorter"] if "[]" in call.text else ["?"]
        )
    )
    return model.answer("Print it?", "yes")


@segue.flow
async def example_article(topic: str) -> str:
    return await graph.Article(topic)


async def test_a_graph_goes_round() -> None:
    model = editor()
    async with model:
        assert await example_article("bees") == "on ['shorter']"
    assert [call.text.split()[0] for call in model.calls] == [
        "Questions",
        "Write",
        "Judge:",
        "Write",
        "Judge:",
    ]
    assert "Why? Nobody knows." in model.calls[1].text


async def test_its_loop_has_a_limit() -> None:
    model = FakeModel().answer("Print it?", "yes")
    model.when("Questions").reply([])
    model.when("Write").reply("text")
    model.when("Judge").reply(graph.Verdict(good=False, wishes=["more"]))
    async with model:
        await example_article("bees")
    assert sum(call.text.startswith("Write") for call in model.calls) == 3


async def test_a_person_may_send_it_back() -> None:
    model = FakeModel().answer("Print it?", "a title")

    def write(call: Any) -> str:
        wish = call.text.partition("Mind: ")[2]
        if "title" in wish:
            model.answer("Print it?", "yes")
        return str(wish)

    model.when("Questions").reply([])
    model.when("Write").reply(write)
    model.when("Judge").reply(graph.Verdict(good=True, wishes=[]))
    async with model:
        assert await example_article("bees") == "['a title']"


def test_a_graph_is_drawn_before_it_runs() -> None:
    drawn = segue.diagram(graph.Article, at="Review")
    for edge in (
        "[*] --> Research: ",
        "Research --> Draft: research",
        "Draft --> Review: draft",
        "Review --> Draft: review",
        "Review --> Approval: review",
        "Approval --> [*]: approval",
        "class Review now",
    ):
        assert edge.removesuffix(": ") in drawn, drawn


@pytest.mark.slow
async def test_a_graph_in_any_mode_and_any_crash() -> None:
    await check(example_article, ["bees"], model=editor())
