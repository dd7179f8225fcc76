"""Schemas as models are asked for, and answers as models give them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core.codec import encode
from segue.core.schema import schema
from segue.core.shape import Shape
from segue.core.strict import strict
from segue.model.errors import BadSignature, InvalidValue


class Kind(enum.Enum):
    BILLING = "billing"
    BUG = "bug"


@dataclasses.dataclass
class Item:
    """One line of an order."""

    sku: Annotated[str, msgspec.Meta(description="Stock number", min_length=1)]
    count: int = 1
    note: str | None = None


@dataclasses.dataclass
class Order:
    id: int
    items: list[Item]
    kind: Kind = Kind.BUG
    when: datetime | None = None


@dataclasses.dataclass
class Refund:
    reason: str
    usd: float = 0.0


@dataclasses.dataclass
class Decision:
    """What to do."""

    action: Order | Refund
    sure: bool = True


@dataclasses.dataclass
class Node:
    name: str
    below: list[Node] = dataclasses.field(default_factory=list)
    pick: Item | Refund | None = None


class Ticket(pydantic.BaseModel):
    """A ticket."""

    id: int = pydantic.Field(description="Number of the ticket", ge=1)
    title: str = "untitled"
    item: Annotated[int, pydantic.Field(description="in words")] | None = None
    parent: Ticket | None = None


class Row(TypedDict):
    a: int
    b: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Yes:
    kind: Literal["yes"] = "yes"
    why: str = ""


@dataclasses.dataclass
class No:
    kind: Literal["no"] = "no"
    why: str | None = "null"


@dataclasses.dataclass
class Empty:
    pass


@dataclasses.dataclass
class WithPath:
    at: Path = Path("x")


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """`node` and all schemas below it."""
    if not isinstance(node, dict):
        return
    yield node
    below = [*node.get("properties", {}).values(), *node.get("$defs", {}).values(), *node.get("anyOf", [])]
    for part in [*below, node.get("items"), node.get("additionalProperties")]:
        yield from walk(part)


def resolves(node: dict[str, Any]) -> bool:
    names = {part["$ref"].rpartition("/")[2] for part in walk(node) if "$ref" in part}
    return names == set(node.get("$defs", {}))


STRICT = [Order, Item, Refund, Decision, Node, Ticket, Row, Empty, Kind, int, list[Item], Literal["a", 1, None],
          Item | Refund, list[Ticket | Item], str | None, WithPath, list[list[int]], Ticket | None, bool]  # fmt: skip
FREE = [dict[str, int], Any, list[Any], tuple[int, str], Point, dict[str, Any] | None]


@pytest.mark.parametrize("tp", STRICT, ids=str)
def test_strict_closes_every_object(tp: Any) -> None:
    shape = Shape.of(tp)
    assert shape.strict
    assert shape.schema["type"] == "object"
    assert resolves(shape.schema)
    for node in walk(shape.schema):
        assert set(node) & {"$ref", "type", "anyOf"}, node
        assert not set(node) & {"default", "title", "minLength", "oneOf", "allOf", "discriminator"}
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
        if "$ref" in node:
            assert set(node) == {"$ref"}


@pytest.mark.parametrize("tp", FREE, ids=str)
def test_what_strict_cannot_say_is_asked_plainly(tp: Any) -> None:
    shape = Shape.of(tp)
    assert not shape.strict
    assert shape.schema == shape.plain
    assert shape.schema["type"] == "object"


def test_words_are_kept() -> None:
    made = Shape.of(Order).schema
    item = made["$defs"]["Item"]
    assert item["description"] == "One line of an order."
    assert item["properties"]["sku"]["description"] == "Stock number (minLength: 1)"
    ticket = Shape.of(Ticket).schema
    assert ticket["description"] == "A ticket."
    assert ticket["properties"]["id"] == {
        "type": "integer",
        "description": "Number of the ticket",
        "minimum": 1,
    }
    union = Shape.of(Decision).schema
    assert union["description"] == "What to do."
    assert Shape.of(Annotated[int, "a number"]).schema["properties"]["value"]["description"] == "a number"


def test_optional_is_nullable_and_null_is_the_default() -> None:
    made = Shape.of(Item).schema
    assert made["properties"]["count"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert made["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert Shape.of(Item).decode('{"sku":"a","count":null,"note":null}') == Item("a")
    answer = '{"id":1,"items":[{"sku":"a","count":null,"note":"n"}],"kind":null,"when":null}'
    assert Shape.of(Order).decode(answer) == Order(1, [Item("a", 1, "n")])
    nested = '{"action":{"reason":"r","usd":null},"sure":null}'
    assert Shape.of(Decision).decode(nested) == Decision(Refund("r"))
    assert Shape.of(Ticket).decode(
        '{"id":1,"title":null,"item":null,"parent":{"id":2,"title":null}}'
    ) == Ticket(id=1, parent=Ticket(id=2))
    assert Shape.of(Row).decode('{"a":1,"b":null}') == {"a": 1}
    tree = '{"name":"a","below":[{"name":"b","below":null,"pick":{"reason":"x","usd":null}}],"pick":null}'
    assert Shape.of(Node).decode(tree) == Node("a", [Node("b", [], Refund("x"))])


def test_a_tag_is_never_null_and_tells_members_apart() -> None:
    shape = Shape.of(list[Yes | No])
    assert shape.schema["$defs"]["Yes"]["properties"]["kind"] == {"type": "string", "enum": ["yes"]}
    assert shape.decode('[{"kind":"no","why":null},{"kind":"yes","why":null}]') == [No("no", None), Yes()]


def test_a_null_where_none_may_be_stays_an_error() -> None:
    with pytest.raises(InvalidValue, match="sku"):
        Shape.of(Item).decode('{"sku":null}')


@pytest.mark.parametrize("tp", [int, str, Literal["a"], list[Item], Kind, Item | Refund, Item | None, Point])
def test_what_is_no_object_is_wrapped(tp: Any) -> None:
    shape = Shape.of(tp)
    assert shape.wrapped
    assert list(shape.schema["properties"]) == ["value"]


def test_objects_are_not_wrapped_and_have_no_reference_at_the_root() -> None:
    for tp in (Order, Node, Ticket, Row, dict[str, int], Empty):
        shape = Shape.of(tp)
        assert not shape.wrapped
        assert "$ref" not in shape.plain


def test_two_classes_of_one_name_stay_two() -> None:
    def make(field: str) -> Any:
        return dataclasses.make_dataclass("Same", [(field, int)])

    made = schema(list[make("a") | make("b")])
    assert [sorted(part["properties"]) for part in made["$defs"].values()] == [["a"], ["b"]]
    outer = dataclasses.make_dataclass("Outer", [("x", make("a") | make("b")), ("y", list[make("c")])])
    assert len(schema(outer)["$defs"]) == 3
    assert resolves(schema(outer))


@dataclasses.dataclass
class _Pair:
    left: list[Item | Refund]
    right: dict[str, Item | Refund]
    point: tuple[int, Item | Refund]


def test_a_class_that_msgspec_refuses_has_a_schema() -> None:
    made = schema(_Pair)
    assert made["properties"]["left"]["items"]["anyOf"] == [
        {"$ref": "#/$defs/Item"},
        {"$ref": "#/$defs/Refund"},
    ]
    assert made["required"] == ["left", "right", "point"]
    assert made["properties"]["point"]["minItems"] == 2
    assert strict(made) is None


def test_what_json_cannot_fill_has_no_schema() -> None:
    for tp in (bytes | str, complex, list[Ellipsis.__class__]):
        with pytest.raises(BadSignature):
            schema(tp)


def test_names_fit_a_provider() -> None:
    assert Shape.of(Order).name == "Order"
    assert Shape.of(list[Order]).name == "list_Order"
    assert Shape.of(int | None).name == "answer"


GOOD = [
    '{"sku":"a","count":2}',
    ' \n{"sku":"a","count":2}\n',
    '\ufeff{"sku":"a","count":2}',
    '```json\n{"sku":"a","count":2}\n```',
    '```\n{"sku":"a","count":2}\n```\n',
    'Here you are:\n\n```json\n{"sku":"a","count":2}\n```\nAnything else?',
    'The answer is {"sku":"a","count":2}.',
]


@pytest.mark.parametrize("text", GOOD)
def test_json_is_found(text: str) -> None:
    assert Shape.of(Item).decode(text) == Item("a", 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("I can't help with that.", "no JSON"),
        ('{"sku":"a","count":2', "no JSON"),
        ('{"sku":"a"} or {"sku":"b"}', "no JSON"),
        ('```json\n{"sku":"a"}\n```\nor\n```json\n{"sku":"b"}\n```', "no JSON"),
        ('{"sku":"a","count":"two"}', ".count is a string, not an integer"),
        ('{"count":2}', "the field `sku` is missing"),
        ('[{"sku":"a"}]', "it is an array"),
        ("null", "it is null"),
        ('{"sku":""}', ".sku"),
    ],
)
def test_what_is_wrong_is_said_to_the_model(text: str, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Shape.of(Item).decode(text)
    assert says in str(caught.value)
    assert "Item" in str(caught.value)


def test_wrapped_answers() -> None:
    assert Shape.of(int).decode('{"value":3}') == 3
    assert Shape.of(int).decode("3") == 3
    assert Shape.of(list[int]).decode("Sure: [1, 2]") == [1, 2]
    assert Shape.of(Kind).decode('{"value":"bug"}') is Kind.BUG
    assert Shape.of(Kind).decode("bug") is Kind.BUG
    assert Shape.of(Literal["a", "b"] | None).decode('{"value":null}') is None
    assert Shape.of(Literal["yes", "no"]).decode("`yes`\n") == "yes"
    assert Shape.of(Item | Refund).decode('{"value":{"reason":"r","usd":null}}') == Refund("r")
    assert Shape.of(Item | Refund).decode('{"reason":"r","usd":1.5}') == Refund("r", 1.5)
    assert Shape.of(str).decode('{"value":"text"}') == "text"
    for text in ("text", '{"value":"te', "bugs"):
        with pytest.raises(InvalidValue):
            Shape.of(str if text != "bugs" else Kind).decode(text)
    with pytest.raises(InvalidValue, match="inside `value`"):
        Shape.of(int).decode('{"value":"x"}')
    with pytest.raises(InvalidValue, match="must be an object"):
        Shape.of(int).decode('{"answer":3}')


items = st.builds(Item, st.text("abc", min_size=1), st.integers(), st.none() | st.text("ab"))
refunds = st.builds(Refund, st.text("abc"), st.floats(allow_nan=False, allow_infinity=False))
nodes = st.recursive(
    st.builds(Node, st.text("ab"), st.just([]), st.none() | items | refunds),
    lambda below: st.builds(Node, st.text("ab"), st.lists(below, max_size=3), st.none() | items | refunds),
    max_leaves=6,
)


@given(nodes)
def test_answers_come_back_as_they_were(node: Node) -> None:
    assert Shape.of(Node).decode(encode(node).decode()) == node
    assert Shape.of(list[Node]).decode(f"```json\n{encode({'value': [node]}).decode()}\n```") == [node]


def test_shapes_are_made_once() -> None:
    assert Shape.of(Order) is Shape.of(Order)
    assert Shape.of(Annotated[int, ["unhashable"]]).decode("1") == 1
