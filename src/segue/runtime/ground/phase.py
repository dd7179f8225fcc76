"""The life of a run in memory."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a wake stands. It goes down this list, but for LIVE → COMMITTING (→ LANDED) → LIVE, again and again."""

    REPLAYING = "what the journal holds is made and handed over again; what is new waits"
    LIVE = "what is new starts"
    COMMITTING = "a turn is on its way to the store"
    LANDED = "it is durable, and its outcomes are handed over at the next rest: the code has moved meanwhile"
    LEAVING = "the code is unwound, then the last turn is written; nothing is recorded any more"
    OVER = "nothing of it is left here"


#: Asked for at every call, and a member of an enum is found by its class's slow way.
REPLAYING, LIVE, COMMITTING, LANDED, LEAVING, OVER = Phase
