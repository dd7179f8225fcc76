"""Actors that live long: what they write and what wakes them doesn't grow with what they have done."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue.authoring.actor import tail
from segue.authoring.actor.checkpoint import Checkpoint, Delta, read_stored, write_checkpoint, write_delta
from segue.authoring.actor.tail import LONG, MANY, SHORT
from segue.model.run import Head
from segue.ports.store import Store, Turn
from segue.runtime.wake.executor import Executor
from segue.stores import open_store
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import heads
from segue.stores.sqlite.store import SqliteStore
from tests.authoring.killed import at_every_commit
from tests.runtime.lives import Desk


class Chapter(segue.Note):
    text: str


class Close(segue.Note):
    pass


class Chronicle(segue.Actor[int]):
    chapters: list[str] = segue.field(default_factory=lambda: ["x" * 100] * 30)
    index: dict[str, int] = segue.field(default_factory=dict)
    rows: list[dict[str, Any]] = segue.field(default_factory=list)
    count: int = 0

    @segue.on
    async def chapter(self, note: Chapter) -> None:
        self.chapters.append(note.text)
        self.index[note.text] = self.count
        self.count += 1
        await segue.sleep(timedelta(0))  # a handler that waits
        self.rows.append({"text": note.text})
        self.rows[0]["last"] = note.text

    @segue.on
    async def close(self, note: Close) -> segue.Done[int]:
        assert [row["text"] for row in self.rows] == self.chapters[30:]
        assert self.rows[0]["last"] == self.chapters[-1]
        assert list(self.index.values()) == list(range(self.count))
        return segue.Done(self.count)


class Counted(segue.Actor[int]):
    count: int = 0

    @segue.on
    async def chapter(self, note: Chapter) -> None:
        self.count += 1


class Written(MemoryStore):
    """Keeps what is written of checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []

    def commit(self, turns: Sequence[Turn]) -> Any:
        self.turns += [turn for turn in turns if turn.checkpoint is not None or turn.delta is not None]
        return super().commit(turns)

    def land(self, turn: Turn, then: Any) -> Any:
        if turn.checkpoint is not None or turn.delta is not None:
            self.turns.append(turn)
        return super().land(turn, then)

    @property
    def bytes(self) -> int:
        return sum(len(turn.checkpoint or b"") + len(turn.delta or b"") for turn in self.turns)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_killed_at_every_commit(kind: str, tmp_path: Path) -> None:
    async def begin(engine: segue.Engine) -> None:
        run = await engine.start(Chronicle(), id="c")
        for text in "abc":
            await run.tell(Chapter(text))
        await run.tell(Close())

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b"3")

    assert await at_every_commit(begin, "c", check, kind=kind, path=tmp_path) > 8


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_killed_at_every_commit_as_rows_become_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "SHORT", 600)
    monkeypatch.setattr(tail, "MANY", 2)
    told = [f"{i}" * 20 for i in range(16)]
    replaced = set[int]()

    async def begin(engine: segue.Engine) -> None:
        run = await engine.start(Chronicle(), id="c")
        for text in told:
            await run.tell(Chapter(text))
        await run.tell(Close())

    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b"16")

    add = tail.Tail.add

    def seen(*args: Any) -> tail.Stored:
        stored = add(*args)
        replaced.add(min(stored.replaces, 2))
        return stored

    monkeypatch.setattr(tail.Tail, "add", seen)
    assert await at_every_commit(begin, "c", check, kind=kind, path=tmp_path) > 20
    assert replaced == {0, 1, 2}


async def test_one_delta_a_turn_as_older_versions_wrote_them(tmp_path: Path) -> None:
    """They are read, gone on with, and put together by what is written next."""
    store = open_store(f"sqlite:{tmp_path}/old.db")
    lines = [f"{i:0200}" for i in range(300)]
    text = '["' + "x" * 2000 + '"]'
    async with segue.Engine(store, worker=False) as engine:
        await engine.start(Shelf(), id="long")
        (claimed,) = await store.claim("w", 1, 60.0, now=1.0)
        base = Checkpoint(msgspec.Raw(b'{"chapters":' + text.encode() + b"}"))
        turn = Turn(run="long", fence=claimed.head.fence, checkpoint=write_checkpoint(base))
        await store.commit([turn])
        for n, line in enumerate(lines):
            head = write_checkpoint(Checkpoint(msgspec.Raw(b"null"), turns=n))
            added = f',"{line}"'
            delta = write_delta(Delta(head, [("chapters", len(text) - 1, 1, added.encode())]))
            text = text[:-1] + added + "]"
            await store.commit([Turn(run="long", fence=claimed.head.fence, delta=delta)])
        await store.commit([Turn(run="long", fence=claimed.head.fence, status="parked")])
    found = await told(store, Shelf(), ["the last"])
    stored = read_stored(found.checkpoint, found.deltas)
    chapters = Shelf.__segue__.load(stored.fields).chapters  # type: ignore[attr-defined]  # set by Actor
    assert chapters == ["x" * 2000, *lines, "the last"]
    assert len(found.deltas) < 5
    await store.close()


async def told(store: Store, actor: Any, texts: list[str]) -> Any:
    """What is stored of an actor that was told so much, one after the other."""
    async with segue.Engine(store) as engine:
        run = await engine.start(actor, id="long")
        for text in texts:
            await run.tell(Chapter(text))
            while await store.inbox("long", 0):
                await asyncio.sleep(0)
        return await store.load("long")


class Shelf(segue.Actor[int]):
    chapters: list[str] = segue.field(default_factory=list)

    @segue.on
    async def chapter(self, note: Chapter) -> None:
        self.chapters.append(note.text)


async def test_bytes_written_are_linear() -> None:
    store = Written()
    texts = [f"{i:0200d}" for i in range(600)]
    found = await told(store, Shelf(), texts)
    stored = read_stored(found.checkpoint, found.deltas)
    assert Shelf.__segue__.load(stored.fields).chapters == texts  # type: ignore[attr-defined]  # set by Actor
    assert len(store.turns) > 500
    assert max(len(turn.delta or b"") for turn in store.turns if turn.replaces <= 1) <= LONG
    anew = [
        turn.checkpoint or turn.delta or b"" for turn in store.turns if turn.checkpoint or turn.replaces > 1
    ]
    assert len(found.checkpoint) < 5000  # it was never written whole since it was small
    assert len(anew) < 10
    assert sum(map(len, anew)) <= 1.2 * 200 * len(texts)
    assert len(found.deltas) < MANY + 5


class Board(segue.Actor[int]):
    ballast: str = "x" * 5000
    last: str = ""
    cells: list[str] = segue.field(default_factory=lambda: ["-" * 50] * 99)

    @segue.on
    async def chapter(self, note: Chapter) -> None:
        self.last = note.text

    @segue.on
    async def put(self, note: Close) -> None:
        self.cells[int(self.last) * 37 % 99] = self.last


async def test_what_is_replaced_takes_the_place_of_what_was_there() -> None:
    store = Written()
    found = await told(store, Board(), [f"{i:0100d}" for i in range(300)])
    assert [i for i, turn in enumerate(store.turns) if turn.checkpoint is not None] == [0]
    assert len(found.deltas) == 1
    assert len(found.deltas[0]) < 400


async def test_deltas_stay_fewer_than_what_they_are_of() -> None:
    """Of an actor of constant size, changed now here, now there: they are put together now and then."""
    store = Written()
    async with segue.Engine(store) as engine:
        run = await engine.start(Board(), id="long")
        for i in range(300):
            await run.tell(Chapter(f"{i:040d}"))
            await run.tell(Close())
            while await store.inbox("long", 0):
                await asyncio.sleep(0)
    whole = [i for i, turn in enumerate(store.turns) if turn.checkpoint is not None]
    assert 2 <= len(whole) <= 30
    found = await store.load("long")
    assert found is not None
    assert len(found.deltas) < 2 * 10_000 / SHORT


async def test_a_wake_reads_no_more_after_many_messages(tmp_path: Path) -> None:
    """Rows, and SQLite's own steps."""
    steps = {}
    for count in (10, 3000):
        store = open_store(f"sqlite:{tmp_path}/{count}.db")
        assert isinstance(store, SqliteStore)
        async with segue.Engine(store) as engine:
            run = await engine.start(Counted(), id="long")
            for i in range(count):
                if i % 100 == 99:
                    await asyncio.sleep(0)
                await run.tell(Chapter(str(i)))
            while await store.inbox("long", 0):
                await asyncio.sleep(0.001)
            found = await store.load("long")
            assert found is not None
            assert found.checkpoint is not None
            assert (found.deltas, found.inbox) == ([], [])
            assert len(found.journal) <= 1
        await store.close()
        steps[count] = _steps(f"{tmp_path}/{count}.db")
    assert steps[3000] <= steps[10] * 1.2


def _steps(path: str) -> int:
    """Of SQLite's machine, to load a run."""
    cx = sqlite3.connect(path)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    cx.set_progress_handler(step, 1)
    heads.load(cx, "long")
    cx.close()
    return count


async def test_a_large_actor_stays_for_its_next_message() -> None:
    """To wake it takes long, so it isn't put away after each message; what it did is written all the same."""
    store = Written()
    texts = ["y" * 1000 for _ in range(100)]
    await told(store, Shelf(), texts)
    claims = await store.get("long")
    assert claims is not None
    assert claims.fence < 60  # woken for a part of the messages only


class Tell(segue.Request[list[str]]): ...


class Memory(segue.Actor[None]):
    """Makes of its fields, each time it is made, what they are to be."""

    last: list[str] = segue.field(default_factory=lambda: ["x" * 100] * 20)
    title: str = "t" * 100

    def __post_init__(self) -> None:
        del self.last[:-20]
        if not self.title.endswith("!"):
            self.title += "!"

    @segue.on
    async def tell(self, _: Tell) -> list[str]:
        self.last.append(f"said {len(self.last)}")
        return [*self.last, self.title]


async def test_what_the_class_makes_of_its_fields_as_it_wakes_is_stored() -> None:
    async with Desk().engine(park="always") as engine:
        run = await engine.start(Memory(), id="it")
        for _ in range(5):
            said = await run.request(Tell())
            loaded = await engine.store.load("it")
            assert loaded is not None
            assert loaded.checkpoint is not None
            fields = msgspec.json.decode(read_stored(loaded.checkpoint, loaded.deltas).fields)
            assert [*fields["last"], fields["title"]] == said


class Next(segue.Request[int]): ...


class Counter(segue.Actor[None]):
    count: int = 0

    @segue.on
    async def next(self, asked: Next) -> int:
        self.count += 1
        return self.count


@pytest.mark.parametrize("sent", [2**24 - 2, 2**32 - 9])
async def test_an_actor_that_is_never_idle_answers_its_billionth_request_too(
    sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers are numbered anew with each claim only; one with a lower number would count as doubled."""

    @segue.flow
    async def caller(counter: segue.Run[None]) -> list[int]:
        return [await counter.request(Next()) for _ in range(4)]

    monkeypatch.setattr(Executor, "sent", sent)
    async with segue.Engine("memory:") as engine, asyncio.timeout(10):
        assert await engine.run(caller(await engine.start(Counter()))) == [1, 2, 3, 4]
