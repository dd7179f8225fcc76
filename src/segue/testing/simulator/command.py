"""The simulator as a program."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from segue.model.errors import InvalidValue

from .chaos import KINDS, Chaos
from .clock import SystemClock
from .compatible import PLAYS
from .processor import Limits
from .server import Simulator

__all__ = ["add_arguments", "main", "serve"]


async def serve(
    host: str = "127.0.0.1", port: int = 0, *, replies: str = "", faults: Iterable[str] = (), **options: Any
) -> None:
    """Serve until SIGTERM or SIGINT; the options are those of `Simulator`.

    Prints one line with the base URL as soon as it listens. Raises `InvalidValue`.
    """
    simulator = Simulator(host=host, port=port, **options)
    for order in faults:
        simulator.faults.order(order)
    if replies:
        simulator.load(replies)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with simulator:
            print(simulator.base_url, flush=True)  # noqa: T201 - what a caller waits for
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `main` reads."""
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="where to listen")
    where.add_argument("--port", type=_port, default=0, help="0 takes a free one")
    where.add_argument("--key", help="the API key that clients must have")
    where.add_argument("--dir", dest="directory", help="keep files, batches and ledger here, over a restart")
    where.add_argument(
        "--ledger", metavar="FILE", help="append each paid or refused request to this JSONL file"
    )
    said = parser.add_argument_group("what is said")
    said.add_argument(
        "--replies", default="", metavar="FILE", help='JSONL: {"when": TEXT, "reply": VALUE} a line'
    )
    said.add_argument("--upstream", metavar="URL", help="a server that answers chat requests, its /v1")
    said.add_argument("--upstream-key", metavar="KEY", help="the API key for it")
    said.add_argument(
        "--model", action="append", default=[], dest="models", help="a known model; without, all are"
    )
    said.add_argument(
        "--plays",
        choices=PLAYS,
        default="openai",
        metavar="NAME",
        help=f"whose differences OpenAI's protocol has: {', '.join(PLAYS)}",
    )
    said.add_argument("--seed", type=int, default=0, help="of ids, of the order of results, and of chaos")
    _add_times(parser.add_argument_group("when"))
    _add_limits(parser.add_argument_group("limits"))
    wrong = parser.add_argument_group("what goes wrong")
    wrong.add_argument(
        "--fault",
        action="append",
        default=[],
        dest="faults",
        metavar="FAULT",
        help="a call of a method of Faults: drop_line, 'fail(3, status=429)'; also taken by POST /_faults",
    )
    wrong.add_argument("--chaos", type=float, default=0.0, metavar="RATE", help="faults drawn from the seed")
    wrong.add_argument("--chaos-kinds", type=_kinds, metavar="KIND,…", help=f"of {', '.join(KINDS)}")


def _add_times(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch-time", type=_seconds, default=_seconds("2"), metavar="SECONDS", help="of a whole batch"
    )
    group.add_argument("--window", type=_seconds, metavar="SECONDS", help="batches expire after this")
    group.add_argument(
        "--latency", type=_seconds, default=_seconds("0"), metavar="SECONDS", help="of a live call"
    )
    group.add_argument(
        "--speed", type=float, default=1.0, metavar="FACTOR", help="time passes so much faster"
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--concurrency", type=int, default=8, help="batch lines at work at once")
    group.add_argument("--max-lines", type=int, default=Limits().lines, metavar="N", help="of a batch")
    group.add_argument("--enqueued-tokens", type=int, metavar="N", help="of one model in batches")
    group.add_argument("--at-once", type=int, metavar="N", help="live calls")
    group.add_argument("--a-minute", type=int, metavar="N", help="live calls")


async def main(args: argparse.Namespace) -> None:
    """Serve what the arguments say. Raises `InvalidValue`."""
    given = vars(args)
    if args.chaos_kinds is not None and not args.chaos:
        raise InvalidValue("--chaos-kinds", "--chaos RATE beside it", "without it nothing goes wrong")
    of_simulator = ("upstream", "upstream_key", "models", "key", "batch_time", "window", "latency", "plays")
    kept = ("concurrency", "directory", "ledger", "seed", "host", "port", "replies", "faults")
    await serve(
        clock=SystemClock(args.speed),
        limits=Limits(
            lines=args.max_lines,
            enqueued_tokens=args.enqueued_tokens,
            at_once=args.at_once,
            a_minute=args.a_minute,
        ),
        chaos=Chaos(args.chaos, seed=args.seed, kinds=args.chaos_kinds or KINDS),
        **{name: given[name] for name in (*of_simulator, *kept)},
    )


def _seconds(text: str) -> timedelta:
    try:
        time = timedelta(seconds=float(text))
    except (ValueError, OverflowError):  # no number, none that is finite, or more than there is
        time = timedelta(-1)
    if time < timedelta(0):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, 0 or more")
    return time


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no port: they go from 0, which takes a free one, to 65535"
        )
    return int(text)


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
