"""Every block of code in the README and the docs runs, in order, a page at a time, in a directory of its own.

The comment above a block says how: `file NAME` also writes it to a file, `edit NAME: OLD → NEW` changes one,
`run` runs its commands and compares what they show, `run exits 1` expects other exit codes than 0 and 3,
`kill` kills the command in its middle, `with CODE` runs something before it, `fragment` only compiles it.
Without a comment, Python runs, and commands are parsed. Functions called `test_…` are run as tests.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import linecache
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from segue.authoring.flow import TARGETS
from segue.cli.main import main, make_parser
from segue.stores import open_store

from .blocks import PAGES, Block, blocks_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the console blocks are for a POSIX shell"),
]

SEGUE = [sys.executable, "-m", "segue"]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    process = subprocess.Popen([*SEGUE, "simulate", "--batch-time", "0.2"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(page: Path, provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("OPENAI_BASE_URL", provider)
    monkeypatch.delenv("SEGUE_STORE", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    known, targets = set(sys.modules), dict(TARGETS)
    run = _Page(page)
    try:
        for block in blocks_of(page):
            run.do(block)
    finally:
        for name in set(sys.modules) - known:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]
        sys.modules.pop(run.module.__name__, None)
        TARGETS.clear()
        TARGETS.update(targets)


class _Page:
    """A page that is being worked through. Its Python blocks share one module."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self.module = sys.modules["page"] = ModuleType("page")

    def do(self, block: Block) -> None:
        how, _, rest = block.how.partition(" ")
        where = f"{self.page.name}, line {block.line}"
        if how == "file":
            Path(rest).write_text(block.text)
            _forget(rest)
        if how == "edit":
            name, _, change = rest.partition(": ")
            old, _, new = change.partition(" → ")
            text = Path(name).read_text()
            assert old in text, where
            Path(name).write_text(text.replace(old, new))
            _forget(name)
        if block.kind == "python":
            self._python(block, where, rest if how == "with" else "", runs=how != "fragment")
        elif block.kind == "console":
            for command, shown in commands(block.text):
                self._command(command, shown, how, rest, where)
        else:
            assert block.kind in ("text", "json", "diff", "rust"), f"{where}: a block of {block.kind!r}"

    def _python(self, block: Block, where: str, before: str, *, runs: bool) -> None:
        code = compile("\n" * (block.line - 1) + block.text, str(self.page), "exec", dont_inherit=True)
        if not runs:
            return
        names = vars(self.module)
        exec(before, names)
        exec(code, names)
        for statement in ast.parse(block.text).body:
            name = getattr(statement, "name", "")
            if name.startswith("test_"):
                assert inspect.iscoroutinefunction(names[name]), f"{where}: {name}"
                asyncio.run(names[name]())

    def _command(self, command: str, shown: list[str], how: str, rest: str, where: str) -> None:
        words = shlex.split(command.partition("  #")[0].partition(" < ")[0])
        if words[0] == "python" and how == "run":
            done = subprocess.run(
                [sys.executable, *words[1:]], capture_output=True, text=True, check=True, timeout=30
            )
            told = done.stdout + done.stderr
        elif words[0] != "segue" or how not in ("run", "kill"):
            assert words[0] in ("segue", "pip", "export", "python"), f"{where}: {command}"
            if words[0] == "segue":
                make_parser(words[1:]).parse_args(words[1:])
            return
        elif how == "kill":
            _kill_in_the_middle(words[1:])
            return
        else:
            codes = [int(code) for code in rest.removeprefix("exits").split()] or [0, 3]
            told = _segue(words[1:], codes, f"{where}: {command}")
        compare(shown, told, f"{where}: {command}")


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with what it is said to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, [line for line in shown if line.strip()]


def _segue(words: list[str], codes: list[int], where: str) -> str:
    """Run a command in this process; what it printed. One that waits for a batch is given again."""
    until = time.monotonic() + 10
    while True:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main(words)
        assert code in codes, f"{where}: it left with {code} and said\n{out.getvalue()}"
        open_lines = words[0] == "advance" and code == 3 and _waits_for_batch()
        if not open_lines or time.monotonic() > until:
            return out.getvalue()
        time.sleep(0.05)


def _waits_for_batch() -> bool:
    """Whether lines are at the provider, for which a reader of the page would wait."""

    async def look() -> bool:
        store = open_store("sqlite:segue.db")
        await store.open()
        try:
            return bool(await store.batch_jobs())
        finally:
            await store.close()

    return asyncio.run(look())


def _kill_in_the_middle(words: list[str]) -> None:
    process = subprocess.Popen([*SEGUE, *words], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < until:
        if Path("segue.db").exists() and _waits_for_batch():
            break
        time.sleep(0.02)
    process.kill()
    process.wait()


def compare(shown: list[str], told: str, where: str) -> None:
    """Each line that a page shows was told, whatever the numbers, times and widths of columns."""
    known = {plain(line) for line in told.splitlines()}
    for line in shown:
        assert plain(line) in known, f"{where}: the page shows\n  {line}\nand the command told\n{told}"


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"\d+(\.\d+)? (ms|s|min|h)\b", "#", line)
    line = re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "#", line)).strip()
    return " · ".join(sorted(line.split(" · ")))


def _forget(name: str) -> None:
    """Have a file that changed imported anew."""
    stem = Path(name).stem
    for module in (stem, f"_segue_{stem}"):
        sys.modules.pop(module, None)
    cached = Path("__pycache__")
    for file in cached.glob(f"{stem}.*") if cached.is_dir() else ():
        os.unlink(file)
    linecache.clearcache()
