"""Budgets on the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import re

import pytest

from segue import Budget
from segue.cli.budgets import as_budget
from segue.core.budget import cause
from segue.model.budget import STORE, Account, Limit
from segue.model.mode import Config
from segue.model.run import Spec
from segue.ports.store import NewRun, Turn
from segue.stores.sqlite import SqliteStore
from tests.cli.desk import Desk, Provider

HOW = ("--store", "sqlite:b.db")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5", Budget(usd=5)),
        ("$0.50", Budget(usd=0.5)),
        ("5 usd", Budget(usd=5)),
        ("100000tok", Budget(tokens=100_000)),
        ("1.5Mtok", Budget(tokens=1_500_000)),
        ("100k tokens", Budget(tokens=100_000)),
        ("2,30tok", Budget(usd=2, tokens=30)),
    ],
)
def test_written(text: str, budget: Budget) -> None:
    assert as_budget(text) == budget


@pytest.mark.parametrize("text", ["", "0", "five", "-1", "5k", "3tokens4"])
def test_written_wrongly(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="budget"):
        as_budget(text)


@pytest.mark.parametrize("mode", ["--live", "--batch"])
def test_a_job_is_held_and_goes_on(desk: Desk, provider: Provider, mode: str) -> None:
    desk.write("rows.jsonl", "".join(f'"ticket {n}"\n' for n in range(3)))
    how = ("app.py:triage", "rows.jsonl", "--id", "j", "-o", "out.jsonl", mode, "--model", provider.model)
    said = desk.segue("map", *how, "--budget", "900tok", *HOW)
    assert said.code == 1
    assert "3 held" in said.err
    assert "0/3 done" in said.err
    assert "of 900 tokens spent" in said.err
    causes = desk.segue("runs", "--failed", *HOW).out
    assert "no budget is left: that of job 'j' (job:j)" in causes
    assert "`segue resume --job j --budget " in causes
    assert "--keep" not in causes
    said = desk.segue("resume", "--job", "j", *HOW)
    assert (said.code, "3 held: say --keep or --rerun, or --budget LIMIT" in said.err) == (2, True)
    said = desk.segue("resume", "--job", "j", "--budget", "50ktok", *HOW)
    assert (said.code, "of 50,000 tokens spent" in said.err) == (0, True)
    said = desk.segue("map", *how, "--budget", "900tok", *HOW)
    assert (said.code, "3/3 done" in said.err) == (0, True)
    assert "stays as it is" in said.err
    for command in (("receipt", "--job", "j"), ("runs",), ("runs", "--job", "j")):
        assert "budget of job 'j': " in desk.segue(*command, *HOW).err
    assert "budget   of job 'j': " in desk.segue("show", "j/0", *HOW).out
    (shown, *_) = desk.segue("show", "j/0", "--json", *HOW).rows
    (receipt,) = desk.segue("receipt", "--job", "j", "--json", *HOW).rows
    (budget,) = receipt["budgets"]
    assert shown["budgets"] == receipt["budgets"]
    paid = sum(line["input_tokens"] + line["output_tokens"] for line in receipt["lines"])
    assert (budget["tokens_spent"], budget["tokens_reserved"], budget["waiting"]) == (paid, 0, 0)


def test_who_waits_for_room_asks_nobody(desk: Desk, provider: Provider) -> None:
    desk.write("rows.jsonl", "".join(f'"ticket {n}"\n' for n in range(20)))
    how = ("--batch", "--no-wait", "--model", provider.model, "--budget", "9ktok", *HOW)
    said = desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "j", *how)
    assert "waiting for room in the budget" in said.err
    assert "--asks" not in said.err


def test_a_run_is_held_and_goes_on(desk: Desk, provider: Provider) -> None:
    how = ("--id", "a", "--model", provider.model, *HOW)
    said = desk.segue("run", "app.py:triage", "broken", "--budget", "900tok", *how)
    assert said.code == 1
    assert "segue resume a --budget" in said.err
    assert desk.segue("resume", "a", *HOW, "--budget", "9000tok").code == 0
    assert desk.segue("advance", "app.py", *HOW).code == 0
    assert "of 9,000 tokens spent" in desk.segue("receipt", "a", *HOW).err


NESTED = """
import segue

@segue.flow
async def part(ticket: str) -> str:
    return await segue.generate(ticket)

@segue.flow
async def whole(ticket: str) -> list[str]:
    return await segue.map(part, [ticket, ticket + "!"])
"""


def test_rows_that_wait_for_held_runs_are_told(desk: Desk, provider: Provider) -> None:
    desk.write("nested.py", NESTED)
    desk.write("rows.jsonl", '"one"\n"two"\n')
    how = (
        "nested.py:whole",
        "rows.jsonl",
        "--id",
        "j",
        "-o",
        "out.jsonl",
        "--live",
        "--model",
        provider.model,
    )
    said = desk.segue("map", *how, "--budget", "900tok", *HOW)
    assert said.code == 1
    assert "2 waiting for held runs" in said.err
    assert "2 wait for runs that are held: `segue runs --failed" in said.err
    rows = [json.loads(line) for line in (desk.path / "out.jsonl").read_text().splitlines()]
    assert [row["error"]["type"] for row in rows] == ["RunHeld"] * 2
    assert "it waits for run j/" in rows[0]["error"]["message"]
    assert desk.segue("resume", "--job", "j", "--budget", "50ktok", *HOW).code == 0
    said = desk.segue("map", *how, *HOW)
    assert (said.code, "2/2 done" in said.err) == (0, True)


def test_whose_budget_it_is(desk: Desk) -> None:
    desk.write("rows.jsonl", "1\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j", *HOW)
    assert "has no row that may go on so; none has failed" in desk.segue("resume", "--job", "j", *HOW).err
    assert "no job 'k'" in desk.segue("resume", "--job", "k", "--budget", "5", *HOW).err
    assert "job 'j' has no budget" in desk.segue("resume", "--job", "j", "--budget", "5", *HOW).err
    assert desk.segue("run", "app.py:twice", "3", "--id", "b", *HOW).code == 0
    assert "no budget" in desk.segue("run", "app.py:twice", "3", "--id", "b", "--budget", "5", *HOW).err


async def fill(store: SqliteStore) -> None:
    """25 runs with budgets of their own, of which the last is held for that of a block."""
    await store.open()
    for id in [f"r{n:02}" for n in range(25)]:
        own = Account(f"run:{id}", Limit(tokens=9))
        await store.create([NewRun(id, Spec("flow", "triage", b"[]", Config(accounts=(own,))))], now=0.0)
        await store.fund(own.id, own.limit, now=0.0)
    block = "block:r24 0.1"
    for account in (STORE, block, "block:r00 0.1"):
        await store.fund(account, Limit(tokens=9), now=0.0)
    claimed = {run.head.id: run.head for run in await store.claim("w", 100, 60.0, now=0.0)}
    held = Turn(run="r24", fence=claimed["r24"].fence, status="held", reason=cause(block))
    assert await store.commit([held]) == ["committed"]
    await store.close()


def test_runs_are_listed_with_their_budgets_and_the_engine_s_only(desk: Desk) -> None:
    asyncio.run(fill(SqliteStore(str(desk.path / "b.db"))))
    said = desk.segue("runs", "--limit", "2", *HOW).err
    assert re.findall("budget of (.*):", said) == [
        "the engine",
        "a block of run 'r24'",
        "run 'r23'",
        "run 'r24'",
    ]
    said = desk.segue("runs", *HOW).err
    assert "budget of the engine: " in said
    assert "and 7 more budgets; `segue receipt --json` lists all" in said
    (receipt,) = desk.segue("receipt", "--json", *HOW).rows
    assert len(receipt["budgets"]) == 28


def test_a_plan_says_whether_it_will_do(desk: Desk, provider: Provider) -> None:
    desk.write("rows.jsonl", '"a"\n"b"\n')
    how = ("plan", "app.py:triage", "rows.jsonl", "--sample", "2", "--model", provider.model)
    said = desk.segue(*how, "--budget", "9Mtok")
    assert "the budget will do live" in said.out
    (plan,) = desk.segue(*how, "--budget", "20tok", "--json").rows
    assert plan["enough"] == {"live": False, "batch": False}
    assert "isn't known, for its price isn't" in desk.segue(*how, "--budget", "5").err
