"""Turns of actors that are carried out once more as soon as they are over, to see whether they come out the same.

What is replayed when an actor has ended is its last turn only: the fields before the others aren't kept. So where runs
are verified, each turn that waited is replayed here, from the fields that it began with and from what it has recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from ...authoring.actor.checkpoint import Checkpoint, read_stored
from ...authoring.actor.definition import ActorDef
from ...authoring.context import Act
from ...core import journal
from ...core.pool import Pooled
from ...model.entry import Entry, decode_entries
from ...model.errors import ResultMismatch
from ...model.message import Letter, Mail
from ...model.mode import Config
from ...model.run import CHILD, ENDED
from ...ports.store import Claimed, Turn
from ..calls.call import STRIKE, Call
from ..wake.code import code_of
from ..wake.executor import Executor
from ..wake.host import Host
from ..wake.mailbox import HAND
from ..worker import Worker
from .losses import Losses
from .verify import Desk, Replayed

log = logging.getLogger("segue")

#: For so many seconds turns that are being replayed are waited for at the end.
PATIENCE: Final = 10.0


class Prover:
    """Replays the turns of one engine's actors, and keeps what differs, by run."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.patience = PATIENCE
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self.differences: dict[str, Exception] = {}

    def executor(
        self, host: Host, claimed: Claimed, entries: list[Entry], pool: Pooled | None, config: Config
    ) -> Executor:
        """A wake whose turns are replayed, if it is an actor's."""
        if claimed.head.spec.kind != "actor" or pool is not None:
            return Executor(host, claimed, entries, pool, config)
        return _Proved(host, claimed, entries, config, self._begin)

    def _begin(self, before: Claimed, entries: list[Entry], after: Checkpoint) -> None:
        run = before.head.id
        task = asyncio.Task(self._replay(before, entries, after), loop=self._worker.loop)
        tasks = self._tasks.setdefault(run, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _replay(self, before: Claimed, entries: list[Entry], after: Checkpoint) -> None:
        spec = before.head.spec
        target = self._worker.target(spec.target, spec.module)
        turn = _Turn(
            Desk(self._worker, before.head, None), before, entries, spec.config.over(self._worker.config)
        )
        turn.losses = losses = Losses(spec.target)
        if isinstance(target, ActorDef) and not after.actor:
            losses.look("its fields", bytes(after.fields), target.check_args)
            for letter in before.inbox:
                handler = target.handlers.messages.get(letter.mail.name)
                if handler is not None and letter.mail.value is not None:
                    losses.look(f"the message {handler.name}", letter.mail.value, handler.read)
        turn.begin(code_of(target, before, turn))
        try:
            await turn.has_left()
        except asyncio.CancelledError:
            await turn.stopped()
            raise
        losses.tell(before.head.id)
        if (difference := turn.differs_from(after)) is not None:
            self.differences.setdefault(before.head.id, difference)

    async def settled(self, run: str = "") -> None:
        """Wait until all turns so far were replayed, of one run or of all; but not for what waits outside for long."""
        for one in [run] if run else list(self._tasks):
            tasks = self._tasks.pop(one, None)
            if not tasks:
                continue
            done, left = await asyncio.wait(set(tasks), timeout=self.patience)
            for task in left:
                task.cancel()
            await asyncio.gather(*done, *left, return_exceptions=True)
            if left:
                log.warning(
                    "run %s: %d turns weren't verified: their code waits outside segue", one, len(left)
                )


class _Proved(Executor):
    """One wake of an actor, each of whose turns is handed on when it is written."""

    shares = False

    def __init__(
        self,
        host: Host,
        claimed: Claimed,
        entries: list[Entry],
        config: Config,
        over: Callable[[Claimed, list[Entry], Checkpoint], None],
    ) -> None:
        self._letters: dict[int, Letter] = {}
        super().__init__(host, claimed, entries, None, config)
        self._over = over
        self._before = msgspec.structs.replace(claimed, journal=[], inbox=[], pool=None)
        self._entries = list(entries)

    def _file(self, letters: Sequence[Letter]) -> None:
        self._letters.update((letter.id, letter) for letter in letters if _may_be_in_hand(letter.mail))
        super()._file(letters)

    def write(self, turn: Turn, then: Callable[[], None]) -> None:
        written = decode_entries(turn.entries) if turn.entries is not None else []
        if turn.blobs:
            written = journal.load_large(written, dict(turn.blobs))
        if turn.checkpoint is None and turn.delta is None:
            self._entries += written
        else:
            self._is_over(turn)
            self._entries = written
        super().write(turn, then)

    def forget_entries(self) -> None:
        """A timeout of asyncio's that struck last is told of nowhere else."""
        if self._entries:
            self._entries += [entry for entry in self.commits.entries if entry.path == STRIKE]
        super().forget_entries()

    def _is_over(self, turn: Turn) -> None:
        before, letters = self._before, self._letters
        checkpoint = before.checkpoint if turn.checkpoint is None else turn.checkpoint
        deltas = turn.after(before.deltas)
        self._before = msgspec.structs.replace(before, checkpoint=checkpoint, deltas=deltas)
        hands = [int(entry.value or b"0") for entry in self._entries if (entry.path, entry.n) == HAND]
        taken = [letters.pop(id) for id in (*turn.consumed, *turn.kept) if id in letters]
        if hands:  # also one at which there is another attempt
            taken = [letter for letter in (*taken, *letters.values()) if letter.id in hands]
        else:
            taken = [letter for letter in taken if letter.mail.kind in ("tell", "request", "event")]
        if self._entries and len(taken) <= 1 and turn.status not in ENDED:
            assert self._before.checkpoint is not None  # the first turn wrote one
            after = read_stored(self._before.checkpoint, self._before.deltas)
            if not taken and after.attempt and not after.state and self.mailbox.hand in letters:
                taken = [letters[self.mailbox.hand]]  # there is another attempt at it
            # Mail that became due since the wake began was due then.
            head = msgspec.structs.replace(before.head, status="parked", updated=self.host.clock_now())
            was = msgspec.structs.replace(before, head=head, inbox=taken)
            self._over(was, self._entries, after)


def _may_be_in_hand(mail: Mail) -> bool:
    """Whether it may be what a turn was about. The end of a supervised child is, to its supervisor."""
    return mail.kind != "result" or (mail.call is not None and mail.call.digest == CHILD)


class _Turn(Replayed):
    """A turn that is carried out once more, up to where it is over."""

    shares = False  # what comes after it isn't of it

    def __init__(self, host: Host, claimed: Claimed, entries: list[Entry], config: Config) -> None:
        super().__init__(host, claimed, entries, config)
        self._from = claimed
        self._came_to: Turn | None = None

    def start(self, call: Call) -> None:
        """What is done by being committed may have gone with the commit that ended the turn."""
        if isinstance(call.request, Act):
            self.answer_at_once(call, call.request.value)
        else:
            super().start(call)

    def idle(self) -> None:
        if self.still.foreign_since is None and not self.judge():
            super().idle()

    def write(self, turn: Turn, then: Callable[[], None]) -> None:
        if self._came_to is None and (turn.checkpoint is not None or turn.delta is not None):
            self._came_to = turn
            self.loop.call_soon(self.abandon, None)
        else:
            then()

    def hold(self, reason: str) -> None:
        if self._came_to is None:
            super().hold(reason)

    def differs_from(self, after: Checkpoint) -> Exception | None:
        """What differs from how it was."""
        if self._came_to is None or self.difference is not None or self.hurried:
            return self.difference
        turn, before = self._came_to, self._from
        checkpoint = before.checkpoint if turn.checkpoint is None else turn.checkpoint
        assert checkpoint is not None  # a delta is of one
        now = read_stored(checkpoint, turn.after(before.deltas))
        was, came = _shown(after), _shown(now)
        return ResultMismatch(self.id, was, came) if was != came else None


def _shown(at: Checkpoint) -> str:
    """Where an actor stands, but for times."""
    shown: dict[str, Any] = {"fields": msgspec.json.decode(at.fields)}
    shown["next"] = [at.state, msgspec.json.decode(at.data)] if at.state else ""
    shown["attempt"] = at.attempt
    shown["children"] = [child.id for child in at.children]
    return msgspec.json.encode(shown).decode()
