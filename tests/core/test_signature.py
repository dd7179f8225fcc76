"""Functions as tools, and as recorded calls."""

from __future__ import annotations

import dataclasses
import functools
import typing
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core import forms, signature
from segue.core.signature import InputShape
from segue.core.toolshape import ToolShape
from segue.model.errors import BadSignature, InvalidValue, NotEncodable

if TYPE_CHECKING:
    from decimal import Context


@dataclasses.dataclass
class Place:
    city: str
    zip: str = ""


@dataclasses.dataclass
class Spot:
    lat: float
    lon: float


class Filter(pydantic.BaseModel):
    since: date | None = None
    words: list[str] = []


async def weather(city: str, days: int = 3, *, unit: Literal["C", "F"] = "C") -> list[float]:
    """Forecast the weather
    of a city.

    Takes a while.

    Args:
        city: Name of the city,
            in English.
        days (int): How far.
        unit (Literal["C", "F"], optional): Degrees: C or F.

    Returns:
        One number a day.
    """
    return [float(days)]


def numpy_style(a: int, b: int, where: Place | Spot) -> None:
    """Add.

    Parameters
    ----------
    a, b : int
        Terms.
    where : Place or Spot
        A place,
        or a spot.

    Returns
    -------
    None
    """


def sphinx_style(a: int, b: Annotated[int, "from Annotated"] = 2) -> int:
    """Add.
    :param int a: First
      term.
    :param b: from the docstring
    :returns: nothing
    """
    return a + b


def rich(
    where: Annotated[Place | Spot, msgspec.Meta(description="Where")], filter: Filter, n: int | None = None
) -> dict[str, int]:
    return {}


class Box:
    def __call__(self, n: int) -> str:
        """Call the box."""
        return ""

    def method(self, n: int) -> str:
        """Do it."""
        return ""


def test_google_docstring() -> None:
    tool = ToolShape.of(weather)
    assert tool.name == "weather"
    assert tool.description == "Forecast the weather of a city."
    assert tool.plain == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city, in English."},
            "days": {"type": "integer", "description": "How far."},
            "unit": {"enum": ["C", "F"], "description": "Degrees: C or F."},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert tool.strict
    assert tool.schema["required"] == ["city", "days", "unit"]
    assert tool.result_type == list[float]


def test_numpy_and_sphinx_docstrings() -> None:
    properties = ToolShape.of(numpy_style).plain["properties"]
    assert [properties[name]["description"] for name in ("a", "b", "where")] == [
        "Terms.",
        "Terms.",
        "A place, or a spot.",
    ]
    assert ToolShape.of(numpy_style).description == "Add."
    assert ToolShape.of(numpy_style).result_type is type(None)
    properties = ToolShape.of(sphinx_style).plain["properties"]
    assert properties["a"]["description"] == "First term."
    assert properties["b"]["description"] == "from Annotated"
    assert ToolShape.of(sphinx_style).description == "Add."


def test_methods_partials_and_objects() -> None:
    assert ToolShape.of(Box().method).name == "method"
    assert ToolShape.of(Box()).description == "Call the box."
    assert list(ToolShape.of(functools.partial(weather, "Rome")).plain["properties"]) == ["days", "unit"]
    assert ToolShape.of(weather, name="forecast").name == "forecast"


def test_bind_gives_typed_arguments() -> None:
    tool = ToolShape.of(rich)
    assert tool.plain["properties"]["where"]["description"] == "Where"
    assert set(tool.schema["$defs"]) == {"Place", "Spot", "Filter"}
    got = tool.bind(
        '{"where":{"city":"Rome","zip":null},"filter":{"since":"2026-01-02","words":null},"n":null}'
    )
    assert got == {"where": Place("Rome"), "filter": Filter(since=date(2026, 1, 2)), "n": None}
    assert tool.bind(b'{"where":{"lat":1,"lon":2.5},"filter":{}}') == {
        "where": Spot(1.0, 2.5),
        "filter": Filter(),
    }
    assert ToolShape.of(weather).bind('{"city":"Rome","days":null,"unit":null}') == {"city": "Rome"}


def test_bind_without_arguments() -> None:
    def now() -> str: ...

    assert ToolShape.of(now).bind("") == ToolShape.of(now).bind("{}") == {}
    assert ToolShape.of(now).strict


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ('{"city":1}', ["argument 'city' of weather", "expected str", "it is an integer"]),
        ('{"days":1}', ["argument 'city' of weather", "it is missing"]),
        ('{"city":null}', ["argument 'city'", "null"]),
        ('{"city":"a","day":1}', ["no parameter 'day'", "city, days, unit"]),
        ('{"city":"a","unit":"K"}', ["argument 'unit'", "Literal['C', 'F']", "'K'"]),
        ('{"city":"a"', ["isn't JSON", '{"city":"a"']),
        ('["a"]', ["a JSON object", "city, days, unit", '["a"]']),
        (b"\xff", ["isn't JSON"]),
    ],
)
def test_bind_says_what_is_wrong(arguments: str | bytes, says: list[str]) -> None:
    with pytest.raises(InvalidValue) as caught:
        ToolShape.of(weather).bind(arguments)
    for part in says:
        assert part in str(caught.value)


def star(*parts: int) -> None: ...
def stars(**parts: int) -> None: ...
def slash(a: int, /) -> None: ...
def bare(a) -> None: ...  # type: ignore[no-untyped-def]
def live(box: Box) -> None: ...
def hidden(context: Context) -> None: ...


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (star, ["star", "*parts", "take a list"]),
        (stars, ["stars", "**parts", "name the parameters"]),
        (slash, ["slash", "'a' is positional-only", "remove the `/`"]),
        (bare, ["bare", "'a' has no annotation", "a: str"]),
        (live, ["live", "'box' is Box", "dataclass"]),
        (hidden, ["hidden", "Context", "TYPE_CHECKING"]),
        (Box.method, ["Box.method", "bound method"]),
    ],
)
def test_bad_signatures_name_the_cure(fn: Any, says: list[str]) -> None:
    with pytest.raises(BadSignature) as caught:
        ToolShape.of(fn)
    for part in says:
        assert part in str(caught.value)


# ---------------------------------------------------------------- recorded calls
async def triage(
    place: Place | Spot, tags: set[str], *more: date, limit: int = 5, **rest: tuple[int, int]
) -> None: ...
async def loose(a, b=2):  # type: ignore[no-untyped-def]
    ...


def test_calls_come_back_typed() -> None:
    shape = InputShape.of(triage)
    args = (Spot(1.0, 2.0), {"a"}, date(2026, 1, 2), date(2026, 1, 3))
    kwargs = {"limit": 3, "x": (1, 2)}
    assert shape.decode_call(shape.encode_call(args, kwargs)) == (args, kwargs)
    assert InputShape.of(loose).decode_call(InputShape.of(loose).encode_call(((1, 2),), {})) == (
        ([1, 2],),
        {},
    )


async def sift(by: Filter, *, other: Filter | None = None, last: Filter) -> None: ...


def test_a_pydantic_model_is_an_argument() -> None:
    shape = InputShape.of(sift)
    args = (Filter(since=date(2026, 1, 2)),)
    kwargs = {"other": Filter(), "last": Filter(since=date(2026, 1, 3))}
    assert shape.decode_call(shape.encode_call(args, kwargs)) == (args, kwargs)


def test_one_call_is_the_same_bytes_however_it_was_written() -> None:
    shape = InputShape.of(weather)
    assert shape.encode_call(("Rome", 2), {}) == shape.encode_call((), {"days": 2, "city": "Rome"})
    assert shape.encode_call(("Rome",), {}) == b'[["Rome"],{}]'
    assert shape.encode_call(("Rome",), {"unit": "F"}) == b'[["Rome"],{"unit":"F"}]'


@given(st.text("abc"), st.none() | st.integers(), st.none() | st.sampled_from(["C", "F"]), st.booleans())
def test_any_call_comes_back(city: str, days: int | None, unit: str | None, named: bool) -> None:
    kwargs: dict[str, Any] = {"unit": unit} if unit else {}
    if days is not None:
        kwargs["days"] = days
    shape = InputShape.of(weather)
    data = shape.encode_call((), {"city": city, **kwargs}) if named else shape.encode_call((city,), kwargs)
    args, back = shape.decode_call(data)
    bound = shape._raw.bind(*args, **back).arguments
    assert bound == {"city": city, **kwargs}


def test_wrong_calls_raise_as_python_does() -> None:
    shape = InputShape.of(weather)
    for args, kwargs in [((), {}), (("a", 1, "C"), {}), (("a",), {"nope": 1}), (("a",), {"city": "b"})]:
        with pytest.raises(TypeError, match=r"weather\(\)"):
            shape.encode_call(args, kwargs)

    def needs(*, name: str) -> None: ...

    with pytest.raises(TypeError, match="name"):
        InputShape.of(needs).encode_call((), {})


def test_a_row_for_several_arguments_names_the_cure() -> None:
    def pair(left: str, right: str) -> str:
        return left + right

    shape = InputShape.of(pair)
    with pytest.raises(
        TypeError, match="'right'; a map hands over each row as one argument: take a dataclass"
    ):
        shape.encode_call([("a", "b")], {})
    with pytest.raises(TypeError, match=r"missing a required argument: 'right'$"):
        shape.encode_call(["a"], {})


def test_errors_name_the_argument() -> None:
    shape = InputShape.of(triage)
    with pytest.raises(NotEncodable, match="argument 'tags' of triage"):
        shape.encode_call((Spot(1, 2), {Box()}), {})
    with pytest.raises(NotEncodable, match="argument 'limit' of triage"):
        shape.encode_call((Spot(1, 2), set()), {"limit": Box()})
    with pytest.raises(InvalidValue, match=r"argument 'more' of triage: expected date"):
        shape.decode_call(b'[[{"city":"a"},[],"2026-01-02","x"],{}]')
    with pytest.raises(InvalidValue, match="argument 'x' of triage"):
        shape.decode_call(b'[[{"city":"a"},[]],{"x":[1]}]')
    with pytest.raises(InvalidValue, match="no parameter 'nope'"):
        InputShape.of(weather).decode_call(b'[["a"],{"nope":1}]')
    with pytest.raises(InvalidValue, match="2 by position"):
        InputShape.of(weather).decode_call(b'[["a",1,"C"],{}]')
    with pytest.raises(InvalidValue, match="arguments of weather"):
        InputShape.of(weather).decode_call(b'{"a":1}')
    with pytest.raises(BadSignature, match="'box' is Box"):
        InputShape.of(live)
    with pytest.raises(BadSignature, match="TYPE_CHECKING"):
        InputShape.of(hidden)


def test_annotations_of_a_nested_function() -> None:
    @dataclasses.dataclass
    class Inner:
        n: int

    async def nested(inner: Inner) -> Inner:
        return Inner(inner.n)

    shape = InputShape.of(nested)
    assert shape.result_type is Inner
    assert shape.decode_call(shape.encode_call((Inner(1),), {})) == ((Inner(1),), {})


# ---------------------------------------------------------------- rows
async def one_text(text: str) -> None: ...
async def one_place(place: Place) -> None: ...
async def one_number(*, n: int) -> None: ...
async def one_any(row) -> None: ...  # type: ignore[no-untyped-def]
async def two(city: str, land: str) -> None: ...
async def place_in(place: Place, lang: str = "en") -> None: ...
async def several(city: str, n: int = 1, on: bool = False, cost: float | None = None) -> None: ...


def row(fn: Any, value: object, **how: Any) -> Any:
    shape = InputShape.of(fn)
    return shape.decode_call(shape.bind_row(value, **how))


def test_rows_of_jsonl() -> None:
    assert row(one_text, "hello") == (("hello",), {})
    assert row(one_text, {"text": "hello"}) == (("hello",), {})
    assert row(one_place, {"city": "Rome"}) == ((Place("Rome"),), {})
    assert row(one_number, {"n": 3}) == ((), {"n": 3})
    assert row(one_number, 3) == ((), {"n": 3})
    assert row(one_any, {"a": [1]}) == (({"a": [1]},), {})
    assert row(several, "Rome") == (("Rome",), {})
    assert row(place_in, {"city": "Rome"}) == ((Place("Rome"),), {})
    assert row(place_in, {"place": {"city": "Rome"}}) == ((Place("Rome"),), {})
    assert row(place_in, {"place": {"city": "Rome"}, "lang": "it"}) == ((Place("Rome"), "it"), {})
    assert row(several, {"city": "Rome", "n": 2}) == (("Rome", 2), {})
    assert row(several, {"city": "Rome", "cost": 1.5}) == (("Rome",), {"cost": 1.5})


def test_a_row_is_the_bytes_of_the_call() -> None:
    shape = InputShape.of(several)
    assert shape.bind_row({"n": 2, "city": "Rome"}) == shape.encode_call(("Rome", 2), {})


class Sale(pydantic.BaseModel):
    shop: str
    cents: int = pydantic.Field(default=5, alias="price")
    on: date | None


async def one_sale(row: Sale) -> None: ...
async def perhaps_a_sale(row: Sale | None) -> None: ...


def test_a_union_has_no_fields() -> None:
    assert forms.fields(Place | None) is None
    assert forms.fields(Place) is not None


def test_an_empty_cell_of_a_row_that_is_an_object_means_the_default_too() -> None:
    sale = {"shop": "", "price": "", "on": ""}
    for takes in (one_sale, perhaps_a_sale):
        assert row(takes, sale, text=True) == ((Sale(shop="", price=5, on=None),), {})
    with pytest.raises(InvalidValue, match=r"argument 'row' of one_sale: .* at .price"):
        row(one_sale, sale)  # a row of JSON says null for null


@pytest.mark.parametrize(
    ("takes", "value", "text"),
    [
        (one_text, {"text": "hello"}, False),
        (one_place, {"city": "Rome"}, False),
        (one_any, {"a": 1}, False),
        (several, {"city": "Rome", "n": 2}, False),
        (one_sale, {"shop": "", "price": 1, "on": None}, False),
        (one_sale, {"shop": "", "price": "", "on": ""}, True),
        (perhaps_a_sale, {"shop": "", "price": "", "on": ""}, True),
    ],
)
def test_what_a_flow_takes_is_found_out_once(
    takes: Any, value: Any, text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million rows it would be most of the work."""
    first = row(takes, value, text=text)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it was found out before")

    monkeypatch.setattr(signature, "schema", again)
    monkeypatch.setattr(typing, "get_type_hints", again)
    monkeypatch.setattr(msgspec.inspect, "multi_type_info", again)
    assert row(takes, value, text=text) == first


def test_rows_of_csv() -> None:
    assert row(several, {"city": "7", "n": "2", "on": "true", "cost": "1.5"}, text=True) == (
        ("7", 2, True, 1.5),
        {},
    )
    assert row(several, {"city": "", "n": "", "on": "0", "cost": ""}, text=True) == (
        ("",),
        {"on": False},
    )
    assert row(one_text, {"text": "hello"}, text=True) == (("hello",), {})
    assert row(one_number, {"n": "3"}, text=True) == ((), {"n": 3})
    assert row(one_place, {"city": "Rome", "zip": "00100"}, text=True) == ((Place("Rome", "00100"),), {})
    assert row(one_any, {"row": "x"}, text=True) == (({"row": "x"},), {})

    async def needs(n: int, cost: float | None) -> None: ...

    assert row(needs, {"n": "1", "cost": ""}, text=True) == ((1, None), {})


@pytest.mark.parametrize(
    ("fn", "value", "how", "says"),
    [
        (several, {"city": "Rome", "n": "2"}, {}, ["argument 'n' of several", "expected int", '"2"']),
        (several, {"n": 2}, {}, ["argument 'city' of several", "doesn't have it"]),
        (several, {"city": "Rome", "town": 2}, {}, ["no parameter 'town'", "city, cost, n, on", "Rome"]),
        (several, 7, {}, ["argument 'city' of several", "expected str"]),
        (two, "Rome", {}, ["an object", "city, land", '"Rome"']),
        (several, {"city": "Rome", "n": "two"}, {"text": True}, ["argument 'n'", '"two"']),
        (one_place, {"zip": "1"}, {}, ["argument 'place' of one_place", "the field `city` is missing"]),
        (
            one_text,
            {"text": "x", "n": 1},
            {},
            ["expected str, or an object with 'text' alone", "fields are text, n"],
        ),
        (one_text, {"text": 1}, {}, ["argument 'text' of one_text", "expected str"]),
        (one_number, "", {"text": True}, ["argument 'n' of one_number"]),
    ],
)
def test_rows_that_do_not_fit(fn: Any, value: object, how: Any, says: list[str]) -> None:
    with pytest.raises(InvalidValue) as caught:
        InputShape.of(fn).bind_row(value, **how)
    for part in says:
        assert part in str(caught.value)


def test_shapes_are_made_once() -> None:
    assert InputShape.of(triage) is InputShape.of(triage)
