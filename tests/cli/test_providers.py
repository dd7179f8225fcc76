"""A provider that the program's own module declares is known to every command that loads it."""

from __future__ import annotations

import json
import signal

import pytest

from segue.testing.simulator import Simulator
from tests.cli.desk import Desk, Provider

WAITING = 3  # the exit code

GATE = """

import os
from segue.providers import OpenAI
from segue.transports.pooled import Pooled


@segue.provider
def gate(endpoint):
    return OpenAI(os.environ["GATE_URL"], "a-key-of-the-gateway", Pooled(), "gate", header="x-gate-key")


@segue.flow(model="gate:any")
async def greet(name: str) -> str:
    return await segue.generate(f"Greet {name}.")
"""


@pytest.fixture
def gate(desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    monkeypatch.setenv("GATE_URL", provider.simulator.base_url)
    desk.write("app.py", (desk.path / "app.py").read_text() + GATE)
    return provider.simulator


def test_live(desk: Desk, gate: Simulator):
    said = desk.segue("run", "app.py:greet", "Ada", "--id", "it")
    assert (said.code, said.out) == (0, "You said: Greet Ada.\n")
    desk.write("rows.jsonl", '"Ada"\n"Bob"\n')
    planned = desk.segue("plan", "app.py:greet", "rows.jsonl")
    assert planned.code == 0
    assert "about 2 requests" in planned.out
    assert desk.segue("replay", "app.py", "it", "--against", "batch").code == 0


def test_in_batch_with_no_process_alive_between_sweeps(desk: Desk, gate: Simulator):
    desk.write("rows.jsonl", '"Ada"\n"Bob"\n')
    before = len(gate.ledger.lines("batch"))
    assert (
        desk.segue("map", "app.py:greet", "rows.jsonl", "--batch", "--no-wait", "--id", "g").code == WAITING
    )
    codes = [WAITING]
    while codes[-1] == WAITING and len(codes) < 50:
        codes.append(desk.segue("advance", "app.py", "--job", "g", "-o", "out.jsonl").code)
    assert codes[-1] == 0
    assert [row["value"] for row in desk.rows()] == ["You said: Greet Ada.", "You said: Greet Bob."]
    assert len(gate.ledger.lines("batch")) - before == 2


def test_a_worker(desk: Desk, gate: Simulator):
    desk.segue("run", "app.py:greet", "Ada", "--id", "it", "--no-wait")
    worker = desk.start("worker", "app.py", "--json")
    assert worker.stdout is not None
    assert json.loads(worker.stdout.readline())["status"] == "done"
    worker.send_signal(signal.SIGINT)
    desk.finish(worker)
