"""`segue remove`."""

from __future__ import annotations

from tests.cli.desk import Desk, Provider


def test_what_is_removed_is_begun_and_paid_anew(desk: Desk, provider: Provider):
    desk.write("rows.jsonl", '"It broke"\n"It squeaks"\n')
    run = ["run", "app.py:triage", "It broke", "--model", provider.model, "--id", "it"]
    job = ["map", "app.py:triage", "rows.jsonl", "--model", provider.model, "--batch", "-o", "out.jsonl"]

    def paid() -> int:
        assert desk.segue(*run).code == 0
        assert desk.segue(*job).code == 0
        return sum(entry.paid for entry in provider.simulator.ledger.lines())

    once = paid()
    assert paid() == once
    assert desk.segue("remove", "--older-than", "1d").out.startswith("0 runs removed")
    assert (
        desk.segue("remove", "it", "--job", "triage:rows.jsonl", "--dry-run").out
        == "3 runs would be removed\n"
    )
    assert paid() == once
    assert desk.segue("remove", "it", "--job", "triage:rows.jsonl").out.startswith("3 runs removed")
    assert "no runs are there" in desk.segue("runs").err
    assert paid() == 2 * once


def test_where_one_cant_be_removed_none_is(desk: Desk, provider: Provider):
    desk.segue("run", "app.py:triage", "It broke", "--model", provider.model, "--id", "a")
    for words, why in {
        ("a", "b"): "there is no run 'b'",
        ("a", "--job", "b"): "there is no job 'b'",
        ("a", "--older-than", "1s"): "RUN and --job, or --older-than",
    }.items():
        said = desk.finish(desk.start("remove", *words))
        assert said.code == 2
        assert why in said.err
    assert desk.segue("remove", "a", "a").out.startswith("1 run removed")


def test_one_whose_parent_is_removed_is_in_the_tree(desk: Desk):
    desk.write(
        "more.py",
        """
import segue
from app import sure

@segue.flow
async def leaves() -> None:
    await segue.spawn(sure("hi"), id="own")
""",
    )
    assert desk.segue("run", "more.py:leaves", "--id", "a").code == 0
    assert desk.segue("remove", "a").out.startswith("1 run removed")
    said = desk.segue("runs", "--tree").out.splitlines()
    assert [line.split()[0] for line in said] == ["RUN", "own"]


def test_what_cant_be_removed_is_said(desk: Desk, provider: Provider):
    desk.segue("run", "app.py:triage", "It broke", "--model", provider.model, "--id", "other")
    for words, why in {
        (): "expected RUN, --job or --older-than",
        ("it",): "there is no run 'it'",
        ("--job", "it"): "there is no job 'it'",
        ("--older-than", "soon"): "'soon' is no time",
        ("--older-than", "99999999999d"): "'99999999999d' is too long a time",
        ("",): "it is empty",
        ("--job", ""): "it is empty",
    }.items():
        said = desk.finish(desk.start("remove", *words))
        assert said.code == 2
        assert why in said.err
