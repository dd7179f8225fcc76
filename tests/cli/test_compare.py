from __future__ import annotations

import json

import pytest

from segue.cli.agreement import Agreement, Row, Share, same
from tests.cli.desk import Desk, Provider

LABELS = """
import segue
from dataclasses import dataclass


@dataclass
class Label:
    topic: str
    urgent: bool


@segue.flow
async def first(id: str, text: str) -> Label:
    return Label("bug" if "crash" in text else "billing", False)


@segue.flow
async def second(id: str, text: str) -> Label:
    if "boom" in text:
        raise ValueError("boom")
    return Label("bug", "now" in text)
"""


def two_jobs(desk: Desk, *more: str) -> None:
    desk.write("labels.py", LABELS)
    texts = ["crash", "invoice", "crash now", "boom crash"]
    rows = [{"id": f"t{number}", "text": text} for number, text in enumerate(texts)]
    desk.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert desk.segue("map", "labels.py:first", "rows.jsonl", "--id", "a", *more).code == 0
    assert desk.segue("map", "labels.py:second", "rows.jsonl", "--id", "b", *more).code == 1


def test_two_jobs_field_by_field(desk: Desk):
    two_jobs(desk)
    said = desk.segue("compare", "a", "b", "--json", "-o", "diff.jsonl")
    assert said.code == 0
    (told,) = said.rows
    assert (told["agreement"]["equal"], told["agreement"]["rows"]) == (1, 3)
    assert told["fields"]["topic"]["equal"] == 2
    assert told["fields"]["urgent"]["equal"] == 2
    assert told["no_value_b"] == 1
    assert told["b"]["causes"] == {"ValueError": 1}
    assert told["a"]["seconds_median"] >= 0
    assert [(row["key"], row["fields"]) for row in desk.rows("diff.jsonl")] == [
        ("1", ["topic"]),
        ("2", ["urgent"]),
    ]
    shown = desk.segue("compare", "a", "b", "--limit", "1")
    assert "agreement 33.3% (1 of 3" in shown.out
    assert "topic: billing" in shown.out
    assert "2 rows differ, 1 are shown; -o FILE writes all" in shown.err
    assert "not compared: 1 without a value in b" in shown.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "labels.jsonl",
            '{"key": "t1", "topic": "billing"}\n{"key": "t2", "topic": "billing"}\n{"key": "t9", "topic": "x"}\n',
        ),
        ("labels.csv", "key,topic\nt1,billing\nt2,billing\nt9,x\n"),
        (
            "labels.jsonl",
            '{"key": "t1", "value": {"topic": "billing"}}\n{"key": "t2", "value": {"topic": "no"}}\n'
            '{"key": "t9", "value": 1}\n',
        ),
    ],
)
def test_labels(desk: Desk, name: str, content: str):
    two_jobs(desk, "--key", "id")
    desk.write(name, content)
    (told,) = desk.segue("compare", "a", name, "--json").rows
    assert told["agreement"]["share"] == 0.5
    assert list(told["fields"]) == ["topic"]  # what isn't labelled isn't judged
    assert (told["only_a"], told["only_b"]) == (2, 1)
    assert "accuracy 50.0% (1 of 2" in desk.segue("compare", "a", name).out
    assert "accuracy 50.0% (1 of 2" in desk.segue("compare", name, "a").out


def test_rows_are_matched_by_a_field_of_their_input(desk: Desk):
    two_jobs(desk)  # known by number
    desk.write("labels.jsonl", '{"id": "t3", "topic": "bug"}\n{"id": "t0", "topic": "bug"}\n')
    said = desk.segue("compare", "a", "labels.jsonl")
    assert (told := desk.segue("compare", "a", "labels.jsonl", "--by", "id", "--json").rows)[0]["agreement"][
        "rows"
    ] == 2
    assert told[0]["agreement"]["share"] == 1.0
    assert said.code == 0  # by number they match other rows, which only the author can know
    assert "has none of that name" in desk.segue("compare", "a", "b", "--by", "nothing").err


def test_nothing_in_common(desk: Desk):
    two_jobs(desk, "--key", "id")
    desk.write("labels.jsonl", '{"key": "x", "value": 1}\n')
    said = desk.segue("compare", "a", "labels.jsonl")
    assert said.code == 2
    assert "--by FIELD matches them by a field" in said.err
    desk.write("twice.jsonl", '{"key": "x", "value": 1}\n{"key": "x", "value": 2}\n')
    assert "two rows have the key 'x'" in desk.segue("compare", "a", "twice.jsonl").err
    assert "no job 'nowhere'" in desk.segue("compare", "a", "nowhere").err


def test_the_output_of_a_map_is_a_side(desk: Desk):
    two_jobs(desk)
    desk.segue("map", "labels.py:second", "rows.jsonl", "--id", "b", "-o", "b.jsonl")
    (told,) = desk.segue("compare", "a", "b.jsonl", "--json").rows
    assert (told["agreement"]["equal"], told["agreement"]["rows"], told["b"]["failed"]) == (1, 3, 1)


def test_cost_by_lane(desk: Desk, provider: Provider):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "live", "--model", provider.model)
    desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "pooled", "--batch", "--model", provider.model)
    (told,) = desk.segue("compare", "live", "pooled", "--json").rows
    assert [line["lane"] for line in told["a"]["receipt"]["lines"]] == ["live"]
    assert [line["lane"] for line in told["b"]["receipt"]["lines"]] == ["batch"]
    assert told["a"]["receipt"]["lines"][0]["calls"] == 4


def test_equal_values():
    assert same(1, 1.0)
    assert not same(1, True)
    assert not same([1, {"a": 0}], [1, {"a": False}])
    assert same(True, "true", loose=True)
    assert same(3, "3.0", loose=True)
    assert not same(None, "", loose=True)
    assert not same(True, "true")


def test_a_share_and_what_is_likely():
    assert Share(0, 0).likely is None
    low, high = Share(8, 10).likely or (0, 0)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)  # by the tables


def test_a_field_that_a_side_lacks_differs():
    agreement = Agreement()
    difference = agreement.add(Row("1", {"a": None}), Row("1", {}))
    assert difference is not None
    assert difference.fields == ["a"]


def test_a_file_of_labels_that_is_not_there(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    said = desk.segue("compare", "j", "labels.csv")
    assert said.code == 2
    assert "labels.csv: there is no such file, and no job of that name" in said.err
