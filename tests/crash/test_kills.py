"""SIGKILL at random moments of `segue map`: nothing is lost, and no batch line is paid twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segue.providers.anthropic_batches import labelled
from segue.testing.simulator import Entry, Ledger

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and kills")


class World:
    """A provider and a job, in a directory of their own."""

    def __init__(
        self, place: Path, batch_time: float, rows: int, rounds: int, commands: int, dialect: str
    ) -> None:
        place.mkdir()
        self.ledger = place / "ledger.jsonl"
        self.output = place / "out.jsonl"
        given = place / "rows.jsonl"
        each = [{"number": i, "text": f"remark {i}", "rounds": rounds} for i in range(rows)]
        given.write_text("".join(json.dumps(row) + "\n" for row in each))
        self.log = (place / "log").open("w")
        self.provider = subprocess.Popen(
            [sys.executable, HERE / "provider.py", self.ledger, str(batch_time)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.provider.stdout is not None
        url = self.provider.stdout.readline().strip()
        words = [
            "map",
            f"{HERE / 'app.py'}:care",
            str(given),
            "--batch",
            "--id",
            "job",
            "-o",
            str(self.output),
        ]
        words += ["--store", f"sqlite:{place / 'runs.db'}", "--model", f"{dialect}:m@{url}"]
        self.lives = [
            subprocess.Popen(
                [sys.executable, HERE / "lives.py", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env={**os.environ, "OPENAI_API_KEY": "", "PYTHONFAULTHANDLER": "1"},
            )
            for _ in range(commands)
        ]

    def life(self, seconds: float | None = None, who: int = 0) -> int:
        """One command, killed after that time; how it ended."""
        self.begin(seconds, who)
        return self.end(who)

    def begin(self, seconds: float | None, who: int) -> None:
        pipe = self.lives[who].stdin
        assert pipe is not None
        pipe.write("-\n" if seconds is None else f"{seconds}\n")
        pipe.flush()

    def end(self, who: int) -> int:
        pipe = self.lives[who].stdout
        assert pipe is not None
        return int(pipe.readline())

    def fly(self) -> None:
        self.provider.send_signal(signal.SIGUSR1)

    def results(self) -> list[object]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def paid(self, kind: str) -> list[Entry]:
        return [entry for entry in Ledger.read(self.ledger).lines() if entry.paid and entry.kind == kind]

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()[-4000:]

    def close(self) -> None:
        for process in (*self.lives, self.provider):
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()
        self.log.close()


@contextmanager
def world(
    place: Path, batch_time: float, rows: int, rounds: int, commands: int = 1, dialect: str = "openai"
) -> Iterator[World]:
    made = World(place, batch_time, rows, rounds, commands, dialect)
    try:
        yield made
    finally:
        made.close()


def undisturbed(
    place: Path, rows: int, rounds: int, dialect: str = "openai"
) -> tuple[list[object], list[Entry], list[Entry]]:
    """What one life gives, and what it pays."""
    with world(place, 0.1, rows, rounds, dialect=dialect) as calm:
        calm.fly()
        assert calm.life() == 0, calm.said()
        return calm.results(), calm.paid("batch"), calm.paid("live")


def lines(entries: list[Entry]) -> list[str]:
    """The lines that were paid, without the label of the submission that Anthropic's ids bear."""
    return sorted(labelled(entry.custom_id or "")[0] for entry in entries)


def strike(
    place: Path, *, kills: int, rows: int, rounds: int, batch_time: float, seed: int, dialect: str = "openai"
) -> None:
    expected, batch, live = undisturbed(place / "calm", rows, rounds, dialect)
    chance = random.Random(seed)
    began = time.monotonic()
    with world(place / "wild", batch_time, rows, rounds, dialect=dialect) as wild:
        moments: list[float] = []
        while len(moments) < kills:
            ended = wild.life(chance.uniform(0.05, 0.5))
            assert ended == -signal.SIGKILL, (
                f"it ended with {ended} after {len(moments)} kills:\n{wild.said()}"
            )
            moments.append(time.time())
        midway = len(wild.paid("batch"))
        wild.fly()
        took = time.monotonic() - began
        assert wild.life() == 0, wild.said()
        print(
            f"{kills} kills in {took:.1f} s, {midway} of {len(batch)} lines paid by then; "
            f"in all {time.monotonic() - began:.1f} s"
        )
        assert wild.results() == expected
        ids = lines(wild.paid("batch"))
        assert len(ids) == len(set(ids)), "a line was paid twice"
        assert ids == lines(batch)
        at: dict[str, list[float]] = defaultdict(list)
        for entry in wild.paid("live"):
            at[entry.sha256].append(entry.time)
        assert set(at) == {entry.sha256 for entry in live}
        again = 0
        for times in at.values():  # a live call is paid again only where a kill cut it off
            struck = sum(min(times) - 1 < moment < max(times) + 1 for moment in moments)
            assert len(times) - 1 <= struck
            again += len(times) - 1
        print(f"{again} of {len(live)} live calls were paid again")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_commands_at_once(tmp_path: Path) -> None:
    """Two processes on one job and one file, one of them killed again and again: no line is sent twice."""
    expected, batch, _ = undisturbed(tmp_path / "calm", 12, 8)
    chance = random.Random(3)
    with world(tmp_path / "wild", 0.3, 12, 8, commands=2) as wild:
        wild.begin(None, 1)
        for _ in range(15):
            ended = wild.life(chance.uniform(0.1, 0.6))
            assert ended in (0, -signal.SIGKILL), wild.said()
        wild.fly()
        assert wild.life() == 0, wild.said()
        assert wild.end(1) == 0, wild.said()
        assert wild.results() == expected
        ids = sorted(str(entry.custom_id) for entry in wild.paid("batch"))
        assert ids == sorted(str(entry.custom_id) for entry in batch)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_some_kills(tmp_path: Path, dialect: str) -> None:
    strike(tmp_path, kills=20, rows=12, rounds=8, batch_time=0.5, seed=1, dialect=dialect)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_kills(tmp_path: Path) -> None:
    strike(tmp_path, kills=200, rows=20, rounds=32, batch_time=1.2, seed=2)
