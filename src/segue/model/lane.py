"""Model requests on their way through a provider's Batch API."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from .budget import Amount
from .entry import Failure
from .mode import Late
from .run import CallRef, Usage

#: `taken` is in a provider job, and `following` waits for the outcome of another line that asks the same; the others
#: are final. A line ends as exactly one of them.
LineStatus = Literal["waiting", "taken", "ok", "error", "expired", "missing", "cancelled", "following"]

#: `intent` is written before anything is sent; `uploaded` has a file; `sent` has a provider's job id. `live` isn't a
#: job of the provider's: its lines are sent as live calls, since they would be late otherwise. `unread`: its record in
#: the store is damaged, so that nobody knows which job of the provider's it was.
JobState = Literal["intent", "uploaded", "sent", "live", "closed", "unread"]
#: `BatchJob.remote` of those.
LIVE: Final = "live"


class Line(msgspec.Struct, frozen=True):
    """One request of a lane. `id` is unique, fits every provider's rules and never changes; `body` is JSON.

    `lane` is `provider|base_url|endpoint|model|credential`; `size` the bytes of the body; `attempt` counts
    from 1. `due`: when it is late, in seconds since the epoch, 0 for never; `late`: what becomes of it then, `wait`
    where it is never late. `promoted`: it was taken for a live call for that, as happens once. `same`: what it asks,
    where an answer to that will do that came since `since`, or that another line gets; empty where it won't.
    """

    id: str
    lane: str
    call: CallRef
    body: bytes
    size: int = 0
    created: float = 0.0
    attempt: int = 1
    due: float = 0.0
    late: Late = "wait"
    promoted: bool = False
    same: str = ""
    since: float = 0.0


class Answer(msgspec.Struct, frozen=True):
    """What came of a request that was paid: `value` is the JSON of the provider's response body, `same` what was
    asked."""

    same: str
    value: bytes
    at: float


class LineOutcome(msgspec.Struct, frozen=True):
    """How one line ended. `value` is the JSON of the provider's response body.

    `again`: it didn't work out and is fit to be sent once more: it goes back to waiting and its run isn't told, unless
    it was sent `most` times already (0: any number).
    `free`: that wasn't its fault, nor was it paid: it doesn't count as an attempt. `used`: what was paid for it, kept
    as unclaimed where nobody gets it. `lane`: as receipts have it. `whole`: an
    answer that will do for those who ask the same later. `paid`: what it takes off its budgets, of one that has a
    reservation.
    """

    id: str
    status: LineStatus
    value: bytes | None = None
    error: Failure | None = None
    again: bool = False
    free: bool = False
    used: Usage | None = None
    lane: str = ""
    most: int = 0
    whole: bool = False
    paid: Amount | None = None


class BatchJob(msgspec.Struct, frozen=True):
    """A provider's job. `nonce` goes with it as metadata, so that an orphan can be found again.

    `remote` and `file` are the provider's ids; `seen` is the provider's own status, last time we looked;
    `progress` the lines done there; `size` the bytes of its lines' bodies when it was made. `uploaded` is when a
    submission was about to be tried last; `short` how often its results were read and lacked lines; `over` when it was
    closed, if it was sent. `shared`: some of its lines may be answered for others.
    """

    id: str
    lane: str
    nonce: str
    state: JobState
    lines: int
    created: float
    file: str = ""
    remote: str = ""
    seen: str = ""
    progress: int = 0
    sent: float = 0.0
    error: str = ""
    uploaded: float = 0.0
    short: int = 0
    size: int = 0
    over: float = 0.0
    shared: bool = False


class LaneHead(msgspec.Struct, frozen=True):
    """A lane at a glance: what waits (`waiting` lines, `size` bytes, `oldest` in epoch seconds), open jobs.

    `due`: when the first of all its lines without an outcome is late that wasn't promoted yet; 0 for never.
    """

    lane: str
    waiting: int
    size: int
    oldest: float
    jobs: list[BatchJob] = []
    due: float = 0.0
