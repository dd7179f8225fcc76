"""The answers of the store in memory, and its lines without an outcome by what they ask."""

from __future__ import annotations

from ...model.lane import Answer
from .. import asking
from .lane import LineRecord


class _Group:
    """Lines that ask the same: those that are to be answered, and those that follow them."""

    __slots__ = ("followers", "leaders")

    def __init__(self) -> None:
        self.leaders: dict[str, LineRecord] = {}
        self.followers: dict[str, LineRecord] = {}


class Answers:
    """What is kept, and who waits for it."""

    def __init__(self) -> None:
        self._kept: dict[str, Answer] = {}
        self._groups: dict[str, _Group] = {}

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

    def leader(self, line: LineRecord) -> LineRecord | None:
        """Whom a new line may follow."""
        group = self._groups.get(line.line.same)
        leaders = sorted(group.leaders.values(), key=by_number) if group is not None else []
        return next((each for each in leaders if asking.follows(line.line, each.line.due)), None)

    def lead(self, line: LineRecord) -> None:
        """It is to be answered."""
        self._groups.setdefault(line.line.same, _Group()).leaders[line.line.id] = line

    def follow(self, line: LineRecord) -> None:
        """It gets what another one gets."""
        self._groups.setdefault(line.line.same, _Group()).followers[line.line.id] = line

    def leave(self, line: LineRecord) -> None:
        """It has ended."""
        group = self._groups.get(line.line.same)
        if group is not None:
            group.leaders.pop(line.line.id, None)
            group.followers.pop(line.line.id, None)
            if not group.leaders and not group.followers:
                del self._groups[line.line.same]

    def leads(self, line: LineRecord) -> bool:
        """Whether it is one of those that are to be answered."""
        group = self._groups.get(line.line.same)
        return group is not None and line.line.id in group.leaders

    def leaders(self, same: str) -> list[LineRecord]:
        """Those that are to be answered, in order."""
        group = self._groups.get(same)
        return sorted(group.leaders.values(), key=by_number) if group is not None else []

    def followers(self, same: str) -> list[LineRecord]:
        """Those that wait for them, in order."""
        group = self._groups.get(same)
        return sorted(group.followers.values(), key=by_number) if group is not None else []

    def has_followers(self, same: str) -> bool:
        """Whether there are any."""
        group = self._groups.get(same)
        return group is not None and bool(group.followers)


def by_number(line: LineRecord) -> int:
    """Lines in order."""
    return line.number
