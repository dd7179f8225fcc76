"""Values to JSON and back: nothing is lost without a word."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import types
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass as pydantic_dataclass

from segue.core.codec import (
    decode,
    decoder,
    digest,
    encode,
    encode_call,
    encode_deterministic,
    encode_stable,
    reader,
)
from segue.model.errors import BadSignature, InvalidValue, NotEncodable

X = TypeVar("X")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(str, enum.Enum):  # noqa: UP042
    YES = "yes"


class Level(enum.IntEnum):
    LOW = 1


class Mixed(enum.Enum):
    POINT = (1, 2)
    NAME = "n"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    pass


class Count(int):
    pass


class Table(dict[str, int]):
    pass


@dataclasses.dataclass
class Ticket:
    id: int
    title: str = ""
    when: datetime | None = None
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Small:
    id: int = 0


@dataclasses.dataclass
class Large:
    id: int = 0
    size: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    value: Small | Large
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Pair(Generic[X]):
    left: X
    right: X | None = None


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


class Full(msgspec.Struct, tag=True):
    part: Small | Large


class Void(msgspec.Struct, tag=True):
    part: Small | Large


@dataclasses.dataclass
class Later:
    part: Small | Large
    seen: int = dataclasses.field(init=False, default=3)

    def __post_init__(self) -> None:
        self.seen = 4


@dataclasses.dataclass
class Init:
    seed: dataclasses.InitVar[int]


class Gap(msgspec.Struct):
    part: Small | Large | msgspec.UnsetType = msgspec.UNSET


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    last_seen: date | None = None


class Row(TypedDict, total=False):
    a: int
    b: str


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Model(pydantic.BaseModel):
    id: int
    at: datetime | None = None
    home: Path = Path("/")
    from_date: date | None = pydantic.Field(default=None, alias="fromDate")


class Other(pydantic.BaseModel):
    name: str


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    any: Any = None
    real: list[float] = []


class Doubled(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    n: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.n * 2


@pydantic_dataclass
class Positive:
    n: int = pydantic.Field(gt=0)


@dataclasses.dataclass
class Holder:
    model: Model
    either: Model | Other | None = None
    positive: Positive | None = None


Id = NewType("Id", int)
NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (int, 1),
    (int, 10**30),
    (int, -(2**64)),
    (float, 1.0),
    (float, 5e-324),
    (bool, True),
    (None, None),
    (type(None), None),
    (str, "ü \U0001f600 null \x00"),
    (bytes, b"\x00\xff"),
    (Any, {"a": [1, 1.5, None, True, "x"]}),
    (object, [1, {"a": 2}]),
    (list[object], [1, {"a": [2]}]),
    (datetime, NOW),
    (datetime, datetime(2026, 1, 2)),
    (date, date(2026, 1, 2)),
    (time, time(1, 2, 3, 4)),
    (timedelta, timedelta(days=-3, microseconds=5)),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("1.50")),
    (Colour, Colour.RED),
    (Word, Word.YES),
    (Level, Level.LOW),
    (Mixed, Mixed.POINT),
    (list[Mixed], [Mixed.NAME, Mixed.POINT]),
    (Right, Right.READ | Right.WRITE),
    (dict[str, Right], {"a": Right.READ}),
    (Text, Text("x")),
    (list[Count], [Count(3)]),
    (Table, Table(a=1)),
    (Path, Path("/a/b")),
    (list[pathlib.PurePosixPath], [pathlib.PurePosixPath("a")]),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (tuple[int, Small | Large], (1, Large(1, 2))),
    (set[int], {1, 2}),
    (frozenset[str], frozenset("ab")),
    (dict[int, str], {1: "a"}),
    (dict[Path, int], {Path("a"): 1}),
    (dict[Text, Small | Large], {Text("a"): Small(1)}),
    (dict[date, list[int]], {date(2026, 1, 2): [1]}),
    (dict[int, Small | Large], {1: Small(1), 2: Large(2)}),
    (Mapping[str, int], {"a": 1}),
    (collections.deque[int], collections.deque([1, 2])),
    (collections.OrderedDict[str, int], collections.OrderedDict(a=1)),
    (collections.Counter[str], collections.Counter("aab")),
    (collections.defaultdict[str, set[int]], collections.defaultdict(set, a={1})),
    (Ticket, Ticket(1, "t", NOW, {"a", "b"})),
    (list[Ticket], [Ticket(1), Ticket(2)]),
    (Ticket | None, None),
    (Ticket | None, Ticket(3)),
    (Small | Large, Small(1)),
    (Small | Large, Large(1, 0)),
    (Large | Small, Small(1)),
    (Union[int, Small, Large, None], Large(2, 3)),  # noqa: UP007
    (Small | Large | None, None),
    (list[Small | Large], [Small(1), Large(2, 3)]),
    (dict[str, Any] | Small, Small(1)),
    (dict[str, Any] | Small, {"x": 1}),
    (Tree, Tree(Small(1), [Tree(Large(2, 3)), Tree(Small(3))])),
    (Pair[int], Pair(1, 2)),
    (Pair[Small | Large], Pair(Small(1), Large(2))),
    (Pair[Small] | Large, Pair(Small(1))),
    (Cat | Dog, Dog("rex")),
    (Cat | Dog | Small, Cat("tom")),
    (Cat | Dog | Small, Small(4)),
    (Full | Void, Void(Small(1))),
    (Full | Void, Full(Large(1, 2))),
    (Later, Later(Small(1))),
    (Gap, Gap()),
    (Gap, Gap(Large(1))),
    (Renamed, Renamed("a", date(2026, 1, 2))),
    (Renamed | Small, Renamed("a")),
    (Row, {"a": 1}),
    (Row | Small, {"a": 1, "b": "x"}),
    (Point, Point(1, 2.5)),
    (list[Point], [Point(1)]),
    (str | datetime, NOW),
    (str | datetime, "tomorrow"),
    (UUID | int | str, UUID(int=1)),
    (list[int] | list[str], ["a"]),
    (Literal["a", 1, None], "a"),
    (Literal["a"] | None, None),
    (Literal["auto"] | str, "x"),
    (Optional[Annotated[int, msgspec.Meta(ge=1)]], 4),  # noqa: UP045
    (Id, 5),
    (X, 5),
    (Annotated[str, {"unhashable": 1}], "x"),
    (list[Annotated[Small | Large, ["unhashable"]]], [Large(1)]),
    (Model, Model(id=1, at=NOW, home=Path("/x"), fromDate=date(2026, 1, 2))),
    (list[Model], [Model(id=1)]),
    (Model | None, None),
    (Model | None, Model(id=1)),
    (dict[str, Model], {"a": Model(id=1)}),
    (Model | Other, Other(name="x")),
    (Model | Other | str, "x"),
    (list[Model | Other], [Other(name="x"), Model(id=1)]),
    (Model | Small, Small(7)),
    (Doubled, Doubled(n=2)),
    (Positive, Positive(2)),
    (list[Positive], [Positive(2)]),
    (Holder, Holder(Model(id=1), Other(name="o"), Positive(1))),
    (Pair[Model], Pair(Model(id=1))),
]


@pytest.mark.parametrize(
    ("tp", "value"), ROUND_TRIPS, ids=lambda x: str(sorted(x) if isinstance(x, frozenset) else x)[:60]
)
def test_round_trip(tp: Any, value: Any) -> None:
    back = decoder(tp)(encode(value))
    assert back == value
    assert type(back) is type(value)
    if isinstance(value, dict):
        assert [type(key) for key in back] == [type(key) for key in value]
    again = reader(tp)(json.loads(encode(value)))
    assert again == value
    assert type(again) is type(value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


def alike(a: object, b: object) -> bool:
    """Equality that tells 1, 1.0 and True apart."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@given(plain)
def test_plain_json_comes_back_as_it_was(value: object) -> None:
    assert alike(decode(encode(value)), value)
    assert alike(decode(encode_deterministic(value)), value)


@given(plain, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_nan_never_becomes_null(value: object, bad: float) -> None:
    for made in (bad, [value, bad], {"a": {"b": [value, bad]}}, (bad, value), Pair(value, bad)):
        with pytest.raises(NotEncodable, match=r"nan|inf"):
            encode(made)
        with pytest.raises(NotEncodable, match=r"nan|inf"):
            encode_deterministic(made)


@given(st.lists(st.builds(Small, st.integers()) | st.builds(Large, st.integers(), st.integers())))
def test_union_of_dataclasses_comes_back_as_it_was(values: list[Small | Large]) -> None:
    assert decode(encode(values), list[Small | Large]) == values


@given(st.dictionaries(st.text("ab") | st.integers(0, 9), st.frozensets(st.integers() | st.text("xyz"))))
def test_deterministic_ignores_order(value: dict[object, frozenset[object]]) -> None:
    turned = {key: frozenset(sorted(part, key=repr, reverse=True)) for key, part in reversed(value.items())}
    if len({str(key) for key in value}) == len(value):
        assert encode_deterministic(value) == encode_deterministic(turned)


def test_deterministic_sorts_sets_in_classes_whatever_they_hold() -> None:
    first, second = Pair[Any]({1, "a", None, "b", 2}), Pair[Any]({2, "b", None, "a", 1})
    assert encode_deterministic(first) == encode_deterministic(second)
    assert encode_deterministic([{"b": 1, "a": {3, 1, 2}}]) == b'[{"a":[1,2,3],"b":1}]'
    assert encode_deterministic({2: 1, 10: {"x", 1}}) == b'{"10":["x",1],"2":1}'
    assert encode_deterministic(Renamed("a")) == b'{"firstName":"a","lastSeen":null}'


class Tagged(pydantic.BaseModel):
    tags: set[str]
    inner: dict[str, list[frozenset[str]]] = {}


@dataclasses.dataclass
class Sorted:
    by: dict[str, Any]


_WORDS = ["a", "b", "cc", "d", "e", "ff", "g"]
# As a process with another seed of its hashes would meet them.
_SETS = f"""
import dataclasses, pydantic, sys
sys.path[:0] = {sys.path!r}
from test_codec import Sorted, Tagged
from segue.core.codec import encode_stable
from segue.core.signature import InputShape
def call(words: set[str], *, more: Tagged) -> None: ...
words = {_WORDS!r}
each = [
    set(words), {{"z": 1, "a": [{{"in": frozenset(words)}}]}}, Sorted({{"z": 1, "a": set(words)}}),
    Tagged(tags=set(words), inner={{"z": [frozenset(words)], "a": []}}), [Tagged(tags=set(words))],
]
print(b"|".join(encode_stable(value) for value in each).decode())
print(InputShape.of(call).encode_call((set(words),), {{"more": Tagged(tags=set(words))}}).decode())
"""


def test_sets_are_written_alike_by_every_process() -> None:
    def told(seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.run(
            [sys.executable, "-c", _SETS], env=env, check=True, capture_output=True, text=True
        ).stdout

    one = told("1")
    assert one == told("2")
    whole = '["a","b","cc","d","e","ff","g"]'
    assert one.split("|")[:3] == [
        whole,
        f'{{"z":1,"a":[{{"in":{whole}}}]}}',
        f'{{"by":{{"z":1,"a":{whole}}}}}',
    ]


class Sparse(msgspec.Struct, omit_defaults=True):
    """What it holds isn't written where it is what it holds anyway."""

    of: Any = []
    more: list[Any] = []


_INSIDE = st.recursive(
    st.sampled_from(["a", "[", 7, None, "[["]) | st.sets(st.sampled_from(_WORDS), min_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=3)
        | st.builds(Sparse, inner | st.just([]))
        | st.builds(Sorted, st.dictionaries(st.sampled_from(_WORDS), inner, max_size=2))
    ),
    max_leaves=8,
)


def sorted_by_hand(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [sorted_by_hand(item) for item in value]
    if isinstance(value, dict):
        return {key: sorted_by_hand(item) for key, item in value.items()}
    if isinstance(value, Sparse):
        return {} if value.of == [] else {"of": sorted_by_hand(value.of)}
    return {"by": sorted_by_hand(value.by)} if isinstance(value, Sorted) else value


@given(_INSIDE)
def test_no_set_is_overlooked_beside_what_is_none(value: Any) -> None:
    expected = sorted_by_hand(value)
    assert encode_stable(value) == msgspec.json.encode(expected)
    assert encode_stable(["x" * 5000, value]) == msgspec.json.encode(["x" * 5000, expected])
    assert encode_call((value,), {}) == msgspec.json.encode([[expected], {}])
    assert encode_call((1, value), {"it": value}) == msgspec.json.encode([[1, expected], {"it": expected}])


def test_a_list_that_is_not_written_is_not_taken_for_a_set() -> None:
    words = set(_WORDS)
    deep = {"a": {"b": words}}
    assert encode_stable([Sparse(), deep]) == msgspec.json.encode([{}, {"a": {"b": sorted(words)}}])


class Live:
    def close(self) -> None: ...


async def coroutine() -> None: ...


CYCLE: list[Any] = [1]
CYCLE.append({"back": CYCLE})


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        ({"items": [0, 1, 2, Pair(Live())]}, ".items[3].left", "@segue.resource"),
        ({"a-b": object()}, "['a-b']", "dataclass"),
        (Holder(Model.model_construct(id=object())), ".model.id", "plain parts"),
        ({(1, 2): 3}, "", "key (1, 2)"),
        ({"a": {None: 3}}, ".a", "key None"),
        ({"a": {True: 3}}, ".a", "key True"),
        ({"\ud800": 1}, "", "key '\\ud800'"),
        (["ok", "\ud800"], "[1]", "lone surrogate"),
        (Ticket(1, "\udfff"), ".title", "lone surrogate"),
        ([ValueError("x")], "[0]", "str(error)"),
        ([int], "[0]", "name"),
        ([len], "[0]", "returns"),
        ((x for x in "ab"), "", "list"),
        (1j, "", "complex"),
        ([{1, math.nan}], "[0]{…}", "nan"),
        (Loose(any=math.nan), ".any", "nan"),
        ([Loose(real=[math.nan])], "[0].real[0]", "nan"),
        (Loose(extra=math.inf), ".extra", "inf"),
        ({"n": None, "big": 2**70, "x": [math.inf]}, ".x[0]", "inf"),
        (CYCLE, "[1].back", "holds itself"),
        (types.SimpleNamespace(a=1), "", "SimpleNamespace"),
    ],
    ids=lambda x: re.sub("0x[0-9a-f]+", "0x", ascii(x))[:40],
)
def test_refusals_name_the_place_and_the_cure(value: object, path: str, says: str) -> None:
    with pytest.raises(NotEncodable) as caught:
        encode(value, where="result of triage")
    assert caught.value.path == path
    assert "result of triage" in str(caught.value)
    assert says in str(caught.value)


def test_a_coroutine_says_await() -> None:
    made = coroutine()
    with pytest.raises(NotEncodable, match="await it first"):
        encode([made])
    made.close()


def test_deep_nesting_is_refused_not_a_crash() -> None:
    deep: list[Any] = []
    for _ in range(1_000_000):
        deep = [deep]
    with pytest.raises(NotEncodable, match="nested too deeply"):
        encode(deep)
    with pytest.raises(InvalidValue, match="nested too deeply"):
        decode(b"[" * 100_000 + b"]" * 100_000)


def test_floats_and_nulls_that_are_fine_pass() -> None:
    for value in (
        [None, 1.5],
        {"a": None, "b": 2**70},
        Ticket(1),
        "null",
        Model(id=1),
        [None, "\u02cb\x7f\xff"],
    ):
        encode(value)
    assert encode(b"\xcb\x7f\xf8 null") is not None
    assert encode([None, b"\xcb\x7f\xf8"]) == b'[null,"y3/4"]'


@pytest.mark.parametrize(
    ("tp", "data", "says"),
    [
        (int, b'"1"', ["int", "it is a string", '"1"']),
        (list[Ticket], b'[{"id":1},{"id":"x"}]', ["list[Ticket]", "[1].id", '"x"']),
        (Ticket | None, b"{}", ["Ticket | None", "the field `id` is missing", "{}"]),
        (Literal["a", "b"], b'"c"', ["Literal['a', 'b']", "invalid enum value 'c'"]),
        (Colour, b'"green"', ["Colour", "green"]),
        (Mixed, b"[3]", ["Mixed", "[3]"]),
        (Any, b"{nope", ["JSON is malformed", "{nope"]),
        (int, b"\xff", ["int"]),
        (Small | Large, b'"x"', ["Small | Large", "as Small", "as Large", '"x"']),
        (list[Small | Large], b'[{"id":1},{"id":[]}]', ["[1]", ".id is an array"]),
        (Tree, b'{"value":{"id":1},"children":[{"value":3}]}', [".children[0].value"]),
        (Model, b'{"id":"x"}', ["Model", "integer", ".id", '"x"']),
        (list[Model], b'[{"id":"x"}]', ["list[Model]", "[0].id", '"x"']),
        (Positive, b'{"n":-1}', ["greater than 0", ".n"]),
        (list[Positive], b'[{"n":-1}]', ["greater than 0", "[0].n"]),
        (dict[int, str], b'{"a":"b"}', ["int"]),
        (tuple[int, Small | Large], b"[1]", ["length 2"]),
        (collections.deque[int], b'["a"]', ["deque[int]", "[0]"]),
        (Path, b"1", ["Path"]),
        (Full, b'{"type":"Void","part":{"id":1}}', ["Full", "Void"]),
        (Annotated[list[Small | Large], msgspec.Meta(min_length=1)], b"[]", ["length >= 1"]),
    ],
    ids=lambda x: str(x)[:40],
)
def test_what_is_wrong_is_said(tp: Any, data: bytes, says: list[str]) -> None:
    with pytest.raises(InvalidValue) as caught:
        decode(data, tp, where="answer 'a1'")
    for part in ["answer 'a1'", *says]:
        assert part in str(caught.value)


def test_what_came_is_shortened() -> None:
    with pytest.raises(InvalidValue) as caught:
        decode(encode("x" * 10_000), int)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "tp",
    [
        bytes | str,
        Init,
        list[Init | None],
        Decimal | str | None,
        Live,
        list[Live],
        dict[str, Live | None],
        complex,
        collections.abc.Callable[[int], int],
        type[int],
        Literal[b"x"],
        dict[Live, int],
    ],
    ids=str,
)
def test_types_that_json_cannot_fill_are_refused_early(tp: Any) -> None:
    with pytest.raises(BadSignature):
        decoder(tp)


def test_classes_with_the_same_fields_are_told_apart_or_refused() -> None:
    @dataclasses.dataclass
    class Approve:
        why: str = ""

    @dataclasses.dataclass
    class Deny:
        why: str = ""

    @dataclasses.dataclass
    class Yes:
        kind: Literal["yes"] = "yes"

    @dataclasses.dataclass
    class No:
        kind: Literal["no"] = "no"

    with pytest.raises(BadSignature, match="same fields"):
        decoder(Approve | Deny)  # their annotations are text, resolved against this module
    assert decode(encode(No()), Yes | No) == No()


def test_a_field_that_init_does_not_take_comes_back() -> None:
    value = Later(Large(1))
    value.seen = 9
    assert decode(encode(value), Later) == value


def test_of_a_union_the_member_that_keeps_most_is_taken() -> None:
    @dataclasses.dataclass
    class Wide:
        a: int
        x: int = 0

    @dataclasses.dataclass
    class Deep:
        a: int
        b: int = 0
        y: int = 0

    assert decode(b'{"a":1,"b":2}', Wide | Deep) == Deep(1, 2)
    assert decode(b'{"a":1,"x":2}', Wide | Deep) == Wide(1, 2)
    assert decode(b'{"a":1}', Deep | Wide) == Wide(1)


@dataclasses.dataclass(frozen=True)
class Deeper:
    kind: str = "k"
    one: Ticket | int | None = None
    many: tuple[Ticket, ...] = ()
    named: dict[str, list[Ticket]] = dataclasses.field(default_factory=dict)
    both: tuple[int, Small] = (1, Small())
    union: Small | Large | None = None
    below: list[Deeper] = dataclasses.field(default_factory=list)
    row: Inside | None = None


class Inside(TypedDict, total=False):
    small: Small


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"one":{"id":1}}',
        b'{"many":[{"id":1}],"kind":"x"}',
        b'{"named":{"a":[{"id":1}]}}',
        b'{"both":[1,{}]}',
        b'{"union":{"size":1}}',
        b'{"below":[{"below":[{"one":{"id":2}}]}]}',
        b'{"row":{"small":{}}}',
        b'{"row":{}}',
    ],
)
def test_defaults_are_part_of_what_was_decoded(data: bytes) -> None:
    for value in (
        decode(data, Deeper),
        reader(Deeper)(json.loads(data)),
        decode(b"[" + data + b"]", list[Deeper])[0],
    ):
        whole = decode(encode(dataclasses.asdict(value)), Any)
        assert decode(encode(value), Any) == whole
        assert decode(encode(value), Deeper) == value
        assert encode_deterministic(value) == encode_deterministic(decode(encode(value), Deeper))
    assert encode(decode(b'{"id":1}', Ticket)) == encode(Ticket(1))
    assert decode(encode(decode(b"{}", Small)), Any) == {"id": 0}
    assert [encode(part) for part in decode(b"[{},{}]", tuple[Small, Small])] == [b'{"id":0}'] * 2


def test_lax_reading_takes_text_as_csv_has_it() -> None:
    assert reader(int, strict=False)("3") == 3
    assert reader(bool, strict=False)("true") is True
    assert reader(float | None, strict=False)("1.5") == 1.5
    assert reader(list[Small | Large], strict=False)([{"id": "3"}]) == [Small(3)]
    with pytest.raises(InvalidValue):
        reader(int)("3")


def test_decoders_are_made_once() -> None:
    assert decoder(list[Ticket]) is decoder(list[Ticket])
    assert reader(list[Ticket]) is not None


def test_pydantic_is_not_imported() -> None:
    code = (
        "import sys; from segue.core import codec, shape, signature, toolshape\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass A: x: int = 0\n"
        "@dataclass\nclass B: y: int = 0\n"
        "assert codec.decode(codec.encode([A(1), B(2)]), list[A | B]) == [A(1), B(2)]\n"
        "def f(a: A | B, n: int = 3): ...\n"
        "toolshape.ToolShape.of(f); signature.InputShape.of(f); shape.Shape.of(list[A | B])\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_digest_is_16_bytes_and_tells_apart() -> None:
    assert len(digest(b"")) == 16
    assert digest(b"a") == digest(b"a") != digest(b"b")


@pytest.mark.bench
def test_encode_overhead() -> None:
    import timeit

    value = {
        "name": "x" * 100,
        "items": [{"sku": f"s{i}", "n": i, "usd": i * 1.5, "t": ["a"]} for i in range(18)],
    }
    bare = msgspec.json.Encoder().encode
    times = [min(timeit.repeat(lambda f=f: f(value), number=5000, repeat=9)) for f in (bare, encode)]
    assert times[1] < 1.5 * times[0]


@dataclasses.dataclass
class Note:
    n: int
    tags: list[str]


@pytest.mark.parametrize(
    ("data", "tp", "says"),
    [
        ('"x"', int, """v: expected int: it is a string; got "x\""""),
        ("1.5", int | None, "v: expected int | None: it is a number; got 1.5"),
        ('{"n": "x", "tags": []}', Note, """v: expected Note: .n is a string, not an integer; got "x\""""),
        ('{"n": 1, "tags": [1]}', Note, "v: expected Note: .tags[0] is an integer, not a string; got 1"),
        ('{"n": 1}', Note, """v: expected Note: the field `tags` is missing; got {"n": 1}"""),
        ("-1", Annotated[int, msgspec.Meta(ge=0)], "v: expected int: it must be an integer >= 0; got -1"),
        ("[1]", tuple[int, int], "v: expected tuple[int, int]: it must be an array of length 2; got [1]"),
        (
            '{"a": 1}',
            dict[int, int],
            """v: expected dict[int, int]: a key is a string, not an integer; got {"a": 1}""",
        ),
        (
            "3",
            Note | datetime | dict[str, int],
            "v: expected Note | datetime | dict[str, int]: fits no member of the union (as Note: it is an integer; "
            "as datetime: it is an integer; as dict[str, int]: it is an integer); got 3",
        ),
    ],
)
def test_a_misfit_is_told_once(data: str, tp: Any, says: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        decode(data, tp, where="v")
    assert str(raised.value) == says
