"""Every run that is stored, rehearsed with the code of this process: nothing is called, paid or written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any, Literal

import msgspec

from ..authoring.actor.checkpoint import read_parted
from ..authoring.actor.definition import ActorDef
from ..authoring.actor.migration import Read, find, first, why_unread
from ..authoring.iterables import batched
from ..model.errors import InputMismatch, ReplayMismatch, SegueError, StateMismatch, UnknownName
from ..model.run import Head, Status
from ..ports.store import Claimed
from ..runtime.engine import Engine
from ..runtime.ground.listing import each_run
from ..runtime.proof import verify
from ..runtime.wake.rebase import written_in

#: Of those that have ended, nothing goes on.
LIVING: tuple[Status, ...] = ("ready", "parked", "held")

#: So many runs are rehearsed beside each other.
BESIDE = 16

What = Literal["same", "migrates", "held"]


class Unread(msgspec.Struct, frozen=True):
    """A message that waits for an actor, or its time, and that the actor's class can't read."""

    message: str
    problem: str


class Rehearsed(msgspec.Struct, frozen=True):
    """How a run would go on. `cause` is the same for all runs of one cause; `difference` is this run's own.

    Its `unread` mail would be dead letters, or requests answered with an error; whatever becomes of the run.
    """

    run: str
    target: str
    what: What
    cause: str = ""
    difference: str = ""
    unread: list[Unread] = []


async def rehearse(engine: Engine, *, only: Collection[str] = ()) -> AsyncIterator[Rehearsed]:
    """Each run of the engine's store that hasn't ended, the newest first; the engine may be one without a worker.

    `only`: those of these flows and actors, if any are named.
    """
    living = each_run(engine.store, status=LIVING)
    meant = (head async for head in living if not only or head.spec.target in only)
    async for some in batched(meant, BESIDE):
        for rehearsed in await asyncio.gather(*(_rehearse(engine, head) for head in some)):
            yield rehearsed


async def _rehearse(engine: Engine, head: Head) -> Rehearsed:
    target = head.spec.target
    if stranger := engine.worker.repertoire.stranger(head.spec):
        return Rehearsed(head.id, target, "held", stranger)
    try:
        loaded = await engine.store.load(head.id)
        if loaded is None:  # gone since it was listed
            return Rehearsed(head.id, target, "same")
        told, unread = _migrate(engine, loaded)
        await verify.replay(engine.worker, head, await written_in(engine.store, loaded), stored=loaded)
    except (ReplayMismatch, InputMismatch, StateMismatch) as error:
        return Rehearsed(head.id, target, "held", error.cause, str(error))
    except UnknownName:
        cause = f"no {head.spec.kind} {target!r} is defined: rename it back, or give the file that defines it"
        return Rehearsed(head.id, target, "held", cause)
    except SegueError as error:
        return Rehearsed(head.id, target, "held", f"{type(error).__name__}: {error}")
    return Rehearsed(head.id, target, "migrates" if told else "same", told, "", unread)


def _migrate(engine: Engine, loaded: Claimed) -> tuple[str, list[Unread]]:
    """What becomes of an actor's fields, "" if nothing, and its mail that can't be read. Raises `StateMismatch`."""
    spec = loaded.head.spec
    definition: Any = engine.worker.target(spec.target, spec.module)
    if not isinstance(definition, ActorDef):
        return "", []
    if loaded.checkpoint is None:
        stored, texts = first(spec, definition)
    else:
        stored, texts = read_parted(loaded.checkpoint, loaded.deltas)
    definition = find(definition, stored, loaded.head.id, engine.worker.target)
    read = Read(definition, stored, texts, loaded.head.id)
    problems = ((letter.mail.name, why_unread(definition, letter)) for letter in loaded.inbox)
    unread = [Unread(name, problem) for name, problem in problems if problem]
    if read.dropped:
        return f"{definition.name} has no field {', '.join(read.dropped)} any more", unread
    return f"what is stored becomes a {definition.name} of today" if read.changed else "", unread
