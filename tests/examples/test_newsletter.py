"""A newsletter of real package news: a crew that is killed at every commit, and one whose writer fails."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.model.run import Head
from segue.testing import FakeModel
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
    model.when("worth an article").reply("I say pytest and pytest-asyncio.")
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
