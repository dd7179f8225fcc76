"""Measure segue beside the limit and its peers: `python bench/run.py [WORK …] [--quick] [--json out.json]`.

Each side of a comparison is a process of its own, the peers in environments of their own. Rounds are
interleaved (limit, segue, peers, limit, …), so that whatever else the machine does hits all alike; what is
printed is the median.
"""

import argparse
import asyncio
import atexit
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environments import environment
from works import IMPORTS, WORKS, Case, Run, Work

HERE = Path(__file__).resolve().parent
TEMP = HERE / ".tmp" / str(os.getpid())
PEERS = {path.stem: path for path in sorted((HERE / "requirements").glob("*.txt"))}
SIDES = {"limit": "limit.py", "segue": "on_segue.py"} | {peer: f"on_{peer}.py" for peer in PEERS}
NAMES = {
    "langgraph": "LangGraph",
    "dbos": "DBOS",
    "pykka": "Pykka",
    "thespian": "Thespian",
    "autogen": "autogen-core",
    "ray": "Ray",
}


# ------------------------------------------------------------------------------------------------ sides
class Failed(Exception):
    pass


class Side:
    """A competitor's process, started when it is first needed."""

    def __init__(self, name: str, python: Path) -> None:
        self.name, self.python = name, python
        self.process: asyncio.subprocess.Process | None = None
        self.about: dict[str, Any] = {}
        self.log = TEMP / f"{name}.log"

    async def order(self, order: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                if self.process is None:
                    await self.begin()
                assert self.process is not None
                assert self.process.stdin is not None
                self.process.stdin.write((json.dumps(order) + "\n").encode())
                await self.process.stdin.drain()
                answer = await self.read()
        except TimeoutError:
            await self.end()
            raise Failed(f"not within {seconds:.0f} s") from None
        except ConnectionError:
            await self.end()
            raise Failed(self.last_words()) from None
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["figures"]

    async def begin(self) -> None:
        with open(self.log, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.python,
                HERE / "competitors" / SIDES[self.name],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=TEMP,
            )
        self.about = await self.read()

    async def read(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise ConnectionError
        return json.loads(line)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:200] if lines else "the process ended"

    async def end(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(3):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Model:
    """The local model server."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def begin(self, seconds: float) -> None:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, HERE / "model.py", str(seconds), stdin=pipe, stdout=pipe
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(await self.process.stdout.readline())}/v1"

    async def end(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            await self.process.wait()


# ------------------------------------------------------------------------------------------------ rounds
Figures = dict[str, dict[str, Any]]  # case → {"value": …, "cpu": …}


class Results:
    """All rounds of a run: per side and case, a list of figures; or the reason why there are none."""

    def __init__(self) -> None:
        self.rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
        self.failed: dict[str, str] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.sizes: dict[str, int] = {}

    def add(self, side: str, figures: Figures) -> None:
        for key, figure in figures.items():
            self.rounds.setdefault(side, {}).setdefault(key, []).append(figure)

    def median(self, side: str, key: str, what: str = "value") -> float | None:
        found = [f[what] for f in self.rounds.get(side, {}).get(key, ()) if f.get(what) is not None]
        return statistics.median(found) if found else None


async def measure(work: Work, run: Run, sides: list[str], pythons: dict[str, Path], quick: bool) -> Results:
    results, budget = Results(), 3.0 if quick else 12.0
    model = Model()
    if run.model:
        await model.begin(run.model)
    open_sides = {name: Side(name, pythons[name]) for name in sides}
    spent = dict.fromkeys(sides, 0.0)
    try:
        for number in range(2 if quick else run.rounds):
            for name, side in open_sides.items():
                longest = spent[name] / number if number else 0
                if name in results.failed or spent[name] + longest > budget:
                    continue
                begun = time.monotonic()
                try:
                    figures = await once(work, run, side, model.url, quick)
                except Failed as e:
                    results.failed[name] = f"{e} (round {number + 1})"
                else:
                    results.add(name, figures)
                results.about[name] = side.about
                results.sizes[name] = run.size(name, quick)
                spent[name] += time.monotonic() - begun
    finally:
        for side in open_sides.values():
            await side.end()
        await model.end()
    return results


async def once(work: Work, run: Run, side: Side, url: str, quick: bool) -> Figures:
    if work.name == "import":
        return await import_time(side)
    figures: Figures = {}
    keys = {case.key.split(".")[0]: case.key for case in run.cases}
    folder = tempfile.mkdtemp(dir=TEMP)
    try:
        for phase in run.phases:
            order = {"do": phase, "n": run.size(side.name, quick), "dir": folder, "url": url}
            try:
                figures |= await side.order(order, seconds=30 if quick else run.seconds)
            except Failed as e:
                raise Failed(f"{phase}, {e}") from None
            if run.fresh:
                await side.end()
    finally:
        if run.fresh:
            await side.end()
        shutil.rmtree(folder, ignore_errors=True)
    # `wake` of the runs with 1,000 and with 10,000 are two cases; a variant keeps its name.
    return {keys.get(key, key): figure for key, figure in figures.items()}


async def import_time(side: Side) -> Figures:
    first, then = IMPORTS[side.name]
    code = f"from time import process_time as t; a = t(); {first}; b = t(); {then}; print(b - a, t() - a)"
    process = await asyncio.create_subprocess_exec(
        side.python, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=TEMP
    )
    out, err = await process.communicate()
    if process.returncode:
        raise Failed((err.decode().strip().splitlines() or ["failed"])[-1])
    return {key: {"value": float(cpu)} for key, cpu in zip(("import", "use"), out.split(), strict=True)}


# ------------------------------------------------------------------------------------------------ the table
def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def verdict(case: Case, value: float | None, ratio: float | None, scaled: bool) -> str:
    """The goal, and whether it was met. An absolute goal is not judged where a quick run did less."""
    parts, met, sign = [], [], "≤" if case.better == "less" else "≥"
    for goal, reached, form in ((case.ratio, ratio, "×{}"), (case.value, value, "{}")):
        if goal is None:
            continue
        parts.append(sign + form.format(number(goal)))
        if reached is not None and not (scaled and form == "{}" and case.unit == "s"):
            met.append(reached <= goal if case.better == "less" else reached >= goal)
    return " and ".join(parts) + (f" {'met' if all(met) else 'missed'}" if met else "")


def table(work: Work, all_results: list[tuple[Run, Results]], quick: bool) -> str:
    sides = list(dict.fromkeys(["limit", "segue", *(p for run, _ in all_results for p in run.peers)]))
    head = ["", "unit", *(NAMES.get(s, s) for s in sides), "segue/limit", "goal"]
    rows, notes, reasons = [head], [], set()
    for run, results in all_results:
        for case in run.cases:
            limit, segue = (results.median(s, case.key) for s in ("limit", "segue"))
            ratio = segue / limit if segue is not None and limit else None
            label = case.label.format(n=f"{run.size('limit', quick):,}")
            goal = verdict(case, segue, ratio, scaled=quick and run.quick != run.n)
            cells = [cell(results, run, s, case) for s in sides]
            rows.append([label, case.unit, *cells, f"×{number(ratio)}" if ratio else "–", goal])
            cpus = [results.median(s, case.key, "cpu") for s in sides]
            if any(c is not None for c in cpus):
                cpu = cpus[1] / cpus[0] if cpus[0] and cpus[1] else None
                what = "CPU" if case.better == "less" else "per CPU second"
                cells = [number(c) if c is not None else "" for c in cpus]
                rows.append([f"  {what}", "", *cells, f"×{number(cpu)}" if cpu else "", ""])
            for key, what in case.variants:
                value = results.median("limit", key)
                blank = [""] * (len(sides) - 1)
                rows.append([f"  limit: {what}", "", number(value) if value else "–", *blank, "", ""])
            notes.append(f"limit, {label}: {case.limit}")
        for side, why in results.failed.items():
            reasons.add((side, why))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(
            c.ljust(w) if i in (0, 1, len(row) - 1) else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    for side, why in sorted(reasons):
        lines.append(f"! {NAMES.get(side, side)} failed: {why}")
    lines += [f"· {note}" for note in dict.fromkeys([*work.notes, *notes, counts(all_results)])]
    return f"{work.name}: {work.what}\n\n" + "\n".join(lines)


def cell(results: Results, run: Run, side: str, case: Case) -> str:
    if side in run.peers or side in ("limit", "segue"):
        value, limit = results.median(side, case.key), results.median("limit", case.key)
        if value is not None:
            peer = f" ×{number(value / limit)}" if limit and side in run.peers else ""
            return number(value) + peer
        return "not run" if side in results.failed else "–"
    return "–"


def counts(all_results: list[tuple[Run, Results]]) -> str:
    parts = []
    for run, results in all_results:
        each = []
        for side, keys in results.rounds.items():
            rounds = max(map(len, keys.values()))
            each.append(f"{NAMES.get(side, side)} {results.sizes[side]:,} × {rounds}")
        parts.append(f"{run.phases[0]}: {', '.join(each)}")
    return "size × rounds: " + "; ".join(parts)


# ------------------------------------------------------------------------------------------------ surroundings
def filesystem() -> str:
    try:
        with open("/proc/mounts") as f:
            mounts = [line.split()[1:3] for line in f]
    except OSError:
        return "unknown"
    here = str(TEMP)
    fits = [m for m in mounts if here == m[0] or here.startswith(m[0].rstrip("/") + "/")]
    return max(fits, key=lambda m: len(m[0]), default=("", "an unknown file system"))[1]


def surroundings(quick: bool) -> dict[str, Any]:
    import sqlite3

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "missing"

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "load": round(os.getloadavg()[0], 2),
        "sqlite": sqlite3.sqlite_version,
        "files on": filesystem(),
        "quick": quick,
        **{name: version(name) for name in ("segue", "msgspec", "aiohttp")},
    }


def said(about: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in about.items())


# ------------------------------------------------------------------------------------------------ main
async def main() -> None:
    names = [work.name for work in WORKS]
    parser = argparse.ArgumentParser(description="Measure segue beside the limit and its peers.")
    parser.add_argument(
        "work", nargs="*", metavar="WORK", help=f"one or more of {', '.join(names)}; all if none"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, two rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    parser.add_argument("--only", metavar="SIDES", help="comma-separated: limit, segue or a peer's name")
    args = parser.parse_args()
    if "soak" in args.work:
        parser.error(
            "the soak is no work like these, and takes half an hour: `make soak`, bench/soak/README.md"
        )
    if unknown := set(args.work) - set(names):
        parser.error(f"no such work: {', '.join(sorted(unknown))} (there are {', '.join(names)})")
    only = set(args.only.split(",")) if args.only else set(SIDES)
    if unknown := only - set(SIDES):
        parser.error(f"no such side: {', '.join(sorted(unknown))} (there are {', '.join(SIDES)})")

    TEMP.mkdir(parents=True)
    atexit.register(shutil.rmtree, TEMP, ignore_errors=True)
    chosen = [work for work in WORKS if not args.work or work.name in args.work]
    needed = {p for work in chosen for run in work.runs for p in run.peers} & only
    pythons = dict.fromkeys(("limit", "segue"), Path(sys.executable))
    pythons |= {peer: environment(peer, PEERS[peer]) for peer in sorted(needed)}

    begun, around = time.monotonic(), surroundings(args.quick)
    print(f"# {said(around)}\n", flush=True)
    report: dict[str, Any] = {"surroundings": around, "works": {}}
    for work in chosen:
        all_results = []
        for run in work.runs:
            sides = [s for s in ("limit", "segue", *run.peers) if s in only]
            all_results.append((run, await measure(work, run, sides, pythons, args.quick)))
        print(table(work, all_results, args.quick))
        abouts = {s: r.about[s]["about"] for _, r in all_results for s in r.about if r.about[s]}
        shown = "; ".join(f"{NAMES.get(s, s)}: {said(about)}" for s, about in abouts.items() if about)
        print(f"· versions: {shown}\n" if shown else "", flush=True)
        report["works"][work.name] = {
            "what": work.what,
            "notes": work.notes,
            "versions": abouts,
            "runs": [
                {"phases": run.phases, "sizes": r.sizes, "rounds": r.rounds, "not run": r.failed}
                for run, r in all_results
            ],
        }
        around["load at the end"] = round(os.getloadavg()[0], 2)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False))
    print(f"# {time.monotonic() - begun:.0f} s; load {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
