"""A run with all that it started, and theirs; a job with what its rows started.

Such runs are found by their ids, which begin with that of the run that started them. One that was started under an id
of its own stands by itself, and may be another's as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from ..core.replay import Place
from ..model.run import Head, Usage
from ..ports.store import Store
from .receipt import total


class Spent(msgspec.Struct):
    """What a family's model calls used. `beneath`: how many of its runs others of it started."""

    usage: list[Usage] = []
    unclaimed: list[Usage] = []
    beneath: int = 0


async def spent(store: Store, *, run: str = "", job: str = "") -> Spent:
    """The use of a run or of a job, with all beneath; without either, of all runs."""
    found = Spent(unclaimed=await store.unclaimed(run=run, job=job))
    lost = bool(
        (run or job) and await store.unclaimed()
    )  # seldom any: then each run beneath is asked for its own
    page: list[Usage] = []
    async for head in family(store, run=run, job=job):
        page += head.usage
        if len(page) >= 1000:
            page = total(page)
        if (run or job) and head.id != run and not (job and head.spec.job == job):
            found.beneath += 1
            if lost:
                found.unclaimed += await store.unclaimed(run=head.id)
    found.usage = total(page)
    return found


async def beneath(store: Store, run: str) -> dict[Place, list[Usage]]:
    """What the runs used that a run started, with theirs, by the place of the call that started them."""
    found: dict[Place, list[Usage]] = {}
    places: dict[str, Place] = {}
    async for head in family(store, run=run):
        parent = head.spec.parent
        if head.id == run or parent is None:
            continue
        place = (parent.path, parent.n) if parent.run == run else places[parent.run]
        places[head.id] = place
        found.setdefault(place, []).extend(head.usage)
    return found


async def rows(store: Store, job: str) -> AsyncIterator[Head]:
    """The rows of a job, in order of their ids."""
    async for head in family(store, job=job):
        if head.spec.job == job:
            yield head


async def family(store: Store, *, run: str = "", job: str = "") -> AsyncIterator[Head]:
    """The runs of a family in order of their ids, which is that of a run before all beneath it."""
    if run:
        top = await store.get(run)
        if top is not None:
            yield top
    after = stem = f"{run}." if run else f"{job}/" if job else ""
    line = [run] if run else []  # those of the family of which the next one may be a descendant
    limit = 10  # most have no children, and those that come after it are others, with all that they gave
    while heads := await store.runs(after=after, limit=limit):
        for head in heads:
            if not head.id.startswith(stem):
                return
            if not stem:
                yield head
                continue
            while line and not head.id.startswith(line[-1]):
                line.pop()
            parent = head.spec.parent
            if (job and head.spec.job == job) or (parent is not None and parent.run in line):
                line.append(head.id)
                yield head
        after, limit = heads[-1].id, 1000
