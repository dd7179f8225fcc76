"""`segue fork --job`: all runs of a job once more, from a step on, with what comes before it shared."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from itertools import chain
from typing import Any
from uuid import uuid4

import msgspec

from ..authoring.config import as_config
from ..core.replay import Place
from ..model.entry import Entry
from ..model.errors import Conflict, Damaged, InvalidValue, SegueError, UnknownName
from ..model.mode import Batch
from ..model.run import REUSED, Head, Usage, is_over
from ..ports.store import JobHead, NewRun
from ..runtime.engine import Engine
from ..runtime.family import beneath, rows
from ..runtime.ground.names import unknown_job
from ..runtime.receipt import total
from ..runtime.wake import rebase
from . import exit
from .place import check_models, existing, how, sweep
from .screen import count, money, note, put_json

#: Runs are read and made so many at a time.
SOME = 200


class Plan(msgspec.Struct):
    """What a fork of a job shares. `anew` is what it surely pays again, `most` what it does if all calls changed."""

    job: str
    runs: int = 0
    left_out: int = 0  #: runs that still go on
    damaged: list[str] = []  #: runs that can't be read, left out too
    without: int = 0  #: runs that never came to the call: all that they did is shared
    shared: int = 0  #: recorded calls, of all kinds
    dropped: int = 0
    model_calls: int = 0  #: among all of them
    model_calls_anew: int = 0
    usd_anew: float | None = None
    usd_most: float | None = None
    made: int = 0
    there: int = 0  #: runs that an earlier command has made


async def fork_job(args: argparse.Namespace) -> int:
    """Carry the command out."""
    if args.run or args.before or args.edit:
        raise InvalidValue("segue fork --job", "--from NAME", "RUN, --before and --edit are for one run")
    async with Engine(existing(args.store), worker=False) as engine:
        check_models(engine, args)
        job = await engine.store.get_job(args.job)
        if job is None:
            raise await unknown_job(engine.store, args.job)
        plan = Plan(args.id or f"{args.job}~{uuid4().hex[:6]}")
        await _look(engine, args, plan)
        _tell(plan, args)
        if not args.dry_run:
            await engine.store.put_job(JobHead(plan.job, job.target, engine.clock.now(), plan.runs))
            await _make(engine, args, plan)
    if args.json:
        put_json(plan)
    elif not args.dry_run:
        print(plan.job)
        there = f", {count(plan.there)} were there" if plan.there else ""
        note(
            f"{count(plan.made)} runs made{there}; "
            f"{sweep(args, '--job', plan.job, '-o', 'out.jsonl')} goes on"
        )
    return exit.OK


async def _origins(
    engine: Engine, job: str, damaged: list[str]
) -> AsyncIterator[list[tuple[Head, list[Entry]]]]:
    """The runs of a job with what is recorded of them, some at a time. Those that can't be read go to `damaged`."""
    chunk: list[Head] = []
    async for head in rows(engine.store, job):
        chunk.append(head)
        if len(chunk) == SOME:
            yield await _with_entries(engine, chunk, damaged)
            chunk = []
    yield await _with_entries(engine, chunk, damaged)


async def _with_entries(
    engine: Engine, heads: list[Head], damaged: list[str]
) -> list[tuple[Head, list[Entry]]]:
    found = await asyncio.gather(*(_entries(engine, head) for head in heads))
    damaged += [head.id for head, entries in zip(heads, found, strict=True) if entries is None]
    return [(head, entries) for head, entries in zip(heads, found, strict=True) if entries is not None]


async def _entries(engine: Engine, head: Head) -> list[Entry] | None:
    try:
        rebase.refuse_damaged(head)
        return await rebase.entries_of(engine.store, head.id)
    except Damaged:
        return None


def point(entries: list[Entry], name: str) -> str:
    """The first call of that name, or at that place, as `PATH#N`; empty if there is none."""
    for entry in sorted(entries, key=lambda entry: (entry.after, entry.n)):
        place = f"{entry.path}#{entry.n}"
        if name in (entry.name, entry.name.rpartition(".")[2], place, place.removeprefix("#")):
            return place
    return ""


# ---------------------------------------------------------------- what it would cost
async def _look(engine: Engine, args: argparse.Namespace, plan: Plan) -> None:
    """Count what is shared, and price the rest. Raises `UnknownName` for a call that no run made."""
    anew: list[Usage] = []
    most: list[Usage] = []
    names: Counter[str] = Counter()
    async for some in _origins(engine, args.job, plan.damaged):
        for head, entries in some:
            if head.spec.kind == "actor":
                raise Conflict(
                    f"job {args.job!r} is one of actors: their past is no journal that could be forked"
                )
            if not is_over(head.status):
                plan.left_out += 1
                continue
            names.update({entry.name for entry in entries if entry.name})
            below: dict[Place, list[Usage]] = {}
            if any(entry.kind in ("child", "spawn") for entry in entries):
                below = await beneath(engine.store, head.id)
            share, started = _count(plan, entries, args.start, below)
            anew += [_part(use, share, args) for use in head.usage]
            anew += [_part(use, 1.0, args) for use in started]
            most += [_part(use, 1.0, args) for use in chain(head.usage, *below.values())]
        anew, most = total(anew), total(most)
    if not plan.runs:
        on = f"{count(plan.left_out)} still go on" if plan.left_out else "it has none"
        on = f"{count(len(plan.damaged))} can't be read, such as {plan.damaged[0]}" if plan.damaged else on
        raise Conflict(f"job {args.job!r} has no run that is over, of which a fork could be made: {on}")
    if args.start and plan.without == plan.runs:
        known = ", ".join(name for name, _ in names.most_common(20)) or "none"
        raise UnknownName("call", args.start, f"the runs' calls are {known}")
    plan.usd_anew, plan.usd_most = _usd(engine, anew), _usd(engine, most)


def _count(
    plan: Plan, entries: list[Entry], start: str, below: Mapping[Place, list[Usage]]
) -> tuple[float, list[Usage]]:
    """Count one run in, and those that it started, by the place of the call.

    The share of its model calls that is made anew; and what the runs used that are started anew.
    """
    before = point(entries, start) if start else ""
    shared = rebase.until(entries, before, {})
    paid, kept = (sum(entry.asks_model for entry in some) for some in (entries, shared))
    places = {entry.opening for entry in shared}
    started = [use for place, uses in below.items() if place not in places for use in uses]
    plan.runs += 1
    plan.without += bool(start) and not before
    plan.shared += len(shared)
    plan.dropped += len(entries) - len(shared)
    plan.model_calls += paid + sum(use.calls for uses in below.values() for use in uses)
    plan.model_calls_anew += paid - kept + sum(use.calls for use in started)
    return (paid - kept) / paid if paid else 0.0, started


def _part(use: Usage, share: float, args: argparse.Namespace) -> Usage:
    """That part of a run's model use, under the model and in the lane that the fork has."""
    return Usage(
        args.model[0].partition("@")[0] if args.model else use.model,
        "batch"
        if isinstance(args.mode, Batch)
        else args.mode or ("live" if use.lane == REUSED else use.lane),
        round(use.calls * share),
        round(use.input_tokens * share),
        round(use.output_tokens * share),
        round(use.cached_tokens * share),
        round(use.written_tokens * share),
    )


def _usd(engine: Engine, uses: list[Usage]) -> float | None:
    try:
        receipt = engine.price(uses)
    except SegueError:  # no price list
        return None
    return None if receipt.unpriced else receipt.usd


def _tell(plan: Plan, args: argparse.Namespace) -> None:
    """The price, before anything is made."""
    note(
        f"{count(plan.runs)} runs share {count(plan.shared)} recorded calls; {count(plan.dropped)} are made anew, "
        f"{count(plan.model_calls_anew)} of {count(plan.model_calls)} model calls among them: "
        f"about {money(plan.usd_anew)}"
    )
    if plan.model_calls_anew < plan.model_calls:
        note(f"a shared call that asks otherwise now is made anew too: {money(plan.usd_most)} at most, about")
    if plan.without:
        note(f"{count(plan.without)} runs made no call {args.start!r}: they share all that they did")
    if plan.left_out:
        note(f"{count(plan.left_out)} runs still go on and are left out")
    if plan.damaged:
        note(
            f"{count(len(plan.damaged))} runs can't be read and are left out, such as {plan.damaged[0]}: the store is "
            f"damaged there; restore a backup, then the same command makes them too"
        )


# ---------------------------------------------------------------- making them
async def _make(engine: Engine, args: argparse.Namespace, plan: Plan) -> None:
    options: Any = how(args)
    config = await engine.terms.on_budget(as_config(**options), f"job:{plan.job}")
    async for some in _origins(engine, args.job, []):
        new: list[NewRun] = []
        for head, entries in some:
            if not is_over(head.status):
                continue
            before = point(entries, args.start) if args.start else ""
            pool = rebase.share(head.id, entries, before, {}, repeat=args.repeat)
            forked = rebase.forked(head, config, engine.clock.now())
            spec = msgspec.structs.replace(forked, job=plan.job, group="", limit=0)
            name = head.id.removeprefix(f"{args.job}/")
            new.append(NewRun(f"{plan.job}/{name}", spec, pool))
        for run, created in zip(new, await engine.worker.create(new) if new else [], strict=True):
            plan.made += created.new
            plan.there += not created.new
            if not created.new and created.head.spec.origin != run.spec.origin:
                raise Conflict(
                    f"run {run.id!r} is there already, and no fork of {run.spec.origin!r}; choose another --id"
                )
