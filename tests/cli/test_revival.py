from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.desk import Desk, Provider


def held(desk: Desk, *ids: str) -> None:
    """Runs whose code changed while they waited for an answer."""
    for id in ids:
        desk.segue("run", "app.py:sure", "hi", "--id", id)
    desk.change('f"Send {text!r}?"', 'f"Really send {text!r}?"')
    for id in ids:
        desk.segue("answer", id, "y")
    desk.segue("advance", "app.py")


def status(desk: Desk, id: str) -> str:
    found: str = next(row["status"] for row in desk.segue("runs", "--json").rows if row["id"] == id)
    return found


def test_a_held_run_wants_a_decision(desk: Desk):
    held(desk, "a")
    assert status(desk, "a") == "held"
    said = desk.segue("resume", "a")
    assert said.code == 2
    assert "Say --keep, --rerun or --value" in said.err
    assert "Send 'hi'" in said.err  # what differs
    assert desk.segue("advance", "app.py").code == 1


def test_keep(desk: Desk):
    held(desk, "a")
    assert desk.segue("resume", "a", "--keep").code == 0
    assert desk.segue("advance", "app.py").code == 0
    assert desk.segue("run", "app.py:sure", "--id", "a").out == "sent\n"


def test_to_cancel_nothing_is_no_command(desk: Desk):
    desk.segue("run", "app.py:twice", "1", "--id", "a")
    said = desk.segue("cancel")
    assert said.code == 2
    assert "none is named" in said.err


CAREFUL = """
@segue.flow
async def careful(text: str) -> str:
    try:
        ok = await segue.ask(f"Send {text!r}?", returns=bool)
    except asyncio.CancelledError:
        if await segue.ask("Really end?", returns=bool):
            raise
        return "kept"
    return "sent" if ok else "kept"
"""


def test_a_run_that_was_cancelled_takes_no_answer(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "a")
    desk.segue("cancel", "a")
    for ask in ("a", "a:0"):
        said = desk.segue("answer", ask, "y")
        assert said.code == 2
        assert "cancelled, and hasn't been at work since: `segue advance app.py` ends it" in said.err
    desk.segue("advance", "app.py")
    for ask in ("a", "a:0"):
        said = desk.segue("answer", ask, "y")
        assert said.code == 2
        assert "its run is cancelled; `segue resume a` has it go on, and ask again" in said.err
    desk.segue("resume", "a")
    assert desk.segue("advance", "app.py").code == 3
    assert desk.segue("answer", "a", "y").code == 0
    assert desk.segue("advance", "app.py").code == 0
    assert status(desk, "a") == "done"


def test_what_a_run_asks_as_it_ends_is_answered(desk: Desk):
    desk.change("@segue.flow\nasync def twice", f"{CAREFUL}\n\n@segue.flow\nasync def twice")
    for id, answer, becomes in (("a", "n", "done"), ("b", "y", "cancelled")):
        desk.segue("run", "app.py:careful", "hi", "--id", id)
        desk.segue("cancel", id)
        assert desk.segue("advance", "app.py").code == 3
        desk.segue("cancel", id)  # once more
        desk.segue("advance", "app.py")
        assert desk.segue("answer", id, answer).code == 0
        assert desk.segue("advance", "app.py").code == 0
        assert status(desk, id) == becomes


def test_what_comes_to_a_held_run_waits_until_it_is_resumed(desk: Desk):
    held = "@segue.flow\nasync def both(text: str) -> str:\n    "
    held += "return str(await asyncio.gather(sure(text), segue.ask('Which?')))"
    desk.change("@segue.flow\nasync def twice", f"{held}\n\n\n@segue.flow\nasync def twice")
    desk.segue("run", "app.py:both", "hi", "--id", "a")
    desk.change('f"Send {text!r}?"', 'f"Really send {text!r}?"')
    first, second = [row["id"] for row in desk.segue("runs", "--asks", "--json").rows]
    assert "answered; it goes on in whatever works" in desk.segue("answer", first, "y").err
    desk.segue("advance", "app.py")
    assert status(desk, "a") == "held"
    said = desk.segue("answer", second, "this")
    assert "answered; it goes on once it is resumed, for it is held: `segue runs --failed` says" in said.err
    assert "told; it goes on once it is resumed" in desk.segue("tell", "a", "str", "hi").err
    desk.segue("resume", "a", "--keep")
    assert desk.segue("advance", "app.py").code == 0
    assert desk.segue("run", "app.py:both", "--id", "a").out == "['sent', 'this']\n"


def test_rerun_asks_anew(desk: Desk):
    held(desk, "a")
    assert desk.segue("resume", "a", "--rerun").code == 0
    assert desk.segue("advance", "app.py").code == 3
    (ask,) = desk.segue("runs", "--asks", "--json").rows
    assert ask["question"] == "Really send 'hi'?"


def test_runs_held_for_one_reason_are_a_group(desk: Desk):
    held(desk, "run-a", "run-b", "run-c")
    (cause,) = desk.segue("runs", "--failed", "--json").rows
    assert cause["runs"] == 3
    said = desk.segue("resume", "--all-like", "run-b", "--keep")
    assert "3 runs go on" in said.err
    assert desk.segue("advance", "app.py").code == 0
    assert [status(desk, f"run-{id}") for id in "abc"] == ["done"] * 3


def test_another_reason_is_another_group(desk: Desk):
    desk.change("return n * 2", "raise KeyError(n)")
    desk.segue("run", "app.py:twice", "7", "--id", "f")
    desk.segue("run", "app.py:twice", "1", "--id", "g")
    desk.segue("run", "app.py:twice", "2", "--id", "h")
    assert len(desk.segue("runs", "--failed", "--json").rows) == 2
    desk.change("raise KeyError(n)", "return n * 2")
    assert "2 runs go on" in desk.segue("resume", "--all-like", "g").err
    desk.segue("advance", "app.py")
    assert [status(desk, id) for id in "fgh"] == ["failed", "done", "done"]


def test_a_failed_run_is_tried_anew(desk: Desk):
    desk.segue("run", "app.py:twice", "7", "--id", "f")
    desk.change("if n == 7:", "if n == 8:")
    assert desk.segue("resume", "f").code == 0
    assert desk.segue("advance", "app.py").code == 0
    assert desk.segue("run", "app.py:twice", "--id", "f").out == "28\n"
    said = desk.segue("resume", "f")
    assert said.code == 2
    assert "it is done" in said.err or "is done; only" in said.err


def test_all_rows_of_a_job_that_failed_go_on_whatever_the_cause(desk: Desk):
    desk.change("    if n == 7:", '    if n == 8:\n        raise KeyError("eight")\n    if n == 7:')
    desk.write("rows.jsonl", "5\n7\n8\n")
    job = ("map", "app.py:twice", "rows.jsonl", "--id", "j", "-o", "out.jsonl")
    said = desk.segue(*job)
    assert (said.code, "whatever the cause: `segue resume --job j`" in said.err) == (1, True)
    desk.change("    if n == 8:", "    if n == 80:")
    desk.change("    if n == 7:", "    if n == 70:")
    said = desk.segue("resume", "--job", "j")
    assert (said.code, said.err.partition(" go on")[0]) == (0, "2 runs")
    assert desk.segue(*job).code == 0
    assert [row["value"] for row in desk.rows()] == [20, 28, 32]
    said = desk.segue("resume", "--job", "j")
    assert (said.code, "none has failed" in said.err) == (2, True)
    assert "no job 'k'" in desk.segue("resume", "--job", "k").err


def test_rows_of_a_job_that_are_held_want_a_decision(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    desk.segue("map", "app.py:sure", "rows.jsonl", "--id", "j", "--no-wait")
    desk.segue("advance", "app.py")
    desk.change('f"Send {text!r}?"', 'f"Really send {text!r}?"')
    for row in ("j/0", "j/1"):
        desk.segue("answer", row, "y")
    desk.segue("advance", "app.py")
    said = desk.segue("resume", "--job", "j")
    assert (said.code, "2 held: say --keep or --rerun" in said.err) == (2, True)
    assert desk.segue("resume", "--job", "j", "--keep").code == 0
    assert desk.segue("advance", "app.py").code == 0


def test_children_go_on_with_who_started_them(desk: Desk):
    above = "@segue.flow\nasync def all_sure(texts: list[str]) -> list[str]:\n    return await segue.map(sure, texts)"
    desk.change("@segue.flow\nasync def twice", f"{above}\n\n\n@segue.flow\nasync def twice")
    desk.segue("run", "app.py:all_sure", '["a", "b"]', "--id", "it")
    desk.segue("cancel", "it")
    assert desk.segue("advance", "app.py").code == 0
    ids = [row["id"] for row in desk.segue("runs", "--json").rows]
    assert [status(desk, id) for id in ids] == ["cancelled"] * 3
    said = desk.segue("resume", *ids)
    assert "3 runs go on" in said.err  # each once
    desk.segue("cancel", "it")
    assert desk.segue("advance", "app.py").code == 0
    said = desk.segue("resume", "it")
    assert "1 run goes on" in said.err
    assert "and 2 that had ended with it" in said.err
    assert desk.segue("advance", "app.py").code == 3
    for row in desk.segue("runs", "--asks", "--json").rows:
        desk.segue("answer", row["id"], "y")
    assert desk.segue("advance", "app.py").code == 0
    assert status(desk, "it") == "done"


ABOVE = """
@segue.flow
async def all_twice(numbers: list[int]) -> list[int]:
    return await segue.map(twice, numbers)


@segue.flow
async def caught(n: int) -> int:
    try:
        return await (await segue.spawn(twice(n)))
    except ValueError:
        return 0


@segue.flow
async def left(n: int) -> None:
    await segue.spawn(twice(n))
"""


def test_a_child_that_failed_counts_until_who_started_it_is_over_it(desk: Desk):
    desk.change("@segue.flow\nasync def triage", f"{ABOVE}\n\n@segue.flow\nasync def triage")
    assert desk.segue("run", "app.py:caught", "7").code == 0
    assert desk.segue("advance", "app.py").code == 0
    assert desk.segue("run", "app.py:all_twice", "[1, 7]", "--id", "it").code == 1
    assert desk.segue("advance", "app.py").code == 1
    desk.change("if n == 7:", "if n == 8:")
    desk.segue("resume", "it")
    said = desk.segue("advance", "app.py")
    assert (said.code, "2 failed\n  those that failed were started by runs that got over it" in said.err) == (
        0,
        True,
    )
    assert desk.segue("advance", "app.py", "--json").code == 0
    desk.change("    if n == 8:", "    await asyncio.sleep(0.2)\n    if n == 8:")
    desk.segue("run", "app.py:left", "8")
    said = desk.segue("advance", "app.py")  # nobody else says so
    assert (said.code, "got over" in said.err) == (1, False)


def test_nobody_gets_over_a_child_that_it_doesnt_wait_for(desk: Desk):
    """It fails before or after that ends, by chance: either way it counts, and is like others."""
    above = """
@segue.flow
async def before(n: int) -> None:
    await segue.spawn(twice(n))
    await segue.sleep(timedelta(seconds=0.2))
"""
    desk.change("import asyncio\n", "import asyncio\nfrom datetime import timedelta\n")
    desk.change("@segue.flow\nasync def triage", f"{above}\n\n@segue.flow\nasync def triage")
    assert desk.segue("run", "app.py:before", "7").code == 0
    said = desk.segue("advance", "app.py")
    assert (said.code, "got over" in said.err) == (1, False)
    assert desk.segue("run", "app.py:twice", "7", "--id", "it").code == 1
    desk.change("if n == 7:", "if n == 8:")
    assert "2 runs go on" in desk.segue("resume", "--all-like", "it").err
    assert desk.segue("advance", "app.py").code == 0


def test_children_that_nobody_waits_for_any_more_arent_like_others(desk: Desk):
    """They would be done, and paid, once more for nobody: those that their starter caught, or will begin anew."""
    begins = '    with Path("begun.txt").open("a") as log:\n        log.write("x")\n    if n == 7:'
    desk.change("    if n == 7:", begins)
    above = """
@segue.flow
async def higher(n: int) -> int:
    try:
        return sum(await (await segue.spawn(all_twice([n]))))
    except ValueError:
        return 0
"""
    desk.change("@segue.flow\nasync def triage", f"{ABOVE}\n{above}\n\n@segue.flow\nasync def triage")
    assert desk.segue("run", "app.py:higher", "7").code == 0
    assert desk.segue("advance", "app.py").code == 0  # its child is failed, and the child of that
    assert desk.segue("run", "app.py:all_twice", "[7]", "--id", "it").code == 1
    (desk.path / "begun.txt").unlink()
    desk.change("    if n == 7:", "    if n == 70:")
    said = desk.segue("resume", "--all-like", "it")
    assert "1 run goes on" in said.err
    assert "3 like it are left as they are" in said.err
    assert desk.segue("advance", "app.py").code == 0
    assert (desk.path / "begun.txt").read_text() == "xx"  # of one child


def test_nothing_is_resumed_without_a_name(desk: Desk):
    desk.segue("run", "app.py:twice", "1")
    assert desk.segue("resume").code == 2
    assert desk.segue("resume", "nope").code == 2


AGAIN = """
import os
import segue

@segue.step
async def plus(x: int) -> int:
    return x + 1

@segue.step(retry=1)
async def needy(x: int) -> int:
    if not os.path.exists("there"):
        raise ValueError("nothing there")
    return x

@segue.flow
async def tried(x: int) -> int:
    return await needy(await plus(x))
"""


def test_history_of_a_resumed_run_is_what_it_did_anew(desk: Desk):
    """What it took over stands among its calls, and was counted a second time."""
    desk.write("again.py", AGAIN)
    assert desk.segue("run", "again.py:tried", "1", "--id", "a").code == 1
    desk.segue("resume", "a")
    desk.write("there", "")
    assert desk.segue("advance", "again.py").code == 0
    _, *calls = desk.segue("show", "a", "--history", "--json").rows
    assert [(call["call"], "error" in call) for call in calls] == [("#1", True), ("#0", False), ("#1", False)]
    assert "before it was resumed are history" in desk.segue("show", "a").out


def test_cancel(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "a")
    assert desk.segue("cancel", "a").code == 0
    assert desk.segue("advance", "app.py").code == 0
    assert status(desk, "a") == "cancelled"
    said = desk.segue("cancel", "a")
    assert said.code == 2
    assert "it is cancelled" in said.err


def test_why_it_was_held_is_kept_of_a_run_that_is_cancelled(desk: Desk):
    held(desk, "a")
    desk.segue("cancel", "a")
    desk.segue("advance", "app.py")
    said = desk.segue("show", "a").out
    assert said.startswith("a  cancelled while it was held\n")
    assert "A recorded call has other arguments now: ask" in said


def test_cancel_a_job(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    words = ["map", "app.py:sure", "rows.jsonl", "--id", "j", "--no-wait"]
    desk.segue(*words)
    assert desk.segue("cancel", "--job", "j").code == 0
    said = desk.segue(*words)
    assert said.code == 1
    assert [row["error"]["type"] for row in said.rows] == ["RunCancelled"] * 2


def test_fork_before_a_call(desk: Desk, provider: Provider):
    desk.segue("run", "app.py:triage", "hello", "--id", "t", "--model", provider.model)
    assert desk.segue("fork", "t", "--before", "#1", "--id", "u").out == "u\n"
    assert desk.segue("advance", "app.py").code == 0
    _, *calls = desk.segue("show", "u", "--json").rows
    assert [call["call"] for call in calls] == ["#0", "#1"]
    assert calls[0]["value"] == desk.segue("show", "t", "--json").rows[1]["value"]
    (receipt,) = desk.segue("receipt", "u", "--json").rows
    assert receipt["lines"][0]["calls"] == 1  # the other is shared


def test_a_fork_without_the_hash(desk: Desk):
    desk.segue("run", "app.py:twice", "3", "--id", "t")
    assert desk.segue("fork", "t", "--before", "1", "--edit", "0=100", "--id", "u").code == 0
    desk.segue("advance", "app.py")
    assert desk.segue("run", "app.py:twice", "--id", "u").out == "200\n"


def test_fork_with_an_edit(desk: Desk):
    desk.segue("run", "app.py:twice", "3", "--id", "t")
    desk.segue("fork", "t", "--edit", "#0=100", "--id", "u")
    desk.segue("advance", "app.py")
    assert desk.segue("run", "app.py:twice", "--id", "u").out == "200\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nope"], "there is no run 'nope'"),
        (["t", "--before", "#9"], "the run's calls are #0, #1"),
        (["t", "--edit", "#0"], "there is no ="),
        (["t", "--edit", "#0={"], "--edit #0"),
        (["t", "--id", "t"], "choose another id"),
    ],
)
def test_forks_that_can_not_be(desk: Desk, words: list[str], says: str):
    desk.segue("run", "app.py:twice", "3", "--id", "t")
    said = desk.segue("fork", *words)
    assert said.code == 2
    assert says in said.err


def test_replay(desk: Desk):
    desk.segue("run", "app.py:steps", "1", "--id", "t")
    ran = Path("done.txt").read_text()
    said = desk.segue("replay", "app.py", "t")
    assert said.code == 0
    assert "the same 5 calls" in said.err
    desk.change("n * 100 + i", "n * 200 + i")
    said = desk.segue("replay", "app.py", "t")
    assert said.code == 1
    assert "it differs: run 't'" in said.err
    assert desk.segue("replay", "app.py", "t", "--json").rows[0]["same"] is False
    assert Path("done.txt").read_text() == ran  # nothing was called


def test_replay_of_new_calls_and_results(desk: Desk):
    desk.segue("run", "app.py:steps", "1", "--id", "t")
    ran = Path("done.txt").read_text()
    desk.change("range(5)", "range(6)")
    said = desk.segue("replay", "app.py", "t")
    assert said.code == 1
    assert "nothing" in said.err
    desk.change("range(6)", "range(4)")
    assert desk.segue("replay", "app.py", "t").code == 1
    desk.change("range(4)", "range(5)")
    desk.change("return sum(", "return -sum(")
    said = desk.segue("replay", "app.py", "t")
    assert said.code == 1
    assert "-510" in said.err
    assert Path("done.txt").read_text() == ran


def test_replay_up_to_where_a_run_stands(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    said = desk.segue("replay", "app.py", "q")
    assert said.code == 0
    assert "up to where it stands: parked" in said.err


def test_replay_of_what_the_file_does_not_define(desk: Desk):
    desk.segue("run", "app.py:twice", "1", "--id", "t")
    desk.change("async def twice", "async def doubled")
    said = desk.segue("replay", "app.py", "t")
    assert said.code in (0, 2)  # 0 where an earlier load is still there


def test_where_one_of_several_is_not_there_none_is_cancelled(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    said = desk.segue("cancel", "q", "nix")
    assert (said.code, "there is no run 'nix'" in said.err) == (2, True)
    assert desk.segue("runs", "--json").rows[0]["status"] == "parked"
    assert desk.segue("cancel", "q").code == 0


def test_what_goes_on_is_named_with_its_store(desk: Desk):
    """Copied without it, the command would sweep another store."""
    there = ("--store", "sqlite:other.db")
    desk.write("rows.jsonl", "1\n")
    assert desk.segue("map", "app.py:steps", "rows.jsonl", "--id", "j", *there).code == 0
    for name in ("a", "b"):
        desk.segue("run", "app.py:sure", "hi", "--id", name, *there)
    said = {
        "answer": desk.segue("answer", "a", "y", *there),
        "cancel": desk.segue("cancel", "b", *there),
        "fork": desk.segue("fork", "j/0", *there),
    }
    desk.segue("advance", "app.py", *there)
    said["resume"] = desk.segue("resume", "b", *there)
    for command, each in said.items():
        assert (command, each.code) == (command, 0)
        assert (command, "`segue advance app.py --store sqlite:other.db`" in each.err) == (command, True)
    all_of = desk.segue("fork", "--job", "j", "--from", "slow", "--id", "k", *there)
    assert "`segue advance app.py --job k -o out.jsonl --store sqlite:other.db` goes on" in all_of.err


def test_rows_that_are_held_are_left_out_where_a_call_is_made_anew(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    desk.segue("map", "app.py:sure", "rows.jsonl", "--id", "j", "--no-wait")
    desk.segue("advance", "app.py")
    desk.change('f"Send {text!r}?"', 'f"Really send {text!r}?"')
    desk.segue("answer", "j/0", "y")
    desk.segue("cancel", "j/1")
    desk.segue("advance", "app.py")
    assert (status(desk, "j/0"), status(desk, "j/1")) == ("held", "cancelled")
    said = desk.segue("resume", "--job", "j", "--from", "ask", "--rerun")
    assert said.code == 2
    assert "job 'j' has no row that may go on so; 1 held" in said.err
    assert status(desk, "j/0") == "held"
