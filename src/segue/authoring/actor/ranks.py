"""Children by group and member, for the order in which they are to end: found without going over all of them."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from .checkpoint import Child

#: A group's name, and what of it as JSON.
Rank = tuple[str, str]


class Ranks:
    """The last rank ends first: of the last group, the member whose first child came last."""

    __slots__ = ("_came", "_firsts", "_groups")

    def __init__(self, children: Iterable[Child]) -> None:
        self._came = 0
        self._groups: dict[str, dict[str, OrderedDict[str, int]]] = {}  # ids, numbered as they came
        self._firsts: dict[str, list[tuple[int, str]]] = {}  # heaps of members by their first; some are over
        for child in children:
            self.add(child)

    def add(self, child: Child) -> None:
        """One has come, after all others."""
        self._came += 1
        members = self._groups.setdefault(child.group, {})
        ids = members.setdefault(child.member, OrderedDict())
        ids[child.id] = self._came
        if len(ids) == 1:
            heapq.heappush(self._firsts.setdefault(child.group, []), (-self._came, child.member))

    def drop(self, child: Child) -> None:
        """One has gone."""
        group, member = child.group, child.member
        members = self._groups[group]
        ids = members[member]
        number = ids.pop(child.id)
        if not ids:
            del members[member]
            if not members:
                del self._groups[group], self._firsts[group]
        elif number < _first(ids):
            heapq.heappush(self._firsts[group], (-_first(ids), member))

    def last(self, groups: Sequence[str]) -> Rank:
        """The rank that is to end first. `groups` in order; those that aren't among them come after."""
        others = self._groups.keys() - groups
        if others:
            group = max(others, key=lambda name: min(map(_first, self._groups[name].values())))
        else:
            group = next(name for name in reversed(groups) if name in self._groups)
        firsts, members = self._firsts[group], self._groups[group]
        while (ids := members.get(firsts[0][1])) is None or _first(ids) != -firsts[0][0]:
            heapq.heappop(firsts)
        return group, firsts[0][1]

    def of(self, rank: Rank) -> Iterator[str]:
        """The ids of a rank's children, in the order in which they came."""
        group, member = rank
        return iter(self._groups.get(group, {}).get(member, ()))


def _first(ids: OrderedDict[str, int]) -> int:
    return next(iter(ids.values()))
