from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from segue.model.errors import InvalidValue
from segue.testing.simulator import Ledger, Simulator, add_arguments, main
from tests.testing.simulator.world import World, says

PROGRAM = """
import argparse, asyncio
from segue.testing.simulator import add_arguments, main
parser = argparse.ArgumentParser()
add_arguments(parser)
asyncio.run(main(parser.parse_args()))
"""


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_arguments_are_those_of_the_simulator():
    args = parsed("--batch-time", "20", "--dir", "d", "--model", "a", "--model", "b", "--key", "k")
    assert (args.batch_time, args.directory, args.models, args.key) == (
        timedelta(seconds=20),
        "d",
        ["a", "b"],
        "k",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_and_stops_when_told(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
):
    serving = asyncio.create_task(main(parsed()))
    printed = ""
    while not printed:
        await asyncio.sleep(0.002)
        printed = capsys.readouterr().out
    assert printed.startswith("http://127.0.0.1:")
    assert printed.endswith("/v1\n")
    os.kill(os.getpid(), number)
    await serving


async def test_as_a_program(world: World, tmp_path: Path):
    ledger = tmp_path / "ledger.jsonl"
    command = [sys.executable, "-c", PROGRAM, "--ledger", str(ledger)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = await asyncio.to_thread(program.stdout.readline)
        there = Simulator()
        there.base_url = url.strip()
        said = await world.client(there).chat.completions.create(**says("hello"))
        assert said.choices[0].message.content == "You said: hello"
        assert len(Ledger.read(ledger)) == 1
        program.terminate()
        assert await asyncio.to_thread(program.wait, 10) == 0


#: What can't be, and what is told of it.
WRONG = [
    (["--upstream", "nix"], "upstream: expected an http or https URL, its /v1: it is none; got 'nix'"),
    (["--upstream", "http://"], "upstream: expected an http or https URL"),
    (["--upstream-key", "x"], "upstream_key: expected an upstream that it is the key of"),
    (["--upstream", "http://127.0.0.1:1/v1", "--replies", "{replies}"], "no upstream beside it"),
    (["--host", ""], "host: expected one that isn't empty"),
    (["--key", ""], "key: expected one that isn't empty"),
    (["--model", ""], "models: expected one that isn't empty"),
    (["--speed", "0"], "the speed of a clock: expected a number above 0"),
    (["--speed", "-1"], "the speed of a clock: expected a number above 0"),
    (["--speed", "nan"], "the speed of a clock: expected a number above 0"),
    (["--concurrency", "0"], "concurrency: expected a whole number from 1 on"),
    (["--concurrency", "-3"], "concurrency: expected a whole number from 1 on"),
    (["--max-lines", "0"], "lines of Limits: expected a whole number from 1 on"),
    (["--enqueued-tokens", "-1"], "enqueued_tokens of Limits: expected a whole number from 1 on"),
    (["--at-once", "-1"], "at_once of Limits: expected a whole number from 0 on"),
    (["--a-minute", "0"], "a_minute of Limits: expected a whole number from 1 on"),
    (["--chaos-kinds", "429"], "--chaos-kinds: expected --chaos RATE beside it"),
    (["--fault", "fail(-1)"], "'fail(-1)': times: expected a whole number from 1 on"),
    (["--fault", "fail('x')"], "times: expected a whole number"),
    (["--fault", "fail(status='x')"], "status: expected a whole number"),
    (["--fault", "fail(status=7000)"], "status: expected a status from 400 to 599"),
    (["--fault", "fail(on=1)"], "on: expected a text"),
    (["--fault", "delay(-1)"], "by: expected a time from 0 on"),
    (["--fault", "delay(1e300)"], "a fault: expected delay(by: seconds"),
    (["--fault", "drop_line('a', 0)"], "times: expected a whole number from 1 on"),
    (["--fault", "fail_line(status=20)"], "status: expected a whole number from 400 on"),
    (["--fault", "cut_stream_after(-1)"], "chunks: expected a whole number from 0 on"),
    (["--fault", "expire_batch(done=3)"], "done: expected a share from 0 to 1"),
    (["--fault", "coming"], "a fault: expected one of close_connection, cut_stream_after"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
async def test_what_cant_be_is_refused_before_it_listens(tmp_path: Path, words: list[str], says: str):
    replies = tmp_path / "replies.jsonl"
    replies.write_text('{"when": "a", "reply": "b"}\n')
    serving = main(parsed(*(word.format(replies=replies) for word in words)))
    with pytest.raises(InvalidValue, match=re.escape(says)):
        await asyncio.wait_for(serving, 5)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"when": "a"}', "it says nothing"),
        ('{"when": "a", "reply": 1, "tool": "b"}', "it says more than one"),
        ('{"when": "a", "arguments": {"n": 1}}', "its arguments are of no tool"),
        ('{"when": "a", "status": 7000}', "7000 is the status of no error"),
        ('{"when": "a", "message": "no"}', "0 is the status of no error"),
    ],
)
def test_a_line_of_a_script_that_says_nothing_or_too_much(tmp_path: Path, line: str, says: str):
    replies = tmp_path / "replies.jsonl"
    replies.write_text(f'{{"when": "b", "reply": null}}\n{line}\n')
    with pytest.raises(InvalidValue, match=f"line 2: .*{says}"):
        Simulator().load(replies)


@pytest.mark.parametrize("words", [["--batch-time", "x"], ["--window", "-1"], ["--latency", "1e300"]])
def test_a_time_that_is_none(capsys: pytest.CaptureFixture[str], words: list[str]):
    with pytest.raises(SystemExit):
        parsed(*words)
    assert f"argument {words[0]}: {words[1]!r} is no time: give seconds, 0 or more" in capsys.readouterr().err


def test_a_rule_beside_an_upstream():
    with pytest.raises(InvalidValue, match="the upstream answers all"):
        Simulator(upstream="http://127.0.0.1:1/v1", rule=lambda body: "x")
    with pytest.raises(InvalidValue, match="the upstream answers all"):
        Simulator(upstream="http://127.0.0.1:1/v1").when("x")


@pytest.mark.parametrize(
    "code",
    ["from segue.testing import Simulator", "from segue.cli.main import main; sys.exit(main(['simulate']))"],
)
def test_without_aiohttp_the_cure_is_told(code: str):
    hidden = "import importlib.util as u, sys\nfind = u.find_spec\nsys.modules['aiohttp'] = None\n"
    hidden += "u.find_spec = lambda name, *a: None if name == 'aiohttp' else find(name, *a)\n"
    done = subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True, timeout=30)
    assert done.returncode
    assert "aiohttp isn't installed; `pip install 'segue[simulator]'`" in done.stderr
