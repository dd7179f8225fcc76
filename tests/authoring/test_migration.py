"""Actors whose class has changed: what is stored of them goes on, is migrated, or is kept until somebody decides."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.authoring.actor.checkpoint import Delta, write_delta
from segue.errors import InvalidValue, StateMismatch
from segue.ports.store import Store, Turn
from segue.stores import open_store
from segue.testing.crash import Mortal

HOUR = 3600.0


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: Any, tmp_path: Path) -> AsyncIterator[Store]:
    found = open_store("memory:" if request.param == "memory" else f"sqlite:{tmp_path}/runs.db")
    await found.open()
    yield found
    await found.close()


def engine_on(store: Store, **options: Any) -> segue.Engine:
    """One that leaves the store open."""
    return segue.Engine(Mortal(store, None), **options)


@dataclass
class Waiting:
    until: int


class Get(segue.Request[str]):
    pass


class Plain(segue.Actor[str]):
    count: int = 0
    fresh: list[str] = segue.field(default_factory=lambda: ["default"])

    @segue.on
    async def get(self, request: Get) -> str:
        return f"{self.count} {self.fresh}"


class Needs(segue.Actor[str]):
    must: int

    @segue.on
    async def get(self, request: Get) -> str:
        return f"{self.must}"


class Moved(segue.Actor[str]):
    cents: int = 0

    @classmethod
    def migrate(cls, old: segue.Stored) -> None:
        if "euros" in old.fields:
            old.fields["cents"] = int(old.fields.pop("euros") * 100)
        if old.state == "Paused":
            old.state, old.data = "Waiting", {"until": old.data["till"]}

    @segue.state
    async def waiting(self, state: Waiting) -> segue.Listen:
        self.cents += state.until
        return segue.Listen()

    @segue.on
    async def get(self, request: Get) -> str:
        return f"{self.cents}"


class Versioned(segue.Actor[str]):
    version = "2"
    amount: int = 0

    @classmethod
    def migrate(cls, old: segue.Stored) -> None:
        assert old.version in ("", "1")
        old.fields["amount"] *= 100

    @segue.on
    async def get(self, request: Get) -> str:
        return f"{self.amount}"


class Clumsy(segue.Actor[str]):
    @classmethod
    def migrate(cls, old: segue.Stored) -> None:
        raise KeyError("nowhere")

    @segue.on
    async def get(self, request: Get) -> str:
        return "never"


async def put(store: Store, actor: Any, checkpoint: dict[str, Any], deltas: tuple[bytes, ...] = ()) -> None:
    """A run of it, as an earlier class left it."""
    async with engine_on(store, worker=False) as engine:
        await engine.start(actor, id="a")
        (claimed,) = await store.claim("w", 1, HOUR, now=0.0)
        fence = claimed.head.fence
        await store.commit([Turn(run="a", fence=fence, checkpoint=json.dumps(checkpoint).encode())])
        for delta in deltas:
            await store.commit([Turn(run="a", fence=fence, delta=delta)])
        await store.commit([Turn(run="a", fence=fence, status="parked", release=True, seen=10**9)])


async def answers(store: Store, actor: Any, times: int = 1) -> str:
    """What it says now."""
    async with engine_on(store) as engine:
        run = await engine.start(actor, id="a")
        said = [await run.request(Get()) for _ in range(times)]
    assert len(set(said)) == 1
    return str(said[0])


async def test_new_fields_take_their_defaults_and_lost_ones_are_told_of(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await put(store, Plain(), {"fields": {"count": 7, "gone": "secret"}})
    with caplog.at_level(logging.WARNING, "segue"):
        assert await answers(store, Plain()) == "7 ['default']"
    assert "Plain has no field gone any more; it is dropped" in caplog.text
    assert "secret" not in caplog.text


async def test_fields_and_states_are_migrated_once(store: Store) -> None:
    await put(store, Moved(), {"fields": {"euros": 1.5}, "state": "Paused", "data": {"till": 3}})
    assert await answers(store, Moved(), 3) == "153"
    assert await answers(store, Moved()) == "153"


async def test_deltas_are_migrated_with_what_they_are_of(store: Store) -> None:
    delta = write_delta(
        Delta(b'{"fields":null,"turns":2}', [("euros", 0, 0, b"2.5"), ("log", 4, 1, b"y" * 9)])
    )
    await put(store, Moved(), {"fields": {"euros": 1.5, "log": "xxx" + "x" * 2000}}, (delta,))
    assert await answers(store, Moved()) == "250"
    found = await store.load("a")
    assert found is not None
    assert found.deltas == []  # they were of the old class


async def test_a_declared_version_decides(store: Store) -> None:
    await put(store, Versioned(), {"fields": {"amount": 3}, "version": "1"})
    assert await answers(store, Versioned(), 2) == "300"
    assert await answers(store, Versioned()) == "300"


async def test_one_that_begins_is_of_the_version_that_made_it(store: Store) -> None:
    async with engine_on(store) as engine:
        await engine.start(Versioned(5), id="a")
    assert await answers(store, Versioned(5)) == "5"


@pytest.mark.parametrize(
    ("actor", "checkpoint", "problem"),
    [
        (Plain(), {"fields": {"count": "seven"}}, "Plain.count: expected int"),
        (Plain(), {"fields": {"count": 1}, "state": "Lost"}, "its next state is Lost"),
        (Needs(1), {"fields": {}}, "it has no must yet"),
        (Clumsy(), {"fields": {"x": 1}}, "migrate() raised KeyError: 'nowhere'"),
        (Plain(), {"fields": {"count": 1}, "actor": "Unheard.Of"}, "it goes on as Unheard.Of"),
    ],
)
async def test_what_cant_be_read_is_kept(
    store: Store, actor: Any, checkpoint: dict[str, Any], problem: str
) -> None:
    """The run is held with the cure, and its bytes stay as they are."""
    await put(store, actor, checkpoint)
    before = await store.load("a")
    assert before is not None
    async with engine_on(store) as engine:
        run = await engine.start(actor, id="a")
        await run.tell(Get())
        reason = (await engine.wait("a")).reason
    assert problem in reason
    assert "segue resume a" in reason
    after = await store.load("a")
    assert after is not None
    assert (after.checkpoint, after.head.status) == (before.checkpoint, "held")


def test_the_cause_is_the_same_for_all_runs() -> None:
    first, second = (StateMismatch(run, "Plain", "count is a text") for run in "ab")
    assert first.cause == second.cause


class Word(segue.Note):
    text: str


class Spell(segue.Request[str]):
    text: str


class Reader(segue.Actor[str]):
    heard: list[str] = segue.field(default_factory=list[str])

    @segue.on(retry=3)
    async def word(self, note: Word) -> None:
        self.heard.append(note.text)

    @segue.on
    async def spell(self, request: Spell) -> str:
        return " ".join([*self.heard, *request.text])

    async def failed(self, error: Exception) -> None:
        self.heard.append(type(error).__name__)


class OldWord(segue.Note):
    number: int


class OldSpell(segue.Request[str]):
    number: int


OldWord.__qualname__, OldSpell.__qualname__ = "Word", "Spell"


async def test_a_message_that_cant_be_read_any_more_is_a_dead_letter(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line, with the reason: no handler began, so nothing failed and nothing is tried again."""
    async with engine_on(store) as engine:
        run = await engine.start(Reader(), id="a")
        await run.tell(OldWord(7))
        await run.tell(Word("so"))
        with pytest.raises(InvalidValue, match=r"what Reader\.spell takes: expected Spell"):
            await run.request(OldSpell(7))
        assert await run.request(Spell("ab")) == "so a b"
    (dead,) = await store.dead_letters()
    assert (dead.mail.name, dead.reason) == ("Word", "Reader.word() can't read it")
    assert dead.error is not None
    assert "the field `text` is missing" in dead.error.message
    told, answered = caplog.records
    assert told.exc_info is None
    assert "run a: Reader.word() can't read it: what Reader.word takes: expected Word" in told.getMessage()
    assert "Reader.spell() can't read it" in answered.getMessage()
