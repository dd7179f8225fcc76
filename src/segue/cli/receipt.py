"""`segue receipt`: tokens and money."""

from __future__ import annotations

import argparse

import msgspec

from ..model.errors import InvalidValue
from ..model.run import REUSED
from ..runtime.engine import Engine
from ..runtime.family import spent
from ..runtime.ground.names import unknown_job
from ..runtime.receipt import Receipt, ReceiptLine
from . import budgets, exit
from .place import declare_store, to_look_at
from .screen import count, money, note, put_json, table


def declare_receipt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", nargs="?", default="", help="of one run, with those that it started (default: of all)"
    )
    parser.add_argument("--job", default="", help="of the runs of a job, with those that they started")
    parser.add_argument("--json", action="store_true", help="as JSON")
    declare_store(parser)


async def do_receipt(args: argparse.Namespace) -> int:
    if args.run and args.job:
        raise InvalidValue("segue receipt", "a run, or --job, or neither", "say one of them")
    async with Engine(to_look_at(args), worker=False) as engine:
        if args.run:
            found = await budgets.standings(engine.store, budgets.accounts_of([await engine.head(args.run)]))
        else:
            found = await budgets.known(engine.store, args.job)
        if args.job and await engine.store.get_job(args.job) is None:
            raise await unknown_job(engine.store, args.job)
        used = await spent(engine.store, run=args.run, job=args.job)
        receipt = engine.price(used.usage, used.unclaimed)
    if args.json:
        plain = msgspec.structs.asdict(receipt)
        put_json({**plain, "budgets": [budgets.as_plain(one) for one in found]} if found else plain)
    else:
        show(receipt)
        if used.beneath:
            these = "this run" if args.run else "its rows"
            note(f"with {count(used.beneath)} run{'s' if used.beneath > 1 else ''} that {these} started")
        budgets.tell(found)
    return exit.OK


def _table(receipt: Receipt) -> None:
    rows = [_row(line, line.lane, money(line.usd_if_live)) for line in receipt.lines]
    rows += [_row(line, f"{line.lane}, unclaimed", "") for line in receipt.unclaimed]
    columns = ("MODEL", "LANE", "CALLS", "TOKENS IN", "CACHED", "TOKENS OUT", "COST", "IF LIVE")
    table(columns, rows, right=",".join(columns[2:]))


def _row(line: ReceiptLine, lane: str, live: str) -> tuple[str, ...]:
    return (
        line.model,
        lane,
        count(line.calls),
        count(line.input_tokens),
        count(line.cached_tokens),
        count(line.output_tokens),
        money(line.usd),
        live,
    )


def show(receipt: Receipt) -> None:
    """A receipt for people."""
    if not receipt.lines and not receipt.unclaimed:
        note("no model was called")
        return
    _table(receipt)
    priced = len(receipt.unpriced) < len({line.model for line in receipt.lines})
    if priced:
        saved = receipt.usd_if_live - receipt.usd
        less = f", {money(saved)} less than live" if saved > 0 else ""
        print(f"total {money(receipt.usd)}{less}")
    reused = [line for line in receipt.lines if line.lane == REUSED]
    if reused:
        saved = sum(line.usd_if_live or 0.0 for line in reused)
        calls = count(sum(line.calls for line in reused))
        note(
            f"reused: {calls} calls were answered by what had been paid before; live they cost {money(saved)}"
        )
    if receipt.unclaimed:
        twice = count(sum(line.calls for line in receipt.unclaimed))
        cost = f", {money(receipt.usd_unclaimed)} of the total" if priced else ""
        note(f"unclaimed: {twice} answers that came second, to late calls, or to runs that had ended{cost}")
    if receipt.unpriced:
        note(
            f"no price is known for {', '.join(receipt.unpriced)}: {'they count' if priced else 'counted'} as nothing"
        )
