"""`segue forget`: answers that are kept for reuse."""

from __future__ import annotations

import argparse
from datetime import timedelta

from ..runtime.engine import Engine
from . import exit
from .place import declare_store, existing, period
from .screen import count


def declare_forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", type=period, default=timedelta(0), metavar="TIME", help="such as 7d (default: all)"
    )
    declare_store(parser)


async def do_forget(args: argparse.Namespace) -> int:
    async with Engine(existing(args.store), worker=False) as engine:
        dropped = await engine.forget(older_than=args.older_than)
    print(f"{count(dropped)} answers forgotten; what runs got of them stays in their journals")
    return exit.OK
