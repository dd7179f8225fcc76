"""The main job at its full size: `segue map` in batch over a million rows, killed on the way, and taken up again.

    make million                          # one SIGKILL; half an hour on two cores, 3 GB of disk
    make million ARGS="20000 --kills 3"

The provider is `segue simulate` in a process of its own. Afterwards its ledger is counted, line by line, and the
output is read: each row must be there once, in order, and each line paid once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PLACE = Path(__file__).parent / ".tmp" / "million"
APP = """
import segue


@segue.flow
async def mood(text: str) -> str:
    return await segue.generate(f"Is this good or bad? {text}")
"""
SEGUE = [sys.executable, "-m", "segue"]


class Life(NamedTuple):
    """One process of `segue map`: its exit code (negative: the signal), CPU seconds and greatest size in MB."""

    code: int
    cpu: float
    resident: float


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("rows", nargs="?", type=int, default=1_000_000)
    asked.add_argument("--kills", type=int, default=1, help="spread over the lines that were paid")
    args = asked.parse_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    write_rows(args.rows)
    began = time.monotonic()
    with provider() as url:
        lives = [live(url, args.rows * kill // (args.kills + 1)) for kill in range(1, args.kills + 1)]
        lives.append(live(url))
    took = time.monotonic() - began
    faults = [*faults_of_output(args.rows), *faults_of_ledger(args.rows)]
    if lives[-1].code:
        faults.insert(0, f"the last life ended with {lives[-1].code}")
    report(args.rows, lives, took)
    for fault in faults:
        print(f"FAULT: {fault}")
    if not faults:
        print("each row is there once and in order; each line was paid once")
        shutil.rmtree(PLACE)
    return bool(faults)


def write_rows(count: int) -> None:
    (PLACE / "app.py").write_text(APP)
    (PLACE / "replies.jsonl").write_text('{"when": "", "reply": "good"}\n')
    with (PLACE / "rows.jsonl").open("w") as rows:
        for number in range(count):
            text = f"remark {number}: the strap broke after {number % 97} days and nobody answered my mail"
            rows.write(json.dumps({"text": text}) + "\n")


@contextmanager
def provider() -> Iterator[str]:
    """A simulator; its base URL."""
    words = ["simulate", "--port", "0", "--batch-time", "2", "--concurrency", "100000"]
    files = ["--replies", "replies.jsonl", "--dir", "provider"]
    process = subprocess.Popen([*SEGUE, *words, *files], cwd=PLACE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def live(url: str, until: int = 0) -> Life:
    """The command, to its end, or killed when so many lines were paid."""
    words = ["map", "app.py:mood", "rows.jsonl", "--batch", "-o", "out.jsonl", "--store", "sqlite:runs.db"]
    process = subprocess.Popen([*SEGUE, *words, "--model", f"openai:m@{url}"], cwd=PLACE)
    while until:
        if is_over(process.pid) or paid_lines() >= until:
            process.kill()
            break
        time.sleep(0.05)
    _, status, use = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    size = use.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    return Life(process.returncode, use.ru_utime + use.ru_stime, size)


def is_over(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def paid_lines() -> int:
    """About how many, by the ledger's size."""
    ledger = PLACE / "provider" / "ledger.jsonl"
    if not ledger.exists():
        return 0
    with ledger.open("rb") as lines:
        first = len(lines.readline())
    return ledger.stat().st_size // first if first else 0


def faults_of_output(count: int) -> Iterator[str]:
    out = PLACE / "out.jsonl"
    if not out.exists():
        yield "there is no output"
        return
    number = 0
    with out.open() as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            if row["index"] != number - 1 or row.get("value") != "good":
                yield f"line {number} of the output is {line[:200]!r}"
                return
    if number != count:
        yield f"the output has {number:,} lines, not {count:,}"


def faults_of_ledger(count: int) -> Iterator[str]:
    lines, ids = 0, set[str]()
    with (PLACE / "provider" / "ledger.jsonl").open() as ledger:
        for line in ledger:
            lines += 1
            ids.add(json.loads(line)["custom_id"])
    if (lines, len(ids)) != (count, count):
        yield f"{lines:,} lines were paid, {len(ids):,} different ones, for {count:,} rows"


def report(count: int, lives: list[Life], took: float) -> None:
    cpu, disk = sum(life.cpu for life in lives), (PLACE / "runs.db").stat().st_size
    killed = sum(life.code == -signal.SIGKILL for life in lives)
    print(f"{count:,} rows in {took:,.0f} s, {killed} of {len(lives)} lives killed")
    print(f"  {cpu / count * 1000:.2f} ms of CPU a row, the provider's not counted")
    print(
        f"  {max(life.resident for life in lives):,.0f} MB resident at most; {disk / count / 1024:.1f} KB of disk a row"
    )


if __name__ == "__main__":
    sys.exit(main())
