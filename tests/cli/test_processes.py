"""Commands in processes of their own: kills, signals, pipes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.bound import bound
from tests.cli.desk import Desk, Said


def until_lines(path: Path, number: int) -> None:
    """Wait until a file has so many lines."""
    for _ in range(1000):
        if path.exists() and len(path.read_text().splitlines()) >= number:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path.name} never had {number} lines")


ROWS = "".join(f"{n}\n" for n in range(10))
MAP = ["map", "app.py:steps", "rows.jsonl", "-o", "out.jsonl", "--limit", "2"]


def test_run(desk: Desk):
    said = desk.finish(desk.start("run", "app.py:twice", "4"))
    assert (said.code, said.out) == (0, "16\n")


def test_killed_the_same_command_goes_on(desk: Desk):
    desk.write("rows.jsonl", ROWS)
    log = desk.path / "done.txt"
    for lines in (5, 20):
        process = desk.start(*MAP)
        until_lines(log, lines)
        process.send_signal(signal.SIGKILL)
        assert desk.finish(process).code == -signal.SIGKILL
        assert not (desk.path / "out.jsonl").exists()
    said = desk.finish(desk.start(*MAP))
    assert said.code == 0
    assert [row["value"] for row in desk.rows()] == [sum(n * 100 + i for i in range(5)) for n in range(10)]
    done = log.read_text().splitlines()
    assert len(set(done)) == 50
    assert len(done) <= 50 + 2 * 2  # but for what was under way at a kill, nothing ran twice


def test_interrupted_it_parks(desk: Desk):
    desk.write("rows.jsonl", ROWS)
    process = desk.start(*MAP)
    until_lines(desk.path / "done.txt", 6)
    process.send_signal(signal.SIGINT)
    said = desk.finish(process)
    assert said.code == 130
    assert "parked; the same command goes on" in said.err
    assert "Traceback" not in said.err
    assert not (desk.path / "out.jsonl").exists()
    assert desk.finish(desk.start(*MAP)).code == 0
    assert len(desk.rows()) == 10


DEAR = """
import asyncio, pathlib, segue

@segue.step(effect="at-most-once")
async def careful(n: int) -> int:
    with pathlib.Path("done.txt").open("a") as file:
        file.write("x\\n")
    await asyncio.sleep(0.8)
    return n

@segue.flow
async def dear(n: int) -> int:
    return await careful(n)
"""


def test_a_terminal_that_is_closed_parks_as_ctrl_c_does(desk: Desk):
    desk.write("dear.py", DEAR)
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "segue", "run", "dear.py:dear", "3", "--id", "it"],
        cwd=desk.path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY),  # theirs is its terminal
    )
    os.close(theirs)
    until_lines(desk.path / "done.txt", 1)
    os.close(terminal)  # the system tells of it; and so does many a shell, a moment later
    time.sleep(0.3)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 130
    assert "careful" not in desk.segue("runs").out  # as the reason for which it is held
    assert desk.segue("run", "dear.py:dear", "--id", "it").out == "3\n"
    assert (desk.path / "done.txt").read_text() == "x\n"


def test_whoever_ignores_a_closed_terminal_goes_on(desk: Desk):
    desk.write("dear.py", DEAR)
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}  # as nohup does
    process = desk.start("run", "dear.py:dear", "3", **ignoring)
    until_lines(desk.path / "done.txt", 1)
    process.send_signal(signal.SIGHUP)
    said = desk.finish(process)
    assert (said.code, said.out) == (0, "3\n")


def test_an_interrupted_run_goes_on(desk: Desk):
    process = desk.start("run", "app.py:steps", "3", "--id", "s")
    until_lines(desk.path / "done.txt", 2)
    process.send_signal(signal.SIGINT)
    said = desk.finish(process)
    assert said.code == 130
    assert "segue run app.py:steps --id s" in said.err
    said = desk.finish(desk.start("run", "app.py:steps", "--id", "s"))
    assert (said.code, said.out) == (0, "1510\n")
    assert len((desk.path / "done.txt").read_text().splitlines()) <= 6


def test_a_worker_answers_to_the_store(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    worker = desk.start("worker", "app.py")
    desk.segue("answer", "q", "y")
    for _ in range(300):
        if desk.segue("runs", "--status", "done", "--json").rows:
            break
        time.sleep(0.02)
    worker.send_signal(signal.SIGTERM)
    said = desk.finish(worker)
    assert said.code == 0
    assert "at work on sqlite:segue.db: twice, pair, sure, triage, steps" in said.err
    assert desk.segue("run", "app.py:sure", "--id", "q").out == "sent\n"


def test_a_pipe_that_closes(desk: Desk):
    desk.write("rows.jsonl", "".join(f"{n}\n" for n in range(3)))
    desk.segue("map", "app.py:twice", "rows.jsonl")
    process = desk.start("runs", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(20) in (0, 1)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.stdout = process.stderr = None


def test_the_debugger(desk: Desk):
    desk.segue("run", "app.py:twice", "4", "--id", "t")
    process = desk.start("replay", "app.py", "t", "--pdb", stdin=subprocess.PIPE)
    said = desk.finish(process, "p n\nn\nc\n")
    assert said.code == 0
    assert "twice()" in said.out
    assert "breakpoint" not in said.out
    assert "the same 2 calls" in said.err
    desk.change("await double(await double(n))", "await double(1 + await double(n))")
    process = desk.start("replay", "app.py", "t", "--pdb", stdin=subprocess.PIPE)
    said = desk.finish(process, "c\np n + 1000\nc\n")
    assert said.code == 1
    assert "1004" in said.out
    assert said.err.count("it differs") == 1


def test_the_debugger_goes_from_call_to_call(desk: Desk):
    desk.change(
        "return await double(await double(n))",
        "once = await double(n)\n    again = await double(once)\n    return again",
    )
    desk.segue("run", "app.py:twice", "4", "--id", "t")
    process = desk.start("replay", "app.py", "t", "--pdb", stdin=subprocess.PIPE)
    said = desk.finish(process, "call\np n + 1000\nn\np once + 2000\ncall\ncall\n")
    assert said.code == 0
    told = [
        said.out.index(text)
        for text in ("#0 step double: 8", "1004", "-> again =", "2008", "#1 step double: 16")
    ]
    assert told == sorted(told)
    assert "the same 2 calls" in said.err


ONCE = """
import asyncio
from pathlib import Path
import segue


@segue.step(effect="at-most-once")
async def pay(n: int) -> int:
    with Path("done.txt").open("a") as log:
        log.write(f"{n}\\n")
    await asyncio.sleep(0 if Path("go").exists() else 60)
    return n


@segue.flow
async def buy(n: int) -> int:
    return 2 * await pay(n)
"""


@pytest.mark.parametrize(("how", "out", "paid"), [(["--value", "50"], "100\n", 1), (["--rerun"], "6\n", 2)])
def test_a_step_that_was_cut_off_is_for_people_to_judge(desk: Desk, how: list[str], out: str, paid: int):
    desk.write("once.py", ONCE)
    process = desk.start("run", "once.py:buy", "3", "--id", "b")
    until_lines(desk.path / "done.txt", 1)
    process.send_signal(signal.SIGKILL)
    desk.finish(process)
    desk.write("go", "")
    said = desk.segue("run", "once.py", "--id", "b")
    assert said.code == 1
    assert "was cut off" in said.err
    assert "`segue resume b --rerun`" in said.err
    assert desk.segue("show", "b").out.splitlines()[-1].endswith("… begun, no outcome is known")
    said = desk.segue("runs", "--failed")
    assert "all of them: segue resume --all-like b --rerun | --value JSON" in said.out
    assert all(line.startswith("  ") for line in said.out.splitlines()[1:])
    said = desk.segue("resume", "b", "--keep")
    assert said.code == 2
    assert "nothing of it can be kept" in said.err
    assert desk.segue("resume", "b", *how).code == 0
    assert desk.segue("run", "once.py", "--id", "b").out == out
    assert len((desk.path / "done.txt").read_text().splitlines()) == paid


SPIN = """
import segue
from pathlib import Path

@segue.flow
async def spin(n: int) -> int:
    Path("done.txt").write_text("begun\\n")
    while True:
        pass

@segue.step
async def long(n: int) -> int:
    Path("done.txt").write_text("begun\\n")
    await __import__("asyncio").sleep(60)
    return n

@segue.flow
async def longer(n: int) -> int:
    return await long(n)
"""


def test_a_flow_that_blocks_the_process_can_be_left(desk: Desk):
    desk.write("spin.py", SPIN)
    process = desk.start("run", "spin.py:spin", "1")
    until_lines(desk.path / "done.txt", 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # two strokes, not one that came twice
    process.send_signal(signal.SIGINT)
    said = desk.finish(process)
    assert said.code == 130
    assert "left at once; what was recorded is kept" in said.err


def test_a_worker_says_what_it_waits_for(desk: Desk):
    desk.write("spin.py", SPIN)
    process = desk.start("run", "spin.py:longer", "1", "--id", "l")
    until_lines(desk.path / "done.txt", 1)
    process.send_signal(signal.SIGINT)
    desk.finish(process)
    (desk.path / "done.txt").unlink()
    worker = desk.start("worker", "spin.py", "--grace", "0.3")
    until_lines(desk.path / "done.txt", 1)
    worker.send_signal(signal.SIGINT)
    said = desk.finish(worker)
    assert said.code == 0
    assert "calls under way get 0.3 s to come in (1); Ctrl-C again leaves at once" in said.err


def test_a_worker_tells_programs_what_it_did(desk: Desk):
    desk.segue("run", "app.py:twice", "3", "--id", "a", "--no-wait")
    desk.segue("run", "app.py:twice", "7", "--id", "b", "--no-wait")
    worker = desk.start("worker", "app.py", "--json")
    assert worker.stdout is not None
    ends = {row["id"]: row for row in (json.loads(worker.stdout.readline()) for _ in range(2))}
    worker.send_signal(signal.SIGINT)
    assert desk.finish(worker).code == 0
    assert (ends["a"]["status"], ends["a"]["value"]) == ("done", 12)
    assert (ends["b"]["status"], ends["b"]["error"]["message"]) == ("failed", "seven is right out")


def test_a_prompt_that_is_closed_leaves_the_question_open(desk: Desk):
    ours, theirs = pty.openpty()
    try:
        process = desk.start("run", "app.py:sure", "x", "--id", "it", stdin=theirs)
        os.write(ours, b"\x04")
        said = desk.finish(process)
    finally:
        os.close(ours)
        os.close(theirs)
    assert said.code == 3
    assert "segue answer" in said.err
    assert "Traceback" not in said.err


def test_a_worker_names_the_actors_it_works_on(desk: Desk):
    desk.write("act.py", "import segue\nclass Box(segue.Actor):\n    items: list[str]\n")
    worker = desk.start("worker", "act.py")
    assert worker.stderr is not None
    assert worker.stderr.readline() == "at work on sqlite:segue.db, which is new: Box; Ctrl-C parks\n"
    worker.send_signal(signal.SIGINT)
    desk.finish(worker)


def test_a_run_that_sleeps_says_until_when(desk: Desk):
    desk.write(
        "nap.py",
        "import segue\nfrom datetime import timedelta\n@segue.flow\nasync def nap() -> None:\n"
        "    await segue.sleep(timedelta(days=3))\n",
    )
    process = desk.start("run", "nap.py")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "it waits until 20" in line
    assert "3 d 0 h from now" in line or "2 d 23 h from now" in line
    process.send_signal(signal.SIGINT)
    assert desk.finish(process).code == 130


def test_a_run_that_waits_for_others_says_for_whom(desk: Desk):
    desk.write(
        "wait.py",
        "import segue\nclass Hello(segue.Note): ...\n@segue.flow\nasync def wait() -> None:\n"
        "    await segue.receive(Hello)\nclass Box(segue.Actor):\n    @segue.on\n"
        "    async def hello(self, _: Hello) -> None: ...\n",
    )
    said = {"wait": "for a message Hello; Ctrl-C parks it", "Box": "for messages; Ctrl-C asks it to end"}
    waiting = {
        name: desk.start("run", f"wait.py:{name}", "--id", name, "--store", f"sqlite:{name}.db")
        for name in said
    }
    for name, process in waiting.items():
        assert process.stderr is not None
        assert process.stderr.readline() == f"· it waits {said[name]}\n"
        process.send_signal(signal.SIGINT)
        assert desk.finish(process).code == (130 if name == "wait" else 1)


# ---------------------------------------------------------------- a store that can only be read
@pytest.mark.skipif(sys.platform != "linux", reason="rights are taken away as Linux does it")
def test_a_store_that_cannot_be_written_can_be_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    store = desk.path / "theirs" / "runs.db"
    store.parent.mkdir()
    (desk.path / "segue.db").rename(store)
    store.chmod(0o444)
    store.parent.chmod(0o555)
    try:
        for words in (["runs", "--asks"], ["receipt", "q"], ["export", "q"], ["check", "app.py"]):
            said = desk.finish(desk.start(*words, "--store", f"sqlite:{store}", preexec_fn=bound))
            assert (said.code, "can't be written" in said.err) == (0, False), words
        for words in (["answer", "q", "y"], ["worker", "app.py"]):
            said = desk.finish(desk.start(*words, "--store", f"sqlite:{store}", preexec_fn=bound))
            assert said.code == 2
            assert said.err.startswith(f"segue: store 'sqlite:{store}': it can't be written; check the owner")
            assert said.err.count("\n") == 1
    finally:
        store.parent.chmod(0o755)


def test_advance_without_the_file_of_what_waits_is_refused(desk: Desk):
    said = desk.segue("run", "app.py:sure", "hi", "--id", "q")
    assert "or `segue advance app.py`" in said.err
    desk.write("other.py", "import segue\n@segue.flow\nasync def other() -> None: ...\n")
    assert "`segue advance other.py`" in desk.segue("run", "other.py", "--id", "o", "--no-wait").err

    def advance(*files: str) -> Said:
        return desk.finish(desk.start("advance", *files))  # in a process that knows no other file

    said = advance()
    assert said.code == 2
    assert said.err.splitlines()[-1] == (
        "segue: there is no flow 'other'; 1 ready run is of other: name what defines them, as in "
        "`segue advance other.py`"
    )
    assert advance("other.py").code == 3  # a question is open
    assert advance().code == 3
    desk.segue("answer", "q", "y")
    said = advance("other.py")
    assert said.code == 2
    assert "as in `segue advance other.py app.py`" in said.err
    assert advance("app.py").code == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(desk: Desk, closed: str):
    command = f'exec "$0" -W error -m segue "$@" {closed}'
    words = ["sh", "-c", command, sys.executable, "run", "app.py:twice", "1", "--id", "it"]
    ended = subprocess.run(words, cwd=desk.path, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert ended.stdout == ("" if ">&-" in closed.split() else "4\n")


def test_what_an_encoding_lacks_is_spelt_out(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    said = desk.finish(desk.start("run", "app.py:pair", "é→"))
    assert (said.code, said.out) == (0, "\\xe9\\u2192:3\n")
    said = desk.finish(desk.start("show", desk.segue("runs", "--json").rows[0]["id"]))
    assert (said.code, "\\u2192" in said.out) == (0, True)


@pytest.mark.parametrize(
    "words", [["map", "app.py:sure", "-"], ["run", "app.py:sure", "--input", "-"], ["run", "slow.py:f"]]
)
def test_ctrl_c_ends_what_keeps_the_loop(desk: Desk, words: list[str]):
    """A read that brings nothing, or an import that takes long."""
    told = "Path('there').touch()\n"
    desk.write("slow.py", f"from pathlib import Path\nimport time\n{told}time.sleep(60)\n")
    desk.change("@segue.step\nasync def double", f"{told}\n\n@segue.step\nasync def double")
    mine, theirs = os.pipe()
    try:
        process = desk.start(*words, stdin=mine)
        deadline = time.monotonic() + 20
        while not (desk.path / "there").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = desk.finish(process)
    finally:
        os.close(mine)
        os.close(theirs)
    assert (said.code, said.err) == (130, "interrupted; what was done is kept\n")


def test_one_end_of_a_terminals_input_is_enough(desk: Desk):
    terminal, theirs = pty.openpty()
    try:
        process = desk.start("map", "app.py:twice", "-", stdin=theirs)
        os.write(terminal, b"5\n\x04")
        said = desk.finish(process)
    finally:
        os.close(terminal)
        os.close(theirs)
    assert (said.code, [row["value"] for row in said.rows]) == (0, [20])
