from __future__ import annotations

import json
from typing import Any

import pytest

from segue.testing.simulator.schema import instance


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"type": "string"}, "a"),
        ({"type": "string", "minLength": 3}, "aaa"),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "maximum": -5, "multipleOf": 3}, -6),
        ({"type": "integer", "minimum": 4, "multipleOf": 3}, 6),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "exclusiveMaximum": 0}, -1.0),
        ({"type": "number"}, 0),
        ({"type": "string", "contentEncoding": "base64"}, "YWFh"),
        ({"type": "string", "description": "A name (minLength: 3)"}, "aaa"),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "minItems": 2}, [0, None]),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 0),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 7}, 7),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["a", "a"]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"$ref": "#/$defs/B"}]}
            | {"$defs": {"B": {"type": "object", "properties": {"b": {"const": 2}}, "required": ["b"]}}},
            {"a": 1, "b": 2},
        ),
    ],
    ids=json.dumps,
)
def test_the_smallest_instance(schema: dict[str, Any], made: Any):
    assert instance(schema) == made


def test_a_tree_ends_where_it_may():
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
        "required": ["next"],
    }
    made = instance({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    while made is not None:
        made = made["next"]


def test_a_tree_without_end_is_refused():
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    with pytest.raises(ValueError):
        instance(node)
