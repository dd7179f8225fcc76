"""`segue compare`: two jobs, or a job and its labels: how far they agree, and what each cost."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import msgspec

from ..model.errors import Conflict
from ..runtime.engine import Engine
from ..runtime.receipt import Receipt
from . import exit
from .agreement import Agreement, Difference, Share, as_text
from .outcomes import check_writable, replacing
from .place import declare_store, from_zero, to_look_at
from .screen import count, duration, money, note, put_json, short, table
from .sides import Side, merged, side_of


class SideReport(msgspec.Struct, omit_defaults=True):
    """One side. `seconds` are from the row's admission to its run's end; None of labels, and of forks."""

    name: str
    rows: int
    done: int
    failed: int
    open: int
    causes: dict[str, int] = {}
    seconds_median: float | None = None
    seconds_95: float | None = None
    receipt: Receipt | None = None


class ShareReport(msgspec.Struct):
    """`likely`: between which shares it is likely to lie of more such rows, 95 times in 100."""

    equal: int
    rows: int
    share: float | None
    likely: tuple[float, float] | None


class Comparison(msgspec.Struct):
    """What `segue compare --json` prints."""

    a: SideReport
    b: SideReport
    only_a: int
    only_b: int
    no_value_a: int
    no_value_b: int
    agreement: ShareReport
    fields: dict[str, ShareReport]
    kinds: list[tuple[str, str, str, int]]
    differences: list[Difference]


def declare_compare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare two jobs row by row, or a job with labels: agreement, cost, time, failures, and where they\n"
        "differ. Rows are matched by key. A file of labels has a line a row, an object with its `key` and `value`,\n"
        "or with the fields that are labelled; the output of `segue map` is one."
    )
    parser.add_argument("a", metavar="JOB", help="a job, as `segue runs` lists them")
    parser.add_argument("b", metavar="JOB|FILE", help="another one, or a JSONL, CSV or TSV file of labels")
    parser.add_argument(
        "--by", default="", metavar="FIELD", help="match rows by this field of their input, or label"
    )
    parser.add_argument(
        "--limit", type=from_zero, default=10, metavar="N", help="differences to show (default: 10)"
    )
    parser.add_argument(
        "-o", "--output", default="", metavar="FILE", help="all differences, a JSON line each"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    declare_store(parser)


async def do_compare(args: argparse.Namespace) -> int:
    check_writable(args.output, args.a, args.b, args.store)
    async with Engine(to_look_at(args), worker=False) as engine:
        a, b = await side_of(engine.store, args.a, args.by), await side_of(engine.store, args.b, args.by)
        if a.is_labels and not b.is_labels:
            a, b = b, a
        agreement = Agreement(labels=b.is_labels)
        shown = await _pass(args, a, b, agreement)
        if not agreement.rows and a.rows and b.rows and agreement.only_a == a.rows:
            raise Conflict(
                f"no row of {a.name!r} has a key that one of {b.name!r} has; --by FIELD matches them by a field"
            )
        comparison = _report(engine, a, b, agreement, shown)
    if args.json:
        put_json(comparison)
    else:
        _show(comparison, labels=b.is_labels, differing=agreement.rows - agreement.equal, output=args.output)
    return exit.OK


async def _pass(args: argparse.Namespace, a: Side, b: Side, agreement: Agreement) -> list[Difference]:
    """Have all rows pass; the first differences."""
    first: list[Difference] = []
    with replacing(args.output) if args.output else contextlib.nullcontext() as file:
        async for one, other in merged(a, b):
            difference = agreement.add(one, other)
            if difference is None:
                continue
            if len(first) < args.limit:
                first.append(difference)
            if file is not None:
                file.write(msgspec.json.encode(difference) + b"\n")
    return first


def _report(engine: Engine, a: Side, b: Side, agreement: Agreement, shown: list[Difference]) -> Comparison:
    return Comparison(
        _side(engine, a),
        _side(engine, b),
        agreement.only_a,
        agreement.only_b,
        agreement.no_value_a,
        agreement.no_value_b,
        _share(agreement.equal, agreement.rows),
        {name: _share(*tally) for name, tally in agreement.fields.items()},
        [(*kind, number) for kind, number in agreement.kinds.most_common(10)],
        shown,
    )


def _share(equal: int, rows: int) -> ShareReport:
    share = Share(equal, rows)
    return ShareReport(equal, rows, share.share, share.likely)


def _side(engine: Engine, side: Side) -> SideReport:
    return SideReport(
        side.name,
        side.rows,
        side.done,
        side.failed,
        side.open,
        dict(side.causes),
        side.times.at(0.5),
        side.times.at(0.95),
        engine.price(side.usage) if side.usage else None,
    )


# ---------------------------------------------------------------- for people
def _show(comparison: Comparison, *, labels: bool, differing: int, output: str) -> None:
    sides = [comparison.a] if labels else [comparison.a, comparison.b]
    columns = (
        "",
        "ROWS",
        "DONE",
        "FAILED",
        "OPEN",
        "MEDIAN",
        "95 %",
        "TOKENS IN",
        "TOKENS OUT",
        "COST",
        "IF LIVE",
    )
    table(columns, [_row(side) for side in sides], right=",".join(columns[1:]))
    for side in sides:
        for cause, number in side.causes.items():
            note(f"  {side.name}: {count(number)} × {cause}")
    print()
    word = "accuracy" if labels else "agreement"
    print(f"{word} {_percent(comparison.agreement)}")
    for name, share in comparison.fields.items():
        print(f"  {name}: {_percent(share)}")
    _left_out(comparison)
    if comparison.kinds and comparison.kinds[0][3] > 1:
        print()
        rows = [
            (name, one, other, count(number)) for name, one, other, number in comparison.kinds if number > 1
        ]
        table(("FIELD", "FIRST", "SECOND", "TIMES"), rows, right="TIMES")
    if comparison.differences:
        print()
        table(("KEY", "FIRST", "SECOND"), map(_difference, comparison.differences))
    if differing > len(comparison.differences):
        where = f"; all are in {output}" if output else "; -o FILE writes all"
        note(f"{count(differing)} rows differ, {count(len(comparison.differences))} are shown{where}")


def _row(side: SideReport) -> tuple[str, ...]:
    receipt = side.receipt
    lines = receipt.lines if receipt is not None else []
    priced = receipt is not None and len(receipt.unpriced) < len({line.model for line in lines})
    return (
        side.name,
        count(side.rows),
        count(side.done),
        count(side.failed),
        count(side.open),
        "" if side.seconds_median is None else duration(side.seconds_median),
        "" if side.seconds_95 is None else duration(side.seconds_95),
        count(sum(line.input_tokens for line in lines)),
        count(sum(line.output_tokens for line in lines)),
        money(receipt.usd) if receipt is not None and priced else "?" if lines else money(0.0),
        money(receipt.usd_if_live) if receipt is not None and priced else "?" if lines else money(0.0),
    )


def _percent(share: ShareReport) -> str:
    if share.share is None or share.likely is None:
        return "?: no row has a value on both sides"
    low, high = share.likely
    of = f"{count(share.equal)} of {count(share.rows)}"
    return f"{share.share:.1%} ({of}; of more such rows, likely {low:.1%} to {high:.1%})"


def _left_out(comparison: Comparison) -> None:
    for number, what in (
        (comparison.only_a, f"only in {comparison.a.name}"),
        (comparison.only_b, f"only in {comparison.b.name}"),
        (comparison.no_value_a, f"without a value in {comparison.a.name}"),
        (comparison.no_value_b, f"without a value in {comparison.b.name}"),
    ):
        if number:
            note(f"not compared: {count(number)} {what}")


def _difference(difference: Difference) -> tuple[str, str, str]:
    def of(value: Any) -> str:
        if not difference.fields:
            return short(as_text(value), 60)
        return short(", ".join(f"{name}: {as_text(value.get(name))}" for name in difference.fields), 60)

    return difference.key, of(difference.a), of(difference.b)
