"""The simulator as a program."""

from __future__ import annotations

import argparse
import asyncio
import signal
from datetime import timedelta
from typing import Any

from .compatible import PLAYS
from .server import Simulator

__all__ = ["add_arguments", "main", "serve"]


async def serve(host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT; the options are those of `Simulator`.

    Prints one line with the base URL as soon as it listens.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Simulator(host=host, port=port, **options) as simulator:
            print(simulator.base_url, flush=True)  # noqa: T201 - what a caller waits for
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `main` reads."""
    parser.add_argument("--host", default="127.0.0.1", help="where to listen")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--upstream", metavar="URL", help="a server that answers chat requests, its /v1")
    parser.add_argument("--upstream-key", metavar="KEY", help="the API key for it")
    parser.add_argument(
        "--model", action="append", default=[], dest="models", help="a known model; without, all are"
    )
    parser.add_argument("--key", help="the API key that clients must have")
    parser.add_argument(
        "--batch-time", type=_seconds, default=_seconds("2"), metavar="SECONDS", help="of a whole batch"
    )
    parser.add_argument("--window", type=_seconds, metavar="SECONDS", help="batches expire after this")
    parser.add_argument(
        "--latency", type=_seconds, default=_seconds("0"), metavar="SECONDS", help="of a live call"
    )
    parser.add_argument(
        "--plays", choices=PLAYS, default="openai", help="whose differences OpenAI's protocol has"
    )
    parser.add_argument("--concurrency", type=int, default=8, help="batch lines at work at once")
    parser.add_argument("--dir", dest="directory", help="keep files, batches and ledger here")
    parser.add_argument(
        "--ledger", metavar="FILE", help="append each paid or refused request to this JSONL file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of ids and of the order of results")


async def main(args: argparse.Namespace) -> None:
    """Serve what the arguments say."""
    wanted = (
        "host",
        "port",
        "upstream",
        "upstream_key",
        "models",
        "key",
        "batch_time",
        "window",
        "latency",
        "plays",
    )
    await serve(
        **{name: getattr(args, name) for name in (*wanted, "concurrency", "directory", "ledger", "seed")}
    )


def _seconds(text: str) -> timedelta:
    return timedelta(seconds=float(text))
