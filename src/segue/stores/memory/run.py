"""What the store in memory knows of a run."""

from __future__ import annotations

from ...model.entry import Failure
from ...model.message import Letter
from ...model.run import Head, Spec, Status, Usage
from ...ports.store import Claimed, NewRun
from .box import Box
from .lane import LineRecord
from .past import Past


class Run:
    """A run's record. What most runs don't have is None, so that a parked one is small."""

    __slots__ = (
        "asks",
        "box",
        "checkpoint",
        "children",
        "deltas",
        "digests",
        "error",
        "fence",
        "finished",
        "id",
        "inbox",
        "journal",
        "lapses",
        "lease",
        "lines",
        "marks",
        "number",
        "past",
        "pool",
        "queued",
        "reason",
        "spec",
        "status",
        "updated",
        "usage",
        "value",
        "wake",
        "worker",
    )

    def __init__(self, new: NewRun, number: int, now: float, fence: int = 0) -> None:
        self.id = new.id
        self.spec: Spec = new.spec
        self.number = number  #: from 1, as they are made
        self.children: list[Run] | None = None  #: those of no job that it has started
        self.status: Status = "ready"
        self.fence = fence
        self.worker = ""
        self.lease: float | None = None
        self.lapses = 0  #: of claims, since the last commit
        self.wake: float | None = None
        self.reason = ""
        self.value: bytes | None = None
        self.error: Failure | None = None
        self.usage: list[Usage] | None = None
        self.finished = 0
        self.updated = now
        self.checkpoint: bytes | None = None
        self.deltas: list[bytes] | None = None
        self.pool = new.pool
        self.journal: list[bytes] | None = None
        self.digests: list[bytes] | None = None  #: of contents that came with the live journal
        self.past: Past | None = None  #: what was archived
        self.inbox: dict[int, Letter] | None = None  #: by id, oldest first
        self.box = Box(new.spec.mailbox) if new.spec.mailbox > 0 else None
        self.marks: dict[str, int] | None = None
        self.asks: dict[str, None] | None = None  #: the open ones, in order
        self.lines: dict[str, LineRecord] | None = None  #: by id, those that wait or are on their way
        self.queued: int | None = None  #: as how urgent it stands among those to be claimed

    def head(self) -> Head:
        """What everybody may see of it."""
        return Head(
            self.id,
            self.spec,
            self.status,
            self.fence,
            self.wake,
            self.reason,
            self.value,
            self.error,
            list(self.usage or ()),
            self.finished,
            self.updated,
        )

    def claimed(self) -> Claimed:
        """What its worker gets."""
        return Claimed(
            self.head(),
            self.checkpoint,
            self.pool,
            list(self.journal or ()),
            list((self.inbox or {}).values()),
            list(self.deltas or ()),
        )

    def shelve(self) -> bool:
        """Archive the live journal; whether there was any."""
        if not self.journal and not self.digests:
            return False
        if self.past is None:
            self.past = Past()
        self.past.rows.extend(self.journal or ())
        self.past.digests.extend(self.digests or ())
        self.journal = self.digests = None
        return True
