"""Runs and jobs that are over, removed with all beneath them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from ..core.codec import encode
from ..model.errors import Conflict, UnknownName
from ..model.run import ENDED, Head
from ..ports.store import Store
from .family import family
from .wake.rebase import entries_of, standing_of

#: So many go in one transaction: others write in between.
PORTION: Final = 500


async def remove_run(store: Store, head: Head, *, dry: bool) -> int:
    """A run with all that it started; how many went. Raises `Conflict` where one can't go: then none has."""
    if head.spec.job:
        raise Conflict(f"run {head.id!r} is a row of job {head.spec.job!r}: a job is removed as a whole")
    above = await _above(store, head)
    if above is not None and above.status in ENDED and head.id.startswith(f"{above.id}."):
        raise Conflict(f"run {head.id!r} was started by run {above.id!r}: it is removed together with that")
    if above is not None and above.status not in ENDED and not await _is_let_go(store, head, above):
        raise Conflict(
            f"run {head.id!r} was started by run {above.id!r}, which isn't over: let that end first"
        )
    return await _remove_all(store, family(store, run=head.id), dry)


async def remove_job(store: Store, job: str, *, dry: bool) -> int:
    """A job with all that its rows started; how many runs went. Raises `Conflict` where one can't go: then none has."""
    if await store.get_job(job) is None:
        raise UnknownName("job", job, "see `segue runs`")
    removed = await _remove_all(store, family(store, job=job), dry)
    if not dry and not await store.remove_job(job):
        raise Conflict(f"rows of job {job!r} have come meanwhile: remove it again once they are over")
    return removed


async def remove_old(store: Store, before: float, *, dry: bool) -> int:
    """Jobs and runs that were over by then, each with all beneath or not at all; how many runs went."""
    removed = 0
    some: list[_Old] = []
    async for old in _all_old(store, before):
        some.append(old)
        if sum(len(old.ids) for old in some) >= PORTION:
            removed += await _remove_some(store, some, dry)
            some = []
    return removed + await _remove_some(store, some, dry)


class _Old(NamedTuple):
    """What goes together; of a job, or of none. `under`: the run that goes on and has to have done with the first."""

    ids: list[str]
    job: str = ""
    under: str = ""


async def _all_old(store: Store, before: float) -> AsyncIterator[_Old]:
    for job in await store.list_jobs():
        ids = await _if_over(family(store, job=job.id), before)
        if ids is not None and job.created <= before:
            yield _Old(ids, job.id)
    async for old in _old_families(store, before):
        yield old


async def _remove_some(store: Store, some: Sequence[_Old], dry: bool) -> int:
    staying = await _staying(store, [id for old in some for id in old.ids])
    for under in {old.under for old in some if old.under}:
        tops = [old.ids[0] for old in some if old.under == under]
        staying.update(set(tops) - await _let_go(store, tops, under))
    going = [old for old in some if staying.isdisjoint(old.ids)]
    removed = await _remove(store, [id for old in going for id in old.ids], dry)
    for old in going if not dry else ():
        if old.job:
            await store.remove_job(old.job)
    return removed


async def _remove_all(store: Store, runs: AsyncIterator[Head], dry: bool) -> int:
    ids: list[str] = []
    async for head in runs:
        if head.status not in ENDED:
            raise Conflict(f"run {head.id!r} isn't over, it is {head.status}: let it end, or cancel it first")
        ids.append(head.id)
    if staying := await _staying(store, ids):
        raise Conflict(
            f"a model call of run {min(staying)!r} is in a job at its provider, and may be paid: remove it once that "
            "job is over and fetched, as `segue advance` does"
        )
    return await _remove(store, ids, dry)


async def _staying(store: Store, ids: Sequence[str]) -> set[str]:
    """Those of these that can't go."""
    staying: set[str] = set()
    for start in range(0, len(ids), PORTION):
        some = ids[start : start + PORTION]
        staying.update(id for id, goes in zip(some, await store.removable(some), strict=True) if not goes)
    return staying


async def _remove(store: Store, ids: Sequence[str], dry: bool) -> int:
    """How many went. Those beneath go first, so that the top can be found for as long as one is there."""
    if dry:
        return len(ids)
    removed, last = 0, ids[::-1]
    for start in range(0, len(last), PORTION):
        gone = await store.remove(last[start : start + PORTION])
        removed += sum(gone)
        if not all(gone):
            raise Conflict(
                f"run {last[start + gone.index(False)]!r} was taken up meanwhile: remove it once it is over"
            )
    return removed


async def _if_over(runs: AsyncIterator[Head], before: float) -> list[str] | None:
    """Their ids, if all were over by then."""
    ids: list[str] = []
    async for head in runs:
        if not _is_over(head, before):
            return None
        ids.append(head.id)
    return ids


def _is_over(head: Head, before: float) -> bool:
    return head.status in ENDED and head.updated <= before


class _Family:
    """A run of no job with those beneath it, as far as they have come by. `ids`: whether each goes on."""

    def __init__(self, top: str, under: str = "") -> None:
        self.top, self.under, self.ids, self.goes = top, under, dict[str, bool](), True

    def take(self, head: Head, before: float) -> None:
        self.ids[head.id] = head.status not in ENDED
        self.goes = self.goes and _is_over(head, before)

    def old(self) -> _Old:
        return _Old(list(self.ids), under=self.under)


async def _old_families(store: Store, before: float) -> AsyncIterator[_Old]:
    """Families that were over by then. Runs come by in order of their ids, which begin with that of their top."""
    near: list[_Family] = []  # those of which there may be more
    async for head in family(store):
        while near and not head.id.startswith(near[-1].top):
            if (past := near.pop()).goes:
                yield past.old()
        parent = head.spec.parent
        own = next((one for one in reversed(near) if parent is not None and parent.run in one.ids), None)
        if own is None:
            own, above = _Family(head.id), await _above(store, head)
            if above is not None and above.status not in ENDED and head.spec.supervised:
                own.under = above.id
            own.goes = not head.spec.job and (above is None or bool(own.under) or _is_over(above, before))
            near.append(own)
        elif parent is not None and own.ids[parent.run] and head.spec.supervised:
            own = _Family(head.id, parent.run)
            near.append(own)
        own.take(head, before)
    for one in near:
        if one.goes:
            yield one.old()


async def _let_go(store: Store, ids: Sequence[str], supervisor: str) -> set[str]:
    """Those of these, which have ended, that their supervisor has heard of and will ask no more about.

    What its turn in hand has spawned stays: it is in its journal, and may not be among its children yet.
    """
    spawned = {entry.value for entry in await entries_of(store, supervisor) if entry.kind == "spawn"}
    standing = await standing_of(store, supervisor)  # after its journal: a turn may end between
    children = set() if standing is None else {child.id for child in standing.children}
    return {id for id in ids if id not in children and encode(id) not in spawned}


async def _is_let_go(store: Store, head: Head, above: Head) -> bool:
    return bool(head.spec.supervised and head.status in ENDED and await _let_go(store, [head.id], above.id))


async def _above(store: Store, head: Head) -> Head | None:
    """The run that started it, if that is there."""
    return None if head.spec.parent is None else await store.get(head.spec.parent.run)
