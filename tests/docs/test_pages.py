"""What the pages name is there: links, commands, options, public names."""

from __future__ import annotations

import inspect
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

import segue
import segue.testing
import segue.testing.simulator
from segue.cli.main import COMMANDS, find

from .blocks import PAGES, ROOT, blocks_of, prose_of

#: Names after `segue.` that aren't public: modules, a file, a flow's registered name.
OTHERS = {"errors", "testing", "model", "db", "request", "ports", "providers", "transports"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_the_readme_shows_code_early() -> None:
    assert blocks_of(ROOT / "README.md")[0].line <= 35


@every_page
def test_a_page_says_what_it_is_for(page: Path) -> None:
    title, _, first = page.read_text().partition("\n\n")
    assert re.fullmatch(r"# [^\n]+", title)
    assert first[0].isalpha()


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, link


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@every_page
def test_names_are_public(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"(?<![\w.])segue\.([A-Za-z_]\w*)", text):
        assert name in segue.__all__ or name in OTHERS, f"segue.{name}"
    for names in re.findall(r"from segue\.testing import (.+)", text):
        assert set(re.findall(r"\w+", names)) <= set(segue.testing.__all__)
    for name in re.findall(r"segue\.testing\.([A-Za-z_]\w*)", text):
        assert name in segue.testing.__all__ or name in ("store_contract", "simulator"), (
            f"segue.testing.{name}"
        )
    for names in re.findall(r"from segue\.testing\.simulator import (.+)", text):
        assert set(re.findall(r"\w+", names)) <= set(segue.testing.simulator.__all__)


@every_page
def test_errors_are_there(page: Path) -> None:
    from segue import errors

    for row in re.findall(r"^\| `(?:Author|Caller|Operator)Error` .*$", page.read_text(), re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row):
            assert hasattr(errors, name), name


def options_of(command: str) -> set[str]:
    parser = ArgumentParser()
    find(command, "declare")(parser)
    return {
        option for action in parser._actions for option in action.option_strings if option.startswith("--")
    } - {"--help"}


@every_page
def test_commands_and_options_are_there(page: Path) -> None:
    """In prose; those in console blocks are parsed or run."""
    for code in re.findall(r"`segue ([^`]+)`", re.sub(r"\s+", " ", prose_of(page))):
        command = code.split()[0].rstrip("s") if code.split()[0] == "workers" else code.split()[0]
        if command == "COMMAND" or command.startswith("--"):
            continue
        assert command in COMMANDS, f"segue {code}"
        for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", code):
            assert option in {*options_of(command), "--help", "--traceback"}, f"segue {code}"


def test_the_command_reference_is_whole() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    common, *sections = re.split(r"^### ", text, flags=re.MULTILINE)
    told = {section.partition("\n")[0].removeprefix("segue "): section for section in sections}
    assert set(told) == set(COMMANDS)
    shared = {"--store", "--json", "--model", "--live", "--batch", "--batch-within", "--deadline", "--budget"}
    shared |= {"--reuse", "--reuse-within", "--no-reuse", "--tag"}
    for command, section in told.items():
        prose = section.partition("\n## ")[0].replace("\n", " ")
        own = re.sub(r"`segue (\w+) [^`]*`", lambda code: code[0] if code[1] == command else "", prose)  # noqa: B023
        named = set(re.findall(r"(?<![\w-])(--[a-z-]+)", own))
        has = options_of(command)
        assert named <= has, (command, named - has)
        assert has - named <= shared, (command, has - named - shared)
    assert all(option in common for option in shared)


def test_the_list_of_public_names_is_whole() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    here, _, there = text.partition("## segue.testing")
    for part, module in ((here, segue), (there, segue.testing)):
        listed = re.findall(r"^- `(\w+)(?:\(\))?`: ", part, re.MULTILINE)
        assert sorted(listed) == sorted(module.__all__)
        assert all(
            getattr(module, name) is not None for name in module.__all__
        )  # each is where it is looked for


def test_methods_are_told_in_their_own_words() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    told = re.findall(r"^- `(\w+)\.(\w+)(?:\(\))?`: (.*)$", text, re.MULTILINE)
    assert len(told) > 30
    for owner, name, words in told:
        method = inspect.getattr_static(getattr(segue, owner), name)
        assert (inspect.getdoc(method) or "").partition("\n")[0] == words, (owner, name)


def test_prose_holds_shell_words() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            if block.kind == "console":
                assert all(shlex.split(line[2:]) for line in block.text.splitlines() if line.startswith("$ "))
