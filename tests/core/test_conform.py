"""Whether an answer fits the schema of its question."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from segue.core.conform import misfit
from segue.core.schema import schema


@dataclass
class Point:
    x: int
    y: float = 0.0


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (bool, True),
        (int, 3),
        (float, 3),
        (str, "x"),
        (Literal["a", "b"], "a"),
        (int | None, None),
        (list[int], [1, 2]),
        (Point, {"x": 1}),
        (list[Point], [{"x": 1, "y": 2.5}]),
        (Colour, "red"),
        (dict[str, int], {"a": 1}),
        (Any, {"whatever": [1]}),
    ],
)
def test_fits(form: Any, value: Any) -> None:
    assert misfit(value, schema(form)) is None


@pytest.mark.parametrize(
    ("form", "value", "says"),
    [
        (bool, "yes", "boolean"),
        (bool, 1, "boolean"),
        (int, True, "integer"),
        (int, 1.5, "integer"),
        (Literal["a", "b"], "c", "'a'"),
        (int | None, "x", "integer"),
        (list[int], [1, "2"], "[1]"),
        (Point, {"y": 1.0}, ".x is missing"),
        (Point, {"x": "1"}, ".x must be an integer"),
        (list[Point], [{"x": 1}, {"x": None}], "[1].x"),
        (Colour, "blue", "red"),
        (dict[str, int], {"a": "1"}, ".a"),
    ],
)
def test_says_what_does_not_fit(form: Any, value: Any, says: str) -> None:
    problem = misfit(value, schema(form))
    assert problem is not None
    assert says in problem
