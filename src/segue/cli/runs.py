"""`segue runs`: what is there, and why what stands still does."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from typing import Any

import msgspec

from ..core.budget import account_of
from ..model.errors import InvalidValue
from ..model.run import Head
from ..ports.store import JobHead, Store
from ..runtime.ground.listing import each_run
from ..runtime.ground.names import unknown_job
from . import budgets, exit
from .answers import expects
from .place import declare_store, declare_tags, from_zero, looking
from .screen import count, duration, error_of, kind_of, note, put_json, short, shown, table, told, visible
from .waits import Waits, in_words, tell_batches
from .waits import as_plain as waits_as_plain

LIVING = ("ready", "parked", "held")
STATUSES = (*LIVING, "done", "failed", "cancelled")


def declare_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--job", default="", help="only those of this job")
    parser.add_argument(
        "--status",
        action="append",
        choices=STATUSES,
        default=[],
        metavar="STATUS",
        help=f"only those: {', '.join(STATUSES)}; may be given again",
    )
    declare_tags(parser, "only those that were started with this tag; may be given again")
    parser.add_argument("--failed", action="store_true", help="failed and held runs, grouped by cause")
    parser.add_argument(
        "--tree", nargs="?", const="", metavar="RUN", help="runs under those that started them; of one run"
    )
    parser.add_argument("--asks", action="store_true", help="open questions")
    parser.add_argument(
        "--limit", type=from_zero, default=50, metavar="N", help="the newest N (default 50; 0 for all)"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines")
    declare_store(parser)


async def do_runs(args: argparse.Namespace) -> int:
    _check_view(args)
    async with looking(args) as store:
        if args.job and await store.get_job(args.job) is None:
            raise await unknown_job(store, args.job)
        if args.asks:
            await _asks(store, args)
        elif args.failed:
            await _causes(store, args)
        elif args.tree is not None:
            from .tree import show_tree  # it needs actors, which the rest doesn't

            await show_tree(store, args)
        else:
            await _runs(store, args)
    return exit.OK


def _check_view(args: argparse.Namespace) -> None:
    """Raise `InvalidValue` for options that would be passed over."""
    views = [view for view in _NARROWED_BY if getattr(args, view) not in (False, None)]
    if len(views) > 1:
        raise InvalidValue("segue runs", "one of --asks, --failed and --tree", "say one of them")
    for view in views:
        for option in ("status", "tag"):
            if getattr(args, option) and option not in _NARROWED_BY[view]:
                raise InvalidValue(f"segue runs --{view}", f"no --{option}", "that isn't for it")


#: What, beside `--job` and `--limit`, narrows what is listed.
_NARROWED_BY = {"asks": (), "failed": ("status", "tag"), "tree": ()}


# ---------------------------------------------------------------- runs
async def _runs(store: Store, args: argparse.Namespace) -> None:
    heads = await _select(store, args)
    if args.json:
        waits = Waits(store)
        for head in heads:
            put_json(as_plain(head) | await waits_as_plain(waits, head))
        return
    jobs = [] if args.job or args.status or args.tag else await store.list_jobs()
    some = _newest_jobs(jobs, args.limit)
    if not args.status:
        of = [args.job] if args.job else [job.id for job in some]
        budgets.tell(await budgets.listed(store, heads, of))
    if not (args.status or args.tag or args.job):
        await tell_batches(store)
    if jobs:
        _jobs(some)
        if len(some) < len(jobs):
            note(f"and {count(len(jobs) - len(some))} more jobs that are over; --limit 0 shows all")
    alone = [head for head in heads if not jobs or not head.spec.job]
    if alone:
        if jobs:
            print()
        now, waits_for = time.time(), await in_words(store, alone)
        table(
            ("RUN", "STATUS", "FLOW", "AGE", "WHAT"),
            [
                (
                    head.id,
                    head.status,
                    head.spec.target,
                    duration(max(now - head.spec.begun, 0)),
                    waits_for.get(head.id) or what(head),
                )
                for head in alone
            ],
        )
    elif not jobs:
        note("no such runs are there" if args.job or args.status or args.tag else "no runs are there yet")


def _newest_jobs(jobs: list[JobHead], limit: int) -> list[JobHead]:
    """The newest, and all of which a run isn't over, oldest first."""
    if not limit:
        return jobs
    open_ones = (job for job in jobs[:-limit] if any(job.counts.get(status) for status in LIVING))
    return [*open_ones, *jobs[-limit:]]


def _jobs(jobs: list[JobHead]) -> None:
    """Jobs with their rows by status, and those of which there is no run, where there are such."""
    unread = [0 if job.total is None else max(0, job.total - sum(job.counts.values())) for job in jobs]
    some = any(unread)
    columns = ["JOB", "ROWS", *(["UNREAD"] if some else []), *(status.upper() for status in STATUSES)]
    rows = []
    for job, none in zip(jobs, unread, strict=True):
        total = "…" if job.total is None else count(job.total)
        counts = [count(job.counts.get(status, 0)) for status in STATUSES]
        rows.append((job.id, total, *([count(none)] if some else []), *counts))
    table(columns, rows, right=",".join(columns[1:]))


async def _select(store: Store, args: argparse.Namespace) -> list[Head]:
    """The newest runs that are wanted, oldest first. Those of jobs, and of other runs, only if they were asked for."""
    rest = None if args.status or args.json or args.tag else ""
    page = 1000 if args.tag else min(args.limit or 1000, 1000)
    found: list[Head] = []
    async for head in each_run(store, job=args.job or rest, status=args.status, page=page):
        if is_tagged(head, args.tag):
            found.append(head)
            if len(found) == args.limit:
                break
    return found[::-1]


def is_tagged(head: Head, tags: list[tuple[str, str]]) -> bool:
    """Whether a run was started with all of these."""
    return all(head.spec.config.tags.get(name) == value for name, value in tags)


def what(head: Head) -> str:
    """In short: its result, its error, or what it waits for."""
    if head.damage and head.status != "held":  # its reason has that too
        return short(head.damage, 200)
    match head.status:
        case "done":
            return shown(head.value)
        case "held":
            return short(head.reason, 200)
        case "parked" | "ready" if head.reason:
            return short(head.reason, 200)
        case "parked" if head.wake is not None:
            return f"until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(head.wake))} or sooner"
    if head.error is None:
        return ""
    kind = kind_of(head.error.type)
    if kind in ("RunInterrupted", "RunCancelled"):  # its text would say the id once more
        return kind.removeprefix("Run").lower()
    return short(told(head.error), 200)


def as_plain(head: Head) -> dict[str, Any]:
    """A run's record as JSON for programs."""
    plain: dict[str, Any] = {
        "id": head.id,
        "status": head.status,
        "flow": head.spec.target,
        "job": head.spec.job,
        "index": head.spec.index,
        "key": head.spec.key,
        "created": head.spec.begun,
        "updated": head.updated,
        "input": msgspec.Raw(head.spec.args),
        "tags": head.spec.config.tags,
        "usage": [msgspec.structs.asdict(use) for use in head.usage],
    }
    if head.value is not None:
        plain["value"] = msgspec.Raw(head.value)
    if head.error is not None:
        plain["error"] = error_of(head.error)
    if head.reason:
        plain["reason"] = head.reason
    if head.damage:
        plain["damage"] = head.damage
    if head.wake is not None:
        plain["wake"] = head.wake
    return plain


# ---------------------------------------------------------------- causes
class Cause(msgspec.Struct):
    """Runs that stand still for one reason, of one job; `cause` is it in the words of the oldest of them, `example`."""

    status: str
    cause: str
    runs: int
    example: str


def cause_of(head: Head) -> str:
    """What runs are grouped by: the reason without what is only this run's, such as its data."""
    if head.status == "held":
        return head.cause
    return _DATA.sub(lambda found: found["named"] or "…", why(head).replace(repr(head.id), "…"))


#: What differs from run to run: what was got, quoted data, numbers; but not the names of calls and the status of HTTP.
_QUOTED = r"""(?<!\w)('(\\.|[^'\\])*'|"(\\.|[^"\\])*")(?!\w)"""
_DATA = re.compile(
    rf"(?P<named>\b(step|flow|generate|ask|child|branch|model) {_QUOTED})|{_QUOTED}"
    r"|; (got|its last was) .*|(?<!HTTP )(?<!call )\b\d+\b"
)


#: What a model answered is kept, whatever was wrong with it: a resume finds it as it was.
_ANSWERED = ("BadAnswer:", "Truncated:", "Refused:", "TooManyTurns:")


def once_more(said: str) -> tuple[str, tuple[str, ...]]:
    """How a run that failed with that may be tried again, and what is to be said to `segue resume`."""
    if said.startswith(_ANSWERED):
        return "the answer is kept; for another one, of this model or with --model", ("--from", "CALL")
    return "once more", ("--model", "openai:gpt-5-mini") if "no model is named" in said else ()


def why(head: Head) -> str:
    """Why a run failed or is held."""
    if head.status == "held":
        return head.reason
    return "no error was left" if head.error is None else told(head.error)


async def _causes(store: Store, args: argparse.Namespace) -> None:
    causes: dict[tuple[str, str, str], Cause] = {}
    for status in ("failed", "held"):
        if status not in (args.status or STATUSES):
            continue
        async for head in each_run(store, job=args.job or None, status=(status,)):
            if not is_tagged(head, args.tag):
                continue
            one = (status, head.spec.job, cause_of(head))
            known = causes.setdefault(one, Cause(status, "", 0, ""))
            known.runs, known.cause, known.example = known.runs + 1, why(head), head.id
    found = sorted(causes.values(), key=lambda cause: -cause.runs)
    if args.json:
        for cause in found:
            put_json(cause)
        return
    if not found:
        note("nothing failed or is held")
        return
    for cause in found:
        print(f"{count(cause.runs)} {cause.status}, such as {cause.example}")
        for line in visible(cause.cause).splitlines():
            print(f"  {line}")
        if account_of(cause.cause):
            continue  # it says what to do
        if cause.status == "held" and f"`segue resume {shlex.quote(cause.example)}`" not in cause.cause:
            ways = "--rerun | --value JSON" if "`--value JSON`" in cause.cause else "--keep | --rerun"
            print(f"  all of them: segue resume --all-like {shlex.quote(cause.example)} {ways}")
        else:
            when, model = once_more(cause.cause)
            print(f"  {when}: {shlex.join(['segue', 'resume', '--all-like', cause.example, *model])}")


# ---------------------------------------------------------------- questions
async def _asks(store: Store, args: argparse.Namespace) -> None:
    questions = await store.asks()
    if args.job:
        questions = [each for each in questions if each.run.startswith(f"{args.job}/")]
    if args.json:
        for each in questions:
            put_json(
                {
                    "id": each.id,
                    "run": each.run,
                    "question": each.question,
                    "to": each.to,
                    "show": msgspec.Raw(each.show),
                    "schema": msgspec.Raw(each.schema),
                    "created": each.created,
                    "deadline": each.deadline or None,
                }
            )
        return
    if not questions:
        note("no questions are open")
        return
    now = time.time()
    rows = [
        (
            each.id,
            each.to,
            duration(max(now - each.created, 0)),
            expects(msgspec.json.decode(each.schema)),
            _asked(each),
        )
        for each in questions[: args.limit or None]
    ]
    table(("ASK", "TO", "AGE", "ANSWER", "QUESTION"), rows)
    if len(rows) < len(questions):
        note(f"and {count(len(questions) - len(rows))} more; --limit 0 lists all")


def _asked(question: Any) -> str:
    about = "" if question.show == b"null" else f"  {shown(question.show, 200)}"
    return f"{short(question.question, 200)}{about}"
