"""`segue export`: runs as JSON lines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..authoring.actor.checkpoint import as_one
from ..core import export
from ..model.errors import Damaged, InvalidValue
from ..ports.store import Store
from ..runtime.ground.names import unknown_job, unknown_run
from ..runtime.wake.rebase import entries_of, refuse_damaged
from . import exit
from .job import each_run
from .outcomes import replacing
from .place import declare_store, looking
from .rows import BadFile
from .screen import count, note, put_json
from .timeline import dropped


def declare_export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A run's record and a line for each call, large contents in place: what `segue.testing.rerun` runs\n"
        "through today's code. Of a job, a file for each run."
    )
    parser.add_argument("run", nargs="?", default="", help="the run")
    parser.add_argument("--job", default="", help="all ended runs of a job")
    parser.add_argument("-o", "--output", default="", metavar="PATH", help="a file; with --job, a directory")
    parser.add_argument(
        "--json",
        action="store_true",
        help="what -o has now, as a line of JSON; the run itself is JSON anyway",
    )
    declare_store(parser)


async def do_export(args: argparse.Namespace) -> int:
    if bool(args.run) == bool(args.job):
        raise InvalidValue("segue export", "a run, or --job", "say one of them")
    async with looking(args) as store:
        if args.run:
            await _write(store, args.run, args.output)
            if args.json and args.output:
                put_json({"run": args.run, "output": args.output})
            return exit.OK
        if await store.get_job(args.job) is None:
            raise await unknown_job(store, args.job)
        if not args.output:
            raise InvalidValue("segue export --job", "-o DIRECTORY", "it writes a file for each run")
        directory = _made(args.output)
        number = 0
        taken: set[str] = set()
        async for head in each_run(store, job=args.job, status=("done", "failed", "cancelled")):
            name = _file_name(head.spec.key)
            if name in taken:  # of another key, whose signs files can't have either
                name = f"{name}~{head.spec.index}"
            taken.add(name)
            try:
                await _write(store, head.id, str(directory / f"{name}.jsonl"))
            except Damaged as problem:
                note(f"{head.id} is left out: {problem}")
                continue
            number += 1
    if args.json:
        put_json({"job": args.job, "runs": number, "output": args.output})
    note(f"{count(number)} runs are in {args.output}")
    return exit.OK


def _made(path: str) -> Path:
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(path, f"it can't be made: {error.strerror}", "choose another -o") from None
    return directory


def _file_name(key: str) -> str:
    return "".join(each if each.isalnum() or each in "-_." else "_" for each in key)


async def _write(store: Store, run: str, path: str) -> None:
    loaded = await store.load(run)
    if loaded is None:
        raise await unknown_run(store, run)
    refuse_damaged(loaded.head)
    past = await store.history(run, rows=False)
    lines = export.write(
        loaded.head,
        await entries_of(store, run),
        as_one(loaded.checkpoint, loaded.deltas),
        past=past.archived,
        dropped=past.dropped,
    )
    if path:
        with replacing(path) as file:
            file.writelines(line + b"\n" for line in lines)
    else:
        sys.stdout.writelines(f"{line.decode()}\n" for line in lines)
        sys.stdout.flush()
    if past.dropped:
        note(f"{run}: {dropped(past)}")
