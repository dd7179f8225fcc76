"""Whether what is written as one type can be read as another: beside what is really read."""

from __future__ import annotations

import enum
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, Never, NewType, Protocol, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

import segue
from segue.core import codec
from segue.core.fit import misfits
from segue.errors import InvalidValue

T = TypeVar("T")
B = TypeVar("B", bound=int)


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Point3(Point):
    z: int = 0


@dataclass
class Named:
    name: str


@dataclass
class Wordy:
    x: str


@dataclass
class Tree:
    below: list[Tree] = field(default_factory=list)


@dataclass
class Bush:
    below: list[Bush] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    inside: T


class Struct(msgspec.Struct):
    x: int


class Renamed(msgspec.Struct, rename="upper"):
    x: int


class Row(msgspec.Struct, array_like=True):
    x: int


class Pair(NamedTuple):
    x: int
    y: int


class Typed(TypedDict):
    x: int


class Loose(TypedDict, total=False):
    name: str


class Model(pydantic.BaseModel):
    x: int


class Other(pydantic.BaseModel):
    name: str


class Aliased(pydantic.BaseModel):
    name: str = pydantic.Field(validation_alias=pydantic.AliasChoices("x", "nom"))


class Open(pydantic.BaseModel, extra="allow"):
    x: int


class Root(pydantic.RootModel[int]):
    pass


class Kind(pydantic.BaseModel):
    """It reads whatever it is given."""

    x: int

    @pydantic.model_validator(mode="before")
    @classmethod
    def any(cls, given: Any) -> Any:
        return given if isinstance(given, dict) else {"x": 1}


class Written(pydantic.BaseModel):
    """It is written as a number."""

    x: int

    @pydantic.model_serializer
    def number(self) -> int:
        return self.x


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    ONE = 1


class Mixed(enum.Enum):
    A = 1
    B = "b"


class Speaks(Protocol):
    def speak(self) -> str: ...


Id = NewType("Id", int)

#: Types, and values of each.
SAMPLES: list[tuple[Any, list[Any]]] = [
    (None, [None]),
    (bool, [True]),
    (int, [1, 0]),
    (Id, [Id(3)]),
    (Annotated[int, "a number"], [4]),
    (float, [1.0, 1.5]),
    (str, ["", "a", "2026-01-01", "1", "red", "2026-01-01T00:00:00Z", "P1D", str(uuid.UUID(int=1))]),
    (bytes, [b"ab"]),
    (datetime, [datetime(2026, 1, 1, tzinfo=UTC)]),
    (date, [date(2026, 1, 1)]),
    (timedelta, [timedelta(1)]),
    (Decimal, [Decimal(1), Decimal("1.5")]),
    (uuid.UUID, [uuid.UUID(int=1)]),
    (Path, [Path("a")]),
    (Colour, [Colour.RED]),
    (Level, [Level.ONE]),
    (Mixed, [Mixed.A, Mixed.B]),
    (Literal["red", 1], ["red", 1]),
    (Literal["red"], ["red"]),
    (list, [[], [1]]),
    (list[int], [[1]]),
    (list[str], [["a"]]),
    (list[int | None], [[1, None], [1]]),
    (set[int], [{1}]),
    (Sequence[int], [[1], (1,)]),
    (tuple[int, ...], [(1,), (1, 2)]),
    (tuple[int, int], [(1, 2)]),
    (tuple[int, str], [(1, "a")]),
    (tuple[int], [(1,)]),
    (tuple[()], [()]),
    (dict, [{}, {"x": 1}]),
    (dict[str, int], [{"x": 1}]),
    (dict[str, str], [{"x": "a"}]),
    (Mapping[str, int], [{"x": 1}]),
    (Point, [Point(1)]),
    (Point3, [Point3(1)]),
    (Named, [Named("a")]),
    (Wordy, [Wordy("a")]),
    (Tree, [Tree([Tree()])]),
    (Bush, [Bush()]),
    (Box[int], [Box(1)]),
    (Box[str], [Box("a")]),
    (Struct, [Struct(1)]),
    (Renamed, [Renamed(1)]),
    (Row, [Row(1)]),
    (Pair, [Pair(1, 2)]),
    (Typed, [{"x": 1}]),
    (Loose, [{}, {"name": "a"}]),
    (Model, [Model(x=1)]),
    (Other, [Other(name="a")]),
    (Aliased, [Aliased(x="a")]),  # type: ignore[call-arg]  # by its alias
    (Open, [Open(x=1, name="a", inside=1)]),  # type: ignore[call-arg]  # it takes more
    (Root, [Root(1)]),
    (Kind, [Kind(x=1)]),
    (Written, [Written(x=1)]),
    (segue.Run[int], []),
    (Any, [1, None]),
    (object, [1]),
    (int | str, [1, "a"]),
    (int | None, [1, None]),
    (Point | None, [Point(1), None]),
]


def can_be_read(value: Any, tp: Any) -> bool:
    try:
        codec.decode(codec.encode(value), tp)
    except InvalidValue:
        return False
    return True


def test_what_is_told_can_never_be_read() -> None:
    told = 0
    for (written, values), (read, _) in itertools.product(SAMPLES, SAMPLES):
        found = misfits(written, read)
        whole = len(found) == (2 if written in (int | str, int | None, Point | None) else 1)
        if found and whole:
            told += 1
            assert not any(can_be_read(value, read) for value in values), (written, read)
        elif found:
            assert not all(can_be_read(value, read) for value in values), (written, read)
    assert told > 1500  # most pairs of so many kinds


def test_a_type_fits_itself() -> None:
    assert [tp for tp, _ in SAMPLES if misfits(tp, tp)] == []


@pytest.mark.parametrize(
    ("written", "read", "part", "why"),
    [
        (int, str, int, ""),
        (bool, int, bool, ""),
        (None, int, None, ""),
        (int | None, int, type(None), ""),
        (str | int, int | None, str, ""),
        (list[int], list[str], list[int], "its items are int, not str"),
        (
            list[list[int]],
            list[list[str]],
            list[list[int]],
            "its items are list[int], not list[str]: its items are int",
        ),
        (tuple[int, int], tuple[int], tuple[int, int], "2 items, not 1"),
        (tuple[int, str], list[int], tuple[int, str], "its items are str, not int"),
        (dict[str, int], dict[str, str], dict[str, int], "its values are int, not str"),
        (Point, Named, Point, "it has no 'name'"),
        (Point, Wordy, Point, "its 'x' is int, not str"),
        (Struct, Named, Struct, "it has no 'name'"),
        (Renamed, Struct, Renamed, "it has no 'x'"),
        (Row, Point, Row, ""),
        (Model, Other, Model, "it has no 'name'"),
        (Box[int], Box[str], Box[int], "its 'inside' is int, not str"),
        (Typed, Named, Typed, "it has no 'name'"),
        (Colour, int, Colour, ""),
        (Point, str, Point, ""),
        (segue.Run[int], int, segue.Run[int], ""),
    ],
)
def test_what_is_told(written: Any, read: Any, part: Any, why: str) -> None:
    (found,) = misfits(written, read)
    assert found.part == part
    assert found.why.startswith(why)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (int, float),
        (float, int),  # 1.0 is read
        (str, datetime),
        (dict[str, Any], Point),
        (Point, dict[str, Any]),
        (Point3, Point),
        (Struct, Point),
        (Tree, Bush),
        (list[int | None], list[int]),
        (Open, Other),
        (Model, Aliased),
        (Model, Kind),
        (int, Kind),
        (Written, str),
        (int, Root),
        (Speaks, int),
        (Callable[[], int], int),
        (T, int),
        (int, T),
        (B, int),
        (list[Any], list[int]),
        (Never, int),
        (type[int], int),
    ],
)
def test_what_cant_be_judged_is_let_through(written: Any, read: Any) -> None:
    assert misfits(written, read) == []
