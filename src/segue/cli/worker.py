"""`segue worker`: a process that runs what is ready."""

from __future__ import annotations

import argparse
import asyncio

from ..runtime.engine import Engine
from . import exit
from .interruption import interruption
from .place import declare_store
from .screen import duration, note
from .target import actors_of, flows_of, load_modules

#: Seconds between looks whether the worker still can.
LOOK = 1.0


def declare_worker(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run what is ready, submit and poll batches, until Ctrl-C; runs are parked then."
    parser.add_argument(
        "files", nargs="+", metavar="app.py", help="what defines the flows and actors that it may run"
    )
    parser.add_argument(
        "--grace", type=float, default=10.0, metavar="SECONDS", help="for calls under way at Ctrl-C"
    )
    declare_store(parser)


async def do_worker(args: argparse.Namespace) -> int:
    names = [name for module in load_modules(args.files) for name in (*flows_of(module), *actors_of(module))]
    what = ", ".join(names) or "steps alone: these files have no flow and no actor"
    with interruption() as stop:
        async with Engine(args.store, grace=args.grace) as engine:
            note(f"at work on {args.store}: {what}; Ctrl-C parks")
            stopped = asyncio.ensure_future(stop.wait())
            while not stop.is_set():
                engine.check()
                await asyncio.wait({stopped}, timeout=LOOK)
            if args.grace > 0 and any(executor.carrying.at_work for executor in engine.worker.awake.values()):
                note(f"calls under way get {duration(args.grace)}; Ctrl-C again leaves at once")
        note("parked")
    return exit.OK
