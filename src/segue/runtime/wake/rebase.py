"""Going on under changed code, or along another way: held runs resumed, runs forked."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import msgspec

from ...authoring.actor.checkpoint import NOTHING_WRITTEN, Checkpoint, read_stored
from ...authoring.mail import child_id
from ...core import journal
from ...core.codec import encode
from ...core.pool import Pooled, goes_on_from
from ...model.entry import LEFT, MODEL, Entry, Pool
from ...model.errors import Conflict, Damaged, UnknownName
from ...model.mode import Config
from ...model.run import ENDED, CallRef, Head, Spec
from ...ports.store import Claimed, Store
from ..calls.naming import line_id
from ..calls.trying import KEY_REFUSED
from ..ground.names import unknown_run
from .replaying import is_cut_off


async def entries_of(store: Store, run: str) -> list[Entry]:
    """A run's journal since its checkpoint, large contents in place, each call once; in the order of the outcomes.

    Raises `Damaged`.
    """
    return journal.merged(await written_of(store, run))


async def written_of(store: Store, run: str) -> list[Entry]:
    """The same as it was written: a call that was journaled when made has more than one entry, each in its batch."""
    before: list[bytes] | None = None
    while True:
        loaded = await store.load(run)
        if loaded is None:
            raise await unknown_run(store, run)
        try:
            return await written_in(store, loaded)
        except Damaged as error:  # perhaps a content went with a past that was dropped meanwhile
            if loaded.journal == before:  # that would be another journal
                raise Damaged(f"the journal of run {run!r}", error.problem) from error
            before = loaded.journal


def refuse_damaged(head: Head) -> None:
    """Raise for a run whose record can't be read: what was made of it would have neither input nor options."""
    if head.damage:
        raise Damaged(f"the record of run {head.id!r}", head.damage)


async def written_in(store: Store, loaded: Claimed) -> list[Entry]:
    """The same, of a run that was loaded. Raises `Damaged`, also for a content that went meanwhile."""
    entries = [entry for entry in journal.read(loaded.journal) if entry.kind != LEFT]
    digests = journal.blobs_of(entries)
    contents = await store.get_blobs(digests) if digests else {}
    return journal.load_large(entries, contents)


async def standing_of(store: Store, run: str) -> Checkpoint | None:
    """An actor as its last turn left it; None if no turn is written."""
    loaded = await store.load(run)
    if loaded is None:
        return None
    left = [entry for entry in journal.read(loaded.journal) if entry.kind == LEFT]
    contents = await store.get_blobs(journal.blobs_of(left)) if journal.blobs_of(left) else {}
    deltas = [entry.value for entry in journal.load_large(left, contents) if entry.value is not None]
    if loaded.checkpoint is None and not deltas:
        return None
    return read_stored(loaded.checkpoint or NOTHING_WRITTEN, [*loaded.deltas, *deltas])


async def resume(
    store: Store,
    head: Head,
    *,
    keep: bool,
    value: object = msgspec.UNSET,
    repeat: bool = False,
    before: str = "",
    config: Config | None = None,
    now: float,
) -> list[str]:
    """Let a held, failed or cancelled run go on from its old journal; the runs that go on.

    With it go the children that it supervised or awaited and that were cancelled since it ended, and theirs.

    `keep`: calls are matched by place and name too, whatever their arguments are now. Otherwise by name and
    arguments; what changed is called, and paid, anew. A failed call of a run that failed, or whose key was
    refused, is made anew either way. `value` is what came of the at-most-once step that was cut off, where someone
    knows. `repeat`: keyed and at-most-once steps whose arguments changed may be done again; else the run is held
    before one, and, unless it was held for that, at one that was cut off. `config` replaces the one that it was started
    with. Of a run that is over the call `before` is made anew,
    and what came after its outcome.
    """
    if head.status not in ("held", "failed", "cancelled"):
        raise Conflict(
            f"run {head.id!r} is {head.status}; only held, failed or cancelled ones can be resumed"
        )
    if before and head.status == "held":
        raise Conflict(
            f"run {head.id!r} is held: from call {before} on it can be made anew by a fork, "
            f"`segue fork {shlex.quote(head.id)} --before '{before}'`"
        )
    refuse_damaged(head)
    along: dict[str, Pool] = {}
    lines: list[str] = []
    pool = await _pool_of(store, head, along, lines, keep=keep, value=value, repeat=repeat, start=before)
    status = (head.status,)
    if not await store.revive(
        head.id, pool=pool, now=now, status=status, config=config, along=along, lines=lines
    ):
        raise Conflict(f"run {head.id!r} changed meanwhile; look again")
    return [head.id, *along]


async def _pool_of(
    store: Store,
    head: Head,
    along: dict[str, Pool],
    lines: list[str],
    *,
    keep: bool,
    value: object,
    repeat: bool,
    start: str = "",
) -> Pool:
    """What a run goes on with. Filled: `along`, with its children that go on too, and with what; `lines`, with those
    that they wait for again."""
    entries, before = await _paid(store, head.id)
    shared = _without(entries, start) if start else entries
    spent = [*before.spent, *_spent(entries, shared)]
    entries = shared
    if head.status == "failed" or head.reason.startswith(KEY_REFUSED):
        entries = [entry for entry in entries if entry.error is None]
    if keep and not repeat:
        _none_cut_off(head.id, entries)
    told = None if value is msgspec.UNSET else _told(head.id, entries, value)
    over = head.status != "held"
    if over:
        entries = await _without_closed_lines(store, head.id, entries, lines)
    entries, theirs = await _awaited(store, head.id, entries, over=over)
    stored = await _end_of(store, head) if over else None
    supervised = [] if stored is None else [await store.get(child.id) for child in stored.children]
    children = [child for child in supervised if child is not None and child.status not in ("done", "failed")]
    for child in (*children, *theirs):
        if over and child.status == "cancelled":
            along[child.id] = Pool([])  # before its own
            along[child.id] = await _pool_of(
                store, child, along, lines, keep=keep, value=msgspec.UNSET, repeat=repeat
            )
    return Pool(
        entries,
        strict=not keep,
        origin=head.id,
        spent=spent,
        repeat=repeat,
        told=told,
        ended=None if stored is None else stored.turns,
        children=[child.id for child in children],
        revived=before.revived + 1,
        unsure=not (repeat or told is not None or is_cut_off(head)),
    )


async def _awaited(
    store: Store, run: str, entries: list[Entry], *, over: bool
) -> tuple[list[Entry], list[Head]]:
    """Its calls, and the children that they wait for. Of a run that is `over`, without those that were closed then.

    Those are made anew. A child that is done since has its result; one that failed is begun anew.
    """
    kept: list[Entry] = []
    children: list[Head] = []
    last = max((entry.batch for entry in entries), default=0) + 1
    for entry in entries:
        if entry.made and entry.kind == "child":
            child = await _child_of(store, run, entry)
            if over and (child is None or child.status == "failed"):
                continue
            if over and child is not None and child.status == "done":
                entry = msgspec.structs.replace(
                    entry, batch=max(last, 0), value=child.value, at=child.updated
                )
            elif child is not None:
                if over and child.status not in ENDED:
                    await _refuse_ending(store, run, child.id)
                children.append(child)
        elif over and entry.made and entry.kind == "ask":
            continue
        kept.append(entry)
    return kept, children


async def _refuse_ending(store: Store, run: str, child: str) -> None:
    """Raise `Conflict` where a run was told to end and is about to: who waited for it then would get that, and begin
    another one when it is resumed once more."""
    told = any(letter.mail.kind == "cancel" for letter in await store.inbox(child, 0))
    if told or any(entry.kind == "cancel" for entry in await entries_of(store, child)):
        raise Conflict(
            f"run {run!r} waits for {child!r}, which was cancelled with it and hasn't ended yet: resume it once that "
            f"is over; `segue show {shlex.quote(child)}` says what keeps it"
        )


async def _without_closed_lines(
    store: Store, run: str, entries: list[Entry], lines: list[str]
) -> list[Entry]:
    """The calls of a run that is over without those whose lines are to have no outcome any more: they are made anew.

    `lines` get those that are.
    """
    calls = {
        line_id(run, entry.opening): (entry.path, entry.n)
        for entry in entries
        if entry.made and entry.kind in MODEL
    }
    if not calls:
        return entries
    still = await store.open_lines(list(calls))
    lines += still
    closed = {*calls.values()} - {calls[line] for line in still}
    return [entry for entry in entries if not entry.made or (entry.path, entry.n) not in closed]


async def _child_of(store: Store, run: str, call: Entry) -> Head | None:
    """The run that a call started and awaits."""
    head = await store.get(child_id(run, call.opening))
    parent = None if head is None else head.spec.parent
    return head if parent == CallRef(run, *call.opening) else None


async def _end_of(store: Store, head: Head) -> Checkpoint | None:
    """An actor that wrote down that it ends."""
    loaded = await store.load(head.id)
    if head.spec.kind != "actor" or loaded is None or loaded.checkpoint is None:
        return None
    stored = read_stored(loaded.checkpoint, loaded.deltas)
    return None if stored.end is None else stored


async def _paid(store: Store, run: str) -> tuple[list[Entry], Pool]:
    """All calls that a run has in its journal, or could still take from the one before; and that."""
    entries = [entry for entry in await entries_of(store, run) if entry.kind not in ("cancel", "strike")]
    loaded = await store.load(run)
    if loaded is not None:
        refuse_damaged(loaded.head)
    if loaded is None or loaded.pool is None:
        return entries, Pool([])
    before = loaded.pool
    pooled = Pooled(before, turns=loaded.head.spec.kind == "actor")
    pooled.spend(entries)
    return [*entries, *pooled.unused({(entry.path, entry.n) for entry in entries})], before


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
    return Pool(shared, True, run, _spent(entries, shared), repeat)


def _spent(entries: list[Entry], shared: list[Entry]) -> list[Entry]:
    """The steps that are left out, without what they hold."""
    places = {(entry.path, entry.n) for entry in shared}
    return [
        msgspec.structs.replace(entry, args=b"", value=None, error=None)
        for entry in entries
        if entry.kind == "step" and (entry.path, entry.n) not in places
    ]


def until(entries: list[Entry], before: str, edit: dict[str, Any]) -> list[Entry]:
    """The part of a history that a fork shares."""
    calls = _named(entries, *([before] if before else []), *edit)
    if before:
        point = calls[before]
        entries = [entry for entry in entries if entry is not point and entry.after <= point.after]
        entries = [
            entry for entry in entries if entry.made or entry.batch < point.after or entry.after < point.after
        ]
    out: list[Entry] = []
    edited = {(calls[name].path, calls[name].n) for name in edit}
    for entry in entries:
        name = f"{entry.path}#{entry.n}"
        if (entry.path, goes_on_from(entry.kind, entry.args)) in edited:
            continue  # it was said to another answer
        if name in edit:
            entry = msgspec.structs.replace(
                entry, value=encode(edit[name], where=f"the edit of {name}"), error=None
            )
        out.append(entry)
    return [entry for entry in out if not entry.made]


def _without(entries: list[Entry], call: str) -> list[Entry]:
    """A history without a call and all that may have come of its outcome."""
    point = _named(entries, call)[call]
    return [
        entry for entry in entries if entry is not point and (point.batch < 0 or entry.after <= point.batch)
    ]


def _named(entries: list[Entry], *names: str) -> dict[str, Entry]:
    """Calls by place and number. Raises `UnknownName` for one that isn't there."""
    calls = {f"{entry.path}#{entry.n}": entry for entry in entries}
    for name in names:
        if name not in calls:
            raise UnknownName("call", name, f"the run's calls are {', '.join(sorted(calls))}")
    return calls


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
