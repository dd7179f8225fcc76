"""Large contents in a SQLite file: each lies there once, and one that is missing is told of."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import Damaged
from segue.runtime.wake.rebase import entries_of
from segue.testing import FakeModel, ToolUse
from segue.testing.fake_model import FakeEngine
from segue.testing.rehearse import rehearse

SIZE = 100_000
TEXT = "x" * SIZE

broken = True


@segue.step
async def same(text: str) -> str:
    return text


@segue.step
async def longer(text: str) -> str:
    return text + "!"


@segue.flow
async def passes_on(text: str) -> str:
    return await same(text)


@segue.step
async def same_all(texts: list[str]) -> list[str]:
    return texts


@segue.flow
async def passes_on_all(texts: list[str]) -> list[str]:
    return await same_all(texts)


@segue.flow
async def asks(text: str) -> str:
    return text if await segue.ask("Fine?", returns=bool, show=text) else ""


@segue.flow
async def spawns(text: str) -> str:
    child = await segue.spawn(passes_on(text))
    return await child


@segue.flow
async def fails(text: str) -> str:
    found = await longer(await same(text))
    if broken:
        raise RuntimeError("broken")
    return found


def held(path: Path) -> list[tuple[str, int]]:
    """Which columns hold contents as large as `TEXT`, and how many times."""
    found: list[tuple[str, int]] = []
    with closing(sqlite3.connect(path)) as cx:
        tables = cx.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, *_ in cx.execute(f"pragma table_info({table})").fetchall():
                (size,) = cx.execute(f"select sum(length({column})) from {table}").fetchone()
                if size is not None and size >= SIZE:
                    found.append((f"{table}.{column}", round(size / SIZE)))
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.mark.parametrize("flow", [passes_on, asks, spawns])
async def test_what_goes_through_a_run_lies_in_the_file_once(flow: Callable[[str], Any], path: Path) -> None:
    async with segue.Engine(f"sqlite:{path}") as engine:
        run = await engine.start(flow(TEXT))
        if flow is asks:
            while not (open := await engine.open_asks()):
                await asyncio.sleep(0.01)
            assert open[0].show == TEXT
            assert held(path) == [("blobs.content", 1)]
            await engine.answer(open[0].id, True)
        assert await run == TEXT
        assert held(path) == [("blobs.content", 1)]
    async with segue.Engine(f"sqlite:{path}") as engine:
        assert await (await engine.get(run.id)) == TEXT


async def test_what_a_run_goes_on_with_lies_in_the_file_once(path: Path) -> None:
    global broken
    async with segue.Engine(f"sqlite:{path}") as engine:
        broken = True
        run = await engine.start(fails(TEXT), id="a")
        with pytest.raises(RuntimeError):
            await run
        broken = False
        await engine.resume("a")
        assert await run == TEXT + "!"
        assert await (await engine.fork("a", id="b")) == TEXT + "!"
        assert held(path) == [("blobs.content", 2)]


async def test_a_content_that_is_missing_is_told_of(path: Path) -> None:
    async with segue.Engine(f"sqlite:{path}") as engine:
        await (await engine.start(passes_on(TEXT), id="a"))
        await (await engine.start(passes_on("b" * SIZE), id="b"))
    with closing(sqlite3.connect(path)) as cx, cx:
        of_run = "select digest from holds where run = (select k from runs where id = 'a')"
        assert cx.execute(f"delete from blobs where digest in ({of_run})").rowcount == 1
    async with segue.Engine(f"sqlite:{path}") as engine:
        with pytest.raises(Damaged, match="missing"):
            await (await engine.get("a"))
        assert "its input can't be read" in (await engine.head("a")).damage
        with pytest.raises(
            Damaged, match=r"the journal of run 'a' can't be read \(a large content is missing"
        ):
            await entries_of(engine.store, "a")
        assert await (await engine.get("b")) == "b" * SIZE


@pytest.mark.parametrize(
    "changed", ["cast(replace(content, 'xx', 'xy') as blob)", "replace(content, 'xx', 'xy')"]
)
async def test_a_content_that_was_changed_is_told_of(changed: str, path: Path) -> None:
    async with segue.Engine(f"sqlite:{path}") as engine:
        await (await engine.start(passes_on(TEXT), id="a"))
    with closing(sqlite3.connect(path)) as cx, cx:
        assert cx.execute(f"update blobs set content = {changed}").rowcount == 1  # a blob, or a text
    async with segue.Engine(f"sqlite:{path}") as engine:
        with pytest.raises(Damaged):
            await (await engine.get("a"))
        assert "a large content isn't what its digest says" in (await engine.head("a")).damage


@segue.flow
async def asks_later(text: str) -> str:
    found = await longer(text)
    return found if await segue.ask("Fine?", returns=bool) else ""


async def test_a_content_that_is_missing_holds_up_no_rehearsal_of_others(path: Path) -> None:
    async with segue.Engine(f"sqlite:{path}") as engine:
        await engine.start(asks_later(TEXT), id="a")
        await engine.start(asks_later("small"), id="b")
        while len(await engine.open_asks()) < 2:
            await asyncio.sleep(0.01)
    with closing(sqlite3.connect(path)) as cx, cx:
        assert cx.execute("delete from blobs").rowcount == 2
    async with segue.Engine(f"sqlite:{path}", worker=False) as engine:
        told = {one.run: one async for one in rehearse(engine)}
    assert "a large content is missing" in told["a"].cause
    assert told["b"].what == "same"


async def test_a_content_that_was_changed_harms_no_new_run_and_is_mended_by_it(path: Path) -> None:
    async with segue.Engine(f"sqlite:{path}") as engine:
        await (await engine.start(passes_on(TEXT), id="a"))
    with closing(sqlite3.connect(path)) as cx, cx:
        assert cx.execute("update blobs set content = x'00'").rowcount == 1
    async with segue.Engine(f"sqlite:{path}") as engine:
        assert await (await engine.start(passes_on(TEXT), id="b")) == TEXT
        assert await (await engine.get("a")) == TEXT


async def test_a_piece_is_held_once_however_often_it_comes(path: Path) -> None:
    async with segue.Engine(f"sqlite:{path}") as engine:
        await (await engine.start(passes_on_all([TEXT] * 100)))
    with closing(sqlite3.connect(path)) as cx:
        assert cx.execute("select count(*), count(distinct at) from holds").fetchone() == (3, 3)


@segue.flow
async def writes(text: str) -> str:
    return await segue.generate(text, tools=[look_up])


async def look_up(name: str) -> str:
    """What is known of it."""
    return name * SIZE


async def test_what_a_model_and_tools_say_lies_in_the_file_once(path: Path) -> None:
    model = FakeModel()
    model.when("Write").reply(ToolUse("look_up", name="a"), ToolUse("look_up", name="b"), TEXT)
    async with FakeEngine(model, f"sqlite:{path}") as engine:
        assert await engine.run(writes("Write")) == TEXT
    assert held(path) == [("blobs.content", 3)]


async def test_a_question_whose_content_is_missing_is_told_of(path: Path) -> None:
    async with segue.Engine(f"sqlite:{path}") as engine:
        await engine.start(asks(TEXT), id="a")
        while not await engine.open_asks():
            await asyncio.sleep(0.01)
        with closing(sqlite3.connect(path)) as cx, cx:
            assert cx.execute("delete from blobs where length(content) > 50000").rowcount == 1
        (open,) = await engine.open_asks()
        assert "a large content is missing" in open.question


async def test_a_past_whose_content_is_missing_isnt_paid_anew(path: Path) -> None:
    global broken
    broken = True
    async with segue.Engine(f"sqlite:{path}") as engine:
        run = await engine.start(fails(TEXT), id="a")
        with pytest.raises(RuntimeError):
            await run
        await engine.resume("a")
        with pytest.raises(RuntimeError):
            await run
        with closing(sqlite3.connect(path)) as cx, cx:
            of_pool = "select digest from holds where at = (1 << 62) + 3"
            assert cx.execute(
                f"delete from blobs where length(content) > 50000 and digest in ({of_pool})"
            ).rowcount
        with pytest.raises(Damaged, match="missing"):
            await engine.resume("a")
