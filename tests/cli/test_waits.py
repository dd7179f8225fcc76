"""What `segue runs` and `segue show` say a run waits for."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from segue.cli import waits
from tests.cli.desk import Desk, Provider

WAITING = """
import asyncio
from datetime import timedelta
import segue

class Ring(segue.Note):
    pass

class Tell(segue.Request[str]):
    pass

@segue.flow
async def nap() -> None:
    await segue.sleep(timedelta(hours=2))

@segue.flow
async def sure(text: str) -> bool:
    return await segue.ask(f"Send {text}?", returns=bool, to="boss")

@segue.flow
async def soon() -> bool:
    return await segue.ask("Now?", returns=bool, timeout=timedelta(hours=2))

@segue.flow
async def listen() -> None:
    await segue.receive(Ring)

@segue.flow
async def parent() -> bool:
    run = await segue.spawn(sure("it"), id="child")
    return await run

@segue.flow
async def many() -> list[bool]:
    return await segue.map(sure, ["a", "b", "c", "d"])

@segue.flow
async def asks_bell() -> str:
    bell = await segue.spawn(Bell(), id="its-bell")
    return await bell.request(Tell())

@segue.flow
async def classify(text: str) -> str:
    return await segue.generate(text)

@segue.flow
async def guarded() -> str:
    async with segue.timeout(timedelta(hours=3)):
        async with segue.timeout(timedelta(minutes=5)):
            pass
        return await segue.ask("Which?", to="ada")

@segue.flow
async def only_guarded() -> None:
    async with segue.timeout(timedelta(hours=2)):
        await asyncio.get_running_loop().create_future()

@segue.flow
async def race() -> str:
    first = asyncio.create_task(segue.ask("First?", to="ada"))
    nap = asyncio.create_task(segue.sleep(timedelta(minutes=1)))
    ring = asyncio.create_task(segue.receive(Ring))
    await asyncio.wait({first, nap, ring}, return_when=asyncio.FIRST_COMPLETED)
    first.cancel()
    nap.cancel()
    return await segue.ask("Second?", to="bob", timeout=timedelta(hours=2))

class Bell(segue.Actor[None]):
    @segue.on
    async def ring(self, note: Ring) -> None: ...

    @segue.on
    async def tell(self, request: Tell) -> str:
        return await segue.ask("Well?", returns=str)
"""


def test_a_parked_run_says_what_it_waits_for(desk: Desk):
    desk.write("waiting.py", WAITING)
    for flow, id in (
        ("nap", "n"),
        ("soon", "t"),
        ("listen", "l"),
        ("parent", "p"),
        ("many", "m"),
        ("Bell", "b"),
    ):
        desk.segue("run", f"waiting.py:{flow}", "--id", id, "--no-wait")
    desk.segue("run", "waiting.py:sure", "this", "--id", "s", "--no-wait")
    desk.segue("run", "waiting.py:asks_bell", "--id", "r", "--no-wait")
    assert desk.segue("advance", "waiting.py").code == 3
    said = {line.split()[0]: line for line in desk.segue("runs").out.splitlines()}
    time = r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, in 1 h 59 min"
    assert re.search(f"{time}$", said["n"])
    assert re.search(f"for an answer to t:0: Now[?], {time}$", said["t"])
    assert said["l"].endswith("for a message Ring")
    assert said["p"].endswith("for run child")
    assert said["s"].endswith("for boss's answer to s:0: Send this?")
    assert re.search(r"for run m[.]\w+, of sure; run m[.]\w+, of sure; and 2 more$", said["m"])
    assert said["b"].endswith("for messages")
    assert said["r"].endswith("for an answer of run its-bell to Tell")
    tree = desk.segue("runs", "--tree").out
    assert re.search(r"child +parked +sure +[\d.]+ m?s +for boss's answer to child:0: Send it[?]\n", tree)
    assert "  waits for a message Ring\n" in desk.segue("show", "l").out
    plain = {row["id"]: row for row in desk.segue("runs", "--json").rows}
    (wait,) = plain["t"]["waits"]
    assert (wait["call"], wait["kind"]) == ("#0", "ask")
    assert wait["until"] == plain["t"]["wake"]
    assert [wait["kind"] for wait in plain["m"]["waits"]] == ["child"] * 4


def test_what_code_waits_for_no_more_and_what_bounds_a_block_isnt_what_a_run_waits_for(desk: Desk):
    desk.write("waiting.py", WAITING)
    for flow in ("guarded", "only_guarded", "race"):
        desk.segue("run", f"waiting.py:{flow}", "--id", flow, "--no-wait")
    assert desk.segue("advance", "waiting.py").code == 3
    desk.segue("tell", "race", "Ring", "{}")
    assert desk.segue("advance", "waiting.py").code == 3
    said = {line.split()[0]: line for line in desk.segue("runs").out.splitlines()}
    time = r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, in 1 h 59 min"
    assert said["guarded"].endswith("for ada's answer to guarded:2: Which?")
    assert re.search(f"for timeout, {time}$", said["only_guarded"])
    assert re.search(f"for bob's answer to race:0: Second[?], {time}$", said["race"])
    shown = {row.split()[0]: row for row in desk.segue("show", "race").out.splitlines() if row.strip()}
    assert shown["/ask.0#0"].endswith("… given up")
    assert shown["/sleep.0#0"].endswith("… given up")
    assert "… waits until" in shown["#0"]
    plain = {row["id"]: row for row in desk.segue("runs", "--json").rows}
    assert [wait["kind"] for wait in plain["guarded"]["waits"]] == ["ask", "timeout"]


def test_a_run_whose_call_is_in_a_batch_names_it(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    desk.write("waiting.py", WAITING)
    provider = Provider(batch_time=timedelta(hours=1))
    try:
        how = ("--batch", "--model", provider.model, "--no-wait")
        desk.segue("run", "waiting.py:classify", "a", "--id", "c", *how)
        desk.segue("advance", "waiting.py")
        desk.write("rows.jsonl", '"b"\n"c"\n')
        desk.segue("map", "waiting.py:classify", "rows.jsonl", "--id", "j", *how)
        said = desk.segue("runs")
        batch = r"openai:test's batch, sent [\d.]+ m?s ago \(\w+, 0/{} done\): batch_\w+\n"
        assert re.search(f"c +parked +classify +[\\d.]+ m?s +for {batch.format(1)}", said.out)
        assert re.search(batch.format(1), said.err)
        assert re.search(batch.format(2), said.err)
        assert len(re.findall(f"for {batch.format(2)}", desk.segue("runs", "--job", "j").out)) == 2
        (row,) = [row for row in desk.segue("runs", "--json").rows if row["id"] == "c"]
        (wait,) = row["waits"]
        assert wait["model"] == "openai:test"
        assert wait["batch"].startswith("batch_")
        assert wait["since"] >= row["created"]
        monkeypatch.setattr(waits, "LINES", 0)  # of more, nobody looks at each
        assert "for openai:test in batch\n" in desk.segue("runs").out
    finally:
        provider.close()


def test_a_run_whose_call_is_in_no_batch_yet_says_since_when(desk: Desk):
    desk.write("waiting.py", WAITING)
    desk.segue(
        "run",
        "waiting.py:classify",
        "a",
        "--id",
        "c",
        "--batch",
        "--model",
        "openai:x@http://127.0.0.1:9/v1",
        "--no-wait",
    )
    desk.segue("advance", "waiting.py")
    said = desk.segue("runs")
    assert re.search(
        r"for openai:x: in no batch yet, for [\d.]+ m?s\n|for openai:x's batch, which is being sent", said.out
    )
