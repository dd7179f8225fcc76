"""`segue export`: runs as JSON lines."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from ..authoring.actor.checkpoint import as_one
from ..authoring.iterables import batched
from ..core import export
from ..model.errors import Damaged, InvalidValue
from ..model.run import ENDED, Head
from ..ports.store import History, Store
from ..runtime.family import rows
from ..runtime.ground.names import unknown_job, unknown_run
from ..runtime.wake.rebase import entries_of, refuse_damaged
from . import exit
from .outcomes import replacing
from .place import declare_store, looking
from .rows import BadFile
from .screen import count, note, put_json
from .timeline import dropped

#: So many runs are read at once.
SOME = 16


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
            _write(*await _read(store, args.run), args.output)
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
        ended = (head async for head in rows(store, args.job) if head.status in ENDED)
        async for heads in batched(ended, SOME):
            read = await asyncio.gather(*(_read(store, head.id) for head in heads), return_exceptions=True)
            for head, found in zip(heads, read, strict=True):
                name = _file_name(head.spec.key)
                if name in taken:  # of another key, whose signs files can't have either
                    name = f"{name}~{head.spec.index}"
                taken.add(name)
                if isinstance(found, Damaged):
                    note(f"{head.id} is left out: {found}")
                    continue
                if isinstance(found, BaseException):
                    raise found
                _write(*found, str(directory / f"{name}.jsonl"), durably=False)
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


async def _read(store: Store, run: str) -> tuple[Head, list[bytes], History]:
    """The lines of a run, and what of its past they lack."""
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
    return loaded.head, list(lines), past


def _write(head: Head, lines: list[bytes], past: History, path: str, *, durably: bool = True) -> None:
    if path:
        with replacing(path, durably=durably) as file:
            file.writelines(line + b"\n" for line in lines)
    else:
        sys.stdout.writelines(f"{line.decode()}\n" for line in lines)
        sys.stdout.flush()
    if past.dropped:
        note(f"{head.id}: {dropped(past)}")
