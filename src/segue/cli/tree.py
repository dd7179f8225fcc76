"""`segue runs --tree`: runs under those that started them."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping

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
    if args.tree and await store.get(args.tree) is None:
        raise await unknown_run(store, args.tree)
    heads, children = await _family(store)
    if args.tree:
        tops = [heads[args.tree]]
    else:
        tops = _newest_tops(heads, children, args.job, args.limit)
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


async def _family(store: Store) -> tuple[dict[str, Head], Children]:
    """Runs by id, and those that each has started, oldest first."""
    heads: dict[str, Head] = {}
    after = ""
    while page := await store.runs(after=after, limit=1000):
        after = page[-1].id
        heads |= {head.id: head for head in page}
    children: Children = defaultdict(list)
    for head in heads.values():
        if head.spec.parent is not None:
            children[head.spec.parent.run].append(head)
    for each in children.values():
        each.sort(key=lambda head: (head.spec.begun, head.spec.index, head.id))
    return heads, children


def _newest_tops(heads: Mapping[str, Head], children: Children, job: str, limit: int) -> list[Head]:
    """Runs that none which is there has started, of that job or of none, oldest first; so many that they fill the
    screen."""
    tops = [
        head
        for head in heads.values()
        if (head.spec.parent is None or head.spec.parent.run not in heads) and head.spec.job == job
    ]
    tops.sort(key=lambda head: (head.spec.begun, head.spec.index))
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
