from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

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
