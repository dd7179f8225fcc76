"""`segue resume`, `cancel`, `fork`: what people decide about runs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from ..core.budget import account_of, owner
from ..model.errors import Conflict, InvalidValue, UnknownName
from ..model.run import ENDED, Head
from ..runtime.engine import Engine
from ..runtime.ground.listing import each_run
from ..runtime.ground.names import unknown_job
from ..runtime.wake import rebase
from . import exit
from .budgets import as_plain, words
from .forks import fork_job, point
from .mail import declare_json, told
from .place import declare_how, declare_store, existing, how, sweep, where
from .runs import cause_of
from .screen import count, note
from .starters import Starters

REPEAT = "let keyed and at-most-once steps be done once more"


# ---------------------------------------------------------------- resume
def declare_resume(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let held, failed or cancelled runs go on from what is recorded. Of a run whose code changed:\n"
        "--keep accepts what was paid for, --rerun calls anew what changed. A failed call is made anew.\n"
        "--budget sets what the budget that runs are held for may cost in all: all that wait for it go on.\n"
        "With a run go the children that had ended with it: those of a supervisor, and those that it waited for."
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="the runs")
    parser.add_argument(
        "--all-like", default="", metavar="RUN", help="all that stand still for the same reason"
    )
    parser.add_argument(
        "--job",
        default="",
        help="all rows of that job that failed, or are held and may go on so; with --budget: whose budget it is",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--keep", action="store_true", help="match calls by place and name too, whatever they ask now"
    )
    choice.add_argument(
        "--rerun", action="store_true", help="match calls by name and arguments; the rest is anew"
    )
    choice.add_argument("--value", metavar="JSON", help="what came of the at-most-once step that was cut off")
    parser.add_argument(
        "--from",
        dest="start",
        default="",
        metavar="NAME",
        help="the first call of that name, or PATH#N, is made anew, and what came after: a bad answer, say",
    )
    parser.add_argument("--repeat", action="store_true", help=REPEAT)
    declare_json(parser)
    declare_how(parser)
    declare_store(parser)


async def do_resume(args: argparse.Namespace) -> int:
    if args.job and args.budget is not None:
        return await _fund_job(args)
    if not args.runs and not args.all_like and not args.job:
        raise InvalidValue("segue resume", "runs", "none is named; `segue runs --failed` lists them")
    value = msgspec.UNSET if args.value is None else json_of("--value", args.value)
    async with Engine(existing(args.store), worker=False) as engine:
        heads = [await engine.head(run) for run in args.runs]
        if args.all_like:
            heads += await _like(engine, await engine.head(args.all_like))
        if args.job:
            heads += await _failed(engine, args)
        for head in heads:
            _check_decided(head, args)
        starts = await _starts(engine, heads, args.start) if args.start else {}
        resumed: dict[str, None] = {}
        for head in heads:
            if head.id not in resumed:
                more = how(args)
                start = starts.get(head.id, "")
                on = await engine.resume(
                    head.id, keep=args.keep, value=value, repeat=args.repeat, before=start, **more
                )
                resumed |= dict.fromkeys(on)
        left = await _unhandled(engine, list(resumed))
    go = "runs go" if len(heads) != 1 else "run goes"
    below = len(resumed.keys() - {head.id for head in heads})
    theirs = (
        f", and {count(below)} that had ended with {'it' if len(heads) == 1 else 'them'}" if below else ""
    )
    told(args, {"resumed": list(resumed)}, f"{count(len(heads))} {go} on {where(args)}{theirs}")
    if left:
        note(f"{left}: `segue dead` lists it, `segue dead --resend ID` sends it again")
    return exit.OK


async def _starts(engine: Engine, heads: Sequence[Head], name: str) -> dict[str, str]:
    """The call from which on each run is done anew; empty for one that never came to it. Raises `UnknownName`."""
    starts: dict[str, str] = {}
    names: dict[str, None] = {}
    for head in heads:
        entries = await rebase.entries_of(engine.store, head.id)
        starts[head.id] = point(entries, name)
        names |= {entry.name: None for entry in entries if entry.name}
    if not any(starts.values()):
        raise UnknownName("call", name, f"the calls are {', '.join(names) or 'none'}")
    return starts


async def _unhandled(engine: Engine, runs: Sequence[str]) -> str:
    """How much mail of these is dead, as far as they are few."""
    if len(runs) > 100:
        return ""
    dead = sum([len(await engine.store.dead_letters(run=run)) for run in runs])
    return f"mail that wasn't handled: {count(dead)}" if dead else ""


async def _fund_job(args: argparse.Namespace) -> int:
    """Set a job's budget, or the one that its runs are held for."""
    if args.runs or args.all_like:
        raise InvalidValue(
            "segue resume --job --budget", "no runs beside it", "it sets the budget of the job"
        )
    async with Engine(existing(args.store), worker=False) as engine:
        if await engine.store.get_job(args.job) is None:
            raise await unknown_job(engine.store, args.job)
        account = f"job:{args.job}"
        if not await engine.store.budgets([account]):
            raise Conflict(f"job {args.job!r} has no budget; {await _on_another(engine, args.job)}")
        standing = await engine.fund(args.budget, job=args.job)
    said = f"budget of {owner(account)}: {words(standing)}; what there is room for goes on {where(args)}"
    told(args, {"budget": as_plain(standing)}, said)
    return exit.OK


async def _on_another(engine: Engine, job: str) -> str:
    """What to do where runs of a job are held for another budget than the job's."""
    async for head in each_run(engine.store, job=job, status=("held",)):
        if account := account_of(head.reason):
            return f"its runs are on that of {owner(account)}: `segue resume {shlex.quote(head.id)} --budget LIMIT`"
    return "`segue map … --budget LIMIT` gives one to a new job"


def _is_decided(head: Head, args: argparse.Namespace) -> bool:
    """Whether a held run may go on as it is asked to."""
    said = args.keep or args.rerun or args.value is not None
    return said or f"`segue resume {shlex.quote(head.id)}`" in head.reason or bool(account_of(head.reason))


def _check_decided(head: Head, args: argparse.Namespace) -> None:
    if head.status == "held" and not _is_decided(head, args):
        raise Conflict(f"run {head.id!r} is held: {head.reason}\nSay --keep, --rerun or --value.")
    if head.status not in ("held", "failed", "cancelled"):
        raise Conflict(
            f"run {head.id!r} is {head.status}; only held, failed or cancelled ones can be resumed"
        )


async def _failed(engine: Engine, args: argparse.Namespace) -> list[Head]:
    """The rows of a job that failed, and those that are held and may go on. Raises `Conflict` where none may."""
    if await engine.store.get_job(args.job) is None:
        raise await unknown_job(engine.store, args.job)
    found = [head async for head in each_run(engine.store, job=args.job, status=("failed", "held"))]
    may = [
        head
        for head in found
        if not account_of(head.reason)
        and (head.status != "held" or (_is_decided(head, args) and not args.start))
    ]
    if len(may) == len(found) != 0:
        return may
    budget = ", or --budget LIMIT" if any(account_of(head.reason) for head in found) else ""
    left = (
        f"{count(len(found) - len(may))} held: say --keep or --rerun{budget}" if found else "none has failed"
    )
    if not may:
        raise Conflict(f"job {args.job!r} has no row that may go on so; {left}")
    note(f"of job {args.job!r}, {left}")
    return may


async def _like(engine: Engine, example: Head) -> list[Head]:
    """All runs that stand still for the same reason, of the same job or of none, but for those that nobody wants."""
    job, cause, starters = example.spec.job, cause_of(example), Starters(engine.store)
    like, unwanted = [example], 0
    async for head in each_run(engine.store, job=job or None, status=(example.status,)):
        if head.id == example.id or head.spec.job != job or cause_of(head) != cause:
            continue
        if head.status != "failed" or await starters.want(head):
            like.append(head)
        else:
            unwanted += 1
    if unwanted:
        note(
            f"{count(unwanted)} like it {'is' if unwanted == 1 else 'are'} left as they are: who started them got over "
            f"it, or begins others when it is resumed"
        )
    return like


def json_of(where: str, text: str) -> Any:
    """The value of an option. Raises `InvalidValue`."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidValue(
            where, "JSON", f"{error}; a text needs its quotes, as in '\"text\"'", text
        ) from None


# ---------------------------------------------------------------- cancel
def declare_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="the runs")
    parser.add_argument("--job", default="", help="all of a job that go on")
    declare_json(parser)
    declare_store(parser)


async def do_cancel(args: argparse.Namespace) -> int:
    if not args.runs and not args.job:
        raise InvalidValue("segue cancel", "runs, or --job", "none is named; `segue runs` lists them")
    async with Engine(existing(args.store), worker=False) as engine:
        if args.job and await engine.store.get_job(args.job) is None:
            raise await unknown_job(engine.store, args.job)
        runs = list(args.runs)
        if args.job:
            open_ones = each_run(engine.store, job=args.job, status=("ready", "parked", "held"))
            runs += [head.id async for head in open_ones]
        for head in [await engine.head(run) for run in args.runs]:  # all are looked at before one is asked
            if head.status in ENDED:
                raise Conflict(f"run {head.id!r} is over: it is {head.status}")
        for run in runs:
            try:
                await engine.cancel(run)
            except Conflict:  # it has ended meanwhile
                if run in args.runs:
                    raise
    words = f"{count(len(runs))} asked to end; a run cleans up when it is next at work: {sweep(args)}"
    told(args, {"cancelled": runs}, words)
    return exit.OK


# ---------------------------------------------------------------- fork
def declare_fork(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A new run that shares another's history: nothing of what is shared is paid again. Calls are named\n"
        "PATH#N, as `segue show` lists them. --job does so with all runs of a job, from a step on, and tells the\n"
        "price first: a new job, whose runs are paid for by `segue advance` or a worker."
    )
    parser.add_argument("run", nargs="?", default="", help="the run to fork")
    parser.add_argument("--job", default="", help="all runs of a job that are over, as a new job")
    parser.add_argument(
        "--from",
        dest="start",
        default="",
        metavar="NAME",
        help="with --job: from the first call of that name on, all is done anew",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --job: only tell what it would cost")
    parser.add_argument(
        "--json",
        action="store_true",
        help="the new run; with --job what is shared and what it costs, as JSON",
    )
    parser.add_argument("--before", default="", metavar="PATH#N", help="from that call on, all is done anew")
    parser.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="PATH#N=JSON",
        help="another outcome of a call; may be repeated",
    )
    parser.add_argument("--repeat", action="store_true", help=REPEAT)
    parser.add_argument("--id", default="", help="the new run's, or job's")
    declare_how(parser)
    declare_store(parser)


async def do_fork(args: argparse.Namespace) -> int:
    if args.job:
        return await fork_job(args)
    if not args.run:
        raise InvalidValue("segue fork", "RUN, or --job", "none is named; `segue runs` lists them")
    edits: dict[str, Any] = {}
    for edit in args.edit:
        call, equals, text = edit.partition("=")
        if not equals:
            raise InvalidValue("--edit", "PATH#N=JSON", "there is no =", edit)
        edits[_call(call)] = json_of(f"--edit {call}", text)
    async with Engine(existing(args.store), worker=False) as engine:
        run = await engine.fork(
            args.run, id=args.id, before=_call(args.before), edit=edits, repeat=args.repeat, **how(args)
        )
    if not args.json:
        print(run.id)
    told(args, {"run": run.id, "of": args.run}, f"made; it goes on {where(args)}")
    return exit.OK


def _call(name: str) -> str:
    """A call's full name: a shell takes `#1` for a comment, so `1` will do."""
    return name if "#" in name or not name else f"#{name}"
