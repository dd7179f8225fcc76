"""Ids of runs: new ones, and what was meant by one that isn't there."""

from __future__ import annotations

import os
import random
import shlex
from collections.abc import Iterable
from difflib import get_close_matches

from ...authoring.flow import Target, short_name
from ...model.errors import UnknownName
from ...ports.store import Store

#: So many ids are looked at, of those that begin alike and of the first ones: a store may have millions, and a service
#: is asked for what isn't there at any time.
LOOKS = 50
#: How much of an id is taken for well typed, to look for others that begin so.
BEGINNINGS = slice(-1), slice(-3), slice(3)

#: Seeded by the system, which is slow to ask each time; in a process that was forked, anew.
_numbers = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.seed)


def new_id(target: Target) -> str:
    """An id for a run of that. Among millions of runs another has it already: who creates one sees to that."""
    return f"{short_name(target)}-{_numbers.getrandbits(32):08x}"


async def unknown_run(store: Store, id: str) -> UnknownName:
    """The error for a run that isn't there."""
    if id and await store.get_job(id) is not None:
        cure = (
            f"that is a job: `segue runs --job {shlex.quote(id)}` lists its runs, and --job names it where a command "
            f"takes jobs"
        )
        return UnknownName("run", id, cure)
    known: list[str] = []
    for stem in (*(id[beginning] for beginning in BEGINNINGS), ""):
        known += await store.ids(after=stem, limit=LOOKS)
    return UnknownName("run", id, f"{meant(id, known)}`segue runs` lists those that are there")


async def unknown_ask(store: Store, id: str) -> UnknownName:
    """The error for a question that isn't there."""
    open_ones, _ = await store.asked(0, limit=LOOKS)
    known = [*(each.id for each in open_ones), *(each.run for each in open_ones)]
    its = next((each.id for each in open_ones if each.run == id), "")
    near = f"the run of that id asks {its!r}; " if its else meant(id, known)
    return UnknownName("ask", id, f"{near}`segue runs --asks` lists those that are open")


async def unknown_job(store: Store, id: str) -> UnknownName:
    """The error for a job that isn't there."""
    known = [job.id for job in await store.list_jobs()]
    return UnknownName("job", id, f"{meant(id, known)}`segue runs` lists them")


def meant(name: str, known: Iterable[str]) -> str:
    """`did you mean …? `, or nothing where no name is close: one that it begins, or that differs by little."""
    there = dict.fromkeys(known)
    begun = [each for each in there if name and each.startswith(name)]
    near = begun[:1] if len(begun) == 1 else get_close_matches(name, there, 1, 0.7)
    return f"did you mean {near[0]!r}? " if near else ""
