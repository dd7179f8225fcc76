"""`segue worker`: a process that runs what is ready."""

from __future__ import annotations

import argparse
import asyncio

from ..model.run import is_over
from ..runtime.engine import Engine
from ..runtime.mail.feeds import WATCHED
from ..runtime.wake.executor import Executor
from ..runtime.wake.resting import Resting
from . import exit
from .interruption import interruption
from .place import declare_store, is_new, seconds
from .runs import as_plain
from .screen import note, put_json
from .target import actors_of, flows_of, load_modules

#: Seconds between looks whether the worker still can.
LOOK = 1.0


def declare_worker(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run what is ready, submit and poll batches, until Ctrl-C; runs are parked then."
    parser.add_argument(
        "files", nargs="+", metavar="app.py", help="what defines the flows and actors that it may run"
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        metavar="SECONDS",
        help="for calls under way at Ctrl-C; else 20 for those that would be paid again, and none for others",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="a line of JSON for each run that ends or is held here, as `segue runs --json` has it",
    )
    declare_store(parser)


class _Telling(Engine):
    """Prints the runs that it brings to an end."""

    def run_left(self, run: Executor | Resting) -> None:
        super().run_left(run)
        if run.error is None and is_over(run.status) and run.head.spec.target != WATCHED.name:
            put_json(as_plain(run.head))


async def do_worker(args: argparse.Namespace) -> int:
    names = [name for module in load_modules(args.files) for name in (*flows_of(module), *actors_of(module))]
    what = ", ".join(names) or "steps alone: these files have no flow and no actor"
    new = ", which is new" if is_new(args.store) else ""
    with interruption() as stop:
        async with (_Telling if args.json else Engine)(args.store, grace=args.grace) as engine:
            note(f"at work on {args.store}{new}: {what}; Ctrl-C parks")
            stopped = asyncio.ensure_future(stop.wait())
            while not stop.is_set():
                engine.check()
                await asyncio.wait({stopped}, timeout=LOOK)
        note("parked")
    return exit.OK
