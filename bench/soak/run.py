"""The same conversations through segue, Inspect AI and batchling, as things go wrong: `python bench/soak/run.py`.

Each side is a process of its own in an environment of its own, and has a simulator of its own. The sides of a scenario
run at the same time.
"""

import argparse
import asyncio
import contextlib
import datetime
import functools
import glob
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from checker import Verdict, judge_folder  # noqa: E402
from environments import environment  # noqa: E402
from scenarios import Scenario, scenarios  # noqa: E402
from talk import TURNS  # noqa: E402

SIDES = {
    "segue": "segue",
    "inspect": "Inspect AI",
    "inspect-timeout": "Inspect AI, attempt_timeout=40",
    "batchling": "batchling",
}
#: Seconds that a side may do nothing, while no job is open, before it is said to hang; waits between tries are shorter.
QUIET = 100.0
#: How often the same command is given again where the program ended and conversations are without a word.
AGAIN = 2
TEMP = HERE.parent / ".tmp" / f"soak-{os.getpid()}"


def program(side: str) -> list[str]:
    """Its Python, its file, and what makes it another one's variant."""
    name, _, variant = side.partition("-")
    return [str(python_of(name)), str(HERE / f"on_{name}.py"), *(["40"] if variant else [])]


@functools.cache
def python_of(side: str) -> Path:
    if side == "segue":
        return Path(sys.executable)
    # batchling asks whether a text is in an enum, which raises before Python 3.12.
    base = newer() if side == "batchling" else sys.executable
    return environment(f"soak-{side}", HERE / "requirements" / f"{side}.txt", base)


def newer() -> str:
    """A Python of 3.12 or later, this one if there is none."""
    found = [sys.executable, *(shutil.which(f"python3.{minor}") or "" for minor in (12, 13, 14))]
    found += sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.1[2-9].*/bin/python")))
    code = "import sys; sys.exit(sys.version_info < (3, 12))"
    fits = [
        each
        for each in found
        if each and not subprocess.run([each, "-c", code], capture_output=True).returncode
    ]
    return fits[0] if fits else sys.executable


class Process:
    """A program with its log; whatever happens, it is ended."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.command, self.log = command, log

    async def __aenter__(self) -> "Process":
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdout=subprocess.PIPE, stderr=log, cwd=TEMP, start_new_session=True
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await self.process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def ended(self, folder: Path, limit: float) -> bool:
        """Whether it ends by itself, before the limit and before nothing has happened for long."""
        output = asyncio.create_task(self.process.communicate())
        seen, since = None, time.monotonic()
        while not output.done() and time.monotonic() < limit:
            if (now := happened(folder)) != seen or "open" in now:
                seen, since = now, time.monotonic()
            elif time.monotonic() > since + QUIET:
                break
            await asyncio.wait([output], timeout=0.2)
        output.cancel()
        await asyncio.wait([output])
        return self.process.returncode is not None


def happened(folder: Path) -> tuple[object, ...]:
    """What has changed if anything has happened: jobs that are open, lines that were paid, ends that were told."""
    batches = sorted((folder / "sim" / "batches").glob("*.json"))
    over = {"completed", "failed", "expired", "cancelled"}
    opens = [each.name for each in batches if json.loads(each.read_bytes())["status"] not in over]
    files = (folder / "told.jsonl", folder / "sim" / "ledger.jsonl")
    sizes = [each.stat().st_size if each.exists() else 0 for each in files]
    return "open" if opens else "over", len(batches), *sizes


async def look(url: str, path: str) -> Any:
    """What the simulator says of itself."""

    def read() -> Any:
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}{path}", timeout=5) as answer:
            return json.load(answer)

    return await asyncio.to_thread(read)


async def reached(url: str, folder: Path, kill: str | float, runs: int) -> bool:
    """Whether it is time to die: at the first job, or when that share of all lines is paid."""
    if kill == "job":
        return any((folder / "sim" / "batches").glob("*.json"))
    return (await look(url, "/_ledger?summary=1"))["batch_paid"] >= float(kill) * TURNS * runs


async def soak(side: str, scenario: Scenario, runs: int, job: int) -> Verdict:
    """One side through one scenario."""
    folder = TEMP / scenario.name / side
    folder.mkdir(parents=True)
    words = ["simulate", "--batch-time", "1", "--dir", str(folder / "sim"), *scenario.words]
    async with Process([sys.executable, "-m", "segue", *words], folder / "simulator.log") as simulator:
        assert simulator.process.stdout is not None
        url = (await simulator.process.stdout.readline()).decode().strip()
        python, file, *variant = program(side)
        command = [python, file, url, str(runs), str(job), str(folder), *variant]
        began = time.monotonic()
        for kill in scenario.kills:
            async with Process(command, folder / "side.log") as process:
                while not await reached(url, folder, kill, runs) and process.process.returncode is None:
                    if time.monotonic() - began > scenario.limit:
                        break
                    await asyncio.sleep(0.02)
        for again in range(AGAIN + 1):
            async with Process(command, folder / "side.log") as process:
                ended = await process.ended(folder, began + scenario.limit)
            verdict = judge_folder(runs, folder, ended=ended)
            verdict.restarts = again
            if not verdict.lost:
                break
        verdict.seconds = time.monotonic() - began
        verdict.drawn = (await look(url, "/_faults"))["drawn"]
    return verdict


def versions(sides: list[str]) -> str:
    told = []
    for python, file, *_ in map(program, sides):
        ask = ([python, file, "versions"], [python, "-V"])
        said = [
            subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in ask
        ]
        told.append(" on ".join(said))
    return "; ".join(dict.fromkeys(told))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="*", help="all if none")
    parser.add_argument("--sides", default=",".join(SIDES), metavar="SIDES", help=f"of {', '.join(SIDES)}")
    parser.add_argument("--runs", type=int, default=60, metavar="N", help="conversations of three turns")
    parser.add_argument("--job", type=int, default=15, metavar="N", help="lines in a job")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # what was started is ended
    known = {each.name: each for each in scenarios(args.job)}
    sides = args.sides.split(",")
    if unknown := (set(args.scenario) - set(known)) | (set(sides) - set(SIDES)):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join([*known, *SIDES])}")
    TEMP.mkdir(parents=True)
    told = versions(sides)
    print(f"{args.runs} conversations of {TURNS} turns, {args.job} lines a job, {datetime.date.today()}")
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores; {told}\n")
    print("|".join(["", " what goes wrong ", *(f" {SIDES[side]} " for side in sides), ""]))
    print("|".join(["", *["---"] * (len(sides) + 1), ""]), flush=True)
    report = {}
    for scenario in [known[name] for name in args.scenario or known]:
        found = await asyncio.gather(*(soak(side, scenario, args.runs, args.job) for side in sides))
        report[scenario.name] = {side: asdict(verdict) for side, verdict in zip(sides, found, strict=True)}
        cells = [verdict.words(scenario.spoils) for verdict in found]
        print("|".join(["", f" {scenario.what} ", *(f" {cell} " for cell in cells), ""]), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"versions": told, "scenarios": report}, indent=1))
    shutil.rmtree(TEMP)


if __name__ == "__main__":
    asyncio.run(main())
