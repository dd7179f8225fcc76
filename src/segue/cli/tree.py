"""`segue runs --tree`: runs under those that started them."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import msgspec

from ..authoring.actor.checkpoint import read_stored
from ..authoring.actor.supervised import SUPERVISED
from ..authoring.iterables import batched
from ..model.errors import Damaged
from ..model.run import Head
from ..ports.store import Store
from ..runtime.ground.listing import each_run
from ..runtime.ground.names import unknown_run
from .runs import as_plain, what
from .screen import duration, note, put_json, table
from .waits import in_words

#: So many trees are read at once.
SOME = 16

#: Each with its depth.
Lines = list[tuple[int, Head]]


async def show_tree(store: Store, args: argparse.Namespace) -> None:
    """The newest trees, or that of one run, down to `--limit` lines."""
    top = await store.get(args.tree) if args.tree else None
    if args.tree and top is None:
        raise await unknown_run(store, args.tree)
    room = args.limit or sys.maxsize
    rows, more = await (_trees(store, args.job, room) if top is None else _tree(store, top, room))
    restarts = {head.id: await _restarts(store, head) for _, head in rows}
    if args.json:
        for _, head in rows:
            parent = None if head.spec.parent is None else head.spec.parent.run
            put_json({**as_plain(head), "parent": parent, "restarts": restarts[head.id]})
        return
    if not rows:
        jobs = not args.job and await store.list_jobs()
        note("all runs are of jobs: with --job JOB, those of one" if jobs else "no runs are there yet")
        return
    now, waits_for = time.time(), await in_words(store, (head for _, head in rows))
    table(
        ("RUN", "STATUS", "FLOW", "RESTARTS", "AGE", "WHAT"),
        [
            (
                "  " * depth + head.id,
                head.status,
                _name(head),
                restarts[head.id] or "",
                duration(max(now - head.spec.begun, 0)),
                waits_for.get(head.id) or what(head),
            )
            for depth, head in rows
        ],
        right="RESTARTS",
    )
    if more:
        note("and more below; --limit 0 shows all")


async def _trees(store: Store, job: str, room: int) -> tuple[Lines, bool]:
    """Those of the newest runs of that job, or of none, that none which is there has started; the oldest first."""
    trees: list[Lines] = []
    more = False
    async for heads in batched(each_run(store, job=job, page=min(room, 1000)), min(room, SOME)):
        found = await asyncio.gather(*(_tree(store, head, room) for head in heads))
        for head, (tree, cut) in zip(heads, found, strict=True):
            if len(tree) > room:
                tree, cut = await _tree(store, head, room)
            trees.append(tree)
            room, more = room - len(tree), more or cut
            if not room:
                break
        if not room:
            break
    return [line for tree in reversed(trees) for line in tree], more


async def _tree(store: Store, top: Head, room: int) -> tuple[Lines, bool]:
    """A run, and beneath each the newest that it has started, the oldest of them first; whether there are more."""
    lines: Lines = []
    more, below = False, [(0, top)]
    while below and room:
        depth, head = below.pop()
        lines.append((depth, head))
        room, left = room - 1, room - 1
        async for child in each_run(store, parent=head.id, page=min(left + 1, 1000)):
            if not left:
                more = True
                break
            below.append((depth + 1, child))
            left -= 1
    return lines, more or bool(below)


def _name(head: Head) -> str:
    """What it runs: of a supervised flow that, not the actor that does."""
    if head.spec.target != SUPERVISED.name:
        return head.spec.target
    return str(msgspec.json.decode(head.spec.args)["target"])


async def _restarts(store: Store, head: Head) -> int:
    """How often it has begun anew."""
    if not head.spec.supervised:
        return 0
    stored = await store.load(head.id)
    if stored is None or stored.checkpoint is None:
        return 0
    try:
        return read_stored(stored.checkpoint, stored.deltas).lives
    except Damaged:
        return 0  # `segue show` says so
