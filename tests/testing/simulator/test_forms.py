"""What is made up for a type is an answer of it."""

import contextlib
import datetime as dt
import decimal
import enum
import json
import uuid
from collections import deque
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.core.shape import Shape
from segue.providers.anthropic_messages import _fitted
from segue.testing.simulator.schema import instance


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Row(TypedDict):
    a: float
    b: NotRequired[str]


class Tagged(msgspec.Struct, tag="t", rename="camel"):
    some_field: dt.datetime


class Model(pydantic.BaseModel):
    amount: float = pydantic.Field(gt=0)
    name: Annotated[str, pydantic.Field(min_length=4)]
    child: "Model | None" = None


@dataclass
class Tree:
    when: dt.datetime
    below: "list[Tree]" = field(default_factory=list)


Meta = msgspec.Meta
LEAVES = [
    int, float, str, bool, bytes, Any, None,
    dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID, Path, Colour,
    Literal["a", 1, None], Pair, Row, Tagged, Model, Tree,
    Annotated[int, Meta(ge=5)], Annotated[int, Meta(gt=5, lt=9)], Annotated[int, Meta(le=-3)],
    Annotated[int, Meta(multiple_of=4, ge=6)],
    Annotated[float, Meta(gt=0)], Annotated[float, Meta(lt=0)], Annotated[float, Meta(ge=0.25, lt=0.5)],
    Annotated[str, Meta(min_length=5)], Annotated[str, Meta(max_length=0)], Annotated[bytes, Meta(min_length=4)],
    Annotated[dt.datetime, Meta(tz=True)], Annotated[str, Meta(description="a name (short: yes, odd)")],
    Annotated[list[int], Meta(min_length=2)], Annotated[tuple[str, ...], Meta(min_length=1, max_length=3)],
]  # fmt: skip
FORMS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: (
        st.builds(lambda tp: list[tp], inner)
        | st.builds(lambda tp: set[tp] if tp in (int, str) else deque[tp], inner)
        | st.builds(lambda tp: dict[str, tp], inner)
        | st.builds(lambda one, other: tuple[one, other], inner, inner)
        | st.builds(lambda tp: tp | None if isinstance(tp, type) else list[tp], inner)
        | st.builds(lambda one, other: make_dataclass("Made", [("x", one), ("y", other)]), inner, inner)
    ),
    max_leaves=5,
)


def is_answered(tp: Any) -> None:
    shape = Shape.of(tp)
    asked = [shape.schema, shape.plain]
    with contextlib.suppress(ValueError):  # Anthropic takes no open object
        asked.append(_fitted(shape.schema))
    for schema in asked:
        shape.decode(json.dumps(instance(schema)))


@pytest.mark.parametrize("tp", LEAVES, ids=str)
def test_what_is_made_up_for_a_type_is_an_answer_of_it(tp: Any):
    is_answered(tp)
    is_answered(tuple[tp, tp])


@settings(max_examples=100)
@given(FORMS)
def test_and_of_types_made_of_others(tp: Any):
    is_answered(tp)
