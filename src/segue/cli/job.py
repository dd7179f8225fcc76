"""`segue map` and `segue advance`: many rows, with or without a process that stays."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from ..authoring.flow import FlowDef, target_named
from ..core.signature import InputShape
from ..model.errors import Conflict, InvalidValue, SegueError, UnknownName
from ..model.run import Head
from ..ports.store import Store
from ..runtime import family
from ..runtime.engine import Engine
from ..runtime.ground.listing import each_run
from ..runtime.ground.names import unknown_job
from ..runtime.ground.patience import patiently
from ..runtime.interruption import Strokes
from ..runtime.job import FIRST, Job, check_first, check_target, keyed_run
from ..runtime.stuck import held_beneath
from . import exit
from .company import tell_company
from .interruption import interruption
from .outcomes import Order, all_lines, check_writable, input_of, lines, replacing
from .place import GONE, at_store, check_models, declare_how, declare_store, existing, how, is_kept, positive
from .progress import Progress
from .rows import RowFile, bind, check_readable, key_of
from .runs import once_more
from .screen import count, is_terminal, note, put_json, short
from .starters import Starters
from .tally import Pace, Standing, Tally, in_words
from .target import definition_of, file_here, file_of, load_modules, load_target

#: Seconds between looks at the store.
LOOK = 0.1


# ---------------------------------------------------------------- map
def declare_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "flow", metavar="app.py:flow", help="the flow; a row is its argument, or an object of them"
    )
    parser.add_argument(
        "rows", help="a JSONL, CSV or TSV file; - for standard input, JSON lines or CSV with a heading"
    )
    parser.add_argument(
        "-o", "--output", default="", metavar="FILE", help="one JSON line a row, in order, when all is done"
    )
    parser.add_argument(
        "--id", default="", help="the job's (default: made of the flow's name and the file's)"
    )
    parser.add_argument(
        "--key", default="", metavar="FIELD", help="know rows by this field, not by their number"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=0,
        metavar="N",
        help="runs at work at once; waiting ones don't count",
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="submit what can be, then leave; see `segue advance`"
    )
    parser.add_argument("--json", action="store_true", help="end with the job's counts as a line of JSON")
    declare_how(parser)
    declare_store(parser)


async def do_map(args: argparse.Namespace) -> int:
    flow = load_target(args.flow)
    check_writable(args.output, args.rows, args.flow.partition(":")[0], args.store)
    with TemporaryDirectory(prefix="segue-") as directory:
        rows = RowFile(args.rows, Path(directory))
        check_readable(rows, definition_of(flow).shape, args.key)
        order = Order(Path(directory) / "order")
        with contextlib.closing(order):
            return await _Map(args, flow, rows, order).run()


class _Map:
    """One `segue map`."""

    def __init__(self, args: argparse.Namespace, flow: Any, rows: RowFile, order: Order) -> None:
        self.args, self.flow, self.rows, self.order = args, flow, rows, order
        self.kept = is_kept(args)
        self.shape: InputShape = definition_of(flow).shape
        self.id: str = args.id or f"{definition_of(flow).name}:{rows.name}"
        self._told = False
        self._others: list[str] = []  # what is to be told of runs of others
        self._stuck: dict[str, Head] = {}  # rows that wait for a run that is held, and that

    async def run(self) -> int:
        with interruption() as stop:
            async with Engine(self.args.store, worker=not self.args.no_wait) as engine:
                check_models(engine, self.args)
                tell_company(engine.worker, self.id, "/", self._others.append)
                await self._check_same(engine.store)
                rows = self.order.noting(bind(self.rows, self.shape, self.args.key))
                job: Job[Any, Any] = engine.map(
                    self.flow, rows, id=self.id, key=key_of, limit=self.args.limit, **how(self.args)
                )
                where = f" -o {self.args.output}" if self.args.output else ""
                note(f"{self.id}: {self.args.flow} over {self.args.rows}{where}; Ctrl-C parks", faint=True)
                tally = Tally(engine.store, self.id)
                progress = Progress(self.id)
                try:
                    standing = await self._until_settled(engine, job, tally, progress, stop)
                finally:
                    progress.close()
                if standing.settled:
                    await self._write(engine.store)
                    tally.usage = (await family.spent(engine.store, job=self.id)).usage
                return await self._sum_up(engine, job, tally, progress, standing, stop.is_set())

    async def _check_same(self, store: Store) -> None:
        """Raise `Conflict` for a job that was begun with another flow, key or first rows, before any run is made."""
        known = await store.get_job(self.id)
        if known is None:
            return
        check_target(known, definition_of(self.flow).name)
        await _check_key(store, self.id, self.args.key, self.shape)
        first = enumerate(islice(bind(self.rows, self.shape, self.args.key), FIRST))
        rows = [(number, row.key, row.args) for number, row in first if row.error is None]
        await check_first(store, self.id, rows)

    async def _until_settled(
        self, engine: Engine, job: Job[Any, Any], tally: Tally, progress: Progress, stop: Strokes
    ) -> Standing:
        stopped = asyncio.ensure_future(stop.wait())
        pace = Pace(time.monotonic())
        sweep = asyncio.ensure_future(_sweep(engine, job)) if self.args.no_wait else None
        try:
            while True:
                standing = await self._look(engine, job, tally, progress, pace)
                if await self._all_stuck(engine, standing):
                    standing.stuck = standing.parked
                if stop.is_set() or standing.settled:
                    return standing
                if await self._only_people(engine, standing):
                    return standing  # the same command goes on when they have answered
                if sweep is not None and sweep.done():
                    sweep.result()
                    return await self._look(engine, job, tally, progress, pace)
                waits: set[asyncio.Future[Any]] = {stopped, engine.ends.next()}
                if sweep is not None:
                    waits.add(sweep)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait({stopped}, timeout=LOOK)
        finally:
            stopped.cancel()
            if sweep is not None:
                sweep.cancel()

    async def _look(
        self, engine: Engine, job: Job[Any, Any], tally: Tally, progress: Progress, pace: Pace
    ) -> Standing:
        admitted = job.total is not None  # before the look, which else may be older than the last row
        standing = await patiently(tally.look, engine.check)
        engine.check()
        while self._others:
            note(f"  {self._others.pop()}", faint=True)
        if (failure := job.failure or job.conflict) is not None:
            raise failure
        job.unfit.clear()  # they are in the order already
        if not admitted:
            standing.total = None  # of an earlier command, perhaps
        if not standing.settled:
            words = in_words(standing, tally, spent(engine, tally), pace.left(standing, time.monotonic()))
            progress.show(standing.ended + self.order.unread, standing.total, words)
        return standing

    def _segue(self, *words: str) -> str:
        """A command on the same store."""
        return shlex.join(["segue", *words, *at_store(self.args)])

    def _how_to_answer(self) -> str:
        return f"`{self._segue('runs', '--asks')}` lists questions, `segue answer` answers"

    async def _all_stuck(self, engine: Engine, standing: Standing) -> bool:
        """Whether each row that is left waits for a run that is held."""
        if standing.total is None or standing.working or not standing.parked or engine.is_busy():
            return False
        rows = each_run(engine.store, job=self.id, status=("parked",))
        self._stuck = await held_beneath(engine.store, rows) or {}
        return len(self._stuck) == standing.parked

    async def _asking(self, store: Store) -> dict[str, float]:
        """Runs of the job, and those that they started, that ask, with until when."""
        return {ask.run: ask.deadline for ask in await store.asks() if ask.run.startswith(f"{self.id}/")}

    async def _only_people(self, engine: Engine, standing: Standing) -> bool:
        """Whether nothing is left but questions without a deadline, and nobody is here; says once how to answer."""
        busy = standing.working or standing.for_batch or is_terminal(sys.stderr)
        if not standing.for_others or standing.total is None or (busy and self._told):
            return False
        mine = await self._asking(engine.store)
        if mine and not self._told:
            self._told = True
            note(f"  {count(len(mine))} ask{'s' if len(mine) == 1 else ''}: {self._how_to_answer()}")
        if busy or len(mine) < standing.parked or any(mine.values()):
            return False
        parked = {head.id async for head in each_run(engine.store, job=self.id, status=("parked",))}
        return parked == {_root_of(run, parked) for run in mine}

    async def _write(self, store: Store) -> None:
        with replacing(self.args.output) as file:
            async for line in lines(store, self.id, enumerate(self.order), self.shape, self._stuck):
                file.write(line + b"\n")

    def _tell_causes(self, tally: Tally) -> None:
        """Why rows failed, and what has them tried again."""
        most = tally.causes.most_common(3)
        for cause, number in most:
            note(f"  {count(number)} × {tally.examples[cause][1]}")
        if others := tally.causes.total() - sum(number for _, number in most):
            all_of_them = self._segue("runs", "--job", self.id, "--failed")
            note(f"  {count(others)} × for other causes: `{all_of_them}` has them all")
        if not most or not self.kept:
            return
        example, said = tally.examples[most[0][0]]
        when, model = once_more(said)
        note(f"  {when}: `{self._segue('resume', '--all-like', example, *model)}`, then the same command")
        if len(tally.causes) > 1:
            note(f"  whatever the cause: `{self._segue('resume', '--job', self.id)}`")

    async def _sum_up(
        self,
        engine: Engine,
        job: Job[Any, Any],
        tally: Tally,
        progress: Progress,
        standing: Standing,
        stopped: bool,
    ) -> int:
        if self.args.json:
            counts = {"job": self.id, "unread": self.order.unread, **msgspec.structs.asdict(standing)}
            counts |= {"tokens": tally.tokens, "usd": spent(engine, tally)}
            put_json(counts, sys.stdout if self.args.output else sys.stderr)
        progress.say(in_words(standing, tally, spent(engine, tally), ""))
        if job.total == 0:
            note(f"  {self.rows.shown} has no rows{', but for its heading' if self.rows.is_csv else ''}")
        self._tell_causes(tally)
        if self.order.unread:
            rows = "row" if self.order.unread == 1 else "rows"
            says = "the same without --no-wait writes" if self.args.no_wait else "the output says"
            note(f"  {count(self.order.unread)} {rows} can't be read; {says} why, each in its line")
            note(f"    {short(self.order.first_problem, 160)}")
        if job.total is not None and (gone := standing.runs - (job.total - self.order.unread)) > 0:
            note(
                f"  {count(gone)} of them are of rows that {self.rows.name} doesn't have now, and so not in the output"
            )
        if standing.held:
            note(
                f"  {count(standing.held)} are held: `{self._segue('runs', '--job', self.id, '--failed')}` says why"
            )
        if standing.stuck:
            note(
                f"  {count(standing.stuck)} wait for runs that are held: `{self._segue('runs', '--failed')}` says why"
            )
        if stopped:
            asks = f"; {self._how_to_answer()}" if await self._asking(engine.store) else ""
            note(f"parked; the same command goes on{asks}" if self.kept else f"parked; {GONE}")
            return exit.INTERRUPTED
        if not standing.settled:
            asks = f"; {self._how_to_answer()}" if await self._asking(engine.store) else ""
            sweep = self._segue("advance", file_of(self.args.flow))
            note(f"it goes on with the same command, or with `{sweep}`{asks}" if self.kept else GONE)
            return exit.WAITING
        if self.args.output:
            note(f"  {self.args.output} has one line a row")
        bad = standing.failed or standing.held or standing.stuck or self.order.unread
        return exit.FAILED if bad else exit.OK


async def _check_key(store: Store, job: str, field: str, shape: InputShape) -> None:
    """Raise `Conflict` where rows would be known by something else than before, and so be done, and paid, anew."""
    if not field and (one := await keyed_run(store, job)) is not None:
        given = msgspec.json.decode(input_of(one, shape))
        names = given.items() if isinstance(given, dict) else ()
        was = next((name for name, value in names if str(value) == one.spec.key), "FIELD")
        raise Conflict(
            f"job {job!r} knows its rows by a key, such as {one.spec.key!r}: give `--key {was}` as before, or "
            f"another --id"
        )
    for head in reversed((await store.newest(job=job, limit=FIRST))[0] if field else []):
        given = msgspec.json.decode(input_of(head, shape))
        if isinstance(given, dict) and field in given and str(given[field]) != head.spec.key:
            what = "by number" if head.spec.key == str(head.spec.index) else "by another key"
            raise Conflict(
                f"job {job!r} knows its rows {what}, such as {head.spec.key!r}, and not by {field!r}: give the --key "
                f"that it began with, or none, or another --id"
            )


def _root_of(run: str, roots: set[str]) -> str:
    """The run among those that started this one, by its id."""
    while run not in roots and "." in run:
        run = run.rpartition(".")[0]
    return run


async def _sweep(engine: Engine, job: Job[Any, Any]) -> bool:
    """Admit all rows, then run until everything is parked and submitted."""
    while job.total is None and job.failure is None:
        await engine.ends.next()
    return await engine.advance()


def spent(engine: Engine, tally: Tally) -> float | None:
    """What the ended runs cost, if that is known."""
    if not tally.usage:
        return None
    try:
        receipt = engine.price(tally.usage)
    except SegueError:  # no price list
        return None
    return receipt.usd if len(receipt.unpriced) < len({use.model for use in tally.usage}) else None


# ---------------------------------------------------------------- advance
def declare_advance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="app.py", help="what defines the flows that may be run")
    parser.add_argument("--job", default="", help="the job whose output -o writes")
    parser.add_argument(
        "-o", "--output", default="", metavar="FILE", help="with --job: its output, once it is done"
    )
    parser.add_argument("--json", action="store_true", help="what is left, as JSON")
    declare_store(parser)


async def do_advance(args: argparse.Namespace) -> int:
    if args.output and not args.job:
        raise InvalidValue("segue advance -o", "--job JOB", "it writes the output of one job: name it")
    load_modules(args.files)
    check_writable(args.output, *args.files, args.store)
    async with Engine(existing(args.store), worker=False) as engine:
        if args.job and await engine.store.get_job(args.job) is None:
            raise await unknown_job(engine.store, args.job)
        await engine.advance()
        counts = await _counts(engine.store, args.job)
        waiting = counts.get("ready", 0) + counts.get("parked", 0)
        lack = await _lack(engine.store, args) if args.job and not waiting else ""
        if args.output and not waiting:
            await _write_job(engine.store, args.job, args.output)
        failed = bool(counts.get("failed"))
        if failed and not args.job and not waiting:
            failed = await _is_failure_left(engine.store)
        if args.json:
            put_json(counts)
        else:
            note(
                " · ".join(f"{count(number)} {word}" for word, number in counts.items()) or "nothing is there"
            )
            if counts.get("failed") and not failed and not waiting:
                note("  those that failed were started by runs that got over it")
        if lack:
            note(f"  {lack}")
        if waiting:
            await _check_known(engine, args)
    if waiting:
        return exit.WAITING
    return exit.FAILED if counts.get("held") or failed or lack else exit.OK


async def _is_failure_left(store: Store) -> bool:
    """Whether a run failed whose starter, if it has one, didn't get over it: what that came to counts alone."""
    starters = Starters(store)
    async for head in each_run(store, status=("failed",)):
        if not await starters.got_over(head):
            return True
    return False


async def _lack(store: Store, args: argparse.Namespace) -> str:
    """Which rows of a job are no runs in the store, so that its output lacks them, in words."""
    known = await store.get_job(args.job)
    assert known is not None  # it was there before the sweep
    if known.total is None:
        return "what read its rows was cut off: the same `segue map` goes on with those that are no runs yet"
    unread = known.total - sum(known.counts.values())
    if unread <= 0:
        return ""
    what = "row became no run, since it" if unread == 1 else "rows became no runs, since they"
    without = f", and {'is' if unread == 1 else 'are'} not in {args.output}" if args.output else ""
    return f"{count(unread)} {what} can't be read{without}: the same `segue map` says why"


async def _check_known(engine: Engine, args: argparse.Namespace) -> None:
    """Raise `UnknownName` where what still waits is of no file that was given, so that it would wait for ever."""
    repertoire = engine.worker.repertoire
    left = set(repertoire.left())
    if not left:
        return
    strangers: Counter[tuple[str, str, str]] = Counter()
    async for head in each_run(engine.store, job=args.job or None, status=("ready", "parked")):
        if head.status == "ready" and left & {head.spec.target, head.spec.code}:
            strangers[head.spec.kind, head.spec.target, head.spec.module] += 1
        elif repertoire.meant(head.spec) is not None:
            return  # it goes on here
    if not strangers:
        return
    kind, target, module = next(iter(strangers))
    names = ", ".join(sorted({target for _, target, _ in strangers}))
    files = [*args.files, file_here(module) or "app.py"]
    runs = count(strangers.total())
    raise UnknownName(
        kind,
        target,
        f"{runs} ready {'run is' if runs == '1' else 'runs are'} of {names}: name what defines them, as in "
        f"`{shlex.join(['segue', 'advance', *files, *at_store(args)])}`",
    )


async def _counts(store: Store, job: str) -> dict[str, int]:
    """Runs by status, of a job or of all."""
    if job:
        head = await store.get_job(job)
        return {} if head is None else head.counts
    return await store.run_counts()


async def _write_job(store: Store, job: str, path: str) -> None:
    known = await store.get_job(job)
    target = target_named(known.target) if known is not None else None
    shape = target.shape if isinstance(target, FlowDef) else None
    with replacing(path) as file:
        async for line in all_lines(store, job, shape):
            file.write(line + b"\n")
