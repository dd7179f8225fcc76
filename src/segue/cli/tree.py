"""`segue runs --tree`: runs under those that started them."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator

import msgspec

from ..authoring.actor.checkpoint import read_stored
from ..authoring.actor.supervised import SUPERVISED
from ..model.errors import Damaged
from ..model.run import Head
from ..ports.store import Store
from ..runtime.ground.names import unknown_run
from .runs import as_plain, what
from .screen import count, duration, note, put_json, table
from .waits import in_words

Children = dict[str, list[Head]]


async def show_tree(store: Store, args: argparse.Namespace) -> None:
    """The newest trees, or that of one run, down to `--limit` lines."""
    top = await store.get(args.tree) if args.tree else None
    if args.tree and top is None:
        raise await unknown_run(store, args.tree)
    tops, children = await _family(store, args.job)
    tops = _newest(tops, children, args.limit) if top is None else [top]
    found = [each for top in tops for each in _walk(top, children, 0)]
    rows = found[: args.limit or None]
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
    if len(rows) < len(found):
        note(f"and {count(len(found) - len(rows))} more below; --limit 0 shows all")


async def _family(store: Store, job: str) -> tuple[list[Head], Children]:
    """Runs that none which is there has started, of that job or of none, and those that each run has started; oldest
    first. Rows of other jobs, of which there may be hundreds of thousands, aren't kept."""
    there: set[str] = set()
    tops: list[Head] = []
    children: Children = defaultdict(list)
    after = ""
    while page := await store.runs(after=after, limit=1000):
        after = page[-1].id
        there.update(head.id for head in page)
        for head in page:
            if head.spec.parent is not None:
                children[head.spec.parent.run].append(head)
            elif head.spec.job == job:
                tops.append(head)
    for each in children.values():
        each.sort(key=lambda head: (head.spec.begun, head.spec.index, head.id))
    for run in children.keys() - there:
        tops += [head for head in children[run] if head.spec.job == job]
    tops.sort(key=lambda head: (head.spec.begun, head.spec.index, head.id))
    return tops, children


def _newest(tops: list[Head], children: Children, limit: int) -> list[Head]:
    """The newest of them, so many that they fill the screen."""
    if not limit:
        return tops
    lines = 0
    for n, top in enumerate(reversed(tops), 1):
        lines += sum(1 for _ in _walk(top, children, 0))
        if lines >= limit:
            return tops[-n:]
    return tops


def _walk(head: Head, children: Children, depth: int) -> Iterator[tuple[int, Head]]:
    below = [(depth, head)]
    while below:
        depth, head = below.pop()
        yield depth, head
        below += [(depth + 1, child) for child in reversed(children.get(head.id, ()))]


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
