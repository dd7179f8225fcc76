"""What is stored of an actor's fields as deltas is what they are, and as long as what was added."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest

import segue
from segue.authoring.actor import tail
from segue.authoring.actor.checkpoint import (
    Checkpoint,
    Delta,
    read_stored,
    read_texts,
    write_checkpoint,
    write_delta,
)
from segue.authoring.actor.fields import SMALL, Fields, as_read
from segue.authoring.actor.growth import CHANGES, EXACT, FIXED, trust, trust_of
from segue.authoring.actor.splices import Splice, Spliced, Splices
from segue.authoring.actor.tail import Tail
from segue.model.errors import NotEncodable
from segue.ports.store import Turn

HEAD = write_checkpoint(Checkpoint(msgspec.Raw(b"null"), turns=1))


@dataclass(frozen=True)
class Point:
    x: Any
    name: str = ""


@dataclass(frozen=True)
class Bag:
    items: list[int]


class Cell(msgspec.Struct):
    x: int


class Grower(segue.Actor[None]):
    words: list[str] = segue.field(default_factory=list)
    points: list[Point] = segue.field(default_factory=list)
    rows: list[dict[str, Any]] = segue.field(default_factory=list)
    text: str = ""
    pairs: tuple[Any, ...] = ()
    known: dict[str, Any] = segue.field(default_factory=dict)
    nested: dict[str, list[str]] = segue.field(default_factory=dict)
    number: Any = 0
    messages: list[segue.Message] = segue.field(default_factory=list)


DEFINITION: Any = vars(Grower)["__segue__"]


class Shelf:
    """What a store has of one actor."""

    def __init__(self, actor: Grower) -> None:
        self.actor = actor
        self.fields = Fields(DEFINITION, actor)
        self.base, self.deltas, self.tail = b"", list[bytes](), Tail()
        self.folds = 0

    def turn(self) -> int:
        """A turn is over; by how many bytes what is stored has grown."""
        self.fields.take(self.fields.look(self.actor), self.actor)
        if not (self.fields.spread and self.fields.as_stored):
            self.base, self.deltas, self.tail = write_checkpoint(Checkpoint(self.fields.whole())), [], Tail()
            self.fields.written()
            return len(self.base)
        delta = Delta(HEAD, self.fields.changed())
        new = self.tail.add(delta, self.fields.size, self.fields.between)
        assert new.gone == sum(map(len, self.deltas[len(self.deltas) - new.replaces :]))
        turn = Turn(run="a", fence=1, delta=new.delta, replaces=new.replaces)
        self.deltas = turn.after(self.deltas)
        self.folds += new.replaces > 1
        return len(new.delta) - new.gone

    def stored(self) -> msgspec.Raw:
        return read_stored(self.base, self.deltas).fields

    def wake(self) -> None:
        """Another life."""
        stored = self.stored()
        texts = read_texts(stored)
        values = DEFINITION.read(texts)
        table = as_read(DEFINITION, texts, values)
        self.actor = DEFINITION.cls(**values)
        self.fields = Fields(DEFINITION, self.actor, table)
        self.tail = Tail(self.deltas)


class Heavy:
    """What is no field, and says how often it was written."""

    written = 0

    def __segue_text__(self) -> str:
        self.written += 1
        return "heavy"


def test_what_is_no_field_isnt_written() -> None:
    actor, heavy = Grower(), Heavy()
    fields = Fields(DEFINITION, actor)
    actor.cache = heavy  # type: ignore[attr-defined]
    assert not fields.hold(actor)
    actor.words = ["a"]
    assert fields.hold(actor)
    assert texts(fields.whole()).keys() == DEFINITION.durable.keys()
    assert heavy.written == 0


def test_as_many_names_arent_the_same_names() -> None:
    actor = Grower()
    fields = Fields(DEFINITION, actor)
    actor.words = ["a"]
    values = dict(vars(actor))
    name = next(name for name in values if name != "words")
    vars(actor).pop(name)
    vars(actor)["cache"] = 1
    with pytest.raises(KeyError, match=name):
        fields.hold(actor)
    vars(actor).clear()
    vars(actor).update(values)
    assert fields.hold(actor)
    assert texts(fields.whole()).keys() == DEFINITION.durable.keys()


def texts(fields: msgspec.Raw) -> dict[str, bytes]:
    """Each field's."""
    return {name: bytes(text) for name, text in read_texts(fields).items()}


def grown() -> Shelf:
    """One that is too large to be written whole each time."""
    some = Grower()
    some.words = [f"word {i}" for i in range(200)]
    some.text = "é" * 500
    shelf = Shelf(some)
    shelf.turn()
    assert shelf.fields.spread
    return shelf


CHANGING: list[Callable[[Grower, random.Random], object]] = [
    lambda a, r: a.words.append(f"wörd {r.random()}"),
    lambda a, r: a.words.insert(r.randrange(len(a.words) + 1), "in between"),
    lambda a, r: a.words.pop(r.randrange(len(a.words))) if a.words else None,
    lambda a, r: a.words.__setitem__(0, "") if a.words else None,
    lambda a, r: a.words.clear() if r.random() < 0.1 else None,
    lambda a, r: a.words.extend(["a", "b" * 100]),
    lambda a, r: setattr(a, "words", list(a.words)),
    lambda a, r: setattr(a, "words", a.words[-20:]),
    lambda a, r: a.points.append(Point(r.randrange(9))),
    lambda a, r: a.points.__setitem__(-1, Point(True)) if a.points else None,
    lambda a, r: a.points.sort(key=lambda point: point.x),
    lambda a, r: a.rows.append({"n": r.randrange(9), "tags": []}),
    lambda a, r: a.rows[r.randrange(len(a.rows))].setdefault("tags", []).append("ü") if a.rows else None,
    lambda a, r: a.rows[0].clear() if a.rows else None,
    lambda a, r: setattr(a, "text", a.text + f'"\\\n{r.random()}😀'),
    lambda a, r: setattr(a, "text", a.text[1:]),
    lambda a, r: setattr(a, "text", a.text.replace("é", "e", 1)),
    lambda a, r: setattr(a, "pairs", (*a.pairs, ("k", r.randrange(5)))),
    lambda a, r: setattr(a, "pairs", (*a.pairs, [1.0])),
    lambda a, r: a.pairs[-1].append(1) if a.pairs and isinstance(a.pairs[-1], list) else None,
    lambda a, r: setattr(a, "pairs", a.pairs[::-1]),
    lambda a, r: a.known.__setitem__(f"key {r.randrange(50)}", r.choice([1, 1.0, True, None, "x" * 99, [1]])),
    lambda a, r: a.known.pop(next(iter(a.known))) if a.known else None,
    lambda a, r: (
        a.known.__setitem__(next(iter(a.known)), a.known.pop(next(iter(a.known)))) if a.known else None
    ),
    lambda a, r: a.nested.setdefault(r.choice("abc"), []).append("deep"),
    lambda a, r: setattr(a, "number", r.choice([0, 0.0, -0.0, 1, 1.0, True, 1e300])),
    lambda a, r: a.messages.append(segue.Message("user", "hello")),
]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(("short", "many"), [(tail.SHORT, tail.MANY), (600, 3), (0, 5)])
def test_what_is_stored_is_what_they_are(
    short: int, many: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few or many are put together."""
    monkeypatch.setattr(tail, "SHORT", short)
    monkeypatch.setattr(tail, "MANY", many)
    chance = random.Random(seed)
    shelf = grown()
    for _ in range(150):
        for _ in range(chance.choice([0, 1, 1, 1, 4])):
            chance.choice(CHANGING)(shelf.actor, chance)
        if chance.random() < 0.1:  # a handler fails, and what it did is taken back
            stored = shelf.fields.whole()
            chance.choice(CHANGING)(shelf.actor, chance)
            shelf.fields.look(shelf.actor)
            DEFINITION.restore(shelf.actor, stored)
        shelf.turn()
        assert texts(shelf.stored()) == texts(DEFINITION.dump(shelf.actor))
        if chance.random() < 0.1:
            shelf.wake()


@pytest.mark.parametrize("seed", range(50))
def test_splices_are_what_was_done(seed: int) -> None:
    """Put together, or one by one."""
    chance = random.Random(seed)
    was = text = bytes(chance.choices(b"abc", k=chance.randrange(30)))
    together, spliced = Splices(), Spliced(was, min(1, len(was)))
    each: list[Splice] = []
    for _ in range(12):
        front = chance.choice([len(text), chance.randint(0, len(text))])
        back = chance.randint(0, len(text) - front)
        splice = "f", front, back, bytes(chance.choices(b"xyz", k=chance.randrange(4)))
        text = text[:front] + splice[3] + text[len(text) - back :]
        together.add(splice)
        each.append(splice)
        spliced.put(*splice[1:])
        assert spliced.whole() == text
        once = Spliced(was, 0)
        for _, front, back, middle in together:
            once.put(front, back, middle)
        assert once.whole() == text
    assert len(list(together)) <= len(each)


def test_what_grows_is_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fields that grow; rows become one again and again, also over wakes."""
    monkeypatch.setattr(tail, "MANY", 8)
    shelf = grown()
    rows = written = 0
    for i in range(600):
        shelf.actor.words.append(f"{i}" * 30)
        shelf.actor.text += "."
        if i % 7 == 0:
            shelf.actor.number = i
        before = shelf.deltas
        shelf.turn()
        if shelf.folds and len(shelf.deltas) < len(before):
            written += len(shelf.deltas[-1])
        rows = max(rows, len(shelf.deltas))
        if i % 50 == 0:
            shelf.wake()
            assert shelf.actor.words[-1] == f"{i}" * 30
    assert texts(shelf.stored()) == texts(DEFINITION.dump(shelf.actor))
    assert shelf.folds >= 4
    assert written <= 1.2 * shelf.fields.size  # each byte once more
    assert rows <= 8 + shelf.folds
    assert sum(map(len, shelf.deltas)) <= 1.2 * shelf.fields.size


def test_rows_that_change_here_and_there_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what they changed is more than they are."""
    monkeypatch.setattr(tail, "MANY", 4)
    shelf = grown()
    shelf.actor.text = "x" * 100_000
    shelf.turn()
    for i in range(1000):
        shelf.actor.text = shelf.actor.text[: i * 97] + f"{i:04}" + shelf.actor.text[i * 97 + 4 :]
        assert shelf.turn() < 200
    assert shelf.folds == 0
    assert len(shelf.deltas) < 40
    assert texts(shelf.stored()) == texts(DEFINITION.dump(shelf.actor))


def test_fields_that_are_written_whole_again_leave_no_splices() -> None:
    """As those are that have become small, of an actor with many children."""
    stored = Tail([write_delta(Delta(HEAD, [("a", 1, 1, b"bcd")]))]).add(
        Delta(HEAD, [], fields=b'{"a":"x"}'), 0, lambda *_: b""
    )
    assert stored.replaces == 1
    base = write_checkpoint(Checkpoint(msgspec.Raw(b'{"a":"y"}')))
    assert texts(read_stored(base, [stored.delta]).fields) == {"a": b'"x"'}


def test_several_turns_in_one_commit() -> None:
    shelf = grown()
    for i in range(5):
        shelf.actor.words.append("x")
        shelf.actor.number = i
        shelf.fields.take(shelf.fields.look(shelf.actor), shelf.actor)
    changed = shelf.fields.changed()
    assert len(changed) == 2  # put together
    shelf.deltas.append(write_delta(Delta(HEAD, changed)))
    assert texts(shelf.stored()) == texts(DEFINITION.dump(shelf.actor))


@pytest.mark.parametrize(
    "add",
    [
        lambda actor: actor.words.append("y" * 200),
        lambda actor: actor.points.append(Point(1, "y" * 200)),
        lambda actor: actor.rows.append({"y": "y" * 200}),
        lambda actor: setattr(actor, "text", actor.text + "y" * 200),
        lambda actor: setattr(actor, "pairs", (*actor.pairs, "y" * 200)),
        lambda actor: actor.known.__setitem__(f"{len(actor.known)}", "y" * 200),
        lambda actor: actor.nested.setdefault("a", []).append("y" * 200),
        lambda actor: actor.messages.append(segue.Message("user", "y" * 200)),
    ],
)
def test_a_turn_adds_to_what_is_stored_what_it_added(add: Callable[[Grower], object]) -> None:
    shelf = grown()
    added = []
    for _ in range(300):
        add(shelf.actor)
        added.append(shelf.turn())
    assert max(added) < 300  # however much is there
    assert shelf.turn() < 40  # nothing


class Liar(str):
    pass


def test_what_can_change() -> None:
    assert trust("a") == trust((None, b"b")) == EXACT
    assert trust(1) == trust((1, "a")) == trust(Point(1)) == trust(segue.Message("user", "a")) == FIXED
    run: segue.Run[int] = segue.Run(None, "a")
    assert trust(run) == trust((run,)) == trust(run.recipient(str)) == FIXED
    assert trust([]) == trust({}) == trust(([],)) == trust(Cell(1)) == trust(Bag([])) == CHANGES
    assert trust(Liar("a")) == CHANGES


@pytest.mark.parametrize(
    ("tp", "expected"),
    [
        (list[str], EXACT),
        (Annotated[list[str | None] | None, "said"], EXACT),
        (dict[str, int], FIXED),
        (Sequence[segue.Message], FIXED),
        (tuple[int, ...], FIXED),
        (list[str] | dict[str, bool], FIXED),
        (list, None),
        (list[Any], None),
        (list[list[str]], None),
        (list[Cell], None),
        (list[str] | list[Cell], None),
        (list[str] | Any, None),
        (list[str] | Collection[Any], None),
        (str, None),
    ],
)
def test_what_a_type_tells_of_what_was_read(tp: Any, expected: int | None) -> None:
    assert trust_of(tp) == expected


def test_what_cant_be_stored_is_named() -> None:
    shelf = grown()
    shelf.actor.words.append(object())  # type: ignore[arg-type]  # the mistake
    with pytest.raises(NotEncodable, match=r"Grower\.words"):
        shelf.fields.look(shelf.actor)


def spread(shelf: Shelf) -> bool:
    return shelf.fields.spread


def test_small_ones_are_written_whole() -> None:
    shelf = Shelf(Grower())
    shelf.actor.words.append("x")
    shelf.turn()
    assert not spread(shelf)
    assert shelf.fields.size < SMALL
    shelf.actor.words.append("x" * SMALL)
    shelf.turn()  # grown: whole once more
    assert spread(shelf)
    assert len(shelf.deltas) == 0
    shelf.actor.words.append("y")
    shelf.turn()
    assert len(shelf.deltas) == 1
    assert DEFINITION.load(shelf.stored()).words[-1] == "y"


class Director(segue.Actor[None]):
    staff: list[segue.Run[None]]
    told: int = 0

    @segue.on
    async def tell(self, _: str) -> None:
        self.told += 1


async def test_addresses_arent_written_anew_with_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def text(run: segue.Run[None]) -> str:
        written.append(run.id)
        return run.id

    staff: list[segue.Run[None]] = [segue.Run(None, f"clerk/{n}") for n in range(100)]
    async with segue.Engine("memory:") as engine:
        director = await engine.start(Director(staff), id="director")
        monkeypatch.setattr(segue.Run, "__segue_text__", text)
        await director.feed(["do"] * 200)
        await director.ping()
        await director.interrupt()
        head = await engine.wait("director")
        assert head.status == "cancelled"
    assert len(written) <= 2 * len(staff)
