"""The memory store's answers, and its lines without an outcome by what they ask."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ..model.lane import Answer, Line
from . import asking


class Asker(Protocol):
    """A line of the store's."""

    line: Line
    number: int


A = TypeVar("A", bound=Asker)


class _Group(Generic[A]):
    """Lines that ask the same: those that are to be answered, and those that follow them."""

    __slots__ = ("followers", "leaders")

    def __init__(self) -> None:
        self.leaders: dict[str, A] = {}
        self.followers: dict[str, A] = {}


class Answers(Generic[A]):
    """What is kept, and who waits for it."""

    def __init__(self) -> None:
        self._kept: dict[str, Answer] = {}
        self._groups: dict[str, _Group[A]] = {}

    def find(self, same: str, since: float = 0.0) -> Answer | None:
        """An answer that came since then."""
        answer = self._kept.get(same)
        return answer if answer is not None and answer.at >= since else None

    def keep(self, answer: Answer) -> None:
        """In place of an older one."""
        known = self._kept.get(answer.same)
        if known is None or answer.at >= known.at:
            self._kept[answer.same] = answer

    def forget(self, before: float) -> int:
        """How many came before then."""
        old = [same for same, answer in self._kept.items() if answer.at < before]
        for same in old:
            del self._kept[same]
        return len(old)

    def leader(self, line: A) -> A | None:
        """Whom a new line may follow."""
        group = self._groups.get(line.line.same)
        leaders = sorted(group.leaders.values(), key=_number) if group is not None else []
        return next((each for each in leaders if asking.follows(line.line, each.line.due)), None)

    def lead(self, line: A) -> None:
        """It is to be answered."""
        self._groups.setdefault(line.line.same, _Group()).leaders[line.line.id] = line

    def follow(self, line: A) -> None:
        """It gets what another one gets."""
        self._groups.setdefault(line.line.same, _Group()).followers[line.line.id] = line

    def leave(self, line: A) -> None:
        """It has ended."""
        group = self._groups.get(line.line.same)
        if group is not None:
            group.leaders.pop(line.line.id, None)
            group.followers.pop(line.line.id, None)
            if not group.leaders and not group.followers:
                del self._groups[line.line.same]

    def leads(self, line: A) -> bool:
        """Whether it is one of those that are to be answered."""
        group = self._groups.get(line.line.same)
        return group is not None and line.line.id in group.leaders

    def leaders(self, same: str) -> list[A]:
        """Those that are to be answered, in order."""
        group = self._groups.get(same)
        return sorted(group.leaders.values(), key=_number) if group is not None else []

    def followers(self, same: str) -> list[A]:
        """Those that wait for them, in order."""
        group = self._groups.get(same)
        return sorted(group.followers.values(), key=_number) if group is not None else []

    def has_followers(self, same: str) -> bool:
        """Whether there are any."""
        group = self._groups.get(same)
        return group is not None and bool(group.followers)


def _number(line: Asker) -> int:
    return line.number
