from __future__ import annotations

import time

import pytest

from segue.cli.plan import _in_waves
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


def test_what_a_flow_starts_counts(desk: Desk, provider: Provider):
    """In a plan, in the last line of a map, in receipts of a run and of a job."""
    desk.write(
        "pipe.py",
        """
import segue

@segue.flow
async def part(text: str) -> str:
    return await segue.generate(f"part {await segue.generate(text)}")

@segue.flow
async def whole(text: str) -> list[str]:
    first = await segue.generate(text)
    return await segue.map(part, [f"{first} {n}" for n in range(3)])
""",
    )
    desk.write("rows.jsonl", '"a"\n"b"\n')
    sample = ("--sample", "1", "--model", provider.model, "--json")
    (plan,) = desk.segue("plan", "pipe.py:whole", "rows.jsonl", *sample).rows
    assert (plan["requests"], plan["waves"]) == (14, 3)
    assert plan["live_seconds"] is not None
    said = desk.segue("map", "pipe.py:whole", "rows.jsonl", "--id", "j", "-o", "o", "--model", provider.model)
    (one,), (all,) = (desk.segue("receipt", *what, "--json").rows for what in (["j/0"], ["--job", "j"]))
    assert [sum(line["calls"] for line in each["lines"]) for each in (one, all)] == [7, 14]
    tokens = sum(line["input_tokens"] + line["output_tokens"] for line in all["lines"])
    assert f" {tokens:,} tokens" in said.err
    assert "with 6 runs that its rows started" in desk.segue("receipt", "--job", "j").err
    (plan,) = desk.segue("plan", "pipe.py:whole", "rows.jsonl", "--json").rows
    assert (plan["requests"], plan["waves"]) == (14, 3)
    told = desk.segue("compare", "j", "j", "--json").rows[-1]
    assert told["a"]["receipt"]["lines"][0]["calls"] == 14


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


def test_ways_and_a_deadline(desk: Desk, provider: Provider):
    """Each way with its price and time; what jobs took counts from the third on."""
    desk.write("rows.jsonl", '"a"\n"b"\n"c"\n')
    how = ("--model", provider.model, "--deadline", "6h")
    sampled = desk.segue("plan", "app.py:triage", "rows.jsonl", "--sample", "1", *how, "--json").rows[0]
    assert [(way["name"], way["wave"], way["seconds"], way["seen"]) for way in sampled["ways"]] == [
        ("batch", 86400.0, 172800.0, False)
    ]
    assert sampled["chosen"] == "live"
    assert desk.segue("map", "app.py:triage", "rows.jsonl", "--batch", "--model", provider.model).code == 0
    desk.write("more.jsonl", '"d"\n"e"\n')
    assert desk.segue("map", "app.py:triage", "more.jsonl", "--batch", "--model", provider.model).code == 0
    (plan,) = desk.segue("plan", "app.py:triage", "rows.jsonl", *how, "--json").rows
    (way,) = plan["ways"]
    assert way["seen"]
    assert 0 < way["wave"] < 60
    assert way["seconds"] == 2 * way["wave"]
    assert plan["chosen"] == "batch"
    said = desk.segue("plan", "app.py:triage", "rows.jsonl", *how)
    assert "in 2 waves" in said.out
    assert "each, as jobs were so far" in said.out
    assert "all 2 waves go by batch" in said.out
    again = desk.segue("plan", "app.py:triage", "rows.jsonl", "--sample", "1", *how, "--json").rows[0]
    assert again["chosen"] == "batch"


def test_times_on_the_command_line(desk: Desk, provider: Provider):
    said = desk.segue("run", "app.py:triage", "hello", "--batch=6h", "--model", provider.model, "--id", "one")
    assert said.code == 0
    said = desk.segue(
        "run", "app.py:triage", "hello", "--deadline", "1m", "--model", provider.model, "--id", "two"
    )
    assert said.code == 0
    (used,) = desk.segue("receipt", "two", "--json").rows
    assert [line["lane"] for line in used["lines"]] == ["live"]
    (used,) = desk.segue("receipt", "one", "--json").rows
    assert [line["lane"] for line in used["lines"]] == ["batch"]


def test_a_time_that_is_none(desk: Desk, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        desk.segue("run", "app.py:triage", "hello", "--deadline", "soon")
    assert ended.value.code == 2
    assert "write it as 90s, 15m, 6h or 2d" in capsys.readouterr().err


def test_each_wave_goes_its_way(desk: Desk, provider: Provider):
    assert _in_waves(["batch", "live"]) == "wave 1 goes by batch, wave 2 goes live"
    assert _in_waves(["live"]) == "the one wave goes live"


def test_a_model_that_there_isnt(desk: Desk, provider: Provider):
    desk.segue("run", "app.py:triage", "hello", "--model", provider.model)
    desk.write("rows.jsonl", '"a"\n')
    said = desk.segue("plan", "app.py:triage", "rows.jsonl", "--model", "nosuch:x")
    assert said.code == 2
    assert "there is no provider 'nosuch'" in said.err


def test_live_takes_what_the_work_took_not_the_waiting(desk: Desk):
    desk.segue("run", "app.py:sure", "hello", "--id", "s")
    time.sleep(0.3)
    desk.segue("answer", "s", "y")
    desk.segue("advance", "app.py")
    desk.write("rows.jsonl", "".join(f'"{n}"\n' for n in range(64)))
    (plan,) = desk.segue("plan", "app.py:sure", "rows.jsonl", "--json").rows
    assert plan["sample_seconds"] < 0.3
    assert plan["live_seconds"] == 2 * plan["sample_seconds"]


def test_a_sample_that_fails_isnt_advised_again(desk: Desk):
    desk.write("sevens.jsonl", "7\n")
    said = desk.segue("plan", "app.py:twice", "sevens.jsonl", "--sample", "1")
    assert said.code == 1
    assert "seven is right out" in said.err
    assert "--sample 3" not in said.err


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_a_number_of_rows_that_is_none(desk: Desk, capsys: pytest.CaptureFixture[str], number: str):
    for words in (
        ("plan", "app.py:twice", "r", "--sample", number),
        ("map", "app.py:twice", "r", "--limit", number),
    ):
        with pytest.raises(SystemExit) as ended:
            desk.segue(*words)
        assert ended.value.code == 2
        assert "is no number from 1 on" in capsys.readouterr().err


def test_a_sample_whose_key_is_refused(desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch):
    provider.simulator._key = "sk-right-123456789"
    monkeypatch.setenv("MY_KEY", "sk-wrong-123456789")
    desk.write("rows.jsonl", '"a"\n')
    said = desk.segue(
        "plan", "app.py:triage", "rows.jsonl", "--sample", "1", "--model", f"{provider.model}#MY_KEY"
    )
    assert said.code == 1
    assert "row 0 of the sample is held: the key was refused" in said.err
