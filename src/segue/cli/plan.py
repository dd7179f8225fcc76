"""`segue plan`: what a map would send and cost, before it is begun."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import msgspec

from ..authoring.flow import FlowDef, definition
from ..core import deadlines
from ..model.budget import Budget
from ..model.entry import Entry
from ..model.errors import MissingKey, SegueError
from ..model.lane import LIVE
from ..model.run import ENDED, Head, Usage
from ..ports.store import Store
from ..runtime.engine import Engine
from ..runtime.family import family
from ..runtime.ground.listing import each_run
from ..runtime.job import Job
from ..runtime.receipt import Receipt, total
from ..runtime.wake.rebase import entries_of
from ..stores import open_store
from . import exit
from .budgets import declare_budget
from .place import check_models, declare_store, period, positive
from .rows import RowFile, bind, check_readable, key_of, without_errors
from .screen import count, duration, money, note, put_json, told
from .target import load_flow

#: Rows that go live at once, for the time that it takes: as many as an endpoint is asked at first.
FIRST = 32
#: Earlier runs that are looked at, at most.
ENOUGH = 200


class PlanWay(msgspec.Struct):
    """A way for all model calls to go: its price, how long it takes, and whether that is known or the provider's word.

    `wave` is what one wave takes, in seconds.
    """

    name: str
    usd: float | None
    wave: float
    seconds: float
    seen: bool


class Plan(msgspec.Struct):
    """An estimate. Prices are US dollars, None where they aren't known; `sampled` runs are what it rests on."""

    rows: int
    unreadable: int
    sampled: int
    source: str
    requests: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    waves: int = 0
    asks: float = 0
    spread: float = 0  #: the standard error of a row's tokens, as a share of them
    usd_live: float | None = None
    usd_batch: float | None = None
    sample_seconds: float = 0
    ways: list[PlanWay] = []
    chosen: str = ""  #: with a deadline, the way that the first wave goes
    chosen_waves: list[str] = []  #: and the way of each
    live_seconds: float | None = None  #: what live takes with `FIRST` rows at once; None where no row tells
    enough: dict[str, bool] = {}  #: with a budget, the ways that it is enough for
    unpriced: list[str] = []
    notes: list[str] = []


class Sample(msgspec.Struct):
    """What one earlier run took."""

    usage: list[Usage]
    size: int
    waves: int
    asks: int
    seconds: (
        float | None
    )  #: that it was at work, without what it waited for; None where its calls went in batch


def declare_plan(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What a map over these rows would send and cost, live and in batch, judged by earlier runs of the flow in\n"
        "the store, or by --sample N, which runs the first N rows live, in memory: that is paid for."
    )
    parser.add_argument("flow", metavar="app.py:flow", help="the flow")
    parser.add_argument(
        "rows", help="a JSONL, CSV or TSV file; - for standard input, JSON lines or CSV with a heading"
    )
    parser.add_argument(
        "--sample", type=positive, default=0, metavar="N", help="run the first N rows live to find out"
    )
    parser.add_argument("--key", default="", metavar="FIELD", help="as map has it: the rows' key")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="for the sample, and the prices"
    )
    parser.add_argument(
        "--deadline", type=period, default=None, metavar="TIME", help="such as 6h: which way would be in time"
    )
    declare_budget(parser, "such as 5 (US dollars) or 100000tok: whether it will do")
    parser.add_argument("--json", action="store_true", help="as JSON")
    declare_store(parser)


async def do_plan(args: argparse.Namespace) -> int:
    flow = load_flow(args.flow)
    with TemporaryDirectory(prefix="segue-") as directory:
        rows = RowFile(args.rows, Path(directory))
        check_readable(rows, definition(flow).shape, args.key)
        plan, mean_size = _count(rows, definition(flow), args.key)
        address = "memory:" if args.sample or not _is_there(args.store) else args.store
        async with Engine(address, worker=bool(args.sample)) as engine:
            _check_names(engine, args)
            if args.sample:
                check_models(engine, args)
                samples = await _try(engine, flow, rows, args, plan)
            else:
                samples = await _remember(engine.store, definition(flow).name)
                plan.source = f"{count(len(samples))} earlier runs in {args.store}"
            if samples:
                _estimate(plan, samples, mean_size)
                _price(plan, samples, engine, args.model)
                await _time(plan, samples, engine, args)
                if args.budget is not None:
                    _fit(plan, args.budget)
    plan.sampled = len(samples)
    if args.json:
        put_json(plan)
    else:
        _show(plan)
    return exit.OK if samples else exit.FAILED


def _is_there(address: str) -> bool:
    scheme, _, path = address.partition(":")
    return scheme != "sqlite" or Path(path).exists()


def _check_names(engine: Engine, args: argparse.Namespace) -> None:
    """Raise `UnknownName` for a model that there isn't; a price needs no key."""
    with contextlib.suppress(MissingKey):
        check_models(engine, args)


def _count(rows: RowFile, flow: FlowDef, key: str) -> tuple[Plan, float]:
    """How many rows there are, and the mean size of their calls."""
    good = bad = size = 0
    for row in bind(rows, flow.shape, key):
        if row.error is None:
            good += 1
            size += len(row.args)
        else:
            bad += 1
    return Plan(good, bad, 0, ""), size / good if good else 0.0


# ---------------------------------------------------------------- samples
async def _remember(store: Store, flow: str) -> list[Sample]:
    """Earlier runs of the flow that were done."""
    found: list[Sample] = []
    async for head in each_run(store, status=("done",)):
        if head.spec.target == flow:
            found.append(await _sample(store, head))
            if len(found) >= ENOUGH:
                break
    return found


async def _try(
    engine: Engine, flow: Any, rows: RowFile, args: argparse.Namespace, plan: Plan
) -> list[Sample]:
    """Run the first rows live, in memory."""
    some = islice(without_errors(bind(rows, definition(flow).shape, args.key)), args.sample)
    how = {"model": args.model} if args.model else {}
    job = engine.map(flow, some, id="sample", key=key_of, mode="live", **how)
    while not await _stands(engine, job):
        await engine.ends.next()
    found: list[Sample] = []
    waiting = 0
    tried = [head async for head in each_run(engine.store, job=job.id)]
    for head in reversed(tried):
        if head.error is not None:
            plan.notes.append(f"row {head.spec.index} of the sample failed: {told(head.error)}")
        elif head.status == "held":
            plan.notes.append(f"row {head.spec.index} of the sample is held: {head.cause}")
        else:
            waiting += head.status not in ENDED
            found.append(await _sample(engine.store, head))
    if waiting:
        plan.notes.append(f"{waiting} of the sample wait for an answer: what comes after it isn't counted")
    plan.source = f"{count(len(found))} {'row' if len(found) == 1 else 'rows'} run live just now"
    return found


async def _stands(engine: Engine, job: Job[Any, Any]) -> bool:
    """Whether every run of the sample is over or waits for a person."""
    engine.check()
    if (failure := job.failure or job.conflict) is not None:
        raise failure
    head = await engine.store.get_job(job.id)
    if job.total is None or head is None:
        return False
    over = sum(number for status, number in head.counts.items() if status in {*ENDED, "held"})
    return over + len({ask.run for ask in await engine.open_asks()}) >= job.total


async def _sample(store: Store, head: Head) -> Sample:
    """What a run took, with those that it started."""
    entries = await entries_of(store, head.id)
    usage, asks, waves = list(head.usage), sum(entry.kind == "ask" for entry in entries), {}
    if any(entry.kind in ("child", "spawn") for entry in entries):
        async for below in family(store, run=head.id):
            parent = below.spec.parent
            if parent is None or parent.run != head.id:
                continue
            one = await _sample(store, below)
            usage += one.usage
            asks += one.asks
            waves[parent.path, parent.n] = one.waves
    seconds = None
    if all(use.lane == LIVE for use in usage):
        seconds = at_work(entries, head.spec.created, beneath=not asks)
    return Sample(total(usage), len(head.spec.args), depth(entries, waves), asks, seconds)


def at_work(entries: Iterable[Entry], began: float, *, beneath: bool = False) -> float:
    """For how long a run waited for calls that don't park it, in seconds; `beneath`: for its children too."""
    counts = ("generate", "embed", "http", "step", *(("child",) if beneath else ()))
    batches: dict[int, list[Entry]] = {}
    for entry in entries:
        if not entry.made and entry.at:
            batches.setdefault(entry.batch, []).append(entry)
    seconds, last = 0.0, began
    for _, together in sorted(batches.items()):
        until = max(entry.at for entry in together)
        if all(entry.kind in counts for entry in together):
            seconds += max(0.0, until - last)
        last = until
    return seconds


def depth(entries: Iterable[Entry], beneath: Mapping[tuple[str, int], int] = MappingProxyType({})) -> int:
    """How many model calls wait for one another in a row: the provider jobs that a batch would take.

    `beneath`: how many there are in the runs that were started, by the place of the call.
    """
    levels: dict[int, int] = {}  # by batch: the calls that led up to it
    deepest = 0
    for entry in sorted(entries, key=lambda entry: (entry.after, entry.batch)):
        before = max((level for batch, level in levels.items() if batch < entry.after), default=0)
        here = before + entry.asks_model
        if entry.kind == "child":
            here += beneath.get((entry.path, entry.n), 0)
        levels[entry.batch] = max(levels.get(entry.batch, 0), here)
        deepest = max(deepest, here)
    return deepest


# ---------------------------------------------------------------- estimates
def _estimate(plan: Plan, samples: list[Sample], mean_size: float) -> None:
    number = len(samples)
    uses = [use for sample in samples for use in sample.usage]
    share = plan.rows / number
    plan.requests = share * sum(use.calls for use in uses)
    plan.input_tokens = share * sum(use.input_tokens for use in uses)
    plan.output_tokens = share * sum(use.output_tokens for use in uses)
    plan.asks = share * sum(sample.asks for sample in samples)
    plan.waves = max(sample.waves for sample in samples)
    known = [sample.seconds for sample in samples if sample.seconds is not None]
    if known:
        plan.sample_seconds = sum(known) / len(known)
        plan.live_seconds = math.ceil(plan.rows / FIRST) * plan.sample_seconds
    per_row = [sum(use.input_tokens + use.output_tokens for use in sample.usage) for sample in samples]
    mean = sum(per_row) / number
    if number > 1 and mean:
        variance = sum((each - mean) ** 2 for each in per_row) / (number - 1)
        plan.spread = math.sqrt(variance / number) / mean
    sampled_size = sum(sample.size for sample in samples) / number
    if sampled_size and not 0.67 < mean_size / sampled_size < 1.5:
        plan.notes.append(
            f"these rows are {mean_size / sampled_size:.1f} × as long as those it rests on: input tokens will differ"
        )


def _price(plan: Plan, samples: list[Sample], engine: Engine, models: list[str]) -> None:
    uses = total(use for sample in samples for use in sample.usage)
    if models and uses:
        asked = models[0].partition("@")[0]
        if any(use.model != asked for use in uses):
            plan.notes.append(
                f"tokens are those of {', '.join(sorted({use.model for use in uses}))}, priced as {asked}"
            )
            uses = total(msgspec.structs.replace(use, model=asked) for use in uses)
    try:
        live, batch = (engine.price(total(_in_lane(use, lane) for use in uses)) for lane in ("live", "batch"))
    except SegueError as error:
        plan.notes.append(str(error))
        return
    plan.unpriced = live.unpriced
    plan.usd_live, plan.usd_batch = _scaled(live, plan), _scaled(batch, plan)


def _in_lane(use: Usage, lane: str) -> Usage:
    return msgspec.structs.replace(use, lane=lane)


async def _time(plan: Plan, samples: list[Sample], engine: Engine, args: argparse.Namespace) -> None:
    """The ways that there are below live, as far as a provider can be asked: how long each takes by earlier jobs."""
    uses = total(use for sample in samples for use in sample.usage)
    names = [*args.model, *(use.model for use in uses)]
    if not names:
        return
    if args.sample and _is_there(args.store):  # it ran in memory, which has seen no job
        store = open_store(args.store, look=True)
        await store.open()
        try:
            await engine.lanes.promotions.learn(store)
        finally:
            await store.close()
    try:
        endpoint = engine.models.endpoint(names[0])
        ways = (
            list(engine.models.ways.of(endpoint, "chat")) if engine.models.provider(endpoint).batches else []
        )
    except SegueError as error:
        plan.notes.append(f"of the ways below live, nothing is known but the price: {error}")
        return
    for way in ways:
        seen = len(way.took) >= deadlines.ENOUGH
        usd = _way_price(plan, uses, engine, way.name, args.model)
        plan.ways.append(PlanWay(way.name, usd, way.expected, way.expected * plan.waves, seen))
    if args.deadline is not None:
        left = args.deadline.total_seconds()
        for _ in range(plan.waves):
            found = deadlines.choose(ways, left, engine.models.ways.lead(endpoint, "chat"))
            plan.chosen_waves.append("live" if found is None else found.name)
            left -= 0.0 if found is None else found.expected
        plan.chosen = plan.chosen_waves[0] if plan.chosen_waves else ""


def _way_price(plan: Plan, uses: list[Usage], engine: Engine, lane: str, models: list[str]) -> float | None:
    named = (
        [msgspec.structs.replace(use, model=models[0].partition("@")[0]) for use in uses] if models else uses
    )
    try:
        return _scaled(engine.price(total(_in_lane(use, lane) for use in named)), plan)
    except SegueError:  # said of the others
        return None


def _fit(plan: Plan, budget: Budget) -> None:
    """Which ways a budget is enough for, and to spare what samples differ."""
    share = 1 + 2 * plan.spread
    tokens = (plan.input_tokens + plan.output_tokens) * share
    ways = {"live": plan.usd_live} | ({way.name: way.usd for way in plan.ways} or {"batch": plan.usd_batch})
    for name, usd in ways.items():
        if budget.usd is not None and usd is None:
            plan.notes.append(f"whether the budget will do {name} isn't known, for its price isn't")
            continue
        within = budget.usd is None or (usd or 0.0) * share <= budget.usd
        plan.enough[name] = within and (budget.tokens is None or tokens <= budget.tokens)


def _scaled(receipt: Receipt, plan: Plan) -> float | None:
    tokens = sum(line.input_tokens + line.output_tokens for line in receipt.lines)
    if not tokens or len(receipt.unpriced) == len({line.model for line in receipt.lines}):
        return None
    return receipt.usd * (plan.input_tokens + plan.output_tokens) / tokens


# ---------------------------------------------------------------- printing
def _in_waves(chosen: list[str]) -> str:
    how = ["live" if way == "live" else f"by {way}" for way in chosen]
    if len(set(how)) == 1:
        return f"the one wave goes {how[0]}" if len(how) == 1 else f"all {len(how)} waves go {how[0]}"
    return ", ".join(f"wave {number} goes {way}" for number, way in enumerate(how, 1))


def _show(plan: Plan) -> None:
    print(
        f"{count(plan.rows)} rows"
        + (f", and {count(plan.unreadable)} that can't be read" if plan.unreadable else "")
    )
    if not plan.source or plan.source.startswith("0 "):
        cure = "see below" if plan.notes else "`--sample 3` runs three rows live"
        note(f"nothing is known of this flow yet: {plan.source or 'no earlier run'}; {cure}")
        for text in plan.notes:
            note(f"  {text}")
        return
    give = f" ± {max(plan.spread * 200, 1):.0f} %" if plan.spread else ""
    tokens = f"{count(round(plan.input_tokens))} tokens in, {count(round(plan.output_tokens))} out"
    waves = f"{plan.waves} wave{'s' if plan.waves != 1 else ''}"
    print(f"  about {count(round(plan.requests))} requests, {tokens}{give}")
    time = (
        ""
        if plan.live_seconds is None
        else f"   about {duration(plan.live_seconds)}, with {FIRST} rows at once"
    )
    print(f"  live   {money(plan.usd_live):>10}{time}")
    if not plan.ways:
        print(
            f"  batch  {money(plan.usd_batch):>10}   in {waves}, each as long as the provider takes (24 h at most)"
        )
    for way in reversed(plan.ways):
        each = (
            f"{duration(way.wave)} each, as jobs were so far"
            if way.seen
            else f"{duration(way.wave)} each at most"
        )
        print(f"  {way.name:<6} {money(way.usd):>10}   in {waves}, {each}: {duration(way.seconds)}")
    if plan.chosen:
        print(f"  with that deadline, {_in_waves(plan.chosen_waves)}")
    for name, enough in plan.enough.items():
        print(f"  the budget {'will do' if enough else 'will not do'} {name}")
    if plan.asks >= 0.5:
        print(f"  about {count(round(plan.asks))} questions to people")
    each = "" if plan.live_seconds is None else f", {duration(plan.sample_seconds)} of work each"
    note(f"judged by {plan.source}{each}; repairs, retries and other turns may differ")
    if plan.unpriced:
        note(f"no price is known for {', '.join(plan.unpriced)}")
    for text in plan.notes:
        note(text)
