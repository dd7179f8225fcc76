"""The life of a run in memory."""

from __future__ import annotations

from typing import Final, final


@final
class Phase:
    """Where a wake stands. It goes down this list, but for LIVE → COMMITTING (→ LANDED) → LIVE, again and again.

    No enum: it is asked for at every call and message, and an enum finds its members the slow way.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __repr__(self) -> str:
        return f"<Phase: {self._what}>"


REPLAYING: Final = Phase("what the journal holds is made and handed over again; what is new waits")
LIVE: Final = Phase("what is new starts")
COMMITTING: Final = Phase("a turn is on its way to the store")
LANDED: Final = Phase(
    "it is durable, and its outcomes are handed over at the next rest: the code has moved meanwhile"
)
LEAVING: Final = Phase("the code is unwound, then the last turn is written; nothing is recorded any more")
OVER: Final = Phase("nothing of it is left here")
