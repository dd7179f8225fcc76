"""`segue check`: which stored runs go on with changed code."""

from __future__ import annotations

import asyncio
from typing import Any

import segue
from segue.cli.target import load_module
from tests.cli.desk import Desk, Said

ACTOR = """
import segue

class Tick(segue.Note):
    pass

class Diary(segue.Actor[str]):
    pages: int = 0
    dropped: str = "x"

    @segue.on
    async def tick(self, note: Tick) -> None:
        self.pages += 1
        await segue.ask("Well?", to="boss")

@segue.flow
async def letter(name: str) -> str:
    draft = await segue.ask(f"Draft for {name}?", to="boss")
    return draft + str(await segue.ask("Really?", to="boss"))
"""


def start(desk: Desk) -> None:
    """Two letters and a diary, at their first question."""
    desk.write("old.py", ACTOR)
    asyncio.run(_start(load_module("old.py")))


async def _start(old: Any) -> None:
    async with segue.Engine("sqlite:segue.db") as engine:
        for name in ("ann", "bob"):
            await engine.start(old.letter(name), id=name)
        run = await engine.start(old.Diary(), id="diary")
        await run.tell(old.Tick())
        while len(await engine.store.asks()) < 3:
            await asyncio.sleep(0.01)


def check(desk: Desk, *options: str) -> Said:
    """In a process of its own, as after an edit."""
    return desk.finish(desk.start("check", "old.py", *options))


def test_nothing_changed(desk: Desk) -> None:
    start(desk)
    said = check(desk)
    assert said.code == 0, said.err
    assert "3 go on as they are · 0 migrate · 0 would be held" in said.err


def test_each_cause_is_told_once_and_nothing_is_touched(desk: Desk) -> None:
    start(desk)
    before = desk.segue("runs", "--json").rows
    desk.write("old.py", ACTOR.replace("Draft for", "Write to").replace('    dropped: str = "x"\n', ""))
    said = check(desk)
    assert said.code == 1
    assert "0 go on as they are · 1 migrate · 2 would be held" in said.err
    assert "2 of letter would be held, such as ann: A recorded call has other arguments now" in said.out
    assert "Write to ann?" in said.out
    assert "1 of Diary migrate, such as diary: Diary has no field dropped any more" in said.out
    assert desk.segue("runs", "--json").rows == before
    rows = check(desk, "--json").rows
    assert sorted((row["run"], row["what"]) for row in rows) == [
        ("ann", "held"),
        ("bob", "held"),
        ("diary", "migrates"),
    ]


def test_what_cant_be_read_or_found(desk: Desk) -> None:
    start(desk)
    changed = ACTOR.replace("pages: int = 0", "pages: list[str] = segue.field(default_factory=list)")
    desk.write("old.py", changed.replace("async def letter", "async def note"))
    said = check(desk)
    assert said.code == 1
    assert "1 of Diary would be held, such as diary: What is stored doesn't fit Diary" in said.out
    assert "2 of letter would be held, such as ann: no flow 'letter' is defined" in said.out
