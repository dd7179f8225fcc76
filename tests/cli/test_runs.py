from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.cli.main import main
from segue.cli.runs import cause_of
from segue.core import export
from segue.model.entry import Failure
from segue.model.run import Head, Spec
from segue.runtime.ground.clock import SystemClock
from segue.stores.sqlite import lists
from tests.cli.desk import APP, Desk, Provider


def test_rows_that_became_no_run_are_told(desk: Desk):
    desk.write("rows.jsonl", '1\n"one"\n3\n')
    desk.segue("map", "app.py:twice", "rows.jsonl")
    heading, job = desk.segue("runs").out.splitlines()[:2]
    assert heading.split()[:4] == ["JOB", "ROWS", "UNREAD", "READY"]
    assert job.split() == ["twice:rows.jsonl", "3", "1", "0", "0", "0", "2", "0", "0"]


def test_runs_and_jobs(desk: Desk):
    desk.write("rows.jsonl", "1\n7\n")
    desk.segue("map", "app.py:twice", "rows.jsonl")
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    said = desk.segue("runs")
    lines = said.out.splitlines()
    assert lines[0].split() == ["JOB", "ROWS", "READY", "PARKED", "HELD", "DONE", "FAILED", "CANCELLED"]
    assert lines[1].split() == ["twice:rows.jsonl", "2", "0", "0", "0", "1", "1", "0"]
    assert lines[3].split() == ["RUN", "STATUS", "FLOW", "AGE", "WHAT"]
    assert lines[4].split()[:3] == ["q", "parked", "sure"]
    rows = desk.segue("runs", "--json").rows
    assert {row["id"]: row["status"] for row in rows} == {
        "twice:rows.jsonl/0": "done",
        "twice:rows.jsonl/1": "failed",
        "q": "parked",
    }
    assert [row["id"] for row in desk.segue("runs", "--status", "failed", "--json").rows] == [
        "twice:rows.jsonl/1"
    ]
    assert len(desk.segue("runs", "--job", "twice:rows.jsonl", "--limit", "1", "--json").rows) == 1


def test_of_many_jobs_the_newest_are_shown_and_those_that_are_not_over(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    desk.write("open.jsonl", '"hi"\n')
    desk.segue("map", "app.py:sure", "open.jsonl", "--no-wait", "--id", "waits")
    for name in ("first", "second", "third"):
        desk.segue("map", "app.py:twice", "rows.jsonl", "--id", name)
    said = desk.segue("runs", "--limit", "1")
    assert [line.split()[0] for line in said.out.splitlines()] == ["JOB", "waits", "third"]
    assert "and 2 more jobs that are over; --limit 0 shows all" in said.err
    said = desk.segue("runs", "--limit", "0")
    assert len(said.out.splitlines()) == 5
    assert "more jobs" not in said.err


def test_failures_are_grouped_by_cause(desk: Desk):
    desk.write("rows.jsonl", "7\n7\n7\n1\n")
    desk.segue("map", "app.py:twice", "rows.jsonl")
    (cause,) = desk.segue("runs", "--failed", "--json").rows
    assert (cause["runs"], cause["status"], cause["cause"]) == (3, "failed", "ValueError: seven is right out")
    said = desk.segue("runs", "--failed")
    assert "3 failed, such as twice:rows.jsonl/0" in said.out
    assert "segue resume --all-like twice:rows.jsonl/0" in said.out


def test_as_many_as_the_cure_takes(desk: Desk):
    """`--all-like` takes those of one job, so that is what is counted."""
    desk.write("rows.jsonl", "7\n7\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "a")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "b")
    desk.segue("run", "app.py:twice", "7", "--id", "alone")
    causes = desk.segue("runs", "--failed", "--json").rows
    assert sorted((cause["runs"], cause["example"]) for cause in causes) == [
        (1, "alone"),
        (2, "a/0"),
        (2, "b/0"),
    ]
    for cause in causes:
        said = desk.segue("resume", "--all-like", cause["example"])
        assert f"{cause['runs']} run" in said.err


def test_of_a_group_of_errors_it_is_told_what_is_in_it(desk: Desk):
    desk.change("@segue.flow\nasync def pair", GROUPS + "\n\n@segue.flow\nasync def pair")
    desk.write("rows.jsonl", "7\n7\n8\n")
    said = desk.segue("map", "app.py:both", "rows.jsonl", "-o", "out.jsonl")
    assert (
        "2 × ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions): ValueError: seven"
        in said.err
    )
    assert [row["error"]["message"].partition("): ")[2] for row in desk.rows()] == [
        "ValueError: seven is right out",
        "ValueError: seven is right out",
        "KeyError: 'eight'",
    ]
    one, other = desk.segue("runs", "--failed", "--json").rows
    assert (one["runs"], other["runs"]) == (2, 1)
    assert "KeyError: 'eight'" in desk.segue("runs", "--job", "both:rows.jsonl", "--failed").out


GROUPS = """
@segue.step
async def eight(n: int) -> int:
    if n == 8:
        raise KeyError("eight")
    return n


@segue.flow
async def both(n: int) -> int:
    async with asyncio.TaskGroup() as group:
        for step in double, eight, double:
            group.create_task(step(n))
    return n
""".strip()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("KeyError: 'abc'", "KeyError: 'def'", True),
        ("line 12 of 'x'", "line 345 of 'y'", True),
        ("model 'm' failed (HTTP 429): slow down", "model 'm' failed (HTTP 500): slow down", False),
        ("step 'a' was cut off", "step 'b' was cut off", False),
        ("model 'm' said '{\"a\": 1}'", 'model \'m\' said \'{"a": 1, "b": "x"}\'', True),
        ("model 'm' said 'x'", "model 'n' said 'x'", False),
        ('field required at .po; got {"a": 1}', 'field required at .po; got {"a": 1, "b": tr … }', True),
        ("field required at .po; got {}", "field required at .to; got {}", False),
        ("it isn't 'a', is it", "it isn't 'b', is it", True),
        ("timeout", "no room", False),
    ],
)
def test_a_cause_is_the_reason_without_its_data(one: str, other: str, same: bool):
    def cause(message: str, id: str) -> str:
        spec = Spec("flow", "f", b"[[],{}]")
        return cause_of(Head(id, spec, "failed", error=Failure("builtins:ValueError", message)))

    assert (cause(one, "r1") == cause(other, "r2")) is same


def test_open_questions(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    desk.segue("map", "app.py:sure", "rows.jsonl", "--no-wait", "--id", "j")
    rows = desk.segue("runs", "--asks", "--json").rows
    assert [(row["id"], row["to"], row["show"]) for row in rows] == [
        ("j/0:0", "boss", {"draft": "a"}),
        ("j/1:0", "boss", {"draft": "b"}),
    ]
    assert rows[0]["schema"] == {"type": "boolean"}
    assert "j/0:0" in desk.segue("runs", "--asks").out
    desk.segue("answer", "j/0:0", "y")
    assert len(desk.segue("runs", "--asks", "--json").rows) == 1


def test_a_timeline(desk: Desk, provider: Provider):
    desk.segue("run", "app.py:triage", "hello", "--id", "t", "--model", provider.model)
    said = desk.segue("show", "t")
    assert said.out.startswith("t  done\n")
    table = said.out.split("\n\n")[1].splitlines()
    assert table[0].split() == ["CALL", "KIND", "NAME", "AT", "TOOK", "TOKENS", "OUTCOME"]
    assert table[2].split()[:2] == ["#1", "generate"]
    assert table[2].endswith("You said: Answer 'hello' as " + json.loads(_answer(desk))["value"])
    call = json.loads(desk.segue("show", "t", "--call", "#1").out)
    assert call["args"]["messages"][0]["content"].startswith("Answer 'hello'")
    assert call["value"]["choices"][0]["message"]["content"].startswith("You said")
    run, *calls = desk.segue("show", "t", "--json").rows
    assert (run["id"], run["status"], run["input"]) == ("t", "done", [["hello"], {}])
    assert [row["call"] for row in calls] == ["#0", "#1"]
    said = desk.segue("show", "t", "--call", "#5")
    assert said.code == 2
    assert "the run's calls are #0, #1" in said.err


def _answer(desk: Desk) -> str:
    call = json.loads(desk.segue("show", "t", "--call", "#0").out)
    content: str = call["value"]["choices"][0]["message"]["content"]
    return content


def test_calls_follow_one_another_in_time(desk: Desk):
    desk.segue("run", "app.py:steps", "1", "--id", "s")
    _, *calls = desk.segue("show", "s", "--json").rows
    for one, next_one in pairwise(calls):
        assert next_one["began"] == one["ended"]
        assert next_one["ended"] - next_one["began"] >= 0.04


def test_a_timeline_shows_what_is_waited_for(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    assert desk.segue("show", "q").out.splitlines()[-1].endswith("… waits")
    said = desk.segue("show", "nope")
    assert said.code == 2
    assert "there is no run 'nope'" in said.err


def test_a_receipt(desk: Desk, provider: Provider):
    desk.segue("run", "app.py:triage", "hello", "--id", "t", "--model", provider.model)
    desk.segue("run", "app.py:twice", "1", "--id", "free")
    said = desk.segue("receipt", "t")
    assert said.out.splitlines()[1].split()[:3] == ["openai:test", "live", "2"]
    assert "no price is known for openai:test" in said.err
    assert "no model was called" in desk.segue("receipt", "free").err
    (receipt,) = desk.segue("receipt", "--json").rows
    assert (receipt["usd"], receipt["unpriced"]) == (0, ["openai:test"])
    assert desk.segue("receipt", "--job", "nope").code == 2


def test_an_export_can_be_read(desk: Desk):
    desk.segue("run", "app.py:twice", "3", "--id", "r")
    out = desk.segue("export", "r").out
    found = export.read(out.splitlines())
    assert (found.head.id, found.head.value, len(found.entries)) == ("r", b"12", 2)
    assert desk.segue("export", "r", "-o", "r.jsonl").code == 0
    assert Path("r.jsonl").read_text() == out
    assert desk.segue("export", "r", "--json").out == out
    assert desk.segue("export", "r", "-o", "r.jsonl", "--json").rows == [{"run": "r", "output": "r.jsonl"}]


def test_a_job_is_exported_to_files(desk: Desk):
    desk.write("rows.jsonl", '{"left": "a/b"}\n{"left": "c"}\n{"left": "a:b"}\n')
    desk.segue("map", "app.py:pair", "rows.jsonl", "--key", "left", "--id", "j")
    said = desk.segue("export", "--job", "j", "-o", "journals", "--json")
    assert said.rows == [{"job": "j", "runs": 3, "output": "journals"}]
    files = {path.name: export.read(path.read_text().splitlines()) for path in Path("journals").iterdir()}
    assert {name: file.head.spec.key for name, file in files.items()} == {
        "a_b.jsonl": "a/b",
        "a_b~2.jsonl": "a:b",
        "c.jsonl": "c",
    }


def test_a_jobs_export_waits_for_no_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    desk.write("rows.jsonl", "\n".join(str(n) for n in range(40)))
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    waited: list[int] = []
    monkeypatch.setattr("segue.cli.outcomes.os.fsync", waited.append)
    assert desk.segue("export", "--job", "j", "-o", "journals").code == 0
    assert len(list(Path("journals").iterdir())) == 40
    assert waited == []
    assert desk.segue("export", "j/0", "-o", "r.jsonl").code == 0
    assert len(waited) == 1


@pytest.mark.parametrize("words", [[], ["r", "--job", "j"], ["--job", "nope", "-o", "d"], ["nope"]])
def test_an_export_of_nothing(desk: Desk, words: list[str]):
    desk.segue("run", "app.py:twice", "3", "--id", "r")
    assert desk.segue("export", *words).code == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["answer", "letter-on:0", "y"], "letter-one:0"),
        (["answer", "leter-one", "y"], "letter-one"),
        (["tell", "letter-noe", "str", "x"], "letter-one"),
        (["show", "letter"], "letter-one"),
        (["cancel", "lettre-one"], "letter-one"),
        (["resume", "letter-onee"], "letter-one"),
        (["fork", "Letter-one"], "letter-one"),
        (["receipt", "letter-on"], "letter-one"),
        (["export", "letter-on"], "letter-one"),
        (["replay", "app.py", "letter-on"], "letter-one"),
        (["runs", "--job", "job"], "jobs"),
        (["receipt", "--job", "jbos"], "jobs"),
        (["cancel", "--job", "jobx"], "jobs"),
        (["export", "--job", "jobx", "-o", "."], "jobs"),
        (["advance", "app.py", "--job", "jobx"], "jobs"),
    ],
)
def test_an_id_that_is_nearly_one(desk: Desk, words: list[str], meant: str):
    desk.segue("run", "app.py:sure", "hi", "--id", "letter-one")
    desk.write("rows.jsonl", "1\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "jobs")
    said = desk.segue(*words)
    assert said.code == 2
    assert f"did you mean {meant!r}?" in said.err
    assert len(said.err.splitlines()) == 1


def test_an_id_that_is_like_no_other(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "letter-one")
    assert "did you mean" not in desk.segue("show", "zebra").err


def test_where_a_run_failed(desk: Desk):
    said = desk.segue("run", "app.py:twice", "7", "--id", "seven")
    line = APP.splitlines().index('        raise ValueError("seven is right out")') + 1
    where = f'app.py:{line}, in double\n    raise ValueError("seven is right out")'
    assert where in said.err
    shown = desk.segue("show", "seven").out
    assert where in shown
    assert "    return await double(await double(n))" in shown
    (call,) = [row for row in desk.segue("show", "seven", "--json").rows if "call" in row]
    assert call["error"]["trace"].strip() == where


TREE = """
from dataclasses import dataclass
from enum import Enum
import segue
from segue import Actor, Done, Listen, Restart


class Floor(Enum):
    CELLAR = 1
    HALL = 2


@dataclass
class Opening: ...


class Break(segue.Note): ...


class Lodger(Actor[None]):
    name: str

    @segue.on
    async def break_(self, _: Break) -> segue.Fail:
        return segue.Fail(ValueError(f"{self.name} broke"))


@segue.flow
async def guest(name: str) -> str:
    return await segue.ask("How long?")


class House(Actor[str]):
    groups = Floor
    restart = Restart(times=9)

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> Listen:
        lodger = await segue.spawn(Lodger("ada"), group=Floor.HALL, id="ada")
        await segue.spawn(guest("bob"), group=Floor.CELLAR, id="bob")
        await lodger.tell(Break())
        await segue.ask("Close?")
        return Listen()
"""


def test_a_tree_of_runs(desk: Desk):
    desk.write("house.py", TREE)
    desk.segue("run", "house.py:House", "--id", "house")
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    desk.segue("advance", "house.py")
    said = desk.segue("runs", "--tree").out.splitlines()
    assert said[0].split() == ["RUN", "STATUS", "FLOW", "RESTARTS", "AGE", "WHAT"]
    by_id = {line.split()[0]: line for line in said[1:]}
    assert by_id["house"].split()[1:3] == ["parked", "House"]
    assert by_id["ada"].startswith("  ada ")
    assert by_id["ada"].split()[1:4] == ["parked", "Lodger", "1"]
    assert by_id["bob"].split()[1:3] == ["parked", "guest"]
    assert [line for line in said if line.startswith("    bob.")]  # the flow that it carries out
    assert by_id["q"].startswith("q ")
    assert [row["id"] for row in desk.segue("runs", "--tree", "ada", "--json").rows] == ["ada"]
    rows = {row["id"]: row for row in desk.segue("runs", "--tree", "house", "--json").rows}
    assert (rows["ada"]["parent"], rows["ada"]["restarts"]) == ("house", 1)
    assert "q" not in rows
    assert "there is no run 'nobody'" in desk.segue("runs", "--tree", "nobody").err


def test_a_tree_of_a_store_of_jobs_says_where_its_runs_are(desk: Desk):
    desk.write("rows.jsonl", "1\n2\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    said = desk.segue("runs", "--tree")
    assert (said.out, said.err) == ("", "all runs are of jobs: with --job JOB, those of one\n")
    assert desk.segue("runs", "--tree", "--job", "j").out.count("twice") == 2


def test_of_a_tree_the_newest_are_shown(desk: Desk):
    desk.write(
        "pipe.py",
        "import segue\n@segue.flow\nasync def part(n: int) -> int:\n    return n\n"
        "@segue.flow\nasync def whole(n: int) -> list[int]:\n    return await segue.map(part, range(n))\n",
    )
    desk.segue("run", "pipe.py:whole", "5", "--id", "old")
    desk.segue("run", "pipe.py:whole", "1", "--id", "new")
    said = desk.segue("runs", "--tree", "--limit", "5")
    runs = [line.split()[0] for line in said.out.splitlines()[1:]]
    assert [run.partition(".")[0] for run in runs] == ["old", "old", "old", "new", "new"]
    below = [row["id"] for row in desk.segue("runs", "--tree", "old", "--limit", "0", "--json").rows]
    assert runs[1:3] == below[-2:]
    assert "and more below; --limit 0 shows all" in said.err
    assert desk.segue("runs", "--tree", "--limit", "8").err == ""


def test_to_show_a_few_runs_a_few_are_read(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    desk.segue("run", "app.py:sure", "hi", "--id", "old")
    numbers = ["7" if n in (7, 47) else str(10 + n) for n in range(60)]
    desk.write("rows.jsonl", "\n".join(numbers) + "\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    for id in ("r1", "r2"):
        desk.segue("run", "app.py:twice", "1", "--id", id)
    read = 0
    as_heads = lists.as_heads

    def counted(cx: Any, rows: Any) -> Any:
        nonlocal read
        read += len(rows)
        return as_heads(cx, rows)

    monkeypatch.setattr(lists, "as_heads", counted)
    for words, shown in {
        "": ["old", "r1", "r2"],
        "--json": ["j/59", "r1", "r2"],
        "--status done": ["j/59", "r1", "r2"],
        "--status failed": ["j/7", "j/47"],
        "--status parked": ["old"],
        "--job j": ["j/57", "j/58", "j/59"],
        "--job j --status done": ["j/57", "j/58", "j/59"],
        "--job j --status failed": ["j/7", "j/47"],
        "--tree": ["old", "r1", "r2"],
        "--tree old": ["old"],
        "--tree --job j": ["j/57", "j/58", "j/59"],
    }.items():
        read = 0
        said = desk.segue("runs", *words.split(), "--limit", "3")
        if words == "--json":
            ids = [row["id"] for row in said.rows]
        else:
            ids = [line.split()[0] for line in said.out.rpartition("RUN ")[2].splitlines()[1:]]
        assert ids == shown, words
        assert read <= 6, words


def test_options_that_would_be_passed_over_are_refused(desk: Desk):
    desk.segue("run", "app.py:twice", "7", "--id", "seven", "--tag", "a=b")
    for words in (["--tree", "--status", "done"], ["--asks", "--tag", "a=b"], ["--failed", "--asks"]):
        said = desk.segue("runs", *words)
        assert (said.code, said.out) == (2, ""), words
    assert "such as seven" in desk.segue("runs", "--failed", "--status", "failed", "--tag", "a=b").out
    assert "nothing failed" in desk.segue("runs", "--failed", "--status", "held").err


def test_runs_are_found_by_their_tags(desk: Desk):
    desk.write("rows.jsonl", "1\n7\n")
    desk.segue(
        "map", "app.py:twice", "rows.jsonl", "--id", "j", "--tag", "customer=acme", "--tag", "day=monday"
    )
    desk.segue("run", "app.py:twice", "3", "--id", "r", "--tag", "customer=acme")
    desk.segue("run", "app.py:twice", "3", "--id", "other")

    def found(*words: str) -> set[str]:
        return {row["id"] for row in desk.segue("runs", "--json", *words).rows}

    assert found("--tag", "customer=acme") == {"j/0", "j/1", "r"}
    assert found("--tag", "customer=acme", "--tag", "day=monday", "--status", "done") == {"j/0"}
    assert "1 failed, such as j/1" in desk.segue("runs", "--failed", "--tag", "customer=acme").out
    assert "nothing failed" in desk.segue("runs", "--failed", "--tag", "customer=other").err
    assert "j/0" in desk.segue("runs", "--tag", "customer=acme").out


def test_what_acts_tells_programs_what_it_did(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "s")
    assert desk.segue("answer", "s", "y", "--json").rows == [{"ask": "s:0", "run": "s", "value": True}]
    desk.segue("advance", "app.py")
    assert desk.segue("fork", "s", "--id", "f", "--json").rows == [{"run": "f", "of": "s"}]
    told = {"run": "f", "type": "T", "message": {"a": 1}}
    assert desk.segue("tell", "f", "T", '{"a": 1}', "--json").rows == [told]
    assert desk.segue("cancel", "f", "--json").rows == [{"cancelled": ["f"]}]
    desk.segue("run", "app.py:twice", "7", "--id", "t")
    assert desk.segue("resume", "t", "--json").rows == [{"resumed": ["t"]}]


@segue.step
async def name_of(day: int) -> str:
    return f"day {day}"


@segue.flow
async def dated(days: int) -> list[str]:
    said = [await name_of(day) for day in range(days)]
    return [*said, segue.now().isoformat()]


async def test_a_fork_has_times_of_its_own_and_replays_its_origins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shift = -3 * 86400.0
    clock = SystemClock()
    monkeypatch.setattr(clock, "now", lambda: time.time() + shift, raising=False)
    store = f"sqlite:{tmp_path / 'runs.db'}"
    async with segue.Engine(store, clock=clock) as engine:
        told = await engine.run(dated(2), id="old")
        shift = 0.0
        assert await (await engine.fork("old", id="same")) == told
        assert (await (await engine.fork("old", id="new", before="#1")))[:2] == ["day 0", "day 1"]

    def said(*words: str) -> str:
        assert main([*words, "--store", store]) == 0
        return capsys.readouterr().out

    def listed() -> None:
        ages = {line.split()[0]: line.split()[3:5] for line in said("runs").splitlines()[1:]}
        assert ages["old"] == ["3", "d"]
        assert {ages["same"][1], ages["new"][1]} <= {"s", "ms"}
        assert "3 d" not in said("show", "new")
        assert f"begun {time.strftime('%Y-%m-%d')}" in said("show", "same")

    await asyncio.to_thread(listed)


def test_of_a_cancelled_run_nothing_is_said_twice(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    desk.segue("cancel", "q")
    desk.segue("advance", "app.py")
    row = next(line for line in desk.segue("runs").out.splitlines() if line.startswith("q "))
    assert row.split()[1] == row.split()[-1] == "cancelled"
    assert row.count("q") == 1


def test_runs_that_others_started_are_in_the_tree(desk: Desk):
    """A pipeline's newest runs are all its own: they'd hide what was started by hand."""
    desk.write(
        "pipe.py",
        "import segue\n@segue.flow\nasync def part(n: int) -> int:\n    return n\n"
        "@segue.flow\nasync def whole(n: int) -> list[int]:\n    return await segue.map(part, range(n))\n",
    )
    desk.segue("run", "pipe.py:whole", "3", "--id", "it")
    assert [line.split()[0] for line in desk.segue("runs").out.splitlines()] == ["RUN", "it"]
    assert desk.segue("runs", "--tree", "it").out.count("part") == 3
    assert len(desk.segue("runs", "--json").rows) == 4


def test_jobs_alone_end_with_their_last_line(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    desk.segue("map", "app.py:twice", "rows.jsonl")
    assert not desk.segue("runs").out.endswith("\n\n")


def test_a_run_is_shown_as_the_call_that_it_is(desk: Desk):
    desk.segue("run", "app.py:pair", "left=a\x1b", "right=4", "--id", "p")
    desk.segue("run", "app.py:pair", '{"left": "a"}', "--id", "named")
    desk.write("rest.py", "import segue\n@segue.flow\nasync def rest(*, flag: bool = False) -> None: ...\n")
    desk.segue("run", "rest.py", "flag=true", "--id", "r")
    desk.segue("run", "rest.py", "--id", "none")
    said = [
        desk.segue("show", id).out.splitlines()[1].partition(", version")[0]
        for id in ("p", "named", "r", "none")
    ]
    assert said == [
        '  flow pair("a\\u001b", 4)',
        '  flow pair("a")',
        "  flow rest(flag=true)",
        "  flow rest()",
    ]
    assert "it made no call that is recorded" in desk.segue("show", "p").err


def test_a_receipt_is_of_a_run_or_of_a_job(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    said = desk.segue("receipt", "j/0", "--job", "j")
    assert (said.code, "say one of them" in said.err) == (2, True)


def test_a_flow_has_no_diagram(desk: Desk):
    desk.write("cook.py", "import segue\nclass Cook(segue.Actor[None]): ...\n")
    desk.segue("run", "app.py:twice", "1", "--id", "t")
    said = desk.segue("diagram", "cook.py", "--run", "t")
    assert (said.code, "run 't' is one of flow 'twice': actors alone have a diagram" in said.err) == (2, True)
