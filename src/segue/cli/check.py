"""`segue check`: today's code, rehearsed with every run that is stored."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from ..runtime.engine import Engine
from ..testing.rehearse import Rehearsed, rehearse
from . import exit
from .place import declare_store, to_look_at
from .screen import count, note, put_json
from .target import load_named

#: Seconds between two words on how far it has come.
TELL = 2.0


def declare_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Rehearse today's code with every stored run that hasn't ended: its recorded calls are replayed, and what is\n"
        "stored of an actor is read. Nothing is called, paid or written. Exit code 1 if a run would be held."
    )
    parser.add_argument(
        "file",
        metavar="app.py",
        nargs="+",
        help="what defines the flows and actors; app.py:triage for the runs of that one alone",
    )
    parser.add_argument("--json", action="store_true", help="a line for each run that doesn't go on as it is")
    declare_store(parser)


async def do_check(args: argparse.Namespace) -> int:
    only = load_named(args.file)
    counts: Counter[str] = Counter()
    groups: dict[tuple[str, str, str], list[Rehearsed]] = {}
    told = time.monotonic()
    async with Engine(to_look_at(args), worker=False) as engine:
        async for one in rehearse(engine, only=only):
            counts[one.what] += 1
            if one.what != "same":
                if args.json:
                    put_json(
                        {"run": one.run, "what": one.what, "cause": one.cause, "difference": one.difference}
                    )
                groups.setdefault((one.what, one.target, one.cause), []).append(one)
            if time.monotonic() - told > TELL:
                told = time.monotonic()
                note(f"{count(counts.total())} rehearsed", faint=True)
    note(
        f"{count(counts['same'])} go on as they are · {count(counts['migrates'])} migrate · "
        f"{count(counts['held'])} would be held"
    )
    if not args.json:
        for (what, target, cause), runs in sorted(groups.items()):
            _show(what, target, cause, runs)
    return exit.FAILED if counts["held"] else exit.OK


def _show(what: str, target: str, cause: str, runs: list[Rehearsed]) -> None:
    verb = "would be held" if what == "held" else "migrate"
    print(f"{count(len(runs))} of {target} {verb}, such as {runs[0].run}: {cause}")
    for line in runs[0].difference.splitlines():
        print(f"  {line}")
