"""A rebased run at work: what its code may take from the journal that it was rebased from."""

from __future__ import annotations

import heapq
import shlex
from typing import TYPE_CHECKING

import msgspec

from ...authoring.context import Act, Wait, Work
from ...core.pool import Pooled
from ...model.entry import MODEL, Entry
from ...model.errors import InvalidValue, ProviderFault
from ...model.run import REUSED
from ..calls.call import NOTHING, Call, Outcome, instant_entry, made_entry
from .replaying import cut_off

if TYPE_CHECKING:
    from .executor import Executor


class Inherited:
    """Outcomes taken over, until they are handed over again as they were then."""

    __slots__ = ("_pool", "_run", "_taken")

    def __init__(self, run: Executor, pool: Pooled) -> None:
        self._run, self._pool = run, pool
        #: By when it came then; with the entry of one that is journaled when made.
        self._taken: list[tuple[int, int, Outcome, Entry | None]] = []

    def serve(self, call: Call) -> bool:
        """Take a call over from the journal that this run was rebased from, if it is there."""
        request, pool, run = call.request, self._pool, self._run
        entry = pool.take(*call.place, request.kind, request.name, request.digest, request.args)
        if entry is not None and not isinstance(request, Act) and not _can_read(request, entry):
            run.hold(
                f"call {call.place[1]} of branch {call.place[0] or '/'!r} was answered by a model of another provider, "
                f"which can't be kept as an answer of {request.model}.\n"
                f"Give it a model of that provider, `segue resume {shlex.quote(run.id)} --keep --model NAME`, or "
                f"`--rerun` to have it asked anew."
            )
            return True
        if entry is not None and not entry.made:
            self._take(call, entry, entry.value)
            return True
        if entry is not None and isinstance(request, Work) and entry.kind == "step":  # it was cut off
            if pool.unsure:
                run.hold(cut_off(run.id, request.name))
                return True
            if pool.told is not None:
                if self._fits(request, pool.told):
                    self._take(call, entry, pool.told)
                return True
        if isinstance(request, Wait):
            if entry is not None:  # it is open already
                run.commits.entries.append(made_entry(call, request, entry.due))
                run.mailbox.wait_for(call, request, entry.due)
                return True
        elif isinstance(request, Work) and entry is not None and entry.kind in MODEL:
            # A line is out for it, and it would be live now.
            made = made_entry(call, request, entry.due)
            run.commits.entries.append(msgspec.structs.replace(made, opened=entry.opening))
            call.entry = entry
            run.pending(call, entry)
            return True
        elif isinstance(request, Work) and entry is None and request.effect != "idempotent":
            if pool.blocks(call.place[0], request.name):
                run.hold(
                    f"the {request.effect} step {request.name!r} was done before, with other arguments or on "
                    f"another way, and would be done again.\n"
                    f"Restore the code, or `segue resume {shlex.quote(run.id)} --rerun --repeat`."
                )
                return True
        return False

    def _fits(self, step: Work, told: bytes) -> bool:
        """Whether the code can read what a person says came of a step; if not, the run is held again."""
        try:
            step.decode(told)
        except InvalidValue as error:
            self._run.hold(
                f"what is said to have come of the step {step.name!r} isn't what it returns: {error}.\n"
                f"Say it once more, with `segue resume {shlex.quote(self._run.id)} --value JSON`."
            )
            return False
        return True

    def _take(self, call: Call, entry: Entry, value: bytes | None) -> None:
        """Take an outcome from the journal that this run was rebased from."""
        request, run = call.request, self._run
        if isinstance(request, Act):
            act = msgspec.structs.replace(request, value=entry.value or NOTHING)
            run.commits.entries.append(instant_entry(call, act))
            run.answer_at_once(call, entry.value)
            return
        made: Entry | None = None
        if isinstance(request, Wait):
            made = made_entry(call, request, entry.due)
        elif request.effect == "at-most-once":
            made = made_entry(call, request, 0.0)
        lane = REUSED if entry.reused else ""
        outcome = Outcome(call, value, entry.error, paid=True, at=entry.at, lane=lane)
        heapq.heappush(self._taken, (*self._pool.order(entry), outcome, made))

    def next_batch(self) -> list[Outcome]:
        """Outcomes that were handed over together are so again, in their order then, with their time.

        That a call was made is written with its outcome: a life that found it without would wait for it.
        """
        out: list[Outcome] = []
        batch = self._taken[0][0] if self._taken else 0
        while self._taken and self._taken[0][0] == batch:
            _, _, outcome, made = heapq.heappop(self._taken)
            if made is not None:
                self._run.commits.entries.append(made)
            out.append(outcome)
        return out


def _can_read(request: Work | Wait, entry: Entry) -> bool:
    """Whether what was answered to another question, and is kept, is of the same provider, or reads like it."""
    if entry.kind not in ("generate", "embed") or entry.digest == request.digest or entry.error is not None:
        return True
    if entry.value is None:
        model = msgspec.json.decode(entry.args).get("model", request.model)
        return bool(model.partition(":")[0] == request.model.partition(":")[0])
    try:
        request.decode(entry.value)
    except ProviderFault:
        return False
    return True
