"""`--reuse`, `--no-reuse` and `segue forget`."""

from __future__ import annotations

from tests.cli.desk import Desk, Provider


def paid(provider: Provider) -> int:
    return sum(entry.paid for entry in provider.simulator.ledger.lines())


def test_the_same_job_again_costs_nothing(desk: Desk, provider: Provider):
    desk.write("rows.jsonl", '"It broke"\n"It broke"\n"It broke"\n')
    before = paid(provider)
    how = ["map", "app.py:triage", "rows.jsonl", "--model", provider.model, "--reuse"]
    assert desk.segue(*how, "--id", "first", "--batch", "-o", "first.jsonl").code == 0
    assert paid(provider) == before + 2
    assert desk.segue(*how, "--id", "second", "-o", "second.jsonl").code == 0
    assert paid(provider) == before + 2
    values = [[row["value"] for row in desk.rows(name)] for name in ("first.jsonl", "second.jsonl")]
    assert values[0] == values[1]
    said = desk.segue("receipt", "--job", "second")
    assert "reused" in said.out
    assert "reused: 6 calls were answered by what had been paid before" in said.err
    lines = desk.segue("receipt", "--job", "first", "--json").rows[0]["lines"]
    assert {line["lane"]: line["calls"] for line in lines} == {"batch": 2, "reused": 4}


def test_an_age_and_the_opposite(desk: Desk, provider: Provider):
    how = ["run", "app.py:triage", "It squeaks", "--model", provider.model]
    before = paid(provider)
    assert desk.segue(*how, "--reuse=7d").code == 0
    assert desk.segue(*how, "--reuse=7d").code == 0
    assert paid(provider) == before + 2
    assert desk.segue(*how, "--no-reuse").code == 0
    assert paid(provider) == before + 4
    assert desk.segue("forget", "--older-than", "1d").out.startswith("0 answers forgotten")
    assert desk.segue("forget").out.startswith("2 answers forgotten")
    assert desk.segue(*how, "--reuse").code == 0
    assert paid(provider) == before + 6


def test_what_is_no_age_is_refused(desk: Desk, provider: Provider):
    said = desk.start("run", "app.py:triage", "x", "--model", provider.model, "--reuse=soon")
    assert "'soon' is no time" in desk.finish(said).err
