"""Budgets as they are written and shown."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..core.budget import account_of, in_words, owner
from ..model.budget import NANO, STORE, Account, Budget, Standing
from ..model.run import Head
from ..ports.store import Store
from .screen import count, note

_PART = re.compile(
    r"\$?(?P<usd>\d+(?:\.\d+)?) ?(?:usd)?|(?P<tokens>\d+(?:\.\d+)?)(?P<unit>[km]?) ?tok(?:ens)?"
)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
#: More than so many budgets aren't listed unless they are asked for.
MOST = 20


def declare_budget(parser: argparse.ArgumentParser, what: str) -> None:
    """`--budget`."""
    parser.add_argument("--budget", type=as_budget, default=None, metavar="LIMIT", help=what)


def as_budget(text: str) -> Budget:
    """`5` or `$5` in US dollars, `100000tok` or `100ktok`, or both with a comma."""
    found: dict[str, Any] = {}
    for part in text.lower().split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no budget: write it as 5 or 0.50 (US dollars), 100000tok, or 5,100ktok"
            )
        if match["usd"] is not None:
            found["usd"] = float(match["usd"])
        else:
            found["tokens"] = round(float(match["tokens"]) * _UNITS[match["unit"]])
    try:
        return Budget(**found)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def accounts_of(heads: Iterable[Head]) -> list[Account]:
    """The budgets that runs are on."""
    return list({one.id: one for head in heads for one in head.spec.config.accounts}.values())


async def standings(store: Store, accounts: Sequence[Account]) -> list[Standing]:
    """How these stand, and those that nothing was reserved of yet."""
    if not accounts:
        return []
    known = {one.id: one for one in await store.budgets([account.id for account in accounts])}
    return [known.get(one.id) or Standing(one.id, one.limit) for one in accounts]


async def known(store: Store, job: str) -> list[Standing]:
    """The budgets of a job and of the engine, or without one all that there are."""
    return await store.budgets([f"job:{job}", STORE] if job else ())


async def listed(store: Store, heads: Sequence[Head], jobs: Iterable[str]) -> list[Standing]:
    """The budgets of the engine and of these jobs, and those that these runs are on or held for: no others are read."""
    on = [account.id for account in accounts_of(heads)]
    held = [account_of(head.reason) for head in heads]
    return await store.budgets([*{STORE, *on, *filter(None, held), *(f"job:{job}" for job in jobs)}])


def tell(found: Sequence[Standing]) -> None:
    """A line for each, the engine's first."""
    for one in sorted(found, key=lambda one: one.id != STORE)[:MOST]:
        note(f"budget of {owner(one.id)}: {words(one)}")
    if len(found) > MOST:
        note(f"and {count(len(found) - MOST)} more budgets; `segue receipt --json` lists all")


def words(one: Standing) -> str:
    """How it stands, and who waits for it."""
    calls = "call waits" if one.waiting == 1 else "calls wait"
    waiting = f", {count(one.waiting)} {calls} for room" if one.waiting else ""
    return in_words(one) + waiting


def as_plain(one: Standing) -> dict[str, Any]:
    """As JSON for programs, in US dollars and tokens."""
    limit = one.limit
    return {
        "id": one.id,
        "usd": None if limit.nanos is None else limit.nanos / NANO,
        "tokens": limit.tokens,
        "usd_spent": one.spent.nanos / NANO,
        "tokens_spent": one.spent.tokens,
        "usd_reserved": one.reserved.nanos / NANO,
        "tokens_reserved": one.reserved.tokens,
        "waiting": one.waiting,
    }
