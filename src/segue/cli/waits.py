"""What parked runs wait for, in words: batches, people, times, messages, other runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..authoring.ask import ask_id
from ..authoring.mail import child_id
from ..core import journal
from ..core.replay import Place
from ..model.entry import Entry
from ..model.errors import Damaged
from ..model.lane import LIVE, BatchJob
from ..model.run import Head
from ..ports.store import Store
from ..runtime.calls.naming import lane_endpoint, usage_name
from .screen import count, duration, note, short

#: So many lines of open batches are looked at, to find out in which of them a call is.
LINES = 20_000
#: Of what a run waits for, the first so many are looked at, and so many told in a line.
FIRST, EACH = 20, 2
#: And so many batches.
EACH_BATCH = 5


class Wait(msgspec.Struct, omit_defaults=True):
    """One call that a run waits for. `batch`: the provider's id, where it is in one; `since`: when that was sent."""

    call: str
    kind: str
    words: str
    until: float | None = None
    model: str = ""
    batch: str = ""
    since: float | None = None


class Waits:
    """Looks up what runs of a store wait for; where lines are is found out once, if a run waits for one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._now = time.time()
        self._jobs: dict[tuple[str, str, int], BatchJob] | None = None
        self._unsent: dict[str, float] = {}  # since when lines of a model's lane are in no job
        self._whole = True

    async def of(self, head: Head) -> tuple[list[Wait], int]:
        """The first calls that a parked run waits for, and how many more there are; see `_open`."""
        try:
            entries = await self._open(head)
        except Damaged as damage:  # the other runs are shown all the same
            return [Wait("", "", f"what is in {damage.what}, which can't be read")], 0
        return [await self._wait(head, entry) for entry in entries[:FIRST]], max(len(entries) - FIRST, 0)

    async def words(self, head: Head) -> str:
        """The same as "for this; that" or "until then"; empty where it isn't parked.

        A block's timeout is told of where it is all that can wake the run.
        """
        waits, more = await self.of(head)
        if not waits and head.status == "parked":
            until = "" if head.wake is None else self._until(head.wake)
            return ", ".join(
                part for part in ("for messages" if head.spec.kind == "actor" else "", until) if part
            )
        if waits and waits[0].kind != "timeout":
            more = 0 if waits[-1].kind == "timeout" else more  # they stand last
            waits = [wait for wait in waits if wait.kind != "timeout"]
        told = [wait.words for wait in waits[:EACH]]
        if (rest := len(waits) - len(told) + more) > 0:
            told.append(f"and {count(rest)} more")
        text = "; ".join(told)
        return text if not text or text.startswith("until ") else f"for {text}"

    async def _open(self, head: Head) -> list[Entry]:
        """The calls that a parked run waits for, the newest first, as far as is known, and timeouts of blocks last."""
        if head.status != "parked" or head.damage:
            return []
        loaded = await self._store.load(head.id)
        entries = journal.read(loaded.journal) if loaded is not None else []
        gone = await given_up(self._store, head, entries)
        made = [entry for entry in journal.open_calls(entries) if (entry.path, entry.n) not in gone]
        return sorted(made, key=lambda entry: (entry.kind == "timeout", -entry.after))

    async def _wait(self, head: Head, entry: Entry) -> Wait:
        wait = Wait(f"{entry.path}#{entry.n}", entry.kind, "", until=entry.due or None)
        match entry.kind:
            case "generate" | "embed" | "http":
                await self._model(head, entry, wait)
            case "ask":
                question, to = _args(entry, "question") or "", _args(entry, "to")
                whose = f"{to}'s answer" if to else "an answer"
                wait.words = f"{whose} to {ask_id(head.id, entry.opening)}: {short(question)}"
            case "receive":
                wait.words = f"a message {' or '.join(_args(entry) or ())}".rstrip()
            case "request":
                wait.words = f"an answer of run {_args(entry, 'to')} to {entry.name}"
            case "join":
                wait.words = f"run {_args(entry)}"
            case "child":
                id = child_id(head.id, entry.opening)
                is_there = await self._store.get(id) is not None
                wait.words = f"run {id}, of {entry.name}" if is_there else f"a run of {entry.name}"
            case "sleep":
                wait.words = ""
            case _:
                wait.words = f"{entry.kind} {entry.name}" if entry.name != entry.kind else entry.kind
        if entry.due:
            wait.words = f"{wait.words}, {self._until(entry.due)}".removeprefix(", ")
        return wait

    def _until(self, due: float) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(due))
        left = due - self._now
        return f"until {when}, " + (
            f"in {duration(left)}" if left > 0 else "which is over: any worker takes it up"
        )

    # ------------------------------------------------------------ model calls
    async def _model(self, head: Head, entry: Entry, wait: Wait) -> None:
        if self._jobs is None:
            await self._look()
        assert self._jobs is not None  # it has looked
        job = self._jobs.get((head.id, *entry.opening))
        wait.model = usage_name(lane_endpoint(job.lane)[0]) if job is not None else _model(entry)
        if job is None:
            unsent = self._unsent.get(wait.model)
            if unsent is not None:
                wait.words = f"{wait.model}: in no batch yet, for {duration(max(self._now - unsent, 0))}"
            elif head.wake is not None:
                wait.words = f"{wait.model}: tried again {self._until(head.wake)}"
            elif not self._whole:
                wait.words = f"{wait.model} in batch"
            else:
                wait.words = f"{wait.model}: room in its budget" if head.spec.config.accounts else wait.model
        else:
            wait.words = f"{wait.model}'s {stands(job, self._now)}"
            if job.remote and job.remote != LIVE:
                wait.batch, wait.since = job.remote, job.sent

    async def _look(self) -> None:
        """Which lines are in which open batch."""
        self._jobs = {}
        left = LINES
        for lane in await self._store.lanes():
            if lane.waiting:
                self._unsent[usage_name(lane_endpoint(lane.lane)[0])] = lane.oldest
            for job in lane.jobs:
                after = ""
                while left > 0 and (
                    lines := await self._store.job_lines(job.id, after, min(left, 1000), bodies=False)
                ):
                    self._jobs |= {(line.call.run, line.call.path, line.call.n): job for line in lines}
                    after, left = lines[-1].id, left - len(lines)
        self._whole = left > 0


async def given_up(store: Store, head: Head, entries: Sequence[Entry]) -> set[Place]:
    """Open calls of a parked run that its code doesn't wait for any more, such as what lost a race.

    The journal doesn't tell. But a question is closed then, and a time is none by which the run is to be woken.
    """
    if head.status != "parked":
        return set()
    made = journal.open_calls(entries)
    asks = await store.asks(run=head.id) if any(entry.kind == "ask" for entry in made) else []
    unread = any(ask.n < 0 for ask in asks)  # it may be any of them
    asked = {(ask.path, ask.n) for ask in asks}
    wake = float("inf") if head.wake is None else head.wake
    return {
        (entry.path, entry.n)
        for entry in made
        if (entry.kind == "ask" and not unread and entry.opening not in asked) or 0 < entry.due < wake
    }


def stands(job: BatchJob, now: float) -> str:
    """Where a batch is."""
    if job.remote == LIVE:
        return "late lines, sent live"
    if not job.remote:
        return "batch, which is being sent"
    done = f"{job.seen or 'sent'}, {count(job.progress)}/{count(job.lines)} done"
    return f"batch, sent {duration(max(now - job.sent, 0))} ago ({done}): {job.remote}"


async def tell_batches(store: Store) -> None:
    """A line for each open batch, and for each lane in which lines wait for one."""
    now = time.time()
    told = []
    for lane in await store.lanes():
        model = usage_name(lane_endpoint(lane.lane)[0])
        told += [f"{model}'s {stands(job, now)}" for job in lane.jobs]
        if lane.waiting:
            lines = "line that is" if lane.waiting == 1 else "lines that are"
            age = duration(max(now - lane.oldest, 0))
            told.append(f"{model}: {count(lane.waiting)} {lines} in no batch yet, for {age}")
    for line in told[:EACH_BATCH]:
        note(line)
    if len(told) > EACH_BATCH:
        note(f"and {count(len(told) - EACH_BATCH)} more batches")


def _args(entry: Entry, name: str = "") -> Any:
    """What a call was made with; None where that is too large to be looked at."""
    try:
        found = msgspec.json.decode(entry.args)
        return found[name] if name else found
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


def _model(entry: Entry) -> str:
    """A model call's model; of a wire call its name."""
    return str(_args(entry, "model") or entry.name).partition("@")[0]


async def in_words(store: Store, heads: Iterable[Head]) -> dict[str, str]:
    """What each of these waits for, of those that are parked for no reason that their record has."""
    waits = Waits(store)
    return {head.id: await waits.words(head) for head in heads if head.status == "parked" and not head.reason}


async def as_plain(waits: Waits, head: Head) -> dict[str, Any]:
    """What a run waits for as JSON for programs; nothing where it doesn't."""
    found, more = await waits.of(head)
    return ({"waits": found} if found else {}) | ({"more_waits": more} if more else {})
