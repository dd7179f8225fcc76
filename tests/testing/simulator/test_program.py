"""`segue simulate`, as those see it who speak to it over HTTP and know no Python."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]
Start = Callable[..., "Program"]
WIRE: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "openai": (
        "/v1/chat/completions",
        {},
        {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    ),
    "anthropic": (
        "/v1/messages",
        {"anthropic-version": "2023-06-01"},
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]},
    ),
    "gemini": (
        "/v1beta/models/m:generateContent",
        {},
        {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
    ),
}


class Program:
    """A running simulator."""

    def __init__(self, *words: str) -> None:
        self.words = words
        command = [sys.executable, "-m", "segue", "simulate", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip().removesuffix("/v1")

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as refused:
            with refused:
                return refused.code, json.loads(refused.read())

    def say(self, dialect: str) -> tuple[int, Any]:
        path, headers, body = WIRE[dialect]
        return self.ask(path, body, headers)

    def batch(self, *names: str) -> str:
        """A batch of OpenAI's; its id."""
        row = {"method": "POST", "url": "/v1/chat/completions", "body": WIRE["openai"][2]}
        lines = "".join(json.dumps({"custom_id": name, **row}) + "\n" for name in names)
        parts = {'name="purpose"': "batch", 'name="file"; filename="in.jsonl"': lines}
        form = "".join(
            f"--b\r\nContent-Disposition: form-data; {name}\r\n\r\n{text}\r\n" for name, text in parts.items()
        )
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        file = self.ask("/v1/files", form + "--b--\r\n", kind)[1]["id"]
        asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made: str = self.ask("/v1/batches", asked)[1]["id"]
        return made

    def over(self, batch: str) -> dict[str, Any]:
        while True:
            found: dict[str, Any] = self.ask(f"/v1/batches/{batch}")[1]
            if found["status"] in ("completed", "failed", "expired", "cancelled"):
                return found

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start() -> Iterator[Start]:
    programs: list[Program] = []

    def start(*words: str) -> Program:
        programs.append(Program(*words))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            program.end()


def test_faults_are_ordered_at_the_start_and_while_it_runs(start: Start):
    program = start("--fault", "fail(status=529, on='messages')", "--fault", "drop_line")
    assert program.say("anthropic")[0] == 529
    assert [program.say(dialect)[0] for dialect in WIRE] == [200] * 3
    batch = program.over(program.batch("a", "b"))
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    for dialect in WIRE:
        status, coming = program.ask("/_faults", "fail(2, status=429)\n")
        assert (status, coming["coming"]["calls"][0]["times"]) == (200, 2)
        assert [program.say(dialect)[0] for _ in range(3)] == [429, 429, 200]
    status, told = program.ask("/_faults", "explode(3)")
    assert (status, "one of close_connection, " in told["error"]["message"]) == (400, True)
    for wrong in ("fail(3", "fail(open('x'))", "fail(nothing=1)", "_add(1)", "slow_stream('x')"):
        assert program.ask("/_faults", wrong)[0] == 400
    assert program.ask("/_faults")[1]["coming"]["calls"] == []


def test_faults_are_drawn_from_a_seed(start: Start):
    def drawn(seed: int) -> list[int]:
        program = start("--chaos", "0.5", "--chaos-kinds", "529,429", "--seed", str(seed))
        heard = [program.say("openai")[0] for _ in range(20)]
        told: dict[str, int] = program.ask("/_faults")[1]["drawn"]
        assert sum(told.values()) == len(heard) - heard.count(200)
        return heard

    assert set(drawn(1)) == {200, 429, 529}
    assert drawn(1) == drawn(1) != drawn(2)


def test_a_day_passes_in_a_moment(start: Start):
    program = start("--batch-time", "80000", "--speed", "1e6")
    batch = program.over(program.batch("a"))
    assert batch["status"] == "completed"
    assert 80_000 <= batch["completed_at"] - batch["created_at"] < 24 * 3600


def test_limits(start: Start):
    program = start("--enqueued-tokens", "20", "--max-lines", "9", "--a-minute", "1", "--batch-time", "0.1")
    failed = [program.over(program.batch(*names)) for names in (["a"], "ab", "abcdefghij")]
    assert [batch["status"] for batch in failed] == ["completed", "failed", "failed"]
    assert [batch["errors"]["data"][0]["code"] for batch in failed[1:]] == [
        "token_limit_exceeded",
        "too_many_tasks",
    ]
    assert [program.say(dialect)[0] for dialect in WIRE] == [200, 429, 429]
    busy = start("--at-once", "0")
    assert busy.say("anthropic")[0] == 429


def test_a_script_from_a_file(start: Start, tmp_path: Path):
    script = tmp_path / "script.jsonl"
    script.write_text(
        '{"when": "hello", "reply": "one"}\n{"when": "hello", "tool": "look", "arguments": {"at": 1}}\n\n'
        '{"when": "hello", "status": 400, "message": "no"}\n'
    )
    program = start("--replies", str(script))
    assert program.say("openai")[1]["choices"][0]["message"]["content"] == "one"
    assert program.say("anthropic")[1]["content"][0]["input"] == {"at": 1}
    status, told = program.say("gemini")
    assert (status, told["error"]["message"]) == (400, "no")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fault", "explode"], "a fault: expected one of"),
        (["--chaos", "0.1", "--chaos-kinds", "fire"], "the kinds of chaos: expected some of"),
        (["--chaos", "2"], "a number from 0 to 1"),
        (["--replies", "nowhere.jsonl"], "nowhere.jsonl: expected lines as"),
    ],
)
def test_what_cant_be_done_is_told(words: list[str], says: str):
    command = [sys.executable, "-m", "segue", "simulate", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode not in (0, 1)
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_killed_in_the_middle_it_goes_on_where_it_was(start: Start, tmp_path: Path):
    words = ("--dir", str(tmp_path / "kept"), "--batch-time", "1.5")
    program = start(*words)
    batch = program.batch(*(f"l{n}" for n in range(50)))
    while not 0 < program.ask(f"/v1/batches/{batch}")[1]["request_counts"]["completed"] < 50:
        pass
    program.end(signal.SIGKILL)
    done = len((tmp_path / "kept" / "ledger.jsonl").read_text().splitlines())
    again = start(*words, "--port", program.url.rsplit(":", 1)[1])
    assert again.url == program.url
    assert again.over(batch)["request_counts"] == {"total": 50, "completed": 50, "failed": 0}
    summary = again.ask("/_ledger?summary=1")[1]
    assert 0 < done < 50
    assert (summary["batch_paid"], summary["paid_twice"]) == (50, 0)
