"""Runs that wait for a run that is held: nothing of them goes on before a person decides there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterable, Mapping

from ..core import journal
from ..model.errors import Damaged
from ..model.run import ENDED, Head
from ..ports.store import Store
from .calls.naming import line_id


async def held_beneath(store: Store, rows: AsyncIterable[Head]) -> dict[str, Head] | None:
    """Of each of these parked runs, the held one that it waits for; None if any may go on without a person there.

    That is one that waits for a time, a question or a batch too, or beneath which a run is at work or waits for
    anything else. Where that is so of the first ones, no more are looked at.
    """
    found: dict[str, Head] = {}
    async for row in rows:
        held = None if row.wake is not None else await _held(store, row, await _open_beneath(store, row))
        if held is None:
            return None
        found[row.id] = held
    return found


async def _open_beneath(store: Store, row: Head) -> Mapping[str, list[Head]]:
    """The runs that haven't ended of those that it started and awaits, and of theirs, by who started them."""
    children: dict[str, list[Head]] = defaultdict(list)
    beginning = after = f"{row.id}."  # a child's id begins with that of its parent
    limit = 10
    while after.startswith(beginning) and (heads := await store.runs(after=after, limit=limit)):
        after, limit = heads[-1].id, 1000
        for head in heads:
            if head.id.startswith(beginning) and head.spec.parent is not None and head.status not in ENDED:
                children[head.spec.parent.run].append(head)
    return children


async def _held(store: Store, run: Head, children: Mapping[str, list[Head]]) -> Head | None:
    """Itself, or the first run beneath it that is held, if nothing of it goes on by itself."""
    if run.status == "held":
        return run
    if run.status != "parked" or run.wake is not None or not children.get(run.id):
        return None
    found = [await _held(store, child, children) for child in children[run.id]]
    if None in found or await store.asks(run=run.id) or await _waits_for_more(store, run):
        return None
    return found[0]


async def _waits_for_more(store: Store, run: Head) -> bool:
    """Whether a batch may have it go on, or it doesn't even wait for a run."""
    loaded = await store.load(run.id)
    try:
        calls = [] if loaded is None else journal.open_calls(journal.read(loaded.journal))
    except Damaged:
        return False
    if run.spec.kind == "flow" and not any(call.kind in ("child", "join") for call in calls):
        return True
    lines = [line_id(run.id, call.opening) for call in calls if call.asks_model]
    return bool(lines and await store.open_lines(lines))


async def ancestors(store: Store, run: Head) -> list[str]:
    """The runs that wait for it, and for those."""
    found: list[str] = []
    above: Head | None = run
    while above is not None and above.spec.parent is not None and above.spec.parent.run not in found:
        found.append(above.spec.parent.run)
        above = await store.get(found[-1])
    return found
