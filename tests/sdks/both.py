"""Running a flow live and in batch, parked at every commit and replayed, and comparing what they did."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec

import segue
from segue.core import journal
from segue.model.entry import Entry
from segue.runtime.wake.rebase import entries_of
from segue.testing.simulator import Simulator

PATIENCE = 40.0
SERVERS = ("system_fingerprint", "service_tier")
#: What a provider makes up for each answer, and when it did.
_IDS = re.compile(
    rb"(?:chatcmpl-|call_|msg_|toolu_|resp_|rs_|fc_|req_|gen_|[a-z]+-)?[0-9a-f]{24}(?:_\d+)?|pyd_ai_\w+"
)
_TIMES = re.compile(rb'"(created|created_at|completed_at|createTime)":"?[\d.:TZ-]+"?')


@asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[Simulator]:
    """A provider whose batches are done in a moment."""
    async with Simulator(batch_time=timedelta(milliseconds=20), **options) as sim:
        yield sim


async def run(call: Callable[[], Any], mode: str, **options: Any) -> tuple[Any, list[Entry]]:
    """A flow's result and journal; its replay is compared."""
    async with segue.Engine("memory:", mode=mode, verify=True, **options) as engine:
        started = await engine.start(call(), id="r")
        async with asyncio.timeout(PATIENCE):
            value = await started
        return value, await entries_of(engine.store, "r")


async def both(call: Callable[[], Any]) -> Any:
    """The result of a flow that is the same live and in batch, left and taken up at every commit, call by call."""
    live, journal_live = await run(call, "live")
    batch, journal_batch = await run(call, "batch")
    parked, journal_parked = await run(call, "live", park="always")
    assert live == batch == parked
    shown = told(journal_live)
    assert told(journal_batch) == shown
    assert told(journal_parked) == shown
    assert any(kind == "http" for _, _, kind, *_ in shown)
    return live


def told(entries: list[Entry]) -> list[tuple[Any, ...]]:
    """A journal path by path, with what a provider makes up alike."""
    names: dict[bytes, bytes] = {}

    def alike(data: bytes | None) -> Any:
        data = _TIMES.sub(rb'"\1":0', data or b"null")
        named = _IDS.sub(lambda found: names.setdefault(found[0], b"id-%d" % len(names)), data)
        return lean(msgspec.json.decode(named))

    merged = sorted(
        (entry for entry in journal.merged(entries) if not entry.made), key=lambda each: (each.path, each.n)
    )
    return [
        (each.path, each.n, each.kind, each.name, alike(each.args), alike(each.value), failed(each))
        for each in merged
    ]


def failed(entry: Entry) -> str:
    """An error without the provider's code for it: some have other ones in batches."""
    return "" if entry.error is None else re.sub(r"(\(HTTP \d+), \w+\)", r"\1)", entry.error.message)


def lean(value: Any) -> Any:
    """JSON without what is null, which a stream doesn't tell of, and which of the provider's servers answered."""
    if isinstance(value, dict):
        return {k: lean(each) for k, each in value.items() if each is not None and k not in SERVERS}
    return [lean(each) for each in value] if isinstance(value, list) else value
