"""`segue remove`: runs and jobs that are over."""

from __future__ import annotations

import argparse

from ..model.errors import InvalidValue
from ..runtime.engine import Engine
from . import exit
from .place import declare_store, existing, period
from .screen import count


def declare_remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="with all that it started")
    parser.add_argument(
        "--job", action="append", default=[], metavar="JOB", help="with all of its rows; may be given again"
    )
    parser.add_argument(
        "--older-than", type=period, metavar="TIME", help="all that has been over for longer, such as 90d"
    )
    parser.add_argument("--dry-run", action="store_true", help="say how many would go, and remove none")
    declare_store(parser)


async def do_remove(args: argparse.Namespace) -> int:
    named = [*args.runs, *args.job]
    if "" in named:
        raise InvalidValue("what to remove", "a name", "it is empty")
    if named and args.older_than is not None:
        raise InvalidValue("what to remove", "RUN and --job, or --older-than", "both are given")
    if not named and args.older_than is None:
        raise InvalidValue("what to remove", "RUN, --job or --older-than", "none of them is given")
    async with Engine(existing(args.store), worker=False) as engine:
        if args.older_than is not None:
            removed = await engine.remove(older_than=args.older_than, dry_run=args.dry_run)
        else:
            removed = await _remove_named(engine, args, dry=True)  # where one can't go, none does
            if not args.dry_run:
                removed = await _remove_named(engine, args, dry=False)
    runs = f"{count(removed)} run{'' if removed == 1 else 's'}"
    print(
        f"{runs} would be removed"
        if args.dry_run
        else f"{runs} removed; their ids and their room are free again"
    )
    return exit.OK


async def _remove_named(engine: Engine, args: argparse.Namespace, *, dry: bool) -> int:
    removed = 0
    for run in dict.fromkeys(args.runs):
        removed += await engine.remove(run, dry_run=dry)
    for job in dict.fromkeys(args.job):
        removed += await engine.remove(job=job, dry_run=dry)
    return removed
