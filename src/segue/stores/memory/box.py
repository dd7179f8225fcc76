"""A bounded mailbox in the store in memory."""

from __future__ import annotations

from collections import deque

from ...model.message import Mail


class Box:
    """A bounded mailbox: the letters that take room, and the mail of other runs that waits for some."""

    __slots__ = ("size", "taken", "waiting")

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken: set[int] = set()
        self.waiting: deque[Mail] = deque()

    @property
    def has_room(self) -> bool:
        """Whether a message more has room; nobody overtakes those that wait."""
        return len(self.taken) < self.size and not self.waiting

    def empty(self) -> list[Mail]:
        """The run has ended: what still waited."""
        waiting = list(self.waiting)
        self.waiting.clear()
        self.taken.clear()
        return waiting
