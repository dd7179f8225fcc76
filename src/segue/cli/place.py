"""Which store a command works on, and with what options runs are started."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from ..authoring.config import How
from ..model.errors import UnknownName
from ..ports.store import Store
from ..runtime.engine import Engine
from ..stores import open_store

DEFAULT = "sqlite:segue.db"


def declare_store(parser: argparse.ArgumentParser) -> None:
    """`--store`."""
    parser.add_argument(
        "--store",
        metavar="ADDRESS",
        default=os.environ.get("SEGUE_STORE") or DEFAULT,
        help="where runs live, such as sqlite:runs.db (default: $SEGUE_STORE, or sqlite:segue.db)",
    )


def declare_how(parser: argparse.ArgumentParser) -> None:
    """`--model`, `--live`, `--batch`."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="such as openai:gpt-5-mini or openai:NAME@http://127.0.0.1:8080/v1; given again, a fall-back",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--live", dest="mode", action="store_const", const="live", help="send model calls at once"
    )
    mode.add_argument(
        "--batch",
        dest="mode",
        action="store_const",
        const="batch",
        help="pool model calls, at half the price",
    )


def how(args: argparse.Namespace) -> How:
    """The options of `declare_how`, as a run is started with them."""
    options: How = {}
    if args.model:
        options["model"] = args.model
    if args.mode:
        options["mode"] = args.mode
    return options


def check_models(engine: Engine, args: argparse.Namespace) -> None:
    """Find out before the first run. Raises `UnknownName` or `MissingKey`."""
    for model in args.model:
        engine.models.endpoint(model)


def existing(address: str) -> str:
    """The address of a store that is there: a command that only looks makes none."""
    scheme, _, path = address.partition(":")
    if scheme == "sqlite" and not Path(path).exists():
        raise UnknownName(
            "store", address, "`segue run` and `segue map` make one; --store or $SEGUE_STORE says where it is"
        )
    return address


@asynccontextmanager
async def looking(args: argparse.Namespace) -> AsyncGenerator[Store]:
    """The store, to look at."""
    store = open_store(existing(args.store))
    await store.open()
    try:
        yield store
    finally:
        await store.close()
