"""`segue check`: which stored runs go on with changed code."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

import segue
from segue.authoring.flow import TARGETS
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


PIPE = """
import segue

@segue.flow
async def letter(name: str{more}) -> str:
    return await segue.ask(f"Draft for {{name}}?")
"""


def forget(module: str) -> None:
    """As another process would know nothing of it."""
    sys.modules.pop(module, None)
    for name in [name for name, target in TARGETS.items() if getattr(target, "module", "") == module]:
        del TARGETS[name]


def test_a_parameter_more(desk: Desk):
    """Runs that wait are held with that as the reason, and go on when it has a default."""
    desk.write("pipe.py", PIPE.format(more=""))
    desk.write("rows.jsonl", '"Ada"\n"Bob"\n')
    desk.segue("map", "pipe.py:letter", "rows.jsonl", "--id", "j", "--no-wait")
    desk.write("pipe.py", PIPE.format(more=", tone: str"))
    forget("pipe")
    said = desk.segue("check", "pipe.py")
    assert said.code == 1
    assert (
        "2 of letter would be held, such as j/0: What it was started with doesn't fit flow 'letter'"
        in said.out
    )
    assert (
        "missing 1 required positional argument: 'tone'. Restore the parameters of letter, or give"
        in said.out
    )
    for name in ("j/0", "j/1"):
        desk.segue("answer", name, "Dear")
    assert "2 held" in desk.segue("advance", "pipe.py").err
    failed = desk.segue("runs", "--failed").out
    assert failed.startswith(
        "2 held, such as j/0\n  What it was started with doesn't fit flow 'letter' any more"
    )
    desk.write("pipe.py", PIPE.format(more=", tone: str = ''"))
    forget("pipe")
    assert desk.segue("resume", "--all-like", "j/0", "--keep").code == 0
    assert "2 done" in desk.segue("advance", "pipe.py").err


def test_what_moved_is_told_of_once(desk: Desk):
    desk.write("pipe.py", PIPE.format(more=""))
    desk.write("rows.jsonl", '"Ada"\n"Bob"\n"Cleo"\n')
    desk.segue("map", "pipe.py:letter", "rows.jsonl", "--id", "j", "--no-wait")
    forget("pipe")
    desk.write("moved.py", PIPE.format(more=", tone: str = ''"))
    for n in range(3):
        desk.segue("answer", f"j/{n}", "Dear")
    said = desk.segue("advance", "moved.py")
    assert said.err.count("isn't the same. If it is, moved and changed") == 1
    assert "Said once for all such runs" in said.err


BOX = """
import segue

class Put(segue.Note):
    n: {type}
{more}
class Box(segue.Actor[str]):
    total: int = 0

    @segue.on
    async def put(self, note: Put) -> None:
        self.total += 1
"""
SEAL = """
class Seal(segue.Note):
    pass

class Spare(segue.Actor[str]):
    @segue.on
    async def seal(self, note: Seal) -> None:
        pass
"""


def test_mail_that_could_not_be_read(desk: Desk) -> None:
    """What waits in an inbox, and what is told for later."""
    desk.write("box.py", BOX.format(type="int", more=SEAL))
    asyncio.run(_told(load_module("box.py")))
    assert desk.finish(desk.start("check", "box.py")).code == 1  # Box takes no Seal
    desk.write("box.py", BOX.format(type="list[int]", more=""))
    said = desk.finish(desk.start("check", "box.py"))
    assert said.code == 1
    assert "2 go on as they are · 0 migrate · 0 would be held · 4 messages could not be read" in said.err
    assert "3 Put to Box could not be read, such as to a: .n is an integer, not an array" in said.out
    assert "1 Seal to Box could not be read, such as to b: no handler takes it" in said.out
    rows = desk.finish(desk.start("check", "box.py", "--json")).rows
    assert [(row["run"], row["what"], len(row["unread"])) for row in rows] == [
        ("b", "same", 3),
        ("a", "same", 1),
    ]


async def _told(box: Any) -> None:
    async with segue.Engine("sqlite:segue.db", worker=False) as engine:
        one, two = await engine.start(box.Box(), id="a"), await engine.start(box.Box(), id="b")
        await one.tell(box.Put(1))
        await two.tell(box.Put(2), after=timedelta(days=1))
        await two.tell(box.Put(3), every=timedelta(days=1))
        await two.tell(box.Seal())
