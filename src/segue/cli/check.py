"""`segue check`: today's code, rehearsed with every run that is stored."""

from __future__ import annotations

import argparse
import time
from collections import Counter

import msgspec

from ..runtime.engine import Engine
from ..testing.rehearse import Rehearsed, Unread, rehearse
from . import exit
from .place import declare_store, to_look_at
from .screen import count, note, put_json
from .target import load_named

#: Seconds between two words on how far it has come.
TELL = 2.0


def declare_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Rehearse today's code with every stored run that hasn't ended: its recorded calls are replayed, and what is\n"
        "stored of an actor is read, the mail that waits for it too. Nothing is called, paid or written. Exit code 1\n"
        "if a run would be held, or a message not be read."
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
    mail: dict[tuple[str, Unread], list[str]] = {}
    told = time.monotonic()
    async with Engine(to_look_at(args), worker=False) as engine:
        async for one in rehearse(engine, only=only):
            counts[one.what] += 1
            if args.json and (one.what != "same" or one.unread):
                put_json(msgspec.to_builtins(one))
            if one.what != "same":
                groups.setdefault((one.what, one.target, one.cause), []).append(one)
            for unread in one.unread:
                mail.setdefault((one.target, unread), []).append(one.run)
            if time.monotonic() - told > TELL:
                told = time.monotonic()
                note(f"{count(counts.total())} rehearsed", faint=True)
    note(
        f"{count(counts['same'])} go on as they are · {count(counts['migrates'])} migrate · "
        f"{count(counts['held'])} would be held"
        + (f" · {count(sum(map(len, mail.values())))} messages could not be read" if mail else "")
    )
    if not args.json:
        for (what, target, cause), runs in sorted(groups.items()):
            _show(what, target, cause, runs)
        for (target, unread), to in mail.items():
            many = count(len(to))
            print(
                f"{many} {unread.message} to {target} could not be read, such as to {to[-1]}: {unread.problem}"
            )
    return exit.FAILED if counts["held"] or mail else exit.OK


def _show(what: str, target: str, cause: str, runs: list[Rehearsed]) -> None:
    verb = "would be held" if what == "held" else "migrate"
    print(f"{count(len(runs))} of {target} {verb}, such as {runs[-1].run}: {cause}")
    for line in runs[-1].difference.splitlines():
        print(f"  {line}")
