from __future__ import annotations

from tests.cli.desk import Desk, Provider


def test_a_plan_from_a_sample(desk: Desk, provider: Provider):
    desk.write("rows.jsonl", "".join(f'"row {n}"\n' for n in range(20)) + "{bad\n")
    said = desk.segue(
        "plan", "app.py:triage", "rows.jsonl", "--sample", "2", "--model", provider.model, "--json"
    )
    (plan,) = said.rows
    assert said.code == 0
    assert (plan["rows"], plan["unreadable"], plan["sampled"]) == (20, 1, 2)
    assert (plan["requests"], plan["waves"], plan["usd_live"]) == (40, 2, None)
    assert not (desk.path / "segue.db").exists()  # in memory


def test_a_plan_from_earlier_runs(desk: Desk, provider: Provider):
    desk.segue("run", "app.py:triage", "hello", "--model", provider.model)
    desk.write("rows.jsonl", '"a"\n"b"\n"c"\n')
    said = desk.segue("plan", "app.py:triage", "rows.jsonl", "--model", "openai:gpt-5-mini")
    assert said.code == 0
    assert "3 rows" in said.out
    assert "about 6 requests" in said.out
    assert "in 2 waves" in said.out
    assert "priced as openai:gpt-5-mini" in said.err
    (plan,) = desk.segue("plan", "app.py:triage", "rows.jsonl", "--model", "openai:gpt-5-mini", "--json").rows
    assert 0 < plan["usd_batch"] < plan["usd_live"]


def test_nothing_is_known(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    said = desk.segue("plan", "app.py:twice", "rows.jsonl")
    assert said.code == 1
    assert "`--sample 3`" in said.err


def test_a_sample_that_asks_and_one_that_fails(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    (plan,) = desk.segue("plan", "app.py:sure", "rows.jsonl", "--sample", "2", "--json").rows
    assert plan["asks"] == 2
    assert "wait for an answer" in plan["notes"][0]
    desk.write("sevens.jsonl", "7\n")
    (plan,) = desk.segue("plan", "app.py:twice", "sevens.jsonl", "--sample", "1", "--json").rows
    assert "seven is right out" in plan["notes"][0]
