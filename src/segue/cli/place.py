"""Which store a command works on, and with what options runs are started."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from ..authoring.config import How
from ..model.errors import InvalidValue, UnknownName
from ..model.mode import Batch
from ..ports.store import Store
from ..runtime.engine import Engine
from ..stores import open_store
from .budgets import declare_budget

DEFAULT = "sqlite:segue.db"
_PERIOD = re.compile(r"(\d+(?:\.\d+)?) ?([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def declare_store(parser: argparse.ArgumentParser) -> None:
    """`--store`."""
    parser.add_argument(
        "--store",
        metavar="ADDRESS",
        default=os.environ.get("SEGUE_STORE") or DEFAULT,
        help="where runs live, such as sqlite:runs.db (default: $SEGUE_STORE, or sqlite:segue.db)",
    )


def at_store(args: argparse.Namespace) -> list[str]:
    """The option that names the same store in another command, where it needs one."""
    return ["--store", args.store] if args.store != (os.environ.get("SEGUE_STORE") or DEFAULT) else []


def sweep(args: argparse.Namespace, *more: str) -> str:
    """The command that carries out what is ready in the same store, to be shown."""
    return f"`{shlex.join(['segue', 'advance', 'app.py', *more, *at_store(args)])}`"


def where(args: argparse.Namespace) -> str:
    """Where that which this command made ready goes on."""
    return f"in whatever works on this store, or with {sweep(args)}"


#: What to say of a run in a store that goes with this command.
GONE = "a store in memory is gone with this command; to go on later give a file, as --store sqlite:runs.db"


def is_kept(args: argparse.Namespace) -> bool:
    """Whether another command finds what this one leaves. Raises `InvalidValue` for one that is to leave at once."""
    kept: bool = args.store != "memory:"
    if not kept and args.no_wait:
        raise InvalidValue(
            "--store with --no-wait", "a file, as in sqlite:runs.db", "it is gone at once", "memory:"
        )
    return kept


def declare_how(parser: argparse.ArgumentParser) -> None:
    """`--model`, `--live`, `--batch`, `--deadline`, `--reuse`, `--budget`."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="such as openai:gpt-5-mini or openai:NAME@http://127.0.0.1:8080/v1; given again, a fall-back",
    )
    declare_tags(parser, "such as customer=acme, for finding runs again; may be given again")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--live", dest="mode", action="store_const", const="live", help="send model calls at once"
    )
    mode.add_argument(
        "--batch",
        dest="mode",
        action="store_const",
        const="batch",
        help="pool model calls, at half the price; as --batch=6h, what isn't back by then is sent live",
    )
    mode.add_argument("--batch-within", dest="mode", type=_batch, metavar="TIME", help=argparse.SUPPRESS)
    parser.add_argument(
        "--deadline",
        type=period,
        default=None,
        metavar="TIME",
        help="such as 6h or 90m: each model call goes the cheapest way that is in time; late ones are sent live",
    )
    reuse = parser.add_mutually_exclusive_group()
    reuse.add_argument(
        "--reuse",
        action="store_const",
        const=True,
        default=None,
        help="answer a request that was answered before by that; with a time, as --reuse=7d, if it is no older",
    )
    reuse.add_argument("--no-reuse", dest="reuse", action="store_const", const=False, help="ask anew")
    reuse.add_argument(
        "--reuse-within",
        dest="reuse",
        type=period,
        metavar="TIME",
        help=argparse.SUPPRESS,
    )
    declare_budget(parser, "such as 5 (US dollars) or 100000tok: what the model calls may cost in all")


def declare_tags(parser: argparse.ArgumentParser, about: str) -> None:
    """`--tag`."""
    parser.add_argument("--tag", action="append", type=_tag, default=[], metavar="NAME=VALUE", help=about)


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no tag: write it as NAME=VALUE")
    return name, value


def positive(text: str) -> int:
    """A number from 1."""
    if not text.strip().isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def from_zero(text: str) -> int:
    """A number from 0."""
    if not text.strip().isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return int(text)


def seconds(text: str) -> float:
    """Seconds, from 0."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 on")
    return found


def period(text: str) -> timedelta:
    """`90s`, `15m`, `6h` or `2d`."""
    found = _PERIOD.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write it as 90s, 15m, 6h or 2d")
    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is too long a time") from None


def _batch(text: str) -> Batch:
    """`--batch=6h`, which reaches the parser as `--batch-within=6h`."""
    return Batch(within=period(text), late="live")


def how(args: argparse.Namespace) -> How:
    """The options of `declare_how`, as a run is started with them."""
    options: How = {}
    if args.model:
        options["model"] = args.model
    if args.tag:
        options["tags"] = dict(args.tag)
    if args.mode:
        options["mode"] = args.mode
    if args.deadline is not None:
        options["deadline"] = args.deadline
    if args.reuse is not None:
        options["reuse"] = args.reuse
    if args.budget is not None:
        options["budget"] = args.budget
    return options


def check_models(engine: Engine, args: argparse.Namespace) -> None:
    """Find out before the first run. Raises `UnknownName` or `MissingKey`."""
    for model in args.model:
        engine.models.endpoint(model)


def is_new(address: str) -> bool:
    """Whether it is a file that isn't there yet."""
    scheme, _, path = address.partition(":")
    return scheme == "sqlite" and not Path(path).exists()


def existing(address: str) -> str:
    """The address of a store that is there: a command that only looks makes none."""
    if is_new(address):
        raise UnknownName(
            "store", address, "`segue run` and `segue map` make one; --store or $SEGUE_STORE says where it is"
        )
    return address


def to_look_at(args: argparse.Namespace) -> Store:
    """The store that is there, for what only looks: it needn't be writable."""
    return open_store(existing(args.store), look=True)


@asynccontextmanager
async def looking(args: argparse.Namespace) -> AsyncGenerator[Store]:
    """The store, to look at."""
    store = to_look_at(args)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
