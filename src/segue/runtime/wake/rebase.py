"""Going on under changed code, or along another way: held runs resumed, runs forked."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from ...authoring.actor.checkpoint import read_stored
from ...core import journal
from ...core.codec import encode
from ...core.pool import Pooled
from ...model.entry import Entry, Pool, decode_pool, encode_pool
from ...model.errors import Conflict, UnknownName
from ...model.mode import Config
from ...model.run import Head, Spec
from ...ports.store import Claimed, Store
from ..calls.trying import KEY_REFUSED
from ..ground.names import unknown_run

#: Added to the number of a paid call whose place another one has taken.
_ELSEWHERE = 1 << 32


async def entries_of(store: Store, run: str) -> list[Entry]:
    """A run's journal since its checkpoint, large contents in place, each call once; in the order of the outcomes."""
    while True:
        loaded = await store.load(run)
        if loaded is None:
            raise await unknown_run(store, run)
        try:
            return await entries_in(store, loaded)
        except KeyError:  # a content went with a past that was dropped meanwhile: it has another journal now
            continue


async def entries_in(store: Store, loaded: Claimed) -> list[Entry]:
    """The same, of a run that was loaded. Raises `KeyError` for a content that isn't there any more."""
    entries = journal.read(loaded.journal)
    digests = journal.blobs_of(entries)
    contents = await store.get_blobs(digests) if digests else {}
    return journal.merged(journal.load_large(entries, contents))


async def resume(
    store: Store,
    head: Head,
    *,
    keep: bool,
    value: object = msgspec.UNSET,
    repeat: bool = False,
    config: Config | None = None,
    now: float,
) -> None:
    """Let a held, failed or cancelled run go on from its old journal.

    `keep`: calls are matched by place and name, whatever their arguments are now. Otherwise by name and
    arguments; what changed is called, and paid, anew. A failed call of a run that failed, or whose key was
    refused, is made anew either way. `value` is what came of the at-most-once step that was cut off, where someone
    knows. `repeat`: keyed and at-most-once steps whose arguments changed may be done again; else the run is held
    before one. `config` replaces the one that it was started with.
    """
    if head.status not in ("held", "failed", "cancelled"):
        raise Conflict(
            f"run {head.id!r} is {head.status}; only held, failed or cancelled ones can be resumed"
        )
    entries, spent = await _paid(store, head.id)
    if head.status == "failed" or head.reason.startswith(KEY_REFUSED):
        entries = [entry for entry in entries if entry.error is None]
    if keep and not repeat:
        _none_cut_off(head.id, entries)
    told = None if value is msgspec.UNSET else _told(head.id, entries, value)
    ended = await _ended_after(store, head) if head.status != "held" else None
    pool = Pool(entries, not keep, head.id, spent, repeat, told, ended)
    if not await store.revive(head.id, pool=encode_pool(pool), now=now, status=(head.status,), config=config):
        raise Conflict(f"run {head.id!r} changed meanwhile; look again")


async def _ended_after(store: Store, head: Head) -> int | None:
    """After how many turns an actor wrote down that it ends."""
    loaded = await store.load(head.id)
    if head.spec.kind != "actor" or loaded is None or loaded.checkpoint is None:
        return None
    stored = read_stored(loaded.checkpoint, loaded.deltas)
    return None if stored.end is None else stored.turns


async def _paid(store: Store, run: str) -> tuple[list[Entry], list[Entry]]:
    """All calls that a run has in its journal, or could still take from the one before; and those it couldn't."""
    entries = [entry for entry in await entries_of(store, run) if entry.kind not in ("cancel", "strike")]
    loaded = await store.load(run)
    if loaded is None or loaded.pool is None:
        return entries, []
    before = decode_pool(loaded.pool)
    pooled = Pooled(before)
    pooled.spend(entries)
    made = {(entry.path, entry.n) for entry in entries}
    for left in pooled.unused():
        if (left.path, left.n) not in made:
            entries.append(left)
        elif not left.made:
            entries.append(msgspec.structs.replace(left, n=left.n + _ELSEWHERE))
    return entries, before.spent


def _none_cut_off(run: str, entries: list[Entry]) -> None:
    """Nothing was kept of an at-most-once step that was cut off, and it mustn't be done again unasked."""
    cut = next((entry.name for entry in entries if entry.made and entry.kind == "step"), None)
    if cut is not None:
        raise Conflict(
            f"step {cut!r} of run {run!r} was cut off, so nothing of it can be kept: say what came of it (--value), "
            f"or have it done again (--rerun)"
        )


def _told(run: str, entries: list[Entry], value: object) -> bytes:
    """An outcome for the step that was cut off."""
    if not any(entry.made and entry.kind == "step" for entry in entries):
        raise Conflict(f"run {run!r} has no step that was cut off and so takes no value")
    return encode(value, where="the step's value")


async def check_forkable(store: Store, head: Head) -> None:
    """Raise `Conflict` for an actor that has done turns: what a fork would share of them is no journal any more."""
    loaded = await store.load(head.id)
    if loaded is None or loaded.checkpoint is None:
        return
    past = await store.history(head.id, rows=False)
    gone = f" ({past.dropped} commits of it were dropped, as its history= says)" if past.dropped else ""
    raise Conflict(
        f"run {head.id!r} is an actor, and its past{gone} is no journal that could be forked: "
        "start another one with the fields that it should have"
    )


def share(run: str, entries: list[Entry], before: str, edit: dict[str, Any], *, repeat: bool) -> Pool:
    """What a fork may take of a run's history."""
    shared = until(entries, before, edit)
    places = {(entry.path, entry.n) for entry in shared}
    spent = [
        msgspec.structs.replace(entry, args=b"", value=None, error=None)
        for entry in entries
        if entry.kind == "step" and (entry.path, entry.n) not in places
    ]
    return Pool(shared, True, run, spent, repeat)


def until(entries: list[Entry], before: str, edit: dict[str, Any]) -> list[Entry]:
    """The part of a history that a fork shares."""
    calls = {f"{entry.path}#{entry.n}": entry for entry in entries}
    for name in [*([before] if before else []), *edit]:
        if name not in calls:
            raise UnknownName("call", name, f"the run's calls are {', '.join(sorted(calls))}")
    if before:
        point = calls[before]
        entries = [entry for entry in entries if entry is not point and entry.after <= point.after]
        entries = [
            entry for entry in entries if entry.made or entry.batch < point.after or entry.after < point.after
        ]
    out = []
    for entry in entries:
        name = f"{entry.path}#{entry.n}"
        if name in edit:
            entry = msgspec.structs.replace(
                entry, value=encode(edit[name], where=f"the edit of {name}"), error=None
            )
        out.append(entry)
    return [entry for entry in out if not entry.made]


def forked(origin: Head, config: Config, now: float) -> Spec:
    """The record of a fork."""
    spec = origin.spec
    before = spec.config
    if config.accounts:  # it has a budget of its own
        before = msgspec.structs.replace(before, accounts=())
    return msgspec.structs.replace(
        spec,
        config=config.over(before).begun_anew(now),
        parent=None,
        job="",
        origin=origin.id,
        seed=spec.seed or origin.mark,
        created=spec.created,
        forked=now,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
    )
